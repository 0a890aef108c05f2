// The key index: which revisions each key has. Deltas in memory over tables on disk, so that neither a start nor the
// collector of garbage pays for the number of keys. Meaning as etcd's treeIndex (server/storage/mvcc/index.go); it is not a
// cache of values and knows no rows: a change's row is found by its revision, or by its ordinal while it is in memory.
//
//   active delta   what was recorded since the last freeze
//   frozen delta   being merged into the tables by the flusher (index-merge.ts)
//   tables         as of the environment's last refresh(); they may hold a part of the frozen delta already, in key order
//                  up to the merge mark: what is found twice is the same, and counts take the mark into account
//
// Numbers of live keys: blocks of `live` (index-count), plus what the keys of each delta add beneath it (index-order), less
// what was created since an older revision (index-life).
//
// What the caller owes, besides index-merge.ts's header: changes are recorded in revision order; after a start the rows
// above indexedRev are given to recover(), in order, before anything else; a read at atRev is at or above the compaction
// revision; the environment is refreshed only between calls; the visitor of a scan calls nothing here.

import { assert } from '../base/assert.ts';
import { assertSound } from '../base/fatal.ts';
import type { ReadEnvironment } from '../io/table.ts';
import { type IndexLimits, indexLimits } from '../storage-limits.ts';
import { BlockCounts } from './index-count.ts';
import { clearNewest, Delta, type FrozenDelta, type KeyState, newKeyState } from './index-delta.ts';
import { ByteReader, EntryFlag, MERGE_FINISHED } from './index-entry.ts';
import { compareBytes, KeyReader } from './index-key.ts';
import { LifeLog } from './index-life.ts';
import { OrderCursor } from './index-order.ts';
import { IndexScan, type KeyVisitor } from './index-scan.ts';
import {
  type IndexReadTables,
  indexTables,
  type MergedPart,
  type MergeMark,
  newMergeMark,
  readMergedParts,
  readMergeMark,
  TableReader,
} from './index-tables.ts';
import type { RowAhead } from './row-ahead.ts';

export interface KeyIndexOptions {
  readonly limits?: IndexLimits;
  /** Makes the hash table's collisions unpredictable. */
  readonly hashSeed?: number;
  /** Looks rows up for the visitors of scans. */
  readonly rowAhead?: RowAhead;
}

export type LeasedVisitor = (leaseHi: number, leaseLo: number, key: Buffer, start: number, end: number) => void;

const LEASE_BYTES = 8;

export class KeyIndex {
  private readonly limits: IndexLimits;
  private readonly hashSeed: number;
  private readonly tables: IndexReadTables;
  private readonly reader: TableReader;
  private readonly rowAhead: RowAhead | null;
  private readonly scanner: IndexScan;
  private readonly blocks: BlockCounts;
  private readonly life: LifeLog;
  private active: Delta;
  private frozen: Delta | null = null;
  private frozenShared: FrozenDelta | null = null;
  /** An emptied delta, kept for the next freeze: its memory is already there. */
  private spare: Delta | null = null;
  private readonly mark: MergeMark = newMergeMark();
  /** Keys of the frozen delta that the read view holds, in key order. */
  private mergedKeys = 0;
  /** A process stopped in the middle of a merge: these changes above indexedRev are in the tables. */
  private readonly merged: readonly MergedPart[];
  private newestMain: number;
  private newestSub: number;
  private scanning = false;
  private readonly from: OrderCursor = new OrderCursor();
  private readonly to: OrderCursor = new OrderCursor();
  private readonly state: KeyState = newKeyState();

  constructor(environment: ReadEnvironment, options: KeyIndexOptions = {}) {
    this.limits = options.limits ?? indexLimits;
    this.hashSeed = options.hashSeed ?? 0;
    this.tables = indexTables(environment);
    this.reader = new TableReader(this.tables, this.limits);
    this.rowAhead = options.rowAhead ?? null;
    this.scanner = new IndexScan(this.reader, this.limits, this.rowAhead);
    this.active = new Delta(this.limits, this.hashSeed);
    this.blocks = new BlockCounts(this.tables);
    this.blocks.load();
    readMergeMark(this.tables, this.mark);
    this.merged = readMergedParts(this.tables);
    const isTold = this.merged.length > 0 || this.mark.position === MERGE_FINISHED;
    assertSound(isTold, 'a merge of the key index did not end and does not tell how far it came');
    this.life = new LifeLog(this.mark.touchedMain, this.limits);
    this.newestMain = 0;
    this.newestSub = 0;
  }

