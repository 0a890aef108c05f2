// A binary heap of leases by deadline. Each lease knows its place, so that a renewal moves it instead of adding a second entry:
// the heap is never larger than the number of leases.

import { assert } from '../base/assert.ts';

export interface Deadline {
  deadlineMs: number;
  /** Place in the heap; -1 when not in it. Owned by the heap. */
  heapIndex: number;
}

export class DeadlineHeap<T extends Deadline> {
  private readonly items: T[] = [];

  get size(): number {
    return this.items.length;
  }

  first(): T | undefined {
    return this.items[0];
  }

  /** Adds the item, or moves it after its deadline changed. */
  place(item: T): void {
    if (item.heapIndex < 0) {
      item.heapIndex = this.items.length;
      this.items.push(item);
    }
    this.sinkOrRise(item);
  }

  remove(item: T): void {
    const index = item.heapIndex;
    if (index < 0) return;
    assert(this.items[index] === item, 'a lease is not where it says in the heap');
    const last = this.items.pop()!;
    item.heapIndex = -1;
    if (last === item) return;
    this.items[index] = last;
    last.heapIndex = index;
    this.sinkOrRise(last);
  }

  clear(): void {
    for (const item of this.items) item.heapIndex = -1;
    this.items.length = 0;
  }

  private sinkOrRise(item: T): void {
    const items = this.items;
    let index = item.heapIndex;
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = items[parentIndex]!;
      if (parent.deadlineMs <= item.deadlineMs) break;
      items[index] = parent;
      parent.heapIndex = index;
      index = parentIndex;
    }
    for (;;) {
      let childIndex = index * 2 + 1;
      if (childIndex >= items.length) break;
      if (childIndex + 1 < items.length && items[childIndex + 1]!.deadlineMs < items[childIndex]!.deadlineMs) {
        childIndex++;
      }
      const child = items[childIndex]!;
      if (child.deadlineMs >= item.deadlineMs) break;
      items[index] = child;
      child.heapIndex = index;
      index = childIndex;
    }
    items[index] = item;
    item.heapIndex = index;
  }
}
