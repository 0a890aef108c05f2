// mvccpb.KeyValue and Event. A KeyValue is encoded once, when its revision is applied, and its bytes are what is stored, hashed,
// answered and watched: this file writes and reads them in place.
//
//   field  tag   value
//   1      0x0a  key              bytes
//   2      0x10  create_revision  varint
//   3      0x18  mod_revision     varint
//   4      0x20  version          varint
//   5      0x2a  value            bytes, left out when empty
//   6      0x30  lease            varint (int64), left out when 0
// A tombstone's row holds the key alone.

import { Reader, varint64Length, varintLength, writeVarint, writeVarint64 } from './wire.ts';

export const KeyValue = {
  key: { no: 1, kind: 'bytes' },
  createRevision: { no: 2, kind: 'int' },
  modRevision: { no: 3, kind: 'int' },
  version: { no: 4, kind: 'int' },
  value: { no: 5, kind: 'bytes' },
  lease: { no: 6, kind: 'int64' },
} as const;

export const EventType = { put: 0, delete: 1 } as const;
export const Event = {
  type: { no: 1, kind: 'enum' },
  kv: { no: 2, kind: KeyValue as typeof KeyValue },
  prevKv: { no: 3, kind: KeyValue as typeof KeyValue },
} as const;

/** Bytes of the KeyValue with these fields. Lengths in bytes; lease as u32 halves. */
export function keyValueLength(
  keyLength: number,
  createRevision: number,
  modRevision: number,
  version: number,
  valueLength: number,
  leaseHigh: number,
  leaseLow: number,
): number {
  let length = 1 + varintLength(keyLength) + keyLength;
  if (createRevision !== 0) length += 1 + varintLength(createRevision);
  if (modRevision !== 0) length += 1 + varintLength(modRevision);
  if (version !== 0) length += 1 + varintLength(version);
  if (valueLength !== 0) length += 1 + varintLength(valueLength) + valueLength;
  if (leaseHigh !== 0 || leaseLow !== 0) length += 1 + varint64Length(leaseHigh, leaseLow);
  return length;
}

/** Fields 1 to 4; the value and the lease follow by writeKeyValueTail. Returns the next offset. */
export function writeKeyValueHead(
  out: Buffer,
  offset: number,
  key: Buffer,
  keyStart: number,
  keyEnd: number,
  createRevision: number,
  modRevision: number,
  version: number,
): number {
  out[offset++] = 0x0a;
  offset = writeVarint(out, offset, keyEnd - keyStart);
  offset += key.copy(out, offset, keyStart, keyEnd);
  if (createRevision !== 0) {
    out[offset++] = 0x10;
    offset = writeVarint(out, offset, createRevision);
  }
  if (modRevision !== 0) {
    out[offset++] = 0x18;
    offset = writeVarint(out, offset, modRevision);
  }
  if (version !== 0) {
    out[offset++] = 0x20;
    offset = writeVarint(out, offset, version);
  }
  return offset;
}

export function writeKeyValueTail(
  out: Buffer,
  offset: number,
  value: Buffer,
  valueStart: number,
  valueEnd: number,
  leaseHigh: number,
  leaseLow: number,
): number {
  if (valueEnd > valueStart) {
    out[offset++] = 0x2a;
    offset = writeVarint(out, offset, valueEnd - valueStart);
    offset += value.copy(out, offset, valueStart, valueEnd);
  }
  if (leaseHigh !== 0 || leaseLow !== 0) {
    out[offset++] = 0x30;
    offset = writeVarint64(out, offset, leaseHigh, leaseLow);
  }
  return offset;
}

/** A KeyValue read in place: numbers and bounds, no copies. Reused. */
export class KeyValueView {
  buffer: Buffer = Buffer.alloc(0);
  keyStart = 0;
  keyEnd = 0;
  createRevision = 0;
  modRevision = 0;
  version = 0;
  valueStart = 0;
  valueEnd = 0;
  leaseHigh = 0;
  leaseLow = 0;
  private readonly reader = new Reader();

  /** False when the bytes are no KeyValue: stored bytes that fail here are corrupt. */
  parse(buffer: Buffer, start: number, end: number): boolean {
    const reader = this.reader;
    reader.reset(buffer, start, end);
    this.buffer = buffer;
    this.keyStart = this.keyEnd = this.valueStart = this.valueEnd = start;
    this.createRevision = this.modRevision = this.version = this.leaseHigh = this.leaseLow = 0;
    while (reader.readTag()) {
      switch (reader.fieldNumber * 8 + reader.wireType) {
        case 0x0a:
          reader.readBytes();
          this.keyStart = reader.bytesStart;
          this.keyEnd = reader.bytesEnd;
          break;
        case 0x10:
          this.createRevision = reader.readInt();
          break;
        case 0x18:
          this.modRevision = reader.readInt();
          break;
        case 0x20:
          this.version = reader.readInt();
          break;
        case 0x2a:
          reader.readBytes();
          this.valueStart = reader.bytesStart;
          this.valueEnd = reader.bytesEnd;
          break;
        case 0x30:
          reader.readVarint64();
          this.leaseHigh = reader.high;
          this.leaseLow = reader.low;
          break;
        default:
          reader.skip();
      }
    }
    return reader.ok;
  }
}
