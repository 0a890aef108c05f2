// Goal: a running cluster changes its version member by member, and its clients notice nothing but retries. Three etcd 3.6 become three
// keelson, which speak 3.7: the cluster's version stays 3.6 as long as an etcd 3.6 is in, so that the way back is open (an etcd 3.6 can
// join), and is 3.7 when the last has gone. Three keelson are started anew, one at a time. A keelson does not join a cluster of 3.5.
// Method: real processes under the load of cluster-load.ts; at every step HashKV, lists of members, stored states and the storage's
// version are compared. The way down: downgrade.peer-test.ts.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Cluster, type ClusterMember } from './cluster.ts';
import {
  agreeAcrossCompaction,
  agreeOnAll,
  moveLeader,
  type Step,
  sameStates,
  sameStatesAtRest,
  stepsOf,
  underLoad,
} from './cluster-checks.ts';
import { type ClusterLoad, fillLog } from './cluster-load.ts';
import { equalSnapshots, onRestored, saveSnapshot, settled, snapshotStatus, versionsOf } from './cluster-versions.ts';
import { scratchFolder, until } from './program.ts';
import { sumOf } from './store.ts';

const scratch = scratchFolder('upgrade');
after(() => scratch.remove());

/** So few entries are kept that who joins an etcd gets a snapshot. */
const shortLog = ['--snapshot-count=200', '--snapshot-catchup-entries=50'];
const exitTimeoutMs = 20_000;

/** Joins as learner, by a snapshot, and is promoted. */
async function joinBySnapshot(
  cluster: Cluster,
  kind: 'keelson' | 'etcd-3.6',
  load: ClusterLoad,
): Promise<ClusterMember> {
  const member = await cluster.add(kind, { learner: true });
  await agreeOnAll(cluster);
  await cluster.promote(member);
  const received = sumOf(await member.metrics(), 'etcd_network_snapshot_receive_success', {});
  assert.ok(received > 0, 'no snapshot was received');
  load.use(cluster.endpoints);
  return member;
}

async function allAgree(cluster: Cluster, load: ClusterLoad, folder: string): Promise<void> {
  await load.writes(100);
  await agreeAcrossCompaction(cluster, load);
  await sameStatesAtRest(cluster, load, folder);
}

async function leaves(cluster: Cluster, member: ClusterMember, load: ClusterLoad): Promise<void> {
  load.use(cluster.endpoints.filter((endpoint) => endpoint !== member.endpoint));
  await cluster.remove(member);
  await until(`${member.name} to end`, exitTimeoutMs, () => !member.isRunning);
  await load.writes(100);
  await agreeOnAll(cluster);
}

/** Snapshot files of an etcd 3.6 and a keelson of one cluster: the same to etcd's tool of either version, and each starts the other. */
async function swapSnapshots(etcd: ClusterMember, keelson: ClusterMember): Promise<void> {
  const folder = join(scratch.folder, 'swapped');
  const files = await equalSnapshots([etcd, keelson], folder, '3.6.0');
  const [ofEtcd, ofKeelson] = files as [string, string];
  assert.deepEqual(await snapshotStatus(ofKeelson, 'etcdutl-3.6'), await snapshotStatus(ofEtcd, 'etcdutl-3.6'));
  const hashes: unknown[] = [];
  for (const [kind, file, version] of [
    ['keelson', ofEtcd, '3.7.0'],
    ['etcd-3.6', ofKeelson, '3.6.0'],
  ] as const) {
    const restored = await onRestored(kind, file, join(folder, kind));
    try {
      const [member] = restored.members as [ClusterMember];
      await member.ready();
      await settled(restored, version);
      hashes.push(await member.hashKv((await member.status()).revision));
    } finally {
      await restored.end();
    }
  }
  assert.deepEqual(hashes[1], hashes[0]);
}

async function wayBack(cluster: Cluster, load: ClusterLoad, step: Step): Promise<void> {
  const etcd = cluster.members.find((member) => member.isRunning && member.kind === 'etcd-3.6')!;
  await step('snapshot files of both kinds', async () => {
    await load.atRest(async () => swapSnapshots(etcd, await cluster.leader()));
  });
  await step('more entries than a keelson keeps', () => fillLog(cluster.endpoints));
  const joined = await step('an etcd 3.6 joins by a snapshot of a keelson', () =>
    joinBySnapshot(cluster, 'etcd-3.6', load),
  );
  await step('it leads, all agree', async () => {
    const leader = await cluster.leader();
    assert.equal(leader.kind, 'keelson');
    await moveLeader(cluster, joined);
    await allAgree(cluster, load, scratch.folder);
    await settled(cluster, '3.6.0');
    await moveLeader(cluster, leader);
  });
  await step('it leaves', () => leaves(cluster, joined, load));
}

