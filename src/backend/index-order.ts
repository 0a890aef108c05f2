// The ids of a delta's keys in key order: a list of blocks of at most 512 ids, each with the sum of its keys' contributions
// to the number of live keys. Not a tree: two levels are enough for some millions of keys, and a search touches two arrays.
//
// Insert 1 us at 300,000 keys, most of it comparing keys; sum over any range: one addition a block and two edges.

import { assert } from '../base/assert.ts';
import type { KeyRecords } from './index-records.ts';
import { sortedIds } from './index-sort.ts';

/** A place in the order: before the id at ids[sequence[block]][at]; block === blockCount at the end. */
export class OrderCursor {
  block = 0;
  at = 0;
}

export class OrderedIds {
  readonly keys: KeyRecords;
  blockCount = 0;
  /** Sum of life over all ids. */
  lifeTotal = 0;
  private readonly blockIds: number;
  private ids: Uint32Array;
  /** Slots of `ids` in key order. */
  private sequence: Uint32Array;
  private lengths: Uint16Array;
  private sums: Int32Array;
  /** Of each id: its slot, and -1, 0 or 1. */
  private slotOf: Uint32Array;
  private life: Int8Array;
  /** Ids come without a place until settle(); nothing is looked up meanwhile. */
  private deferred = false;
  private readonly cursor: OrderCursor = new OrderCursor();

  constructor(keys: KeyRecords, capacity: number, blockIds: number) {
    const slots = Math.max(16, Math.ceil((2 * capacity) / blockIds));
    this.keys = keys;
    this.blockIds = blockIds;
    this.ids = new Uint32Array(slots * blockIds);
    this.sequence = new Uint32Array(slots);
    this.lengths = new Uint16Array(slots);
    this.sums = new Int32Array(slots);
    this.slotOf = new Uint32Array(capacity);
    this.life = new Int8Array(capacity);
  }

  reset(): void {
    this.blockCount = 0;
    this.lifeTotal = 0;
    this.deferred = false;
  }

  /** From now on insert() only notes the id: for a start, which has all keys before it needs their order. */
  defer(): void {
    assert(this.blockCount === 0 && this.keys.count === 0, 'order deferred with keys in it');
    this.deferred = true;
  }

  /** Puts all keys in order, if that was deferred. */
  settle(): void {
    if (!this.deferred) return;
    this.deferred = false;
    const sorted = sortedIds(this.keys);
    // Room in each block, so that the inserts that follow do not halve all of them at once.
    const fill = Math.max(1, Math.floor((this.blockIds * 3) / 4));
    for (let from = 0; from < sorted.length; from += fill) {
      const to = Math.min(from + fill, sorted.length);
      const slot = this.newBlock(this.blockCount);
      let sum = 0;
      for (let i = from; i < to; i++) {
        const id = sorted[i]!;
        this.ids[slot * this.blockIds + i - from] = id;
        this.slotOf[id] = slot;
        sum += this.life[id]!;
      }
      this.lengths[slot] = to - from;
      this.sums[slot] = sum;
    }
  }

