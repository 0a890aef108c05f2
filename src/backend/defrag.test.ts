// Goal: a defragmentation gives back the space inside of pages too; while it runs, merges of the index go on, so that what is not merged
// stays bounded however long it takes; it ends under load, and what it leaves is what the model says, also after a restart.
// Method: LMDB, sizes shrunk so that the copy takes hundreds of slices, and a load that waits for room as the server does. What must
// happen during a copy is counted where the test itself moves the flusher and its clock; with threads it depends on the machine.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ExitCode, type FatalError } from '../base/fatal.ts';
import { SimClock, systemClock } from '../io/clock.ts';
import { LmdbEnvironment } from '../io/lmdb.ts';
import { SeededRandom } from '../io/random.ts';
import { type BackendLimits, backendLimits, lmdbPageBytes } from '../storage-limits.ts';
import { crashOptions } from '../testing/backend-crash.ts';
import { applyTo, checkAgainst, Model, type Operation } from '../testing/backend-model.ts';
import { Backend } from './backend.ts';
import { closed, flushed, folder, openBackend } from './backend-fixture.ts';
import type { BackendOptions } from './backend-options.ts';
import { DefragJob } from './defrag.ts';
import { TABLE_NAMES } from './engine-state.ts';
import { FlusherInline } from './flusher-port.ts';

function compacted(backend: Backend, revision: number): Promise<void> {
  return new Promise((resolve) => {
    backend.compact(revision, () => resolve());
    backend.endApply(backend.consistentIndex + 1, 1);
  });
}

test('pages that compactions have emptied by two thirds are full afterwards', async () => {
  const options = { path: join(folder, 'sparse'), clock: systemClock, onFatal: (error: Error) => assert.fail(error) };
  let backend = openBackend(options);
  const random = new SeededRandom(1);
  const value = 'v'.repeat(300);
  const put = (i: number): void =>
    applyTo(backend, { kind: 'txn', changes: [{ key: `key${String(i).padStart(6, '0')}`, value }] });
  // The first rows of all keys lie together; two thirds of them go, here and there.
  for (let i = 0; i < 20_000; i++) put(i);
  for (let i = 0; i < 20_000; i++) if (random.below(3) > 0) put(i);
  await compacted(backend, backend.currentRevision);
  await flushed(backend);
  const live = 20_000 * 360;
  const before = backend.sizes();
  assert.ok(before.inUseBytes > 1.5 * live, `${before.inUseBytes} bytes in use for ${live}`);
  await new Promise<void>((resolve, reject) => backend.defrag((error) => (error ? reject(error) : resolve())));
  const sizes = backend.sizes();
  assert.ok(sizes.totalBytes < 1.3 * live, `${sizes.totalBytes} bytes for ${live}`);
  assert.ok(sizes.totalBytes - sizes.inUseBytes < 200_000, 'few pages are free');
  assert.equal(backend.index.liveKeyCount(), 20_000);
  await closed(backend);
  backend = openBackend(options);
  assert.equal(backend.index.liveKeyCount(), 20_000);
  await closed(backend);
});

/** An engine over LMDB whose flusher takes a step when it is told to, by a clock that goes on by a millisecond whenever somebody looks at
 * it: how much is done between two changes is the same on every machine. */
class SteppedEngine {
  readonly model: Model = new Model();
  readonly backend: Backend;
  changes = 0;
  merges = 0;
  entriesMax = 0;
  private readonly port: FlusherInline;
  private readonly load: Load;
  private readonly clock = new SimClock();
  private looks = 0;

  constructor(options: BackendOptions) {
    const { path, limits } = options;
    const environment = new LmdbEnvironment({ path, noSync: true });
    for (const name of TABLE_NAMES) environment.table(name);
    const reader = new LmdbEnvironment({ path, noSync: true, trusted: true, mapped: true });
    this.port = new FlusherInline({
      environment,
      pin: () => environment.pin(),
      now: () => ++this.looks,
      ...(limits === undefined ? {} : { limits }),
      defrag: (flusher) => new DefragJob(flusher, environment),
    });
    const parts = { reader, port: this.port, reopen: (to: string) => reader.reopen(to) };
    this.backend = new Backend({ ...options, clock: this.clock }, parts);
    this.load = new Load(this.backend, this.model);
  }

  get mergesHeld(): boolean {
    return this.port.flusher.mergesHeld;
  }

  /** Up to `count` changes, which is more than is merged in the same time, then a step of the flusher. */
  turn(count: number): void {
    for (let i = 0; i < count && !this.backend.isOverloaded(); i++) {
      this.changes++;
      this.watchMerges(() => this.load.change());
    }
    this.clock.advance(5);
    this.watchMerges(() => this.port.step());
  }

  /** The delta falls when it is frozen, which takes the merge before to be done. */
  private watchMerges(work: () => void): void {
    const { index } = this.backend;
    const before = index.activeEntries;
    work();
    if (index.activeEntries < before) this.merges++;
    this.entriesMax = Math.max(this.entriesMax, index.activeEntries);
  }

