// Measures the key index over real LMDB, in CPU time: node src/backend/index.bench.ts [keys=1000000] [folder=/tmp]. Not a test: prints.
// Budgets: record <= 1.5 us, get <= 0.5 us on a delta, count of a million keys <= 0.2 ms, no heap object an entry.

import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { LmdbEnvironment } from '../io/lmdb.ts';
import { KeyIndex } from './index.ts';
import { type KeyState, newKeyState } from './index-delta.ts';
import { mergeSlice } from './index-merge.ts';
import { type IndexTables, indexTableNames, indexTables } from './index-tables.ts';

const keyCount = Number(process.argv[2] ?? 1_000_000);
const folder = mkdtempSync(join(process.argv[3] ?? '/tmp', 'index-bench-'));
const KEY_BYTES = 36;

let seed = 1;
function random(bound: number): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * bound);
}

const key = Buffer.alloc(KEY_BYTES, '/registry/bench/');
function setKey(n: number): void {
  // 16 fixed bytes, then digits in an order that has nothing to do with n.
  let rest = Math.imul(n, 0x9e3779b1) >>> 0;
  for (let i = 16; i < KEY_BYTES - 10; i++) {
    key[i] = 97 + (rest % 26);
    rest = Math.floor(rest / 26);
  }
  rest = n;
  for (let i = KEY_BYTES - 1; i >= KEY_BYTES - 10; i--) {
    key[i] = 48 + (rest % 10);
    rest = Math.floor(rest / 10);
  }
}

/** CPU time of this thread: wall time says little on a shared machine. Merges therefore lack the sync's wait. */
function clockMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

function report(what: string, startedMs: number, count: number): void {
  const us = ((clockMs() - startedMs) * 1000) / count;
  console.log(`${what.padEnd(58)} ${us.toFixed(3).padStart(9)} us`);
}

const writer = new LmdbEnvironment({ path: join(folder, 'db') });
for (const name of indexTableNames) writer.table(name);
const tables: IndexTables = indexTables(writer);
const reader = new LmdbEnvironment({ path: join(folder, 'db') });
const index = new KeyIndex(reader);
const state: KeyState = newKeyState();
let main = 1;

function put(n: number): void {
  setKey(n);
  const live = index.get(key, 0, KEY_BYTES, state);
  state.main = ++main;
  state.sub = 0;
  state.createMain = live ? state.createMain : main;
  state.version = live ? state.version + 1 : 1;
  state.tombstone = false;
  state.ordinal = main;
  index.record(key, 0, KEY_BYTES, state);
}

function merge(what: string, sliceKeys: number): void {
  const changes = index.activeEntries;
  let started = clockMs();
  const delta = index.freeze();
  const freezeMs = clockMs() - started;
  started = clockMs();
  let from = 0;
  let slices = 0;
  let worst = 0;
  while (from >= 0) {
    const sliceStarted = clockMs();
    writer.transaction(() => {
      from = mergeSlice(delta, from, sliceKeys, tables, 0);
    });
    worst = Math.max(worst, clockMs() - sliceStarted);
    slices++;
  }
  report(`merge ${what}: ${delta.keyCount} keys, ${changes} changes, each key`, started, delta.keyCount);
  const slice = `slices ${slices}, worst ${worst.toFixed(1)} ms, freeze ${freezeMs.toFixed(1)} ms`;
  reader.refresh();
  started = clockMs();
  index.dropFrozen();
  console.log(`    ${slice}, drop ${(clockMs() - started).toFixed(1)} ms`);
}

