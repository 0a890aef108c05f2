// The multi-version key-value store: revisions, puts, deletes, ranges, over a storage engine (storage.ts). One write
// transaction at a time, opened by begin() and closed by end(), all within one turn: nobody sees half of it. Follows etcd's
// storage/mvcc for every observable number. Not here: leases' meaning (lease/), watches (watch-hub.ts), Txn's compares (apply/).

import { assert } from '../base/assert.ts';
import type { ByteWriter } from '../base/byte-writer.ts';
import type { RangeRequest } from '../proto/kv-request.ts';
import { SortTarget } from '../proto/kv-request.ts';
import { KeyValueView, keyValueLength, writeKeyValueHead, writeKeyValueTail } from '../proto/mvccpb.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { hasRevisionFilters, isDefaultOrdering, needsSort, passesFilters, SortItem, sortItems } from './kv-range.ts';
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

/** The upper bound of a range as requests carry it: empty means one key, a single zero byte means to the last key. */
function isToLast(buffer: Buffer, start: number, end: number): boolean {
  return end - start === 1 && buffer[start] === 0;
}

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

  private readonly storage: Storage;
  private readonly leases: LeaseBinder;
  private inTransaction = false;
  private opCount = 0;
  private readonly state: KeyState = newKeyState();
  private readonly row: RowRef = { buffer: EMPTY, start: 0, end: 0 };
  private readonly view = new KeyValueView();

  // Of the range being visited: fields instead of a closure a request.
  private out!: ByteWriter;
  private limit = 0;
  private visited = 0;
  private more = false;
  private keysOnly = false;
  private atRevision = 0;
  private request!: RangeRequest;
  private items: SortItem[] = [];

  constructor(storage: Storage, leases: LeaseBinder, currentRevision: number, compactRevision: number) {
    this.storage = storage;
    this.leases = leases;
    this.currentRevision = currentRevision;
    this.compactRevision = compactRevision;
  }

  /** The revision that a read sees now: the transaction's own once it has changed something. */
  get readRevision(): number {
    return this.inTransaction && this.changes.length > 0 ? this.currentRevision + 1 : this.currentRevision;
  }

  get isWriting(): boolean {
    return this.inTransaction;
  }

  begin(): void {
    assert(!this.inTransaction, 'a write transaction is open already');
    this.inTransaction = true;
    this.changes.length = 0;
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

  /** What was counted since begin() or the last call was one transaction: etcd reads a Txn's compares in one of its own. */
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

  /** The live keys of a range as copies, ascending. `rangeEnd` as requests carry it. */
  liveKeys(buffer: Buffer, keyStart: number, keyEnd: number, rangeEndStart: number, rangeEndEnd: number): Buffer[] {
    const keys: Buffer[] = [];
    if (rangeEndStart === rangeEndEnd) {
      if (this.storage.index.get(buffer, keyStart, keyEnd, this.state)) {
        keys.push(Buffer.from(buffer.subarray(keyStart, keyEnd)));
      }
      return keys;
    }
    const end = isToLast(buffer, rangeEndStart, rangeEndEnd) ? null : buffer.subarray(rangeEndStart, rangeEndEnd);
    this.storage.index.scan(buffer.subarray(keyStart, keyEnd), end, Infinity, (key, start, keyEndAt) => {
      keys.push(Buffer.from(key.subarray(start, keyEndAt)));
      return true;
    });
    return keys;
  }

  /** Deletes one live key. */
  deleteKey(key: Buffer): void {
    assert(this.inTransaction, 'delete outside a transaction');
    const state = this.state;
    const isLive = this.storage.index.get(key, 0, key.length, state);
    assert(isLive, 'delete of a key that is not live');
    const main = this.currentRevision + 1;
    const sub = this.changes.length;
    const leaseHi = state.leaseHi;
    const leaseLo = state.leaseLo;
    const length = keyValueLength(key.length, 0, 0, 0, 0, 0, 0);
    const storage = this.storage;
    const ordinal = storage.appendRow(main, sub, true, length, state.main, state.sub);
    const offset = writeKeyValueHead(storage.rowBuffer, storage.rowOffset, key, 0, key.length, 0, 0, 0);
    assert(offset === storage.rowOffset + length, 'a tombstone is not as long as reserved');
    state.main = main;
    state.sub = sub;
    state.createMain = 0;
    state.version = 0;
    state.leaseHi = state.leaseLo = 0;
    state.tombstone = true;
    state.ordinal = ordinal;
    storage.index.record(key, 0, key.length, state);
    this.changes.push(-1 - ordinal);
    if (leaseHi !== 0 || leaseLo !== 0) this.leases.detach(leaseHi, leaseLo, key, 0, key.length);
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

  /** The KeyValue of a key as of `revision` into `out`; false when it was not live then, or the revision is compacted. */
  at(buffer: Buffer, keyStart: number, keyEnd: number, revision: number, out: RowRef): boolean {
    if (revision < this.compactRevision) return false;
    if (!this.storage.index.getAt(buffer, keyStart, keyEnd, revision, this.state)) return false;
    this.readRow(this.state, out);
    return true;
  }

  private readRow(state: KeyState, out: RowRef): void {
    const found = this.storage.readRow(state.main, state.sub, state.ordinal, out);
    assert(found, 'a revision of the key index has no row');
  }

  /** Null, or why a range at `revision` can't be answered. */
  checkRevision(revision: number): EtcdError | null {
    if (revision > this.readRevision) return etcdErrors.futureRev;
    if (revision > 0 && revision < this.compactRevision) return etcdErrors.compacted;
    return null;
  }

  /**
   * Answers a range: appends RangeResponse's kvs (2), more (3) and count (4) to `out` and sets `rangeRevision`. With
   * `totalCount` false, `count` is that of the answered keys (RangeStream's chunks).
   */
  range(request: RangeRequest, out: ByteWriter, totalCount = true): EtcdError | null {
    const current = this.readRevision;
    this.rangeRevision = current;
    this.noteRange();
    const error = this.checkRevision(request.revision);
    if (error !== null) return error;
    this.request = request;
    this.out = out;
    this.more = false;
    this.visited = 0;
    this.keysOnly = request.keysOnly;
    // A read of the newest revision inside a transaction must see the transaction, whose revision is not the newest yet.
    const isNewest = request.revision <= 0 || request.revision === current;
    this.atRevision = isNewest ? Infinity : request.revision;
    let count: number;
    if (request.countOnly) count = this.countRange(request);
    else if (!needsSort(request.sortTarget, request.sortOrder) && !hasRevisionFilters(request)) {
      this.limit = request.limit > 0 ? request.limit : Infinity;
      this.visitAll(request, this.visitPlain);
      count = this.more && totalCount ? this.countRange(request) : this.visited;
    } else count = this.rangeSorted(request, out);
    out.varintField(0x18, this.more ? 1 : 0);
    out.varintField(0x20, count);
    return null;
  }

  private visitAll(request: RangeRequest, visit: RangeVisitor): void {
    const { buffer, keyStart, keyEnd, rangeEndStart, rangeEndEnd } = request;
    const index = this.storage.index;
    if (rangeEndStart === rangeEndEnd) {
      const found =
        this.atRevision === Infinity
          ? index.get(buffer, keyStart, keyEnd, this.state)
          : index.getAt(buffer, keyStart, keyEnd, this.atRevision, this.state);
      if (found) visit(buffer, keyStart, keyEnd, this.state);
      return;
    }
    index.scan(buffer.subarray(keyStart, keyEnd), this.rangeEndOf(request), this.atRevision, visit);
  }

  private rangeEndOf(request: RangeRequest): Buffer | null {
    const { buffer, rangeEndStart, rangeEndEnd } = request;
    return isToLast(buffer, rangeEndStart, rangeEndEnd) ? null : buffer.subarray(rangeEndStart, rangeEndEnd);
  }

  private countRange(request: RangeRequest): number {
    if (request.rangeEndStart === request.rangeEndEnd) {
      this.visitAll(request, this.visitCount);
      return this.visited;
    }
    const key = request.buffer.subarray(request.keyStart, request.keyEnd);
    return this.storage.index.count(key, this.rangeEndOf(request), this.atRevision);
  }

  private readonly visitCount = (): boolean => {
    this.visited++;
    return true;
  };

  private readonly visitPlain: RangeVisitor = (key, keyStart, keyEnd, state) => {
    if (this.visited >= this.limit) {
      this.more = true;
      return false;
    }
    this.visited++;
    if (this.keysOnly) this.writeKeyOnly(key, keyStart, keyEnd, state);
    else {
      this.readRow(state, this.row);
      this.out.bytesField(0x12, this.row.buffer, this.row.start, this.row.end);
    }
    return true;
  };

  /** A keys_only answer comes from the index: no value and, as in etcd 3.7, no lease. */
  private writeKeyOnly(key: Buffer, keyStart: number, keyEnd: number, state: KeyState): void {
    if (this.atRevision === Infinity) {
      this.writeKeyHead(key, keyStart, keyEnd, state.createMain, state.main, state.version);
      return;
    }
    this.readRow(state, this.row);
    const view = this.view;
    assert(view.parse(this.row.buffer, this.row.start, this.row.end), 'a row is no KeyValue');
    this.writeKeyHead(view.buffer, view.keyStart, view.keyEnd, view.createRevision, view.modRevision, view.version);
  }

  private writeKeyHead(
    key: Buffer,
    keyStart: number,
    keyEnd: number,
    createMain: number,
    main: number,
    version: number,
  ): void {
    const length = keyValueLength(keyEnd - keyStart, createMain, main, version, 0, 0, 0);
    const out = this.out;
    out.byte(0x12);
    out.varint(length);
    out.reserve(length);
    out.length = writeKeyValueHead(out.bytes, out.length, key, keyStart, keyEnd, createMain, main, version);
  }

  /** Filters and orders: every KeyValue of the range is held. Returns the range's count, before the filters as in etcd. */
  private rangeSorted(request: RangeRequest, out: ByteWriter): number {
    // Without an order etcd reads the first keys alone, one more than the limit, and sorts those by the target.
    const isCut = isDefaultOrdering(request.sortTarget, request.sortOrder) && !hasRevisionFilters(request);
    this.limit = isCut && request.limit > 0 ? request.limit + 1 : Infinity;
    this.items = [];
    this.visitAll(request, this.visitSorted);
    const items = this.items;
    this.items = [];
    sortItems(items, request.sortTarget, request.sortOrder);
    if (request.limit > 0 && items.length > request.limit) {
      items.length = request.limit;
      this.more = true;
    }
    // From the index there is no lease to answer; when the values were needed for sorting, there is.
    const isFromIndex = request.keysOnly && request.sortTarget !== SortTarget.value;
    for (const { bytes, view } of items) {
      if (!request.keysOnly) out.bytesField(0x12, bytes, 0, bytes.length);
      else {
        const leaseHi = isFromIndex ? 0 : view.leaseHigh;
        const leaseLo = isFromIndex ? 0 : view.leaseLow;
        const { createRevision, modRevision, version, keyStart, keyEnd } = view;
        const length = keyValueLength(keyEnd - keyStart, createRevision, modRevision, version, 0, leaseHi, leaseLo);
        out.byte(0x12);
        out.varint(length);
        out.reserve(length);
        const offset = writeKeyValueHead(
          out.bytes,
          out.length,
          bytes,
          keyStart,
          keyEnd,
          createRevision,
          modRevision,
          version,
        );
        out.length = writeKeyValueTail(out.bytes, offset, EMPTY, 0, 0, leaseHi, leaseLo);
      }
    }
    return this.visited < this.limit ? this.visited : this.countRange(request);
  }

  private readonly visitSorted: RangeVisitor = (_key, _keyStart, _keyEnd, state) => {
    if (this.visited >= this.limit) return false;
    this.visited++;
    this.readRow(state, this.row);
    const item = new SortItem(Buffer.from(this.row.buffer.subarray(this.row.start, this.row.end)));
    if (passesFilters(this.request, item.view.modRevision, item.view.createRevision)) this.items.push(item);
    return true;
  };

  /** Null, or why a compaction to `revision` is refused. The deletes themselves are the engine's. */
  compact(revision: number): EtcdError | null {
    if (revision <= this.compactRevision) return etcdErrors.compacted;
    if (revision > this.currentRevision) return etcdErrors.futureRev;
    this.compactRevision = revision;
    return null;
  }
}

type RangeVisitor = (key: Buffer, keyStart: number, keyEnd: number, state: KeyState) => boolean;
