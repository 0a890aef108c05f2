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
