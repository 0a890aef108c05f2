// Goal: the database of a leader's snapshot takes the place of a member's own, whatever that one holds and is doing: afterwards it answers
// what the leader's answers, goes on with the leader's next entries, and is still so after a restart. What was under way ends cleanly:
// flushes are answered, jobs fail, pinned reads and snapshots that are being taken go on, a defragmentation does not meet the swap.
// Method: two engines and a model of random operations; one has less of them and is given the other's bbolt file. Over LMDB with
// threads, and over memory tables.

import assert from 'node:assert/strict';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ExitCode, type FatalError } from '../base/fatal.ts';
import { SimClock, systemClock } from '../io/clock.ts';
import { nodeDisk } from '../io/file.ts';
import { SeededRandom } from '../io/random.ts';
import { MetaKey } from '../snapshot/schema.ts';
import { crashOptions, SeededOperations } from '../testing/backend-crash.ts';
import { applyTo, checkAgainst, type Model, type Operation } from '../testing/backend-model.ts';
import { MemoryStore } from '../testing/memory-tables.ts';
import { openSimBackend, smallLimits } from '../testing/sim-database.ts';
import { SimDisk } from '../testing/sim-disk.ts';
import type { Backend } from './backend.ts';
import { closed, folder, openBackend } from './backend-fixture.ts';
import { type SnapshotFile, silentObserver } from './backend-options.ts';
import { installPath } from './install.ts';
import { DiskBytes, readSnapshotFacts } from './snapshot-conversion.ts';
import { type SnapshotState, snapshotTrailer } from './snapshot-source.ts';

function installed(backend: Backend, snapshot: SnapshotFile): Promise<void> {
  return new Promise((resolve) => backend.install(snapshot, resolve));
}
function hashOf(backend: Backend, model: Model): Promise<number> {
  const { revision, compactRevision } = model;
  return new Promise((resolve, reject) =>
    backend.hashKv(revision, compactRevision === 0 ? -1 : compactRevision, (hash, error) =>
      error === null ? resolve(hash) : reject(error),
    ),
  );
}
function compacted(backend: Backend): Promise<void> {
  // Jobs are done in their order: a hash comes behind the compactions before it.
  return new Promise((resolve) => backend.hash(() => resolve()));
}

const confState = '{"voters":[1],"auto_leave":false}';
let files = 0;

/** The file of what the engine holds now, as one member sends it to another. */
async function snapshotOf(backend: Backend): Promise<SnapshotFile & { readonly state: SnapshotState }> {
  const states: SnapshotState[] = [];
  let planned = 0;
  const chunks: Buffer[] = [];
  await new Promise<void>((resolve, reject) => {
    const sink = {
      started: (fileBytes: number, found: SnapshotState) => {
        planned = fileBytes;
        states.push(found);
      },
      chunk: (bytes: Buffer) => chunks.push(bytes) > 0,
      done: (error: Error | null) => (error === null ? resolve() : reject(error)),
    };
    backend.snapshot(sink, snapshotTrailer.none);
  });
  const bytes = Buffer.concat(chunks);
  assert.equal(bytes.length, planned, 'nothing follows the file');
  const [state] = states;
  assert.ok(state !== undefined);
  const path = join(folder, `${files++}.snap.db`);
  writeFileSync(path, bytes);
  return { path, index: state.consistentIndex, term: state.term, state };
}

const setConfState: Operation = { kind: 'bucket', bucket: 'meta', key: 'confState', value: confState };

/** The leader's engine with the model, and what it was given. */
class Leader {
  readonly backend: Backend;
  readonly operations: SeededOperations;
  readonly log: Operation[] = [setConfState];

  constructor(name: string, seed: number) {
    this.backend = openBackend(crashOptions(join(folder, name)));
    this.operations = new SeededOperations(seed);
    this.model.apply(setConfState);
    applyTo(this.backend, setConfState);
    // `meta` is the engine's own too: what it writes there is not in the model.
    this.model.buckets.clear();
  }

  get model(): Model {
    return this.operations.model;
  }

  async run(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const operation = this.operations.next();
      this.log.push(operation);
      applyTo(this.backend, operation);
      if (this.backend.isOverloaded()) await new Promise<void>((resolve) => this.backend.whenRoom(resolve));
    }
  }
}

/** Gives the engine the operations behind its index, up to `count` in all. */
async function follow(backend: Backend, log: readonly Operation[], count: number): Promise<void> {
  while (backend.consistentIndex < count) {
    applyTo(backend, log[backend.consistentIndex]!);
    if (backend.isOverloaded()) await new Promise<void>((resolve) => backend.whenRoom(resolve));
  }
}

