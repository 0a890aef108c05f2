// Brings a frozen delta into the tables, in slices, and drops what compaction made garbage. Runs in the flusher, inside the
// caller's write transactions. Not a policy: when to merge, how large a slice is and when to commit is the caller's.
//
// What the caller owes:
// - the rows of all changes of the delta are committed before its first slice, or in the same transaction: else a crash
//   leaves an index that knows more than the store;
// - `compactRev` is a revision whose compaction is committed (meta's scheduledCompactRev) in or before that transaction,
//   since older changes are left out of entries;
// - `indexedRev` = delta.newestMain is committed with the last slice (the one that answers -1);
// - rows above indexedRev are not deleted by compaction: recovery needs them.
//
// A slice may come twice (a crash before indexedRev is committed): changes that an entry already holds are passed over.

import { assert } from '../base/assert.ts';
import { assertSound } from '../base/fatal.ts';
import { type IndexLimits, indexLimits } from '../storage-limits.ts';
import { CountWriter } from './index-count.ts';
import type { FrozenDelta } from './index-delta.ts';
import {
  ChangeList,
  EntryFlag,
  EntryReader,
  EntryWriter,
  HIST_KEY_BYTES,
  HISTLOG_KEY_BYTES,
  HistlogKind,
  histKey,
  histlogKey,
  MERGE_FINISHED,
  MERGE_MARK_BYTES,
  mergeMarkKey,
  readUint64,
  writeUint64,
} from './index-entry.ts';
import { TableKey } from './index-key.ts';
import { LongKeyFinder } from './index-long.ts';
import { ChangeRecords, KeyRecords } from './index-records.ts';
import {
  type IndexTables,
  type MergedPart,
  newMergeMark,
  readMergedParts,
  readMergeMark,
  writeMergedParts,
} from './index-tables.ts';

const LEASE_BYTES = 8;
const SHORT_LEASED: Buffer = Buffer.from([0]);

/**
 * Merges up to `keyCount` keys of the delta from position `from` on; returns the next position, or -1 when done.
 * Idempotent. About 4 us a key over a million keys, most of it LMDB's.
 */
export function mergeSlice(
  delta: FrozenDelta,
  from: number,
  keyCount: number,
  tables: IndexTables,
  compactRev: number,
  limits: IndexLimits = indexLimits,
): number {
  assert(keyCount > 0 && from >= 0 && from <= delta.keyCount, 'merge slice outside of the delta');
  const merge = new SliceMerge(delta, tables, compactRev, limits);
  const to = Math.min(from + keyCount, delta.keyCount);
  for (let position = from; position < to; position++) merge.key(delta.order[position]!);
  merge.counts.flush();
  const done = to === delta.keyCount;
  const before = newMergeMark();
  readMergeMark(tables, before);
  const mark = Buffer.alloc(MERGE_MARK_BYTES);
  mark.writeUInt32BE(done ? MERGE_FINISHED : to, 0);
  mark.writeUInt32BE(delta.mergeNumber, 4);
  writeUint64(mark, 8, delta.newestMain);
  writeUint64(mark, 16, Math.max(before.touchedMain, delta.newestMain));
  tables.keelson.put(mergeMarkKey, mark);
  noteMerged(tables, delta, to);
  return done ? -1 : to;
}

/** Writes down what the merge has brought, for a restart that finds it unfinished. */
function noteMerged(tables: IndexTables, delta: FrozenDelta, to: number): void {
  const { newestMain } = delta;
  const done = to === delta.keyCount;
  const id = delta.order[to - 1]!;
  const keys = KeyRecords.shared(delta.keys);
  const key = Buffer.from(keys.slab(id).subarray(keys.start(id), keys.end(id)));
  const contained = (part: MergedPart): boolean =>
    part.newestMain <= newestMain && (done || part.key.compare(key) <= 0);
  const parts = readMergedParts(tables).filter((part) => !contained(part));
  if (!done) parts.push({ newestMain, key });
  writeMergedParts(tables, parts);
}

/**
 * Drops up to `recordCount` deleted keys (tombstone main < rev) and chunks of older changes (superseded at rev). Returns
 * true when nothing is left to drop at this revision. Costs what it drops.
 */
