// The multi-version key-value store: revisions, puts, deletes, ranges, over a storage engine (storage.ts). One write
// transaction at a time, opened by begin() and closed by end(), all within one turn: nobody sees half of it. Follows etcd's
// storage/mvcc for every observable number. Not here: leases' meaning (lease/), watches (watch-hub.ts), Txn's compares (apply/).

import { assert } from '../base/assert.ts';
import type { ByteWriter } from '../base/byte-writer.ts';
import { assertSound } from '../base/fatal.ts';
import { type PageRemainderLimits, type ReadSlice, readSlice, wholeRead } from '../limits.ts';
import type { RangeRequest } from '../proto/kv-request.ts';
import { keyValueLength, writeKeyValueHead, writeKeyValueTail } from '../proto/mvccpb.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { isPlainRange, rangeEndOf } from './kv-range.ts';
import { LiveKeys } from './live-keys.ts';
import { RangeCounts } from './range-counts.ts';
import { RangeRead } from './range-read.ts';
import { RangeSlices } from './range-slices.ts';
import { type KeyState, newKeyState, type RowRef, type Storage } from './storage.ts';

/** Told when a key gains or loses a lease; lease ids as u32 halves. */
export interface LeaseBinder {
  attach(leaseHi: number, leaseLo: number, key: Buffer, start: number, end: number): void;
  detach(leaseHi: number, leaseLo: number, key: Buffer, start: number, end: number): void;
}

/**
 * Plain numbers, read at scrape, counted as etcd's: a range is every look at the keys that a request asks for (a compare, a
 * previous value), a delete is a request whatever it deletes, a txn is any transaction of more than one of these.
 */
export interface StoreCounters {
  put: number;
  delete: number;
  range: number;
  txn: number;
  totalPutBytes: number;
}

const EMPTY = Buffer.alloc(0);

/** Asked again, it is answered as of now, or that its revision is compacted. */
const stateReplaced: EtcdError = {
  code: 14,
  message:
    'keelson: the state was replaced by a snapshot of the leader, which has no such revision any more; ask again',
};

export class Store {
  currentRevision: number;
  /** -1 before any compaction, as in etcd. */
  compactRevision: number;
  readonly counters: StoreCounters = { put: 0, delete: 0, range: 0, txn: 0, totalPutBytes: 0 };
  /** Revision that the last range() answered at: its header's. */
  rangeRevision = 0;
  /** Called by end() when the transaction changed something; the changes are readable until the next begin(). */
  onCommit: ((main: number, changeCount: number) => void) | null = null;
  /** Changes of the running (or last) transaction, by sub revision: row ordinals; negative - 1 - ordinal for a tombstone. */
  readonly changes: number[] = [];
  /** Keys to be deleted: see openLiveKeys(). */
  liveKeys: LiveKeys;

  private readonly storage: Storage;
  private readonly leases: LeaseBinder;
  private inTransaction = false;
  private opCount = 0;
  private readonly state: KeyState = newKeyState();
  private readonly row: RowRef = { buffer: EMPTY, start: 0, end: 0 };
  /** For RangeRead, too; at seenAt() of its revision. */
  slices: RangeSlices;
  counts: RangeCounts;
  private readonly pageLimits: PageRemainderLimits | undefined;
  /** Revisions below this one are gone, also for reads that have pinned them: they were in a database that was replaced. */
  private lostBelow = 0;

  constructor(
    storage: Storage,
    leases: LeaseBinder,
    currentRevision: number,
    compactRevision: number,
    pageLimits?: PageRemainderLimits,
  ) {
    this.storage = storage;
    this.liveKeys = new LiveKeys(storage.index);
    this.leases = leases;
    this.currentRevision = currentRevision;
    this.compactRevision = compactRevision;
    this.pageLimits = pageLimits;
    this.slices = new RangeSlices(storage);
    this.counts = new RangeCounts(storage, pageLimits);
  }

  /** The storage holds another state: a later one of the same history. Reads that go on over turns go on in it, if it has their revision. */
  restore(currentRevision: number, compactRevision: number): void {
    assert(!this.inTransaction, 'the state is replaced within a transaction');
    assert(currentRevision >= this.currentRevision, 'a snapshot is not older than the state');
    this.currentRevision = currentRevision;
    this.compactRevision = compactRevision;
    this.lostBelow = compactRevision;
    this.changes.length = 0;
    this.liveKeys = new LiveKeys(this.storage.index);
    this.slices = new RangeSlices(this.storage);
    this.counts = new RangeCounts(this.storage, this.pageLimits);
  }

