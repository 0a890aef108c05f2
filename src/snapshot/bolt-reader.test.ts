// Goal: the reader gives what bbolt wrote, finds the right meta, and names every structural fault instead of throwing or
// looping. Method: databases made by real bbolt and etcd (testdata/), then one targeted damage a fault; bolt.fuzz.ts does the
// damage at random.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { checkBolt } from './bolt-check.ts';
import {
  dumpLines,
  type Entry,
  loadFixture,
  MemoryFile,
  openBytes,
  sourceOf,
  sourcesOf,
  unwrap,
  writeAll,
} from './bolt-fixture.ts';
import { fnv64a } from './bolt-format.ts';
import { CursorStep, openBolt, verifySnapshotHash } from './bolt-reader.ts';

const PAGE = 4096;

/** 40 entries: pages 3 to 6 are leaves, 7 their branch, 8 the root bucket. */
function sample(): Buffer {
  const entries: Entry[] = Array.from({ length: 40 }, (_, i) => [Buffer.from(`key${100 + i}`), Buffer.alloc(300, i)]);
  return writeAll([sourceOf('key', entries)]);
}

/** The first fault that opening or checking meets. */
function fault(bytes: Buffer): string {
  const opened = openBolt(new MemoryFile(bytes));
  if (!opened.ok) return opened.error.reason;
  const checked = checkBolt(opened.value);
  return checked.ok ? 'sound' : checked.error.reason;
}

function damaged(change: (bytes: Buffer) => void): string {
  const bytes = sample();
  change(bytes);
  return fault(bytes);
}

/** Changes meta 0 and seals it again; meta 1 is made invalid so that it does not step in. */
function damagedMeta(change: (meta: Buffer) => void): string {
  return damaged((bytes) => {
    bytes.writeUInt32LE(0, PAGE + 16);
    sealMeta(bytes, 0, change);
  });
}

function sealMeta(bytes: Buffer, pageOffset: number, change: (meta: Buffer) => void): void {
  const meta = bytes.subarray(pageOffset + 16, pageOffset + 80);
  change(meta);
  meta.writeBigUInt64LE(fnv64a(meta, 0, 56), 56);
}

test('a database of real bbolt: nested, inline, empty buckets, overflow and free pages', () => {
  const reader = openBytes(loadFixture('bbolt-random'));
  const census = unwrap(checkBolt(reader));
  assert.ok(census.freePages > 0);
  const lines = dumpLines(reader);
  assert.equal(census.entries + census.buckets, lines.length);
  // The hash of what `boltcheck dump` prints for this file.
  const dump = createHash('sha256')
    .update(`${lines.join('\n')}\ncheck ok\n`)
    .digest('hex');
  assert.equal(dump, '08a3a82dac45ab61c08e36117e56da52591e75f3ea1c1850926cc659d568dfd8');
});

test('seek and get at, between and beyond the keys', () => {
  const keys = Array.from({ length: 500 }, (_, i) => Buffer.from(`k${String(i * 2).padStart(4, '0')}`));
  const bytes = writeAll([
    sourceOf(
      'b',
      keys.map((key) => [key, Buffer.concat([key, Buffer.alloc(100)])]),
    ),
    sourceOf('empty', []),
  ]);
  const bucket = unwrap(openBytes(bytes).bucket(Buffer.from('b')))!;
  for (let i = 0; i < 1000; i++) {
    const target = Buffer.from(`k${String(i).padStart(4, '0')}`);
    const value = unwrap(bucket.get(target));
    assert.equal(value?.subarray(0, 5).toString() ?? null, i % 2 === 0 ? target.toString() : null);
    const cursor = bucket.cursor();
    const expected = keys[Math.ceil(i / 2)];
    assert.equal(cursor.seek(target), expected === undefined ? CursorStep.end : CursorStep.entry);
    if (expected !== undefined) assert.ok(cursor.key.equals(expected));
    const following = keys[Math.ceil(i / 2) + 1];
    assert.equal(cursor.next(), following === undefined ? CursorStep.end : CursorStep.entry);
    if (following !== undefined) assert.ok(cursor.key.equals(following));
  }
  assert.equal(bucket.cursor().seek(Buffer.from('a')), CursorStep.entry);
  const empty = unwrap(openBytes(bytes).bucket(Buffer.from('empty')))!;
  assert.equal(empty.cursor().next(), CursorStep.end);
  assert.equal(unwrap(empty.get(Buffer.from('x'))), null);
  assert.equal(unwrap(openBytes(bytes).bucket(Buffer.from('none'))), null);
});

