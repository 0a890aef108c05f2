// What etcd's log lines tell of a response: sizes and counts, read back from the bytes that were sent. Only for lines about slow or
// failed requests and for --log-level=debug.

import type { ByteWriter } from '../base/byte-writer.ts';
import { Reader, varintLength, WireType } from '../proto/wire.ts';

/** A response inside the server carries a header with nothing but the revision. */
export function sizeWithRevision(bodyBytes: number, revision: number): number {
  return bodyBytes + 2 + (revision > 0 ? 1 + varintLength(revision) : 0);
}

/** RangeResponse without its header. */
export function rangeResponseText(body: ByteWriter, revision: number): string {
  const count = countFields(body.bytes, 0, body.length, 2);
  return `range_response_count:${count} size:${sizeWithRevision(body.length, revision)}`;
}

/** TxnResponse of a Txn that only reads, without its header. */
export function txnResponseText(body: ByteWriter, revision: number): string {
  return txnCountsText(txnRangeCounts(body), body.length, revision);
}

/** The same of how many KeyValues its ranges have found, and its length. */
export function txnCountsText(counts: readonly number[], bodyBytes: number, revision: number): string {
  const texts = counts.map((count) => `range_response_count:${count}`);
  return `responses:<${texts.join(' ')}> size:${sizeWithRevision(bodyBytes, revision)}`;
}

/** How many KeyValues each range of a TxnResponse, or of its beginning, has found. */
export function txnRangeCounts(body: ByteWriter): number[] {
  const counts: number[] = [];
  const responses = new Reader();
  responses.reset(body.bytes, 0, body.length);
  while (responses.readTag()) {
    if (responses.fieldNumber !== 3 || responses.wireType !== WireType.bytes) {
      responses.skip();
      continue;
    }
    responses.readBytes();
    const count = rangeCount(body.bytes, responses.bytesStart, responses.bytesEnd);
    if (count !== null) counts.push(count);
  }
  return counts;
}

/** Of a ResponseOp: how many KeyValues its range found; null when it is another operation's. */
function rangeCount(bytes: Buffer, start: number, end: number): number | null {
  const operation = new Reader();
  operation.reset(bytes, start, end);
  if (!operation.readTag() || operation.fieldNumber !== 1 || !operation.readBytes()) return null;
  return countFields(bytes, operation.bytesStart, operation.bytesEnd, 2);
}

/** How often the field comes in the message. */
function countFields(bytes: Buffer, start: number, end: number, field: number): number {
  const reader = new Reader();
  reader.reset(bytes, start, end);
  let count = 0;
  while (reader.readTag()) {
    if (reader.fieldNumber === field) count++;
    reader.skip();
  }
  return count;
}

/** The value of a varint field, 0 when it is not there: a response's count, deleted or succeeded. */
export function numberField(bytes: Buffer, start: number, end: number, field: number): number {
  const reader = new Reader();
  reader.reset(bytes, start, end);
  let value = 0;
  while (reader.readTag()) {
    if (reader.fieldNumber === field && reader.wireType === WireType.varint) value = reader.readInt();
    else reader.skip();
  }
  return value;
}

/** Count and bytes of the messages in a repeated field, without their tags and lengths. */
export function messagesIn(bytes: Buffer, start: number, end: number, field: number): { count: number; bytes: number } {
  const reader = new Reader();
  reader.reset(bytes, start, end);
  const found = { count: 0, bytes: 0 };
  while (reader.readTag()) {
    if (reader.fieldNumber !== field || reader.wireType !== WireType.bytes) {
      reader.skip();
      continue;
    }
    reader.readBytes();
    found.count++;
    found.bytes += reader.bytesEnd - reader.bytesStart;
  }
  return found;
}
