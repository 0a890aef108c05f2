// Goal: a running cluster changes from etcd to keelson and back, member by member, and its clients notice nothing but retries
// (docs/migration.md is this sequence). Method: three etcd under the load of cluster-load.ts, which goes on without pause through all
// endpoints; six times a member of the other kind joins as learner, is promoted, takes the lead, and an old one is removed. At every
// step HashKV and the lists of members are equal, before and after a compaction, and so is the stored state, byte for byte; the load rests
// only for that.

import { after, test } from 'node:test';
import { Cluster, type ClusterMember, type Kind } from './cluster.ts';
import {
  agreeAcrossCompaction,
  agreeOnAll,
  moveLeader,
  type Step,
  sameStatesAtRest,
  underLoad,
} from './cluster-checks.ts';
import type { ClusterLoad } from './cluster-load.ts';
import { scratchFolder, until } from './program.ts';

const scratch = scratchFolder('mixed-replacement');
after(() => scratch.remove());

const exitTimeoutMs = 20_000;

async function replace(cluster: Cluster, load: ClusterLoad, old: ClusterMember, kind: Kind, step: Step): Promise<void> {
  const added = await step(`a ${kind} joins as learner`, () => cluster.add(kind, { learner: true }));
  await step(`${added.name} is promoted and leads`, async () => {
    await cluster.promote(added);
    await moveLeader(cluster, added);
    load.use(cluster.endpoints);
  });
  await step('all agree, before and after a compaction', async () => {
    await load.writes(100);
    await agreeAcrossCompaction(cluster, load);
  });
  await step('stored states are equal', () => sameStatesAtRest(cluster, load, scratch.folder));
  await step(`${old.kind} ${old.name} is removed and ends`, async () => {
    load.use(cluster.endpoints.filter((endpoint) => endpoint !== old.endpoint));
    await cluster.remove(old);
    await until(`${old.name} to end`, exitTimeoutMs, () => !old.isRunning);
    await load.writes(100);
    await agreeOnAll(cluster);
  });
}

test('three etcd become three keelson, and three etcd again', { timeout: 240_000 }, async (t) => {
  const flags = ['--snapshot-count=500', '--snapshot-catchup-entries=100'];
  const cluster = await Cluster.start(scratch.folder, ['etcd', 'etcd', 'etcd'], flags);
  await underLoad(t, cluster, async (load, step) => {
    await load.writes(1000);
    for (const kind of ['keelson', 'etcd'] as const) {
      for (const old of cluster.members.filter((member) => member.isRunning)) {
        await replace(cluster, load, old, kind, step);
      }
      t.diagnostic(`all are ${kind}: ${load.figures()}`);
    }
  });
});
