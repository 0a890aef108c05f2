// Goal: a panic at each stage of a write, a commit, a compaction or a defragmentation loses nothing acknowledged and leaves
// work that the next start finishes. Method: the rounds of crash.test.ts, ended by a failpoint (LESSONS.md, the GOFAIL_HTTP
// contract) that is armed in the midst of the load; then, for compactions, starts that panic again while they resume.
//
//   KEELSON_POINTS=beforeCommit,afterCommit KEELSON_SEED=7 node --test test-e2e/crash-failpoints.test.ts

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../src/testing/free-port.ts';
import { CrashRun } from './support/crash-run.ts';
import type { EtcdClient } from './support/etcd-client.ts';
import type { ServerProcess } from './support/server-process.ts';

const seed = Number(process.env['KEELSON_SEED'] ?? Date.now() % 1_000_000);
const stages = [
  'raftBeforeSave',
  'raftAfterSave',
  'beforeWritebackBuf',
  'afterWritebackBuf',
  'beforeStartDBTxn',
  'afterStartDBTxn',
  'commitBeforePreCommitHook',
  'commitAfterPreCommitHook',
  'beforeCommit',
  'afterCommit',
  'beforeSendWatchResponse',
] as const;
const compactionStages = [
  'compactBeforeCommitScheduledCompact',
  'compactAfterCommitScheduledCompact',
  'compactBeforeCommitBatch',
  'compactAfterCommitBatch',
  'compactBeforeSetFinishedCompact',
  'compactAfterSetFinishedCompact',
] as const;
const defragStages = ['defragBeforeCopy', 'defragBeforeRename'] as const;
/** Points that a start on a directory with an unfinished compaction comes through again. */
const resumedStages = [
  'compactBeforeCommitBatch',
  'compactAfterCommitBatch',
  'compactBeforeSetFinishedCompact',
] as const;
/** Small values: the watch keeps up, so that compactions and its own stage come by. */
const load = { inFlight: 10, valueBytesMax: 300 };
const wanted = process.env['KEELSON_POINTS']?.split(',');
const isWanted = (name: string): boolean => wanted === undefined || wanted.includes(name);

async function put(port: number, name: string, term: string): Promise<void> {
  let response: Response;
  try {
    response = await fetch(`http://127.0.0.1:${port}/${name}`, { method: 'PUT', body: term });
  } catch {
    return; // The panic was faster than the answer: assertPanicked() looks whether it was one.
  }
  assert.equal(response.status, 204, `arming ${name}: ${await response.text()}`);
}

/** The point was reached: the process ended by it, not by the test. */
function assertPanicked(server: ServerProcess, name: string): void {
  assert.deepEqual(server.exit, { code: null, signal: 'SIGKILL' }, server.output.slice(-2000));
  assert.match(server.stderr, new RegExp(`panic: failpoint panic: ${name}\n`));
}

/** Arms `name` under load and waits for the end that it causes. */
function strikeBy(name: string, run: CrashRun, port: number) {
  return async (server: ServerProcess, client: EtcdClient): Promise<void> => {
    await sleep(50 + run.random.below(200));
    // Where the load comes by all the time, half of the strikes let some pass.
    const isFrequent = (stages as readonly string[]).includes(name);
    await put(port, name, isFrequent && run.random.below(2) === 0 ? '20.0%panic' : 'panic');
    const timer = setInterval(() => {
      if (name.startsWith('defrag')) void client.defragment();
    }, 100);
    const inTime = await Promise.race([server.exited.then(() => true), sleep(20_000, false)]);
    clearInterval(timer);
    assert.ok(inTime, `${name} was not reached under load`);
    assertPanicked(server, name);
  };
}

test(`a panic at each stage loses nothing acknowledged (KEELSON_SEED=${seed})`, async (context) => {
  const run = new CrashRun(seed);
  const port = await freePort();
  run.env = { GOFAIL_HTTP: `127.0.0.1:${port}` };
  try {
    for (const name of [...stages, ...compactionStages, ...defragStages].filter(isWanted)) {
      await context.test(name, async () => {
        await run.round({ strike: strikeBy(name, run, port), load, deadStarts: 0, checksAgain: false });
      });
    }
    context.diagnostic(run.summary());
  } finally {
    run.end();
  }
});

test(`a start that resumes a compaction may die of it again (KEELSON_SEED=${seed})`, async (context) => {
  const run = new CrashRun(seed + 1);
  const port = await freePort();
  run.env = { GOFAIL_HTTP: `127.0.0.1:${port}` };
  try {
    for (const name of resumedStages.filter(isWanted)) {
      await context.test(name, async () => {
        const log = await run.loadAndStrike({ strike: strikeBy('compactBeforeCommitBatch', run, port), load });
        // It recovers, resumes the compaction and panics, maybe before it serves.
        await run.start({ GOFAIL_FAILPOINTS: `${name}=panic` }).catch(() => {});
        const inTime = await Promise.race([run.server!.exited.then(() => true), sleep(20_000, false)]);
        assert.ok(inTime, `${name} was not reached while the compaction was resumed`);
        assertPanicked(run.server!, name);
        await run.restartAndCheck(log);
        assert.deepEqual(await run.server!.stop('SIGTERM'), { code: 0, signal: null });
      });
    }
  } finally {
    run.end();
  }
});
