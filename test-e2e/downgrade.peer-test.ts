// Goal: the way down from 3.7 to 3.6 is as far open with keelson as with etcd, at each step of it: an etcd 3.6 that would join before, while
// and after a downgrade is enabled, members started anew meanwhile, snapshots taken then and given to etcd 3.6's own tool. And a running
// cluster of keelson becomes one of etcd 3.6 (docs/migration.md has the sequence). Method: three etcd 3.7 and three keelson go through
// the same steps, what they answered is compared whole; then two keelson and an etcd 3.7 go down under load.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { Cluster, type ClusterMember, ctl, type Kind } from './cluster.ts';
import { agreeAcrossCompaction, agreeOnAll, moveLeader, sameStatesAtRest, underLoad } from './cluster-checks.ts';
import { fillLog } from './cluster-load.ts';
import { equalSnapshots, onRestored, saveSnapshot, settled, snapshotStatus, versionsOf } from './cluster-versions.ts';
import { scratchFolder, until } from './program.ts';

const scratch = scratchFolder('downgrade');
after(() => scratch.remove());

const shortLog = ['--snapshot-count=200', '--snapshot-catchup-entries=50'];
const exitTimeoutMs = 20_000;

type History = readonly (readonly [step: string, answer: unknown])[];

/** Adds an etcd 3.6 as learner, which ends: how, and with which complaint. Then it is no member any more. */
async function refusedEtcd36(cluster: Cluster): Promise<unknown> {
  await assert.rejects(cluster.add('etcd-3.6', { learner: true }), /ended/);
  const member = cluster.members.at(-1)!;
  const { code } = await member.exited;
  const lines = linesOf(member);
  const warnings = lines.filter(({ msg }) => String(msg).startsWith('cluster version of remote member'));
  const { msg, ...fields } = warnings[0] ?? {};
  await cluster.remove(member);
  return {
    code,
    msg,
    versions: Object.entries(fields).filter(([name]) => name.endsWith('version') || name.endsWith('supported')),
    last: lastWords(lines),
  };
}

type Line = Readonly<Record<string, unknown>>;

function linesOf(member: ClusterMember): Line[] {
  const texts = member.log().split('\n');
  return texts.flatMap((text) => (text.startsWith('{') ? [JSON.parse(text) as Line] : []));
}

function lastWords(lines: readonly Line[]): unknown {
  const last = lines.findLast(({ level }) => level === 'fatal' || level === 'panic');
  return last?.['error'] ?? last?.['msg'];
}

/** What every member says: its versions, and whether it says that it may be replaced by 3.6 now. */
async function everyMember(cluster: Cluster): Promise<unknown> {
  const running = cluster.members.filter((member) => member.isRunning);
  return Promise.all(
    running.map(async (member) => {
      const text = await ctl([member.endpoint], 'endpoint', 'status', '-w', 'json');
      const [{ Status: status }] = JSON.parse(text) as [{ Status: Record<string, unknown> }];
      const { version, storageVersion, downgradeInfo, errors } = status;
      const isReady = member.log().includes('The server is ready to downgrade');
      return { ...(await versionsOf(member)), version, storageVersion, downgradeInfo, errors, isReady };
    }),
  );
}

function tool36(file: string): Promise<unknown> {
  return new Promise((resolve) => {
    const args = ['snapshot', 'status', file, '-w', 'json'];
    execFile(join(peerBinaries, 'etcdutl-3.6'), args, { env: {} }, (error, stdout) => {
      if (error !== null) return resolve(error.code);
      const { revision, version } = JSON.parse(stdout) as Record<string, unknown>;
      resolve({ revision, version });
    });
  });
}

/** What becomes of an etcd 3.6 on this snapshot: the keys that it has, or its last words. */
async function startedBy36(file: string, folder: string): Promise<unknown> {
  const cluster = await onRestored('etcd-3.6', file, folder);
  const [member] = cluster.members as [ClusterMember];
  try {
    await member.ready();
    const keys = await ctl([member.endpoint], 'get', '--prefix', 'key', '--print-value-only');
    await settled(cluster, '3.6.0');
    return keys;
  } catch {
    if (member.isRunning) return 'not ready';
    const { code } = await member.exited;
    return { code, last: lastWords(linesOf(member)) };
  } finally {
    await cluster.end();
  }
}

