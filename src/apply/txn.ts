// Runs a Txn: compares, checks and then executes the chosen branch, all within the store's open write transaction, as etcd's
// etcdserver/txn does. Every check comes before the first write: a branch that could fail halfway would leave members different.
// One that only reads has no transaction, and is left to txn-read.ts after a slice.

import { assert } from '../base/assert.ts';
import type { ByteWriter } from '../base/byte-writer.ts';
import type { ReadSlice } from '../limits.ts';
import { RangeRead } from '../mvcc/range-read.ts';
import type { RowRef } from '../mvcc/storage.ts';
import type { Store } from '../mvcc/store.ts';
import {
  type Compare,
  CompareResult,
  CompareTarget,
  DeleteRangeRequest,
  PutRequest,
  RangeRequest,
  type RequestOp,
  TxnRequest,
} from '../proto/kv-request.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { rangeCost, TxnRead, writeRevisionHeader } from './txn-read.ts';

/** Whether a lease exists; ids as u32 halves. */
export interface LeaseLookup {
  has(leaseHi: number, leaseLo: number): boolean;
}

const EMPTY = Buffer.alloc(0);

/** True when every operation of both branches is a range: such a Txn is answered without raft. */
export function isReadOnly(txn: TxnRequest): boolean {
  return txn.success.every(isRange) && txn.failure.every(isRange);
}

/** True when in addition every range is serializable. */
export function isSerializable(txn: TxnRequest): boolean {
  return txn.success.every(isSerializableRange) && txn.failure.every(isSerializableRange);
}

/** True when neither branch of a Txn that only reads can answer more than so many keys, whatever the store holds. */
export function isPaged(txn: TxnRequest, keysMax: number): boolean {
  return answersAtMost(txn.success, keysMax) && answersAtMost(txn.failure, keysMax);
}

/** True when every range of both branches is that of one key. */
export function isOfKeys(txn: TxnRequest): boolean {
  return txn.success.every(isOfKey) && txn.failure.every(isOfKey);
}

function isOfKey(op: RequestOp): boolean {
  return op instanceof RangeRequest && op.rangeEndStart === op.rangeEndEnd;
}

function answersAtMost(ops: readonly RequestOp[], keysMax: number): boolean {
  let keys = 0;
  for (const op of ops) {
    if (!(op instanceof RangeRequest)) return false;
    if (op.rangeEndStart === op.rangeEndEnd) keys++;
    else if (op.limit > 0) keys += op.limit;
    else return false;
  }
  return keys <= keysMax;
}

function isRange(op: RequestOp): boolean {
  return op instanceof RangeRequest;
}

function isSerializableRange(op: RequestOp): boolean {
  return op instanceof RangeRequest && op.serializable;
}

export class TxnRunner {
  private readonly store: Store;
  private readonly leases: LeaseLookup;
  private readonly row: RowRef = { buffer: EMPTY, start: 0, end: 0 };
  private readonly view = new KeyValueView();
  /** The outcomes of the compares, of this Txn and those nested in its chosen branch, depth first. */
  private path: boolean[] = [];
  private step = 0;

  constructor(store: Store, leases: LeaseLookup) {
    this.store = store;
    this.leases = leases;
  }

  /**
   * Executes; appends TxnResponse's succeeded (2) and responses (3) to `out`. The caller brackets writes by begin() and end(). The
   * effect is the same whatever `out` takes: when it is full, before or on the way, nothing is read for it any more.
   */
  run(txn: TxnRequest, out: ByteWriter): EtcdError | null {
    this.path = [];
    this.choose(txn);
    this.step = 0;
    const error = this.check(txn);
    if (error !== null) return error;
    this.store.noteTransaction();
    this.step = 0;
    return this.execute(txn, out);
  }

  /**
   * Executes a Txn of ranges alone, no more than some slice of it: what is left goes on by the TxnRead, to be stepped to its end or
   * closed. Counts as run() and its transaction do. Hot: one that fits makes no object for it.
   */
  runReads(txn: TxnRequest, out: ByteWriter, slice: ReadSlice): EtcdError | TxnRead | null {
    const { store } = this;
    store.beginReads();
    this.path = [];
    this.choose(txn);
    this.step = 0;
    const error = this.check(txn);
    if (error !== null) return error;
    const succeeded = this.path[0] === true;
    const ops = succeeded ? txn.success : txn.failure;
    const lengthMax = out.length + slice.bytes;
    out.varintField(0x10, succeeded ? 1 : 0);
    let keysLeft = slice.keys;
    for (let at = 0; at < ops.length; at++) {
      const range = rangeOf(ops[at]);
      if (out.full) {
        store.noteRange();
        continue;
      }
      if (keysLeft <= 0 || out.length >= lengthMax) return this.leave(ops, at, 0, slice, out);
      const start = out.length;
      const response = out.openMessage(0x1a);
      const member = out.openMessage(0x0a);
      const headerStart = out.length;
      writeRevisionHeader(out, store.currentRevision);
      const read = store.rangeSliced(range, out, slice);
      if (read instanceof RangeRead) {
        // What it has answered is taken out of the answer again: its length is not known yet.
        const end = out.length;
        out.length = start;
        const left = this.leave(ops, at, 1, slice, out);
        left.takeUp(read, out.bytes, headerStart, end);
        return left;
      }
      assert(read === null, 'a range that was checked fails');
      out.closeMessage(member);
      out.closeMessage(response);
      keysLeft -= rangeCost(range, store.sliceKeys, slice);
    }
    return null;
  }