function benchDelta(): void {
  const n = 300_000;
  const keys = Buffer.alloc(n * KEY_BYTES);
  for (let i = 0; i < n; i++) {
    setKey(i);
    key.copy(keys, i * KEY_BYTES);
  }
  const order = Uint32Array.from({ length: n }, () => random(n) * KEY_BYTES);
  for (const [what, deltaState] of [
    ['record, new keys in random order, to 300k', newKeyState()],
    ['record, the same again (keys of the delta)', newKeyState()],
  ] as const) {
    const started = clockMs();
    for (let i = 0; i < n; i++) {
      deltaState.main = ++main;
      deltaState.createMain = main;
      deltaState.version = what.includes('new') ? 1 : 2;
      index.record(keys, i * KEY_BYTES, (i + 1) * KEY_BYTES, deltaState);
    }
    report(what, started, n);
  }
  let found = 0;
  const started = clockMs();
  for (const at of order) if (index.get(keys, at, at + KEY_BYTES, state)) found++;
  report(`get, hit in the delta (${found})`, started, n);
  merge('of a first load', 10_000);
}

function benchLoad(): void {
  for (let n = 300_000; n < keyCount; ) {
    const to = Math.min(keyCount, n + 150_000);
    const started = clockMs();
    const count = to - n;
    while (n < to) put(n++);
    report(`get + record, new keys over tables, at ${n}`, started, count);
    merge('of new keys', 10_000);
  }
}

function benchReads(): void {
  const n = 200_000;
  let found = 0;
  let started = clockMs();
  for (let i = 0; i < n; i++) {
    setKey(random(keyCount));
    if (index.get(key, 0, KEY_BYTES, state)) found++;
  }
  report(`get, hit in the tables (${found})`, started, n);
  const start = Buffer.from('/registry/');
  const end = Buffer.from('/registry0');
  for (const limit of [500, 100_000]) {
    const rounds = limit === 500 ? 200 : 3;
    started = clockMs();
    for (let i = 0; i < rounds; i++) {
      let left = limit;
      setKey(random(keyCount));
      index.scan(limit === 500 ? key : start, end, Number.POSITIVE_INFINITY, () => --left > 0);
    }
    report(`scan of ${limit}, each entry`, started, rounds * limit);
  }
  started = clockMs();
  let count = 0;
  for (let i = 0; i < 200; i++) count = index.count(start, end, Number.POSITIVE_INFINITY);
  report(`count of all (${count})`, started, 200);
  started = clockMs();
  for (let i = 0; i < 200; i++) {
    setKey(i * 17);
    count = index.count(key, end, Number.POSITIVE_INFINITY);
  }
  report('count from some key to the end', started, 200);
}

function benchUpdates(): void {
  for (const updates of [100_000, 300_000]) {
    let started = clockMs();
    for (let i = 0; i < updates; i++) put(random(keyCount));
    report(`get + record, ${updates} random updates over tables`, started, updates);
    started = clockMs();
    const rounds = 100;
    for (let i = 0; i < rounds; i++) index.count(key.subarray(0, 10), null, Number.POSITIVE_INFINITY);
    report('count of all with that delta', started, rounds);
    merge(`of ${updates} random updates`, 10_000);
  }
  const old = main;
  for (let i = 0; i < 100_000; i++) put(keyCount + i);
  const started = clockMs();
  for (let i = 0; i < 20; i++) index.count(key.subarray(0, 10), null, old);
  report('count of all at a revision 100k creates ago', started, 20);
}

function benchHeap(): void {
  globalThis.gc?.();
  const started = clockMs();
  globalThis.gc?.();
  const ms = clockMs() - started;
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
  const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;
  console.log(`heap ${mb(heapUsed)}, external ${mb(external)}, array buffers ${mb(arrayBuffers)}, rss ${mb(rss)}`);
  if (globalThis.gc !== undefined) console.log(`full collection ${ms.toFixed(1)} ms`);
}

try {
  benchDelta();
  benchLoad();
  benchReads();
  benchUpdates();
  benchHeap();
  const started = clockMs();
  const again = new KeyIndex(reader);
  console.log(`start over ${again.liveKeyCount()} keys: ${(clockMs() - started).toFixed(1)} ms`);
} finally {
  reader.close();
  writer.close();
  rmSync(folder, { recursive: true });
}
