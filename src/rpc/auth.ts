// etcdserverpb.Auth where authentication is not enabled, which is all that this version can be: it answers what etcd answers then.
// Clients that were given a user and a password take "authentication is not enabled" for leave to go on without a token; any other
// error ends them. What would need users, roles or tokens is refused, and never accepted without being done (#5).

import type { ServerCall } from '../grpc/call.ts';
import type { Router } from '../grpc/router.ts';
import { AuthenticateRequest, AuthStatusResponse, HeaderOnlyResponse } from '../proto/etcdserverpb.ts';
import { decode } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { authRevisionOf, refuseProtected } from '../server/auth-state.ts';
import type { Member } from '../server/member.ts';
import { acceptEmpty, failMalformed, failWith, respondWithMessage } from './answer.ts';

const SERVICE = 'etcdserverpb.Auth';
const UNIMPLEMENTED = 12;

const refused: readonly string[] = [
  'AuthEnable',
  'UserAdd',
  'UserGet',
  'UserList',
  'UserDelete',
  'UserChangePassword',
  'UserGrantRole',
  'UserRevokeRole',
  'RoleAdd',
  'RoleGet',
  'RoleList',
  'RoleDelete',
  'RoleGrantPermission',
  'RoleRevokePermission',
];

/** Throws FatalError over a database that is protected. */
export function registerAuth(router: Router, member: Member): void {
  const { backend, header, store } = member.parts;
  refuseProtected(backend);
  router.unary(SERVICE, 'Authenticate', (call, message, start, end) => {
    if (decode(AuthenticateRequest, message, start, end) === undefined) failMalformed(call);
    else whenReadable(member, call, () => failWith(call, etcdErrors.authNotEnabled));
  });
  router.unary(SERVICE, 'AuthStatus', (call, message, start, end) => {
    if (!acceptEmpty(call, message, start, end)) return;
    whenReadable(member, call, () => {
      const head = header.message(store.currentRevision);
      respondWithMessage(call, AuthStatusResponse, { header: head, authRevision: authRevisionOf(backend) });
    });
  });
  // etcd logs an entry that changes nothing; here nothing is what there is to log.
  router.unary(SERVICE, 'AuthDisable', (call, message, start, end) => {
    if (!acceptEmpty(call, message, start, end)) return;
    whenReadable(member, call, () => {
      respondWithMessage(call, HeaderOnlyResponse, { header: header.message(store.currentRevision) });
    });
  });
  for (const method of refused) {
    router.unary(SERVICE, method, (call, message, start, end) => {
      if (!acceptEmpty(call, message, start, end)) return;
      call.fail({
        code: UNIMPLEMENTED,
        message:
          'keelson: users, roles and authentication are not supported by this version yet (they come with issue 5)',
      });
    });
  }
}

/** As etcd, which answers nothing of this without a leader. */
function whenReadable(member: Member, call: ServerCall, ready: () => void): void {
  if (member.canReadNow) ready();
  else member.read({ ready, failed: (error) => failWith(call, error) });
}
