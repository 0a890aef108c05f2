// Goal: KeyIndex with its merges and compactions answers as the plain history of each key does, at every revision that is
// not compacted, whatever was frozen, merged by half, lost in a crash or restarted.
// Method: seeded random histories over shrunk limits (blocks of a few keys, chunks of a few revisions, table keys of 8
// bytes, so that every boundary is met all the time) against a map of key → changes; every few steps get, getAt, scan,
// count, the leased keys and the invariants of the tables are compared. A failing seed is in the test's name: INDEX_SEED
// replays it alone, INDEX_SEEDS runs more.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { LmdbEnvironment } from '../io/lmdb.ts';
import type { ReadEnvironment, WriteEnvironment } from '../io/table.ts';
import { type IndexLimits, indexLimits } from '../storage-limits.ts';
import { MemoryStore } from '../testing/memory-tables.ts';
import { KeyIndex } from './index.ts';
import { type FrozenDelta, type KeyState, newKeyState } from './index-delta.ts';
import { EntryReader } from './index-entry.ts';
import { compactSlice, mergeSlice } from './index-merge.ts';
import { indexTableNames, indexTables } from './index-tables.ts';

type Random = (bound: number) => number;

function randomFrom(seed: number): Random {
  let state = (seed * 2654435761) >>> 0;
  return (bound) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * bound);
  };
}

interface Change {
  readonly key: string;
  readonly state: KeyState;
}

function compareKeys(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1'));
}

function bytesOf(key: string): Buffer {
  return Buffer.from(key, 'latin1');
}

/** For messages: long keys are cut in the middle. */
function shown(key: string): string {
  const text = key.length > 40 ? `${key.slice(0, 10)}(${key.length})${key.slice(-25)}` : key;
  return JSON.stringify(text);
}

/** What the index should say, the slow way. */
class Model {
  readonly changes: Map<string, KeyState[]> = new Map();
  readonly rows: Change[] = [];
  current = 1;
  compacted = 0;

  newest(key: string): KeyState | undefined {
    return this.changes.get(key)?.at(-1);
  }

  at(key: string, atRev: number): KeyState | undefined {
    const state = this.changes.get(key)?.findLast((change) => change.main <= atRev);
    return state === undefined || state.tombstone ? undefined : state;
  }

  add(key: string, state: KeyState): void {
    const list = this.changes.get(key) ?? [];
    list.push(state);
    this.changes.set(key, list);
    this.rows.push({ key, state });
  }

  range(start: string, end: string | null, atRev: number): [string, KeyState][] {
    const found: [string, KeyState][] = [];
    for (const key of this.changes.keys()) {
      if (compareKeys(key, start) < 0 || (end !== null && compareKeys(key, end) >= 0)) continue;
      const state = this.at(key, atRev);
      if (state !== undefined) found.push([key, state]);
    }
    return found.sort((a, b) => compareKeys(a[0], b[0]));
  }
}

function randomLimits(random: Random): IndexLimits {
  const countBlockKeys = 4 + random(20);
  return {
    diskKeyBytes: random(2) === 0 ? 8 : indexLimits.diskKeyBytes,
    orderBlockIds: 3 + random(12),
    deltaEntries: 4 + random(40),
    keySlabBytes: 64 + random(200),
    countBlockKeys,
    countBlockKeysMin: 1 + random(countBlockKeys >>> 2),
    inlineRevisions: 2 + random(8),
    chunkRevisions: 2 + random(8),
    lifeEvents: 8 + random(200),
    lifeBytes: 256 + random(4000),
    deadPageEntries: 1 + random(8),
  };
}

const LEASES: readonly [number, number][] = [
  [0, 7],
  [0x7fffffff, 0xffffffff],
  [0x12345678, 0x9abcdef0],
];

/** What the tables stand on. A reader begins at the newest commit. */
interface Store {
  openWriter(): WriteEnvironment;
  openReader(): ReadEnvironment;
}

class Harness {
  readonly random: Random;
  readonly limits: IndexLimits;
  readonly model: Model = new Model();
  readonly store: Store;
  readonly keys: string[] = [];
  writer: WriteEnvironment;
  reader: ReadEnvironment;
  index: KeyIndex;
  frozen: FrozenDelta | null = null;
  mergeFrom = 0;
  indexedRevision = 0;
  private readonly state: KeyState = newKeyState();

