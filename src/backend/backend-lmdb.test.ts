// Goal: over LMDB and with its threads, the engine answers what the model answers through flushes, compactions, snapshots and
// defragmentations; a kill at any moment leaves one whole apply; a full disk ends it with its own exit code and loses nothing
// that was durable. Method: real files, real threads, a child process that is killed at random moments.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { crc32c } from '../base/crc32c.ts';
import { ExitCode, type FatalError } from '../base/fatal.ts';
import { systemClock } from '../io/clock.ts';
import { type BoltResult, CursorStep, openBolt, verifySnapshotHash } from '../snapshot/bolt-reader.ts';
import { BUCKET_NAMES, decodeCounter, encodeRevisionKey, MetaKey } from '../snapshot/schema.ts';
import { crashOptions, SeededOperations } from '../testing/backend-crash.ts';
import { applyTo, checkAgainst, Model } from '../testing/backend-model.ts';
import type { Backend } from './backend.ts';
import { closed, flushed, folder, openBackend } from './backend-fixture.ts';
import type { CompactionHash } from './backend-options.ts';

function defragmented(backend: Backend): Promise<void> {
  return new Promise((resolve, reject) => backend.defrag((error) => (error === null ? resolve() : reject(error))));
}
function hashOf(backend: Backend, revision: number, compactRevision: number): Promise<number> {
  return new Promise((resolve) => backend.hashKv(revision, compactRevision, resolve));
}
function must<T>(result: BoltResult<T>): T {
  assert.ok(result.ok, result.ok ? '' : result.error.reason);
  return result.value;
}
function turns(count: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, count));
}

/** A whole snapshot, taken as slowly as asked. */
function snapshotOf(backend: Backend, delayMs: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let fileBytes = 0;
    const reader = backend.snapshot({
      started: (bytes) => {
        fileBytes = bytes;
      },
      chunk: (bytes) => {
        chunks.push(bytes);
        if (delayMs === 0) return true;
        setTimeout(() => reader.resume(), delayMs);
        return false;
      },
      done: (error) => {
        if (error !== null) {
          reject(error);
          return;
        }
        const whole = Buffer.concat(chunks);
        assert.equal(whole.length, fileBytes + 32, 'the announced size');
        assert.equal(chunks.at(-1)?.length, 32, 'the hash comes by itself');
        resolve(whole);
      },
    });
  });
}

test('applies, reads, hashes, snapshots, defragmentations and restarts equal the model', async () => {
  const path = join(folder, 'db');
  const options = crashOptions(path);
  const operations = new SeededOperations(4711);
  const { model } = operations;
  const hashes: CompactionHash[] = [];
  let backend = openBackend(options);
  backend.onCompactionHash = (hash) => void hashes.push(hash);
  for (let round = 0; round < 30; round++) {
    for (let i = 0; i < 40; i++) applyTo(backend, operations.next());
    checkAgainst(backend, model, false);
    await turns(round % 5);
    checkAgainst(backend, model, false);
    if (round % 7 === 3) {
      const compactRevision = model.compactRevision > 0 ? model.compactRevision : -1;
      const wanted = model.hashKv(model.revision, compactRevision);
      const hash = hashOf(backend, model.revision, compactRevision);
      applyTo(backend, { kind: 'txn', changes: [{ key: 'later', value: String(round) }] });
      model.apply({ kind: 'txn', changes: [{ key: 'later', value: String(round) }] });
      assert.equal(await hash, wanted);
    }
    if (round % 10 === 5) {
      const done = defragmented(backend);
      for (let i = 0; i < 40; i++) {
        applyTo(backend, operations.next());
        if (i % 10 === 0) await turns(1);
      }
      await done;
      checkAgainst(backend, model, false);
      assert.equal(existsSync(`${path}.defrag`), false);
    }
    if (round % 10 === 8) {
      await closed(backend);
      backend = openBackend(options);
      backend.onCompactionHash = (hash) => void hashes.push(hash);
      assert.equal(backend.consistentIndex, model.index);
      checkAgainst(backend, model, false);
    }
  }
  await flushed(backend);
  await hashOf(backend, model.revision, -1); // a job after all compactions
  checkAgainst(backend, model, true);
  assert.ok(hashes.length > 0, 'compactions told their hashes');
  assert.ok(backend.sizes().inUseBytes <= backend.sizes().totalBytes);
  await closed(backend);
});