  close(): void {
    let done = false;
    this.backend.close(() => {
      done = true;
    });
    this.port.run();
    assert.ok(done, 'it closes');
  }
}

/** Puts and deletes of 3000 keys. */
class Load {
  private readonly backend: Backend;
  private readonly model: Model;
  private readonly random = new SeededRandom(2);

  constructor(backend: Backend, model: Model) {
    this.backend = backend;
    this.model = model;
  }

  change(): void {
    const value = this.random.below(5) === 0 ? null : 'v'.repeat(300);
    const operation: Operation = { kind: 'txn', changes: [{ key: `k${this.random.below(3000)}`, value }] };
    this.model.apply(operation);
    applyTo(this.backend, operation);
  }
}

function loadOptions(name: string): BackendOptions & { readonly limits: BackendLimits } {
  const options = crashOptions(join(folder, name));
  const bounds = { mergeEntries: 50, indexLagEntriesMax: 100, commitBytes: 10_000, commitPartMs: 5, jobStepMs: 4 };
  return { ...options, noSync: true, limits: { ...(options.limits ?? backendLimits), ...bounds } };
}

test('merges go on while a file is copied: what is not merged stays bounded, and it ends under load', async () => {
  const options = loadOptions('stepped');
  const { indexLagEntriesMax } = options.limits;
  const engine = new SteppedEngine(options);
  const { backend, model } = engine;
  while (engine.changes < 8_000) engine.turn(80);
  engine.changes = 0;
  engine.merges = 0;
  let done = false;
  backend.defrag((error) => {
    assert.equal(error, null);
    done = true;
  });
  let steps = 0;
  const step = (): void => {
    engine.turn(80);
    assert.ok(++steps < 1_000, 'it ends, though changes keep coming');
  };
  // From then on, which is near the end, no merge begins.
  while (!engine.mergesHeld) step();
  assert.ok(!done && engine.changes > 5 * indexLagEntriesMax, `${engine.changes} changes came meanwhile`);
  assert.ok(engine.merges > 5, `${engine.merges} merges were begun meanwhile`);
  while (!done) step();
  assert.ok(engine.entriesMax <= indexLagEntriesMax + 1, `${engine.entriesMax} changes waited`);
  checkAgainst(backend, model, false);
  while (engine.changes < 20_000) engine.turn(80);
  engine.close();
  const again = openBackend(options);
  checkAgainst(again, model, true);
  await closed(again);
});

test('a defragmentation under a load that never pauses ends, with threads', async () => {
  const options = loadOptions('threads');
  const backend = openBackend(options);
  const model = new Model();
  const load = new Load(backend, model);
  for (let i = 0; i < 3_000; i++) {
    while (backend.isOverloaded()) await turn();
    load.change();
  }
  let done = false;
  backend.defrag((error) => {
    assert.equal(error, null);
    done = true;
  });
  while (!done) {
    for (let i = 0; i < 20 && !backend.isOverloaded(); i++) load.change();
    await turn();
  }
  checkAgainst(backend, model, false);
  await closed(backend);
  const again = openBackend(options);
  checkAgainst(again, model, true);
  await closed(again);
});

/** Makes every page of the closed file that holds the text a page of zeros. */
function zeroPagesWith(path: string, text: string): void {
  const content = readFileSync(path);
  let pages = 0;
  for (let at = content.indexOf(text); at >= 0; at = content.indexOf(text)) {
    const page = Math.floor(at / lmdbPageBytes);
    content.fill(0, page * lmdbPageBytes, (page + 1) * lmdbPageBytes);
    pages++;
  }
  assert.ok(pages > 0, 'it is in the file');
  writeFileSync(path, content);
}

test('damage that a defragmentation meets ends the engine, as damage does that anything else meets', async () => {
  const path = join(folder, 'damaged');
  let backend = openBackend({ path, clock: systemClock, onFatal: (error) => assert.fail(error) });
  // Of these rows a start reads the last one alone.
  for (let i = 0; i < 2000; i++) {
    applyTo(backend, { kind: 'txn', changes: [{ key: `key${i}`, value: `value <${i}>`.padEnd(300, '.') }] });
  }
  await closed(backend);
  zeroPagesWith(path, 'value <700>');
  let ended: (error: FatalError) => void;
  const fatal = new Promise<FatalError>((resolve) => {
    ended = resolve;
  });
  backend = openBackend({ path, clock: systemClock, onFatal: (error) => ended(error) });
  const answered = new Promise<string>((resolve) => backend.defrag((error) => resolve(`answered: ${error?.message}`)));
  const end = await Promise.race([fatal, answered]);
  assert.ok(typeof end !== 'string', `it goes on; ${end}`);
  assert.equal(end.exitCode, ExitCode.backendCorrupt);
  assert.match(end.message, /damaged is damaged: table key, page \d+: .*; restore it from a snapshot/);
  await closed(backend);
});