  constructor(seed: number, store: Store) {
    this.store = store;
    this.random = randomFrom(seed);
    this.limits = randomLimits(this.random);
    this.writer = this.store.openWriter();
    this.reader = this.store.openReader();
    this.index = new KeyIndex(this.reader, { limits: this.limits, hashSeed: seed });
    const count = 5 + this.random(120);
    for (let i = 0; i < count; i++) this.keys.push(this.randomKey());
  }

  randomKey(): string {
    const { random } = this;
    const alphabet = '\x00\x01ab\xff';
    let key = '';
    for (let length = 1 + random(12); length > 0; length--) key += alphabet[random(alphabet.length)];
    const kind = random(20);
    if (kind < 3) return key.slice(0, 1);
    if (kind < 5) return `/registry/pods/${key}`;
    if (kind === 5) return `${'\x00'.repeat(1949 + random(3))}${key}`;
    if (kind === 6) return `${'long'.repeat(974 + random(3))}${key}`;
    if (kind === 7 && random(4) === 0) return 'x'.repeat(random(100_000)) + key;
    return key;
  }

  pick(): string {
    const { random, keys } = this;
    // A few keys are hot: their history overflows into chunks.
    return random(3) === 0 ? keys[random(Math.min(3, keys.length))]! : keys[random(keys.length)]!;
  }

  transaction(): void {
    const { random, model } = this;
    const main = model.current + 1;
    const changes = 1 + random(4);
    let sub = 0;
    for (let i = 0; i < changes; i++) {
      const key = this.pick();
      const before = model.newest(key);
      const live = before !== undefined && !before.tombstone;
      if (random(3) === 0) {
        if (!live) continue;
        this.change(key, { ...newKeyState(), main, sub: sub++, tombstone: true });
        continue;
      }
      const [leaseHi, leaseLo] = random(4) === 0 ? LEASES[random(LEASES.length)]! : [0, 0];
      const createMain = live ? before.createMain : main;
      const version = live ? before.version + 1 : 1;
      this.change(key, { ...newKeyState(), main, sub: sub++, createMain, version, leaseHi, leaseLo });
    }
    if (sub > 0) model.current = main;
  }

  change(key: string, state: KeyState): void {
    const bytes = Buffer.concat([Buffer.from('<'), bytesOf(key), Buffer.from('>')]);
    const found = this.index.get(bytes, 1, bytes.length - 1, this.state);
    const before = this.model.newest(key);
    assert.equal(found, before !== undefined && !before.tombstone, 'get before a change');
    state.ordinal = this.model.rows.length;
    this.index.record(bytes, 1, bytes.length - 1, state);
    this.model.add(key, { ...state });
  }

  freeze(): void {
    if (this.frozen !== null || this.index.activeEntries === 0) return;
    this.frozen = structuredClone(this.index.freeze());
    this.mergeFrom = 0;
  }

  merge(): void {
    const { frozen, random } = this;
    if (frozen === null || this.mergeFrom === -1) return;
    const crash = random(8) === 0;
    const tables = indexTables(this.writer);
    let next = 0;
    const run = (): void =>
      this.writer.transaction(() => {
        const keyCount = random(3) === 0 ? 1 : 1 + random(40);
        next = mergeSlice(frozen, this.mergeFrom, keyCount, tables, this.model.compacted, this.limits);
        if (random(10) === 0) {
          // The same slice again must change nothing.
          mergeSlice(frozen, this.mergeFrom, keyCount, tables, this.model.compacted, this.limits);
        }
        if (crash) throw new Error('crash');
      });
    if (crash) {
      assert.throws(run, /crash/);
      this.restart();
      return;
    }
    run();
    this.mergeFrom = next;
    if (next === -1) this.indexedRevision = frozen.newestMain;
  }

  refresh(): void {
    this.reader.refresh();
    if (this.frozen === null || !this.index.frozenMerged()) return;
    this.index.dropFrozen();
    this.frozen = null;
  }

  compact(): void {
    const { model, random } = this;
    model.compacted = Math.min(model.current, model.compacted + 1 + random(30));
    const tables = indexTables(this.writer);
    let done = false;
    while (!done) {
      this.writer.transaction(() => {
        done = compactSlice(model.compacted, 1 + random(20), tables, this.limits);
      });
      // Left unfinished now and then, as a crash leaves it: the next compaction takes up what remains.
      if (random(10) === 0) break;
    }
  }

  restart(): void {
    this.reader = this.store.openReader();
    this.index = new KeyIndex(this.reader, { limits: this.limits, hashSeed: this.random(1000) });
    this.frozen = null;
    const state = newKeyState();
    let main = 0;
    for (const row of this.model.rows) {
      if (row.state.main <= this.indexedRevision) continue;
      // Between two revisions only, as between two applies.
      if (row.state.main !== main && this.random(40) === 0) this.freeze();
      main = row.state.main;
      Object.assign(state, row.state);
      state.ordinal = -1;
      const bytes = bytesOf(row.key);
      this.index.recover(bytes, 0, bytes.length, state);
    }
    this.index.endRecovery();
  }

