// Goal: the writer's bytes are a sound bbolt file with exactly the given content, in order, whatever the shapes; its promises
// on size, memory and order hold. Method: small cases with known layouts, a sweep over page boundaries, and seeded random
// content, each read back by bolt-reader and checked whole; bolt.peer-test.ts does the same with real bbolt.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import { snapshotChunkBytes } from '../storage-limits.ts';
import { checkBolt } from './bolt-check.ts';
import {
  dumpLines,
  type Entry,
  MemoryFile,
  openBytes,
  randomEntries,
  sourceOf,
  unwrap,
  writeAll,
} from './bolt-fixture.ts';
import { verifySnapshotHash } from './bolt-reader.ts';
import { type BucketSource, planBolt, planBoltSteps, snapshotWithHash, writeBolt } from './bolt-writer.ts';

const PAGE = 4096;

function expectedLines(buckets: readonly (readonly [string, readonly Entry[]])[]): string[] {
  return buckets.flatMap(([name, entries]) => {
    const hex = Buffer.from(name).toString('hex');
    return [` ${hex} -`, ...entries.map(([key, value]) => `${hex} ${key.toString('hex')} ${value.toString('hex')}`)];
  });
}

/** Writes, checks, compares the content, and that every branch page has the two children that bbolt's rebalance needs. */
function roundTrip(buckets: readonly (readonly [string, readonly Entry[]])[]): Buffer {
  const sources = buckets.map(([name, entries]) => sourceOf(name, entries));
  const bytes = writeAll(sources);
  assert.equal(bytes.length, planBolt(sources).fileBytes);
  const reader = openBytes(bytes);
  const census = unwrap(checkBolt(reader));
  assert.equal(census.freePages, 0);
  assert.equal(census.buckets, buckets.length);
  assert.deepEqual(dumpLines(reader), expectedLines(buckets));
  for (let page = 3; page < reader.meta.pageCount; page += 1 + bytes.readUInt32LE(page * PAGE + 12)) {
    const isBranch = bytes.readUInt16LE(page * PAGE + 8) === 1;
    if (isBranch) assert.ok(bytes.readUInt16LE(page * PAGE + 10) >= 2, 'a branch page has one child only');
  }
  return bytes;
}

function numbered(count: number, keyBytes: number, valueBytes: number): Entry[] {
  return Array.from({ length: count }, (_, i) => {
    const key = Buffer.alloc(keyBytes);
    key.writeUInt32BE(i);
    return [key, Buffer.alloc(valueBytes, i & 255)];
  });
}

test('no bucket, empty buckets, single entries', () => {
  assert.equal(roundTrip([]).length, 4 * PAGE);
  assert.equal(roundTrip([['alarm', []]]).length, 5 * PAGE);
  roundTrip([
    ['alarm', []],
    ['auth', [[Buffer.from('k'), Buffer.alloc(0)]]],
    ['key', []],
  ]);
});

test('pages are in post-order: a branch follows its children, the root bucket is last', () => {
  const bytes = roundTrip([['key', numbered(40, 17, 300)]]);
  const flags = Array.from({ length: bytes.length / PAGE }, (_, page) => bytes.readUInt16LE(page * PAGE + 8));
  assert.deepEqual(flags, [4, 4, 16, 2, 2, 2, 2, 1, 2]);
});

test('three branch levels', () => {
  roundTrip([['key', numbered(3000, 600, 2)]]);
});

test('every fill of a leaf around the page size', () => {
  for (let valueBytes = 1980; valueBytes <= 2040; valueBytes++) roundTrip([['key', numbered(5, 17, valueBytes)]]);
  for (let valueBytes = 4030; valueBytes <= 4070; valueBytes++) roundTrip([['key', numbered(3, 17, valueBytes)]]);
});

test('every count of children around the fill of a branch page, with short and with huge keys', () => {
  for (let count = 100; count <= 160; count++) roundTrip([['key', numbered(count, 17, 4000)]]);
  for (let count = 1; count <= 12; count++) roundTrip([['key', numbered(count, 2100, 3000)]]);
  for (let count = 1; count <= 12; count++) roundTrip([['key', numbered(count, 32768, 0)]]);
});

test('large values take overflow pages, small ones fill the rest of them', () => {
  const big = Buffer.alloc(1_600_000, 7);
  const entries: Entry[] = [
    [Buffer.from('a'), big],
    [Buffer.from('b'), Buffer.from('small')],
    [Buffer.from('c'), big],
    [Buffer.from('d'), Buffer.alloc(3 * 1024 * 1024, 9)],
  ];
  const bytes = roundTrip([['key', entries]]);
  assert.ok(bytes.length < 6_500_000);
});

test('random content', () => {
  const seed = Date.now() % 1_000_000;
  console.log(`bolt-writer random content: seed ${seed}`);
  const random = new SeededRandom(seed);
  for (let round = 0; round < 12; round++) {
    roundTrip([
      ['alarm', randomEntries(random, random.below(3))],
      ['key', randomEntries(random, random.below(600))],
      ['meta', randomEntries(random, random.below(40))],
    ]);
  }
});

