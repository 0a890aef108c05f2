// What is refused before a KV request is proposed: etcd's v3rpc/key.go checks, in its order, with its errors.

import {
  DeleteRangeRequest,
  PutRequest,
  RangeRequest,
  type RequestOp,
  SortOrder,
  SortTarget,
  TxnRequest,
} from '../proto/kv-request.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';

export function checkRange(request: RangeRequest): EtcdError | null {
  if (request.keyStart === request.keyEnd) return etcdErrors.emptyKey;
  if (request.sortOrder < SortOrder.none || request.sortOrder > SortOrder.descend) return etcdErrors.invalidSortOption;
  if (request.sortTarget < SortTarget.key || request.sortTarget > SortTarget.value) return etcdErrors.invalidSortOption;
  return null;
}

export function checkPut(request: PutRequest): EtcdError | null {
  if (request.keyStart === request.keyEnd) return etcdErrors.emptyKey;
  if (request.ignoreValue && request.valueStart !== request.valueEnd) return etcdErrors.valueProvided;
  if (request.ignoreLease && request.hasLease) return etcdErrors.leaseProvided;
  return null;
}

export function checkDelete(request: DeleteRangeRequest): EtcdError | null {
  return request.keyStart === request.keyEnd ? etcdErrors.emptyKey : null;
}

/** `opsMax` is --max-txn-ops less what the levels above have used. */
export function checkTxn(request: TxnRequest, opsMax: number): EtcdError | null {
  // Not reached with the default of the flag: each level around takes one from `opsMax`.
  if (request.isTooDeep) return etcdErrors.tooManyOps;
  const ops = Math.max(request.compare.length, request.success.length, request.failure.length);
  if (ops > opsMax) return etcdErrors.tooManyOps;
  for (const compare of request.compare) if (compare.keyStart === compare.keyEnd) return etcdErrors.emptyKey;
  for (const op of request.success) {
    const error = checkOp(op, opsMax - ops);
    if (error !== null) return error;
  }
  for (const op of request.failure) {
    const error = checkOp(op, opsMax - ops);
    if (error !== null) return error;
  }
  return null;
}

function checkOp(op: RequestOp, opsMax: number): EtcdError | null {
  if (op instanceof RangeRequest) return checkRange(op);
  if (op instanceof PutRequest) return checkPut(op);
  if (op instanceof DeleteRangeRequest) return checkDelete(op);
  if (op instanceof TxnRequest) return checkTxn(op, opsMax);
  return etcdErrors.keyNotFound;
}

/** A deleted range of a branch; `end` empty: the key alone, '\0': to the last key. Strings of one character a byte. */
interface DeletedRange {
  readonly key: string;
  readonly end: string;
}

interface Touched {
  readonly puts: Set<string>;
  readonly deletes: DeletedRange[];
}

/**
 * Refuses a branch that would put a key twice, or put a key that it deletes; nested Txns count with both their branches. As in
 * etcd's checkIntervals, whose intervals know no end without bound, a delete to the last key overlaps with nothing. A put after
 * it in the same branch then makes the key anew; but one that keeps the old value or lease would find none, which crashes an
 * etcd and is refused here.
 */
export function checkOverlaps(ops: readonly RequestOp[]): EtcdError | null {
  const isRefused = touchedBy(ops) === null || lowestDeletedTail(ops, BEYOND_KEYS) === null;
  return isRefused ? etcdErrors.duplicateKey : null;
}

/** Greater than every key: these have no character above 0xff. */
const BEYOND_KEYS = '\uffff';

/**
 * Walks the operations in their order: the lowest key from which on all keys may have been deleted by then, or null when a put
 * that keeps something would come after that.
 */
function lowestDeletedTail(ops: readonly RequestOp[], lowestBefore: string): string | null {
  let lowest = lowestBefore;
  for (const op of ops) {
    if (op instanceof DeleteRangeRequest) {
      const { key, end } = deletedRange(op);
      if (end === '\0' && key < lowest) lowest = key;
    } else if (op instanceof PutRequest) {
      const keeps = op.ignoreValue || op.ignoreLease;
      if (keeps && op.buffer.toString('latin1', op.keyStart, op.keyEnd) >= lowest) return null;
    } else if (op instanceof TxnRequest) {
      const success = lowestDeletedTail(op.success, lowest);
      const failure = lowestDeletedTail(op.failure, lowest);
      if (success === null || failure === null) return null;
      if (success < lowest) lowest = success;
      if (failure < lowest) lowest = failure;
    }
  }
  return lowest;
}

function touchedBy(ops: readonly RequestOp[]): Touched | null {
  const deletes: DeletedRange[] = [];
  for (const op of ops) if (op instanceof DeleteRangeRequest) deletes.push(deletedRange(op));
  const puts = new Set<string>();
  for (const op of ops) {
    if (!(op instanceof TxnRequest)) continue;
    const success = touchedBy(op.success);
    const failure = touchedBy(op.failure);
    if (success === null || failure === null) return null;
    // The two branches exclude each other: only a key from outside of both is a duplicate.
    for (const key of success.puts) if (puts.has(key) || isDeleted(deletes, key)) return null;
    for (const key of failure.puts) if (puts.has(key) || isDeleted(deletes, key)) return null;
    for (const key of success.puts) puts.add(key);
    for (const key of failure.puts) puts.add(key);
    deletes.push(...success.deletes, ...failure.deletes);
  }
  for (const op of ops) {
    if (!(op instanceof PutRequest)) continue;
    const key = op.buffer.toString('latin1', op.keyStart, op.keyEnd);
    if (puts.has(key) || isDeleted(deletes, key)) return null;
    puts.add(key);
  }
  return { puts, deletes };
}

function deletedRange(op: DeleteRangeRequest): DeletedRange {
  const key = op.buffer.toString('latin1', op.keyStart, op.keyEnd);
  return { key, end: op.buffer.toString('latin1', op.rangeEndStart, op.rangeEndEnd) };
}

function isDeleted(deletes: readonly DeletedRange[], key: string): boolean {
  for (const range of deletes) {
    if (range.end === '' ? key === range.key : key >= range.key && key < range.end) return true;
  }
  return false;
}
