// Goal: a leader that ends gives leadership away at once, and hears the end of it in any case. Method: members in one process over a
// network in memory, whose time stands still unless the test moves it.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { handOverMs } from '../cluster-limits.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { MemberCluster } from '../testing/member-cluster-fixture.ts';

const names = ['a', 'b', 'c'];
let cluster: MemberCluster;

beforeEach(() => {
  cluster = new MemberCluster();
});

afterEach(() => cluster.end());

/** Begins a cluster whose time stands still from when all have what the leader has; the leader's name. */
async function begin(...members: string[]): Promise<string> {
  await cluster.begin(members);
  const leader = await cluster.leader();
  await cluster.settled();
  cluster.stopTicks();
  // What is on its way arrives: nothing else wakes them from now on.
  await cluster.turns();
  return leader;
}

/** What the hand-over of this member ends with; undefined: not yet. */
function handOver(name: string): { end: EtcdError | null | undefined } {
  const outcome: { end: EtcdError | null | undefined } = { end: undefined };
  cluster.member(name).leadership.handOver(handOverMs, (error) => {
    assert.equal(outcome.end, undefined, 'told once');
    outcome.end = error;
  });
  return outcome;
}

test('a leader that ends gives leadership to another without a tick', async () => {
  const leader = await begin(...names);
  const outcome = handOver(leader);
  await cluster.turns(() => outcome.end !== undefined);
  assert.equal(outcome.end, null);
  assert.ok(!cluster.member(leader).isLeader);
  assert.notEqual(await cluster.leader(), leader);
});

test('what is proposed meanwhile goes to the next leader without a tick', async () => {
  const leader = await begin(...names);
  handOver(leader);
  let answer: unknown;
  void cluster
    .fixture(leader)
    .put('k', 'v')
    .then((result) => {
      answer = result;
    });
  await cluster.turns(() => answer !== undefined);
  assert.equal(answer, 2);
});

test('it waits for nobody who does not take it', async () => {
  const leader = await begin(...names);
  const member = cluster.member(leader);
  const outcome = handOver(leader);
  for (const name of names) if (name !== leader) cluster.cut.add(name);
  await cluster.turns();
  assert.equal(outcome.end, undefined);
  cluster.fixture(leader).advance(handOverMs + 1);
  Object.getPrototypeOf(member).tick.call(member);
  await turn();
  assert.match(outcome.end!.message, /leader transfer took too long/);
});

test('there is nothing to wait for when nobody is connected, alone, and as a follower', async () => {
  const leader = await begin(...names);
  const follower = names.find((name) => name !== leader)!;
  assert.equal(handOver(follower).end, null);
  for (const name of names) if (name !== leader) cluster.cut.add(name);
  assert.equal(handOver(leader).end, etcdErrors.unhealthy);
  await cluster.end();
  cluster = new MemberCluster();
  assert.equal(handOver(await begin('a')).end, null);
});
