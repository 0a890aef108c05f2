// Goal: keelson and etcd are members of one cluster as if they were of one kind. A keelson joins a running three-member etcd that has
// data of every kind, by the log alone and by a snapshot, is promoted, leads and serves; an etcd joins three keelsons the same
// way. Method: real processes over loopback; after each step HashKV of all members at one revision, before and after a compaction, and
// at the end the stored state of all, bucket by bucket, byte for byte. The replacement of all members: mixed-replacement; kills:
// mixed-faults.

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { EtcdClient } from '../src/client/client.ts';
import { rpc } from '../src/client/rpc.ts';
import { WatchStream } from '../src/client/watch.ts';
import { Cluster, type ClusterMember, type Kind } from './cluster.ts';
import { agreeAcrossCompaction, agreeOnAll, moveLeader, sameStatesAtRest, stepsOf } from './cluster-checks.ts';
import { ClusterLoad, fillLog } from './cluster-load.ts';
import { scratchFolder, sleep, until } from './program.ts';
import { sumOf } from './store.ts';

const scratch = scratchFolder('mixed-cluster');
after(() => scratch.remove());

/** So few entries are kept that who joins finds none of the first. (keelson cuts its log in memory once in 10,000 entries.) */
const shortLog = ['--snapshot-count=200', '--snapshot-catchup-entries=50'];
const REVISIONS = 1500;
const LARGE_BYTES = 1_000_000;

/** Keys with many revisions, large values, deletions, leases, an alarm raised and disarmed, a compaction in between. */
async function fill(cluster: Cluster): Promise<void> {
  const client = new EtcdClient({ endpoints: cluster.endpoints });
  const put = (key: string, value: Buffer, lease = 0n): Promise<{ header: { revision: number } | undefined }> =>
    client.call(rpc.put, { key: Buffer.from(key), value, lease }, { deadlineMs: Date.now() + 10_000 });
  try {
    const { id: lease } = await client.call(rpc.leaseGrant, { ttl: 600n });
    for (let index = 0; index < REVISIONS; index += 50) {
      const puts = Array.from({ length: 50 }, (_, at) =>
        put(`fill/${(index + at) % 400}`, Buffer.alloc(100, index + at)),
      );
      await Promise.all(puts);
      if (index % 500 === 0) await put(`large/${index}`, Buffer.alloc(LARGE_BYTES, index));
      if (index % 100 === 0) await put(`leased/${index}`, Buffer.from('x'), lease);
      if (index % 300 === 0) {
        const range = { key: Buffer.from(`fill/${index % 4}`), rangeEnd: Buffer.from(`fill/${(index % 4) + 1}`) };
        await client.call(rpc.deleteRange, range);
      }
      if (index === REVISIONS / 2) {
        const { header } = await put('middle', Buffer.from('m'));
        await client.call(rpc.compact, { revision: header!.revision - 100, physical: true });
      }
    }
    const memberId = BigInt(`0x${await cluster.idOf(cluster.members[0]!)}`);
    await client.call(rpc.alarm, { action: 1, memberId, alarm: 1 });
    assert.equal((await client.call(rpc.alarm, { action: 0, memberId: 0n, alarm: 0 })).alarms.length, 1);
    await client.call(rpc.alarm, { action: 2, memberId, alarm: 1 });
  } finally {
    client.close();
  }
}

