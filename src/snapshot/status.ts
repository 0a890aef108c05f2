// What `etcdutl snapshot status` answers for a snapshot or a database file, and its four ways to print it. It follows Status()
// of etcd 3.7's etcdutl/snapshot/v3_snapshot.go; where that lists all faults or panics, this returns the first fault.
//
// The hash is CRC-32C over the whole content in file order: name of each bucket, then key and value of each entry (only the
// key of a nested bucket). It covers the consistent index and the members, so it differs between members of one cluster.
// The count is of distinct live keys, hence memory for one string a key, as in etcdutl.

import { crc32c } from '../base/crc32c.ts';
import { Reader, WireType } from '../proto/wire.ts';
import { checkBolt } from './bolt-check.ts';
import { type BoltBucket, type BoltReader, type BoltResult, CursorStep, failure } from './bolt-reader.ts';
import { isRevisionKey, isTombstoneKey, MetaKey, revisionMain } from './schema.ts';

export interface SnapshotStatus {
  readonly hash: number;
  /** Main revision of the last row in `key`; 0 when there is none. */
  readonly revision: number;
  readonly totalKey: number;
  /** Bytes of the pages in use, without a trailing hash. */
  readonly totalSize: number;
  /** storageVersion; empty when absent or not a version (before etcd 3.6). */
  readonly version: string;
}

/** A set of strings that goes past the 2^24 entries of a single Set. */
class KeySet {
  private readonly shards: readonly Set<string>[] = Array.from({ length: 64 }, () => new Set<string>());

  private shardOf(key: Buffer): Set<string> {
    return this.shards[crc32c(0, key) % this.shards.length]!;
  }
  add(key: Buffer): void {
    this.shardOf(key).add(key.toString('latin1'));
  }
  delete(key: Buffer): void {
    this.shardOf(key).delete(key.toString('latin1'));
  }
  count(): number {
    return this.shards.reduce((sum, shard) => sum + shard.size, 0);
  }
}

/** Checks the structure of the whole file, then reads all of it once more. Synchronous: for tools, not for the server. */
export function snapshotStatus(reader: BoltReader): BoltResult<SnapshotStatus> {
  const check = checkBolt(reader);
  if (!check.ok) return check;
  const version = readStorageVersion(reader);
  if (!version.ok) return version;
  const tally = { hash: 0, revision: 0, keys: new KeySet() };
  const buckets = reader.root().cursor();
  for (;;) {
    const step = buckets.next();
    if (step === CursorStep.error) return { ok: false, error: buckets.error! };
    if (step === CursorStep.end) break;
    if (!buckets.isBucket) return failure(0, 'an entry beside the buckets');
    const bucket = buckets.bucket();
    if (!bucket.ok) return bucket;
    tally.hash = crc32c(tally.hash, buckets.key);
    const added = addBucket(bucket.value, buckets.key.toString('latin1') === 'key', tally);
    if (!added.ok) return added;
  }
  const value = {
    hash: tally.hash,
    revision: tally.revision,
    totalKey: tally.keys.count(),
    totalSize: reader.meta.pageCount * reader.meta.pageBytes,
    version: version.value,
  };
  return { ok: true, value };
}

interface Tally {
  hash: number;
  revision: number;
  readonly keys: KeySet;
}

function addBucket(bucket: BoltBucket, isKeyBucket: boolean, tally: Tally): BoltResult<null> {
  const cursor = bucket.cursor();
  const wire = new Reader();
  for (;;) {
    const step = cursor.next();
    if (step === CursorStep.error) return { ok: false, error: cursor.error! };
    if (step === CursorStep.end) return { ok: true, value: null };
    tally.hash = crc32c(tally.hash, cursor.key);
    if (!cursor.isBucket) tally.hash = crc32c(tally.hash, cursor.value);
    if (!isKeyBucket) continue;
    const offset = cursor.entryOffset();
    if (cursor.isBucket || !isRevisionKey(cursor.key)) return failure(offset, 'not a revision key');
    tally.revision = revisionMain(cursor.key);
    const key = keyOfRow(wire, cursor.value);
    if (key === null) return failure(offset, 'the value is no KeyValue message');
    if (isTombstoneKey(cursor.key)) tally.keys.delete(key);
    else tally.keys.add(key);
  }
}

