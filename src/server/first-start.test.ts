// Goal: a machine that stops in the middle of a member's first start, at whatever operation on its disk, starts as a new member the next
// time: one member, under the ids that the log has, if it got one, and everything that was acknowledged. Method: directories and log on
// the simulated disk, which stops the start at its n-th change, loses or tears what was not synced, and lets the next start go on; the
// database is real, and is found as it was closed or not at all. n goes through every change that a first start and a put make.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { Applier } from '../apply/applier.ts';
import type { FatalError } from '../base/fatal.ts';
import { loadConfig } from '../config/load.ts';
import type { ServerConfig } from '../config/server-config.ts';
import type { DiskLock } from '../io/file.ts';
import { SeededRandom } from '../io/random.ts';
import { syncWriter } from '../io/wal-writer.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { Logger } from '../telemetry/logger.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { PutMessage } from '../testing/kv-messages.ts';
import { SimCrash, SimDisk } from '../testing/sim-disk.ts';
import { openMember } from './bootstrap.ts';
import type { Member } from './member.ts';
import { backendObserver, leaseCounters, memberCounters, walObserver } from './observers.ts';

const seed = Number(process.env['FIRST_START_SEED'] ?? 1);
const silent = new Logger({ level: 'fatal', format: 'json', sink: { write: () => {}, flush: () => {} }, now: () => 0 });

/** Directories exist for the real database too, and it is known when the member has let go of everything. */
class StartDisk extends SimDisk {
  private held = 0;
  private onFree: (() => void) | null = null;

  override mkdir(directory: string): void {
    super.mkdir(directory);
    mkdirSync(directory, { recursive: true });
  }

  override lock(file: string): DiskLock | null {
    const lock = super.lock(file);
    if (lock === null) return null;
    this.held++;
    let isHeld = true;
    return {
      release: () => {
        lock.release();
        if (isHeld) this.held--;
        isHeld = false;
        if (this.held === 0) this.onFree?.();
      },
    };
  }

  /** Of a start that failed: its database is closed. */
  async free(): Promise<void> {
    if (this.held > 0) await new Promise<void>((resolve) => (this.onFree = resolve));
    this.onFree = null;
  }
}

async function configFor(dataDir: string): Promise<ServerConfig> {
  const loaded = await loadConfig({
    argv: ['keelson', '--name=m1', `--data-dir=${dataDir}`],
    env: {},
    readFile: () => '',
    defaultHost: () => null,
    nodeVersion: 'test',
    platform: 'linux',
    arch: 'x64',
  });
  if (loaded.kind === 'exit') throw new Error(loaded.stderr);
  return loaded.config;
}

interface Started {
  readonly member: Member;
  /** Rejects with the SimCrash that came in the loop. */
  readonly crashed: Promise<never>;
}

function start(config: ServerConfig, disk: StartDisk): Started {
  const options = { serverVersion: '3.7.1', runtimeVersion: 'test', extensive: false, features: [] };
  const metrics = new Metrics(options, async () => assert.fail('nobody scrapes'));
  let crash: (error: unknown) => void;
  const crashed = new Promise<never>((_, reject) => (crash = reject));
  crashed.catch(() => {});
  const member = openMember({
    config,
    clusterVersion: '3.7.0',
    logger: silent,
    random: new SeededRandom(seed),
    walWriter: syncWriter(disk),
    walObserver: walObserver(metrics),
    backendObserver: backendObserver(metrics, () => 0),
    memberCounters: memberCounters(metrics),
    leaseCounters: leaseCounters(metrics),
    failpoints: null,
    onFatal: (error: FatalError) => crash(error),
    flushConnections: () => {},
    schedule: (run) =>
      setImmediate(() => {
        try {
          run();
        } catch (error) {
          crash(error);
        }
      }),
    disk,
    walSegmentBytes: 16_384,
  });
  return { member, crashed };
}

/** Resolves with the answer's revision. */
function put(member: Member, key: string): Promise<number> {
  const bytes = encode(PutMessage, { key: Buffer.from(key), value: Buffer.from('v') });
  return new Promise((resolve, reject) => {
    const applied = (applier: Applier): void => resolve(applier.error === null ? applier.revision : Number.NaN);
    const error = member.propose(RequestField.put, bytes, 0, bytes.length, { applied, failed: reject });
    if (error !== null) reject(error);
  });
}

