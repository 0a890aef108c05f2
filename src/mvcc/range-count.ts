// Counts the keys of a range as of a revision that the key index cannot count at once (below its countFloor: long ago, or not
// long ago but before the last start). In slices, so that it can go on over turns. Two ways, the cheaper first:
//
//   rows   the count at countFloor, less what the rows between the two revisions created, plus what they deleted: a client that
//          pages while writes go on, over a restart, is some thousand rows behind.
//   scan   of the range at the revision, when the rows between are more than the keys.
//
// Compaction does not touch the rows: those above the compaction revision are all there.

import { compareBytes } from '../backend/index-key.ts';
import { assertSound } from '../base/fatal.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import type { Storage } from './storage.ts';

export class RangeCount {
  /** The number of keys, once a step has answered true. */
  count: number;
  /** Rows and keys that were looked at: what it has cost. */
  looked = 0;
  private readonly storage: Storage;
  private readonly start: Buffer;
  private readonly end: Buffer | null;
  private readonly revision: number;
  private readonly floor: number;
  /** The next row's main; above the floor: the rows are done or were given up. */
  private nextMain: number;
  /** Rows that may be read before the scan is the better way. */
  private rowsLeft: number;
  private nextKey: Buffer | null = null;
  private readonly view = new KeyValueView();

  constructor(storage: Storage, start: Buffer, end: Buffer | null, revision: number) {
    this.storage = storage;
    this.start = start;
    this.end = end;
    this.revision = revision;
    this.floor = storage.index.countFloor;
    this.count = storage.index.count(start, end, Math.max(revision, this.floor));
    this.nextMain = revision + 1;
    this.rowsLeft = this.count;
    // Each revision has a row at least.
    if (this.floor - revision > this.rowsLeft) this.beginScan();
  }

  /** Looks at some `sliceMax` rows or keys; true: `count` is final. A revision's rows are never split, so it may be more. */
  step(sliceMax: number): boolean {
    return this.nextKey === null ? this.stepRows(sliceMax) : this.stepScan(sliceMax);
  }

  private stepRows(sliceMax: number): boolean {
    const { start, end, view } = this;
    let left = sliceMax;
    let stoppedAt = 0;
    let previous = 0;
    this.storage.scanRows(this.nextMain, this.floor, (main, _sub, tombstone, buffer, rowStart, rowEnd) => {
      if ((left <= 0 && main !== previous) || this.rowsLeft <= 0) {
        stoppedAt = main;
        return false;
      }
      left--;
      this.rowsLeft--;
      this.looked++;
      previous = main;
      assertSound(view.parse(buffer, rowStart, rowEnd), 'a row is no KeyValue');
      if (!tombstone && view.version !== 1) return true;
      const { keyStart, keyEnd } = view;
      if (compareBytes(buffer, keyStart, keyEnd, start, 0, start.length) < 0) return true;
      if (end !== null && compareBytes(buffer, keyStart, keyEnd, end, 0, end.length) >= 0) return true;
      this.count += tombstone ? 1 : -1;
      return true;
    });
    if (stoppedAt === 0) return true;
    this.nextMain = stoppedAt;
    if (this.rowsLeft <= 0) this.beginScan();
    return false;
  }

  private beginScan(): void {
    this.nextKey = this.start;
    this.count = 0;
  }

  private stepScan(sliceMax: number): boolean {
    let left = sliceMax;
    const from = this.nextKey!;
    this.nextKey = null;
    this.storage.index.scan(from, this.end, this.revision, (key, start, end) => {
      if (left === 0) {
        this.nextKey = Buffer.from(key.subarray(start, end));
        return false;
      }
      left--;
      this.looked++;
      this.count++;
      return true;
    });
    return this.nextKey === null;
  }
}
