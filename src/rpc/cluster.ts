// etcdserverpb.Cluster for a cluster of one: the list is right, and what would need a peer is refused with etcd's errors.
// Adding, removing and promoting members comes with the peers (#4). Its headers carry no revision, as etcd's.

import type { ServerCall } from '../grpc/call.ts';
import type { Router } from '../grpc/router.ts';
import {
  MemberAddRequest,
  MemberIdRequest,
  MemberListRequest,
  MembersResponse,
  MemberUpdateRequest,
} from '../proto/etcdserverpb.ts';
import { decode } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { Member } from '../server/member.ts';
import { failMalformed, failWith, respondWithMessage } from './answer.ts';

const SERVICE = 'etcdserverpb.Cluster';
const UNIMPLEMENTED = 12;

export function registerCluster(router: Router, member: Member): void {
  router.unary(SERVICE, 'MemberList', (call, message, start, end) => {
    const request = decode(MemberListRequest, message, start, end);
    if (request === undefined) failMalformed(call);
    else if (!request.linearizable || member.canReadNow) answerMembers(member, call);
    else {
      member.read({ ready: () => answerMembers(member, call), failed: (error) => failWith(call, error) });
    }
  });
  router.unary(SERVICE, 'MemberAdd', (call, message, start, end) => {
    const request = decode(MemberAddRequest, message, start, end);
    if (request === undefined) failMalformed(call);
    else refuse(call, checkUrls(request.peerUrls));
  });
  router.unary(SERVICE, 'MemberRemove', (call, message, start, end) => {
    const request = decode(MemberIdRequest, message, start, end);
    if (request === undefined) failMalformed(call);
    else refuse(call, checkRemove(member, request.id));
  });
  router.unary(SERVICE, 'MemberUpdate', (call, message, start, end) => {
    const request = decode(MemberUpdateRequest, message, start, end);
    if (request === undefined) failMalformed(call);
    else refuse(call, checkKnown(member, request.id) ?? checkUrls(request.peerUrls));
  });
  router.unary(SERVICE, 'MemberPromote', (call, message, start, end) => {
    const request = decode(MemberIdRequest, message, start, end);
    if (request === undefined) failMalformed(call);
    else refuse(call, checkKnown(member, request.id) ?? etcdErrors.memberNotLearner);
  });
}

function answerMembers(member: Member, call: ServerCall): void {
  const { cluster, header } = member.parts;
  respondWithMessage(call, MembersResponse, { header: header.message(0), members: cluster.members() });
}

function checkKnown(member: Member, id: bigint): EtcdError | null {
  return member.parts.cluster.member(id) === undefined ? etcdErrors.memberNotFound : null;
}

/** Removing the last voter would leave no quorum. */
function checkRemove(member: Member, id: bigint): EtcdError | null {
  return checkKnown(member, id) ?? etcdErrors.memberNotEnoughStarted;
}

function checkUrls(urls: readonly string[]): EtcdError | null {
  const isGood = urls.length > 0 && urls.every((url) => /^(https?|unixs?):\/\/[^/\s]+$/.test(url));
  return isGood ? null : etcdErrors.memberBadUrls;
}

function refuse(call: ServerCall, error: EtcdError | null): void {
  if (error !== null) failWith(call, error);
  else
    call.fail({
      code: UNIMPLEMENTED,
      message: 'keelson: changing the membership is not supported by this version yet',
    });
}