/** A start takes some hundred ms; one that takes this long has nothing more to do. */
const startMsMax = 30_000;

async function whenReady({ member, crashed }: Started): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not ready after ${startMsMax} ms`)), startMsMax);
  });
  try {
    await Promise.race([new Promise<void>((ready) => member.start(ready)), crashed, late]);
  } finally {
    clearTimeout(timer);
  }
}

interface Run {
  readonly isWhole: boolean;
  /** The put was answered. */
  acknowledged: boolean;
  /** Of the member, if it was opened. */
  readonly id: bigint | null;
}

/** Starts for the first time and puts a key, until the disk stops. */
async function firstStart(config: ServerConfig, disk: StartDisk): Promise<Run> {
  let started: Started;
  try {
    started = start(config, disk);
  } catch (error) {
    assert.ok(error instanceof SimCrash, String(error));
    await disk.free();
    return { isWhole: false, acknowledged: false, id: null };
  }
  const { backend, id } = started.member.parts;
  const run = { isWhole: false, acknowledged: false, id };
  try {
    await whenReady(started);
    assert.equal(await Promise.race([put(started.member, 'first'), started.crashed]), 2);
    run.acknowledged = true;
    return { ...run, isWhole: true };
  } catch (error) {
    assert.ok(error instanceof SimCrash, String(error));
    return run;
  } finally {
    await new Promise<void>((done) => backend.close(done));
  }
}

/** Starts again: it must be a member like any other. */
async function nextStart(config: ServerConfig, disk: StartDisk, before: Run): Promise<void> {
  const started = start(config, disk);
  const { member } = started;
  await whenReady(started);
  const { cluster, id, raft, store } = member.parts;
  if (before.id !== null) assert.equal(id, before.id, 'under the ids of the log');
  const shown = cluster.members().map(({ name, peerUrls }) => [name, ...peerUrls]);
  assert.deepEqual(shown, [['m1', 'http://localhost:2380']]);
  assert.deepEqual(raft.status().confState.voters, [id]);
  assert.equal(cluster.version, '3.7.0');
  // The put of the first start is there if it was answered, and may be if it was not.
  const revision = store.currentRevision;
  assert.ok(revision === 2 || (revision === 1 && !before.acknowledged), `revision ${revision}`);
  assert.equal(await put(member, 'next'), revision + 1);
  assert.ok(member.isLeader);
  await new Promise<void>((done) => member.stop(done));
}

/** Two directories of the test's, member, snap and wal, their parents, and the lock: fewer than there are. */
const changesBeforeLog = 8;

/** Returns whether the first start was whole. */
async function stopAndStart(folder: string, stops: number, keepsDatabase: boolean): Promise<boolean> {
  const dataDir = path.join(folder, `${stops}-${keepsDatabase}`);
  const config = await configFor(dataDir);
  const disk = new StartDisk(new SeededRandom(seed * 1000 + stops));
  disk.mkdir(folder);
  disk.crashAfter = disk.changes + stops;
  try {
    const run = await firstStart(config, disk);
    disk.crash();
    disk.crashAfter = Number.POSITIVE_INFINITY;
    // Never synced, it may be gone; what the log has not released is applied from there again.
    const database = path.join(dataDir, 'member', 'snap');
    if (!keepsDatabase) rmSync(database, { recursive: true, force: true });
    mkdirSync(database, { recursive: true });
    await nextStart(config, disk, run);
    return run.isWhole;
  } catch (error) {
    const what = `stopped after ${stops} changes, database ${keepsDatabase ? 'kept' : 'lost'}, seed ${seed}`;
    throw new Error(what, { cause: error });
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

test('stopped at each operation of the first start, it starts the next time', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'keelson-first-start-'));
  try {
    let stops = 0;
    for (let whole = false; !whole; stops++) {
      whole = await stopAndStart(folder, stops, true);
      // Before there is a log, a database holds nothing that could be lost.
      if (stops > changesBeforeLog) await stopAndStart(folder, stops, false);
    }
    assert.ok(stops > 20, `a first start is more than ${stops} operations`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
