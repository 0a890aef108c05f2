// Goal: a member that is removed ends when it is needed no more, and not before. Method: members in one process over a network in memory,
// whose time stands still unless the test moves it. What a cut at the worst moment does is testing/sim-removal.test.ts.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { hexId } from '../membership/cluster.ts';
import { MemberCluster } from '../testing/member-cluster-fixture.ts';

const reason = 'the member has been permanently removed from the cluster';
const staysText = 'this member was removed, and stays until a quorum of the voters knows: they may need its vote';
const endsText = 'this removed member ends before a quorum of the voters knows: they may not get a leader';
const handsOverText = 'this leader is being removed; handing leadership over';

let cluster: MemberCluster;

beforeEach(() => {
  cluster = new MemberCluster();
});

afterEach(() => cluster.end());

/** Begins a cluster whose time stands still from when all have what the leader has; the leader's name, and the others'. */
async function begin(...names: string[]): Promise<[string, string[]]> {
  await cluster.begin(names);
  const leader = await cluster.leader();
  await cluster.settled();
  cluster.stopTicks();
  await cluster.turns();
  return [leader, names.filter((name) => name !== leader)];
}

/** One tick, which nothing stops, `ms` later. */
function tickLater(name: string, ms: number): void {
  const member = cluster.member(name);
  cluster.fixture(name).advance(ms);
  Object.getPrototypeOf(member).tick.call(member);
}

/** Removes the leader; from its apply on nobody hears from it, nor it from anybody. */
async function removeUnheard(leader: string): Promise<void> {
  const { membership } = cluster.member(leader);
  const applied = membership.applied.bind(membership);
  membership.applied = (change) => {
    cluster.cut.add(leader);
    applied(change);
  };
  await cluster.remove(leader, cluster.id(leader));
}

test('a leader that is removed hands leadership over without a tick, and ends when the others know', async () => {
  const [leader, others] = await begin('a', 'b', 'c');
  await cluster.remove(leader, cluster.id(leader));
  await cluster.turns(() => others.some((name) => cluster.member(name).isLeader));
  assert.ok(others.some((name) => cluster.member(name).isLeader));
  assert.equal(cluster.fixture(leader).logged(handsOverText).length, 1);
  await cluster.until(() => others.every((name) => cluster.member(name).parts.cluster.isRemoved(cluster.id(leader))));
  cluster.fixture(leader).advance(1100);
  await cluster.until(() => cluster.fixture(leader).removed.length > 0);
  assert.deepEqual(cluster.fixture(leader).removed, [reason]);
  assert.equal(cluster.fixture(leader).logged(staysText).length, 0);
});

test('of two voters the one that stays leads without a tick, even after a leader that hands nothing over', async () => {
  const [leader, [other]] = await begin('a', 'b');
  cluster.member(leader).leadership.giveAway = () => {};
  await cluster.remove(leader, cluster.id(leader));
  await cluster.turns(() => cluster.member(other!).isLeader);
  assert.ok(cluster.member(other!).isLeader);
  assert.equal(typeof (await cluster.fixture(other!).put('after', 'x')), 'number');
});

test('it stays until a quorum of the voters has refused it, and says once who has not', async () => {
  const [leader, [b, c]] = await begin('a', 'b', 'c');
  await removeUnheard(leader);
  const fixture = cluster.fixture(leader);
  const { removal } = cluster.member(leader);
  for (let i = 0; i < 3; i++) tickLater(leader, 60_000);
  const [line, ...more] = fixture.logged(staysText);
  assert.equal(more.length, 0);
  const unheard = [b!, c!].map((name) => hexId(cluster.id(name))).sort();
  assert.deepEqual([...(line!['voters-that-do-not-know'] as string[])].sort(), unheard);
  removal.refused(reason, cluster.id(b!));
  removal.refused(reason, cluster.id(b!));
  removal.refused(reason, 99n);
  assert.deepEqual(fixture.removed, [], 'one of two, and one that does not vote');
  removal.refused(reason, cluster.id(c!));
  assert.deepEqual(fixture.removed, [reason]);
  removal.refused(reason, cluster.id(c!));
  assert.deepEqual(fixture.removed, [reason], 'once');
  await cluster.stop(leader);
  assert.equal(fixture.logged(endsText).length, 0);
});

