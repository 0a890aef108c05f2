// Goal: what the services answer on a member alone: health with and without a leader, what the cluster service refuses, renewals in
// their order, encoded watch answers. Method: the registered handlers over a real member, with a call that records.

import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { Router } from '../grpc/router.ts';
import {
  LeaseGrantRequest,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  MemberAddRequest,
  MemberAddResponse,
  MemberIdRequest,
  MemberListRequest,
  MembersResponse,
  MemberUpdateRequest,
} from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { decode, encode } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { bigReadsOf } from '../testing/big-reads-of-member.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { RecordedCall } from '../testing/recorded-call.ts';
import { registerCluster } from './cluster.ts';
import { registerHealth } from './health.ts';
import { registerLease } from './lease.ts';

let fixture: MemberFixture;
let router: Router;

afterEach(() => fixture.remove());

async function setUp(start: boolean): Promise<void> {
  fixture = new MemberFixture();
  const member = start ? await fixture.start() : await fixture.open();
  router = new Router();
  registerHealth(router, member);
  registerCluster(router, member);
  registerLease(router, member, bigReadsOf(member));
}

const ask = (path: string, message: Buffer): Promise<RecordedCall> =>
  new RecordedCall(router, path).deliver(message).finished();

const malformed = Buffer.from([0xff, 0xff]);

describe('health', () => {
  const path = '/grpc.health.v1.Health/Check';

  it('serves with a leader, does not without one', async () => {
    await setUp(false);
    assert.deepEqual([...(await ask(path, Buffer.alloc(0))).sent[0]!], [0x08, 2], 'not serving');
    await fixture.stop();
    fixture.remove();
    await setUp(true);
    assert.deepEqual([...(await ask(path, Buffer.alloc(0))).sent[0]!], [0x08, 1]);
    assert.deepEqual(
      [...(await ask('/grpc.health.v1.Health/List', Buffer.alloc(0))).sent[0]!.subarray(0, 2)],
      [0x0a, 4],
    );
    await fixture.stop();
  });

  it('answers while the disk stands still', async () => {
    await setUp(true);
    fixture.walStalled = true;
    const put = fixture.put('k', 'v');
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual([...(await ask(path, Buffer.alloc(0))).sent[0]!], [0x08, 1]);
    fixture.walStalled = false;
    assert.equal(await put, 2);
    await fixture.stop();
  });

  it('knows one service, and says so', async () => {
    await setUp(true);
    const named = Buffer.from([0x0a, 1, 0x78]);
    assert.deepEqual((await ask(path, named)).status, { code: 5, message: 'unknown service' });
    assert.equal((await ask(path, malformed)).status!.code, 13);
    const watch = new RecordedCall(router, '/grpc.health.v1.Health/Watch').open().deliver(Buffer.alloc(0));
    assert.deepEqual([...watch.sent[0]!], [0x08, 1]);
    assert.ok(!watch.ended, 'the stream stays');
    const unknown = new RecordedCall(router, '/grpc.health.v1.Health/Watch').open().deliver(named);
    assert.deepEqual([...unknown.sent[0]!], [0x08, 3]);
    await fixture.stop();
  });
});