export function compactSlice(
  rev: number,
  recordCount: number,
  tables: IndexTables,
  limits: IndexLimits = indexLimits,
): boolean {
  const records: Buffer[] = [];
  const values: Buffer[] = [];
  const end = histlogKey(Buffer.alloc(HISTLOG_KEY_BYTES), rev, HistlogKind.dead, 0);
  tables.histlog.scan(undefined, end, (record, value) => {
    assertSound(record.length === HISTLOG_KEY_BYTES, 'a record of history without a revision');
    records.push(Buffer.from(record));
    values.push(Buffer.from(value));
    return records.length < recordCount;
  });
  const dead = new TableKey(0, limits.diskKeyBytes);
  for (let i = 0; i < records.length; i++) {
    const record = records[i]!;
    if (record[8] === HistlogKind.chunk) tables.hist.remove(values[i]!);
    else dropDead(tables, dead, values[i]!, readUint64(record, 0), record.readUInt32BE(9));
    tables.histlog.remove(record);
  }
  return records.length < recordCount;
}

/** Drops the deleted key, unless it was created again since. */
function dropDead(tables: IndexTables, tableKey: TableKey, key: Buffer, main: number, sub: number): void {
  let at: Buffer = tableKey.set(key, 0, key.length);
  if (tableKey.long) {
    const finder = new LongKeyFinder();
    finder.find(tables.dead, tableKey, key, 0, key.length);
    if (!finder.found) return;
    at = tableKey.withOrdinal(finder.ordinal);
  }
  const value = tables.dead.get(at);
  if (value === undefined) return;
  const entry = new EntryReader();
  entry.read(value);
  if (entry.newestMain === main && entry.newestSub === sub) tables.dead.remove(at);
}

const Place = { none: 0, live: 1, dead: 2 } as const;
type Place = (typeof Place)[keyof typeof Place];

/** One slice: its scratch, re-used from key to key. */
class SliceMerge {
  readonly counts: CountWriter;
  private readonly keys: KeyRecords;
  private readonly deltaChanges: ChangeRecords;
  private readonly tables: IndexTables;
  private readonly compactRev: number;
  private readonly limits: IndexLimits;
  private readonly finder: LongKeyFinder = new LongKeyFinder();
  private readonly tableKey: TableKey;
  private readonly leasedKey: TableKey;
  private readonly changes: ChangeList = new ChangeList();
  private readonly out: EntryWriter = new EntryWriter();
  private readonly histKeyBytes: Buffer = Buffer.alloc(HIST_KEY_BYTES);
  private readonly histlogKeyBytes: Buffer = Buffer.alloc(HISTLOG_KEY_BYTES);
  /** The key's entry as it was. */
  private readonly old: EntryReader = new EntryReader();
  private place: Place = Place.none;
  private histMain = 0;
  private histSub = 0;

  constructor(delta: FrozenDelta, tables: IndexTables, compactRev: number, limits: IndexLimits) {
    this.keys = KeyRecords.shared(delta.keys);
    this.deltaChanges = new ChangeRecords(delta.changes);
    this.tables = tables;
    this.compactRev = compactRev;
    this.limits = limits;
    this.counts = new CountWriter(tables, limits);
    this.tableKey = new TableKey(0, limits.diskKeyBytes);
    this.leasedKey = new TableKey(LEASE_BYTES, limits.diskKeyBytes);
  }

  key(id: number): void {
    const slab = this.keys.slab(id);
    const start = this.keys.start(id);
    const end = this.keys.end(id);
    this.tableKey.set(slab, start, end);
    const at = this.readOld(slab, start, end);
    const dead = this.deltaChanges.tombstone(this.keys.newest(id));
    if (!this.collectChanges(id)) return;
    const wasLive = this.place === Place.live;
    if (!dead) {
      this.moveHistory();
      this.writeEntry(id, slab, start, end, false);
      if (this.place === Place.dead) this.tables.dead.remove(at!);
      const target = wasLive ? at! : this.newKey(this.tables.live, slab, start, end);
      this.tables.live.put(target, this.out.view());
      if (!wasLive) this.counts.change(target, 1, this.tableKey.long);
    } else {
      this.bury(id, slab, start, end, at);
    }
    this.moveLease(id, slab, start, end, dead);
  }