  /** Null, or why a read of a pinned revision cannot go on. */
  lostRevision(revision: number): EtcdError | null {
    return revision < this.lostBelow ? stateReplaced : null;
  }

  /** The revision that a read sees now: the transaction's own once it has changed something. */
  get readRevision(): number {
    return this.inTransaction && this.changes.length > 0 ? this.currentRevision + 1 : this.currentRevision;
  }

  begin(): void {
    assert(!this.inTransaction, 'a write transaction is open already');
    this.inTransaction = true;
    this.changes.length = 0;
    this.opCount = 0;
  }

  /** What is counted from here on belongs to one transaction of reads, and the ranges before, which had none, do not. */
  beginReads(): void {
    assert(!this.inTransaction, 'reads begin within a write transaction');
    this.opCount = 0;
  }

  noteRange(): void {
    this.opCount++;
    this.counters.range++;
  }

  noteDelete(): void {
    this.opCount++;
    this.counters.delete++;
  }

  /** What was counted since begin(), beginReads() or the last call was one transaction: etcd reads a Txn's compares in one of its own. */
  noteTransaction(): void {
    if (this.opCount > 1) this.counters.txn++;
    this.opCount = 0;
  }

  /** Closes the transaction; its revision exists only if it changed something. */
  end(): void {
    assert(this.inTransaction, 'no write transaction is open');
    this.inTransaction = false;
    this.noteTransaction();
    if (this.changes.length === 0) return;
    this.currentRevision++;
    if (this.onCommit !== null) this.onCommit(this.currentRevision, this.changes.length);
  }

  /** Puts; the caller has checked the lease. Returns the revision. */
  put(
    keyBuffer: Buffer,
    keyStart: number,
    keyEnd: number,
    valueBuffer: Buffer,
    valueStart: number,
    valueEnd: number,
    leaseHi: number,
    leaseLo: number,
  ): number {
    assert(this.inTransaction, 'put outside a transaction');
    const main = this.currentRevision + 1;
    const sub = this.changes.length;
    const state = this.state;
    const isLive = this.storage.index.get(keyBuffer, keyStart, keyEnd, state);
    const createMain = isLive ? state.createMain : main;
    const version = isLive ? state.version + 1 : 1;
    const supersededMain = isLive ? state.main : 0;
    const supersededSub = isLive ? state.sub : 0;
    const oldLeaseHi = isLive ? state.leaseHi : 0;
    const oldLeaseLo = isLive ? state.leaseLo : 0;
    const length = keyValueLength(
      keyEnd - keyStart,
      createMain,
      main,
      version,
      valueEnd - valueStart,
      leaseHi,
      leaseLo,
    );
    const storage = this.storage;
    const ordinal = storage.appendRow(main, sub, false, length, supersededMain, supersededSub);
    const rows = storage.rowBuffer;
    const rowStart = storage.rowOffset;
    let offset = writeKeyValueHead(rows, rowStart, keyBuffer, keyStart, keyEnd, createMain, main, version);
    offset = writeKeyValueTail(rows, offset, valueBuffer, valueStart, valueEnd, leaseHi, leaseLo);
    assert(offset === rowStart + length, 'a row is not as long as reserved');
    state.main = main;
    state.sub = sub;
    state.createMain = createMain;
    state.version = version;
    state.leaseHi = leaseHi;
    state.leaseLo = leaseLo;
    state.tombstone = false;
    state.ordinal = ordinal;
    storage.index.record(keyBuffer, keyStart, keyEnd, state);
    this.changes.push(ordinal);
    this.opCount++;
    this.counters.put++;
    this.counters.totalPutBytes += keyEnd - keyStart + valueEnd - valueStart;
    if (oldLeaseHi !== leaseHi || oldLeaseLo !== leaseLo) {
      if (oldLeaseHi !== 0 || oldLeaseLo !== 0) this.leases.detach(oldLeaseHi, oldLeaseLo, keyBuffer, keyStart, keyEnd);
      if (leaseHi !== 0 || leaseLo !== 0) this.leases.attach(leaseHi, leaseLo, keyBuffer, keyStart, keyEnd);
    }
    return main;
  }