test('the valid meta with the higher transaction id counts', () => {
  assert.equal(openBytes(sample()).meta.txid, 2n);
  const torn = sample();
  torn.writeUInt8(torn[70]! ^ 1, 70);
  assert.equal(openBytes(torn).meta.txid, 1n);
  const newer = sample();
  sealMeta(newer, PAGE, (meta) => meta.writeBigUInt64LE(9n, 48));
  assert.equal(openBytes(newer).meta.txid, 9n);
});

test('page sizes of 1 KiB to 64 KiB, also when only the second meta tells', () => {
  for (let pageBytes = 1024; pageBytes <= 65536; pageBytes *= 2) {
    const bytes = emptyDatabase(pageBytes);
    assert.equal(fault(bytes), 'sound');
    assert.equal(openBytes(bytes).meta.pageBytes, pageBytes);
    bytes.fill(0xee, 0, 100);
    assert.equal(fault(bytes), 'sound');
    assert.equal(openBytes(bytes).meta.pageBytes, pageBytes);
  }
  assert.equal(fault(emptyDatabase(512)), 'meta page: unsupported page size');
  assert.equal(fault(emptyDatabase(131072)), 'meta page: unsupported page size');
});

/** What bbolt makes of a new file, at any page size. */
function emptyDatabase(pageBytes: number): Buffer {
  const bytes = Buffer.alloc(4 * pageBytes);
  for (const [page, flags] of [4, 4, 16, 2].entries()) {
    bytes.writeUInt32LE(page, page * pageBytes);
    bytes.writeUInt16LE(flags, page * pageBytes + 8);
  }
  for (const page of [0, 1]) {
    sealMeta(bytes, page * pageBytes, (meta) => {
      meta.writeUInt32LE(0xed0cdaed, 0);
      meta.writeUInt32LE(2, 4);
      meta.writeUInt32LE(pageBytes, 8);
      meta.writeUInt32LE(3, 16);
      meta.writeUInt32LE(2, 32);
      meta.writeUInt32LE(4, 40);
      meta.writeUInt32LE(page, 48);
    });
  }
  return bytes;
}

test('faults of the metas', () => {
  assert.equal(
    damagedMeta(() => undefined),
    'sound',
  );
  assert.equal(
    damagedMeta((meta) => meta.writeUInt32LE(1, 0)),
    'meta page: bad magic',
  );
  assert.equal(
    damagedMeta((meta) => meta.writeUInt32LE(3, 4)),
    'meta page: unknown version',
  );
  assert.equal(
    damagedMeta((meta) => meta.writeUInt32LE(4097, 8)),
    'meta page: unsupported page size',
  );
  assert.equal(
    damagedMeta((meta) => meta.writeUInt32LE(1, 16)),
    'root page is out of range',
  );
  assert.equal(
    damagedMeta((meta) => meta.writeUInt32LE(9, 16)),
    'root page is out of range',
  );
  assert.equal(
    damagedMeta((meta) => meta.writeUInt32LE(9, 32)),
    'freelist page is out of range',
  );
  assert.equal(
    damagedMeta((meta) => meta.fill(0xff, 32, 40)),
    'sound',
  );
  assert.equal(
    damagedMeta((meta) => meta.writeUInt32LE(10, 40)),
    'file is shorter than its meta page says',
  );
  assert.equal(
    damagedMeta((meta) => meta.fill(0xff, 40, 48)),
    'file is shorter than its meta page says',
  );
  assert.equal(
    damaged((bytes) => bytes.fill(0, 16, 17).fill(0, PAGE + 16, PAGE + 17)),
    'meta page: bad magic',
  );
  const bothTorn = (bytes: Buffer): void => void bytes.fill(0x55, 72, 73).fill(0x55, PAGE + 72, PAGE + 73);
  assert.equal(damaged(bothTorn), 'meta page: checksum mismatch');
  assert.equal(fault(Buffer.alloc(0)), 'meta page is cut short');
  assert.equal(fault(sample().subarray(0, 6 * PAGE)), 'file is shorter than its meta page says');
});

