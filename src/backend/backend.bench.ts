// By hand: `node src/backend/backend.bench.ts [seconds] [keys] [value bytes]`. Puts over random distinct keys as fast as the
// core can apply them, with flush and merge running, the backlog kept below a bound as the server does. Prints rows/s, commit
// times, lateness of the core's loop, memory.

import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../io/clock.ts';
import { keyValueLength, writeKeyValueHead, writeKeyValueTail } from '../proto/mvccpb.ts';
import { Backend } from './backend.ts';
import { newKeyState } from './index-delta.ts';

const seconds = Number(process.argv[2] ?? 20);
const keyCount = Number(process.argv[3] ?? 1_000_000);
const valueBytes = Number(process.argv[4] ?? 256);
const compactEvery = Number(process.argv[5] ?? 0);
const folder = mkdtempSync(join(process.env['BENCH_DIR'] ?? tmpdir(), 'keelson-bench-'));
const path = join(folder, 'db');
const commits: number[] = [];
const compactions: number[] = [];

const options = {
  path,
  clock: systemClock,
  onFatal: (error: Error): void => {
    console.error(error);
    process.exit(1);
  },
  observer: {
    commit: (ms: number): void => void commits.push(ms),
    compaction: (ms: number): void => void compactions.push(ms),
    compactionBegun: (): void => {},
    compactedRows: (): void => {},
    defrag: (ms: number): void => console.log(`defrag ${ms.toFixed(0)} ms`),
    hash: (ms: number): void => console.log(`hash ${ms.toFixed(0)} ms`),
    hashKv: (ms: number): void => console.log(`hash ${ms.toFixed(0)} ms`),
  },
};

let backend = Backend.open(options);
const key = Buffer.from('/registry/pods/default/pod-0000000000');
const value = Buffer.alloc(valueBytes, 0x61);
const state = newKeyState();
let main = 1;
let applied = 0;

function put(index: number, main: number): void {
  key.write(String(index).padStart(10, '0'), key.length - 10, 'latin1');
  const live = backend.index.get(key, 0, key.length, state);
  const createMain = live ? state.createMain : main;
  const version = live ? state.version + 1 : 1;
  const length = keyValueLength(key.length, createMain, main, version, valueBytes, 0, 0);
  state.ordinal = backend.appendRow(main, 0, false, length, live ? state.main : 0, live ? state.sub : 0);
  const at = writeKeyValueHead(backend.rowBuffer, backend.rowOffset, key, 0, key.length, createMain, main, version);
  writeKeyValueTail(backend.rowBuffer, at, value, 0, valueBytes, 0, 0);
  state.main = main;
  state.sub = 0;
  state.createMain = createMain;
  state.version = version;
  state.leaseHi = 0;
  state.leaseLo = 0;
  state.tombstone = false;
  backend.index.record(key, 0, key.length, state);
}

function percentile(values: number[], share: number): string {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(1);
}

const turnRows = 500;
const lateness: number[] = [];
const startedMs = performance.now();
let lastMs = startedMs;
let cpu = process.cpuUsage();
let waitedMs = 0;
let lastCompact = 0;

function report(): void {
  const memory = process.memoryUsage();
  const rss = Object.fromEntries(
    ['RssAnon', 'RssFile'].map((name) => [name, new RegExp(`${name}:\\s+(\\d+)`).exec(statusText())?.[1]]),
  );
  const elapsed = (performance.now() - startedMs) / 1000;
  const used = process.cpuUsage(cpu);
  console.log(
    `${elapsed.toFixed(1)} s  ${(applied / elapsed / 1000).toFixed(1)} k rows/s  cpu ${((used.user + used.system) / applied).toFixed(2)} us/row  ` +
      `backlog ${(backend.backlog() / 1e6).toFixed(1)} MB  waited ${(waitedMs / 1000).toFixed(1)} s  commits ${commits.length} p50 ${percentile(commits, 0.5)} p99 ${percentile(commits, 0.99)} max ${percentile(commits, 1)} ms  ` +
      `turn p99 ${percentile(lateness, 0.99)} max ${percentile(lateness, 1)} ms  db ${(statSync(path).size / 1e6).toFixed(0)} MB in use ${(backend.sizes().inUseBytes / 1e6).toFixed(0)}  ` +
      `anon ${Number(rss['RssAnon']) / 1024} MB file ${Number(rss['RssFile']) / 1024} MB heap ${(memory.heapUsed / 1e6).toFixed(0)} MB  compactions ${compactions.length} last ${compactions.at(-1)?.toFixed(0)} ms`,
  );
}

function statusText(): string {
  return process.getBuiltinModule('node:fs').readFileSync('/proc/self/status', 'latin1');
}

let nextReport = startedMs + 5000;
function turn(): void {
  const now = performance.now();
  lateness.push(now - lastMs);
  lastMs = now;
  if (now - startedMs > seconds * 1000) {
    end();
    return;
  }
  if (now >= nextReport) {
    report();
    nextReport += 5000;
  }
  if (backend.backlog() > 64e6 || backend.isOverloaded()) {
    waitedMs += 2;
    setTimeout(turn, 2);
    return;
  }
  for (let i = 0; i < turnRows; i++) {
    main++;
    // The first pass creates every key in a scattered order; later ones update at random.
    const index = applied < keyCount ? (applied * 7919) % keyCount : Math.floor(Math.random() * keyCount);
    put(index, main);
    applied++;
  }
  if (compactEvery > 0 && main - lastCompact >= compactEvery && lastCompact + 1 < main - 1000) {
    lastCompact = main - 1000;
    backend.compact(lastCompact, () => {});
  }
  backend.endApply(backend.consistentIndex + 1, 1);
  setImmediate(turn);
}

function end(): void {
  report();
  const flushMs = performance.now();
  backend.close(() => {
    console.log(
      `close ${(performance.now() - flushMs).toFixed(0)} ms, all applied after ${((performance.now() - startedMs) / 1000).toFixed(1)} s`,
    );
    const openMs = performance.now();
    backend = Backend.open(options);
    const opened = performance.now() - openMs;
    console.log(
      `open ${opened.toFixed(0)} ms, keys ${backend.index.liveKeyCount()}, revision ${backend.currentRevision}`,
    );
    cpu = process.cpuUsage();
    backend.close(() => (process.env['BENCH_KEEP'] ? console.log(path) : rmSync(folder, { recursive: true })));
  });
}
turn();
