// InternalRaftRequest (etcd 3.7): what a normal raft entry carries. One request field and a header with the request's id:
//
//   field     tag        content
//   3..9      1 byte     range, put, delete_range, txn, compaction, lease_grant, lease_revoke: the client's message, spliced in
//   10, 11    1 byte     alarm, lease_checkpoint
//   100       a2 06      RequestHeader {1: ID, 2: username, 3: auth_revision}
//   1300...   2 bytes    cluster_version_set, cluster_member_attr_set, downgrade_info_set
//
// An id is 64 bits: the member's low 16 bits above a 48-bit counter, so that its own proposals are found by the counter, a number.

import { Reader, varint64Length, varintLength, writeVarint, writeVarint64 } from './wire.ts';

export const RequestField = {
  range: 3,
  put: 4,
  deleteRange: 5,
  txn: 6,
  compaction: 7,
  leaseGrant: 8,
  leaseRevoke: 9,
  alarm: 10,
  leaseCheckpoint: 11,
  clusterVersionSet: 1300,
  clusterMemberAttrSet: 1301,
  downgradeInfoSet: 1302,
  downgradeVersionTest: 9900,
} as const;
export type RequestField = (typeof RequestField)[keyof typeof RequestField];

/** etcd's requests about users, roles and authentication, none of which this version knows: authEnable to authRoleRevokePermission. */
export function isAuthField(field: number): boolean {
  return field >= 1000 && field < 1300;
}

const HEADER_FIELD = 100;
const TWO_32 = 4294967296;

/** Encodes an entry: `field` with message[start, end), then the header. `prefix` is the id's high 16 bits, `counter` its low 48. */
export function encodeInternalRequest(
  field: RequestField,
  message: Buffer,
  start: number,
  end: number,
  prefix: number,
  counter: number,
): Buffer {
  const idHigh = ((prefix << 16) | Math.floor(counter / TWO_32)) >>> 0;
  const idLow = counter % TWO_32;
  const headerLength = 1 + varint64Length(idHigh, idLow);
  const tag = field * 8 + 2;
  const headerTag = HEADER_FIELD * 8 + 2;
  const requestLength = varintLength(tag) + varintLength(end - start) + end - start;
  const out = Buffer.allocUnsafe(requestLength + 2 + varintLength(headerLength) + headerLength);
  let offset = field < HEADER_FIELD ? writeRequest(out, 0, tag, message, start, end) : 0;
  offset = writeVarint(out, offset, headerTag);
  offset = writeVarint(out, offset, headerLength);
  out[offset++] = 0x08;
  offset = writeVarint64(out, offset, idHigh, idLow);
  if (field > HEADER_FIELD) writeRequest(out, offset, tag, message, start, end);
  return out;
}

/** Where in an entry the bytes of a client's request begin: its field comes first. */
export function requestOffset(field: RequestField, bytes: number): number {
  return varintLength(field * 8 + 2) + varintLength(bytes);
}

function writeRequest(out: Buffer, offset: number, tag: number, message: Buffer, start: number, end: number): number {
  offset = writeVarint(out, offset, tag);
  offset = writeVarint(out, offset, end - start);
  return offset + message.copy(out, offset, start, end);
}

/** An entry read in place; reused. */
export class InternalRequest {
  /** The request's field number, known to this version or not; 0 when the entry holds none. */
  field = 0;
  start = 0;
  end = 0;
  /** High 16 and low 48 bits of the id. */
  idPrefix = 0;
  idCounter = 0;
  /** It is no InternalRaftRequest at all: v2-request.ts. */
  isOfV2 = false;
  private readonly reader = new Reader();
  private readonly header = new Reader();

  /** False when malformed: a committed entry that does not parse is corrupt. */
  parse(buffer: Buffer, start: number, end: number): boolean {
    const reader = this.reader;
    reader.reset(buffer, start, end);
    this.field = this.idPrefix = this.idCounter = 0;
    this.isOfV2 = false;
    while (reader.readTag()) {
      const field = reader.fieldNumber;
      if (reader.wireType !== 2) {
        if (field === RequestField.deleteRange) this.isOfV2 = true;
        reader.skip();
        continue;
      }
      if (!reader.readBytes()) return false;
      if (field === HEADER_FIELD) {
        if (!this.parseHeader(buffer, reader.bytesStart, reader.bytesEnd)) return false;
      } else {
        this.field = field;
        this.start = reader.bytesStart;
        this.end = reader.bytesEnd;
      }
    }
    return reader.ok;
  }

  private parseHeader(buffer: Buffer, start: number, end: number): boolean {
    const header = this.header;
    header.reset(buffer, start, end);
    while (header.readTag()) {
      if (header.fieldNumber === 1 && header.wireType === 0) {
        header.readVarint64();
        this.idPrefix = header.high >>> 16;
        this.idCounter = (header.high & 0xffff) * TWO_32 + header.low;
      } else header.skip();
    }
    return header.ok;
  }
}
