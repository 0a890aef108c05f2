// Goal: what find(), findAll() and walk() read in the memory map is what LMDB holds in that snapshot, whatever its shape, and while
// another thread writes. Method: seeded random histories by a second environment against a sorted map, with windows from a few
// pages up to the real ones, so that values cross them; deep trees; a writer thread that rewrites everything with each commit, so
// that a page of a view that was not held would show; other files, closed maps, two environments. That the map is really used is
// asserted, not hoped. Damaged files for a second, by lmdb-tree.fuzz.ts.

import assert from 'node:assert/strict';
import { mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { type LmdbWindows, lmdbWindows } from '../storage-limits.ts';
import { fuzzFor } from '../testing/fuzz-loop.ts';
import { LmdbEnvironment } from './lmdb.ts';
import type { LmdbTable } from './lmdb-table.ts';
import { fuzzTree } from './lmdb-tree.fuzz.ts';
import { type Random, SeededRandom } from './random.ts';
import { type ReadTable, type ValueRef, ValueRefs, type WalkAhead } from './table.ts';

const folder = mkdtempSync(join(tmpdir(), 'keelson-tree-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let fileNumber = 0;
function newPath(): string {
  return join(folder, `${++fileNumber}.db`);
}

/** Windows of eight pages that see two of the next: everything crosses them. */
const smallWindows: LmdbWindows = { bytes: 65_536, overlapBytes: 16_384 };

type Model = Map<string, Buffer>;

function newRef(): ValueRef {
  return { buffer: Buffer.alloc(0), start: 0, end: 0 };
}

function bytesOf(ref: ValueRef): Buffer {
  return ref.buffer.subarray(ref.start, ref.end);
}

function ordered(model: Model): string[] {
  return [...model.keys()].sort((a, b) => Buffer.compare(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1')));
}

function openMapped(path: string, windows: LmdbWindows): LmdbEnvironment {
  const environment = new LmdbEnvironment({ path, mapped: true, windows });
  environment.table('t');
  environment.table('other');
  assert.ok(environment.tree('t') !== null, 'there is no map');
  return environment;
}

/** A key of one of the shapes that tables have: short, revisions, long with a common beginning. */
function randomKey(random: Random): Buffer {
  switch (random.below(4)) {
    case 0:
      return Buffer.from(Array.from({ length: 1 + random.below(4) }, () => [0, 1, 127, 128, 255][random.below(5)]!));
    case 1: {
      const key = Buffer.alloc(random.below(3) === 0 ? 18 : 17, 't');
      key.fill(0, 0, 4);
      key.writeUInt32BE(random.below(5000), 4);
      key[8] = 0x5f;
      key.fill(0, 9, 16);
      key[16] = random.below(10) === 0 ? random.below(3) : 0;
      return key;
    }
    case 2:
      return Buffer.from(`/registry/pods/namespace-${random.below(30)}/pod-${random.below(500)}`);
    default:
      return Buffer.alloc(1 + random.below(4026), 97 + random.below(2));
  }
}

function randomValue(random: Random): Buffer {
  const value = Buffer.alloc(random.below([40, 400, 400, 400, 4000, 9000, 70_000, 200_000][random.below(8)]!));
  random.fill(value.subarray(0, 64));
  value.fill(value.length & 0xff, 64);
  return value;
}

function checkFind(table: LmdbTable, model: Model, random: Random): void {
  const keys = ordered(model);
  const ref = newRef();
  const wanted: Buffer[] = [];
  for (let i = 0; i < 60; i++) {
    const known = keys.length > 0 && random.below(4) > 0;
    wanted.push(known ? Buffer.from(keys[random.below(keys.length)]!, 'latin1') : randomKey(random));
  }
  for (const key of wanted) {
    const expected = model.get(key.toString('latin1'));
    assert.equal(table.find(key, ref), expected !== undefined);
    if (expected !== undefined) assert.ok(bytesOf(ref).equals(expected), 'find() gave another value');
  }
  const count = random.below(wanted.length + 1);
  const refs = new ValueRefs();
  const views = wanted.map((key) => new DataView(key.buffer, key.byteOffset, key.length));
  assert.equal(table.findAll(views, count, refs), true);
  for (let i = 0; i < count; i++) {
    const expected = model.get(wanted[i]!.toString('latin1'));
    assert.equal(refs.found[i], expected !== undefined);
    if (expected === undefined) continue;
    assert.ok(refs.buffers[i]!.subarray(refs.starts[i], refs.ends[i]).equals(expected), 'findAll() gave another value');
  }
}

/** Lots of random sizes; what was shown has to be what is visited then. */
class CheckedAhead implements WalkAhead {
  readonly shown: Buffer[] = [];
  count = 0;
  private readonly random: Random;

  constructor(random: Random) {
    this.random = random;
  }

  lot(): number {
    assert.equal(this.shown.length, 0, 'a lot was not visited');
    return this.random.below(5);
  }

  show(value: Buffer, start: number, end: number): void {
    this.shown.push(Buffer.from(value.subarray(start, end)));
    this.count++;
  }
}

function checkWalk(table: LmdbTable, model: Model, random: Random): void {
  const start = random.below(4) === 0 ? undefined : randomKey(random);
  const end = random.below(4) === 0 ? undefined : randomKey(random);
  const limit = random.below(3) === 0 ? 1 + random.below(20) : Infinity;
  const ahead = random.below(2) === 0 ? new CheckedAhead(random) : undefined;
  const inside = ordered(model).filter((name) => {
    const key = Buffer.from(name, 'latin1');
    return (start === undefined || key.compare(start) >= 0) && (end === undefined || key.compare(end) < 0);
  });
  const expected = inside.slice(0, limit);
  const found: string[] = [];
  const ref = newRef();
  table.walk(
    start,
    end,
    (key, keyStart, keyEnd, value, valueStart, valueEnd) => {
      const name = key.toString('latin1', keyStart, keyEnd);
      const bytes = value.subarray(valueStart, valueEnd);
      // A visitor may look up here, in another leaf.
      const other = inside[random.below(inside.length)];
      if (other !== undefined && random.below(3) === 0) assert.ok(table.find(Buffer.from(other, 'latin1'), ref));
      assert.ok(bytes.equals(model.get(name) ?? Buffer.from('none')), 'walk() gave another value');
      const shown = ahead?.shown.shift();
      if (shown !== undefined) assert.ok(shown.equals(bytes), 'another value was shown');
      found.push(name);
      return found.length < limit;
    },
    ahead,
  );
  assert.deepEqual(found, expected);
}

/** scan() both ways and count(), which are walks in the map too; `table` may be one of a pinned view. */
function checkScan(table: ReadTable, model: Model, random: Random): void {
  const start = random.below(4) === 0 ? undefined : randomKey(random);
  const end = random.below(4) === 0 ? undefined : randomKey(random);
  const inside = ordered(model).filter((name) => {
    const key = Buffer.from(name, 'latin1');
    return (start === undefined || key.compare(start) >= 0) && (end === undefined || key.compare(end) < 0);
  });
  assert.equal(table.count(start, end), inside.length);
  assert.equal(table.entryCount(), model.size);
  for (const isBack of [false, true]) {
    const limit = random.below(3) === 0 ? 1 + random.below(20) : Infinity;
    const found: string[] = [];
    table.scan(
      start,
      end,
      (key, value) => {
        assert.ok(value.equals(model.get(key.toString('latin1')) ?? Buffer.from('none')), 'scan() gave another value');
        // A visitor may look up here, in another leaf.
        const other = inside[random.below(inside.length)]!;
        if (random.below(3) === 0) assert.ok(table.get(Buffer.from(other, 'latin1'))?.equals(model.get(other)!));
        return found.push(key.toString('latin1')) < limit;
      },
      isBack,
    );
    const expected = isBack ? [...inside].reverse() : inside;
    assert.deepEqual(found, expected.slice(0, limit));
  }
}

function change(writer: LmdbEnvironment, model: Model, random: Random): void {
  const table = writer.table('t');
  writer.transaction(() => {
    const keys = ordered(model);
    for (let i = random.below(60); i > 0; i--) {
      const key = randomKey(random);
      const value = randomValue(random);
      table.put(key, value);
      model.set(key.toString('latin1'), value);
    }
    // Now and then nearly all go: pages join, the tree loses levels.
    const part = [20, 4, 1.1][random.below(3)]!;
    for (const name of keys) {
      if (random.float() * part < 1 && table.remove(Buffer.from(name, 'latin1'))) model.delete(name);
    }
  });
}

for (const [name, windows] of [
  ['small', smallWindows],
  ['real', lmdbWindows],
] as const) {
  test(`a random history through ${name} windows`, () => {
    const seed = 20261121 + windows.bytes;
    const random = new SeededRandom(seed);
    const path = newPath();
    const reader = openMapped(path, windows);
    const writer = new LmdbEnvironment({ path, trusted: true });
    const table = reader.table('t');
    const model: Model = new Map();
    try {
      for (let round = 0; round < 60; round++) {
        const before: Model = new Map(model);
        reader.refresh();
        checkFind(table, model, random);
        // The reader stays where it is, whatever is committed meanwhile.
        for (let i = random.below(4); i > 0; i--) change(writer, model, random);
        checkFind(table, before, random);
        checkWalk(table, before, random);
        checkScan(table, before, random);
        reader.refresh();
        for (let i = 0; i < 3; i++) checkWalk(table, model, random);
        checkScan(table, model, random);
        const pinned = reader.pin();
        const then: Model = new Map(model);
        for (let i = random.below(3); i > 0; i--) change(writer, model, random);
        checkScan(pinned.table('t'), then, random);
        reader.refresh();
        checkScan(table, model, random);
        checkScan(pinned.table('t'), then, random);
        pinned.close();
      }
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
    reader.close();
    writer.close();
  });
}

test('trees of many levels: two keys a page', () => {
  const path = newPath();
  const reader = openMapped(path, smallWindows);
  const writer = new LmdbEnvironment({ path, trusted: true });
  const table = writer.table('t');
  const count = 3000;
  const key = (i: number): Buffer => Buffer.from(String(i).padStart(3900, '0'));
  writer.transaction(() => {
    for (let i = 0; i < count; i++) table.put(key((i * 7919) % count), Buffer.from(`value ${(i * 7919) % count}`));
  });
  reader.refresh();
  const mapped = reader.table('t');
  const ref = newRef();
  let next = 0;
  mapped.walk(undefined, undefined, (bytes, start, end) => {
    assert.ok(bytes.subarray(start, end).equals(key(next)));
    next++;
    return true;
  });
  assert.equal(next, count);
  for (let i = 0; i < count; i++) {
    assert.ok(mapped.find(key(i), ref));
    assert.equal(bytesOf(ref).toString(), `value ${i}`);
  }
  assert.equal(mapped.find(key(count), ref), false);
  reader.close();
  writer.close();
});

test('an empty table, one that was emptied, a value without bytes', () => {
  const path = newPath();
  const environment = openMapped(path, lmdbWindows);
  const table = environment.table('t');
  const ref = newRef();
  const isEmpty = (): void => {
    const refs = new ValueRefs();
    assert.equal(table.find(Buffer.from('a'), ref), false);
    assert.equal(table.findAll([new DataView(new ArrayBuffer(4))], 1, refs), true);
    assert.deepEqual(refs.found, [false]);
    table.walk(undefined, undefined, () => assert.fail('nothing is there'));
  };
  isEmpty();
  environment.transaction(() => table.put(Buffer.from('a'), Buffer.alloc(0)));
  assert.equal(table.find(Buffer.from('a'), ref), true);
  assert.equal(ref.end, ref.start);
  environment.transaction(() => assert.ok(table.remove(Buffer.from('a'))));
  isEmpty();
  environment.close();
});

test('inside of a transaction its own changes are found', () => {
  const environment = openMapped(newPath(), lmdbWindows);
  const table = environment.table('t');
  const ref = newRef();
  environment.transaction(() => {
    table.put(Buffer.from('a'), Buffer.from('1'));
    assert.ok(table.find(Buffer.from('a'), ref));
    assert.equal(bytesOf(ref).toString(), '1');
    const found: string[] = [];
    table.walk(undefined, undefined, (key, start, end) => found.push(key.toString('latin1', start, end)) > 0);
    assert.deepEqual(found, ['a']);
  });
  assert.ok(table.find(Buffer.from('a'), ref));
  environment.close();
});

test('a view is of one commit while another thread rewrites everything', { timeout: 60_000 }, async () => {
  const path = newPath();
  const reader = openMapped(path, smallWindows);
  const stop = new SharedArrayBuffer(4);
  const writer = new Worker(
    `const { workerData, parentPort } = require('node:worker_threads');
     import(workerData.module).then(({ LmdbEnvironment }) => {
       const environment = new LmdbEnvironment({ path: workerData.path, noSync: true, trusted: true });
       const table = environment.table('t');
       const other = environment.table('other');
       const stop = new Int32Array(workerData.stop);
       let generation = 0;
       while (Atomics.load(stop, 0) === 0) {
         generation++;
         environment.transaction(() => {
           const value = Buffer.alloc(200, generation & 0xff);
           const large = Buffer.alloc(20_000, generation & 0xff);
           for (let i = 0; i < 600; i++) table.put(Buffer.from('key' + ((i * 7 + generation) % 900)), i % 50 === 0 ? large : value);
           for (let i = 0; i < 900; i++) if (table.get(Buffer.from('key' + i))?.[0] !== (generation & 0xff)) table.remove(Buffer.from('key' + i));
           other.put(Buffer.from('generation'), Buffer.from([generation & 0xff]));
         });
         if (generation === 1) parentPort.postMessage('begun');
       }
       environment.close();
       parentPort.close();
     });`,
    {
      eval: true,
      workerData: { module: new URL('./lmdb.ts', import.meta.url).href, path, stop },
    },
  );
  const ended = new Promise((resolve, reject) => writer.once('exit', resolve).once('error', reject));
  await new Promise((resolve, reject) => writer.once('message', resolve).once('error', reject));
  const table = reader.table('t');
  const other = reader.table('other');
  const ref = newRef();
  const generations = new Set<number>();
  let reads = 0;
  try {
    const until = Date.now() + 3000;
    while (Date.now() < until) {
      reader.refresh();
      assert.ok(other.find(Buffer.from('generation'), ref));
      const generation = ref.buffer[ref.start]!;
      generations.add(generation);
      // Long enough for several commits.
      for (let round = 0; round < 5; round++) {
        let count = 0;
        table.walk(undefined, undefined, (_key, _keyStart, _keyEnd, value, start, end) => {
          count++;
          for (let i = start; i < end; i += 97) assert.equal(value[i], generation, 'a value of another commit');
          return true;
        });
        assert.equal(count, 600);
        for (let i = 0; i < 900; i++) {
          if (!table.find(Buffer.from(`key${i}`), ref)) continue;
          assert.equal(ref.buffer[ref.start], generation, 'a value of another commit');
          assert.equal(ref.buffer[ref.end - 1], generation, 'a value of another commit');
          reads++;
        }
      }
    }
  } finally {
    Atomics.store(new Int32Array(stop), 0, 1);
    await ended;
    reader.close();
  }
  assert.ok(generations.size > 20, `only ${generations.size} commits were seen`);
  assert.ok(reads > 1000);
});

test('moving to another file moves the map; closing ends it', () => {
  const path = newPath();
  const environment = openMapped(path, lmdbWindows);
  const table = environment.table('t');
  environment.transaction(() => table.put(Buffer.from('a'), Buffer.from('first')));
  const old = newRef();
  assert.ok(table.find(Buffer.from('a'), old));
  const copy = new LmdbEnvironment({ path: `${path}.copy` });
  copy.table('other');
  const target = copy.table('t');
  copy.transaction(() => target.put(Buffer.from('a'), Buffer.from('second')));
  copy.renameTo(path);
  environment.reopen(path);
  const ref = newRef();
  assert.ok(table.find(Buffer.from('a'), ref));
  assert.equal(bytesOf(ref).toString(), 'second');
  assert.equal(old.buffer.length, 0, 'the old map is still there');
  assert.ok(environment.tree('t') !== null, 'there is no map of the new file');
  environment.close();
  copy.close();
  assert.equal(ref.buffer.length, 0, 'the map outlives its environment');
  assert.equal(environment.tree('t'), null);
});

test('without a map everything goes through the package', () => {
  const path = newPath();
  const first = openMapped(path, lmdbWindows);
  const second = new LmdbEnvironment({ path, trusted: true, mapped: true });
  const table = second.table('t');
  assert.equal(second.tree('t'), null, 'two maps of one file in one thread');
  second.transaction(() => table.put(Buffer.from('a'), Buffer.from('1')));
  const ref = newRef();
  for (const reader of [first.table('t'), table, first.pin().table('t')]) {
    assert.ok(reader.find(Buffer.from('a'), ref));
    assert.equal(bytesOf(ref).toString(), '1');
    let count = 0;
    reader.walk(Buffer.from('a'), undefined, () => ++count < 2);
    assert.equal(count, 1);
  }
  assert.equal(table.findAll([], 0, new ValueRefs()), false);
  second.close();
  first.close();

  // The path is another file's when the map is asked for: the length of that one says nothing.
  const renamed = new LmdbEnvironment({ path, mapped: true });
  renamed.table('t');
  const other = newPath();
  new LmdbEnvironment({ path: other }).close();
  renameSync(other, path);
  assert.equal(renamed.tree('t'), null);
  rmSync(path);
  assert.equal(renamed.tree('t'), null);
  assert.ok(renamed.table('t').find(Buffer.from('a'), ref));
  renamed.close();
});

test('damaged files', () => {
  let seen = 0;
  const runs = fuzzFor((seed) => (seen += fuzzTree(seed)), 1, Date.now() % 1_000_000_000);
  assert.ok(runs > 10 && seen > runs, `${runs} runs, in which damage was seen ${seen} times`);
});