/** A watch and a lease at one member's endpoint hold through what is done. */
async function holdThrough(member: ClusterMember, work: () => Promise<void>): Promise<void> {
  const client = new EtcdClient({ endpoints: [member.endpoint] });
  const stream = new WatchStream(client);
  const key = Buffer.from('held');
  const inTime = (): { deadlineMs: number } => ({ deadlineMs: Date.now() + 10_000 });
  try {
    const { id } = await client.call(rpc.leaseGrant, { ttl: 60n }, inTime());
    const { header } = await client.call(rpc.put, { key, value: Buffer.from('before'), lease: id }, inTime());
    const watch = stream.watch({ key, startRevision: header!.revision });
    const values: string[] = [];
    const seen = (async () => {
      for await (const { response, error } of watch) {
        if (error !== null) throw error;
        for (const { kv } of response.events) values.push(kv!.value.toString());
        if (values.at(-1) === 'after') return;
      }
    })();
    await Promise.race([work(), seen]);
    await client.call(rpc.put, { key, value: Buffer.from('after'), lease: id }, inTime());
    await Promise.race([seen, sleep(10_000)]);
    assert.deepEqual(values, ['before', 'after']);
    const { ttl, grantedTtl, keys } = await client.call(rpc.leaseTimeToLive, { id, keys: true }, inTime());
    assert.ok(ttl > 0n && ttl <= 60n && grantedTtl === 60n, `ttl ${ttl} of ${grantedTtl}`);
    assert.deepEqual(keys.map(String), ['held']);
    await client.call(rpc.leaseRevoke, { id }, inTime());
    assert.deepEqual((await client.call(rpc.range, { key }, inTime())).kvs, []);
  } finally {
    stream.close();
    client.close();
  }
}

/** By a snapshot as all who join a cluster with a past; by the log, when the cluster is young, and behind for a while. */
async function joinAsLearner(cluster: Cluster, kind: Kind, bySnapshot: boolean): Promise<ClusterMember> {
  const member = await cluster.add(kind, { learner: true });
  if (!bySnapshot) {
    await member.kill();
    await fill(cluster);
    await cluster.restart(member);
  }
  await until('it has caught up', 30_000, async () => (await member.status()).revision >= REVISIONS);
  assert.ok((await member.status()).isLearner);
  const received = sumOf(await member.metrics(), 'etcd_network_snapshot_receive_success', {});
  assert.ok(bySnapshot ? received > 0 : received === 0, `${received} snapshots received`);
  return member;
}

/** Three of one kind, with data and under load; one of the other kind joins them, is promoted, leads. */
async function joinAndLead(t: TestContext, old: Kind, joining: Kind, bySnapshot: boolean): Promise<void> {
  const step = stepsOf(t);
  const folder = mkdtempSync(join(scratch.folder, 'cluster-'));
  const flags = bySnapshot ? shortLog : [];
  const cluster = await step(`three ${old} start`, () => Cluster.start(folder, [old, old, old], flags));
  let load: ClusterLoad | null = null;
  try {
    const voters = [...cluster.members];
    if (bySnapshot) {
      await step('they get data', () => fill(cluster));
      if (old === 'keelson') await step('many entries', () => fillLog(cluster.endpoints));
      load = new ClusterLoad(cluster.endpoints, (await voters[0]!.status()).revision + 1);
    }
    const joined = await step(`${joining} joins as learner`, () => joinAsLearner(cluster, joining, bySnapshot));
    load ??= new ClusterLoad(
      voters.map(({ endpoint }) => endpoint),
      (await voters[0]!.status()).revision + 1,
    );
    await step('all agree', () => agreeOnAll(cluster));
    await step('promoted, then leader, under a watch and a lease elsewhere', () =>
      holdThrough(voters[0]!, async () => {
        await cluster.promote(joined);
        await moveLeader(cluster, joined);
      }),
    );
    load.use(cluster.endpoints);
    await load.writes(200);
    await step('leads no more, then again, under a watch and a lease at it', () =>
      holdThrough(joined, async () => {
        await moveLeader(cluster, voters[1]!);
        await moveLeader(cluster, joined);
      }),
    );
    await step('all agree, before and after a compaction', () => agreeAcrossCompaction(cluster, load!));
    await step('stored states are equal', () => sameStatesAtRest(cluster, load!, folder, 500));
    const problems = await step('the clients were told the truth', () => load!.problems(cluster.endpoints));
    t.diagnostic(load.figures());
    assert.deepEqual(problems, []);
  } finally {
    await load?.end();
    await cluster.end();
  }
}

for (const bySnapshot of [false, true]) {
  const how = bySnapshot ? 'by a snapshot' : 'by the log';
  test(`a keelson joins three etcd ${how}`, { timeout: 120_000 }, (t) => joinAndLead(t, 'etcd', 'keelson', bySnapshot));
  test(`an etcd joins three keelson ${how}`, { timeout: 120_000 }, (t) =>
    joinAndLead(t, 'keelson', 'etcd', bySnapshot),
  );
}