  step(): void {
    const action = this.random(100);
    if (action < 60) this.transaction();
    else if (action < 66) this.freeze();
    else if (action < 80) this.merge();
    else if (action < 92) this.refresh();
    else if (action < 95) this.compact();
    else if (action < 97) this.restart();
    else this.keys.push(this.randomKey());
  }

  randomRevision(): number {
    const { model, random } = this;
    if (random(3) === 0) return Number.POSITIVE_INFINITY;
    return model.compacted + random(model.current - model.compacted + 2);
  }

  checkKey(key: string): void {
    const { model, index, state } = this;
    const bytes = bytesOf(key);
    const newest = model.newest(key);
    const live = newest !== undefined && !newest.tombstone;
    assert.equal(index.get(bytes, 0, bytes.length, state), live);
    if (live) this.checkState(state, newest, true);
    else assert.ok(state.main === 0 || (state.main === newest!.main && state.tombstone));
    const atRev = this.randomRevision();
    const expected = model.at(key, atRev);
    assert.equal(index.getAt(bytes, 0, bytes.length, atRev, state), expected !== undefined, `at ${atRev}`);
    if (expected !== undefined) this.checkState(state, expected, expected === newest);
  }

  checkState(got: KeyState, expected: KeyState, isNewest: boolean): void {
    assert.equal(got.main, expected.main);
    assert.equal(got.sub, expected.sub);
    assert.equal(got.tombstone, false);
    assert.ok(got.ordinal === -1 || got.ordinal === expected.ordinal, 'ordinal of another row');
    if (!isNewest && got.version === 0) return;
    assert.equal(got.createMain, expected.createMain);
    assert.equal(got.version, expected.version);
    assert.equal(got.leaseHi, expected.leaseHi);
    assert.equal(got.leaseLo, expected.leaseLo);
  }

  checkRange(start: string, end: string | null, atRev: number): void {
    const { model, index } = this;
    const endBytes = end === null ? null : bytesOf(end);
    const expected = model.range(start, end, atRev);
    const limit = this.random(3) === 0 ? this.random(expected.length + 1) : Number.POSITIVE_INFINITY;
    let at = 0;
    index.scan(bytesOf(start), endBytes, atRev, (buffer, from, to, state) => {
      const [key, wanted] = expected[at++] ?? assert.fail('a key too many');
      assert.equal(shown(buffer.toString('latin1', from, to)), shown(key), `scan at ${atRev}`);
      this.checkState(state, wanted, wanted === model.newest(key));
      return at < limit;
    });
    assert.equal(at, Math.min(expected.length, Math.max(limit, expected.length === 0 ? 0 : 1)));
    assert.equal(index.count(bytesOf(start), endBytes, atRev), expected.length, `count at ${atRev}`);
  }

  check(): void {
    const { model, index, random } = this;
    for (let i = 0; i < 5; i++) this.checkKey(random(10) === 0 ? this.randomKey() : this.pick());
    const a = random(4) === 0 ? this.pick() : this.randomKey();
    const b = random(4) === 0 ? this.pick() : this.randomKey();
    const end = random(4) === 0 ? null : b;
    this.checkRange(a, end, this.randomRevision());
    this.checkRange('\x00', null, this.randomRevision());
    assert.equal(index.liveKeyCount(), model.range('\x00', null, Number.POSITIVE_INFINITY).length);
  }

  checkLeased(): void {
    const seen = new Map<string, string>();
    const visit = (hi: number, lo: number, buffer: Buffer, start: number, end: number): void => {
      const key = buffer.toString('latin1', start, end);
      assert.ok(!seen.has(key), 'leased key twice');
      seen.set(key, `${hi}:${lo}`);
    };
    this.index.visitLeased(visit);
    const atOnce = new Map(seen);
    seen.clear();
    let from: Buffer | undefined;
    do from = this.index.visitLeasedFrom(from, 3, visit);
    while (from !== undefined);
    assert.deepEqual(seen, atOnce, 'in slices');
    const expected = new Map<string, string>();
    for (const [key, state] of this.model.range('\x00', null, Number.POSITIVE_INFINITY)) {
      if (state.leaseHi !== 0 || state.leaseLo !== 0) expected.set(key, `${state.leaseHi}:${state.leaseLo}`);
    }
    assert.deepEqual(seen, expected);
  }