  /** Has `liveKeys` begin with a range, `rangeEnd` as requests carry it; answers how many keys are live in it now. */
  openLiveKeys(buffer: Buffer, keyStart: number, keyEnd: number, rangeEndStart: number, rangeEndEnd: number): number {
    if (rangeEndStart === rangeEndEnd) return this.liveKeys.openKey(buffer, keyStart, keyEnd);
    const end = rangeEndOf(buffer, rangeEndStart, rangeEndEnd);
    return this.liveKeys.open(buffer.subarray(keyStart, keyEnd), end);
  }

  /** Deletes one live key. */
  deleteKey(key: Buffer, keyStart: number, keyEnd: number): void {
    assert(this.inTransaction, 'delete outside a transaction');
    const state = this.state;
    const isLive = this.storage.index.get(key, keyStart, keyEnd, state);
    assert(isLive, 'delete of a key that is not live');
    const main = this.currentRevision + 1;
    const sub = this.changes.length;
    const leaseHi = state.leaseHi;
    const leaseLo = state.leaseLo;
    const length = keyValueLength(keyEnd - keyStart, 0, 0, 0, 0, 0, 0);
    const storage = this.storage;
    const ordinal = storage.appendRow(main, sub, true, length, state.main, state.sub);
    const offset = writeKeyValueHead(storage.rowBuffer, storage.rowOffset, key, keyStart, keyEnd, 0, 0, 0);
    assert(offset === storage.rowOffset + length, 'a tombstone is not as long as reserved');
    state.main = main;
    state.sub = sub;
    state.createMain = 0;
    state.version = 0;
    state.leaseHi = state.leaseLo = 0;
    state.tombstone = true;
    state.ordinal = ordinal;
    storage.index.record(key, keyStart, keyEnd, state);
    this.changes.push(-1 - ordinal);
    if (leaseHi !== 0 || leaseLo !== 0) this.leases.detach(leaseHi, leaseLo, key, keyStart, keyEnd);
  }

  /**
   * The live KeyValue of a key as of now (the transaction's own changes included) into `out`: its bytes live until the next
   * read. False when the key is not live.
   */
  current(buffer: Buffer, keyStart: number, keyEnd: number, out: RowRef): boolean {
    if (!this.storage.index.get(buffer, keyStart, keyEnd, this.state)) return false;
    this.readRow(this.state, out);
    return true;
  }

  /** The live KeyValues of a range as of now, in key order, until `visit` returns false; each is valid inside the call only. */
  visitCurrent(
    buffer: Buffer,
    keyStart: number,
    keyEnd: number,
    rangeEndStart: number,
    rangeEndEnd: number,
    visit: (row: RowRef) => boolean,
  ): void {
    const end = rangeEndOf(buffer, rangeEndStart, rangeEndEnd);
    this.storage.index.scan(buffer.subarray(keyStart, keyEnd), end, Infinity, (_key, _start, _end, state) => {
      this.readRow(state, this.row);
      return visit(this.row);
    });
  }

  /** The KeyValue of a key as of `revision` into `out`; false when it was not live then, or the revision is compacted. */
  at(buffer: Buffer, keyStart: number, keyEnd: number, revision: number, out: RowRef): boolean {
    if (revision < this.compactRevision) return false;
    if (!this.storage.index.getAt(buffer, keyStart, keyEnd, revision, this.state)) return false;
    this.readRow(this.state, out);
    return true;
  }

  private readRow(state: KeyState, out: RowRef): void {
    const found = this.storage.readRow(state.main, state.sub, state.ordinal, out);
    assertSound(found, 'a revision of the key index has no row');
  }

  /** Null, or why a range at `revision` can't be answered. */
  checkRevision(revision: number): EtcdError | null {
    if (revision > this.readRevision) return etcdErrors.futureRev;
    if (revision > 0 && revision < this.compactRevision) return etcdErrors.compacted;
    return null;
  }

  /**
   * Answers a range: appends RangeResponse's kvs (2), more (3) and count (4) to `out` and sets `rangeRevision`. With
   * `totalCount` false, `count` is that of the answered keys (RangeStream's chunks). When `out` is full afterwards it has no
   * room for the answer.
   */
  range(request: RangeRequest, out: ByteWriter, totalCount = true): EtcdError | null {
    const read = this.rangeSliced(request, out, wholeRead, totalCount);
    if (!(read instanceof RangeRead)) return read;
    while (!read.step(out));
    return null;
  }

