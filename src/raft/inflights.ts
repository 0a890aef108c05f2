// The append messages that are on their way to one follower: a window bounded in messages and bytes. A ring of (last
// index, bytes) that grows by doubling up to the bound, so that an idle follower costs nothing.
//
//   start=2 count=3, ring of 4:   [ 14 | - | 8 | 11 ]   oldest 8, newest 14; freeTo(11) leaves 14

import { assert } from '../base/assert.ts';

export class Inflights {
  readonly #countMax: number;
  readonly #bytesMax: number;
  #start = 0;
  #count = 0;
  #bytes = 0;
  /** Same length, a power of two or countMax. */
  #indexRing: number[] = [];
  #bytesRing: number[] = [];

  constructor(countMax: number, bytesMax: number) {
    this.#countMax = countMax;
    this.#bytesMax = bytesMax;
  }

  get count(): number {
    return this.#count;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The last message may pass the byte bound: what matters is that none is added after it. */
  get full(): boolean {
    return this.#count === this.#countMax || this.#bytes >= this.#bytesMax;
  }

  /** A message whose last entry is `index` was sent; indexes ascend. */
  add(index: number, bytes: number): void {
    assert(!this.full, 'a message beyond the window');
    if (this.#count === this.#indexRing.length) this.#grow();
    const slot = (this.#start + this.#count) % this.#indexRing.length;
    this.#indexRing[slot] = index;
    this.#bytesRing[slot] = bytes;
    this.#count++;
    this.#bytes += bytes;
  }

  /** The follower has everything up to `index`. */
  freeTo(index: number): void {
    while (this.#count > 0 && this.#indexRing[this.#start]! <= index) {
      this.#bytes -= this.#bytesRing[this.#start]!;
      this.#start = (this.#start + 1) % this.#indexRing.length;
      this.#count--;
    }
  }

  reset(): void {
    this.#start = 0;
    this.#count = 0;
    this.#bytes = 0;
  }

  #grow(): void {
    const size = Math.min(this.#countMax, Math.max(1, this.#indexRing.length * 2));
    const indexes = new Array<number>(size).fill(0);
    const bytes = new Array<number>(size).fill(0);
    for (let i = 0; i < this.#count; i++) {
      const slot = (this.#start + i) % this.#indexRing.length;
      indexes[i] = this.#indexRing[slot]!;
      bytes[i] = this.#bytesRing[slot]!;
    }
    this.#indexRing = indexes;
    this.#bytesRing = bytes;
    this.#start = 0;
  }

  /** For tests: ascending indexes and sums that agree. */
  checkInvariants(): void {
    let bytes = 0;
    let last = -1;
    for (let i = 0; i < this.#count; i++) {
      const slot = (this.#start + i) % this.#indexRing.length;
      assert(this.#indexRing[slot]! > last, 'inflight indexes must ascend');
      last = this.#indexRing[slot]!;
      bytes += this.#bytesRing[slot]!;
    }
    assert(bytes === this.#bytes, 'inflight bytes must be the sum');
    assert(this.#count <= this.#countMax, 'more inflight messages than allowed');
  }
}