test('a signal ends it all the same, with a warning', async () => {
  const [leader, [other]] = await begin('a', 'b');
  await removeUnheard(leader);
  await cluster.stop(leader);
  const lines = cluster.fixture(leader).logged(endsText);
  assert.deepEqual(
    lines.map((line) => line['voters-that-do-not-know']),
    [[hexId(cluster.id(other!))]],
  );
});

test('after a restart, too, its vote makes the other one lead', async () => {
  await cluster.begin(['a', 'b']);
  const leader = await cluster.leader();
  const other = leader === 'a' ? 'b' : 'a';
  await cluster.settled();
  await removeUnheard(leader);
  // It never serves again.
  void cluster.restart(leader);
  cluster.cut.clear();
  await cluster.until(() => cluster.member(other).parts.raft.status().confState.voters.length === 1);
  assert.ok(cluster.member(other).isLeader);
  assert.equal(typeof (await cluster.fixture(other).put('after', 'x')), 'number');
});

test('a follower that has heard of it from the leader ends at the first refusal', async () => {
  const [leader, [b]] = await begin('a', 'b', 'c');
  await cluster.remove(leader, cluster.id(b!));
  await cluster.turns(() => cluster.member(b!).parts.cluster.isRemoved(cluster.id(b!)));
  cluster.member(b!).removal.refused(reason, cluster.id(leader));
  assert.deepEqual(cluster.fixture(b!).removed, [reason]);
});

test('a leader that finds its own removal in its log hands leadership over as well', async () => {
  await cluster.begin(['a', 'b', 'c']);
  const first = await cluster.leader();
  await cluster.settled();
  const [next, last] = ['a', 'b', 'c'].filter((name) => name !== first) as [string, string];
  const rafts = [next, last].map((name) => cluster.member(name).parts.raft);
  // Both get the entry, and acknowledge it to nobody before the leader is gone.
  for (const name of [next, last]) cluster.fixture(name).walStalled = true;
  const before = Math.max(...rafts.map(({ lastIndex }) => lastIndex));
  void cluster.remove(first, cluster.id(next));
  await cluster.until(() => rafts.every(({ lastIndex }) => lastIndex > before));
  cluster.cut.add(first);
  for (const name of [next, last]) cluster.fixture(name).walStalled = false;
  rafts[0]!.setElectionTimeout(10);
  rafts[1]!.setElectionTimeout(10_000);
  await cluster.until(() => cluster.fixture(next).logged(handsOverText).length > 0);
  cluster.cut.clear();
  await cluster.until(() => [first, last].some((name) => cluster.member(name).isLeader));
  await cluster.until(() => cluster.member(last).parts.cluster.isRemoved(cluster.id(next)));
  assert.ok(!cluster.member(next).isLeader);
});

test('nothing gets behind a leader’s own removal, however long the others take to write it', async () => {
  const [leader, [other]] = (await begin('a', 'b')) as [string, [string]];
  const { raft } = cluster.member(leader).parts;
  const before = raft.lastIndex;
  cluster.fixture(other).walStalled = true;
  void cluster.remove(leader, cluster.id(leader));
  await cluster.turns(() => raft.lastIndex > before);
  // Held for the next leader, for as long as an election takes.
  void cluster.fixture(other).put('held', 'x');
  // Raft gives the transfer up after an election timeout, more than once.
  for (let tick = 0; tick < 35; tick++) {
    await cluster.turns();
    tickLater(leader, 100);
    assert.equal(raft.lastIndex, before + 1, `tick ${tick}`);
  }
  assert.ok(raft.isLeader);
  cluster.fixture(other).walStalled = false;
  await cluster.until(() => cluster.member(other).isLeader);
});