  /** Changes in the active delta. */
  get activeEntries(): number {
    return this.active.changeCount;
  }

  get hasFrozen(): boolean {
    return this.frozen !== null;
  }

  /**
   * The newest state of the key; true if it is live. False for a deleted or unknown key: out.tombstone and out.main then
   * tell of a tombstone that is still in a delta (else false and 0). Hot: 0.2 us in a delta, one get of LMDB else.
   */
  get(key: Buffer, start: number, end: number, out: KeyState): boolean {
    assert(!this.scanning, 'index used inside a scan');
    let delta: Delta | null = this.active;
    while (delta !== null) {
      const id = delta.find(key, start, end);
      if (id !== -1) {
        delta.newest(id, out);
        return !out.tombstone;
      }
      delta = delta === this.active ? this.frozen : null;
    }
    if (this.reader.get(key, start, end, out)) return true;
    clearState(out);
    return false;
  }

  /**
   * The newest change with main <= atRev; false when there is none, or a tombstone (then out.tombstone). Fills main, sub,
   * tombstone, ordinal; the rest (else 0) only if the newest change of its layer was asked for.
   */
  getAt(key: Buffer, start: number, end: number, atRev: number, out: KeyState): boolean {
    assert(!this.scanning, 'index used inside a scan');
    let delta: Delta | null = this.active;
    while (delta !== null) {
      const id = delta.find(key, start, end);
      if (id !== -1 && delta.at(id, atRev, out)) return !out.tombstone;
      delta = delta === this.active ? this.frozen : null;
    }
    if (this.reader.getAt(key, start, end, atRev, out)) return !out.tombstone;
    clearState(out);
    return false;
  }

  /**
   * A new change of this key, newer than all before. `state` is what the key is after it: a create has version 1, and only
   * a live key gets a tombstone (create, version and lease 0). Hot: 1.5 us.
   */
  record(key: Buffer, start: number, end: number, state: KeyState): void {
    this.add(key, start, end, state, state.tombstone || state.version !== 1);
  }

  private add(key: Buffer, start: number, end: number, state: KeyState, liveBefore: boolean): void {
    assert(!this.scanning, 'index used inside a scan');
    assert(end > start, 'index of an empty key');
    const { main, sub } = state;
    assert(main > this.newestMain || (main === this.newestMain && sub > this.newestSub), 'change is not newer');
    this.newestMain = main;
    this.newestSub = sub;
    this.active.record(key, start, end, state, liveBefore);
    if (state.tombstone) this.life.append(main, false, key, start, end);
    else if (state.version === 1) this.life.append(main, true, key, start, end);
  }

  /**
   * As record(), for the rows above indexedRev after a start, in order, before anything else; endRecovery() follows. False when the
   * tables hold the change already, of a merge that did not end: nothing was recorded. Looks nothing up in the tables: of a key
   * that comes for the first time they hold what was before this change. Hot: 0.7 us.
   */
  recover(key: Buffer, start: number, end: number, state: KeyState): boolean {
    if (this.isMerged(key, start, end, state.main)) return false;
    if (this.active.keyCount === 0) this.active.order.defer();
    this.record(key, start, end, state);
    return true;
  }

  /** All rows were given to recover(). */
  endRecovery(): void {
    this.active.order.settle();
  }

  private isMerged(key: Buffer, start: number, end: number, main: number): boolean {
    for (let i = 0; i < this.merged.length; i++) {
      const part = this.merged[i]!;
      if (main <= part.newestMain && compareBytes(key, start, end, part.key, 0, part.key.length) <= 0) return true;
    }
    return false;
  }

  /**
   * As record(), for the rows of a snapshot that is being restored. It trusts less: the rows before this one may have been compacted
   * before they were ever indexed.
   */
  restore(key: Buffer, start: number, end: number, state: KeyState): void {
    const created = !state.tombstone && state.version === 1;
    this.add(key, start, end, state, !created && this.get(key, start, end, this.state));
  }

