// Goal: the heap's first item has the smallest deadline after any placing, moving and removing. Method: random operations beside
// a plain list, the first compared at each step; at the end all are taken and compared with a sorted list.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import { type Deadline, DeadlineHeap } from './deadline-heap.ts';

const lowest = (items: Iterable<Deadline>): number => Math.min(...[...items].map((item) => item.deadlineMs));

test('random placing, moving and removing equals a sorted list', () => {
  for (let seed = 1; seed <= 100; seed++) {
    const random = new SeededRandom(seed);
    const heap = new DeadlineHeap<Deadline>();
    const all: Deadline[] = Array.from({ length: 60 }, () => ({ deadlineMs: 0, heapIndex: -1 }));
    const placed = new Set<Deadline>();
    for (let step = 0; step < 400; step++) {
      const item = all[random.below(all.length)]!;
      if (random.below(3) > 0) {
        item.deadlineMs = random.below(10) === 0 ? Infinity : random.below(50);
        heap.place(item);
        placed.add(item);
      } else {
        heap.remove(item);
        placed.delete(item);
        assert.equal(item.heapIndex, -1);
      }
      assert.equal(heap.size, placed.size);
      assert.equal(heap.first()?.deadlineMs ?? Infinity, lowest(placed), `seed ${seed}`);
    }
    const taken: number[] = [];
    for (let first = heap.first(); first !== undefined; first = heap.first()) {
      heap.remove(first);
      taken.push(first.deadlineMs);
    }
    assert.deepEqual(
      taken,
      [...placed].map((item) => item.deadlineMs).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0)),
    );
  }
});

test('clear() lets every item be placed again', () => {
  const heap = new DeadlineHeap<Deadline>();
  const items = [5, 3, 4].map((deadlineMs) => ({ deadlineMs, heapIndex: -1 }));
  for (const item of items) heap.place(item);
  heap.clear();
  assert.deepEqual([heap.size, ...items.map((item) => item.heapIndex)], [0, -1, -1, -1]);
  heap.remove(items[0]!);
  for (const item of items) heap.place(item);
  assert.equal(heap.first()?.deadlineMs, 3);
});