/** Field 1 of an mvccpb.KeyValue; null when the bytes are no message. */
function keyOfRow(wire: Reader, value: Buffer): Buffer | null {
  let start = 0;
  let end = 0;
  wire.reset(value, 0, value.length);
  while (wire.readTag()) {
    if (wire.fieldNumber === 1 && wire.wireType === WireType.bytes) {
      wire.readBytes();
      start = wire.bytesStart;
      end = wire.bytesEnd;
    } else {
      wire.skip();
    }
  }
  return wire.ok ? value.subarray(start, end) : null;
}

function readStorageVersion(reader: BoltReader): BoltResult<string> {
  const meta = reader.bucket(Buffer.from('meta'));
  if (!meta.ok) return meta;
  if (meta.value === null) return failure(0, 'no meta bucket');
  const stored = meta.value.get(MetaKey.storageVersion);
  if (!stored.ok) return stored;
  return { ok: true, value: stored.value === null ? '' : normalizeVersion(stored.value.toString('utf8')) };
}

/** As go-semver reads a version and prints it again; empty when it is none. */
function normalizeVersion(text: string): string {
  const match = /^([0-9]+)\.([0-9]+)\.([0-9]+)(?:-([^+]*))?(?:\+(.*))?$/s.exec(text);
  if (match === null) return '';
  const [, major, minor, patch, preRelease = '', metadata = ''] = match;
  const numbers = [BigInt(major!), BigInt(minor!), BigInt(patch!)];
  const identifier = /^(?:[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?$/;
  if (numbers.some((n) => n >= 1n << 63n) || !identifier.test(preRelease) || !identifier.test(metadata)) return '';
  return numbers.join('.') + (preRelease && `-${preRelease}`) + (metadata && `+${metadata}`);
}

export const STATUS_FORMATS = ['simple', 'json', 'fields', 'table'] as const;
export type StatusFormat = (typeof STATUS_FORMATS)[number];

/** The output of `etcdutl snapshot status -w FORMAT`, last newline included. */
export function formatStatus(status: SnapshotStatus, format: StatusFormat): string {
  const { hash, revision, totalKey, totalSize, version } = status;
  if (format === 'json') return `${JSON.stringify({ hash, revision, totalKey, totalSize, version })}\n`;
  if (format === 'fields') {
    return `"Hash" : ${hash}\n"Revision" : ${revision}\n"Keys" : ${totalKey}\n"Size" : ${totalSize}\n"Version" : ${version}\n`;
  }
  const row = [hash.toString(16), String(revision), String(totalKey), humanBytes(totalSize), version];
  if (format === 'simple') return `${row.join(', ')}\n`;
  return table(['HASH', 'REVISION', 'TOTAL KEYS', 'TOTAL SIZE', 'VERSION'], row);
}

/** As go-humanize prints sizes: decimal units, one digit after the point below ten. */
function humanBytes(bytes: number): string {
  if (bytes < 10) return `${bytes} B`;
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  const exponent = Math.min(Math.floor(Math.log(bytes) / Math.log(1000)), units.length - 1);
  const value = Math.floor((bytes / 1000 ** exponent) * 10 + 0.5) / 10;
  if (value < 10) return `${value.toFixed(1)} ${units[exponent]}`;
  // Go prints an exact half as the even neighbour: 20.5 MB is "20 MB".
  const isHalfAboveEven = value % 1 === 0.5 && Math.floor(value) % 2 === 0;
  return `${isHalfAboveEven ? Math.floor(value) : Math.round(value)} ${units[exponent]}`;
}

function table(titles: readonly string[], row: readonly string[]): string {
  const widths = titles.map((title, i) => Math.max(title.length, row[i]!.length));
  const line = (left: string, middle: string, right: string): string =>
    `${left}${widths.map((width) => '─'.repeat(width + 2)).join(middle)}${right}\n`;
  const centered = titles.map((title, i) => {
    const space = widths[i]! - title.length;
    return title.padStart(title.length + Math.floor(space / 2)).padEnd(widths[i]!);
  });
  const right = row.map((text, i) => text.padStart(widths[i]!));
  return (
    line('┌', '┬', '┐') +
    `│ ${centered.join(' │ ')} │\n` +
    line('├', '┼', '┤') +
    `│ ${right.join(' │ ')} │\n` +
    line('└', '┴', '┘')
  );
}
