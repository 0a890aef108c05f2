// etcdserverpb.Lease: grants and revokes go through raft; renewals and remaining times are the leader's own, which any member asks for
// its clients (server/leases.ts).

import { LEASE_COST_BYTES } from '../apply/quota.ts';
import { ByteWriter } from '../base/byte-writer.ts';
import type { ServerCall } from '../grpc/call.ts';
import type { Router, StreamHandler } from '../grpc/router.ts';
import {
  LeaseGrantRequest,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseRevokeRequest,
  LeaseStatus,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
} from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { decode, encode, type Message } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import type { Member } from '../server/member.ts';
import { ApplyWaiter, acceptEmpty, failMalformed, failWith, respondWithBody, respondWithMessage } from './answer.ts';
import { type BigReads, ReadSize } from './big-reads.ts';
import { ListRead } from './list-read.ts';

const SERVICE = 'etcdserverpb.Lease';

export function registerLease(router: Router, member: Member, lists: BigReads): void {
  router.unary(SERVICE, 'LeaseGrant', (call, message, start, end) => grant(member, call, message, start, end));
  router.unary(SERVICE, 'LeaseRevoke', (call, message, start, end) => revoke(member, call, message, start, end));
  router.stream(SERVICE, 'LeaseKeepAlive', 'bidi', new KeepAliveHandler(member));
  router.unary(SERVICE, 'LeaseTimeToLive', (call, message, start, end) =>
    timeToLive(member, lists, call, message, start, end),
  );
  router.unary(SERVICE, 'LeaseLeases', (call, message, start, end) => {
    if (!acceptEmpty(call, message, start, end)) return;
    const list = (): void => {
      const { lessor, store } = member.parts;
      const leases = lessor.sorted().map(({ id }) => id);
      const read = new ListRead(store.currentRevision, leases, writeLease, lists.limits.slice);
      answerList(member, lists, call, end - start, read, new ByteWriter(4096, lists.limits.answerBytesMax));
    };
    if (lists.mustWait(call, ReadSize.any, end - start)) lists.wait(call, ReadSize.any, end - start, list);
    else list();
  });
}

function writeLease(out: ByteWriter, id: bigint): void {
  const lease = encode(LeaseStatus, { id });
  out.bytesField(0x12, lease, 0, lease.length);
}

function writeKey(out: ByteWriter, key: string): void {
  const bytes = Buffer.from(key, 'latin1');
  out.bytesField(0x2a, bytes, 0, bytes.length);
}

/** `body` holds what stands before the list; the call may keep its request, of `requestBytes`. */
function answerList<T>(
  member: Member,
  lists: BigReads,
  call: ServerCall,
  requestBytes: number,
  read: ListRead<T>,
  body: ByteWriter,
): void {
  if (read.step(body)) respondWithBody(call, member.parts.header, read.headerRevision, body);
  else lists.begin(call, requestBytes, read, body, () => {});
}

function grant(member: Member, call: ServerCall, message: Buffer, start: number, end: number): void {
  const request = decode(LeaseGrantRequest, message, start, end);
  if (request === undefined) {
    failMalformed(call);
    return;
  }
  if (member.exceedsQuota(LEASE_COST_BYTES)) {
    member.raiseNoSpace();
    failWith(call, etcdErrors.noSpace);
    return;
  }
  // A lease that the client left unnamed is named here, before the log, so that all members agree. Ids are positive.
  const id = request.id === 0n ? member.newLeaseId() : request.id;
  const bytes = encode(LeaseGrantRequest, { ttl: request.ttl, id });
  const waiter = new ApplyWaiter(call, member.parts.header);
  const error = member.propose(RequestField.leaseGrant, bytes, 0, bytes.length, waiter);
  if (error !== null) failWith(call, error);
}

