// What members ask each other about leases on their peer listeners: /leases renews one, /leases/internal tells what is left of one and
// its keys. Answers and words are those of etcd's leasehttp (lease/leasehttp/http.go); the other side is server/leases.ts.

import { ByteWriter } from '../base/byte-writer.ts';
import { leaseAnswerBytesMax } from '../cluster-limits.ts';
import { readSlice } from '../limits.ts';
import { LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveResponse } from '../proto/etcdserverpb.ts';
import { decode, encode } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { ListRead } from '../rpc/list-read.ts';
import {
  LeaseInternalRequest,
  LeaseInternalResponse,
  leaseContentType,
  leasesInternalPath,
  leasesPath,
} from '../server/lease-messages.ts';
import type { Lease } from '../server/leases.ts';
import type { Member } from '../server/member.ts';
import { type AdminRequest, errorResponse, type PeerListenerResponse } from './http-message.ts';

/** LeaseTimeToLiveResponse before its keys. The header is there and empty. */
const TimeToLiveFront = {
  header: LeaseTimeToLiveResponse.header,
  id: LeaseTimeToLiveResponse.id,
  ttl: LeaseTimeToLiveResponse.ttl,
  grantedTtl: LeaseTimeToLiveResponse.grantedTtl,
} as const;

const noBody: Buffer = Buffer.alloc(0);

export class LeaseEndpoints {
  readonly #member: Member;

  constructor(member: Member) {
    this.#member = member;
  }

  /** Null: `path` is another's. */
  handle(path: string, request: AdminRequest): Promise<PeerListenerResponse> | null {
    return path === leasesPath || path === leasesInternalPath ? this.#answer(path, request) : null;
  }

  async #answer(path: string, { method, body }: AdminRequest): Promise<PeerListenerResponse> {
    if (method !== 'POST') return errorResponse(405, 'Method Not Allowed');
    return path === leasesPath ? this.#renew(body ?? noBody) : this.#timeToLive(body ?? noBody);
  }

  async #renew(body: Buffer): Promise<PeerListenerResponse> {
    const request = decode(LeaseKeepAliveRequest, body);
    if (request === undefined) return malformed();
    const { leases } = this.#member;
    const result = await new Promise<number | EtcdError>((done) => leases.renewForPeer(request.id, done));
    if (typeof result !== 'number') return refusal(result, 400);
    return message(encode(LeaseKeepAliveResponse, { id: request.id, ttl: BigInt(result) }));
  }

  async #timeToLive(body: Buffer): Promise<PeerListenerResponse> {
    const request = decode(LeaseInternalRequest, body);
    if (request === undefined) return malformed();
    // etcd ends the connection of whoever leaves the inner message out; here it asks for the lease 0, which there is not.
    const id = request.timeToLive?.id ?? 0n;
    const { leases } = this.#member;
    const result = await new Promise<Lease | EtcdError>((done) => leases.lookUpForPeer(id, done));
    if ('code' in result) return refusal(result, 500);
    return this.#describe(result, request.timeToLive?.keys === true);
  }

  /** The keys of one moment, encoded a slice a turn. */
  async #describe(lease: Lease, keys: boolean): Promise<PeerListenerResponse> {
    const { lessor, schedule } = this.#member.parts;
    const ttl = BigInt(lessor.remainingSecondsOf(lease));
    const front = encode(TimeToLiveFront, { header: {}, id: lease.id, ttl, grantedTtl: BigInt(lease.ttlSeconds) });
    const out = new ByteWriter(4096, leaseAnswerBytesMax);
    out.copy(front, 0, front.length);
    const read = new ListRead(0, keys ? [...lease.keys] : [], writeKey, readSlice);
    while (!read.step(out)) await new Promise<void>((next) => schedule(next));
    if (out.full) return errorResponse(500, `the lease's keys are longer than ${leaseAnswerBytesMax} bytes`);
    return message(encode(LeaseInternalResponse, { timeToLive: out.bytes.subarray(0, out.length) }));
  }
}

function writeKey(out: ByteWriter, key: string): void {
  const bytes = Buffer.from(key, 'latin1');
  out.bytesField(0x2a, bytes, 0, bytes.length);
}

function message(body: Buffer): PeerListenerResponse {
  return { status: 200, headers: { 'Content-Type': leaseContentType }, body };
}

function malformed(): PeerListenerResponse {
  return errorResponse(400, 'error unmarshalling request');
}

/** `otherwise`: the status of what has none of its own, which is that this member is not the leader. */
function refusal(error: EtcdError, otherwise: number): PeerListenerResponse {
  if (error === etcdErrors.leaseNotFound) return errorResponse(404, 'lease not found');
  if (error !== etcdErrors.timeoutWaitAppliedIndex) return errorResponse(otherwise, error.message);
  return errorResponse(408, 'waiting for node to catch up its applied index has timed out');
}
