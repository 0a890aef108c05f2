// What the tests of clusters with members of both kinds ask of all members at once, how long their steps take, and the course of those
// under a ClusterLoad. The course under a HistoryLoad is in faulted-cluster.ts.

import assert from 'node:assert/strict';
import { request as send } from 'node:http';
import type { TestContext } from 'node:test';
import { EtcdClient } from '../src/client/client.ts';
import type { Method } from '../src/client/rpc.ts';
import { HashResponse } from '../src/proto/etcdserverpb.ts';
import { type Cluster, type ClusterMember, ctl } from './cluster.ts';
import { ClusterLoad } from './cluster-load.ts';
import { until } from './program.ts';
import { differences, haveSameConfState, statesAtOneIndex } from './stored-state.ts';

export type Step = <T>(name: string, work: () => Promise<T>) => Promise<T>;

/** Runs a step, says what it took, and of a failure in which step it came. */
export function stepsOf(t: TestContext): Step {
  return async (name, work) => {
    const began = performance.now();
    let outcome = 'FAILED';
    try {
      const result = await work();
      outcome = 'ok';
      return result;
    } finally {
      t.diagnostic(`${((performance.now() - began) / 1000).toFixed(1)} s  ${name}: ${outcome}`);
    }
  };
}

/** Work on a new cluster whose clients go on meanwhile; then all that they were told must hold. Ends the cluster, whatever comes. */
export async function underLoad(
  t: TestContext,
  cluster: Cluster,
  work: (load: ClusterLoad, step: Step) => Promise<void>,
): Promise<void> {
  const step = stepsOf(t);
  const load = new ClusterLoad(cluster.endpoints, 1);
  try {
    await work(load, step);
    const problems = await step('the clients were told the truth', () => load.problems(cluster.endpoints));
    t.diagnostic(load.figures());
    assert.deepEqual(problems, []);
  } finally {
    await load.end();
    await cluster.end();
  }
}

export async function moveLeader(cluster: Cluster, to: ClusterMember): Promise<void> {
  const id = await cluster.idOf(to);
  await until(`${to.name} to lead`, 20_000, async () => {
    const leader = await cluster.leader();
    if (leader !== to) await ctl([leader.endpoint], 'move-leader', id);
    return (await cluster.leader()) === to;
  });
}

/** Equal HashKV at one revision, equal lists of members. Learners are asked on their peer port, and for no list. */
export async function agreeOnAll(cluster: Cluster): Promise<void> {
  const { hash: agreed, revision } = await cluster.agreed();
  for (const member of cluster.members) {
    if (!member.isRunning || !(await member.status()).isLearner) continue;
    const found = await peerHash(member, revision);
    assert.equal(found, agreed, `the learner ${member.name} differs at ${revision}`);
  }
  const lists = new Map<string, string>();
  for (const member of cluster.members) {
    if (!member.isRunning || (await member.status()).isLearner) continue;
    const list = (await cluster.list([member.endpoint])).sort((a, b) => (a.id < b.id ? -1 : 1));
    lists.set(JSON.stringify(list), member.name);
  }
  assert.equal(lists.size, 1, `members are listed differently: ${[...lists].join('\n')}`);
}

/** As the members ask each other for their corruption checks. */
async function peerHash(member: ClusterMember, revision: number): Promise<number> {
  const body = JSON.stringify({ revision });
  const headers = { 'content-type': 'application/json', 'content-length': body.length };
  const text = await new Promise<string>((resolve, reject) => {
    const request = send(
      `${member.peerUrl}/members/hashkv`,
      { method: 'GET', headers, timeout: 10_000 },
      (response) => {
        response.setEncoding('utf8');
        let answer = '';
        response.on('data', (part: string) => {
          answer += part;
        });
        response.on('end', () => (response.statusCode === 200 ? resolve(answer) : reject(new Error(answer))));
      },
    );
    request.on('error', reject);
    request.end(body);
  });
  return (JSON.parse(text) as { hash: number }).hash;
}

/** Under load. */
export async function agreeAcrossCompaction(cluster: Cluster, load: ClusterLoad): Promise<void> {
  await agreeOnAll(cluster);
  await load.compact();
  await load.writes(50);
  await agreeOnAll(cluster);
}

const hash: Method<Record<never, never>, typeof HashResponse> = {
  path: '/etcdserverpb.Maintenance/Hash',
  request: {},
  response: HashResponse,
  isRepeatable: true,
};

/**
 * The stored state of all voters at one applied index, byte for byte, and their answers to Hash, which etcd makes of the whole
 * database but for the applied index and term. Nothing may be written meanwhile. Answers how many entries were compared.
 */
export async function sameStates(cluster: Cluster, folder: string): Promise<number> {
  const members: ClusterMember[] = [];
  for (const member of cluster.members) {
    if (member.isRunning && !(await member.status()).isLearner) members.push(member);
  }
  return until('equal states', 20_000, async () => {
    const states = await statesAtOneIndex(members, folder);
    const different = states.flatMap((state, index) => {
      const pair = `${members[0]!.kind} ${members[0]!.name} | ${members[index]!.kind} ${members[index]!.name}`;
      return differences(states[0]!, state).map((line) => `${pair}: ${line}`);
    });
    // etcd notes its storage version by a timer of each member's own: etcd members differ in it for a moment, too.
    if (different.length > 0) throw new Error(different.slice(0, 10).join('\n'));
    const comparable = members.filter((_, index) => haveSameConfState(states[0]!, states[index]!));
    const hashes = await Promise.all(comparable.map(hashOf));
    if (new Set(hashes).size > 1) throw new Error(`Hash: ${hashes.join(', ')}`);
    return states[0]!.size;
  });
}

/** Under load, which rests for it. There must be something to compare. */
export async function sameStatesAtRest(
  cluster: Cluster,
  load: ClusterLoad,
  folder: string,
  entriesMin = 100,
): Promise<void> {
  const compared = await load.atRest(() => sameStates(cluster, folder));
  assert.ok(compared > entriesMin, `only ${compared} entries to compare`);
}

async function hashOf(member: ClusterMember): Promise<number> {
  const client = new EtcdClient({ endpoints: [member.endpoint] });
  try {
    return (await client.call(hash, {}, { deadlineMs: Date.now() + 10_000 })).hash;
  } finally {
    client.close();
  }
}
