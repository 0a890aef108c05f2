// Goal: a member whose disk is full or stands still harms nobody but itself. Method: three real processes under concurrent clients
// (support/history-load.ts). The leader's disk stalls (a failpoint before its log's sync) for longer than an election timeout: it gives
// leadership up, which etcd's does not, and writes go on; so do they when a follower's stalls. One member's data is on a small tmpfs,
// which fills: it ends with its own exit code, the others go on, and with room it comes back.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { freePorts } from '../src/testing/free-port.ts';
import { Cluster, type ClusterMember } from './cluster.ts';
import { harm, timeout } from './faulted-cluster.ts';
import { scratchFolder, sleep, until } from './program.ts';

const scratch = scratchFolder('cluster-disks');
after(() => scratch.remove());

const three = ['keelson', 'keelson', 'keelson'] as const;
const isEtcd = process.env['KEELSON_E2E_STORE'] === 'etcd';
/** base/fatal.ts; written out, because operators rely on the number. */
const diskFullExit = 13;
const stalledMs = 4000;
/** The log's first segment takes 64 MB at once; the database and the rest of it do not. */
const smallDiskMegabytes = 80;

async function stall(port: number, ms: number): Promise<void> {
  const url = `http://127.0.0.1:${port}/walBeforeSync`;
  assert.equal((await fetch(url, { method: 'PUT', body: `1*sleep(${ms})` })).status, 204);
}

test('a disk that stands still', {
  skip: isEtcd && 'etcd is built without failpoints',
  timeout,
}, async (t) => {
  const ports = await freePorts(3);
  const places = ports.map((port) => ({ env: { GOFAIL_HTTP: `127.0.0.1:${port}` } }));
  await harm(
    t,
    () => Cluster.start(mkdtempSync(join(scratch.folder, 'cluster-')), three, [], places),
    async ({ cluster, load, recovery }) => {
      const portOf = (member: ClusterMember): number => ports[cluster.members.indexOf(member)]!;
      const leader = await cluster.leader();
      const since = performance.now();
      await stall(portOf(leader), stalledMs);
      await recovery("the leader's disk stands still");
      await until('it gives leadership up', stalledMs, () => leader.log().includes('giving up leadership'));
      await until('another leads', stalledMs, async () => (await leader.status()).leader !== (await idOf(leader)));
      await recovery('another leads');
      await sleep(stalledMs);
      t.diagnostic(`the longest time without a write meanwhile: ${Math.round(load.longestGapMs(since))} ms`);
      const [follower] = await cluster.followers();
      const { term } = await follower!.status();
      await stall(portOf(follower!), stalledMs);
      await recovery("a follower's disk stands still");
      await sleep(stalledMs);
      assert.equal((await follower!.status()).term, term, 'a slow follower disturbs nobody');
    },
  );
});

async function idOf(member: ClusterMember): Promise<string> {
  return (await member.status()).id;
}

class SmallDisk {
  readonly folder: string;

  constructor() {
    this.folder = join(scratch.folder, 'small');
    mkdirSync(this.folder);
    mount('-t', 'tmpfs', '-o', `size=${smallDiskMegabytes}m`, 'keelson-test', this.folder);
  }

  grow(): void {
    mount('-o', `remount,size=${4 * smallDiskMegabytes}m`, this.folder);
  }

  unmount(): void {
    execFileSync('umount', ['-l', this.folder], { stdio: 'pipe' });
  }
}

function mount(...args: string[]): void {
  execFileSync('mount', args, { stdio: 'pipe' });
}

function mountRefusal(): string | false {
  try {
    new SmallDisk().unmount();
    execFileSync('rmdir', [join(scratch.folder, 'small')]);
    return false;
  } catch (error) {
    return `needs the right to mount a tmpfs: ${String(error)}`;
  }
}

test('a disk that is full', { skip: mountRefusal(), timeout }, async (t) => {
  const disk = new SmallDisk();
  try {
    await harm(
      t,
      () => Cluster.start(mkdtempSync(join(scratch.folder, 'cluster-')), three, [], [{ folder: disk.folder }]),
      async ({ cluster, recovery }) => {
        const member = cluster.members[0]!;
        const isLeader = (await cluster.leader()) === member;
        // What others write there fills it as well as its own.
        await until('the disk to be full', 30_000, () => isFull(disk));
        await until('it to end without a disk', 60_000, () => !member.isRunning);
        if (!isEtcd) assert.equal((await member.exited).code, diskFullExit, member.log().slice(-2000));
        await recovery(`the ${isLeader ? "leader's" : "follower's"} disk is full`);
        disk.grow();
        await cluster.restart(member);
        await recovery('back, with room');
      },
    );
  } finally {
    disk.unmount();
  }
});

let fillers = 0;
function isFull(disk: SmallDisk): boolean {
  try {
    writeFileSync(join(disk.folder, `filler-${fillers++}`), Buffer.alloc(1 << 20));
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOSPC';
  }
}
