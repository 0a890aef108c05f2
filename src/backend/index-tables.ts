// The tables that hold the key index, and look-ups of one key in them as they stand in the reader's view. It knows no delta.
// What their bytes mean: index-entry.ts.

import { assertSound } from '../base/fatal.ts';
import type { ReadTable, ValueRef, WriteTable } from '../io/table.ts';
import { type IndexLimits, indexLimits } from '../storage-limits.ts';
import { clearNewest, type KeyState } from './index-delta.ts';
import {
  ChunkReader,
  EntryReader,
  HIST_KEY_BYTES,
  histKey,
  MERGE_FINISHED,
  MERGE_MARK_BYTES,
  MERGED_PART_HEAD_BYTES,
  mergedPartsKey,
  mergeMarkKey,
  readUint64,
  writeUint64,
} from './index-entry.ts';
import { TableKey } from './index-key.ts';
import { LongKeyFinder } from './index-long.ts';

export interface IndexTablesOf<T extends ReadTable> {
  readonly live: T;
  readonly dead: T;
  readonly hist: T;
  readonly histlog: T;
  readonly leased: T;
  readonly counts: T;
  readonly keelson: T;
}

export type IndexReadTables = IndexTablesOf<ReadTable>;
export type IndexTables = IndexTablesOf<WriteTable>;

/** Names of the tables above, for whoever creates them. */
export const indexTableNames: readonly string[] = ['live', 'dead', 'hist', 'histlog', 'leased', 'counts', 'keelson'];

/** To be called outside of a transaction: opening a table may create it. */
export function indexTables<T extends ReadTable>(environment: { table(name: string): T }): IndexTablesOf<T> {
  return {
    live: environment.table('live'),
    dead: environment.table('dead'),
    hist: environment.table('hist'),
    histlog: environment.table('histlog'),
    leased: environment.table('leased'),
    counts: environment.table('counts'),
    keelson: environment.table('keelson'),
  };
}

/** How far the last merge got. */
export interface MergeMark {
  /** Keys of the delta below this position (in key order) are in the tables; MERGE_FINISHED: all. */
  position: number;
  /** Tells the merges apart: a restart may freeze another delta with the same newest revision. */
  mergeNumber: number;
  /** Newest main revision of the delta; 0: nothing was ever merged. */
  newestMain: number;
  /** Newest main revision that any merge may have brought; above newestMain when one was lost before its end. */
  touchedMain: number;
}

export function readMergeMark(tables: IndexReadTables, out: MergeMark): void {
  const value = tables.keelson.get(mergeMarkKey);
  assertSound(value === undefined || value.length === MERGE_MARK_BYTES, 'its merge mark has another size');
  out.position = value === undefined ? MERGE_FINISHED : value.readUInt32BE(0);
  out.mergeNumber = value === undefined ? 0 : value.readUInt32BE(4);
  out.newestMain = value === undefined ? 0 : readUint64(value, 8);
  out.touchedMain = value === undefined ? 0 : readUint64(value, 16);
}

export function newMergeMark(): MergeMark {
  return { position: MERGE_FINISHED, mergeNumber: 0, newestMain: 0, touchedMain: 0 };
}

/**
 * What a merge has brought that did not end, as far as is known: all changes with main <= newestMain of keys <= key, and of each
 * such key nothing newer. Those that a merge with a newer end contains are left out, so that there is rarely more than one: each more
 * takes a crash in a merge that had come less far than the one before.
 */
export interface MergedPart {
  readonly newestMain: number;
  readonly key: Buffer;
}

export function readMergedParts(tables: IndexReadTables): MergedPart[] {
  const value = tables.keelson.get(mergedPartsKey);
  const parts: MergedPart[] = [];
  if (value === undefined) return parts;
  for (let at = 0; at < value.length; ) {
    const keyStart = at + MERGED_PART_HEAD_BYTES;
    assertSound(keyStart <= value.length, 'its merged parts are cut');
    const keyEnd = keyStart + value.readUInt32BE(at + 8);
    assertSound(keyEnd <= value.length, 'its merged parts are cut');
    parts.push({ newestMain: readUint64(value, at), key: Buffer.from(value.subarray(keyStart, keyEnd)) });
    at = keyEnd;
  }
  return parts;
}

export function writeMergedParts(tables: IndexTables, parts: readonly MergedPart[]): void {
  const pieces: Buffer[] = [];
  for (const { newestMain, key } of parts) {
    const head = Buffer.alloc(MERGED_PART_HEAD_BYTES);
    writeUint64(head, 0, newestMain);
    head.writeUInt32BE(key.length, 8);
    pieces.push(head, key);
  }
  if (pieces.length === 0) tables.keelson.remove(mergedPartsKey);
  else tables.keelson.put(mergedPartsKey, Buffer.concat(pieces));
}

