// Ids of members and clusters as etcd computes them (server/etcdserver/api/membership): the first eight bytes, big-endian, of
// a SHA-1. They travel in every response header and on the peer protocol, so they must be etcd's to the bit.
//
//   member   SHA-1( sorted peer URLs without separator | cluster token [| unix seconds in decimal, for an added member] )
//   cluster  SHA-1( member ids ascending, 8 bytes big-endian each )

import { createHash } from 'node:crypto';

/** The id of a member of the initial cluster, or of one added later when `unixSeconds` is given. */
export function memberId(peerUrls: readonly string[], clusterToken: string, unixSeconds?: number): bigint {
  const suffix = unixSeconds === undefined ? '' : String(unixSeconds);
  return first8(Buffer.from([...peerUrls].sort(compareBytes).join('') + clusterToken + suffix, 'utf8'));
}

/** The id of the cluster that these members found. */
export function clusterId(memberIds: readonly bigint[]): bigint {
  const bytes = Buffer.alloc(8 * memberIds.length);
  const ascending = [...memberIds].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  ascending.forEach((id, index) => {
    bytes.writeBigUInt64BE(id, 8 * index);
  });
  return first8(bytes);
}

/** As etcd prints ids: hexadecimal without padding. */
export function formatId(id: bigint): string {
  return id.toString(16);
}

function first8(bytes: Buffer): bigint {
  return createHash('sha1').update(bytes).digest().readBigUInt64BE(0);
}

/** Go sorts strings by bytes, JavaScript by UTF-16 units. */
function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a, 'utf8'), Buffer.from(b, 'utf8'));
}
