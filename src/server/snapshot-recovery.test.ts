// Goal: a member that was stopped anywhere between the first byte of a leader's snapshot and the end of its installation starts again: with
// the old state as long as the log does not tell of the snapshot, with the new one from then on, and with nothing left in the way.
// Method: each state that a stop can leave, made by hand; then a child that does all of it and is killed at random moments.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Backend } from '../backend/backend.ts';
import { installPath } from '../backend/install.ts';
import { type DatabaseFiles, lmdbFiles, openTarget } from '../backend/snapshot-conversion.ts';
import { snapshotTrailer } from '../backend/snapshot-source.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { SimClock } from '../io/clock.ts';
import { nodeDisk } from '../io/file.ts';
import { SeededRandom } from '../io/random.ts';
import { Logger } from '../telemetry/logger.ts';
import { crashOptions, SeededOperations } from '../testing/backend-crash.ts';
import { applyTo, checkAgainst, Model, type Operation } from '../testing/backend-model.ts';
import { openInstallWal } from '../testing/install-crash.ts';
import { MemoryStore } from '../testing/memory-tables.ts';
import { simDatabases } from '../testing/sim-database.ts';
import { SimDisk } from '../testing/sim-disk.ts';
import { appendDurably, walEntries, walOptions } from '../testing/wal-fixture.ts';
import { replayWal } from '../wal/replay.ts';
import { openWal } from '../wal/wal.ts';
import { arrivingPath, snapshotIndexes, snapshotPath } from './snapshot-files.ts';
import { checkSnapshotHeld, recoverSnapshot } from './snapshot-recovery.ts';

