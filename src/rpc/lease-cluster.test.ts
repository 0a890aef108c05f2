// Goal: in a cluster a lease is the leader's to renew, to tell of and to end, whoever is asked, and no lease ends early because of who
// led when. Method: three members in one process over a network in memory, their Lease service called at each; clocks that the test
// moves, links that it cuts. The words and statuses are etcd's, compared with a real one in test-e2e/lease-answers.peer-test.ts.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { leaseApplyWaitMs } from '../cluster-limits.ts';
import { Router } from '../grpc/router.ts';
import { notPrimary } from '../lease/lessor.ts';
import { leaseCheckpointIntervalMs } from '../limits.ts';
import {
  LeaseGrantRequest,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseLeasesResponse,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
} from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { decode, encode, type Message } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { LeaseInternalRequest } from '../server/lease-messages.ts';
import type { Member } from '../server/member.ts';
import { bigReadsOf } from '../testing/big-reads-of-member.ts';
import { PutMessage } from '../testing/kv-messages.ts';
import { MemberCluster } from '../testing/member-cluster-fixture.ts';
import type { MemberFixture } from '../testing/member-fixture.ts';
import { RecordedCall } from '../testing/recorded-call.ts';
import { registerLease } from './lease.ts';

const names = ['a', 'b', 'c'];
let cluster: MemberCluster;

beforeEach(() => {
  cluster = new MemberCluster();
});

afterEach(() => cluster.end());

function ask(name: string, method: string, message: Buffer): RecordedCall {
  const router = new Router();
  const member = cluster.member(name);
  registerLease(router, member, bigReadsOf(member));
  return new RecordedCall(router, `/etcdserverpb.Lease/${method}`).deliver(message);
}

/** The TTL that a renewal is answered with, or the status. */
async function renew(name: string, id: bigint): Promise<bigint | string> {
  const call = ask(name, 'LeaseKeepAlive', encode(LeaseKeepAliveRequest, { id }));
  await cluster.until(() => call.sent.length > 0 || call.ended);
  return call.sent.length > 0 ? decode(LeaseKeepAliveResponse, call.sent[0]!)!.ttl : call.status!.message;
}

async function timeToLive(name: string, id: bigint): Promise<Message<typeof LeaseTimeToLiveResponse> | string> {
  const call = await ask(name, 'LeaseTimeToLive', encode(LeaseTimeToLiveRequest, { id, keys: true })).finished();
  return call.status?.code === 0 ? decode(LeaseTimeToLiveResponse, call.sent[0]!)! : call.status!.message;
}

async function leases(name: string): Promise<bigint[]> {
  const call = await ask(name, 'LeaseLeases', Buffer.alloc(0)).finished();
  return decode(LeaseLeasesResponse, call.sent[0]!)!.leases.map(({ id }) => id);
}

async function grant(name: string, id: bigint, ttl: bigint): Promise<void> {
  const revision = await cluster.fixture(name).propose(RequestField.leaseGrant, LeaseGrantRequest, { id, ttl });
  assert.equal(typeof revision, 'number');
}

/** Begins a cluster in which every member has the lease 7, of thirty seconds; the leader's name. */
async function beginWithLease(): Promise<string> {
  await cluster.begin(names);
  const leader = await cluster.leader();
  await grant(leader, 7n, 30n);
  await cluster.settled();
  return leader;
}

async function putWithLease(name: string, key: string, lease: bigint): Promise<void> {
  const message = { key: Buffer.from(key), value: Buffer.from('v'), lease };
  assert.equal(typeof (await cluster.fixture(name).propose(RequestField.put, PutMessage, message)), 'number');
}

async function others(leader: string): Promise<string[]> {
  return names.filter((name) => name !== leader);
}

/** Elects another leader by cutting this one off for the while. */
async function depose(leader: string): Promise<string> {
  cluster.cut.add(leader);
  const next = await cluster.leader();
  assert.notEqual(next, leader);
  cluster.cut.delete(leader);
  await cluster.settled();
  await cluster.until(() => cluster.member(next).parts.lessor.isPrimary);
  return next;
}

