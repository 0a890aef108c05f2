// A request as etcd's log lines show it: keys quoted, values as their sizes. For lines about requests that took too long or failed,
// and for --log-level=debug; never on the way of others.
//
// etcd prints by two rules, which differ in brackets and in escapes, so that a request shows which one printed it:
//   put and a compare with a value (its own redacted types): put:<key:"k" value_size:3 >     \303\274 for what is not ASCII
//   everything else (protobuf's text format):                delete_range:{key:"a" range_end:"z"}   UTF-8 stays
// Between two fields protobuf puts one blank or two, as a hash of the binary decides; here it is one.

import { isUtf8 } from 'node:buffer';
import { alarmName } from '../apply/alarms.ts';
import {
  AlarmRequest,
  ClusterMemberAttrSetRequest,
  ClusterVersionSetRequest,
  CompactionRequest,
  DowngradeInfoSetRequest,
  LeaseCheckpointRequest,
  LeaseGrantRequest,
  LeaseRevokeRequest,
} from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import {
  type Compare,
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

const SORT_ORDERS: readonly string[] = ['NONE', 'ASCEND', 'DESCEND'];
const SORT_TARGETS: readonly string[] = ['KEY', 'VERSION', 'CREATE', 'MOD', 'VALUE'];
const COMPARE_RESULTS: readonly string[] = ['EQUAL', 'GREATER', 'LESS', 'NOT_EQUAL'];
const COMPARE_TARGETS: readonly string[] = ['VERSION', 'CREATE', 'MOD', 'VALUE', 'LEASE'];
const ALARM_ACTIONS: readonly string[] = ['GET', 'ACTIVATE', 'DEACTIVATE'];

const controlEscapes: ReadonlyMap<number, string> = new Map([
  [0x0a, '\\n'],
  [0x0d, '\\r'],
  [0x09, '\\t'],
  [0x22, '\\"'],
  [0x5c, '\\\\'],
]);

/** Cuts what a line shows of a key, and says so. */
function shownEnd(start: number, end: number): number {
  return Math.min(end, start + KEY_BYTES_SHOWN_MAX);
}

/** Bytes as golang/protobuf's text format quotes them: octal for all that is not printable ASCII. */
function quotedInOctal(buffer: Buffer, start: number, end: number): string {
  let text = '"';
  for (let i = start; i < shownEnd(start, end); i++) {
    const byte = buffer[i]!;
    if (controlEscapes.has(byte)) text += controlEscapes.get(byte)!;
    else if (byte >= 0x20 && byte < 0x7f) text += String.fromCharCode(byte);
    else text += `\\${byte.toString(8).padStart(3, '0')}`;
  }
  return end - start > KEY_BYTES_SHOWN_MAX ? `${text}..."` : `${text}"`;
}

/** Bytes as protobuf's present text format quotes them: UTF-8 as it is, other bytes in hex. */
function quoted(buffer: Buffer, start: number, end: number): string {
  const last = shownEnd(start, end);
  let text = '"';
  for (let i = start; i < last; ) {
    const byte = buffer[i]!;
    const length = byte < 0x80 ? 1 : utf8Length(buffer, i, last);
    const code = length > 1 ? buffer.toString('utf8', i, i + length).codePointAt(0)! : byte;
    if (controlEscapes.has(code)) text += controlEscapes.get(code)!;
    else if (length === 0 || code < 0x20 || code === 0x7f) text += `\\x${byte.toString(16).padStart(2, '0')}`;
    else if (code >= 0x80 && code <= 0x9f) text += `\\u${code.toString(16).padStart(4, '0')}`;
    else text += String.fromCodePoint(code);
    i += Math.max(1, length);
  }
  return end - start > KEY_BYTES_SHOWN_MAX ? `${text}..."` : `${text}"`;
}

/** Bytes of the well-formed UTF-8 character beyond ASCII at `start`, 0 when there is none. */
function utf8Length(buffer: Buffer, start: number, end: number): number {
  const lead = buffer[start]!;
  const length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  return start + length <= end && isUtf8(buffer.subarray(start, start + length)) ? length : 0;
}

/** Fields that are not at their default, each with its name; 0, '' and false are left out as protobuf leaves them out. */
function fields(...pairs: readonly (readonly [name: string, value: string | number | bigint | boolean])[]): string {
  return pairs
    .filter(([, value]) => value !== '' && value !== 0 && value !== 0n && value !== false)
    .map(([name, value]) => `${name}:${value}`)
    .join(' ');
}

function bytesOf(buffer: Buffer, start: number, end: number): string {
  return end > start ? quoted(buffer, start, end) : '';
}

/** The name of an enum's value, '' for its first. */
function enumName(names: readonly string[], value: number): string {
  return value === 0 ? '' : (names[value] ?? String(value));
}

function leaseOf(high: number, low: number): bigint {
  return BigInt.asIntN(64, (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0));
}

export function rangeText(request: RangeRequest): string {
  const { buffer } = request;
  return fields(
    ['key', bytesOf(buffer, request.keyStart, request.keyEnd)],
    ['range_end', bytesOf(buffer, request.rangeEndStart, request.rangeEndEnd)],
    ['limit', request.limit],
    ['revision', request.revision],
    ['sort_order', enumName(SORT_ORDERS, request.sortOrder)],
    ['sort_target', enumName(SORT_TARGETS, request.sortTarget)],
    ['serializable', request.serializable],
    ['keys_only', request.keysOnly],
    ['count_only', request.countOnly],
    ['min_mod_revision', request.minModRevision],
    ['max_mod_revision', request.maxModRevision],
    ['min_create_revision', request.minCreateRevision],
    ['max_create_revision', request.maxCreateRevision],
  );
}

export function deleteText(request: DeleteRangeRequest): string {
  const { buffer } = request;
  return fields(
    ['key', bytesOf(buffer, request.keyStart, request.keyEnd)],
    ['range_end', bytesOf(buffer, request.rangeEndStart, request.rangeEndEnd)],
    ['prev_kv', request.prevKv],
  );
}

/** With a blank behind each field, as etcd's redacted types have it. */
export function putText(request: PutRequest): string {
  const { buffer, keyStart, keyEnd } = request;
  const text = fields(
    ['key', keyEnd > keyStart ? quotedInOctal(buffer, keyStart, keyEnd) : ''],
    ['value_size', request.valueEnd - request.valueStart],
    ['lease', leaseOf(request.leaseHigh, request.leaseLow)],
    ['prev_kv', request.prevKv],
    ['ignore_value', request.ignoreValue],
    ['ignore_lease', request.ignoreLease],
  );
  return text === '' ? '' : `${text} `;
}

function compareText(compare: Compare): string {
  const { buffer, keyStart, keyEnd, rangeEndStart, rangeEndEnd, unionField } = compare;
  const result = enumName(COMPARE_RESULTS, compare.result);
  const target = enumName(COMPARE_TARGETS, compare.target);
  if (unionField === 7) {
    const text = fields(
      ['result', result],
      ['target', target],
      ['key', keyEnd > keyStart ? quotedInOctal(buffer, keyStart, keyEnd) : ''],
      ['value_size', compare.valueEnd - compare.valueStart],
      ['range_end', rangeEndEnd > rangeEndStart ? quotedInOctal(buffer, rangeEndStart, rangeEndEnd) : ''],
    );
    return text === '' ? '' : `${text} `;
  }
  // A member of a oneof is shown even when it is 0.
  const name = ['version', 'create_revision', 'mod_revision', '', 'lease'][unionField - 4];
  const value = unionField === 8 ? leaseOf(compare.leaseHigh, compare.leaseLow) : compare.number;
  return fields(
    ['result', result],
    ['target', target],
    ['key', bytesOf(buffer, keyStart, keyEnd)],
    [name ?? '', name === undefined ? '' : String(value)],
    ['range_end', bytesOf(buffer, rangeEndStart, rangeEndEnd)],
  );
}

function operationText(operation: RequestOp): string {
  if (operation instanceof EmptyOp) return '';
  if (operation instanceof PutRequest) return `request_put:<${putText(operation)}>`;
  if (operation instanceof RangeRequest) return `request_range:{${rangeText(operation)}}`;
  if (operation instanceof DeleteRangeRequest) return `request_delete_range:{${deleteText(operation)}}`;
  return `request_txn:<${txnText(operation)}>`;
}

function listText<T>(items: readonly T[], text: (item: T) => string): string {
  const shown = items.slice(0, OPERATIONS_SHOWN_MAX).map(text);
  if (items.length > shown.length) shown.push(`... of ${items.length}`);
  return shown.join(' ');
}

export function txnText({ compare, success, failure }: TxnRequest): string {
  return `compare:<${listText(compare, compareText)}> success:<${listText(success, operationText)}> failure:<${listText(failure, operationText)}>`;
}

/** An entry's request `field`, at buffer[start, end), with its id, as etcd shows InternalRaftRequest. */
export function entryText(id: bigint, field: number, buffer: Buffer, start: number, end: number): string {
  const redacted = redactedText(field, buffer, start, end);
  const header = fields(['ID', id]);
  return redacted === null
    ? `header:{${header}} ${plainText(field, buffer, start, end)}`
    : `header:<${header}> ${redacted}`;
}

/** The requests that etcd prints in its own way, so that values and passwords are not shown; null for the others. */
function redactedText(field: number, buffer: Buffer, start: number, end: number): string | null {
  switch (field) {
    case RequestField.put: {
      const put = new PutRequest();
      return put.parse(buffer, start, end) ? `put:<${putText(put)}>` : 'put:<>';
    }
    case RequestField.txn: {
      const txn = new TxnRequest();
      return txn.parse(buffer, start, end) ? `txn:<${txnText(txn)}>` : 'txn:<>';
    }
    case RequestField.leaseGrant: {
      const grant = decode(LeaseGrantRequest, buffer, start, end);
      return `lease_grant:<ttl:${grant?.ttl}-second id:${hex16(grant?.id)}>`;
    }
    case RequestField.leaseRevoke:
      return `lease_revoke:<id:${hex16(decode(LeaseRevokeRequest, buffer, start, end)?.id)}>`;
    default:
      return null;
  }
}

function plainText(field: number, buffer: Buffer, start: number, end: number): string {
  switch (field) {
    case RequestField.deleteRange: {
      const remove = new DeleteRangeRequest();
      return `delete_range:{${remove.parse(buffer, start, end) ? deleteText(remove) : ''}}`;
    }
    case RequestField.compaction: {
      const compaction = decode(CompactionRequest, buffer, start, end);
      const text = fields(['revision', compaction?.revision ?? 0], ['physical', compaction?.physical ?? false]);
      return `compaction:{${text}}`;
    }
    case RequestField.alarm: {
      const alarm = decode(AlarmRequest, buffer, start, end);
      const text = fields(
        ['action', enumName(ALARM_ACTIONS, alarm?.action ?? 0)],
        ['memberID', alarm?.memberId ?? 0n],
        ['alarm', alarm === undefined || alarm.alarm === 0 ? '' : alarmName(alarm.alarm)],
      );
      return `alarm:{${text}}`;
    }
    case RequestField.leaseCheckpoint: {
      const checkpoints = decode(LeaseCheckpointRequest, buffer, start, end)?.checkpoints ?? [];
      const text = listText(
        checkpoints,
        ({ id, remainingTtl }) => `checkpoints:{${fields(['ID', id], ['remaining_TTL', remainingTtl])}}`,
      );
      return `lease_checkpoint:{${text}}`;
    }
    default:
      return serverText(field, buffer, start, end);
  }
}

/** Requests that only servers make. */
function serverText(field: number, buffer: Buffer, start: number, end: number): string {
  switch (field) {
    case RequestField.clusterVersionSet: {
      const ver = decode(ClusterVersionSetRequest, buffer, start, end)?.ver ?? '';
      return `cluster_version_set:{${fields(['ver', text(ver)])}}`;
    }
    case RequestField.clusterMemberAttrSet: {
      const set = decode(ClusterMemberAttrSetRequest, buffer, start, end);
      const { name, clientUrls } = set?.memberAttributes ?? { name: '', clientUrls: [] };
      const urls = clientUrls.map((url): [string, string] => ['client_urls', JSON.stringify(url)]);
      const attributes = `{${fields(['name', text(name)], ...urls)}}`;
      const member = fields(['member_ID', set?.memberId ?? 0n], ['member_attributes', attributes]);
      return `cluster_member_attr_set:{${member}}`;
    }
    case RequestField.downgradeInfoSet: {
      const info = decode(DowngradeInfoSetRequest, buffer, start, end);
      return `downgrade_info_set:{${fields(['enabled', info?.enabled ?? false], ['ver', text(info?.ver ?? '')])}}`;
    }
    default:
      return `field:${field} size:${end - start}`;
  }
}

function text(value: string): string {
  const bytes = Buffer.from(value);
  return bytesOf(bytes, 0, bytes.length);
}

/** As Go's %016x writes an int64. */
function hex16(id = 0n): string {
  return id < 0n ? `-${(-id).toString(16).padStart(15, '0')}` : id.toString(16).padStart(16, '0');
}