  /** A part of a plain range, without a total count: ends with `more`, as at the limit, once it has that many bytes. */
  rangeChunk(request: RangeRequest, out: ByteWriter, bytesMax: number): EtcdError | null {
    const read = this.rangeSliced(request, out, { ...wholeRead, bytes: bytesMax }, false);
    if (!(read instanceof RangeRead)) return read;
    read.close();
    out.varintField(0x18, 1);
    out.varintField(0x20, read.visited);
    return null;
  }

  /** As range(), but does no more than a slice of it: what is left goes on by the RangeRead, to be stepped to its end or closed. */
  rangeSliced(
    request: RangeRequest,
    out: ByteWriter,
    slice: ReadSlice,
    totalCount = true,
  ): EtcdError | RangeRead | null {
    const current = this.readRevision;
    this.rangeRevision = current;
    this.noteRange();
    const error = this.checkRevision(request.revision);
    if (error !== null) return error;
    const revision = request.revision <= 0 ? current : request.revision;
    const { slices } = this;
    const sliceEnd = slices.end;
    if (isPlainRange(request)) {
      const limit = request.limit > 0 ? request.limit : Infinity;
      slices.read(request, this.seenAt(revision), limit, slice, out);
      if (sliceEnd.resumeKey === null && this.endRange(request, revision, totalCount, out)) return null;
    } else {
      slices.reset();
      if (request.countOnly && this.endRange(request, revision, true, out)) return null;
    }
    // Within a turn it is stepped too: what is collected for sorting is looked at after each slice.
    const overTurns = slice !== wholeRead;
    const next = overTurns ? slice : readSlice;
    const read = new RangeRead(this, request, revision, next, totalCount, sliceEnd, out, overTurns);
    // What has not had its first slice has it now: most of these are small.
    return sliceEnd.visited === 0 && read.step(out) ? null : read;
  }

  /**
   * A range as of a pinned revision, not begun yet, to be stepped to its end or closed: it was checked and counted before, when
   * that revision could be asked for.
   */
  rangeAt(request: RangeRequest, revision: number, out: ByteWriter, slice: ReadSlice): RangeRead {
    return new RangeRead(this, request, revision, slice, true, this.slices.reset(), out, true);
  }

  /** How many keys the last slice has looked at. */
  get sliceKeys(): number {
    return this.slices.end.visited;
  }

  /** How many all slices have looked at. */
  get keysVisited(): number {
    return this.slices.visitedBefore + this.slices.end.visited;
  }

  /** Writes more and count behind the KeyValues that the slice has found, if they can be told at once. */
  private endRange(request: RangeRequest, revision: number, totalCount: boolean, out: ByteWriter): boolean {
    const { visited, more } = this.slices.end;
    let count = visited;
    if ((more && totalCount) || request.countOnly) {
      count = this.countNow(request, revision);
      if (count < 0) return false;
      if (more) this.rememberRest(request, revision, this.slices.lastKey(out), count - visited);
    }
    out.varintField(0x18, more ? 1 : 0);
    out.varintField(0x20, count);
    return true;
  }

  // --- for RangeRead ---

  /** A read of the newest revision inside a transaction must see the transaction, whose revision is not the newest yet. */
  seenAt(revision: number): number {
    return revision === this.readRevision ? Infinity : revision;
  }

  /** Keys of the range as of the revision, when that costs no scan; else -1: counts.slow() tells. */
  countNow(request: RangeRequest, revision: number): number {
    return this.counts.now(request, revision, this.readRevision, this.isSettled(revision));
  }

  /** Nothing can change what is seen as of the revision: not so that of a running transaction. */
  private isSettled(revision: number): boolean {
    return revision <= this.currentRevision;
  }

  /** For the next page, which begins behind `lastKey`: how many keys there are from there on. */
  rememberRest(request: RangeRequest, revision: number, lastKey: Buffer, count: number): void {
    if (this.isSettled(revision)) this.counts.rememberRest(request, revision, lastKey, count);
  }

  pin(revision: number): void {
    this.storage.pin(revision);
  }

  unpin(revision: number): void {
    this.storage.unpin(revision);
  }

  /** Null, or why a compaction to `revision` is refused. The deletes themselves are the engine's. */
  compact(revision: number): EtcdError | null {
    if (revision <= this.compactRevision) return etcdErrors.compacted;
    if (revision > this.currentRevision) return etcdErrors.futureRev;
    this.compactRevision = revision;
    return null;
  }
}
