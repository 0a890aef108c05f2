// A list of row revisions in typed arrays, sorted once it is full: what a compaction deletes, what a hash leaves out. A
// million of them are 13 MB and no objects.

import { assert } from '../base/assert.ts';
import type { SortedRevisions } from './row-hashes.ts';

/** Bounds within which main, sub and the tombstone bit fit one exact number together. */
const MAIN_MAX = 2 ** 33;
const SUB_MAX = 2 ** 19;

export class RevisionList implements SortedRevisions {
  count = 0;
  private mainOf = new Float64Array(1024);
  private subOf = new Uint32Array(1024);
  private tombstoneOf = new Uint8Array(1024);
  private sorted = true;

  push(main: number, sub: number, tombstone: boolean): void {
    if (this.count === this.mainOf.length) this.grow();
    this.mainOf[this.count] = main;
    this.subOf[this.count] = sub;
    this.tombstoneOf[this.count] = tombstone ? 1 : 0;
    this.count++;
    this.sorted = false;
  }

  private grow(): void {
    const size = 2 * this.mainOf.length;
    const mains = new Float64Array(size);
    const subs = new Uint32Array(size);
    const tombstones = new Uint8Array(size);
    mains.set(this.mainOf);
    subs.set(this.subOf);
    tombstones.set(this.tombstoneOf);
    this.mainOf = mains;
    this.subOf = subs;
    this.tombstoneOf = tombstones;
  }

  get mains(): Float64Array {
    assert(this.sorted, 'revision list used before it is sorted');
    return this.mainOf.subarray(0, this.count);
  }

  sub(index: number): number {
    return this.subOf[index]!;
  }

  isTombstone(index: number): boolean {
    return this.tombstoneOf[index] === 1;
  }

  /** By main, then sub. 0.1 us a row. */
  sort(): void {
    const { count, mainOf, subOf, tombstoneOf } = this;
    this.sorted = true;
    let fits = true;
    for (let i = 0; i < count; i++) fits &&= mainOf[i]! < MAIN_MAX && subOf[i]! < SUB_MAX;
    if (!fits) {
      this.sortByComparison();
      return;
    }
    const packed = new Float64Array(count);
    for (let i = 0; i < count; i++) packed[i] = (mainOf[i]! * SUB_MAX + subOf[i]!) * 2 + tombstoneOf[i]!;
    packed.sort();
    for (let i = 0; i < count; i++) {
      const value = packed[i]!;
      const revision = Math.floor(value / 2);
      tombstoneOf[i] = value % 2;
      mainOf[i] = Math.floor(revision / SUB_MAX);
      subOf[i] = revision % SUB_MAX;
    }
  }

  private sortByComparison(): void {
    const { count, mainOf, subOf, tombstoneOf } = this;
    const order = Uint32Array.from({ length: count }, (_, i) => i);
    order.sort((a, b) => mainOf[a]! - mainOf[b]! || subOf[a]! - subOf[b]!);
    this.mainOf = Float64Array.from(order, (i) => mainOf[i]!);
    this.subOf = Uint32Array.from(order, (i) => subOf[i]!);
    this.tombstoneOf = Uint8Array.from(order, (i) => tombstoneOf[i]!);
  }

  has(main: number, sub: number): boolean {
    assert(this.sorted, 'revision list used before it is sorted');
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const difference = this.mainOf[middle]! - main || this.subOf[middle]! - sub;
      if (difference === 0) return true;
      if (difference < 0) low = middle + 1;
      else high = middle;
    }
    return false;
  }
}