  /** Merges everything and compacts to the end: what is left must be what etcd's keyIndex would keep. */
  checkTables(): void {
    const { model } = this;
    const tables = indexTables(this.writer);
    for (let round = 0; round < 2; round++) {
      this.refresh();
      this.freeze();
      while (this.frozen !== null) {
        this.merge();
        this.refresh();
        this.freeze();
      }
    }
    model.compacted = model.current;
    let done = false;
    while (!done) this.writer.transaction(() => (done = compactSlice(model.compacted, 7, tables, this.limits)));
    this.refresh();
    const live = model.range('\x00', null, Number.POSITIVE_INFINITY);
    assert.equal(tables.live.entryCount(), live.length);
    let tombstones = 0;
    for (const list of model.changes.values()) {
      const newest = list.at(-1)!;
      if (newest.tombstone && newest.main === model.compacted) tombstones++;
    }
    assert.equal(tables.dead.entryCount(), tombstones, 'a tombstone stays at exactly the compaction revision only');
    assert.equal(tables.hist.entryCount(), 0);
    assert.equal(tables.histlog.entryCount(), tombstones);
    const entry = new EntryReader();
    tables.live.scan(undefined, undefined, (_key, value) => {
      entry.read(value);
      assert.equal(entry.dead, false);
      return true;
    });
    this.checkRange('\x00', null, model.current);
    this.checkLeased();
  }
}

function runSeed(seed: number, store: Store, steps: number): void {
  const harness = new Harness(seed, store);
  for (let step = 0; step < steps; step++) {
    harness.step();
    if (step % 5 === 0) harness.check();
    if (step % 50 === 0) harness.checkLeased();
  }
  harness.checkTables();
}

const first = Number(process.env['INDEX_SEED'] ?? 1);
const seeds = Number(process.env['INDEX_SEEDS'] ?? (process.env['INDEX_SEED'] === undefined ? 30 : 1));
for (let seed = first; seed < first + seeds; seed++) {
  test(`random history ${seed}`, () => runSeed(seed, new MemoryStore(), 600));
}

for (let seed = first; seed < first + Math.min(seeds, 4); seed++) {
  test(`random history ${seed} over LMDB`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'index-test-'));
    const writer = new LmdbEnvironment({ path: join(folder, 'db'), noSync: true });
    for (const name of indexTableNames) writer.table(name);
    const reader = new LmdbEnvironment({ path: join(folder, 'db'), noSync: true });
    const openReader = (): ReadEnvironment => {
      reader.refresh();
      return reader;
    };
    runSeed(seed, { openWriter: () => writer, openReader }, 300);
    writer.close();
    reader.close();
    rmSync(folder, { recursive: true });
  });
}

function fill(index: KeyIndex, from: number, to: number, keyOf: (n: number) => string): void {
  const state = newKeyState();
  for (let n = from; n < to; n++) {
    const key = bytesOf(keyOf(n));
    const live = index.get(key, 0, key.length, state);
    state.createMain = live ? state.createMain : n + 1;
    state.version = live ? state.version + 1 : 1;
    state.main = n + 1;
    index.record(key, 0, key.length, state);
  }
}

function mergeAll(store: MemoryStore, index: KeyIndex, reader: ReadEnvironment, keyCount: number): void {
  const writer = store.openWriter();
  const delta = index.freeze();
  const tables = indexTables(writer);
  for (let from = 0; from >= 0; ) {
    writer.transaction(() => {
      from = mergeSlice(delta, from, keyCount, tables, 0);
    });
  }
  reader.refresh();
  index.dropFrozen();
}

test('a hot key at the real limits: 20,000 changes in and out of chunks, read at each, compacted to one', () => {
  const store = new MemoryStore();
  const reader = store.openReader();
  const index = new KeyIndex(reader);
  const changes = 20_000;
  for (let from = 0; from < changes; from += 5000) {
    fill(index, from, from + 5000, () => 'hot');
    mergeAll(store, index, reader, 1);
  }
  const tables = indexTables(store.openWriter());
  const key = bytesOf('hot');
  const state = newKeyState();
  for (let atRev = 1; atRev <= changes; atRev += 13) {
    assert.ok(index.getAt(key, 0, key.length, atRev, state));
    assert.equal(state.main, atRev);
  }
  assert.equal(index.getAt(key, 0, key.length, 0, state), false);
  assert.ok(tables.hist.entryCount() >= changes / indexLimits.chunkRevisions - 1);
  const entryBytes = tables.live.get(Buffer.from('hot\0\0'))!.length;
  assert.ok(entryBytes <= 16 + 3 * indexLimits.inlineRevisions, 'the entry of a hot key stays small');
  const writer = store.openWriter();
  const writeTables = indexTables(writer);
  for (let done = false; !done; ) writer.transaction(() => (done = compactSlice(changes, 10, writeTables)));
  reader.refresh();
  assert.equal(writeTables.hist.entryCount(), 0);
  assert.ok(index.getAt(key, 0, key.length, changes, state));
});

