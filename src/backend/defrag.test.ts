// Goal: a defragmentation gives back the space inside of pages too; while it runs, merges of the index go on, so that what is not merged
// stays bounded however long it takes; it ends under load, and what it leaves is what the model says, also after a restart.
// Method: LMDB and its thread, sizes shrunk so that the copy takes hundreds of slices; a load that waits for room as the server does.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { systemClock } from '../io/clock.ts';
import { SeededRandom } from '../io/random.ts';
import { backendLimits } from '../limits.ts';
import { crashOptions } from '../testing/backend-crash.ts';
import { applyTo, checkAgainst, Model, type Operation } from '../testing/backend-model.ts';
import { Backend } from './backend.ts';
import type { BackendOptions } from './backend-options.ts';

const folder = mkdtempSync(join(tmpdir(), 'keelson-defrag-'));
const opened = new Set<Backend>();
after(async () => {
  // What a failed test left open would keep the process.
  for (const backend of opened) await closed(backend);
  rmSync(folder, { recursive: true, force: true });
});

function openBackend(options: BackendOptions): Backend {
  const backend = Backend.open(options);
  opened.add(backend);
  return backend;
}
function closed(backend: Backend): Promise<void> {
  opened.delete(backend);
  return new Promise((resolve) => backend.close(resolve));
}
function flushed(backend: Backend): Promise<void> {
  return new Promise((resolve, reject) => backend.flush((error) => (error === null ? resolve() : reject(error))));
}
function compacted(backend: Backend, revision: number): Promise<void> {
  return new Promise((resolve) => {
    backend.compact(revision, () => resolve());
    backend.endApply(backend.consistentIndex + 1, 1);
  });
}
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
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

test('merges go on while a file is copied: what is not merged stays bounded, and it ends', async () => {
  const options = crashOptions(join(folder, 'long'));
  const bounds = { mergeEntries: 50, indexLagEntriesMax: 100, commitBytes: 20_000, commitPartMs: 1, jobStepMs: 2 };
  const limits = { ...(options.limits ?? backendLimits), ...bounds };
  const backend = openBackend({ ...options, limits, noSync: true });
  const model = new Model();
  const random = new SeededRandom(2);
  const apply = (operation: Operation): void => {
    model.apply(operation);
    applyTo(backend, operation);
  };
  const change = (): void =>
    apply({
      kind: 'txn',
      changes: [{ key: `k${random.below(3000)}`, value: random.below(5) === 0 ? null : 'v'.repeat(300) }],
    });
  for (let i = 0; i < 8_000; i++) {
    while (backend.isOverloaded()) await turn();
    change();
  }
  let done = false;
  let entriesMax = 0;
  let merges = 0;
  let changes = 0;
  backend.defrag((error) => {
    assert.equal(error, null);
    done = true;
  });
  let entries = backend.index.activeEntries;
  while (!done) {
    for (let i = 0; i < 20 && !backend.isOverloaded(); i++) {
      change();
      changes++;
      // It falls when the delta is frozen, which takes the merge before to be done.
      if (backend.index.activeEntries < entries) merges++;
      entries = backend.index.activeEntries;
      entriesMax = Math.max(entriesMax, entries);
    }
    await turn();
  }
  assert.ok(changes > 5 * limits.indexLagEntriesMax, `${changes} changes came meanwhile`);
  assert.ok(merges > 5, `${merges} merges were begun meanwhile`);
  assert.ok(entriesMax <= limits.indexLagEntriesMax + 1, `${entriesMax} changes waited`);
  checkAgainst(backend, model, false);
  await closed(backend);
  const again = openBackend(options);
  checkAgainst(again, model, true);
  await closed(again);
});