test('a snapshot is of one commit, includes what was applied before, and waits for its reader', async () => {
  const operations = new SeededOperations(99);
  const { model } = operations;
  const backend = openBackend(crashOptions(join(folder, 'snap')));
  for (let i = 0; i < 3000; i++) applyTo(backend, operations.next());
  await hashOf(backend, model.revision, -1);
  const wanted = model.rows
    .filter((row) => model.kept(row))
    .map(
      (row) => `${encodeRevisionKey(row.main, row.sub, row.tombstone).toString('hex')}=${row.bytes.toString('hex')}`,
    );
  const wantedIndex = model.index;
  const taken = snapshotOf(backend, 1);
  for (let i = 0; i < 500; i++) {
    applyTo(backend, { kind: 'txn', changes: [{ key: `after${i}`, value: 'x' }] });
    if (i % 50 === 0) await turns(2);
  }
  const bytes = await taken;
  const file = fileOf(bytes);
  assert.equal(must(verifySnapshotHash(file)), bytes.length - 32);
  const reader = must(openBolt(file));
  const names: string[] = [];
  const root = reader.root().cursor();
  while (root.next() === CursorStep.entry) names.push(root.key.toString());
  assert.deepEqual(names, [...BUCKET_NAMES]);
  // The flush before the snapshot includes everything applied until the call, and maybe more.
  const meta = must(must(reader.bucket(Buffer.from('meta')))!.get(MetaKey.consistentIndex));
  const extra = decodeCounter(meta!)! - wantedIndex;
  assert.ok(extra >= 0 && extra <= 500);
  const rows = must(reader.bucket(Buffer.from('key')))!.cursor();
  const found: string[] = [];
  while (rows.next() === CursorStep.entry) found.push(`${rows.key.toString('hex')}=${rows.value.toString('hex')}`);
  assert.equal(found.length, wanted.length + extra);
  assert.deepEqual(found.slice(0, wanted.length), wanted);
  await closed(backend);
});

function fileOf(bytes: Buffer): { size: number; read(at: number, length: number): Buffer } {
  return { size: bytes.length, read: (at, length) => bytes.subarray(at, at + length) };
}

test('the hash of all buckets is that over the snapshot, without the index and term', async () => {
  const operations = new SeededOperations(5);
  const backend = openBackend(crashOptions(join(folder, 'hash')));
  for (let i = 0; i < 500; i++) applyTo(backend, operations.next());
  const hash = await new Promise<number>((resolve) => backend.hash(resolve));
  const reader = must(openBolt(fileOf(await snapshotOf(backend, 0))));
  let wanted = 0;
  for (const name of BUCKET_NAMES) {
    wanted = crc32c(wanted, Buffer.from(name));
    const entries = must(reader.bucket(Buffer.from(name)))!.cursor();
    while (entries.next() === CursorStep.entry) {
      if (name === 'meta' && ['consistent_index', 'term'].includes(entries.key.toString())) continue;
      wanted = crc32c(crc32c(wanted, entries.key), entries.value);
    }
  }
  assert.equal(hash, wanted);
  applyTo(backend, { kind: 'txn', changes: [{ key: 'more', value: 'x' }] });
  assert.notEqual(await new Promise<number>((resolve) => backend.hash(resolve)), wanted);
  await closed(backend);
});

test('a snapshot that is given up lets go of its commit', async () => {
  const backend = openBackend(crashOptions(join(folder, 'given-up')));
  for (let i = 0; i < 3000; i++) {
    applyTo(backend, { kind: 'txn', changes: [{ key: `k${i % 50}`, value: 'x'.repeat(1000) }] });
  }
  await new Promise<void>((resolve) => {
    const reader = backend.snapshot({
      started: () => {},
      chunk: () => {
        reader.cancel();
        setTimeout(resolve, 100);
        return false;
      },
      done: () => assert.fail('nothing is heard after cancel'),
    });
  });
  await closed(backend);
});

interface Killed {
  readonly durable: number;
  readonly defrags: number;
  readonly panicked: boolean;
}

const POINTS = [
  'defragBeforeRename',
  'beforeStartDBTxn',
  'compactBeforeSetFinishedCompact',
  'compactAfterSetFinishedCompact',
  'afterCommit',
  'beforeCommit',
  'compactBeforeCommitBatch',
  'compactAfterCommitBatch',
  'commitAfterPreCommitHook',
  'commitBeforePreCommitHook',
  'compactAfterCommitScheduledCompact',
  'compactBeforeCommitScheduledCompact',
  'afterWritebackBuf',
  'beforeWritebackBuf',
  'defragBeforeCopy',
  'afterStartDBTxn',
] as const;

