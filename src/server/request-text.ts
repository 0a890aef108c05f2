// A request as etcd's log lines show it: keys quoted, values as their sizes, as its loggable requests redact them. For lines about
// requests that took too long or failed; never on the way of one that did not.

import { CompactionRequest, LeaseGrantRequest, LeaseRevokeRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import {
  DeleteRangeRequest,
  EmptyOp,
  PutRequest,
  RangeRequest,
  type RequestOp,
  TxnRequest,
} from '../proto/kv-request.ts';
import { decode } from '../proto/message.ts';

/** Of a transaction's branch: a line of a hundred operations helps nobody. */
const OPERATIONS_SHOWN_MAX = 16;
const KEY_BYTES_SHOWN_MAX = 1024;

function quoted(buffer: Buffer, start: number, end: number): string {
  const text = buffer.toString('utf8', start, Math.min(end, start + KEY_BYTES_SHOWN_MAX));
  return JSON.stringify(end - start > KEY_BYTES_SHOWN_MAX ? `${text}...` : text);
}

function keyRange(
  buffer: Buffer,
  { keyStart, keyEnd, rangeEndStart, rangeEndEnd }: RangeRequest | DeleteRangeRequest,
): string {
  const end = rangeEndEnd > rangeEndStart ? ` range_end:${quoted(buffer, rangeEndStart, rangeEndEnd)}` : '';
  return `key:${quoted(buffer, keyStart, keyEnd)}${end}`;
}

export function rangeText(request: RangeRequest): string {
  let text = keyRange(request.buffer, request);
  if (request.limit !== 0) text += ` limit:${request.limit}`;
  if (request.revision !== 0) text += ` revision:${request.revision}`;
  if (request.serializable) text += ' serializable:true';
  if (request.keysOnly) text += ' keys_only:true';
  if (request.countOnly) text += ' count_only:true';
  return text;
}

function putText({ buffer, keyStart, keyEnd, valueStart, valueEnd, leaseHigh, leaseLow }: PutRequest): string {
  const text = `key:${quoted(buffer, keyStart, keyEnd)} value_size:${valueEnd - valueStart}`;
  const lease = (BigInt(leaseHigh >>> 0) << 32n) | BigInt(leaseLow >>> 0);
  return lease === 0n ? text : `${text} lease:${lease}`;
}

function operationText(operation: RequestOp): string {
  if (operation instanceof EmptyOp) return '';
  if (operation instanceof PutRequest) return `request_put:<${putText(operation)}>`;
  if (operation instanceof RangeRequest) return `request_range:<${rangeText(operation)}>`;
  if (operation instanceof DeleteRangeRequest) return `request_delete_range:<${keyRange(operation.buffer, operation)}>`;
  return `request_txn:<${txnText(operation)}>`;
}

function branchText(operations: readonly RequestOp[]): string {
  const shown = operations.slice(0, OPERATIONS_SHOWN_MAX).map(operationText);
  if (operations.length > shown.length) shown.push(`... of ${operations.length}`);
  return shown.join(' ');
}

export function txnText(request: TxnRequest): string {
  const compares = request.compare.map(({ buffer, keyStart, keyEnd }) => `key:${quoted(buffer, keyStart, keyEnd)}`);
  return `compare:<${compares.join(' ')}> success:<${branchText(request.success)}> failure:<${branchText(request.failure)}>`;
}

/** The request `field` of an entry, at buffer[start, end): its name and content. */
export function requestText(field: number, buffer: Buffer, start: number, end: number): string {
  switch (field) {
    case RequestField.put: {
      const put = new PutRequest();
      return put.parse(buffer, start, end) ? `put:<${putText(put)}>` : 'put:<>';
    }
    case RequestField.deleteRange: {
      const remove = new DeleteRangeRequest();
      return remove.parse(buffer, start, end) ? `delete_range:<${keyRange(buffer, remove)}>` : 'delete_range:<>';
    }
    case RequestField.txn: {
      const txn = new TxnRequest();
      return txn.parse(buffer, start, end) ? `txn:<${txnText(txn)}>` : 'txn:<>';
    }
    case RequestField.compaction:
      return `compaction:<revision:${decode(CompactionRequest, buffer, start, end)?.revision}>`;
    case RequestField.leaseGrant: {
      const grant = decode(LeaseGrantRequest, buffer, start, end);
      return `lease_grant:<ttl:${grant?.ttl}-second id:${hex16(grant?.id)}>`;
    }
    case RequestField.leaseRevoke:
      return `lease_revoke:<id:${hex16(decode(LeaseRevokeRequest, buffer, start, end)?.id)}>`;
    default:
      return `field:${field} size:${end - start}`;
  }
}

function hex16(id: bigint | undefined): string {
  return BigInt.asUintN(64, id ?? 0n)
    .toString(16)
    .padStart(16, '0');
}
