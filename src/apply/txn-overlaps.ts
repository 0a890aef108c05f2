// Whether a Txn may put what it deletes: etcd's checkIntervals (v3rpc/key.go), and one case more. Asked of a client's request, and of what
// another member proposes (applicable.ts): what slips through is found in the middle of the apply, when nobody can go back.

import { DeleteRangeRequest, PutRequest, type RequestOp, TxnRequest } from '../proto/kv-request.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';

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
