// The changes since the last freeze, in memory: every change of every key, newest first by key, with the keys in order. It
// knows nothing of the tables beneath; KeyIndex lays deltas over them.
//
// Everything is in typed arrays that double when full. What the flusher reads is shared memory (FrozenDelta); hash table,
// order and ordinals belong to the core alone. A collection of garbage sees some thirty objects, whatever the size.
//
//   records of keys and changes: index-records; order: index-order
//   hash table: two words a slot, hash and id + 1; linear probing, at most half full

import { assert } from '../base/assert.ts';
import type { IndexLimits } from '../storage-limits.ts';
import { equalBytes } from './index-key.ts';
import { OrderedIds } from './index-order.ts';
import { ChangeRecords, KeyRecords, type SharedKeys } from './index-records.ts';

/** What is known of one key at one revision. An out-object that callers reuse. */
export interface KeyState {
  /** Revision of the newest change seen; main 0: none. */
  main: number;
  sub: number;
  createMain: number;
  version: number;
  /** The lease id's upper and lower 32 bits, unsigned. */
  leaseHi: number;
  leaseLo: number;
  tombstone: boolean;
  /** Ordinal of the row in the RowLog, if the change was recorded by this process and is not merged; else -1. */
  ordinal: number;
}

export function newKeyState(): KeyState {
  return { main: 0, sub: 0, createMain: 0, version: 0, leaseHi: 0, leaseLo: 0, tombstone: false, ordinal: -1 };
}

/** The fields that are known of a key's newest change only. */
export function clearNewest(out: KeyState): void {
  out.createMain = 0;
  out.version = 0;
  out.leaseHi = 0;
  out.leaseLo = 0;
}

/** A delta that no longer changes, as posted to the flusher: plain fields, typed arrays over shared memory. */
export interface FrozenDelta {
  readonly mergeNumber: number;
  readonly keyCount: number;
  readonly changeCount: number;
  /** Newest main revision in it: the indexedRev once it is merged. */
  readonly newestMain: number;
  readonly keys: SharedKeys;
  readonly changes: SharedArrayBuffer;
  /** Ids in key order. */
  readonly order: Uint32Array;
}

export class Delta {
  readonly keys: KeyRecords;
  readonly changes: ChangeRecords;
  readonly order: OrderedIds;
  newestMain = 0;
  newestSub = 0;
  private readonly limits: IndexLimits;
  private readonly hashSeed: number;
  /** Of each key: 1 when it was live in the layers below as it came here. */
  private beneath: Uint8Array;
  private slots: Uint32Array;
  private slotMask: number;
  /** Hash of the key that find() looked for last. */
  private hash = 0;

  constructor(limits: IndexLimits, hashSeed: number) {
    const capacity = limits.deltaEntries;
    this.limits = limits;
    this.hashSeed = hashSeed;
    this.keys = KeyRecords.allocate(capacity, limits.keySlabBytes);
    this.changes = ChangeRecords.allocate(capacity);
    this.order = new OrderedIds(this.keys, capacity, limits.orderBlockIds);
    this.beneath = new Uint8Array(capacity);
    let slotCount = 16;
    while (slotCount < 2 * capacity) slotCount *= 2;
    this.slots = new Uint32Array(2 * slotCount);
    this.slotMask = slotCount - 1;
  }

  get changeCount(): number {
    return this.changes.count;
  }

  get keyCount(): number {
    return this.keys.count;
  }

  /** True when it has grown beyond its first size: better dropped than reset. */
  get oversized(): boolean {
    return this.changes.capacity > this.limits.deltaEntries || this.keys.capacity > this.limits.deltaEntries;
  }

  reset(): void {
    this.keys.reset();
    this.order.reset();
    this.slots.fill(0);
    this.changes.count = 0;
    this.newestMain = 0;
    this.newestSub = 0;
  }