test('every member answers about leases alike', async () => {
  await cluster.begin(names);
  const leader = await cluster.leader();
  const follower = await cluster.follower();
  await grant(follower, 7n, 1000n);
  await grant(leader, 5n, 500n);
  await putWithLease(follower, 'k1', 7n);
  await putWithLease(leader, 'k2', 7n);
  await cluster.settled();
  for (const name of names) {
    const answer = await timeToLive(name, 7n);
    assert.ok(typeof answer !== 'string');
    const { header, id, ttl, grantedTtl, keys } = answer;
    assert.deepEqual(header?.memberId, cluster.id(name), 'the header is of who answers');
    assert.ok(ttl > 990n && ttl < 1000n, `the leader's clock: ${ttl}`);
    assert.deepEqual([id, grantedTtl, keys.map(String).sort()], [7n, 1000n, ['k1', 'k2']]);
    const unknown = await timeToLive(name, 99n);
    assert.ok(typeof unknown !== 'string');
    assert.deepEqual([unknown.id, unknown.ttl, unknown.grantedTtl], [99n, -1n, 0n]);
    assert.deepEqual([await renew(name, 7n), await renew(name, 99n)], [1000n, 0n]);
    assert.deepEqual((await leases(name)).sort(), [5n, 7n]);
  }
  const forwarded = new Set(cluster.asked.filter((asked) => asked.includes('/leases')));
  assert.deepEqual([...forwarded].sort(), [`POST /leases of ${leader}`, `POST /leases/internal of ${leader}`]);
});

test("a renewal at a follower moves the leader's deadline", async () => {
  await cluster.begin(names);
  const leader = await cluster.leader();
  await grant(leader, 7n, 10n);
  await cluster.settled();
  cluster.fixture(leader).advance(8000);
  assert.equal(await renew(await cluster.follower(), 7n), 10n);
  cluster.fixture(leader).advance(8000);
  // The tick looks for what has ended once the read round that the gap asks for is over; so is one that is asked for behind it.
  cluster.member(leader).tick();
  assert.equal(await cluster.fixture(leader).read(), null);
  assert.equal(typeof (await cluster.fixture(leader).put('k', 'v')), 'number');
  assert.deepEqual(await leases(leader), [7n], 'not ended after sixteen seconds');
  cluster.fixture(leader).advance(10_000);
  await cluster.until(() => names.every((name) => cluster.member(name).parts.lessor.count === 0));
});

test('without a leader: renewals and times wait for one as long as a request may, the list is there', async () => {
  await cluster.begin(names);
  const leader = await cluster.leader();
  const [follower, other] = (await others(leader)) as [string, string];
  await grant(leader, 7n, 1000n);
  await cluster.settled();
  for (const name of [leader, other]) cluster.cut.add(name);
  const member = cluster.member(follower);
  await cluster.until(() => member.leader === 0n);
  const renewal = renew(follower, 7n);
  const time = timeToLive(follower, 7n);
  assert.deepEqual(await leases(follower), [7n]);
  cluster.fixture(follower).advance(member.requestTimeoutMs - 1000);
  member.tick();
  const gone = ask(follower, 'LeaseKeepAlive', encode(LeaseKeepAliveRequest, { id: 7n }));
  assert.deepEqual([gone.ended, gone.paused], [false, true]);
  cluster.fixture(follower).advance(1000);
  assert.deepEqual([await renewal, await time], [etcdErrors.noLeader.message, etcdErrors.noLeader.message]);
  // The third has time left, and gets its answer from the leader that comes.
  cluster.cut.clear();
  await cluster.until(() => gone.sent.length > 0);
  assert.equal(decode(LeaseKeepAliveResponse, gone.sent[0]!)!.ttl, 1000n);
});

test('a renewal that is on its way when the leader is lost is answered by the next one', async () => {
  await cluster.begin(names);
  const leader = await cluster.leader();
  const [follower] = (await others(leader)) as [string];
  await grant(leader, 7n, 1000n);
  await cluster.settled();
  cluster.cut.add(leader);
  assert.deepEqual(await Promise.all([renew(follower, 7n), renew(follower, 8n)]), [1000n, 0n]);
  assert.notEqual(await cluster.leader(), leader);
});

test('a leader that holds a renewal and says nothing does not hold it beyond its time', async () => {
  await cluster.begin(names);
  const leader = await cluster.leader();
  const [follower] = (await others(leader)) as [string];
  await grant(leader, 7n, 1000n);
  await cluster.settled();
  const { peerRequests } = cluster.member(follower).parts;
  const { request } = peerRequests;
  let held = 0;
  peerRequests.request = (url, message, done) => {
    if (url === cluster.url(leader)) held++;
    else request(url, message, done);
  };
  const renewal = renew(follower, 7n);
  assert.equal(held, 1);
  await depose(leader);
  assert.equal(await renewal, 1000n);
});

