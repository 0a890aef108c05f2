// Sorts all keys of a delta at once: what a start does instead of inserting each key into the order (0.2 us a key instead of
// 2). Not for a running server, whose keys come one by one (index-order.ts).
//
// Three bytes of a key and its place are one number, so that the engine's sort of a Float64Array does the work; keys that are
// equal there are sorted again by the next three bytes after what they have in common.
//
//   number = ((b0 * 257 + b1) * 257 + b2) * 2^26 + place in the group     b: byte + 1, or 0 after the key's end

import { assert } from '../base/assert.ts';
import type { KeyRecords } from './index-records.ts';

const PLACES = 2 ** 26;
const WORD_BYTES = 3;
/** Groups up to here are sorted by comparing. */
const SMALL = 12;
/** Rounds after which groups are sorted by comparing: keys that share much but not all would take too many. */
const ROUNDS_MAX = 16;

/** The ids of all keys in key order. */
export function sortedIds(keys: KeyRecords): Uint32Array {
  const { count } = keys;
  assert(count <= PLACES, 'too many keys to be sorted at once');
  const ids = new Uint32Array(count);
  for (let id = 0; id < count; id++) ids[id] = id;
  const sorter = new Sorter(keys, ids);
  sorter.add(0, count, 0, 0);
  sorter.run();
  return ids;
}

class Sorter {
  private readonly keys: KeyRecords;
  private readonly ids: Uint32Array;
  private readonly before: Uint32Array;
  private readonly numbers: Float64Array;
  /** Groups to be sorted: from, to, bytes known to be equal, round. */
  private readonly groups: number[] = [];

  constructor(keys: KeyRecords, ids: Uint32Array) {
    this.keys = keys;
    this.ids = ids;
    this.before = new Uint32Array(ids.length);
    this.numbers = new Float64Array(ids.length);
  }

  add(from: number, to: number, skip: number, round: number): void {
    if (to - from <= 1) return;
    if (to - from <= SMALL) this.insertionSort(from, to, skip);
    else if (round >= ROUNDS_MAX) this.ids.subarray(from, to).sort((a, b) => this.compare(a, b, skip));
    else this.groups.push(from, to, skip, round);
  }

  run(): void {
    const { groups } = this;
    while (groups.length > 0) {
      const round = groups.pop()!;
      const skip = groups.pop()!;
      const to = groups.pop()!;
      this.sortGroup(groups.pop()!, to, skip, round);
    }
  }

  private sortGroup(from: number, to: number, skip: number, round: number): void {
    const { keys, ids, numbers, before } = this;
    const common = this.commonBytes(from, to, skip);
    for (let i = from; i < to; i++) numbers[i] = keys.word(ids[i]!, common) * PLACES + (i - from);
    numbers.subarray(from, to).sort();
    before.set(ids.subarray(from, to), from);
    let groupFrom = from;
    let groupWord = -1;
    for (let i = from; i < to; i++) {
      const word = Math.floor(numbers[i]! / PLACES);
      ids[i] = before[from + (numbers[i]! - word * PLACES)]!;
      if (word === groupWord) continue;
      this.add(groupFrom, i, common + WORD_BYTES, round + 1);
      groupFrom = i;
      groupWord = word;
    }
    this.add(groupFrom, to, common + WORD_BYTES, round + 1);
  }

  /** How many bytes at the beginning all keys of the group share; `skip` of them are known to be. */
  private commonBytes(from: number, to: number, skip: number): number {
    const { keys, ids } = this;
    const first = ids[from]!;
    let common = keys.length(first);
    for (let i = from + 1; i < to && common > skip; i++) common = keys.commonBytes(first, ids[i]!, skip, common);
    return common;
  }

  private compare(a: number, b: number, skip: number): number {
    const { keys } = this;
    return keys.compare(a, keys.slab(b), keys.start(b), keys.end(b), skip);
  }

  private insertionSort(from: number, to: number, skip: number): void {
    const { ids } = this;
    for (let i = from + 1; i < to; i++) {
      const id = ids[i]!;
      let at = i;
      while (at > from && this.compare(ids[at - 1]!, id, skip) > 0) {
        ids[at] = ids[at - 1]!;
        at--;
      }
      ids[at] = id;
    }
  }
}