test('three etcd 3.6 become three keelson of 3.7', { timeout: 300_000 }, async (t) => {
  const cluster = await Cluster.start(scratch.folder, ['etcd-3.6', 'etcd-3.6', 'etcd-3.6'], shortLog);
  await underLoad(t, cluster, async (load, step) => {
    await load.writes(1000);
    await settled(cluster, '3.6.0');
    const old = [...cluster.members];
    for (const [index, leaving] of old.entries()) {
      const added = await step('a keelson joins by a snapshot', () => joinBySnapshot(cluster, 'keelson', load));
      await step('it leads, all agree', async () => {
        await moveLeader(cluster, added);
        await allAgree(cluster, load, scratch.folder);
      });
      assert.deepEqual(await versionsOf(added), { etcdserver: '3.7.1', etcdcluster: '3.6.0', storage: '3.6.0' });
      await settled(cluster, '3.6.0');
      if (index === old.length - 1) await wayBack(cluster, load, step);
      await step(`${leaving.name} leaves`, () => leaves(cluster, leaving, load));
    }
    await step('the version rises', () => settled(cluster, '3.7.0'));
    await step('all agree', () => allAgree(cluster, load, scratch.folder));
    const file = await saveSnapshot(await cluster.leader(), scratch.folder);
    assert.equal((await snapshotStatus(file)).version, '3.7.0');
  });
});

test('a cluster that begins with both versions', { timeout: 90_000 }, async (t) => {
  const step = stepsOf(t);
  const folder = join(scratch.folder, 'both');
  mkdirSync(folder);
  const cluster = await Cluster.start(folder, ['keelson', 'etcd-3.6', 'keelson']);
  try {
    const [first, etcd] = cluster.members as [ClusterMember, ClusterMember];
    await settled(cluster, '3.6.0');
    for (const member of [etcd, first]) {
      await step(`${member.kind} leads, is started anew, leads again`, async () => {
        await moveLeader(cluster, member);
        await cluster.ctl('put', 'leader', member.name);
        await member.stop();
        await cluster.leader();
        await cluster.restart(member);
        await moveLeader(cluster, member);
        await cluster.ctl('put', 'leader', `${member.name} again`);
        await settled(cluster, '3.6.0');
        await agreeOnAll(cluster);
      });
    }
    await sameStates(cluster, folder);
  } finally {
    await cluster.end();
  }
});

test('three keelson are started anew, one at a time', { timeout: 120_000 }, async (t) => {
  const folder = join(scratch.folder, 'rolling');
  mkdirSync(folder);
  const cluster = await Cluster.start(folder, ['keelson', 'keelson', 'keelson']);
  await underLoad(t, cluster, async (load, step) => {
    await load.writes(200);
    // The leader last, as one does it; then it first.
    for (const isLast of [true, false]) {
      const [leader, followers] = [await cluster.leader(), await cluster.followers()];
      for (const member of isLast ? [...followers, leader] : [leader, ...followers]) {
        const what = `${member.name}${member === leader ? ', the leader' : ''}`;
        await step(what, async () => {
          assert.deepEqual(await member.stop(), { code: 0, signal: null });
          await load.writes(50);
          await cluster.restart(member);
          await load.writes(50);
          await agreeOnAll(cluster);
        });
      }
    }
    await settled(cluster, '3.7.0');
    await step('all agree', () => allAgree(cluster, load, folder));
  });
});

test('a keelson does not join a cluster that is two minor versions behind', { timeout: 60_000 }, async () => {
  const folder = join(scratch.folder, 'skipped');
  mkdirSync(folder);
  const cluster = await Cluster.create(folder, ['keelson']);
  const [member] = cluster.members as [ClusterMember];
  const server = createServer((request, response) => {
    const memberUrls = [peerUrl, member.peerUrl];
    const answers: Readonly<Record<string, string>> = {
      // An id, as etcd writes it in JSON; the second has not started yet.
      '/members': `[${memberUrls
        .map((url, index) => `{"id":${index + 7},"peerURLs":["${url}"],"name":"${index === 0 ? 'old' : ''}"}`)
        .join(',')}]`,
      '/version': '{"etcdserver":"3.5.35","etcdcluster":"3.5.0"}',
      '/downgrade/enabled': 'false',
    };
    response.setHeader('X-Etcd-Cluster-ID', 'deadbeef');
    response.end(answers[request.url ?? '']);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const peerUrl = `http://127.0.0.1:${address.port}`;
  try {
    member.launch({ initialCluster: `old=${peerUrl},${cluster.initialCluster()}`, state: 'existing' });
    const { code } = await member.exited;
    assert.ok(code !== null && code !== 0, `exit ${code}`);
    assert.match(
      member.log(),
      /incompatible with current running cluster: an upgrade must not skip a minor version: the cluster is at 3\.5, this server is 3\.7/,
    );
    assert.ok(!existsSync(join(member.dataDir, 'member/wal')), 'a log was made');
  } finally {
    server.close();
    await cluster.end();
  }
});
