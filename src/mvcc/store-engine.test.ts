// Goal: over the real engine a page costs a page, whatever has changed since its revision and whatever was deleted before it; and a
// read that goes on over turns keeps its revision while that is compacted. Method: the engine with its tables in memory; costs are
// entries and rows that were looked at, not time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteWriter } from '../base/byte-writer.ts';
import { SeededRandom } from '../io/random.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { backendLimits, indexLimits } from '../storage-limits.ts';
import { EngineBench, tinyIndexLimits, tinyLimits } from '../testing/engine-bench.ts';
import { RangeRead } from './range-read.ts';
import { decodeRange, type RangeOptions, type RangeResult, requestOf } from './store-fixture.ts';

const keyOf = (i: number): string => `/registry/pods/${100_000 + i}`;
const ALL = { key: '/registry/pods/', end: '/registry/pods0' };

function rangeOf(bench: EngineBench, options: RangeOptions): RangeResult {
  const out = new ByteWriter(64);
  const error = bench.store.range(requestOf(options), out);
  const { rangeRevision } = bench.store;
  if (error !== null) return { error, revision: rangeRevision, kvs: [], more: false, count: 0 };
  return decodeRange(out.bytes.subarray(0, out.length), rangeRevision);
}

/** Index entries that the range looked at. */
function costOf(bench: EngineBench, options: RangeOptions): [RangeResult, number] {
  const before = bench.backend.index.entriesScanned;
  const result = rangeOf(bench, options);
  return [result, bench.backend.index.entriesScanned - before];
}

function fill(bench: EngineBench, count: number): void {
  for (let from = 0; from < count; from += 500) {
    const success = [];
    for (let i = from; i < Math.min(count, from + 500); i++) {
      success.push({ put: { key: Buffer.from(keyOf(i)), value: Buffer.from(`v${i}`) } });
    }
    bench.txn({ success });
  }
}

test('a listing over a restart: its pages cost what they answer, at a revision thousands behind', () => {
  const random = new SeededRandom(1);
  let bench = new EngineBench({ ...backendLimits, mergeEntries: 1000 }, { ...indexLimits, countBlockKeys: 256 });
  fill(bench, 8000);
  const first = rangeOf(bench, { ...ALL, limit: 500 });
  assert.equal(first.count, 8000);
  const live = new Set(Array.from({ length: 8000 }, (_, i) => keyOf(i)));
  const put = (key: string): void => {
    bench.put(key, 'later');
    live.add(key);
  };
  for (let i = 0; i < 3000; i++) {
    const key = keyOf(random.below(8000));
    if (random.below(4) === 0) {
      bench.delete(key);
      live.delete(key);
    } else put(key);
    if (i % 100 === 0) bench.work();
    if (i % 10 === 0) put(`${key}-new`);
  }
  bench = bench.restart();
  bench.work();
  bench = bench.restart();
  const { index } = bench.backend;
  assert.ok(index.countFloor > first.revision, 'the restart knows what changed since: nothing is shown');
  let page: RangeOptions = { ...ALL, key: `${first.kvs.at(-1)!.key}\0`, limit: 500, revision: first.revision };
  let left = 7500;
  for (let pages = 0; left > 0; pages++) {
    const [result, cost] = costOf(bench, page);
    assert.equal(result.count, left, `count of page ${pages}`);
    assert.equal(result.kvs[0]!.key, keyOf(8000 - left));
    // A tenth of the keys between are newer than the listing, a few are deleted; the rest is what a page begins with.
    assert.ok(cost < 900, `page ${pages} looked at ${cost} entries`);
    left -= result.kvs.length;
    page = { ...page, key: `${result.kvs.at(-1)!.key}\0` };
    put(keyOf(random.below(8000)));
  }
  assert.equal(rangeOf(bench, { ...ALL, countOnly: true }).count, live.size);
});