function revoke(member: Member, call: ServerCall, message: Buffer, start: number, end: number): void {
  // Parsed for the refusal alone: what is in the log must parse, since every start applies it again.
  if (decode(LeaseRevokeRequest, message, start, end) === undefined) {
    failMalformed(call);
    return;
  }
  const waiter = new ApplyWaiter(call, member.parts.header);
  const error = member.propose(RequestField.leaseRevoke, message, start, end, waiter);
  if (error !== null) failWith(call, error);
}

function timeToLive(
  member: Member,
  lists: BigReads,
  call: ServerCall,
  message: Buffer,
  start: number,
  end: number,
): void {
  const request = decode(LeaseTimeToLiveRequest, message, start, end);
  if (request === undefined) {
    failMalformed(call);
    return;
  }
  if (request.keys && lists.mustWait(call, ReadSize.any, end - start))
    lists.wait(call, ReadSize.any, end - start, () => answerTimeToLive(member, lists, call, end - start, request));
  else answerTimeToLive(member, lists, call, end - start, request);
}

function answerTimeToLive(
  member: Member,
  lists: BigReads,
  call: ServerCall,
  requestBytes: number,
  { id, keys }: Message<typeof LeaseTimeToLiveRequest>,
): void {
  member.leases.timeToLive(id, keys, call, (result) => {
    const { lessor, header, store } = member.parts;
    if (result === etcdErrors.leaseNotFound) {
      const head = header.message(store.currentRevision);
      respondWithMessage(call, LeaseTimeToLiveResponse, { header: head, id, ttl: -1n });
      return;
    }
    if ('code' in result) {
      failWith(call, result);
      return;
    }
    const body = new ByteWriter(4096, lists.limits.answerBytesMax);
    let attached: string[] = [];
    if ('body' in result) body.copy(result.body, 0, result.body.length);
    else {
      const ttl = BigInt(lessor.remainingSecondsOf(result));
      const front = encode(TimeToLiveFront, { id, ttl, grantedTtl: BigInt(result.ttlSeconds) });
      body.copy(front, 0, front.length);
      // In no order, as etcd's.
      if (keys) attached = [...result.keys];
    }
    const read = new ListRead(store.currentRevision, attached, writeKey, lists.limits.slice);
    answerList(member, lists, call, requestBytes, read, body);
  });
}

/** LeaseTimeToLiveResponse between its header and its keys. */
const TimeToLiveFront = {
  id: LeaseTimeToLiveResponse.id,
  ttl: LeaseTimeToLiveResponse.ttl,
  grantedTtl: LeaseTimeToLiveResponse.grantedTtl,
} as const;

class KeepAliveHandler implements StreamHandler {
  private readonly member: Member;
  constructor(member: Member) {
    this.member = member;
  }

  open(): void {}

  /** Renewals are answered in their order: one that waits for its lease's revoke holds up those behind it, as in etcd. */
  message(call: ServerCall, message: Buffer, start: number, end: number): void {
    const request = decode(LeaseKeepAliveRequest, message, start, end);
    if (request === undefined) {
      failMalformed(call);
      return;
    }
    const { leases, parts } = this.member;
    // Taken before the renewal: a lease revoked at a later revision must not look alive at it.
    const header = parts.header.message(parts.store.currentRevision);
    let isPaused = false;
    let isAnswered = false;
    leases.renew(request.id, call, (result) => {
      isAnswered = true;
      if (typeof result !== 'number' && result !== etcdErrors.leaseNotFound) failWith(call, result);
      else {
        const ttl = typeof result === 'number' ? BigInt(result) : 0n;
        const bytes = encode(LeaseKeepAliveResponse, { header, id: request.id, ttl });
        call.send(bytes, 0, bytes.length);
      }
      // Not before the answer: it delivers, and so answers, the renewals that were held up.
      if (isPaused) call.resumeReceive();
    });
    if (isAnswered) return;
    isPaused = true;
    call.pauseReceive();
  }

  halfClose(call: ServerCall): void {
    call.end();
  }
}