test('faults of pages', () => {
  const leaf = 3 * PAGE;
  const branch = 7 * PAGE;
  assert.equal(
    damaged((b) => b.writeUInt32LE(4, leaf)),
    'page does not carry its own number',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(1, leaf + 4)),
    'page does not carry its own number',
  );
  assert.equal(
    damaged((b) => b.writeUInt16LE(3, leaf + 8)),
    'page is neither branch nor leaf',
  );
  assert.equal(
    damaged((b) => b.writeUInt16LE(300, leaf + 10)),
    'element table goes past the page',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(0xffffffff, leaf + 12)),
    'overflow goes past the last page',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(1, leaf + 12)),
    'page is referenced more than once',
  );
  assert.equal(
    damaged((b) => b.writeUInt16LE(0, branch + 10)),
    'branch page without elements',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(99, branch + 16 + 8)),
    'page number is out of range',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(1, branch + 16 + 8)),
    'page number is out of range',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(1, branch + 16 + 12)),
    'page number is out of range',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(2, branch + 16 + 8)),
    'page is neither branch nor leaf',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(4, branch + 16 + 8)),
    "key reaches the parent's next key",
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(3, branch + 32 + 8)),
    'page is referenced more than once',
  );
  assert.equal(
    damaged((b) => b.writeUInt16LE(3, branch + 10)),
    'page is neither reachable nor free',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(7, branch + 16 + 8)),
    'page is referenced more than once',
  );
});

test('faults of elements', () => {
  const element = 3 * PAGE + 16;
  assert.equal(
    damaged((b) => b.writeUInt32LE(2, element)),
    'unknown element flags',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(16, element + 4)),
    'elements overlap',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(4000, element + 16 + 4)),
    'element goes past the page',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(0, element + 8)),
    'empty key',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(32769, element + 8)),
    'key is too long',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(0x7fffffff, element + 12)),
    'value is too long',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(4000, element + 12)),
    'element goes past the page',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(301, element + 12)),
    'elements overlap',
  );
  const firstKey = 3 * PAGE + 16 + 12 * 16;
  assert.equal(
    damaged((b) => b.write('kez', firstKey)),
    'keys do not ascend',
  );
  assert.equal(
    damaged((b) => b.write('kex', firstKey)),
    "key is below its parent's key",
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(1, element)),
    // 300 zeros read as a bucket header: root 0.
    'inline bucket page is not a leaf',
  );
  // The root bucket: one element with its key "key" and a bucket header as its value.
  const header = 8 * PAGE + 32 + 3;
  assert.equal(
    damaged((b) => b.writeUInt32LE(15, 8 * PAGE + 16 + 12)),
    'bucket header is cut short',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(0, header)),
    'inline bucket page is cut short',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(8, header)),
    'page is referenced more than once',
  );
  const inline = (b: Buffer): void => {
    b.writeUInt32LE(0, header);
    b.writeUInt32LE(32, 8 * PAGE + 16 + 12);
  };
  assert.equal(damaged(inline), 'inline bucket page is not a leaf');
});

test('faults of the freelist', () => {
  const freelist = 2 * PAGE;
  const free = (b: Buffer, ...pages: number[]): void => {
    b.writeUInt16LE(pages.length, freelist + 10);
    for (const [i, page] of pages.entries()) b.writeUInt32LE(page, freelist + 16 + i * 8);
  };
  assert.equal(
    damaged((b) => free(b, 3)),
    'page is referenced and free',
  );
  assert.equal(
    damaged((b) => free(b, 2)),
    'page is referenced and free',
  );
  assert.equal(
    damaged((b) => free(b, 1)),
    'free page is out of range',
  );
  assert.equal(
    damaged((b) => free(b, 9)),
    'free page is out of range',
  );
  assert.equal(
    damaged((b) => free(b, 5, 5)),
    'page is free twice',
  );
  assert.equal(
    damaged((b) => b.writeUInt16LE(600, freelist + 10)),
    'freelist goes past its pages',
  );
  assert.equal(
    damaged((b) => b.writeUInt16LE(2, freelist + 8)),
    'page is not a freelist',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(9, freelist)),
    'page does not carry its own number',
  );
  assert.equal(
    damaged((b) => b.writeUInt32LE(9, freelist + 12)),
    'overflow goes past the last page',
  );
  const long = (b: Buffer): void => {
    b.writeUInt16LE(0xffff, freelist + 10);
    b.writeUInt32LE(3, freelist + 20);
  };
  assert.equal(damaged(long), 'freelist goes past its pages');
  // A long freelist keeps its count in the first slot; here it is zero.
  assert.equal(
    damaged((b) => b.writeUInt16LE(0xffff, freelist + 10)),
    'sound',
  );
});