  /** The key was deleted: from `live` to `dead`, or to nowhere when it is compacted already. */
  private bury(id: number, slab: Buffer, start: number, end: number, at: Buffer | null): void {
    const main = this.changes.mains[0]!;
    const sub = this.changes.subs[0]!;
    const forgotten = main < this.compactRev;
    if (this.place === Place.live) {
      this.counts.change(at!, -1, this.tableKey.long);
      this.tables.live.remove(at!);
    }
    if (forgotten) {
      if (this.place === Place.dead) this.tables.dead.remove(at!);
      return;
    }
    this.moveHistory();
    this.writeEntry(id, slab, start, end, true);
    const target = this.place === Place.dead ? at! : this.newKey(this.tables.dead, slab, start, end);
    this.tables.dead.put(target, this.out.view());
    this.tables.histlog.put(histlogKey(this.histlogKeyBytes, main, HistlogKind.dead, sub), slab.subarray(start, end));
  }

  /** Reads the key's entry into `old` and says where it is; the table key is returned, a view that stays valid. */
  private readOld(slab: Buffer, start: number, end: number): Buffer | null {
    this.place = Place.none;
    let at = this.readFrom(this.tables.live, slab, start, end);
    if (at !== null) {
      this.place = Place.live;
      return at;
    }
    if (this.tables.dead.entryCount() === 0) return null;
    at = this.readFrom(this.tables.dead, slab, start, end);
    if (at !== null) this.place = Place.dead;
    return at;
  }

  private readFrom(table: IndexTables['live'], slab: Buffer, start: number, end: number): Buffer | null {
    let at = this.tableKey.key;
    if (this.tableKey.long) {
      this.finder.find(table, this.tableKey, slab, start, end);
      if (!this.finder.found) return null;
      at = Buffer.from(this.tableKey.withOrdinal(this.finder.ordinal));
    }
    const value = table.get(at);
    if (value === undefined) return null;
    this.old.read(value);
    return at;
  }

  private newKey(table: IndexTables['live'], slab: Buffer, start: number, end: number): Buffer {
    if (!this.tableKey.long) return this.tableKey.key;
    return this.finder.insertKey(table, this.tableKey, slab, start, end);
  }

  /**
   * All changes of the key that must stay, newest first: those of the delta that the entry does not have, then the entry's,
   * down to the first that compaction to compactRev keeps. False: the entry has all of the delta's.
   */
  private collectChanges(id: number): boolean {
    const { deltaChanges } = this;
    const old = this.old;
    const known = this.place !== Place.none;
    const changes = this.changes;
    changes.length = 0;
    this.histMain = 0;
    this.histSub = 0;
    let change = this.keys.newest(id);
    do {
      const main = deltaChanges.main(change);
      const sub = deltaChanges.sub(change);
      if (known && (main < old.newestMain || (main === old.newestMain && sub <= old.newestSub))) break;
      changes.push(main, sub, deltaChanges.tombstone(change));
      if (main <= this.compactRev) return true;
      change = deltaChanges.previous(change);
    } while (change !== -1);
    if (changes.length === 0) return false;
    if (!known) return true;
    do {
      changes.push(old.main, old.sub, old.tombstone);
      if (old.main <= this.compactRev) return true;
    } while (old.next());
    this.histMain = old.histMain;
    this.histSub = old.histSub;
    return true;
  }

  /** Moves the older half to `hist` when the list is too long for an entry. */
  private moveHistory(): void {
    const changes = this.changes;
    if (changes.length - 1 <= this.limits.inlineRevisions) return;
    const keep = 1 + (this.limits.inlineRevisions >>> 1);
    let to = changes.length;
    while (to > keep) {
      const from = Math.max(keep, to - this.limits.chunkRevisions);
      this.writeChunk(from, to);
      to = from;
    }
    changes.length = keep;
  }

