// The two kinds of records of a delta, in shared memory: written by the core thread, read by the flusher once the delta is
// frozen. No heap object a record. Not an order and not a hash table: those hold ids (index-order, index-delta).
//
// A record's fields lie together, and a key's record is one cache line with all of its newest state: an array for each
// field would cost a miss for each.
//
//   key record, 64 bytes                          change record, 24 bytes
//   0  u32 slab of the key's bytes                 0  f64 main revision
//   4  u32 offset in the slab                      8  u32 sub revision x 2 + tombstone
//   8  u32 length                                 12  u32 previous change of the key + 1 (0: none)
//  12  u32 number of the newest change            16  f64 ordinal of the row, -1: none
//  16  f64 create revision
//  24  f64 version
//  32  u32 x 2 lease id
//  40  f64, u32 main, sub x 2 + tombstone,
//  56  f64 and ordinal of the newest change

import type { KeyState } from './index-delta.ts';

const KEY_WORDS = 16;
const KEY_NUMBERS = KEY_WORDS / 2;
const CHANGE_WORDS = 6;
const CHANGE_NUMBERS = CHANGE_WORDS / 2;

/** What is posted to the flusher. */
export interface SharedKeys {
  readonly slabs: readonly SharedArrayBuffer[];
  readonly records: SharedArrayBuffer;
}

/** The distinct keys of a delta, by id. */
export class KeyRecords {
  count = 0;
  private slabs: Buffer[] = [];
  private words: Uint32Array;
  private numbers: Float64Array;
  private readonly slabBytes: number;
  /** The slab being filled (-1: none) and how far; longer keys have slabs of their own. */
  private current = -1;
  private used = 0;

  constructor(records: SharedArrayBuffer, slabBytes: number) {
    this.slabBytes = slabBytes;
    this.words = new Uint32Array(records);
    this.numbers = new Float64Array(records);
  }

  static allocate(capacity: number, slabBytes: number): KeyRecords {
    return new KeyRecords(new SharedArrayBuffer(4 * KEY_WORDS * capacity), slabBytes);
  }

  /** Over what another thread posted. */
  static shared(keys: SharedKeys): KeyRecords {
    const view = new KeyRecords(keys.records, 0);
    view.slabs = keys.slabs.map((slab) => Buffer.from(slab));
    return view;
  }

  share(): SharedKeys {
    return {
      slabs: this.slabs.map((slab) => slab.buffer as SharedArrayBuffer),
      records: this.words.buffer as SharedArrayBuffer,
    };
  }

  get capacity(): number {
    return this.words.length / KEY_WORDS;
  }

  /** Forgets the keys; the slabs are dropped too, all but one. */
  reset(): void {
    const first = this.slabs.find((slab) => slab.length === this.slabBytes);
    this.slabs = first === undefined ? [] : [first];
    this.current = this.slabs.length - 1;
    this.used = 0;
    this.count = 0;
  }

  grow(): void {
    const grown = new SharedArrayBuffer(2 * this.words.byteLength);
    const words = new Uint32Array(grown);
    words.set(this.words);
    this.words = words;
    this.numbers = new Float64Array(grown);
  }

  append(key: Uint8Array, start: number, end: number): number {
    const length = end - start;
    let slab = this.current;
    let offset = this.used;
    if (length > this.slabBytes) {
      slab = this.newSlab(length);
      offset = 0;
    } else {
      if (slab === -1 || offset + length > this.slabBytes) {
        slab = this.newSlab(this.slabBytes);
        offset = 0;
        this.current = slab;
      }
      this.used = offset + length;
    }
    const target = this.slabs[slab]!;
    for (let i = 0; i < length; i++) target[offset + i] = key[start + i]!;
    const id = this.count++;
    const at = KEY_WORDS * id;
    if (at === this.words.length) this.grow();
    this.words[at] = slab;
    this.words[at + 1] = offset;
    this.words[at + 2] = length;
    return id;
  }

  private newSlab(bytes: number): number {
    return this.slabs.push(Buffer.from(new SharedArrayBuffer(bytes))) - 1;
  }

  setState(id: number, newest: number, state: KeyState): void {
    const at = KEY_WORDS * id;
    const number = KEY_NUMBERS * id;
    const { words, numbers } = this;
    words[at + 3] = newest;
    numbers[number + 2] = state.createMain;
    numbers[number + 3] = state.version;
    words[at + 8] = state.leaseHi;
    words[at + 9] = state.leaseLo;
    numbers[number + 5] = state.main;
    words[at + 12] = state.sub * 2 + (state.tombstone ? 1 : 0);
    numbers[number + 7] = state.ordinal;
  }

  /** The state as of the key's newest change. */
  getState(id: number, out: KeyState): void {
    const at = KEY_WORDS * id;
    const number = KEY_NUMBERS * id;
    const { words, numbers } = this;
    const sub = words[at + 12]!;
    out.main = numbers[number + 5]!;
    out.sub = sub >>> 1;
    out.tombstone = (sub & 1) === 1;
    out.ordinal = numbers[number + 7]!;
    out.createMain = numbers[number + 2]!;
    out.version = numbers[number + 3]!;
    out.leaseHi = words[at + 8]!;
    out.leaseLo = words[at + 9]!;
  }