/** Runs the child until it is killed, some time after it has printed `from`, or until its failpoint panics. */
function runAndKill(path: string, seed: number, from: string, afterMs: number, point?: string): Promise<Killed> {
  return new Promise((resolve, reject) => {
    const script = new URL('../testing/backend-crash.ts', import.meta.url).pathname;
    const args = [script, path, String(seed), ...(point === undefined ? [] : [point])];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let errors = '';
    let timer: NodeJS.Timeout | undefined;
    child.stdout.on('data', (data: Buffer) => {
      output += data.toString();
      if (output.includes(from)) timer ??= setTimeout(() => child.kill('SIGKILL'), afterMs);
    });
    child.stderr.on('data', (data: Buffer) => {
      errors += data.toString();
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (signal !== 'SIGKILL') {
        reject(new Error(`child ended with ${code}: ${errors}`));
        return;
      }
      const lines = output.split('\n').slice(0, -1);
      const durable = lines.filter((line) => line !== 'defrag').map(Number);
      const panicked = errors.includes('failpoint panic');
      resolve({ durable: Math.max(0, ...durable), defrags: lines.length - durable.length, panicked });
    });
  });
}

/** Opens what a kill left and compares it with the model at its index; returns that index. */
async function checkKilled(path: string, seed: number, durable: number): Promise<number> {
  const backend = openBackend(crashOptions(path));
  const index = backend.consistentIndex;
  assert.ok(index >= durable, `seed ${seed}: durable ${durable} was lost, found ${index}`);
  const operations = new SeededOperations(seed);
  while (operations.model.index < index) operations.next();
  const { model } = operations;
  checkAgainst(backend, model, false);
  // Behind a compaction that the kill interrupted, which goes on by itself.
  const compactRevision = model.compactRevision > 0 ? model.compactRevision : -1;
  const hash = await hashOf(backend, model.revision, compactRevision);
  assert.equal(hash, model.hashKv(model.revision, compactRevision), `seed ${seed}: HashKV`);
  checkAgainst(backend, model, true);
  await closed(backend);
  return index;
}

// KEELSON_KILLS=20 and more for the long form of the next two.

test('a kill -9 at any moment leaves one whole apply, not before the durable index', async () => {
  const path = join(folder, 'killed');
  const seed = Math.floor(Math.random() * 1e9);
  const kills = Number(process.env['KEELSON_KILLS'] ?? 8);
  let defrags = 0;
  let last = 0;
  for (let kill = 0; kill < kills; kill++) {
    const from = kill % 3 === 2 ? 'defrag' : '\n';
    const killed = await runAndKill(path, seed, from, Math.floor(Math.random() * 400));
    assert.ok(killed.durable > last, 'each child gets somewhere');
    defrags += killed.defrags;
    last = await checkKilled(path, seed, killed.durable);
  }
  assert.ok(defrags > 0, 'defragmentations were among it');
});

test('a panic at every stage with a failpoint leaves one whole apply', async () => {
  const long = process.env['KEELSON_KILLS'] !== undefined;
  const first = Math.floor(Math.random() * 4);
  const points = long ? POINTS : POINTS.filter((_, i) => i % 4 === first);
  const seed = Math.floor(Math.random() * 1e9);
  for (const point of points) {
    const path = join(folder, `point-${point}`);
    // It panics long before.
    const killed = await runAndKill(path, seed, '\n', 60_000, point);
    assert.ok(killed.panicked, `${point} was reached`);
    await checkKilled(path, seed, killed.durable);
  }
});

test('a full disk ends the engine with its own exit code; what was durable is there', async (context) => {
  const mount = join(folder, 'small');
  mkdirSync(mount);
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', mount]);
  if (mounted.status !== 0) {
    context.skip(`needs to mount a tmpfs: ${mounted.stderr}`);
    return;
  }
  try {
    const path = join(mount, 'db');
    const fatal = Promise.withResolvers<FatalError>();
    const model = new Model();
    const applied: Parameters<typeof applyTo>[1][] = [];
    const backend = openBackend({ path, clock: systemClock, batchIntervalMs: 5, onFatal: fatal.resolve });
    let ended: FatalError | null = null;
    void fatal.promise.then((error) => {
      ended = error;
    });
    for (let i = 0; ended === null && i < 100_000; i++) {
      const operation = { kind: 'txn', changes: [{ key: `k${i}`, value: 'v'.repeat(2000) }] } as const;
      applied.push(operation);
      applyTo(backend, operation);
      // However slow the flusher is: commits of this size fit, and many of them.
      while (i % 100 === 0 && ended === null && backend.durableIndex < i - 500) await turns(2);
    }
    assert.equal((await fatal.promise).exitCode, ExitCode.diskFull);
    const durable = backend.durableIndex;
    assert.ok(durable > 500);
    await closed(backend);
    const again = openBackend({ path, clock: systemClock, onFatal: () => {} });
    assert.ok(again.consistentIndex >= durable);
    for (const operation of applied.slice(0, again.consistentIndex)) model.apply(operation);
    checkAgainst(again, model, false);
    await closed(again);
  } finally {
    spawnSync('umount', ['-l', mount]);
  }
});