  /** The ranges from `at` on, of which so many have `begun`, are not complete. */
  private leave(ops: readonly RequestOp[], at: number, begun: number, slice: ReadSlice, out: ByteWriter): TxnRead {
    for (let next = at + begun; next < ops.length; next++) this.store.noteRange();
    return new TxnRead(this.store, ops.slice(at).map(rangeOf), slice, out);
  }

  private choose(txn: TxnRequest): void {
    const succeeded = txn.compare.every((compare) => this.holds(compare));
    this.path.push(succeeded);
    for (const op of succeeded ? txn.success : txn.failure) if (op instanceof TxnRequest) this.choose(op);
  }

  private holds(compare: Compare): boolean {
    this.store.noteRange();
    const { buffer, keyStart, keyEnd, rangeEndStart, rangeEndEnd } = compare;
    if (rangeEndStart === rangeEndEnd) {
      if (this.store.current(buffer, keyStart, keyEnd, this.row)) return this.holdsFor(compare, this.row);
      return this.holdsForAbsent(compare);
    }
    let isEmpty = true;
    let holds = true;
    this.store.visitCurrent(buffer, keyStart, keyEnd, rangeEndStart, rangeEndEnd, (row) => {
      isEmpty = false;
      holds = this.holdsFor(compare, row);
      return holds;
    });
    return isEmpty ? this.holdsForAbsent(compare) : holds;
  }

  private holdsFor(compare: Compare, row: RowRef): boolean {
    assert(this.view.parse(row.buffer, row.start, row.end), 'a row is no KeyValue');
    return evaluate(compare, this.view);
  }

  /** A missing key compares as zeros, but never by value: an empty value and no value can't be told apart on the wire. */
  private holdsForAbsent(compare: Compare): boolean {
    if (compare.target === CompareTarget.value) return false;
    this.view.parse(EMPTY, 0, 0);
    return evaluate(compare, this.view);
  }

  private check(txn: TxnRequest): EtcdError | null {
    for (const op of this.path[this.step++] ? txn.success : txn.failure) {
      let error: EtcdError | null = null;
      if (op instanceof RangeRequest) {
        // Unlike in a plain range, a negative revision is no synonym of the newest: etcd compares it as it is.
        const isCompacted = op.revision !== 0 && op.revision < this.store.compactRevision;
        error = isCompacted ? etcdErrors.compacted : this.store.checkRevision(op.revision);
      } else if (op instanceof PutRequest) error = this.checkPut(op);
      else if (op instanceof TxnRequest) error = this.check(op);
      if (error !== null) return error;
    }
    return null;
  }

  checkPut(put: PutRequest): EtcdError | null {
    if (put.hasLease && !this.leases.has(put.leaseHigh, put.leaseLow)) return etcdErrors.leaseNotFound;
    if (readsPrevious(put)) this.store.noteRange();
    if (put.ignoreValue || put.ignoreLease) {
      if (!this.store.current(put.buffer, put.keyStart, put.keyEnd, this.row)) return etcdErrors.keyNotFound;
    }
    return null;
  }

  private execute(txn: TxnRequest, out: ByteWriter): EtcdError | null {
    const succeeded = this.path[this.step++] === true;
    out.varintField(0x10, succeeded ? 1 : 0);
    for (const op of succeeded ? txn.success : txn.failure) {
      const response = out.openMessage(0x1a);
      const error = this.executeOp(op, out);
      if (error !== null) return error;
      out.closeMessage(response);
    }
    return null;
  }

  /** Appends the member of ResponseOp: range 1, put 2, delete_range 3, txn 4. The inner headers carry the revision alone. */
  private executeOp(op: RequestOp, out: ByteWriter): EtcdError | null {
    if (op instanceof RangeRequest) {
      const member = out.openMessage(0x0a);
      writeRevisionHeader(out, this.store.readRevision);
      if (out.full) this.store.noteRange();
      else {
        const error = this.store.range(op, out);
        if (error !== null) return error;
      }
      out.closeMessage(member);
    } else if (op instanceof PutRequest) {
      const member = out.openMessage(0x12);
      writeRevisionHeader(out, this.store.currentRevision + 1);
      if (readsPrevious(op)) this.store.noteRange();
      this.put(op, out);
      out.closeMessage(member);
    } else if (op instanceof DeleteRangeRequest) {
      const member = out.openMessage(0x1a);
      this.deleteRange(op, out, true);
      out.closeMessage(member);
    } else if (op instanceof TxnRequest) {
      const member = out.openMessage(0x22);
      out.byte(0x0a);
      out.varint(0);
      const error = this.execute(op, out);
      if (error !== null) return error;
      out.closeMessage(member);
    }
    return null;
  }