  /**
   * Live keys in [start, end) (end null: to the last) as of atRev (Infinity: now, with the changes of a running
   * transaction), ascending. State: main, sub, ordinal, and the rest (else 0) when it is the key's newest change.
   */
  scan(start: Buffer, end: Buffer | null, atRev: number, visit: KeyVisitor): void {
    assert(!this.scanning, 'index used inside a scan');
    if (end !== null && start.compare(end) >= 0) return;
    this.scanning = true;
    this.rowAhead?.begin();
    try {
      this.scanner.run(this.active, this.frozen, start, end, atRev, visit);
    } finally {
      this.scanning = false;
      this.rowAhead?.end();
    }
  }

  /** Entries that scans have looked at since the start: what they cost. */
  get entriesScanned(): number {
    return this.scanner.looked;
  }

  /** As of this revision and newer ones count() costs no scan. */
  get countFloor(): number {
    return this.life.floor;
  }

  /** Number of live keys in the range as of atRev. Does not cost what it counts, unless atRev is below countFloor. */
  count(start: Buffer, end: Buffer | null, atRev: number): number {
    assert(!this.scanning, 'index used inside a scan');
    if (end !== null && start.compare(end) >= 0) return 0;
    if (atRev < this.life.floor) return this.countByScan(start, end, atRev);
    const live = this.tables.live;
    this.syncMerged();
    const tableEnd = end === null ? undefined : this.reader.bound(live, end, 0, end.length);
    let count = this.blocks.count(this.reader.bound(live, start, 0, start.length), tableEnd);
    count += this.lifeIn(this.active, 0, start, end);
    if (this.frozen !== null) count += this.lifeIn(this.frozen, this.mergedKeys, start, end);
    if (atRev < this.newestMain) count -= this.life.sumSince(atRev, start, end);
    assert(count >= 0, 'count of live keys below zero');
    return count;
  }

  private countByScan(start: Buffer, end: Buffer | null, atRev: number): number {
    let count = 0;
    this.scan(start, end, atRev, () => {
      count++;
      return true;
    });
    return count;
  }

  /** What the delta's keys in the range, from position `skip` on, add to the number of live keys. */
  private lifeIn(delta: Delta, skip: number, start: Buffer, end: Buffer | null): number {
    const { from, to } = this;
    const { order } = delta;
    order.lowerBound(start, 0, start.length, from);
    if (skip > 0) {
      if (skip === delta.keyCount) return 0;
      const id = this.frozenShared!.order[skip]!;
      order.lowerBound(delta.keys.slab(id), delta.keys.start(id), delta.keys.end(id), to);
      if (to.block > from.block || (to.block === from.block && to.at > from.at)) {
        from.block = to.block;
        from.at = to.at;
      }
    }
    if (end === null) order.endCursor(to);
    else order.lowerBound(end, 0, end.length, to);
    return order.lifeBetween(from, to);
  }

  liveKeyCount(): number {
    this.syncMerged();
    let count = this.tables.live.entryCount() + this.active.order.lifeTotal;
    if (this.frozen === null) return count;
    const { order } = this.frozen;
    if (this.mergedKeys === 0) return count + order.lifeTotal;
    count += this.lifeIn(this.frozen, this.mergedKeys, FIRST_KEY, null);
    return count;
  }

  /** Brings `mergedKeys` and the counts of blocks to the read view. */
  private syncMerged(): void {
    const { frozen, frozenShared, mark } = this;
    if (frozen === null || frozenShared === null) return;
    readMergeMark(this.tables, mark);
    if (mark.mergeNumber !== frozenShared.mergeNumber) return;
    const merged = mark.position === MERGE_FINISHED ? frozen.keyCount : mark.position;
    if (merged === this.mergedKeys) return;
    assert(merged > this.mergedKeys, 'merge went backwards');
    const from = this.mergedKeys === 0 ? undefined : this.positionBound(frozen, frozenShared, this.mergedKeys);
    const to = merged === frozen.keyCount ? undefined : this.positionBound(frozen, frozenShared, merged);
    this.blocks.reload(from, to);
    this.mergedKeys = merged;
  }

  private positionBound(frozen: Delta, shared: FrozenDelta, position: number): Buffer {
    const id = shared.order[position]!;
    return this.reader.bound(this.tables.live, frozen.keys.slab(id), frozen.keys.start(id), frozen.keys.end(id));
  }