  private writeChunk(from: number, to: number): void {
    const changes = this.changes;
    const out = this.out;
    const main = changes.mains[from]!;
    const sub = changes.subs[from]!;
    out.length = 0;
    out.byte(this.histMain === 0 ? 0 : EntryFlag.hist);
    out.varint(changes.mains[to - 1]!);
    if (this.histMain !== 0) {
      out.varint(this.histMain);
      out.varint(this.histSub);
    }
    out.varint(main);
    changes.writeItems(out, from, to, main);
    const key = histKey(this.histKeyBytes, main, sub);
    this.tables.hist.put(key, out.view());
    const record = histlogKey(
      this.histlogKeyBytes,
      changes.mains[from - 1]!,
      HistlogKind.chunk,
      changes.subs[from - 1]!,
    );
    this.tables.histlog.put(record, key);
    this.histMain = main;
    this.histSub = sub;
  }

  private writeEntry(id: number, slab: Buffer, start: number, end: number, dead: boolean): void {
    const { keys, out } = this;
    const main = this.changes.mains[0]!;
    const leased = !dead && (keys.leaseHi(id) !== 0 || keys.leaseLo(id) !== 0);
    let flags = 0;
    if (this.tableKey.long) flags |= EntryFlag.long;
    if (leased) flags |= EntryFlag.lease;
    if (this.histMain !== 0) flags |= EntryFlag.hist;
    if (dead) flags |= EntryFlag.tombstone;
    out.length = 0;
    out.byte(flags);
    if (this.tableKey.long) {
      out.varint(end - start);
      out.copy(slab, start, end);
    }
    out.varint(main);
    out.varint(this.changes.subs[0]!);
    if (!dead) {
      assert(keys.createMain(id) <= main, 'create revision after the newest');
      out.varint(main - keys.createMain(id));
      out.varint(keys.version(id));
    }
    if (leased) {
      out.uint32(keys.leaseHi(id));
      out.uint32(keys.leaseLo(id));
    }
    if (this.histMain !== 0) {
      out.varint(this.histMain);
      out.varint(this.histSub);
    }
    this.changes.writeItems(out, 1, this.changes.length, main);
  }

  /** The table `leased` holds every live key under its lease. */
  private moveLease(id: number, slab: Buffer, start: number, end: number, dead: boolean): void {
    const oldHi = this.place === Place.live ? this.old.leaseHi : 0;
    const oldLo = this.place === Place.live ? this.old.leaseLo : 0;
    const newHi = dead ? 0 : this.keys.leaseHi(id);
    const newLo = dead ? 0 : this.keys.leaseLo(id);
    if (oldHi === newHi && oldLo === newLo) return;
    if (oldHi !== 0 || oldLo !== 0) this.detach(oldHi, oldLo, slab, start, end);
    if (newHi !== 0 || newLo !== 0) this.attach(newHi, newLo, slab, start, end);
  }

  private setLeasedKey(hi: number, lo: number, slab: Buffer, start: number, end: number): Buffer {
    this.leasedKey.head.writeUInt32BE(hi, 0);
    this.leasedKey.head.writeUInt32BE(lo, 4);
    return this.leasedKey.set(slab, start, end);
  }

  private attach(hi: number, lo: number, slab: Buffer, start: number, end: number): void {
    const key = this.setLeasedKey(hi, lo, slab, start, end);
    if (!this.leasedKey.long) {
      this.tables.leased.put(key, SHORT_LEASED);
      return;
    }
    this.out.length = 0;
    this.out.byte(EntryFlag.long);
    this.out.varint(end - start);
    this.out.copy(slab, start, end);
    const at = this.finder.insertKey(this.tables.leased, this.leasedKey, slab, start, end);
    this.tables.leased.put(at, this.out.view());
  }

  private detach(hi: number, lo: number, slab: Buffer, start: number, end: number): void {
    let key = this.setLeasedKey(hi, lo, slab, start, end);
    if (this.leasedKey.long) {
      this.finder.find(this.tables.leased, this.leasedKey, slab, start, end);
      assertSound(this.finder.found, 'a key with a lease is not in the table of those');
      key = this.leasedKey.withOrdinal(this.finder.ordinal);
    }
    const removed = this.tables.leased.remove(key);
    assertSound(removed, 'a key with a lease is not in the table of those');
  }
}