test('equal content gives equal bytes and slack is zero', () => {
  const sources = [sourceOf('key', numbered(100, 17, 300))];
  const bytes = writeAll(sources);
  for (let i = 0; i < 50; i++) Buffer.allocUnsafeSlow(snapshotChunkBytes).fill(0xaa);
  assert.ok(writeAll(sources).equals(bytes));
  // Twelve elements of 333 bytes behind a header of 16 leave 84 bytes.
  assert.ok(bytes.subarray(4 * PAGE - 84, 4 * PAGE).equals(Buffer.alloc(84)));
});

test('a source may reuse its buffers and may give sizes alone to the first pass', () => {
  const entries = numbered(500, 17, 200);
  const key = Buffer.alloc(17);
  const value = Buffer.alloc(200);
  let sizesAsked = 0;
  const reusing: BucketSource = {
    name: Buffer.from('key'),
    *entries(): Generator<readonly [Buffer, Buffer]> {
      for (const entry of entries) {
        key.set(entry[0]);
        value.set(entry[1]);
        yield [key, value];
      }
    },
    *sizes(): Generator<readonly [number, number]> {
      sizesAsked++;
      for (const entry of entries) yield [entry[0].length, entry[1].length];
    },
  };
  assert.ok(writeAll([reusing]).equals(writeAll([sourceOf('key', entries)])));
  assert.equal(sizesAsked, 1);
});

test('the first pass comes in slices', () => {
  const steps = planBoltSteps([sourceOf('key', numbered(10_000, 17, 1))]);
  let slices = 0;
  while (!steps.next().done) slices++;
  assert.equal(slices, 2);
});

test('chunks are whole pages, bounded, and pulled: nothing is read ahead of the consumer', () => {
  let given = 0;
  const source: BucketSource = {
    name: Buffer.from('key'),
    *entries(): Generator<readonly [Buffer, Buffer]> {
      for (const entry of numbered(20_000, 17, 300)) {
        given++;
        yield entry;
      }
    },
  };
  const plan = planBolt([source]);
  given = 0;
  let bytes = 0;
  for (const chunk of writeBolt([source], plan)) {
    bytes += chunk.length;
    assert.equal(chunk.length % PAGE, 0);
    assert.ok(chunk.length <= snapshotChunkBytes);
    assert.ok(given * 333 <= bytes + 2 * snapshotChunkBytes);
  }
  assert.equal(bytes, plan.fileBytes);
});

test('a consumer that leaves early ends the sources', () => {
  let ended = false;
  const source: BucketSource = {
    name: Buffer.from('key'),
    *entries(): Generator<readonly [Buffer, Buffer]> {
      try {
        yield* numbered(5000, 17, 300);
      } finally {
        ended = true;
      }
    },
  };
  const plan = planBolt([source]);
  ended = false;
  let chunks = 0;
  for (const _chunk of writeBolt([source], plan)) if (++chunks === 3) break;
  assert.ok(ended);
});

test('wrong order, wrong lengths and changed sources are bugs', () => {
  const a: Entry = [Buffer.from('a'), Buffer.from('1')];
  const b: Entry = [Buffer.from('b'), Buffer.from('2')];
  assert.throws(() => writeAll([sourceOf('key', [b, a])]), /keys do not ascend/);
  assert.throws(() => writeAll([sourceOf('key', [a, a])]), /keys do not ascend/);
  assert.throws(() => writeAll([sourceOf('b', []), sourceOf('a', [])]), /bucket names do not ascend/);
  assert.throws(() => writeAll([sourceOf('a', []), sourceOf('a', [])]), /bucket names do not ascend/);
  assert.throws(() => writeAll([sourceOf('key', [[Buffer.alloc(0), Buffer.alloc(1)]])]), /empty key/);
  assert.throws(() => writeAll([sourceOf('key', [[Buffer.alloc(32769), Buffer.alloc(1)]])]), /key too long/);
  const many = numbered(5000, 17, 300);
  const plan = planBolt([sourceOf('key', many.slice(0, 50))]);
  assert.throws(() => [...writeBolt([sourceOf('key', many)], plan)], /more pages than planned/);
  assert.throws(() => [...writeBolt([sourceOf('key', many.slice(0, 10))], plan)], /sources changed/);
});

test('keys ascend across the end of a leaf too', () => {
  const entries = numbered(40, 17, 300);
  for (let i = 1; i < entries.length; i++) {
    const swapped = [...entries];
    [swapped[i - 1], swapped[i]] = [entries[i]!, entries[i - 1]!];
    assert.throws(() => writeAll([sourceOf('key', swapped)]), /keys do not ascend/);
  }
});

test('the snapshot ends with the SHA-256 of the file', () => {
  const sources = [sourceOf('key', numbered(1000, 17, 300))];
  const plan = planBolt(sources);
  const bytes = Buffer.concat([...snapshotWithHash(sources, plan)]);
  assert.equal(bytes.length, plan.fileBytes + 32);
  assert.equal(bytes.length % 512, 32);
  const digest = createHash('sha256').update(bytes.subarray(0, plan.fileBytes)).digest();
  assert.ok(bytes.subarray(plan.fileBytes).equals(digest));
  assert.equal(unwrap(verifySnapshotHash(new MemoryFile(bytes))), plan.fileBytes);
  assert.equal(openBytes(bytes).meta.pageCount, plan.pageCount);
});
