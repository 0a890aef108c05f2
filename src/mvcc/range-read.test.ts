// Goal: a range that is read in slices, over turns in which everything changes, answers what one at once would have answered, at the
// revision at which it began; a page's count is right however it was found. Method: random histories; reads and listings under way at
// once, each a slice or a page at a time, with puts, deletes, compactions, flushes, replaced states and restarts in between, against whole copies of
// each revision's state (store-fixture.ts). Then the parts alone: the sorter, what is remembered of pages, deletes of many keys.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteWriter } from '../base/byte-writer.ts';
import { type Random, SeededRandom } from '../io/random.ts';
import type { ReadSlice } from '../limits.ts';
import { encode } from '../proto/message.ts';
import { KeyValue, KeyValueView } from '../proto/mvccpb.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { PageRemainders } from './page-remainders.ts';
import { RangeRead } from './range-read.ts';
import { RowSorter } from './row-sorter.ts';
import {
  CheckedStore,
  decodeRange,
  type Kv,
  type RangeOptions,
  type RangeResult,
  randomEnd,
  randomKey,
  requestOf,
} from './store-fixture.ts';

function randomOptions(random: Random, checked: CheckedStore): RangeOptions {
  const key = random.below(3) === 0 ? '\0' : randomKey(random);
  const bound = (): number => (random.below(8) === 0 ? 1 + random.below(checked.revision + 1) : 0);
  const limits = [0, 0, 0, 1, 2, 3, 5, 8, 13, -1];
  return {
    key,
    end: random.below(2) === 0 ? '\0' : randomEnd(random, key),
    limit: limits[random.below(limits.length)]!,
    revision: random.below(2) === 0 ? 0 : Math.max(1, checked.revision - random.below(12)),
    sortOrder: random.below(3),
    sortTarget: random.below(2) === 0 ? 0 : random.below(5),
    keysOnly: random.below(3) === 0,
    countOnly: random.below(5) === 0,
    minMod: bound(),
    maxMod: bound(),
    minCreate: bound(),
    maxCreate: bound(),
  };
}

function randomSlice(random: Random): ReadSlice {
  return { keys: 1 + random.below(4), bytes: 1 + random.below(60), countKeys: 1 + random.below(4) };
}

/** A read under way, with what it is to answer. */
class Running {
  readonly options: RangeOptions;
  readonly expected: RangeResult;
  private readonly read: RangeRead | null;
  private readonly error: RangeResult['error'] = null;
  private readonly out = new ByteWriter(16);
  private readonly parts: Buffer[] = [];
  private readonly revision: number;
  private readonly checked: CheckedStore;

  constructor(checked: CheckedStore, options: RangeOptions, slice: ReadSlice) {
    this.options = options;
    this.checked = checked;
    this.expected = checked.expected(options);
    const request = requestOf(options);
    const read = checked.store.rangeSliced(request, this.out, slice);
    // The request's buffer belongs to a connection.
    request.buffer.fill(0xdd);
    this.read = read instanceof RangeRead ? read : null;
    if (!(read instanceof RangeRead)) this.error = read;
    this.revision = checked.store.rangeRevision;
    if (this.read !== null) assert.equal(this.read.headerRevision, this.revision);
    this.keep();
  }

  private keep(): void {
    this.parts.push(Buffer.from(this.out.bytes.subarray(0, this.out.length)));
    this.out.reset();
  }

  get sliced(): boolean {
    return this.read !== null;
  }

  /** One slice; true: it was the last, and the answer is right. */
  step(): boolean {
    if (this.read !== null) {
      const done = this.read.step(this.out);
      this.keep();
      const isLost = this.checked.store.lostRevision(this.read.revision) !== null;
      assert.equal(this.read.error !== null, isLost, 'it ends with an error when its revision is gone');
      if (isLost) {
        assert.equal(done, true);
        return true;
      }
      if (!done) return false;
    }
    const { error, revision } = this;
    const result = error === null ? decodeRange(Buffer.concat(this.parts), revision) : { ...this.expected, error };
    assert.deepEqual(result, this.expected, JSON.stringify(this.options));
    if (this.read !== null) assert.equal(this.read.answered, result.kvs.length);
    return true;
  }

  drop(): void {
    this.read?.close();
  }
}

