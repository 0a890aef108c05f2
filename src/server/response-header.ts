// ResponseHeader, encoded: cluster and member id are the same in every answer, so their bytes are made once.
//
//   0x0a len  { 0x08 cluster_id, 0x10 member_id, 0x18 revision, 0x20 raft_term }

import { bigVarintLength, varintLength, writeBigVarint, writeVarint } from '../proto/wire.ts';

/** No header is longer: three 10-byte varints, a 9-byte one, tags and length. */
export const responseHeaderBytesMax = 48;

const scratch: Buffer = Buffer.alloc(responseHeaderBytesMax);

export class ResponseHeaderEncoder {
  readonly clusterId: bigint;
  readonly memberId: bigint;
  /** The raft term that answers carry. */
  term = 0;
  private readonly ids: Buffer;

  constructor(clusterId: bigint, memberId: bigint) {
    this.clusterId = clusterId;
    this.memberId = memberId;
    this.ids = Buffer.allocUnsafe(2 + bigVarintLength(clusterId) + bigVarintLength(memberId));
    this.ids[0] = 0x08;
    let offset = writeBigVarint(this.ids, 1, clusterId);
    this.ids[offset++] = 0x10;
    offset = writeBigVarint(this.ids, offset, memberId);
  }

  /** Writes field 1 of a response; `revision` 0 leaves the revision out. Returns the next offset. */
  write(out: Buffer, offset: number, revision: number): number {
    let length = this.ids.length;
    if (revision !== 0) length += 1 + varintLength(revision);
    if (this.term !== 0) length += 1 + varintLength(this.term);
    out[offset++] = 0x0a;
    out[offset++] = length;
    offset += this.ids.copy(out, offset);
    if (revision !== 0) {
      out[offset++] = 0x18;
      offset = writeVarint(out, offset, revision);
    }
    if (this.term !== 0) {
      out[offset++] = 0x20;
      offset = writeVarint(out, offset, this.term);
    }
    return offset;
  }

  /** How much write() writes. */
  bytes(revision: number): number {
    return this.write(scratch, 0, revision);
  }

  /** The same as an object, for the messages that are encoded by schema. */
  message(revision: number): { clusterId: bigint; memberId: bigint; revision: number; raftTerm: number } {
    return { clusterId: this.clusterId, memberId: this.memberId, revision, raftTerm: this.term };
  }
}