describe('cluster', () => {
  const UNKNOWN_ID = 0x1234n;

  it('lists itself, linearizably or not, without a revision', async () => {
    await setUp(true);
    for (const linearizable of [true, false]) {
      const call = await ask('/etcdserverpb.Cluster/MemberList', encode(MemberListRequest, { linearizable }));
      const { header, members } = decode(MembersResponse, call.sent[0]!)!;
      assert.equal(header!.revision, 0);
      assert.equal(members.length, 1);
      assert.equal(members[0]!.id, fixture.member.parts.id);
      assert.equal(members[0]!.name, 'm1');
    }
    await fixture.stop();
  });

  it('refuses as etcd what cannot be, and answers a change with the members', async () => {
    await setUp(true);
    const own = fixture.member.parts.id;
    const good = ['http://127.0.0.1:2390'];
    const cases: [method: string, message: Buffer, status: { code: number; message: string }][] = [
      ['MemberAdd', encode(MemberAddRequest, { peerUrls: [] }), etcdErrors.memberBadUrls],
      ['MemberAdd', encode(MemberAddRequest, { peerUrls: ['nonsense'] }), etcdErrors.memberBadUrls],
      ['MemberRemove', encode(MemberIdRequest, { id: UNKNOWN_ID }), etcdErrors.memberNotFound],
      ['MemberRemove', encode(MemberIdRequest, { id: own }), etcdErrors.memberNotEnoughStarted],
      ['MemberUpdate', encode(MemberUpdateRequest, { id: UNKNOWN_ID, peerUrls: good }), etcdErrors.memberNotFound],
      ['MemberUpdate', encode(MemberUpdateRequest, { id: own, peerUrls: ['x'] }), etcdErrors.memberBadUrls],
      ['MemberPromote', encode(MemberIdRequest, { id: UNKNOWN_ID }), etcdErrors.memberNotFound],
      ['MemberPromote', encode(MemberIdRequest, { id: own }), etcdErrors.memberNotLearner],
    ];
    for (const [method, message, { code, message: text }] of cases) {
      const { status } = await ask(`/etcdserverpb.Cluster/${method}`, message);
      assert.deepEqual({ code: status!.code, message: status!.message }, { code, message: text }, method);
    }
    for (const method of ['MemberList', 'MemberAdd', 'MemberRemove', 'MemberUpdate', 'MemberPromote']) {
      assert.equal((await ask(`/etcdserverpb.Cluster/${method}`, malformed)).status!.code, 13, method);
    }
    const updated = await ask(
      '/etcdserverpb.Cluster/MemberUpdate',
      encode(MemberUpdateRequest, { id: own, peerUrls: good }),
    );
    const update = decode(MembersResponse, updated.sent[0]!)!;
    assert.deepEqual([update.header!.revision, update.members.map(({ peerUrls }) => peerUrls)], [0, [good]]);
    const urls = [' http://127.0.0.1:2392', 'http://127.0.0.1:2391'];
    const added = await ask(
      '/etcdserverpb.Cluster/MemberAdd',
      encode(MemberAddRequest, { peerUrls: urls, isLearner: true }),
    );
    const { header, member, members } = decode(MemberAddResponse, added.sent[0]!)!;
    assert.equal(header!.revision, 0);
    const sorted = ['http://127.0.0.1:2391', 'http://127.0.0.1:2392'];
    assert.deepEqual(member, { id: member!.id, name: '', peerUrls: sorted, clientUrls: [], isLearner: true });
    assert.deepEqual(new Set(members.map(({ id }) => id)), new Set([own, member!.id]));
    const removed = await ask('/etcdserverpb.Cluster/MemberRemove', encode(MemberIdRequest, { id: member!.id }));
    assert.deepEqual(
      decode(MembersResponse, removed.sent[0]!)!.members.map(({ id }) => id),
      [own],
    );
    await fixture.stop();
  });
});

describe('lease renewals', () => {
  const renew = (id: bigint): Buffer => encode(LeaseKeepAliveRequest, { id });
  const answers = (call: RecordedCall): [bigint, bigint][] =>
    call.sent.map((bytes) => {
      const { id, ttl } = decode(LeaseKeepAliveResponse, bytes)!;
      return [id, ttl];
    });
  const stream = (): RecordedCall => new RecordedCall(router, '/etcdserverpb.Lease/LeaseKeepAlive').open();
  const grant = (id: bigint, ttl: bigint): Promise<unknown> =>
    fixture.propose(RequestField.leaseGrant, LeaseGrantRequest, { id, ttl });

  it('answer the TTL granted, 0 for what is not there, and end with the client', async () => {
    await setUp(true);
    await grant(1n, 100n);
    const call = stream().deliver(renew(1n)).deliver(renew(99n)).deliver(renew(1n));
    assert.deepEqual(answers(call), [
      [1n, 100n],
      [99n, 0n],
      [1n, 100n],
    ]);
    call.stream.halfClose(call);
    assert.equal((await call.finished()).status!.code, 0);
    assert.equal(stream().deliver(malformed).status!.code, 13);
    await fixture.stop();
  });

  it('keep their order behind one whose lease is just being revoked', async () => {
    await setUp(true);
    await grant(1n, 2n);
    await grant(2n, 1000n);
    fixture.advance(3000);
    const call = stream().deliver(renew(1n));
    assert.deepEqual(answers(call), [], 'it waits for the revoke');
    assert.ok(call.paused);
    call.deliver(renew(2n)).deliver(renew(1n));
    fixture.member.tick();
    for (let i = 0; i < 100 && call.sent.length < 3; i++) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(answers(call), [
      [1n, 0n],
      [2n, 1000n],
      [1n, 0n],
    ]);
    assert.ok(!call.paused);
    await fixture.stop();
  });

  it('wait for a leader, for the time of a request', async () => {
    await setUp(false);
    const call = stream().deliver(renew(1n));
    fixture.member.tick();
    assert.deepEqual([call.ended, call.paused], [false, true]);
    fixture.advance(fixture.member.requestTimeoutMs);
    fixture.member.tick();
    assert.equal(call.status!.message, etcdErrors.noLeader.message);
    await fixture.stop();
  });
});
