// Goal: of two members the leader is removed, and the other one goes on, although it hears that the removal is committed long after the
// leader would have ended. Method: each member in a network namespace of its own (network.ts). The follower sleeps before it writes the
// entry (a failpoint); meanwhile the way from the leader is cut, so that its acknowledgement gets back and nothing comes after it. And
// without a cut, with an etcd as one of the two.

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Cluster, type ClusterMember, ctl } from './cluster.ts';
import { moveLeader } from './cluster-checks.ts';
import { Network } from './network.ts';
import { scratchFolder, sleep, until } from './program.ts';

const scratch = scratchFolder('removed-leader');
after(() => scratch.remove());

const skip = Network.refusal();
const failpointPort = 22_381;
const sleepMs = 4000;
/** What the leader sent is with the follower by then, which sleeps for much longer. */
const arrivalMs = 500;
/** Longer than a removed member stays if it has nothing to wait for. */
const cutMs = 4000;
const recoveryMs = 40_000;
/** The leader still leads when the follower wakes up. */
const flags = ['--heartbeat-interval=500', '--election-timeout=6000', '--strict-reconfig-check=false'];

test('a leader of two is removed while its link is cut: it stays until the other one knows', {
  skip,
  timeout: 180_000,
}, async (t) => {
  const network = new Network(2);
  const places = network.hosts.map(({ address, launcher }) => {
    return { host: address, launcher, env: { GOFAIL_HTTP: `${address}:${failpointPort}` } };
  });
  let cluster: Cluster | null = null;
  try {
    cluster = await Cluster.start(scratch.folder, ['keelson', 'keelson'], flags, places);
    const leader = await cluster.leader();
    const [other] = await cluster.followers();
    const [from, to] = [leader, other!].map((member) => network.hosts[cluster!.members.indexOf(member)]!);
    await cluster.ctl('put', 'before', 'x');
    await cluster.agreed();
    const id = await cluster.idOf(leader);
    const url = `http://${to!.address}:${failpointPort}/raftBeforeSave`;
    await fetch(url, { method: 'PUT', body: `1*sleep(${sleepMs})` });
    const removal = ctl([leader.endpoint], 'member', 'remove', id);
    await until('the removal to be proposed', 10_000, () => leader.log().includes('handing leadership over'));
    await sleep(arrivalMs);
    network.cut(from!, to!);
    assert.match(await removal, /removed from cluster/);
    await sleep(cutMs);
    assert.ok(leader.isRunning, 'it waits for the other one to know');
    assert.match(leader.log(), /stays until a quorum of the voters knows/);
    assert.deepEqual(await listed(other!.endpoint), ['m1', 'm2'], 'the other one does not know');
    network.heal();
    await until('the leader to end', recoveryMs, () => !leader.isRunning);
    assert.match(await ctl([other!.endpoint], 'put', 'after', 'y'), /OK/);
    assert.deepEqual(await listed(other!.endpoint), [other!.name]);
  } catch (error) {
    for (const member of cluster?.members ?? []) t.diagnostic(member.log().split('\n').slice(-40).join('\n'));
    throw error;
  } finally {
    await cluster?.end();
    network.remove();
  }
});

for (const kinds of [
  ['keelson', 'etcd'],
  ['etcd', 'keelson'],
] as const) {
  test(`of two, the leader is ${kinds[0]} and is removed: ${kinds[1]} goes on`, { timeout: 120_000 }, async () => {
    const folder = mkdtempSync(join(scratch.folder, 'mixed-'));
    const cluster = await Cluster.start(folder, kinds, ['--strict-reconfig-check=false']);
    const [leader, other] = cluster.members as [ClusterMember, ClusterMember];
    try {
      await moveLeader(cluster, leader);
      // Not of the leader: an etcd that is refused by the other one, which has applied it, ends at times before it answers.
      await ctl([other.endpoint], 'member', 'remove', await cluster.idOf(leader));
      await until('the leader to end', recoveryMs, () => !leader.isRunning);
      await until('a write', recoveryMs, async () => (await ctl([other.endpoint], 'put', 'after', 'y')).includes('OK'));
      assert.deepEqual(await listed(other.endpoint), [other.name]);
    } finally {
      await cluster.end();
    }
  });
}

/** As the member itself knows it. */
async function listed(endpoint: string): Promise<string[]> {
  const text = await ctl([endpoint], 'member', 'list', '--consistency=s', '-w', 'simple');
  return [...text.matchAll(/, (m\d+), /g)].map((match) => match[1]!).sort();
}