test('a former leader that stood still while the lease ended on its clock revokes nothing and renews nothing', async () => {
  const former = await beginWithLease();
  const fixture = cluster.fixture(former);
  cluster.cut.add(former);
  fixture.advance(60_000);
  const { member } = fixture;
  assert.ok(member.isLeader, 'it does not know yet');
  const renewal = renew(former, 7n);
  const next = await cluster.leader();
  cluster.cut.delete(former);
  await cluster.settled();
  assert.equal(await renewal, 'not a primary lessor');
  await cluster.until(
    () => fixture.logged("Failed to check current member's leadership").length > 0 || !member.isLeader,
  );
  for (const name of names) assert.equal(cluster.member(name).parts.lessor.count, 1, name);
  assert.equal(await renew(former, 7n), 30n, 'by the new leader');
  const { lessor } = cluster.member(next).parts;
  assert.ok(lessor.remainingSecondsOf(lessor.lookup(7n)!) >= 29, 'with its whole time');
});

/** Until the lease 7, of thirty seconds, has ended on its leader's clock and its revocation is about to be proposed. */
async function untilDue(fixture: MemberFixture): Promise<void> {
  const { member } = fixture;
  const { lessor, nowMs } = member.parts;
  fixture.advance(lessor.lookup(7n)!.deadlineMs - nowMs() - 1500);
  member.tick();
  // Ends the doubt that the gap has raised: the ticks after it look at the leases at once.
  assert.deepEqual(
    await new Promise((resolve) => member.leases.renew(99n, { ended: false }, resolve)),
    etcdErrors.leaseNotFound,
  );
  member.tick();
  for (let i = 0; i < 8 && !member.leases.hasDue; i++) {
    fixture.advance(250);
    member.tick();
  }
  assert.ok(member.leases.hasDue);
}

const waysToLose: Readonly<Record<string, (member: Member) => void>> = {
  went: (member) => member.parts.raft.stepDown(),
  // Proposals of this turn wait until it is over, and go to the next leader.
  'is given away': (member) => {
    const { cluster: members, id } = member.parts;
    const to = members.members().find((one) => one.id !== id)!.id;
    assert.equal(
      member.leadership.move(to, 10_000, () => {}),
      null,
    );
  },
};

for (const [way, lose] of Object.entries(waysToLose)) {
  test(`what has ended but was not proposed when leadership ${way} is left to the next leader`, async () => {
    const former = await beginWithLease();
    const { member } = cluster.fixture(former);
    await untilDue(cluster.fixture(former));
    lose(member);
    await cluster.until(() => !member.isLeader);
    const lead = cluster.member(await cluster.leader());
    await cluster.until(() => lead.parts.lessor.isPrimary);
    // Behind whatever the former leader has passed on.
    assert.equal(typeof (await cluster.fixture(former).put('k', 'v')), 'number');
    await cluster.settled();
    for (const name of names) assert.equal(cluster.member(name).parts.lessor.count, 1, name);
    const { lessor } = lead.parts;
    assert.ok(lessor.remainingSecondsOf(lessor.lookup(7n)!) >= 29);
  });
}

test('a transfer of leadership that fails only puts off the revocation of what has ended', async () => {
  const leader = await beginWithLease();
  const { member } = cluster.fixture(leader);
  await untilDue(cluster.fixture(leader));
  const [silent] = (await others(leader)) as [string];
  cluster.cut.add(silent);
  assert.equal(
    member.leadership.move(cluster.id(silent), 10_000, () => {}),
    null,
  );
  await cluster.until(() => member.parts.lessor.count === 0);
  assert.ok(member.isLeader);
});

test('a renewal that waits for a revocation which is lost with its leader is answered by the next', async () => {
  const former = await beginWithLease();
  const fixture = cluster.fixture(former);
  cluster.cut.add(former);
  fixture.advance(30_000);
  const waiting = new Promise<unknown>((resolve) => fixture.member.leases.renewForPeer(7n, resolve));
  await cluster.until(() => !fixture.member.isLeader);
  assert.equal(await waiting, notPrimary);
  cluster.cut.clear();
  assert.equal(await renew(former, 7n), 30n);
});