for (const [seed, before, more] of [
  [1, 0, 900],
  [2, 400, 900],
  [3, 1200, 1],
] as const) {
  test(`a member that has ${before} entries is given ${more} more`, async () => {
    const leader = new Leader(`leader${seed}`, seed);
    await leader.run(before + more);
    const path = join(folder, `follower${seed}`);
    let follower = openBackend(crashOptions(path));
    await follow(follower, leader.log, before);
    const durable: number[] = [];
    follower.onDurable = (index) => durable.push(index);
    const snapshot = await snapshotOf(leader.backend);
    assert.equal(snapshot.index, leader.log.length);
    assert.equal(snapshot.term, 3);
    assert.equal(snapshot.state.confState.toString(), confState);
    await installed(follower, snapshot);
    assert.equal(follower.durableIndex, snapshot.index);
    assert.equal(durable.at(-1), snapshot.index, 'the log may be released up to it');
    assert.equal(follower.consistentTerm, 3);
    assert.ok(!existsSync(installPath(path)));
    checkAgainst(follower, leader.model, false);
    await leader.run(300);
    await follow(follower, leader.log, leader.log.length);
    await Promise.all([compacted(leader.backend), compacted(follower)]);
    checkAgainst(follower, leader.model, true);
    const hash = await hashOf(leader.backend, leader.model);
    assert.equal(await hashOf(follower, leader.model), hash);
    await closed(follower);
    follower = openBackend(crashOptions(path));
    checkAgainst(follower, leader.model, true);
    assert.equal(await hashOf(follower, leader.model), hash);
    assert.equal((await snapshotOf(follower)).state.confState.toString(), confState);
    await closed(follower);
    await closed(leader.backend);
  });
}

test('what is under way when the database is replaced ends, or goes on with its own', async () => {
  const leader = new Leader('leader-busy', 7);
  await leader.run(1500);
  const snapshot = await snapshotOf(leader.backend);
  const measured = { hashes: 0, defrags: 0 };
  const observer = { ...silentObserver, hashKv: () => measured.hashes++, defrag: () => measured.defrags++ };
  const follower = openBackend({ ...crashOptions(join(folder, 'follower-busy')), observer });
  await follow(follower, leader.log, 900);
  const before = follower.currentRevision;
  const beforeIndex = follower.consistentIndex;
  const ends: string[] = [];
  const note =
    (what: string) =>
    (result: unknown, error?: Error | null): void =>
      void ends.push(`${what} ${error instanceof Error || result instanceof Error ? 'failed' : 'done'}`);
  // Taken from the old file, slowly, over the swap.
  let old: Buffer[] | null = [];
  const oldDone = new Promise<void>((resolve, reject) => {
    const reader = follower.snapshot({
      started: () => {},
      chunk: (bytes) => {
        old?.push(bytes);
        setTimeout(() => reader.resume(), 3);
        return false;
      },
      done: (error) => (error === null ? resolve() : reject(error)),
    });
  });
  while (old.length === 0) await turn();
  follower.pin(before);
  const replaced = new Promise<void>((resolve) => follower.install(snapshot, resolve));
  // Asked for all the while; the last ones meet a database that is being closed.
  const timer = setInterval(() => {
    follower.flush(note('flush'));
    follower.hashKv(before, -1, note('hash'));
    follower.defrag(note('defrag'));
  }, 1);
  await replaced;
  clearInterval(timer);
  checkAgainst(follower, leader.model, false);
  await oldDone;
  const path = join(folder, 'old.db');
  writeFileSync(path, Buffer.concat(old));
  old = null;
  const bytes = new DiskBytes(nodeDisk, path);
  const facts = readSnapshotFacts(bytes);
  bytes.close();
  assert.deepEqual(facts, { ok: true, value: { consistentIndex: beforeIndex, term: 3 } });
  // The pin has come with the reads: a compaction waits for it.
  let isCompacted = false;
  follower.compact(leader.model.revision, () => {
    isCompacted = true;
  });
  follower.endApply(follower.consistentIndex + 1, 3);
  await new Promise<void>((resolve) => follower.flush(() => resolve()));
  for (let i = 0; i < 20; i++) await turn();
  assert.equal(isCompacted, false);
  follower.unpin(before);
  await compacted(follower);
  assert.equal(isCompacted, true);
  await new Promise<void>((resolve, reject) => follower.defrag((error) => (error ? reject(error) : resolve())));
  assert.ok(ends.length > 0);
  assert.ok(!ends.includes('flush failed'), 'what was applied is in the new database, durably');
  assert.equal(ends.filter((end) => end.startsWith('flush')).length * 3, ends.length, 'everything has ended once');
  assert.equal(follower.defragsRunning, 0);
  const done = (what: string): number => ends.filter((end) => end === `${what} done`).length;
  const counts = { hashes: done('hash'), defrags: done('defrag') + 1 };
  assert.deepEqual(measured, counts, 'what was refused took no time that is one of a hash');
  await closed(follower);
  await closed(leader.backend);
});