test('keys that were deleted before the revision of a page cost it next to nothing', () => {
  const bench = new EngineBench({ ...backendLimits, mergeEntries: 1000 }, indexLimits);
  fill(bench, 2000);
  // Events come and go all the time; those that are gone stay until they are compacted.
  const events = { key: Buffer.from('/registry/pods/1009'), rangeEnd: Buffer.from('/registry/pods/1010') };
  for (let round = 0; round < 20; round++) {
    const success = [];
    for (let i = 0; i < 500; i++) {
      success.push({ put: { key: Buffer.from(`/registry/pods/1009${round}-${i}`), value: Buffer.from('e') } });
    }
    bench.txn({ success });
    bench.txn({ success: [{ delete: events }] });
    bench.work();
  }
  const { revision } = rangeOf(bench, { key: 'none' });
  bench.put(keyOf(1), 'later');
  bench.work();
  const restarted = bench.restart();
  restarted.work();
  const [result, cost] = costOf(restarted, { ...ALL, key: keyOf(850), limit: 20, revision });
  assert.deepEqual([result.kvs.length, result.kvs[0]!.key], [20, keyOf(850)]);
  assert.ok(cost < 150, `${cost} entries were looked at`);
  const [across, costAcross] = costOf(restarted, { ...ALL, key: keyOf(899), limit: 20, revision });
  assert.equal(across.kvs.length, 20);
  assert.ok(costAcross > 10_000, 'there is nothing in between: nothing is shown');
});

test('a read that goes on over turns holds its revision: compactions wait, and what comes behind them', () => {
  const random = new SeededRandom(2);
  for (let round = 0; round < 30; round++) {
    const bench = new EngineBench(tinyLimits, tinyIndexLimits);
    for (let i = 0; i < 60; i++) bench.put(keyOf(random.below(40)), `v${i}`);
    bench.work();
    const expected = rangeOf(bench, ALL);
    const hashBefore = bench.hashKv(expected.revision);
    const out = new ByteWriter(16);
    const parts: Buffer[] = [];
    const keep = (): void => {
      parts.push(Buffer.from(out.bytes.subarray(0, out.length)));
      out.reset();
    };
    const read = bench.store.rangeSliced(requestOf(ALL), out, { keys: 3, bytes: 1000, countKeys: 3 });
    assert.ok(read instanceof RangeRead);
    keep();
    for (let i = 0; i < 30; i++) {
      if (random.below(3) === 0) bench.delete(keyOf(random.below(40)), keyOf(random.below(40)));
      else bench.put(keyOf(random.below(60)), 'later');
    }
    bench.compact(bench.store.currentRevision - random.below(3));
    bench.work();
    const rowsBefore = bench.backend.compactedRows;
    const hash = bench.askHashKv(bench.store.currentRevision);
    bench.work();
    assert.equal(bench.backend.compactedRows, 0, 'rows are deleted under a read');
    assert.equal(hash(), null, 'a hash overtakes the compaction');
    assert.equal(rangeOf(bench, { ...ALL, revision: expected.revision }).error, etcdErrors.compacted);
    for (;;) {
      const done = read.step(out);
      keep();
      if (done) break;
      bench.put(keyOf(random.below(60)), 'meanwhile');
      bench.work();
    }
    assert.deepEqual(decodeRange(Buffer.concat(parts), expected.revision), expected);
    bench.work();
    assert.ok(bench.backend.compactedRows > rowsBefore, 'the compaction does not go on');
    assert.equal(typeof hash(), 'number');
    assert.equal(typeof hashBefore, 'number');
    // One at the revision of the compaction, or a read that is given up, holds nothing up.
    const second = bench.store.rangeSliced(requestOf(ALL), new ByteWriter(), { keys: 1, bytes: 1000, countKeys: 3 });
    assert.ok(second instanceof RangeRead);
    bench.compact(bench.store.currentRevision);
    bench.put('z', 'z');
    const third = bench.askHashKv(bench.store.currentRevision);
    bench.work();
    assert.equal(typeof third(), 'number');
    second.close();
    second.close();
  }
});