  /** Puts (checked before); appends PutResponse's prev_kv (2). */
  put(put: PutRequest, out: ByteWriter): void {
    const { buffer, keyStart, keyEnd } = put;
    const keepsOld = put.ignoreValue || put.ignoreLease;
    if (!keepsOld && (!put.prevKv || out.full)) {
      this.store.put(buffer, keyStart, keyEnd, buffer, put.valueStart, put.valueEnd, put.leaseHigh, put.leaseLow);
      return;
    }
    const row = this.row;
    const hadKey = this.store.current(buffer, keyStart, keyEnd, row);
    if (hadKey && put.prevKv && out.room(row.end - row.start)) out.bytesField(0x12, row.buffer, row.start, row.end);
    if (!keepsOld) {
      this.store.put(buffer, keyStart, keyEnd, buffer, put.valueStart, put.valueEnd, put.leaseHigh, put.leaseLow);
      return;
    }
    assert(hadKey, 'a put that keeps the old value or lease has no old key');
    // The old row's bytes are a view that the store's own reads end: take them out first.
    const old = Buffer.from(row.buffer.subarray(row.start, row.end));
    assert(this.view.parse(old, 0, old.length), 'a row is no KeyValue');
    const view = this.view;
    const valueBuffer = put.ignoreValue ? old : buffer;
    const valueStart = put.ignoreValue ? view.valueStart : put.valueStart;
    const valueEnd = put.ignoreValue ? view.valueEnd : put.valueEnd;
    const leaseHi = put.ignoreLease ? view.leaseHigh : put.leaseHigh;
    const leaseLo = put.ignoreLease ? view.leaseLow : put.leaseLow;
    this.store.put(buffer, keyStart, keyEnd, valueBuffer, valueStart, valueEnd, leaseHi, leaseLo);
  }

  /** Deletes; appends DeleteRangeResponse's header (with the revision, when `withHeader`), deleted (2) and prev_kvs (3). */
  deleteRange(request: DeleteRangeRequest, out: ByteWriter, withHeader: boolean): void {
    const { buffer, keyStart, keyEnd, rangeEndStart, rangeEndEnd } = request;
    if (request.prevKv) this.store.noteRange();
    this.store.noteDelete();
    const { store, row } = this;
    const count = store.openLiveKeys(buffer, keyStart, keyEnd, rangeEndStart, rangeEndEnd);
    if (withHeader) {
      const changes = count > 0 || store.changes.length > 0;
      writeRevisionHeader(out, store.currentRevision + (changes ? 1 : 0));
    }
    out.varintField(0x10, count);
    const keys = store.liveKeys;
    let deleted = 0;
    while (keys.next()) {
      if (request.prevKv && !out.full) {
        const found = store.current(keys.buffer, keys.start, keys.end, row);
        assert(found, 'a key to delete has no KeyValue');
        if (out.room(row.end - row.start)) out.bytesField(0x1a, row.buffer, row.start, row.end);
      }
      store.deleteKey(keys.buffer, keys.start, keys.end);
      deleted++;
    }
    assert(deleted === count, 'a delete deletes another number of keys than there were');
  }
}

function readsPrevious(put: PutRequest): boolean {
  return put.prevKv || put.ignoreValue || put.ignoreLease;
}

function rangeOf(op: RequestOp | undefined): RangeRequest {
  assert(op instanceof RangeRequest, 'a Txn that only reads has another operation');
  return op;
}

function evaluate(compare: Compare, kv: KeyValueView): boolean {
  let order = 0;
  switch (compare.target) {
    case CompareTarget.value: {
      const isSent = compare.unionField === 7;
      const start = isSent ? compare.valueStart : 0;
      const end = isSent ? compare.valueEnd : 0;
      order = kv.buffer.compare(compare.buffer, start, end, kv.valueStart, kv.valueEnd);
      break;
    }
    case CompareTarget.create:
      order = kv.createRevision - (compare.unionField === 5 ? compare.number : 0);
      break;
    case CompareTarget.mod:
      order = kv.modRevision - (compare.unionField === 6 ? compare.number : 0);
      break;
    case CompareTarget.version:
      order = kv.version - (compare.unionField === 4 ? compare.number : 0);
      break;
    case CompareTarget.lease:
      order = compareLease(compare, kv);
      break;
  }
  switch (compare.result) {
    case CompareResult.equal:
      return order === 0;
    case CompareResult.notEqual:
      return order !== 0;
    case CompareResult.greater:
      return order > 0;
    case CompareResult.less:
      return order < 0;
    default:
      return true;
  }
}

/** Lease ids are signed 64-bit numbers: their high halves compare signed, the low ones unsigned. */
function compareLease(compare: Compare, kv: KeyValueView): number {
  const isSent = compare.unionField === 8;
  const high = (kv.leaseHigh | 0) - (isSent ? compare.leaseHigh | 0 : 0);
  return high !== 0 ? high : kv.leaseLow - (isSent ? compare.leaseLow : 0);
}
