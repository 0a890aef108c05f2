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

/** A deleted range of a branch; `end` null: to the last key; undefined: the key alone. Strings of one character a byte. */
interface DeletedRange {
  readonly key: string;
  readonly end: string | null | undefined;
}

interface Touched {
  readonly puts: Set<string>;
  readonly deletes: DeletedRange[];
}

/** Refuses a branch that would put a key twice, or put a key that it deletes; nested Txns count with both their branches. */
export function checkOverlaps(ops: readonly RequestOp[]): EtcdError | null {
  const touched = touchedBy(ops);
  return touched === null ? etcdErrors.duplicateKey : null;
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
    for (const key of success.puts) if (puts.has(key) || isDeleted(deletes, key)) return null;
    // The two branches exclude each other: only a key from outside of both is a duplicate.
    for (const key of failure.puts) {
      if ((puts.has(key) && !success.puts.has(key)) || isDeleted(deletes, key)) return null;
    }
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
  if (op.rangeEndStart === op.rangeEndEnd) return { key, end: undefined };
  const end = op.buffer.toString('latin1', op.rangeEndStart, op.rangeEndEnd);
  return { key, end: end === '\0' ? null : end };
}

function isDeleted(deletes: readonly DeletedRange[], key: string): boolean {
  for (const range of deletes) {
    if (range.end === undefined ? key === range.key : key >= range.key && (range.end === null || key < range.end)) {
      return true;
    }
  }
  return false;
}