async function history(kind: Kind): Promise<History> {
  const folder = join(scratch.folder, kind);
  mkdirSync(folder);
  const cluster = await Cluster.start(folder, [kind, kind, kind]);
  const record: [string, unknown][] = [];
  const note = async (step: string, work: Promise<unknown>): Promise<void> => {
    record.push([step, await work]);
  };
  const snapshotAt = async (version: string): Promise<void> => {
    const at = join(folder, version);
    const file = await saveSnapshot(await cluster.leader(), at);
    const { revision, totalKey, version: stored } = await snapshotStatus(file);
    record.push([`a snapshot at ${version}`, { revision, totalKey, stored }]);
    await note(`to etcdutl 3.6, at ${version}`, tool36(file));
    await note(`to etcd 3.6, at ${version}`, startedBy36(file, join(at, '3.6')));
  };
  try {
    for (let index = 0; index < 20; index++) await cluster.ctl('put', `key${index % 7}`, `value ${index}`);
    await settled(cluster, '3.7.0');
    await note('an etcd 3.6 joins 3.7', refusedEtcd36(cluster));
    await snapshotAt('3.7.0');
    await note('enable', ctl([cluster.endpoints[0]!], 'downgrade', 'enable', '3.6'));
    await settled(cluster, '3.6.0');
    await note('every member, enabled', everyMember(cluster));
    await note('an etcd 3.6 joins while it is enabled', refusedEtcd36(cluster));
    await snapshotAt('3.6.0');
    for (const member of [(await cluster.followers())[0]!, await cluster.leader()]) {
      await member.stop();
      await cluster.restart(member);
      await cluster.leader();
      await settled(cluster, '3.6.0');
    }
    await cluster.agreed();
    await note('cancel', cluster.ctl('downgrade', 'cancel'));
    await settled(cluster, '3.7.0');
    await note('an etcd 3.6 joins after it was cancelled', refusedEtcd36(cluster));
    await note('hash', cluster.agreed());
    return record;
  } finally {
    await cluster.end();
  }
}

test('a downgrade that is enabled, and cancelled', { timeout: 240_000 }, async (t) => {
  const [etcd, keelson] = [await history('etcd'), await history('keelson')];
  for (const [step, answer] of keelson) t.diagnostic(`${step}: ${JSON.stringify(answer)}`);
  assert.deepEqual(keelson, etcd);
});

test('a cluster of keelson becomes one of etcd 3.6', { timeout: 240_000 }, async (t) => {
  const folder = join(scratch.folder, 'down');
  mkdirSync(folder);
  const cluster = await Cluster.start(folder, ['keelson', 'keelson', 'keelson'], shortLog);
  await underLoad(t, cluster, async (load, step) => {
    const replace = async (old: ClusterMember, kind: Kind): Promise<ClusterMember> => {
      const added = await cluster.add(kind, { learner: true });
      await cluster.promote(added);
      await moveLeader(cluster, added);
      load.use(cluster.endpoints.filter((endpoint) => endpoint !== old.endpoint));
      await cluster.remove(old);
      await until(`${old.name} to end`, exitTimeoutMs, () => !old.isRunning);
      await load.writes(50);
      await agreeOnAll(cluster);
      return added;
    };
    await load.writes(200);
    await settled(cluster, '3.7.0');
    const [first, second, third] = cluster.members as [ClusterMember, ClusterMember, ClusterMember];
    const etcd = await step('an etcd 3.7 takes the place of one', () => replace(first, 'etcd'));
    // An etcd 3.6 that gets the log from its beginning panics at the entry that once set the version to 3.7; one that gets a snapshot not.
    await step('more entries than a keelson keeps', () => fillLog(cluster.endpoints));
    for (const [words, version] of [
      ['enable 3.6', '3.6.0'],
      ['cancel', '3.7.0'],
      ['enable 3.6', '3.6.0'],
    ] as const) {
      await step(`downgrade ${words}: ${version}, and stored the same by both kinds`, async () => {
        await cluster.ctl('downgrade', ...words.split(' '));
        await settled(cluster, version);
        await load.atRest(() => equalSnapshots([etcd, second, third], folder, version));
        await sameStatesAtRest(cluster, load, folder);
      });
    }
    await step('the etcd goes on as 3.6', async () => {
      await etcd.stop();
      etcd.kind = 'etcd-3.6';
      await cluster.restart(etcd);
      await load.writes(50);
    });
    await step('downgrade cancel: the version stays', async () => {
      await cluster.ctl('downgrade', 'cancel');
      await moveLeader(cluster, second);
      await settled(cluster, '3.6.0');
    });
    for (const old of [second, third]) {
      await step('an etcd 3.6 takes the place of a keelson', () => replace(old, 'etcd-3.6'));
    }
    await step('all agree', async () => {
      await agreeAcrossCompaction(cluster, load);
      await settled(cluster, '3.6.0');
      await sameStatesAtRest(cluster, load, folder);
    });
  });
});