test('blocks of counted keys keep their size, for inserts ascending and scattered, in large and small slices', () => {
  const keyCount = 30_000;
  const orders: ((n: number) => string)[] = [
    (n) => `key${String(n).padStart(8, '0')}`,
    (n) => `key${String((n * 7919) % 1_000_003).padStart(8, '0')}`,
  ];
  for (const keyOf of orders) {
    for (const slice of [500, 10_000]) {
      const store = new MemoryStore();
      const reader = store.openReader();
      const index = new KeyIndex(reader);
      for (let from = 0; from < keyCount; from += 10_000) {
        fill(index, from, from + 10_000, keyOf);
        mergeAll(store, index, reader, slice);
      }
      const counts: number[] = [];
      reader.table('counts').scan(undefined, undefined, (_key, value) => counts.push(value.readUInt32BE(0)) > 0);
      assert.ok(counts.length >= keyCount / (2 * indexLimits.countBlockKeys), `${counts.length} blocks`);
      assert.ok(counts.length <= keyCount / (indexLimits.countBlockKeys / 4), `${counts.length} blocks`);
      for (const count of counts) assert.ok(count <= 2 * indexLimits.countBlockKeys, `a block of ${count}`);
      for (let n = 0; n < keyCount; n += 1711) {
        const start = bytesOf(keyOf(n));
        let scanned = 0;
        index.scan(start, null, Number.POSITIVE_INFINITY, () => ++scanned > 0);
        assert.equal(index.count(start, null, Number.POSITIVE_INFINITY), scanned);
      }
    }
  }
});

test('rows of a restored snapshot, whose older ones were compacted away, build an index', () => {
  const random = randomFrom(11);
  const store = new MemoryStore();
  const reader = store.openReader();
  const index = new KeyIndex(reader);
  const state = newKeyState();
  const live = new Set<string>();
  // The first row of a key may have any version, or be a tombstone; the deltas are merged several times in between.
  for (let main = 10; main < 3000; main++) {
    const name = `k${random(400)}`;
    const tombstone = random(4) === 0;
    Object.assign(state, newKeyState(), { main, tombstone });
    if (!tombstone) Object.assign(state, { createMain: main - random(5), version: 1 + random(9) });
    if (!tombstone && state.version === 1 && live.has(name)) state.version = 2;
    index.restore(bytesOf(name), 0, name.length, state);
    if (tombstone) live.delete(name);
    else live.add(name);
    assert.equal(index.liveKeyCount(), live.size);
    if (main % 700 === 0) mergeAll(store, index, reader, 50);
  }
  assert.equal(index.count(bytesOf('k'), null, Number.POSITIVE_INFINITY), live.size);
});

test('wrong use is refused', () => {
  const store = new MemoryStore();
  const index = new KeyIndex(store.openReader());
  const state = { ...newKeyState(), main: 5, createMain: 5, version: 1 };
  const key = bytesOf('a');
  assert.throws(() => index.freeze(), /empty delta/);
  index.record(key, 0, 1, state);
  assert.throws(() => index.record(key, 0, 1, state), /not newer/);
  assert.throws(() => index.record(key, 0, 0, { ...state, main: 6 }), /empty key/);
  index.scan(key, null, Number.POSITIVE_INFINITY, () => {
    assert.throws(() => index.get(key, 0, 1, state), /inside a scan/);
    return true;
  });
  index.freeze();
  assert.throws(() => index.freeze(), /frozen already/);
  assert.throws(() => index.dropFrozen(), /before the read view holds it/);
});

test('counts that do not add up are damage', () => {
  const store = new MemoryStore();
  const reader = store.openReader();
  const index = new KeyIndex(reader);
  fill(index, 0, 10, (n) => `k${n}`);
  mergeAll(store, index, reader, 3);
  const writer = store.openWriter();
  writer.transaction(() => writer.table('counts').put(Buffer.from([0]), Buffer.from([0, 0, 0, 9])));
  assert.throws(() => new KeyIndex(store.openReader()), /do not add up/);
});