test('closing while the database is replaced leaves the old one or the new one', async () => {
  const leader = new Leader('leader-close', 9);
  await leader.run(600);
  const snapshot = await snapshotOf(leader.backend);
  let oldCount = 0;
  for (let turns = 0; turns < 30; turns += 4) {
    const path = join(folder, `follower-close${turns}`);
    let follower = openBackend(crashOptions(path));
    await follow(follower, leader.log, 200);
    follower.install(snapshot, () => {});
    await new Promise<void>((resolve) => setTimeout(resolve, turns * 8));
    await closed(follower);
    follower = openBackend(crashOptions(path));
    const { consistentIndex } = follower;
    assert.ok(consistentIndex === 200 || consistentIndex === snapshot.index, `index ${consistentIndex}`);
    if (consistentIndex === 200) oldCount++;
    else checkAgainst(follower, leader.model, false);
    assert.ok(!existsSync(installPath(path)));
    await closed(follower);
    rmSync(path);
  }
  assert.ok(oldCount > 0, 'none was closed in time');
  await closed(leader.backend);
});

test('a file that is damaged, or of an earlier entry, ends the member and leaves its database', async () => {
  const leader = new Leader('leader-damaged', 11);
  await leader.run(600);
  const snapshot = await snapshotOf(leader.backend);
  const bytes = Buffer.alloc(snapshot.index, 1);
  const garbage = join(folder, 'garbage.snap.db');
  writeFileSync(garbage, bytes);
  for (const [file, text] of [
    [
      { ...snapshot, index: snapshot.index + 1 },
      /its consistent index is 601, but it was sent as a snapshot of entry 602/,
    ],
    [{ ...snapshot, path: garbage }, /it is damaged/],
    [{ ...snapshot, path: join(folder, 'nowhere.snap.db') }, /no such file/],
  ] as const) {
    const path = join(folder, `follower-damaged${files++}`);
    const { promise: failed, resolve: onFatal } = Promise.withResolvers<FatalError>();
    let follower = openBackend({ path, clock: systemClock, onFatal });
    follower.install(file, () => assert.fail('it is not installed'));
    const failure = await failed;
    assert.match(failure.message, text);
    assert.ok([ExitCode.backendCorrupt, ExitCode.backendWrite].includes(failure.exitCode as 15));
    await closed(follower);
    assert.ok(!existsSync(installPath(path)), 'a disk that was full has room again');
    follower = openBackend({ path, clock: systemClock, onFatal: (error) => assert.fail(error) });
    assert.equal(follower.consistentIndex, 0);
    await closed(follower);
  }
  await closed(leader.backend);
});

test('over tables in memory, as the simulation has it', () => {
  const disk = new SimDisk(new SeededRandom(1));
  disk.mkdir('/data');
  const work: (() => void)[] = [];
  const host = {
    tables: new MemoryStore(),
    disk,
    clock: new SimClock(),
    later: (run: () => void) => void work.push(run),
  };
  const runAll = (): void => {
    for (let run = work.shift(); run !== undefined; run = work.shift()) run();
  };
  const options = { path: '/data/database', clock: host.clock, onFatal: (error: Error) => assert.fail(error) };
  const leaderHost = { ...host, tables: new MemoryStore() };
  const leader = openSimBackend(leaderHost, { ...options, limits: smallLimits });
  const operations = new SeededOperations(5);
  const confStateBytes = Buffer.from(confState);
  leader.bucketPut('meta', MetaKey.confState, confStateBytes);
  leader.endApply(1, 3);
  operations.model.index = 1;
  const follower = openSimBackend(host, { ...options, limits: smallLimits });
  const chunks: Buffer[] = [];
  let index = 0;
  for (let i = 0; i < 400; i++) {
    const operation = operations.next();
    applyTo(leader, operation);
    runAll();
    if (i >= 200) continue;
    if (i === 0) {
      follower.bucketPut('meta', MetaKey.confState, confStateBytes);
      follower.endApply(1, 3);
    }
    applyTo(follower, operation);
    // It is behind with its flushes when the snapshot comes.
    if (i < 150) runAll();
  }
  leader.snapshot(
    {
      started: (_bytes, state) => {
        index = state.consistentIndex;
      },
      chunk: (bytes) => chunks.push(bytes) > 0,
      done: (error) => assert.equal(error, null),
    },
    snapshotTrailer.none,
  );
  runAll();
  const bytes = Buffer.concat(chunks);
  const fd = disk.open('/data/sent', 'create');
  disk.write(fd, bytes, 0, bytes.length, 0);
  disk.close(fd);
  let isInstalled = false;
  follower.install({ path: '/data/sent', index, term: 3 }, () => {
    isInstalled = true;
  });
  runAll();
  assert.equal(isInstalled, true);
  checkAgainst(follower, operations.model, false);
  for (let i = 0; i < 200; i++) {
    applyTo(follower, operations.next());
    runAll();
  }
  checkAgainst(follower, operations.model, false);
});
