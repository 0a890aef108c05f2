// What members say to each other about leases, over their peer listeners: etcd's leasehttp. A request is answered with a message in
// 200, with 404 when there is no such lease, with 408 when its state machine is behind, and with 400 or 500 when it is not the leader.

import { leaseAnswerBytesMax } from '../cluster-limits.ts';
import type { PeerRequest } from '../peer/peer-transport.ts';
import {
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
} from '../proto/etcdserverpb.ts';
import { decode, encode } from '../proto/message.ts';
import { Reader, WireType } from '../proto/wire.ts';

export const leasesPath = '/leases';
export const leasesInternalPath = '/leases/internal';
export const leaseContentType = 'application/protobuf';

/** leasepb. */
export const LeaseInternalRequest = {
  timeToLive: { no: 1, kind: LeaseTimeToLiveRequest as typeof LeaseTimeToLiveRequest },
} as const;
/** Its answer stays bytes: they go on to the client as they are. */
export const LeaseInternalResponse = { timeToLive: { no: 1, kind: 'bytes' } } as const;
const TimeToLiveId = { id: LeaseTimeToLiveResponse.id } as const;

const HEADER_FIELD = LeaseTimeToLiveResponse.header.no;

/** A lease as the leader told it. */
export interface RemoteLease {
  /** LeaseTimeToLiveResponse without its header, which is the answering member's own. */
  readonly body: Buffer;
}

/** A kind of request to the leader. */
export interface LeaseMessages {
  request(id: bigint, keys: boolean, timeoutMs: number): PeerRequest;
  /** Of a 200: null when it is no answer to a request about `id`. */
  result(body: Buffer, id: bigint): number | RemoteLease | null;
}

const headers = { 'Content-Type': leaseContentType } as const;

export const keepAliveMessages: LeaseMessages = {
  request(id: bigint, _keys: boolean, timeoutMs: number): PeerRequest {
    return { method: 'POST', path: leasesPath, headers, body: encode(LeaseKeepAliveRequest, { id }), timeoutMs };
  },
  result(body: Buffer, id: bigint): number | null {
    const answer = decode(LeaseKeepAliveResponse, body);
    return answer === undefined || answer.id !== id ? null : Number(answer.ttl);
  },
};

export const timeToLiveMessages: LeaseMessages = {
  request(id: bigint, keys: boolean, timeoutMs: number): PeerRequest {
    const body = encode(LeaseInternalRequest, { timeToLive: { id, keys } });
    const answerBytesMax = leaseAnswerBytesMax;
    return { method: 'POST', path: leasesInternalPath, headers, body, timeoutMs, answerBytesMax };
  },
  result(body: Buffer, id: bigint): RemoteLease | null {
    const answer = decode(LeaseInternalResponse, body);
    if (answer === undefined || decode(TimeToLiveId, answer.timeToLive)?.id !== id) return null;
    return { body: withoutHeader(answer.timeToLive) };
  },
};

/** `message` is well-formed. */
function withoutHeader(message: Buffer): Buffer {
  const reader = new Reader();
  reader.reset(message, 0, message.length);
  const parts: Buffer[] = [];
  let start = 0;
  for (;;) {
    const fieldStart = reader.position;
    if (!reader.readTag()) break;
    const isHeader = reader.fieldNumber === HEADER_FIELD && reader.wireType === WireType.bytes;
    reader.skip();
    if (!isHeader) continue;
    if (fieldStart > start) parts.push(message.subarray(start, fieldStart));
    start = reader.position;
  }
  parts.push(message.subarray(start));
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}