/** Looks keys up in the tables. What it finds is copied into the state: nothing of LMDB's memory is kept. */
export class TableReader {
  readonly tables: IndexReadTables;
  readonly finder: LongKeyFinder = new LongKeyFinder();
  private readonly tableKey: TableKey;
  private readonly entry: EntryReader = new EntryReader();
  private readonly chunk: ChunkReader = new ChunkReader();
  private readonly histKey: Buffer = Buffer.alloc(HIST_KEY_BYTES);
  private readonly value: ValueRef = { buffer: this.histKey, start: 0, end: 0 };

  constructor(tables: IndexReadTables, limits: IndexLimits = indexLimits) {
    this.tables = tables;
    this.tableKey = new TableKey(0, limits.diskKeyBytes);
  }

  /** Reads the entry of a key; false when the table has none. */
  private readEntry(table: ReadTable, key: Uint8Array, start: number, end: number): boolean {
    const { value } = this;
    let tableKey = this.tableKey.set(key, start, end);
    if (this.tableKey.long) {
      this.finder.find(table, this.tableKey, key, start, end);
      if (!this.finder.found) return false;
      tableKey = this.tableKey.withOrdinal(this.finder.ordinal);
    }
    if (!table.find(tableKey, value)) return false;
    this.entry.read(value.buffer, value.start, value.end);
    return true;
  }

  /** The newest state of a live key, all fields. False: not in `live` (out is not touched). Hot: one find, 0.4 us. */
  get(key: Uint8Array, start: number, end: number, out: KeyState): boolean {
    if (!this.readEntry(this.tables.live, key, start, end)) return false;
    fillNewest(this.entry, out);
    return true;
  }

  /** The newest change with main <= atRev of a key, live or deleted: false when none is known. */
  getAt(key: Uint8Array, start: number, end: number, atRev: number, out: KeyState): boolean {
    const { live, dead } = this.tables;
    if (!this.readEntry(live, key, start, end)) {
      if (dead.entryCount() === 0 || !this.readEntry(dead, key, start, end)) return false;
    }
    return this.resolve(this.entry, atRev, out);
  }

  /** The newest change with main <= atRev of an entry just read. Its value may be invalid afterwards, if find() gave it. */
  resolve(entry: EntryReader, atRev: number, out: KeyState): boolean {
    if (entry.newestMain <= atRev) {
      fillNewest(entry, out);
      return true;
    }
    out.ordinal = -1;
    if (entry.seek(atRev)) {
      out.main = entry.main;
      out.sub = entry.sub;
      out.tombstone = entry.tombstone;
      clearNewest(out);
      return true;
    }
    return entry.histMain !== 0 && this.resolveChunk(entry.histMain, entry.histSub, atRev, out);
  }

  private resolveChunk(main: number, sub: number, atRev: number, out: KeyState): boolean {
    const { chunk, value } = this;
    let nextMain = main;
    let nextSub = sub;
    while (nextMain !== 0) {
      if (!this.tables.hist.find(histKey(this.histKey, nextMain, nextSub), value)) return false;
      chunk.read(value.buffer, value.start, value.end);
      if (chunk.oldestMain <= atRev) {
        const found = chunk.seek(atRev);
        assertSound(found, 'a chunk of the key index without its oldest change');
        out.main = chunk.main;
        out.sub = chunk.sub;
        out.tombstone = chunk.tombstone;
        clearNewest(out);
        return true;
      }
      const isOlder = chunk.olderMain < nextMain || chunk.olderSub < nextSub;
      assertSound(isOlder, 'chunks of the key index in a ring');
      nextMain = chunk.olderMain;
      nextSub = chunk.olderSub;
    }
    return false;
  }

  /** Where the key is or would be in the table: a bound for scans and counts there. A copy. */
  bound(table: ReadTable, key: Uint8Array, start: number, end: number): Buffer {
    const tableKey = this.tableKey.set(key, start, end);
    if (!this.tableKey.long) return Buffer.from(tableKey);
    return this.finder.bound(table, this.tableKey, key, start, end);
  }
}

export function fillNewest(entry: EntryReader, out: KeyState): void {
  out.main = entry.newestMain;
  out.sub = entry.newestSub;
  out.tombstone = entry.dead;
  out.createMain = entry.createMain;
  out.version = entry.version;
  out.leaseHi = entry.leaseHi;
  out.leaseLo = entry.leaseLo;
  out.ordinal = -1;
}