  /** All live keys that have a lease, each once, in no order. For a start: afterwards the lessor follows the changes. */
  visitLeased(visit: LeasedVisitor): void {
    this.visitLeasedFrom(undefined, Infinity, visit);
  }

  /**
   * The same in slices of `keys` of a table, over several turns in which nothing changes but what merges: then a key may come twice. From
   * the beginning, with all of the deltas, when `from` is undefined. Returns where the next slice begins; undefined: there is none.
   */
  visitLeasedFrom(from: Buffer | undefined, keys: number, visit: LeasedVisitor): Buffer | undefined {
    const { active, frozen } = this;
    // First: what merges meanwhile is then seen here, if not in the table.
    if (from === undefined) {
      visitLeasedOf(active, null, visit);
      if (frozen !== null) visitLeasedOf(frozen, active, visit);
    }
    let left = keys;
    let next: Buffer | undefined;
    const key = new KeyReader();
    const bytes = new ByteReader();
    this.tables.leased.scan(from, undefined, (tableKey, value) => {
      if (left-- === 0) {
        next = Buffer.from(tableKey);
        return false;
      }
      assertSound(tableKey.length > LEASE_BYTES && value.length > 0, 'a key with a lease is cut');
      if ((value[0]! & EntryFlag.long) === 0) {
        key.read(tableKey, LEASE_BYTES);
      } else {
        bytes.buffer = value;
        bytes.at = 1;
        bytes.end = value.length;
        const length = bytes.varint();
        assertSound(bytes.at + length <= value.length, 'a key with a lease is cut');
        key.set(value, bytes.at, bytes.at + length);
      }
      if (active.find(key.buffer, key.start, key.end) !== -1) return true;
      if (frozen !== null && frozen.find(key.buffer, key.start, key.end) !== -1) return true;
      visit(tableKey.readUInt32BE(0), tableKey.readUInt32BE(4), key.buffer, key.start, key.end);
      return true;
    });
    return next;
  }

  /** The active delta becomes the frozen one; the next starts empty. Only when none is frozen and there are changes. */
  freeze(): FrozenDelta {
    assert(this.frozen === null, 'a delta is frozen already');
    assert(this.active.changeCount > 0, 'freeze of an empty delta');
    this.active.order.settle();
    this.frozen = this.active;
    readMergeMark(this.tables, this.mark);
    this.frozenShared = this.frozen.share((this.mark.mergeNumber + 1) % 2 ** 32);
    this.mergedKeys = 0;
    this.active = this.spare ?? new Delta(this.limits, this.hashSeed);
    this.spare = null;
    return this.frozenShared;
  }

  /** Call it once the read view holds the whole merge (after refresh()). The flusher must not touch the delta any more. */
  dropFrozen(): void {
    const { frozen } = this;
    assert(frozen !== null, 'no frozen delta to drop');
    this.syncMerged();
    assert(this.mergedKeys === frozen.keyCount, 'frozen delta dropped before the read view holds it');
    this.frozen = null;
    this.frozenShared = null;
    this.mergedKeys = 0;
    if (frozen.oversized) return;
    frozen.reset();
    this.spare = frozen;
  }

  /** Whether the read view holds all of the frozen delta: dropFrozen() may be called. */
  frozenMerged(): boolean {
    this.syncMerged();
    return this.frozen !== null && this.mergedKeys === this.frozen.keyCount;
  }
}

const FIRST_KEY: Buffer = Buffer.from([0]);

function clearState(out: KeyState): void {
  out.main = 0;
  out.sub = 0;
  clearNewest(out);
  out.tombstone = false;
  out.ordinal = -1;
}

/** The leased keys of a delta, those in `above` left out. */
function visitLeasedOf(delta: Delta, above: Delta | null, visit: LeasedVisitor): void {
  const state = newKeyState();
  for (let id = 0; id < delta.keyCount; id++) {
    delta.newest(id, state);
    if (state.tombstone || (state.leaseHi === 0 && state.leaseLo === 0)) continue;
    const slab = delta.keys.slab(id);
    const start = delta.keys.start(id);
    const end = delta.keys.end(id);
    if (above !== null && above.find(slab, start, end) !== -1) continue;
    visit(state.leaseHi, state.leaseLo, slab, start, end);
  }
}