test('checkpoints reach all members, hold over an election, and a renewal takes them back', async () => {
  await cluster.begin(names, '--feature-gates=LeaseCheckpoint=true');
  const leader = await cluster.leader();
  const interval = leaseCheckpointIntervalMs / 1000;
  await grant(leader, 7n, BigInt(4 * interval));
  await cluster.settled();
  cluster.fixture(leader).advance(leaseCheckpointIntervalMs + 1000);
  const left = (name: string): number => cluster.member(name).parts.lessor.lookup(7n)!.remainingSeconds;
  await cluster.until(() => names.every((name) => left(name) > 0));
  assert.deepEqual(new Set(names.map(left)), new Set([3 * interval - 1]));
  const next = await depose(leader);
  const { lessor } = cluster.member(next).parts;
  const seconds = lessor.remainingSecondsOf(lessor.lookup(7n)!);
  assert.ok(seconds >= 3 * interval - 2 && seconds <= 3 * interval, `${seconds}`);
  assert.equal(await renew(await cluster.follower(), 7n), BigInt(4 * interval));
  await cluster.settled();
  assert.deepEqual(names.map(left), [0, 0, 0]);
});

test('the peer listener: statuses and texts', async () => {
  await cluster.begin(names);
  const leader = await cluster.leader();
  const follower = await cluster.follower();
  await grant(leader, 7n, 60n);
  await cluster.settled();
  const post = async (name: string, target: string, body: Buffer, method = 'POST'): Promise<[number, string]> => {
    const request = { method, target, host: '', origin: '', secure: false, body };
    const answer = await cluster.admin(name).handlePeer(request);
    return [answer.status, answer.body.toString('latin1')];
  };
  const renewal = (id: bigint): Buffer => encode(LeaseKeepAliveRequest, { id });
  const look = (id: bigint): Buffer => encode(LeaseInternalRequest, { timeToLive: { id, keys: true } });
  assert.deepEqual(await post(leader, '/leases', renewal(7n)), [200, '\x10\x07\x18\x3c']);
  assert.deepEqual(await post(leader, '/leases', renewal(9n)), [404, 'lease not found\n']);
  assert.deepEqual(await post(leader, '/leases', Buffer.from([0xff])), [400, 'error unmarshalling request\n']);
  assert.deepEqual(await post(leader, '/leases/internal', Buffer.from([0x0a, 9])), [
    400,
    'error unmarshalling request\n',
  ]);
  assert.deepEqual(await post(leader, '/leases', renewal(7n), 'GET'), [405, 'Method Not Allowed\n']);
  assert.deepEqual(await post(leader, '/leases/internal', look(9n)), [404, 'lease not found\n']);
  const [status, told] = await post(leader, '/leases/internal', look(7n));
  assert.deepEqual([status, told.slice(0, 6), told.slice(-2)], [200, '\x0a\x08\x0a\x00\x10\x07', '\x20\x3c']);
  assert.deepEqual(await post(follower, '/leases', renewal(7n)), [400, 'not a primary lessor\n']);
  assert.deepEqual(await post(follower, '/leases', renewal(9n)), [400, 'not a primary lessor\n']);
  assert.deepEqual(await post(follower, '/leases/internal', look(7n)), [500, 'not a primary lessor\n']);
  assert.deepEqual(await post(follower, '/leases/internal', look(9n)), [404, 'lease not found\n']);
  assert.equal((await post(leader, '/leases/', renewal(7n)))[0], 404);
  // A state machine that is behind: its flusher is, and nobody says when it is not.
  const { member } = cluster.fixture(follower);
  Object.assign(member.parts.backend, { isOverloaded: () => true, whenRoom: () => {} });
  assert.equal(typeof (await cluster.fixture(leader).put('k', 'v')), 'number');
  await cluster.until(() => member.parts.raft.committedIndex > member.appliedIndex);
  const behind = Promise.all([post(follower, '/leases', renewal(7n)), post(follower, '/leases/internal', look(7n))]);
  cluster.fixture(follower).advance(leaseApplyWaitMs);
  const late = 'waiting for node to catch up its applied index has timed out\n';
  assert.deepEqual(await behind, [
    [408, late],
    [408, late],
  ]);
});
