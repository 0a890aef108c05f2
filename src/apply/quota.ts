// The cost of a request against --quota-backend-bytes, in bytes, as etcd reckons it (storage/quota.go of 3.7.1).

import { PutRequest, type RequestOp, TxnRequest } from '../proto/kv-request.ts';

/** etcd's estimate of a key's metadata. */
const KEY_OVERHEAD_BYTES = 256;
/** etcd's estimate of a stored lease. */
export const LEASE_COST_BYTES = 64;

export function putCost(put: PutRequest): number {
  return KEY_OVERHEAD_BYTES + (put.keyEnd - put.keyStart) + (put.valueEnd - put.valueStart);
}

/** The dearer of the two branches, nested ones included; 0 for a Txn that puts nothing. */
export function txnCost(txn: TxnRequest): number {
  return Math.max(opsCost(txn.success), opsCost(txn.failure));
}

function opsCost(ops: readonly RequestOp[]): number {
  let cost = 0;
  for (const op of ops) {
    if (op instanceof PutRequest) cost += putCost(op);
    else if (op instanceof TxnRequest) cost += txnCost(op);
  }
  return cost;
}
