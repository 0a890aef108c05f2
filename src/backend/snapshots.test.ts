// Goal: snapshots may be opened at any moment of the flusher's commits, many after another, and as many at once as the server allows: none
// is refused, none is torn, and LMDB's table of readers has room for all of them beside the core, the flusher and its jobs.
// Method: LMDB with its threads under a load of commits that grow the file; each snapshot is a bbolt file with etcd's hash.

import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { systemClock } from '../io/clock.ts';
import { LmdbEnvironment } from '../io/lmdb.ts';
import { snapshotStreamsMax } from '../limits.ts';
import { type BoltResult, CursorStep, openBolt, verifySnapshotHash } from '../snapshot/bolt-reader.ts';
import { decodeCounter, MetaKey } from '../snapshot/schema.ts';
import { backendLimits, lmdbReadersMax, lmdbReadersOfServer } from '../storage-limits.ts';
import { applyTo } from '../testing/backend-model.ts';
import type { Backend } from './backend.ts';
import { closed, folder, openBackend } from './backend-fixture.ts';
import type { SnapshotReader } from './snapshot-source.ts';

/** With commits that come often. */
function open(name: string): Backend {
  const limits = { ...backendLimits, commitRows: 20, mergeEntries: 500 };
  const path = join(folder, name);
  return openBackend({ path, clock: systemClock, limits, noSync: true, onFatal: (error) => assert.fail(error) });
}
function must<T>(result: BoltResult<T>): T {
  assert.ok(result.ok, result.ok ? '' : result.error.reason);
  return result.value;
}

let keys = 0;
function put(backend: Backend): void {
  applyTo(backend, { kind: 'txn', changes: [{ key: `key${keys++ % 500}`, value: 'v'.repeat(200) }] });
}

/** Whole: the hash is right, and the rows are those up to its consistent index. */
function check(bytes: Buffer, indexBefore: number): void {
  const file = { size: bytes.length, read: (at: number, length: number) => bytes.subarray(at, at + length) };
  must(verifySnapshotHash(file));
  const reader = must(openBolt(file));
  const index = decodeCounter(must(must(reader.bucket(Buffer.from('meta')))!.get(MetaKey.consistentIndex))!)!;
  assert.ok(index >= indexBefore, 'what was applied before it was asked for is in it');
  const rows = must(reader.bucket(Buffer.from('key')))!.cursor();
  let count = 0;
  while (rows.next() === CursorStep.entry) count++;
  // One row an entry, and nothing was compacted.
  assert.equal(count, index);
}

function snapshot(backend: Backend): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    backend.snapshot({
      started: () => {},
      chunk: (bytes) => chunks.push(bytes) > 0,
      done: (error) => (error === null ? resolve(Buffer.concat(chunks)) : reject(error)),
    });
  });
}

// KEELSON_SNAPSHOTS=500 for the long form.
test('many snapshots opened while the flusher commits', async () => {
  const backend = open('many');
  put(backend);
  const wanted = Number(process.env['KEELSON_SNAPSHOTS'] ?? 60);
  let started = 0;
  let ended = 0;
  let failure: unknown = null;
  const run = async (): Promise<void> => {
    while (started < wanted && failure === null) {
      started++;
      const indexBefore = backend.consistentIndex;
      const bytes = await snapshot(backend);
      check(bytes, indexBefore);
      ended++;
    }
  };
  const runs = Promise.all([run(), run(), run(), run()]).catch((error: unknown) => {
    failure = error;
  });
  while (ended < wanted && failure === null) {
    // Slow enough that the file, and with it each snapshot, stays small.
    for (let i = 0; i < 20 && backend.backlog() === 0; i++) put(backend);
    await turn();
  }
  await runs;
  assert.equal(failure, null);
  assert.equal(ended, wanted);
  await closed(backend);
});

/** A commit that ends with pages which it allocated and freed again: they are counted and never written. */
function shorten(path: string): { readonly fileBytes: number; readonly countedBytes: number } {
  const environment = new LmdbEnvironment({ path, trusted: true });
  const table = environment.table('auth');
  const key = (i: number): Buffer => Buffer.from(`passing${String(i).padStart(4, '0')}`);
  environment.transaction(() => {
    for (let i = 0; i < 100; i++) table.put(key(i), Buffer.alloc(3000));
    for (let i = 0; i < 100; i++) table.remove(key(i));
  });
  const countedBytes = environment.sizes().allocatedBytes;
  environment.close();
  return { fileBytes: statSync(path).size, countedBytes };
}

test('a sound file may be shorter than it counts: a snapshot of a running server leaves it so, a start makes it whole', async () => {
  let backend = open('short');
  for (let i = 0; i < 100; i++) put(backend);
  await new Promise<void>((resolve) => backend.flush(() => resolve()));
  const { path } = backend;
  const { fileBytes, countedBytes } = shorten(path);
  assert.ok(fileBytes < countedBytes, `the file has ${fileBytes} of ${countedBytes} bytes`);
  // Whoever extends it races with the flusher, and could cut off what that has just written.
  check(await snapshot(backend), 100);
  assert.equal(statSync(path).size, fileBytes);
  await closed(backend);
  shorten(path);
  assert.ok(statSync(path).size < countedBytes);
  backend = open('short');
  assert.ok(statSync(path).size >= countedBytes, 'no read goes beyond its end');
  assert.equal(backend.index.liveKeyCount(), 100);
  await closed(backend);
});

/** Slots of LMDB's lock file that a thread holds: 64 bytes each after a header of 208, at offset 8 of each the process. */
function readersOf(path: string): number {
  const bytes = readFileSync(`${path}-lock`);
  let readers = 0;
  for (let at = bytes.length - 64 * lmdbReadersMax; at < bytes.length; at += 64) {
    if (bytes.readUInt32LE(at + 8) !== 0) readers++;
  }
  return readers;
}

test('LMDB has a reader for everybody at once, and again when they are gone', async () => {
  const backend = open('readers');
  // More than the chunks that are on their way at once: a thread keeps its view until its last chunk is wanted.
  for (let i = 0; i < 60; i++) {
    applyTo(backend, { kind: 'txn', changes: [{ key: `large${i}`, value: 'v'.repeat(1_000_000) }] });
  }
  let most = 0;
  for (let round = 0; round < 2; round++) {
    const stalled: SnapshotReader[] = [];
    const begun: Promise<void>[] = [];
    for (let i = 0; i < snapshotStreamsMax; i++) {
      begun.push(
        new Promise((resolve, reject) => {
          stalled.push(
            backend.snapshot({
              started: () => {},
              // Never resumed: the thread waits with its view.
              chunk: () => {
                resolve();
                return false;
              },
              done: (error) => (error === null ? assert.fail('ended') : reject(error)),
            }),
          );
        }),
      );
    }
    await Promise.all(begun);
    most = Math.max(most, readersOf(backend.path));
    let pending = 3;
    backend.hash(() => pending--);
    backend.hashKv(backend.currentRevision, -1, () => pending--);
    backend.defrag((error) => {
      assert.equal(error, null);
      pending--;
    });
    while (pending > 0) {
      put(backend);
      await turn();
      most = Math.max(most, readersOf(backend.path));
    }
    for (const reader of stalled) reader.cancel();
  }
  assert.ok(most > snapshotStreamsMax, 'the readers were counted');
  assert.ok(most <= lmdbReadersOfServer, `${most} readers at once`);
  await closed(backend);
});