  /** The key's id, or -1. Hot: 0.1 us. */
  find(key: Uint8Array, start: number, end: number): number {
    const hash = hashBytes(key, start, end, this.hashSeed);
    this.hash = hash;
    const slots = this.slots;
    const mask = this.slotMask;
    const length = end - start;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const entry = slots[2 * slot + 1]!;
      if (entry === 0) return -1;
      if (slots[2 * slot] !== hash) continue;
      const id = entry - 1;
      if (this.keys.length(id) !== length) continue;
      if (equalBytes(this.keys.slab(id), this.keys.start(id), key, start, length)) return id;
    }
  }

  /** `liveBeneath`: whether the key was live in the layers below; looked at only when the key is new here. Hot: 1.5 us. */
  record(key: Uint8Array, start: number, end: number, state: KeyState, liveBeneath: boolean): void {
    const { main, sub } = state;
    assert(main > this.newestMain || (main === this.newestMain && sub > this.newestSub), 'change is not newer');
    this.newestMain = main;
    this.newestSub = sub;
    let id = this.find(key, start, end);
    const isNew = id === -1;
    if (isNew) id = this.addKey(key, start, end, liveBeneath);
    const previous = isNew ? -1 : this.keys.newest(id);
    const change = this.changes.append(main, sub, state.tombstone, previous, state.ordinal);
    this.keys.setState(id, change, state);
    this.order.setLife(id, (state.tombstone ? 0 : 1) - this.beneath[id]!);
  }

  private addKey(key: Uint8Array, start: number, end: number, liveBeneath: boolean): number {
    const id = this.keys.append(key, start, end);
    if (id === this.beneath.length) this.growKeys();
    this.beneath[id] = liveBeneath ? 1 : 0;
    this.order.insert(id, key, start, end);
    this.insertSlot(this.hash, id);
    return id;
  }

  private insertSlot(hash: number, id: number): void {
    let slot = hash & this.slotMask;
    while (this.slots[2 * slot + 1] !== 0) slot = (slot + 1) & this.slotMask;
    this.slots[2 * slot] = hash;
    this.slots[2 * slot + 1] = id + 1;
  }

  /** The newest change of the key; all fields. */
  newest(id: number, out: KeyState): void {
    this.keys.getState(id, out);
  }

  /** The newest change with main <= atRev: false when there is none here. All fields when it is the key's newest. */
  at(id: number, atRev: number, out: KeyState): boolean {
    this.keys.getState(id, out);
    if (out.main <= atRev) return true;
    const { changes } = this;
    let change = this.keys.newest(id);
    do change = changes.previous(change);
    while (change !== -1 && changes.main(change) > atRev);
    if (change === -1) return false;
    clearNewest(out);
    out.main = changes.main(change);
    out.sub = changes.sub(change);
    out.tombstone = changes.tombstone(change);
    out.ordinal = changes.ordinal(change);
    return true;
  }

  share(mergeNumber: number): FrozenDelta {
    const order = new Uint32Array(new SharedArrayBuffer(4 * this.keyCount));
    this.order.flatten(order);
    return {
      mergeNumber,
      keyCount: this.keyCount,
      changeCount: this.changeCount,
      newestMain: this.newestMain,
      keys: this.keys.share(),
      changes: this.changes.share(),
      order,
    };
  }

  private growKeys(): void {
    const beneath = new Uint8Array(2 * this.beneath.length);
    beneath.set(this.beneath);
    this.beneath = beneath;
    const old = this.slots;
    this.slots = new Uint32Array(2 * old.length);
    this.slotMask = old.length - 1;
    for (let i = 0; i < old.length; i += 2) if (old[i + 1] !== 0) this.insertSlot(old[i]!, old[i + 1]! - 1);
  }
}

/** Four bytes a step, then murmur3's finish: spreads keys that differ in their last digits only. */
function hashBytes(key: Uint8Array, start: number, end: number, seed: number): number {
  let hash = seed ^ (end - start);
  let at = start;
  for (const last = end - 3; at < last; at += 4) {
    const word = key[at]! | (key[at + 1]! << 8) | (key[at + 2]! << 16) | (key[at + 3]! << 24);
    hash = Math.imul(hash ^ word, 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  for (; at < end; at++) hash = Math.imul(hash ^ key[at]!, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
