// What the tests and the fuzzer of this folder share: files in memory, the databases under testdata/, random content, and a
// dump in the format of testdata/boltcheck. Only tests import it.
//
// testdata/ holds gzipped databases made by real programs:
//   bbolt-random.db.gz    `boltcheck make FILE 7 120` (bbolt 1.5.0): nested, inline and empty buckets, overflow, free pages
//   etcd-fresh.db.gz      `etcdctl snapshot save` of etcd 3.7.1 after random puts, deletes, a transaction; never compacted
//   etcd-compacted.db.gz  the same member later, compacted at revision 73 where /last has its tombstone, then written to

import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import type { Random } from '../io/random.ts';
import {
  type BoltBucket,
  type BoltReader,
  type BoltResult,
  CursorStep,
  openBolt,
  type RandomAccessFile,
} from './bolt-reader.ts';
import { type BucketSource, planBolt, writeBolt } from './bolt-writer.ts';

export class MemoryFile implements RandomAccessFile {
  readonly bytes: Buffer;
  readonly size: number;
  reads = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.size = bytes.length;
  }

  read(offset: number, length: number): Buffer {
    this.reads++;
    return Buffer.from(this.bytes.subarray(offset, offset + length));
  }
}

export type FixtureName = 'bbolt-random' | 'etcd-fresh' | 'etcd-compacted';

export function loadFixture(name: FixtureName): Buffer {
  return gunzipSync(readFileSync(new URL(`testdata/${name}.db.gz`, import.meta.url)));
}

export function unwrap<T>(result: BoltResult<T>): T {
  if (!result.ok) throw new Error(`${result.error.reason} at byte ${result.error.offset}`);
  return result.value;
}

export function openBytes(bytes: Buffer): BoltReader {
  return unwrap(openBolt(new MemoryFile(bytes)));
}

/** All entries, a line each, as `boltcheck dump` prints them before its "check" lines. */
export function dumpLines(reader: BoltReader): string[] {
  const lines: string[] = [];
  const walk = (bucket: BoltBucket, path: string): void => {
    const cursor = bucket.cursor();
    for (;;) {
      const step = cursor.next();
      if (step === CursorStep.error) throw new Error(`${cursor.error!.reason} at byte ${cursor.error!.offset}`);
      if (step === CursorStep.end) return;
      const key = cursor.key.toString('hex');
      lines.push(`${path} ${key} ${cursor.isBucket ? '-' : cursor.value.toString('hex')}`);
      if (cursor.isBucket) walk(unwrap(cursor.bucket()), path === '' ? key : `${path}/${key}`);
    }
  };
  walk(reader.root(), '');
  return lines;
}

/** The top-level buckets of a file as sources for the writer: a copy through reader and writer. */
export function sourcesOf(reader: BoltReader): BucketSource[] {
  const sources: BucketSource[] = [];
  const cursor = reader.root().cursor();
  while (cursor.next() === CursorStep.entry) {
    const name = Buffer.from(cursor.key);
    sources.push({ name, entries: () => entriesOf(unwrap(reader.bucket(name))!) });
  }
  return sources;
}

function* entriesOf(bucket: BoltBucket): Generator<readonly [Buffer, Buffer], void, undefined> {
  const cursor = bucket.cursor();
  for (;;) {
    const step = cursor.next();
    if (step === CursorStep.error) throw new Error(`${cursor.error!.reason} at byte ${cursor.error!.offset}`);
    if (step === CursorStep.end) return;
    if (!cursor.isBucket) yield [cursor.key, cursor.value];
  }
}

export type Entry = readonly [Buffer, Buffer];

export function sourceOf(name: string, entries: readonly Entry[]): BucketSource {
  return { name: Buffer.from(name), entries: () => entries };
}

export function writeAll(sources: readonly BucketSource[]): Buffer {
  return Buffer.concat([...writeBolt(sources, planBolt(sources))]);
}

/** Sorted entries with distinct random keys: most short, some at bbolt's limit, values from empty to several pages. */
export function randomEntries(random: Random, count: number): Entry[] {
  const byKey = new Map<string, Entry>();
  while (byKey.size < count) {
    const kind = random.below(100);
    const keyBytes = kind === 0 ? 32768 - random.below(200) : kind < 5 ? 1 + random.below(3000) : 2 + random.below(40);
    const key = Buffer.alloc(keyBytes);
    random.fill(key);
    const large = random.below(60) === 0;
    const value = Buffer.alloc(random.below(large ? 20_000 : 500));
    random.fill(value);
    byKey.set(key.toString('latin1'), [key, value]);
  }
  return [...byKey.values()].sort((a, b) => Buffer.compare(a[0], b[0]));
}
