// etcdserverpb.Cluster: the list of members, and changes of it, which server/membership.ts checks and proposes. Its headers carry no
// revision, as etcd's; an answer to a change lists the members as of that change.

import type { ServerCall } from '../grpc/call.ts';
import type { Router } from '../grpc/router.ts';
import {
  MemberAddRequest,
  MemberAddResponse,
  MemberIdRequest,
  MemberListRequest,
  MembersResponse,
  MemberUpdateRequest,
} from '../proto/etcdserverpb.ts';
import { decode } from '../proto/message.ts';
import type { Member } from '../server/member.ts';
import type { MembersWaiter } from '../server/membership.ts';
import { failMalformed, failWith, respondWithMessage } from './answer.ts';

const SERVICE = 'etcdserverpb.Cluster';

type ClusterMembers = Parameters<MembersWaiter>[1];

export function registerCluster(router: Router, member: Member): void {
  const { membership } = member;
  router.unary(SERVICE, 'MemberList', (call, message, start, end) => {
    const request = decode(MemberListRequest, message, start, end);
    const list = (): void => answerMembers(member, call, member.parts.cluster.members());
    if (request === undefined) failMalformed(call);
    else if (!request.linearizable || member.canReadNow) list();
    else member.read({ ready: list, failed: (error) => failWith(call, error) });
  });
  router.unary(SERVICE, 'MemberAdd', (call, message, start, end) => {
    const request = decode(MemberAddRequest, message, start, end);
    if (request === undefined) failMalformed(call);
    else add(member, call, request.peerUrls, request.isLearner);
  });
  router.unary(SERVICE, 'MemberRemove', (call, message, start, end) => {
    const request = decode(MemberIdRequest, message, start, end);
    if (request === undefined) failMalformed(call);
    else membership.remove(request.id, answerTo(member, call));
  });
  router.unary(SERVICE, 'MemberUpdate', (call, message, start, end) => {
    const request = decode(MemberUpdateRequest, message, start, end);
    if (request === undefined) failMalformed(call);
    else membership.update(request.id, request.peerUrls, answerTo(member, call));
  });
  router.unary(SERVICE, 'MemberPromote', (call, message, start, end) => {
    const request = decode(MemberIdRequest, message, start, end);
    if (request === undefined) failMalformed(call);
    else membership.promote(request.id, answerTo(member, call));
  });
}

function add(member: Member, call: ServerCall, peerUrls: readonly string[], isLearner: boolean): void {
  let added: ClusterMembers[number] | undefined;
  const done: MembersWaiter = (error, members) => {
    if (error !== null) failWith(call, error);
    else
      respondWithMessage(call, MemberAddResponse, {
        header: member.parts.header.message(0),
        ...(added === undefined ? {} : { member: added }),
        members,
      });
  };
  member.membership.add(peerUrls, isLearner, done, (one) => {
    added = one;
  });
}

function answerTo(member: Member, call: ServerCall): MembersWaiter {
  return (error, members) => {
    if (error !== null) failWith(call, error);
    else answerMembers(member, call, members);
  };
}

function answerMembers(member: Member, call: ServerCall, members: ClusterMembers): void {
  respondWithMessage(call, MembersResponse, { header: member.parts.header.message(0), members });
}
