// Goal: a machine that stops in the middle of a member's first start, at whatever operation on its disk, starts as a new member the next
// time: one member, under the ids that the log has, if it got one, and everything that was acknowledged. Method: directories and log on
// the simulated disk, which stops the start at its n-th change, loses or tears what was not synced, and lets the next start go on; the
// database is real, and is found as it was closed or not at all. n goes through every change that a first start and a put make.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { ServerConfig } from '../config/server-config.ts';
import { SeededRandom } from '../io/random.ts';
import { configFor, put, StartDisk, type Started, start, whenReady } from '../testing/crashed-start.ts';
import { silentRequests, silentTransport } from '../testing/silent-transport.ts';
import { SimCrash } from '../testing/sim-disk.ts';

const seed = Number(process.env['FIRST_START_SEED'] ?? 1);
const nobody = { newTransport: () => silentTransport, peerRequests: silentRequests };
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
    started = await start(config, disk, seed, nobody);
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
  const started = await start(config, disk, seed, nobody);
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