  /** The last block whose first key is <= key (0 when there is none), then the first place in it that is not below key. */
  lowerBound(key: Uint8Array, start: number, end: number, out: OrderCursor): void {
    const { keys, ids, sequence, blockIds } = this;
    assert(!this.deferred, 'order looked at before it is settled');
    let low = 0;
    let high = this.blockCount;
    // Everything between two keys begins as far as both with what they have in common with the key that is looked for.
    let lowCommon = 0;
    let highCommon = 0;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      const skip = Math.min(lowCommon, highCommon);
      if (keys.compare(ids[sequence[middle]! * blockIds]!, key, start, end, skip) <= 0) {
        low = middle;
        lowCommon = keys.common;
      } else {
        high = middle;
        highCommon = keys.common;
      }
    }
    if (this.blockCount === 0) {
      out.block = 0;
      out.at = 0;
      return;
    }
    const slot = sequence[low]!;
    const first = slot * blockIds;
    const length = this.lengths[slot]!;
    let from = 0;
    let to = length;
    while (from < to) {
      const middle = (from + to) >>> 1;
      if (keys.compare(ids[first + middle]!, key, start, end, Math.min(lowCommon, highCommon)) < 0) {
        from = middle + 1;
        lowCommon = keys.common;
      } else {
        to = middle;
        highCommon = keys.common;
      }
    }
    out.block = from === length ? low + 1 : low;
    out.at = from === length ? 0 : from;
  }

  endCursor(out: OrderCursor): void {
    out.block = this.blockCount;
    out.at = 0;
  }

  idAt(cursor: OrderCursor): number {
    return this.ids[this.sequence[cursor.block]! * this.blockIds + cursor.at]!;
  }

  step(cursor: OrderCursor): void {
    if (++cursor.at < this.lengths[this.sequence[cursor.block]!]!) return;
    cursor.block++;
    cursor.at = 0;
  }

  /** Puts a new id, whose key is already in `keys`, at its place. Hot: 1 us. */
  insert(id: number, key: Uint8Array, start: number, end: number): void {
    if (id >= this.slotOf.length) this.growIds(id);
    this.life[id] = 0;
    if (this.deferred) return;
    if (this.blockCount === 0) {
      this.newBlock(0);
    }
    const cursor = this.cursor;
    this.lowerBound(key, start, end, cursor);
    let block = cursor.block;
    let at = cursor.at;
    if (at === 0 && block > 0) {
      // Between two blocks: to the end of the first.
      block--;
      at = this.lengths[this.sequence[block]!]!;
    }
    let slot = this.sequence[block]!;
    const length = this.lengths[slot]!;
    if (length === this.blockIds) {
      const append = at === length && block === this.blockCount - 1;
      // Keys that come in ascending order fill their blocks; others halve them.
      const keep = append ? length : length >>> 1;
      this.split(block, keep);
      if (at >= keep && (append || at > keep)) {
        slot = this.sequence[block + 1]!;
        at -= keep;
      }
    }
    const from = slot * this.blockIds;
    this.ids.copyWithin(from + at + 1, from + at, from + this.lengths[slot]!);
    this.ids[from + at] = id;
    this.lengths[slot]!++;
    this.slotOf[id] = slot;
  }

  /** Says what the key of this id adds to the number of live keys beneath this delta. */
  setLife(id: number, life: number): void {
    const change = life - this.life[id]!;
    if (change === 0) return;
    this.life[id] = life;
    this.lifeTotal += change;
    if (!this.deferred) this.sums[this.slotOf[id]!]! += change;
  }

  /** Sum of life over [from, to). */
  lifeBetween(from: OrderCursor, to: OrderCursor): number {
    if (from.block > to.block || (from.block === to.block && from.at >= to.at)) return 0;
    if (from.block === to.block) return this.lifeInside(from.block, from.at, to.at);
    let sum = this.lifeInside(from.block, from.at, this.blockIds);
    for (let block = from.block + 1; block < to.block; block++) sum += this.sums[this.sequence[block]!]!;
    return sum + this.lifeInside(to.block, 0, to.at);
  }

  private lifeInside(block: number, from: number, to: number): number {
    if (block >= this.blockCount) return 0;
    const slot = this.sequence[block]!;
    const first = slot * this.blockIds;
    const last = Math.min(to, this.lengths[slot]!);
    let sum = 0;
    for (let at = from; at < last; at++) sum += this.life[this.ids[first + at]!]!;
    return sum;
  }

  /** All ids in key order. */
  flatten(out: Uint32Array): void {
    assert(!this.deferred, 'order looked at before it is settled');
    let at = 0;
    for (let block = 0; block < this.blockCount; block++) {
      const slot = this.sequence[block]!;
      const first = slot * this.blockIds;
      const length = this.lengths[slot]!;
      for (let i = 0; i < length; i++) out[at++] = this.ids[first + i]!;
    }
  }

  private newBlock(at: number): number {
    if (this.blockCount === this.sequence.length) this.growBlocks();
    const slot = this.blockCount;
    this.sequence.copyWithin(at + 1, at, this.blockCount);
    this.sequence[at] = slot;
    this.lengths[slot] = 0;
    this.sums[slot] = 0;
    this.blockCount++;
    return slot;
  }

  private split(block: number, keep: number): void {
    const right = this.newBlock(block + 1);
    const left = this.sequence[block]!;
    const from = left * this.blockIds;
    const to = right * this.blockIds;
    const moved = this.lengths[left]! - keep;
    this.ids.copyWithin(to, from + keep, from + keep + moved);
    this.lengths[left] = keep;
    this.lengths[right] = moved;
    let sum = 0;
    for (let i = to; i < to + moved; i++) {
      const id = this.ids[i]!;
      this.slotOf[id] = right;
      sum += this.life[id]!;
    }
    this.sums[left]! -= sum;
    this.sums[right] = sum;
  }

  private growIds(id: number): void {
    const capacity = 2 * Math.max(id, this.slotOf.length);
    const slotOf = new Uint32Array(capacity);
    slotOf.set(this.slotOf);
    this.slotOf = slotOf;
    const life = new Int8Array(capacity);
    life.set(this.life);
    this.life = life;
  }

  private growBlocks(): void {
    const slots = 2 * this.sequence.length;
    const ids = new Uint32Array(slots * this.blockIds);
    ids.set(this.ids);
    this.ids = ids;
    const sequence = new Uint32Array(slots);
    sequence.set(this.sequence);
    this.sequence = sequence;
    const lengths = new Uint16Array(slots);
    lengths.set(this.lengths);
    this.lengths = lengths;
    const sums = new Int32Array(slots);
    sums.set(this.sums);
    this.sums = sums;
  }
}
