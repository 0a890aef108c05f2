// Goal: without users, roles and tokens (they come with #5) the Auth service says so in the way that clients expect of an etcd
// where authentication was never enabled, and nothing that would protect the data is accepted and then not done. Method: the
// registered handlers over a real member, with a call that records; a database that an etcd with authentication left behind.
// The same against a real etcd: test-e2e/auth.peer-test.ts.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { Router } from '../grpc/router.ts';
import { AuthenticateRequest, AuthStatusResponse, HeaderOnlyResponse } from '../proto/etcdserverpb.ts';
import { decode, encode } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { AuthKey } from '../snapshot/schema.ts';
import { grpcMethods } from '../telemetry/grpc-methods.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { RecordedCall } from '../testing/recorded-call.ts';
import { registerAuth } from './auth.ts';

let fixture: MemberFixture;
let router: Router;

afterEach(() => fixture.remove());

async function setUp(): Promise<void> {
  fixture = new MemberFixture();
  const member = await fixture.start();
  router = new Router();
  registerAuth(router, member);
}

const ask = (method: string, message: Buffer = Buffer.alloc(0)): Promise<RecordedCall> =>
  new RecordedCall(router, `/etcdserverpb.Auth/${method}`).deliver(message).finished();

const malformed = Buffer.from([0xff, 0xff]);

test('a user and a password are answered as where authentication is not enabled', async () => {
  await setUp();
  const request = encode(AuthenticateRequest, { name: 'root', password: 'secret' });
  assert.deepEqual((await ask('Authenticate', request)).status, etcdErrors.authNotEnabled);
  assert.equal((await ask('Authenticate', malformed)).status!.code, 13);
  await fixture.stop();
});

test('the status of an auth store that nobody used, and disabling what is not enabled', async () => {
  await setUp();
  assert.equal(await fixture.put('k', 'v'), 2);
  const status = decode(AuthStatusResponse, (await ask('AuthStatus')).sent[0]!);
  assert.deepEqual([status?.enabled, status?.authRevision, status?.header?.revision], [false, 1, 2]);
  const disabled = decode(HeaderOnlyResponse, (await ask('AuthDisable')).sent[0]!);
  assert.equal(disabled?.header?.revision, 2);
  for (const method of ['AuthStatus', 'AuthDisable']) assert.equal((await ask(method, malformed)).status!.code, 13);
  await fixture.stop();
});

test('every other method of the service is refused, and says when it comes', async () => {
  await setUp();
  const answered = new Set(['Authenticate', 'AuthStatus', 'AuthDisable']);
  const methods = grpcMethods.filter(({ service }) => service === 'etcdserverpb.Auth').map(({ method }) => method);
  assert.equal(methods.length, 17);
  for (const method of methods.filter((name) => !answered.has(name))) {
    const { status } = await ask(method);
    assert.equal(status!.code, 12, method);
    assert.match(status!.message, /^keelson: users, roles and authentication are not supported by this version yet/);
  }
  await fixture.stop();
});

test('without a leader nothing is answered', async () => {
  fixture = new MemberFixture();
  const member = await fixture.open();
  router = new Router();
  registerAuth(router, member);
  const calls = ['Authenticate', 'AuthStatus', 'AuthDisable'].map((method) =>
    new RecordedCall(router, `/etcdserverpb.Auth/${method}`).deliver(Buffer.alloc(0)),
  );
  assert.ok(calls.every((call) => !call.ended));
  await fixture.stop();
  for (const call of calls) assert.deepEqual((await call.finished()).status, etcdErrors.stopped);
});

test('a database whose etcd had authentication enabled is not served without it', async () => {
  fixture = new MemberFixture();
  const member = await fixture.start();
  const { backend } = member.parts;
  backend.bucketPut('auth', AuthKey.enabled, Buffer.from([1]));
  assert.throws(
    () => registerAuth(new Router(), member),
    (error) =>
      error instanceof FatalError && error.exitCode === ExitCode.dataDir && /authentication/.test(error.message),
  );
  backend.bucketPut('auth', AuthKey.enabled, Buffer.from([0]));
  registerAuth(new Router(), member);
  backend.endApply(backend.consistentIndex, member.term);
  await fixture.stop();
});