test('cycles end without the check too: a cursor alone never loops', () => {
  // A branch whose only element is itself.
  const bytes = sample();
  bytes.writeUInt16LE(1, 7 * PAGE + 10);
  bytes.writeUInt32LE(7, 7 * PAGE + 16 + 8);
  const cursor = unwrap(openBytes(bytes).bucket(Buffer.from('key')))!.cursor();
  assert.equal(cursor.next(), CursorStep.error);
  assert.match(cursor.error!.reason, /too deep/);
  assert.equal(cursor.next(), CursorStep.error);
  assert.equal(cursor.seek(Buffer.from('key100')), CursorStep.error);
  // A bucket that names the root bucket as its own tree: buckets within buckets without end.
  const nested = sample();
  nested.writeUInt32LE(8, 8 * PAGE + 32 + 3);
  let bucket = openBytes(nested).root();
  let depth = 0;
  for (;;) {
    const inner = bucket.bucket(Buffer.from('key'));
    if (!inner.ok) {
      assert.match(inner.error.reason, /nested too deep/);
      break;
    }
    bucket = inner.value!;
    depth++;
  }
  assert.equal(depth, 16);
});

test('bounds of overflow, and files that end early', () => {
  const entries: Entry[] = Array.from({ length: 9000 }, (_, i) => [Buffer.from(`key${10000 + i}`), Buffer.alloc(300)]);
  const bytes = writeAll([sourceOf('key', entries)]);
  const branch = Array.from({ length: 500 }, (_, page) => page).find(
    (page) => bytes.readUInt16LE(page * PAGE + 8) === 1,
  )!;
  const changed = (page: number, overflow: number, count: number): Buffer => {
    const copy = Buffer.from(bytes);
    copy.writeUInt32LE(overflow, page * PAGE + 12);
    copy.writeUInt16LE(count, page * PAGE + 10);
    return copy;
  };
  assert.equal(fault(changed(branch, 64, 2)), 'page with its overflow is too large');
  const emptyLeaf = openBytes(changed(3, 5, 0));
  const cursor = unwrap(emptyLeaf.bucket(Buffer.from('key')))!.cursor();
  assert.equal(cursor.next(), CursorStep.error);
  assert.equal(cursor.error!.reason, 'overflow without elements');
  // A file that gives less than its size says.
  const cut = (length: number): string => {
    const file = new MemoryFile(sample());
    const opened = unwrap(
      openBolt({ size: file.size, read: (at, n) => file.read(at, Math.min(n, Math.max(length - at, 0))) }),
    );
    const checked = checkBolt(opened);
    return checked.ok ? 'sound' : checked.error.reason;
  };
  assert.equal(cut(2 * PAGE), 'freelist page is cut short');
  assert.equal(cut(5 * PAGE + 100), 'page is cut short');
  assert.equal(cut(9 * PAGE), 'sound');
});

test('an error names its byte', () => {
  const bytes = sample();
  bytes.writeUInt32LE(0, 5 * PAGE + 16 + 16 + 8);
  const checked = checkBolt(openBytes(bytes));
  assert.deepEqual(checked, { ok: false, error: { offset: 5 * PAGE + 32, reason: 'empty key' } });
});

test('memory of an iteration: one page a level, each page read once', () => {
  const file = new MemoryFile(sample());
  const opened = unwrap(openBolt(file));
  file.reads = 0;
  const cursor = unwrap(opened.bucket(Buffer.from('key')))!.cursor();
  while (cursor.next() === CursorStep.entry);
  assert.equal(file.reads, 1 + 1 + 4);
});

test('the trailing hash of a real snapshot', () => {
  const bytes = loadFixture('etcd-compacted');
  assert.equal(unwrap(verifySnapshotHash(new MemoryFile(bytes))), bytes.length - 32);
  const flipped = Buffer.from(bytes);
  flipped.writeUInt8(flipped[5000]! ^ 1, 5000);
  assert.deepEqual(verifySnapshotHash(new MemoryFile(flipped)), {
    ok: false,
    error: { offset: bytes.length - 32, reason: 'snapshot hash does not match the file' },
  });
  assert.equal(verifySnapshotHash(new MemoryFile(bytes.subarray(0, bytes.length - 32))).ok, false);
});

test('a real snapshot copied through the writer keeps its content', () => {
  const reader = openBytes(loadFixture('etcd-compacted'));
  const copy = openBytes(writeAll(sourcesOf(reader)));
  assert.deepEqual(dumpLines(copy), dumpLines(reader));
  unwrap(checkBolt(copy));
});