function change(checked: CheckedStore, random: Random): void {
  checked.begin();
  for (let ops = random.below(4); ops > 0; ops--) {
    const key = randomKey(random);
    if (random.below(3) > 0) checked.put(key, `v${random.below(10)}`.repeat(random.below(4)));
    else checked.delete(key, randomEnd(random, key));
  }
  checked.commit();
  if (random.below(10) === 0) checked.compact(checked.revision - random.below(4));
  // A leader's snapshot: the same history, and what is compacted in it is gone even for those that have pinned it.
  if (random.below(40) === 0) checked.store.restore(checked.revision, checked.store.compactRevision);
  if (random.below(6) === 0) checked.storage.flush();
  // As after a restart, or when the engine's record of creates and deletes has overflowed.
  if (random.below(8) === 0) checked.storage.index.countFloor = checked.revision - random.below(3);
}

test('reads in slices answer as of the revision at which they began, whatever happens meanwhile', () => {
  let sliced = 0;
  for (let seed = 1; seed <= 150; seed++) {
    const random = new SeededRandom(seed);
    const checked = new CheckedStore();
    let running: Running[] = [];
    try {
      for (let step = 0; step < 120; step++) {
        change(checked, random);
        const started = new Running(checked, randomOptions(random, checked), randomSlice(random));
        if (started.sliced) sliced++;
        if (!started.sliced) started.step();
        else running.push(started);
        running = running.filter((read) => {
          if (random.below(30) > 0) return random.below(2) === 0 || !read.step();
          read.drop();
          return false;
        });
      }
      for (const read of running) while (!read.step());
      assert.equal(checked.storage.pinned, 0, 'a revision stays pinned');
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
  assert.ok(sliced > 3000, `only ${sliced} reads took more than a slice`);
});

/** A listing as Kubernetes does it: the first page at the newest revision, the others at its revision behind its last key. */
class Listing {
  private readonly checked: CheckedStore;
  private readonly options: RangeOptions;
  private revision = 0;
  private next: string;
  pages = 0;

  constructor(checked: CheckedStore, options: RangeOptions) {
    this.checked = checked;
    this.options = options;
    this.next = options.key;
  }

  /** False: that was the last page. */
  page(): boolean {
    const options = { ...this.options, key: this.next, revision: this.revision };
    const result = this.checked.range(options);
    assert.deepEqual(result, this.checked.expected(options), JSON.stringify(options));
    if (result.error === etcdErrors.compacted) return false;
    assert.equal(result.error, null);
    this.pages++;
    if (this.revision === 0) this.revision = result.revision;
    if (!result.more) return false;
    this.next = `${result.kvs.at(-1)!.key}\0`;
    return true;
  }
}

test('pages of listings under way count right, whatever happens in between', () => {
  let pages = 0;
  for (let seed = 1; seed <= 150; seed++) {
    const random = new SeededRandom(seed);
    const checked = new CheckedStore({ entriesMax: 1 + random.below(6), keyBytesMax: 40 + random.below(200) });
    let listings: Listing[] = [];
    try {
      for (let step = 0; step < 120; step++) {
        change(checked, random);
        if (random.below(3) === 0) {
          const key = random.below(2) === 0 ? '\0' : randomKey(random);
          const end = random.below(2) === 0 ? '\0' : randomEnd(random, key);
          listings.push(
            new Listing(checked, { key, end, limit: 1 + random.below(4), keysOnly: random.below(4) === 0 }),
          );
        }
        if (random.below(40) === 0) checked.restart();
        listings = listings.filter((listing) => {
          if (random.below(2) === 0) return true;
          const goesOn = listing.page();
          if (!goesOn) pages += listing.pages;
          return goesOn;
        });
      }
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
  assert.ok(pages > 5000, `only ${pages} pages`);
});

test('a listing below the count floor counts once: the next pages know', () => {
  const checked = new CheckedStore();
  checked.begin();
  for (let i = 0; i < 500; i++) checked.put(`k${1000 + i}`, 'v');
  checked.commit();
  for (let i = 0; i < 40; i++) {
    checked.begin();
    checked.put(`k${1000 + i}x`, 'new');
    checked.delete(`k${1200 + i}`);
    checked.commit();
  }
  checked.storage.index.countFloor = checked.revision;
  const { storage } = checked;
  let options: RangeOptions = { key: 'k', end: 'l', limit: 50, revision: 2 };
  const costs: [number, number][] = [];
  for (;;) {
    const rowsBefore = storage.rowsScanned;
    const keysBefore = storage.index.keysScanned;
    const result = checked.range(options);
    assert.deepEqual(result, checked.expected(options));
    costs.push([storage.rowsScanned - rowsBefore, storage.index.keysScanned - keysBefore]);
    if (!result.more) break;
    options = { ...options, key: `${result.kvs.at(-1)!.key}\0` };
  }
  // The first counts the 80 changes since; no page looks at more keys than its own, and the model's count at the floor.
  assert.equal(costs.length, 10);
  assert.deepEqual(costs[0], [80, 51 + 500]);
  for (const cost of costs.slice(1, -1)) assert.deepEqual(cost, [0, 51]);
  assert.deepEqual(costs.at(-1), [0, 50]);
});

test('what is left of a page inside of a transaction is not remembered: its revision still changes', () => {
  const checked = new CheckedStore();
  checked.begin();
  for (let i = 0; i < 9; i++) checked.put(`k${i}`, 'v');
  const page = { key: 'k', end: 'l', limit: 3 };
  assert.equal(checked.range(page).count, 9);
  checked.delete('k5');
  checked.put('k9', 'v');
  checked.put('ka', 'v');
  checked.commit();
  const next = { ...page, key: 'k2\0', revision: checked.revision };
  assert.deepEqual(checked.range(next), checked.expected(next));
  assert.equal(checked.range(next).count, 7);
});

test('a chunk ends at its keys or its bytes, whichever comes first, and says that there is more', () => {
  const checked = new CheckedStore();
  checked.begin();
  for (let i = 0; i < 20; i++) checked.put(`k${10 + i}`, 'v'.repeat(i < 10 ? 10 : 1000));
  checked.commit();
  const out = new ByteWriter(16);
  const found: string[] = [];
  const sizes: number[] = [];
  let more = true;
  for (let key = 'k'; more; key = `${found.at(-1)!}\0`) {
    out.reset();
    assert.equal(checked.store.rangeChunk(requestOf({ key, end: 'l', limit: 6 }), out, 1500), null);
    const result = decodeRange(out.bytes.subarray(0, out.length), 2);
    ({ more } = result);
    assert.equal(result.count, result.kvs.length);
    found.push(...result.kvs.map((kv) => kv.key));
    sizes.push(result.kvs.length);
  }
  assert.deepEqual(sizes, [6, 6, 2, 2, 2, 2]);
  assert.deepEqual(
    found,
    checked.expected({ key: 'k', end: 'l' }).kvs.map((kv) => kv.key),
  );
  assert.equal(checked.storage.pinned, 0);
});

test('when more has changed since than there are keys, the keys are counted', () => {
  const checked = new CheckedStore();
  for (let i = 0; i < 30; i++) {
    checked.begin();
    checked.put(`k${i % 10}`, 'v');
    checked.commit();
  }
  checked.storage.index.countFloor = checked.revision;
  const rowsBefore = checked.storage.rowsScanned;
  for (let revision = 1; revision <= checked.revision; revision++) {
    const options = { key: 'k', end: 'l', countOnly: true, revision };
    assert.deepEqual(checked.range(options), checked.expected(options));
  }
  assert.ok(checked.storage.rowsScanned - rowsBefore < 100, 'rows are read without end');
});

test('an answer without room is given up, and says so; nothing is held for it', () => {
  const checked = new CheckedStore();
  checked.begin();
  for (let i = 0; i < 5000; i++) checked.put(`key${i}`, 'x'.repeat(100));
  checked.commit();
  for (const sortTarget of [0, 3]) {
    const out = new ByteWriter(16, 10_000);
    assert.equal(checked.store.range(requestOf({ key: 'k', end: 'l', sortTarget, sortOrder: 2 }), out), null);
    assert.ok(out.full);
    assert.ok(out.length <= 10_100, `${out.length} bytes were written`);
    out.reset();
    assert.equal(
      checked.store.range(requestOf({ key: 'k', end: 'l', sortTarget, sortOrder: 2, limit: 20 }), out),
      null,
    );
    assert.ok(!out.full, 'with a limit there is room');
    assert.equal(decodeRange(out.bytes.subarray(0, out.length), 2).kvs.length, 20);
    out.reset();
    assert.equal(
      checked.store.range(requestOf({ key: 'k', end: 'l', sortTarget, keysOnly: true, limit: 200 }), out),
      null,
    );
    assert.ok(!out.full);
  }
});

function rowOf(kv: Kv): KeyValueView {
  const bytes = encode(KeyValue, {
    key: Buffer.from(kv.key, 'latin1'),
    value: Buffer.from(kv.value, 'latin1'),
    createRevision: kv.create,
    modRevision: kv.mod,
    version: kv.version,
    lease: kv.lease,
  });
  // Other bytes before and behind, as in a slab.
  const memory = Buffer.concat([Buffer.from('<<'), bytes, Buffer.from('>>')]);
  const view = new KeyValueView();
  assert.ok(view.parse(memory, 2, 2 + bytes.length));
  return view;
}

/** As a read does, within a turn. */
function endRun(sorter: RowSorter): void {
  sorter.endRun();
  if (sorter.isCrowded) sorter.beginPrune();
  while (sorter.isPruning) sorter.prune(100, 1000);
}

test('the sorter merges runs in any order of the targets, and keeps little more than its limit', () => {
  const random = new SeededRandom(3);
  const kvs: Kv[] = [];
  for (let i = 0; i < 5000; i++) {
    const value = String(random.below(500));
    kvs.push({ key: `k${100_000 + i}`, value, create: random.below(50), mod: i, version: random.below(9), lease: 0n });
  }
  const fields = ['key', 'version', 'create', 'mod', 'value'] as const;
  for (let target = 0; target <= 4; target++) {
    for (const [order, limit] of [
      [1, 0],
      [2, 0],
      [1, 7],
      [2, 700],
      [2, 5000],
    ] as const) {
      const sorter = new RowSorter(requestOf({ key: 'k', sortTarget: target, sortOrder: order, limit }));
      let bytesMax = 0;
      for (const [i, kv] of kvs.entries()) {
        const view = rowOf(kv);
        sorter.add(view, 2, view.buffer.length - 2);
        bytesMax = Math.max(bytesMax, sorter.heldBytes);
        if (i % 701 === 700) endRun(sorter);
      }
      endRun(sorter);
      const out = new ByteWriter(16);
      while (sorter.emit(out, 100, 1000));
      const field = fields[target]!;
      const sign = order === 2 ? -1 : 1;
      const sorted = kvs.toSorted((a, b) => (a[field] === b[field] ? 0 : a[field] < b[field] ? -sign : sign));
      const expected = limit === 0 ? sorted : sorted.slice(0, limit);
      assert.deepEqual(
        decodeRange(out.bytes.subarray(0, out.length), 0).kvs,
        expected,
        `target ${target} order ${order}`,
      );
      assert.equal(sorter.more, limit > 0 && limit < kvs.length);
      const isPlainOrder = target === 0 && order === 1;
      if (limit === 7 && !isPlainOrder) assert.ok(bytesMax < 500_000, `${bytesMax} bytes were held`);
    }
  }
});

test('a sorter that prunes at any time, in slices of any size, answers as a sort of all, and no slice does more than its part', () => {
  const fields = ['key', 'version', 'create', 'mod', 'value'] as const;
  let slices = 0;
  for (let seed = 1; seed <= 60; seed++) {
    const random = new SeededRandom(seed);
    const limit = 1 + random.below(300);
    const [sortTarget, sortOrder] = [random.below(5), 1 + random.below(2)];
    const sorter = new RowSorter(requestOf({ key: 'k', sortTarget, sortOrder, limit }));
    const kvs: Kv[] = [];
    const rowsMax = 1 + random.below(20);
    const bytesMax = 20 + random.below(2000);
    try {
      for (let count = random.below(2000); kvs.length < count; ) {
        const value = String(random.below(50)).repeat(random.below(20));
        const mod = random.below(500);
        const kv = { key: `k${100_000 + kvs.length}`, value, create: random.below(5), mod, version: 1, lease: 0n };
        kvs.push(kv);
        const view = rowOf(kv);
        sorter.add(view, 2, view.buffer.length - 2);
        if (random.below(30) > 0) continue;
        sorter.endRun();
        if (random.below(4) > 0) continue;
        const held = sorter.heldBytes;
        sorter.beginPrune();
        assert.equal(sorter.isPruning, sorter.heldRows > limit);
        while (sorter.isPruning) {
          const before = sorter.heldBytes;
          sorter.prune(rowsMax, bytesMax);
          slices++;
          // The slice's rows, the last of which may be large, with what each costs beside its bytes.
          const part = Math.min(bytesMax + 100, rowsMax * 100) + rowsMax * 40;
          assert.ok(sorter.heldBytes <= before + part, 'a slice moves more than its part');
          assert.ok(sorter.heldBytes <= 2 * held);
        }
        assert.ok(sorter.heldRows <= limit || sorter.heldBytes === held);
      }
      sorter.endRun();
      const out = new ByteWriter(16);
      while (sorter.emit(out, rowsMax, bytesMax));
      const field = fields[sortTarget]!;
      const sign = sortOrder === 2 ? -1 : 1;
      const sorted = kvs.toSorted((a, b) => (a[field] === b[field] ? 0 : a[field] < b[field] ? -sign : sign));
      const answered = decodeRange(out.bytes.subarray(0, out.length), 0).kvs;
      assert.deepEqual(answered, sorted.slice(0, limit));
      assert.equal(sorter.more, kvs.length > limit);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
  assert.ok(slices > 2000, `only ${slices} slices`);
});

test('a sorted read with a large limit prunes in slices: no turn merges more rows than its slice', () => {
  const COUNT = 12_000;
  const slice = { keys: 200, bytes: 1 << 20, countKeys: 200 };
  const checked = new CheckedStore();
  checked.begin();
  for (let i = 0; i < COUNT; i++) checked.put(`k${100_000 + i}`, String(i % 977));
  checked.commit();
  const options = { key: 'k', end: 'l', sortTarget: 4, sortOrder: 2, limit: 2000 };
  const out = new ByteWriter(16);
  const read = checked.store.rangeSliced(requestOf(options), out, slice);
  assert.ok(read instanceof RangeRead);
  let pruned = 0;
  for (let done = false; !done; ) {
    const [visited, answered] = [read.visited, read.answered];
    const writes = copiesOf(() => {
      done = read.step(out);
    });
    // A row is copied once when it is collected, merged or answered: each turn does one of the three.
    assert.ok(writes <= slice.keys, `${writes} rows were moved in a turn`);
    if (writes > 0 && read.visited === visited && read.answered === answered) pruned++;
  }
  // Once more than 8,096 rows are held, 2,000 of them are kept.
  assert.ok(pruned >= 10, `only ${pruned} turns of a prune`);
  assert.deepEqual(decodeRange(out.bytes.subarray(0, out.length), 2), checked.expected(options));
  assert.equal(checked.storage.pinned, 0);
});

/** How often bytes are copied into writers meanwhile: once a row. */
function copiesOf(run: () => void): number {
  const { copy } = ByteWriter.prototype;
  let count = 0;
  ByteWriter.prototype.copy = function (source, start, end): void {
    count++;
    copy.call(this, source, start, end);
  };
  try {
    run();
  } finally {
    ByteWriter.prototype.copy = copy;
  }
  return count;
}

test('what is remembered of pages is bounded, in entries and bytes, and the least recently used goes', () => {
  const random = new SeededRandom(5);
  const remainders = new PageRemainders({ entriesMax: 20, keyBytesMax: 600 });
  const names: string[] = [];
  const counts = new Map<string, number>();
  for (let i = 0; i < 20_000; i++) {
    const key = randomKey(random);
    const end = randomKey(random);
    const revision = random.below(3);
    const name = JSON.stringify([key, end, revision]);
    const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');
    if (random.below(2) === 0) {
      remainders.put(bytes(key), bytes(end), revision, i);
      counts.set(name, i);
      names.push(name);
    } else {
      const found = remainders.take(bytes(key), bytes(end), revision);
      assert.ok(found === -1 || found === counts.get(name), `${name}: ${found}`);
      if (found !== -1) names.push(name);
      if (new Set(names.slice(-10)).has(name)) assert.notEqual(found, -1, 'a recent one is gone');
    }
    assert.ok(remainders.size <= 20);
  }
  remainders.put(Buffer.alloc(200), Buffer.alloc(0), 1, 1);
  assert.equal(remainders.take(Buffer.alloc(200), Buffer.alloc(0), 1), -1, 'a key that takes too much is not kept');
  for (let i = 0; i < 100; i++) remainders.put(Buffer.alloc(100, i), Buffer.alloc(0), 1, 1);
  assert.ok(remainders.size <= 6, 'bytes are bounded');
});

test('a delete of more keys than are read ahead deletes all of them, and no other', () => {
  for (const count of [999, 1000, 1001, 3500]) {
    const checked = new CheckedStore();
    checked.begin();
    for (let i = 0; i < count; i++) checked.put(`k${10_000 + i}`, 'v');
    checked.put('j', 'stays');
    checked.put('l', 'stays');
    checked.commit();
    checked.begin();
    checked.put('k', 'in the same transaction');
    checked.put('k10000', 'again');
    assert.equal(checked.delete('k', 'l').length, count + 1);
    checked.commit();
    const all = { key: '\0', end: '\0' };
    assert.deepEqual(checked.range(all), checked.expected(all));
    assert.equal(checked.range(all).count, 2);
  }
});
