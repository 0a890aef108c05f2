// Goal: a cluster of both kinds loses nothing when its members are killed or stand still, whichever kind leads. Method: two keelsons
// and an etcd, then two etcds and a keelson, under the load of cluster-load.ts; in turn each member, and every other time the leader, is
// killed by kill -9 and started again, or frozen for longer than an election takes. Then HashKV, the stored state and all that the clients
// were told are compared. KEELSON_KILLS sets the number of rounds.

import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { Cluster, type ClusterMember, type Kind } from './cluster.ts';
import { agreeAcrossCompaction, sameStatesAtRest, underLoad } from './cluster-checks.ts';
import { scratchFolder, sleep } from './program.ts';

const scratch = scratchFolder('mixed-faults');
after(() => scratch.remove());

/** Over both clusters. */
const ROUNDS = Number(process.env['KEELSON_KILLS'] ?? 20);
/** Followers wait for a leader at most two seconds. */
const freezeMs = 2200;

async function fault(cluster: Cluster, member: ClusterMember, isKill: boolean): Promise<void> {
  if (isKill) {
    await member.kill();
    await sleep(300);
    await cluster.restart(member);
  } else {
    member.freeze();
    await sleep(freezeMs);
    member.thaw();
  }
}

async function survive(t: TestContext, kinds: readonly Kind[], rounds: number): Promise<void> {
  const folder = mkdtempSync(join(scratch.folder, 'cluster-'));
  const cluster = await Cluster.start(folder, kinds);
  await underLoad(t, cluster, async (load, step) => {
    await load.writes(200);
    for (let round = 0; round < rounds; round++) {
      const leader = await cluster.leader();
      const member = round % 2 === 0 ? leader : cluster.members[(round >> 1) % kinds.length]!;
      const isKill = round % 4 < 2;
      const what = `${isKill ? 'kill' : 'freeze'} ${member.kind} ${member.name}${member === leader ? ', the leader' : ''}`;
      await step(what, async () => {
        await fault(cluster, member, isKill);
        await load.writes(100);
      });
    }
    await step('all agree, before and after a compaction', () => agreeAcrossCompaction(cluster, load));
    await step('stored states are equal', () => sameStatesAtRest(cluster, load, folder));
  });
}

test('two keelsons and an etcd, killed and frozen', { timeout: 180_000 }, (t) =>
  survive(t, ['keelson', 'etcd', 'keelson'], ROUNDS >> 1),
);
test('two etcds and a keelson, killed and frozen', { timeout: 180_000 }, (t) =>
  survive(t, ['etcd', 'keelson', 'etcd'], ROUNDS - (ROUNDS >> 1)),
);