const rounds = Number(process.env['INSTALL_KILLS'] ?? 10);
const seed = Number(process.env['INSTALL_SEED'] ?? Date.now() % 1_000_000);
const folder = mkdtempSync(join(tmpdir(), 'keelson-snapshot-recovery-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const silent = new Logger({ level: 'fatal', format: 'json', sink: { write: () => {}, flush: () => {} }, now: () => 0 });

/** Of the engine that applyTo() drives. */
const term = 3;
const oldCount = 300;
const newCount = 900;
const setConfState: Operation = { kind: 'bucket', bucket: 'meta', key: 'confState', value: '{"auto_leave":false}' };
const log: Operation[] = [setConfState];
const oldModel = new Model();
const newModel = new Model();

function closed(backend: Backend): Promise<void> {
  return new Promise((resolve) => backend.close(resolve));
}

async function fill(path: string, count: number): Promise<Backend> {
  const backend = Backend.open(crashOptions(path));
  while (backend.consistentIndex < count) {
    applyTo(backend, log[backend.consistentIndex]!);
    if (backend.isOverloaded()) await new Promise<void>((resolve) => backend.whenRoom(resolve));
  }
  return backend;
}

/** What a member has before the snapshot comes, in `pristine`, with what the leader will send. */
const pristine = join(folder, 'pristine');

before(async () => {
  console.log(`snapshot-recovery.test: seed ${seed}`);
  const operations = new SeededOperations(seed);
  while (log.length < newCount) log.push(operations.next());
  for (const [i, operation] of log.entries()) {
    if (i < oldCount) oldModel.apply(operation);
    newModel.apply(operation);
  }
  // `meta` is the engine's own too: what it writes there is not in the model.
  for (const model of [oldModel, newModel]) model.buckets.delete('meta');
  mkdirSync(join(pristine, 'snap'), { recursive: true });
  mkdirSync(join(pristine, 'wal'));
  const leader = await fill(join(folder, 'leader.mdb'), newCount);
  const chunks: Buffer[] = [];
  await new Promise<void>((resolve, reject) => {
    const done = (error: Error | null): void => (error === null ? resolve() : reject(error));
    leader.snapshot({ started: () => {}, chunk: (bytes) => chunks.push(bytes) > 0, done }, snapshotTrailer.none);
  });
  await closed(leader);
  writeFileSync(join(pristine, 'sent.db'), Buffer.concat(chunks));
  await closed(await fill(join(pristine, 'snap/keelson.mdb'), oldCount));
  const { wal } = openInstallWal(pristine, null);
  appendDurably(wal, walEntries(1, oldCount, term), oldCount);
  wal.close();
});

class Stopped {
  readonly folder: string;
  readonly snap: string;
  readonly database: string;

  constructor(name: string) {
    this.folder = join(folder, name);
    this.snap = join(this.folder, 'snap');
    this.database = join(this.snap, 'keelson.mdb');
    cpSync(pristine, this.folder, { recursive: true });
  }

  saveAs(path: string): void {
    cpSync(join(this.folder, 'sent.db'), path);
  }

  mark(): void {
    const { wal } = openInstallWal(this.folder, oldCount);
    wal.append({ term, vote: 0n, commit: newCount }, [], { index: newCount, term, reset: true });
    assert.ok(
      wal.waitDurable(
        wal.sync(() => {}),
        30_000,
      ),
    );
    wal.close();
  }

  recover(): void {
    const databases: DatabaseFiles = {
      ...lmdbFiles(false),
      openNext: (path) => openTarget({ ...crashOptions(path), path: installPath(path), noSync: false }),
    };
    const walDirectory = join(this.folder, 'wal');
    recoverSnapshot({ disk: nodeDisk, logger: silent, databases, databasePath: this.database, walDirectory });
  }

  /** Starts; the state is the one before the snapshot, or its own. Returns which. */
  async start(): Promise<'old' | 'new'> {
    this.recover();
    const backend = Backend.open(crashOptions(this.database));
    try {
      const { wal, replay } = openInstallWal(this.folder, backend.consistentIndex);
      wal.close();
      checkSnapshotHeld(replay.marker, this.database, backend.consistentIndex);
      assert.ok(replay.start.index <= backend.consistentIndex && backend.consistentIndex <= replay.last.index);
      const isNew = backend.consistentIndex === newCount;
      checkAgainst(backend, isNew ? newModel : oldModel, false);
      const left = readdirSync(this.snap).filter((name) => !name.startsWith('keelson.mdb') || name.includes('install'));
      assert.deepEqual(left, [], 'nothing is left in the way');
      return isNew ? 'new' : 'old';
    } finally {
      await closed(backend);
    }
  }
}

test('stopped while it arrived', async () => {
  const stopped = new Stopped('arriving');
  stopped.saveAs(arrivingPath(stopped.snap, newCount));
  assert.equal(await stopped.start(), 'old');
});

test('stopped before the log told of it', async () => {
  const stopped = new Stopped('saved');
  stopped.saveAs(snapshotPath(stopped.snap, newCount));
  assert.deepEqual(snapshotIndexes(nodeDisk, stopped.snap), [newCount]);
  assert.equal(await stopped.start(), 'old');
});

test('stopped before, in and after the making of its database', async () => {
  const stopped = new Stopped('marked');
  stopped.saveAs(snapshotPath(stopped.snap, newCount));
  stopped.mark();
  // What a conversion has left that came not far, and an older snapshot that was installed before.
  cpSync(join(folder, 'leader.mdb'), installPath(stopped.database));
  stopped.saveAs(snapshotPath(stopped.snap, 7));
  assert.equal(await stopped.start(), 'new');
  assert.equal(await stopped.start(), 'new');
  stopped.saveAs(snapshotPath(stopped.snap, newCount));
  assert.equal(await stopped.start(), 'new', 'what it holds already is removed');
});

test('a member without a database, as one that joins', async () => {
  const stopped = new Stopped('empty');
  rmSync(stopped.database);
  rmSync(`${stopped.database}-lock`, { force: true });
  stopped.saveAs(snapshotPath(stopped.snap, newCount));
  stopped.mark();
  assert.equal(await stopped.start(), 'new');
});

test('a file that is gone, or damaged, is told and touches nothing', async () => {
  const gone = new Stopped('gone');
  gone.mark();
  const isMissing = (error: unknown): boolean =>
    error instanceof FatalError &&
    error.exitCode === ExitCode.backendCorrupt &&
    /0384\.snap\.db is not there/.test(error.message);
  await assert.rejects(gone.start(), isMissing);
  gone.saveAs(snapshotPath(gone.snap, newCount + 1));
  assert.throws(() => gone.recover(), isMissing);
  const damaged = new Stopped('damaged');
  writeFileSync(snapshotPath(damaged.snap, newCount), Buffer.alloc(100_000, 1));
  damaged.mark();
  assert.throws(() => damaged.recover(), /cannot be installed: it is damaged/);
  assert.ok(existsSync(snapshotPath(damaged.snap, newCount)), 'it stays');
  damaged.saveAs(snapshotPath(damaged.snap, newCount));
  assert.equal(await damaged.start(), 'new', 'with a sound file it starts');
});

test('a marker that the page cache alone holds is durable before the database is', () => {
  const bytes = readFileSync(join(pristine, 'sent.db'));
  const walDirectory = '/member/wal';
  // Whether a crash loses what was not synced is chance.
  for (let chance = 0; chance < 10; chance++) {
    const disk = new SimDisk(new SeededRandom(seed + chance));
    for (const directory of ['/member/snap', walDirectory]) disk.mkdir(directory);
    disk.place(snapshotPath('/member/snap', newCount), bytes);
    const { wal } = openWal(walOptions(disk, { directory: walDirectory }));
    appendDurably(wal, walEntries(1, 10, term), 10);
    // The process is killed between the write and the sync; the system goes on.
    disk.fdatasync = () => {};
    wal.append({ term, vote: 0n, commit: newCount }, [], { index: newCount, term, reset: true });
    wal.sync(() => {});
    Reflect.deleteProperty(disk, 'fdatasync');
    disk.kill();
    const marked = (): number | undefined => replayWal(disk, walDirectory, null).marker?.index;
    assert.equal(marked(), newCount);
    const databases: DatabaseFiles = {
      ...simDatabases({ tables: new MemoryStore(), disk, clock: new SimClock(), later: () => {} }),
      putInPlace: () => {
        disk.crash();
        assert.equal(marked(), newCount, 'the log would be older than the database');
        throw new Error('seen');
      },
    };
    const options = { disk, logger: silent, databases, databasePath: '/member/snap/keelson.mdb', walDirectory };
    assert.throws(() => recoverSnapshot(options), /seen/);
  }
});

const child = fileURLToPath(new URL('../testing/install-crash.ts', import.meta.url));

/** Runs the child until `delayMs` after it says `stage`; `holds`: it waits there. Returns what it has said. */
function killedAfter(stopped: Stopped, stage: string, holds: boolean, delayMs: number): Promise<string[]> {
  const args = [child, stopped.folder, String(newCount), String(term), ...(holds ? [stage] : [])];
  const run = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  let isTimed = false;
  run.stdout.on('data', (bytes: Buffer) => {
    text += bytes.toString();
    if (isTimed || !text.includes(`${stage}\n`)) return;
    isTimed = true;
    setTimeout(() => run.kill('SIGKILL'), delayMs);
  });
  return new Promise((resolve) => run.on('close', () => resolve(text.trim().split('\n'))));
}

const stages = ['saving', 'saved', 'marked', 'installed'] as const;

test('killed at any moment', async () => {
  const random = new SeededRandom(seed);
  const found = { old: 0, new: 0 };
  for (let round = 0; round < rounds; round++) {
    const stopped = new Stopped(`killed${round}`);
    const stage = stages[round % stages.length]!;
    // At first in each stage, however slow this machine is; then anywhere: the conversion takes some hundred milliseconds, all else a few.
    const holds = round < stages.length;
    const delayMs = stage === 'marked' ? random.below(400) : random.below(20);
    const said = await killedAfter(stopped, stage, holds, holds ? 0 : delayMs);
    const state = await stopped.start();
    found[state]++;
    if (said.includes('marked')) assert.equal(state, 'new', `the log has told of it: ${said.join()}`);
    if (!said.includes('saved')) assert.equal(state, 'old', `it was not there: ${said.join()}`);
    rmSync(stopped.folder, { recursive: true, force: true });
  }
  assert.ok(found.old >= 2 && found.new >= 2, JSON.stringify(found));
});
