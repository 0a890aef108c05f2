// Goal: whatever becomes of single members, a cluster serves as one correct store and goes on soon. Method: real processes under
// concurrent clients (support/history-load.ts); leaders and followers are killed, frozen, restarted; times until the next write are
// printed. At the end of each test all calls are linearizable, nothing acknowledged is lost, watchers have seen all, members agree.
// Network cuts: cluster-cuts. Disks: cluster-disks.

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Cluster, type ClusterMember, type Kind } from './cluster.ts';
import { harm, timeout } from './faulted-cluster.ts';
import { scratchFolder, sleep } from './program.ts';

const scratch = scratchFolder('cluster-faults');
after(() => scratch.remove());

const three: readonly Kind[] = ['keelson', 'keelson', 'keelson'];
/** Longer than any election, so that another leads when it wakes up. */
const frozenMs = 3000;
/** Of clients that retry; time-outs and elections are far shorter. */
const retriesMs = 15_000;

test('kill -9 of the leader and of a follower', { timeout }, (t) =>
  harm(
    t,
    () => Cluster.start(mkdtempSync(join(scratch.folder, 'cluster-')), three),
    async ({ cluster, recovery }) => {
      const leader = await cluster.leader();
      await leader.kill();
      await recovery('leader killed');
      await cluster.restart(leader);
      const [follower] = await cluster.followers();
      await follower!.kill();
      await recovery('follower killed');
      await sleep(500);
      await cluster.restart(follower!);
    },
  ),
);

test('SIGSTOP and SIGCONT of the leader and of a follower', { timeout }, (t) =>
  harm(
    t,
    () => Cluster.start(mkdtempSync(join(scratch.folder, 'cluster-')), three),
    async ({ cluster, recovery }) => {
      const leader = await cluster.leader();
      leader.freeze();
      await recovery('leader frozen');
      await sleep(frozenMs);
      leader.thaw();
      await recovery('former leader thawed');
      assert.notEqual(await cluster.leader(), leader);
      const [follower] = await cluster.followers();
      follower!.freeze();
      await recovery('follower frozen');
      await sleep(frozenMs);
      const before = await termOf(cluster, [follower!]);
      follower!.thaw();
      await recovery('follower thawed');
      await sleep(1000);
      assert.equal(await termOf(cluster, []), before, 'who comes back disturbs nobody');
    },
  ),
);

test('rolling restart by SIGTERM, the leader last', { timeout }, (t) =>
  harm(
    t,
    () => Cluster.start(mkdtempSync(join(scratch.folder, 'cluster-')), three),
    async ({ cluster, load, recovery }) => {
      const leader = await cluster.leader();
      for (const member of [...(await cluster.followers()), leader]) {
        const { code, signal } = await member.stop();
        // etcd ends by the signal that it got.
        const isRight = member.kind === 'keelson' ? code === 0 : signal === 'SIGTERM';
        assert.ok(isRight, `${code} ${signal} ${member.log().slice(-2000)}`);
        await recovery(`${member === leader ? 'leader' : 'follower'} stopped`);
        await cluster.restart(member);
      }
      // One that asks again elsewhere is answered: nobody failed for longer than such a client goes on.
      const longest = load.longestFailureMs();
      t.diagnostic(`the longest time that a client failed: ${Math.round(longest)} ms`);
      assert.ok(longest < retriesMs);
    },
  ),
);

test('kill -9 of all at once, and a majority frozen', { timeout }, (t) =>
  harm(
    t,
    () => Cluster.start(mkdtempSync(join(scratch.folder, 'cluster-')), three),
    async ({ cluster, recovery }) => {
      await Promise.all(cluster.members.map((member) => member.kill()));
      await Promise.all(cluster.members.map((member) => cluster.restart(member)));
      await recovery('all killed and started');
      const majority = [await cluster.leader(), (await cluster.followers())[0]!];
      for (const member of majority) member.freeze();
      await sleep(frozenMs);
      for (const member of majority) member.thaw();
      await recovery('a majority thawed');
    },
  ),
);

for (const victims of ['the leader and a follower', 'two followers'] as const) {
  test(`five members survive the loss of ${victims}`, { timeout }, (t) =>
    harm(
      t,
      () => Cluster.start(mkdtempSync(join(scratch.folder, 'cluster-')), [...three, 'keelson', 'keelson']),
      async ({ cluster, recovery }) => {
        const followers = await cluster.followers();
        const killed = victims === 'two followers' ? followers.slice(0, 2) : [await cluster.leader(), followers[0]!];
        await Promise.all(killed.map((member) => member.kill()));
        await recovery(`${victims} killed`);
        await sleep(500);
        await Promise.all(killed.map((member) => cluster.restart(member)));
        await recovery('both back');
      },
    ),
  );
}

async function termOf(cluster: Cluster, but: readonly ClusterMember[]): Promise<number> {
  const asked = cluster.members.find((member) => member.isRunning && !but.includes(member))!;
  return (await asked.status()).term;
}