  slab(id: number): Buffer {
    return this.slabs[this.words[KEY_WORDS * id]!]!;
  }

  start(id: number): number {
    return this.words[KEY_WORDS * id + 1]!;
  }

  end(id: number): number {
    const at = KEY_WORDS * id;
    return this.words[at + 1]! + this.words[at + 2]!;
  }

  length(id: number): number {
    return this.words[KEY_WORDS * id + 2]!;
  }

  newest(id: number): number {
    return this.words[KEY_WORDS * id + 3]!;
  }

  createMain(id: number): number {
    return this.numbers[KEY_NUMBERS * id + 2]!;
  }

  version(id: number): number {
    return this.numbers[KEY_NUMBERS * id + 3]!;
  }

  leaseHi(id: number): number {
    return this.words[KEY_WORDS * id + 8]!;
  }

  leaseLo(id: number): number {
    return this.words[KEY_WORDS * id + 9]!;
  }

  /** Three bytes of the key from `offset` on as a number that orders as they do; a byte after the end is below all others. */
  word(id: number, offset: number): number {
    const at = KEY_WORDS * id;
    const slab = this.slabs[this.words[at]!]!;
    const from = this.words[at + 1]! + offset;
    const rest = this.words[at + 2]! - offset;
    const first = rest > 0 ? slab[from]! + 1 : 0;
    const second = rest > 1 ? slab[from + 1]! + 1 : 0;
    return (first * 257 + second) * 257 + (rest > 2 ? slab[from + 2]! + 1 : 0);
  }

  /** How many bytes both keys begin with, from `skip` on, which are known to be equal, up to `max`. */
  commonBytes(a: number, b: number, skip: number, max: number): number {
    const slabA = this.slab(a);
    const slabB = this.slab(b);
    const startA = this.start(a);
    const startB = this.start(b);
    const length = Math.min(max, this.length(b));
    let at = skip;
    while (at < length && slabA[startA + at] === slabB[startB + at]) at++;
    return at;
  }

  /** Number of bytes that the last compare() found equal at the beginning. */
  common = 0;

  /** As compareBytes(this id's key, key), when it is known that their first `skip` bytes are equal. Hot. */
  compare(id: number, key: Uint8Array, start: number, end: number, skip: number): -1 | 0 | 1 {
    const at = KEY_WORDS * id;
    const slab = this.slabs[this.words[at]!]!;
    const from = this.words[at + 1]!;
    const mine = this.words[at + 2]!;
    const other = end - start;
    const length = Math.min(mine, other);
    let i = skip;
    while (i < length && slab[from + i] === key[start + i]) i++;
    this.common = i;
    if (i < length) return slab[from + i]! < key[start + i]! ? -1 : 1;
    return mine === other ? 0 : mine < other ? -1 : 1;
  }
}

/** The changes of a delta, by number, in revision order. */
export class ChangeRecords {
  count = 0;
  private words: Uint32Array;
  private numbers: Float64Array;

  constructor(records: SharedArrayBuffer) {
    this.words = new Uint32Array(records);
    this.numbers = new Float64Array(records);
  }

  static allocate(capacity: number): ChangeRecords {
    return new ChangeRecords(new SharedArrayBuffer(4 * CHANGE_WORDS * capacity));
  }

  share(): SharedArrayBuffer {
    return this.words.buffer as SharedArrayBuffer;
  }

  get capacity(): number {
    return this.words.length / CHANGE_WORDS;
  }

  /** `previous`: the key's change before this one, or -1. */
  append(main: number, sub: number, tombstone: boolean, previous: number, ordinal: number): number {
    const change = this.count++;
    const at = CHANGE_WORDS * change;
    if (at === this.words.length) this.grow();
    this.numbers[CHANGE_NUMBERS * change] = main;
    this.words[at + 2] = sub * 2 + (tombstone ? 1 : 0);
    this.words[at + 3] = previous + 1;
    this.numbers[CHANGE_NUMBERS * change + 2] = ordinal;
    return change;
  }

  private grow(): void {
    const grown = new SharedArrayBuffer(2 * this.words.byteLength);
    const words = new Uint32Array(grown);
    words.set(this.words);
    this.words = words;
    this.numbers = new Float64Array(grown);
  }

  main(change: number): number {
    return this.numbers[CHANGE_NUMBERS * change]!;
  }

  sub(change: number): number {
    return this.words[CHANGE_WORDS * change + 2]! >>> 1;
  }

  tombstone(change: number): boolean {
    return (this.words[CHANGE_WORDS * change + 2]! & 1) === 1;
  }

  previous(change: number): number {
    return this.words[CHANGE_WORDS * change + 3]! - 1;
  }

  ordinal(change: number): number {
    return this.numbers[CHANGE_NUMBERS * change + 2]!;
  }
}
