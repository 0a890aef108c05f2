// Makes a database of ours of a leader's snapshot, a bbolt file, in one go and on the caller's thread: that of install-worker.ts while the
// member serves, the only one at a start (server/snapshot-recovery.ts). Rows and index go through the engine (stored-rows.ts), all
// other buckets as they are. The database is of no use before the end: whoever opens it renames it then.
//
// Every page that is read is checked on the way (snapshot/bolt-reader.ts), so a damaged file ends it and not what is opened later.
// Memory: what the engine holds of rows that are not flushed, `partBytes`, and one page of the file with its largest value.

import { assert } from '../base/assert.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { type Clock, systemClock } from '../io/clock.ts';
import { type Disk, readFully } from '../io/file.ts';
import { LmdbEnvironment, removeLmdb } from '../io/lmdb.ts';
import type { ReadEnvironment } from '../io/table.ts';
import {
  type BoltBucket,
  type BoltCursor,
  type BoltReader,
  type BoltResult,
  CursorStep,
  openBolt,
  type RandomAccessFile,
} from '../snapshot/bolt-reader.ts';
import {
  BUCKET_NAMES,
  type BucketName,
  decodeConfState,
  decodeCounter,
  isRevisionKey,
  MetaKey,
} from '../snapshot/schema.ts';
import { type BackendLimits, backendLimits, type IndexLimits } from '../storage-limits.ts';
import { Backend } from './backend.ts';
import type { SnapshotFile } from './backend-options.ts';
import { readEngineState, TABLE_NAMES } from './engine-state.ts';
import { FlusherInline } from './flusher-port.ts';
import { installPath, putInPlace } from './install.ts';
import { StoredRows } from './stored-rows.ts';

/** Rows and bytes between two runs of the flusher: those of a commit. */
const partRows = 10_000;
const partBytes: number = 8 * 1024 * 1024;

/** A file of the disk for the reader of bbolt files. */
export class DiskBytes implements RandomAccessFile {
  readonly size: number;
  readonly #disk: Disk;
  readonly #fd: number;

  constructor(disk: Disk, path: string) {
    this.#disk = disk;
    this.#fd = disk.open(path, 'read');
    this.size = disk.size(this.#fd);
  }

  read(offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(Math.max(0, Math.min(length, this.size - offset)));
    return bytes.subarray(0, readFully(this.#disk, this.#fd, bytes, 0, bytes.length, offset));
  }

  close(): void {
    this.#disk.close(this.#fd);
  }
}

/** What a snapshot's file says of itself. */
export interface SnapshotFacts {
  readonly consistentIndex: number;
  /** 0: it is not told. */
  readonly term: number;
}

/** Reads a few pages; an error's text for a file that no member can be of. */
export function readSnapshotFacts(file: RandomAccessFile): BoltResult<SnapshotFacts> {
  const opened = openBolt(file);
  if (!opened.ok) return opened;
  const meta = opened.value.bucket(MetaBucket);
  if (!meta.ok) return meta;
  const index = counterOf(meta.value, MetaKey.consistentIndex);
  const term = counterOf(meta.value, MetaKey.term);
  const confState = meta.value?.get(MetaKey.confState) ?? { ok: true, value: null };
  if (!index.ok) return index;
  if (!term.ok) return term;
  if (!confState.ok) return confState;
  for (const key of [MetaKey.scheduledCompactRev, MetaKey.finishedCompactRev]) {
    const revision = meta.value?.get(key) ?? { ok: true, value: null };
    if (!revision.ok) return revision;
    if (revision.value === null || isRevisionKey(revision.value)) continue;
    return { ok: false, error: { offset: 0, reason: `meta/${key.toString()} is no revision` } };
  }
  if (confState.value === null || decodeConfState(confState.value) === null) {
    return { ok: false, error: { offset: 0, reason: 'it does not tell the members of its cluster (meta/confState)' } };
  }
  return { ok: true, value: { consistentIndex: index.value, term: term.value } };
}

const MetaBucket: Buffer = Buffer.from('meta');

/** 0: there is none. */
function counterOf(meta: BoltBucket | null, key: Buffer): BoltResult<number> {
  const bytes = meta === null ? null : meta.get(key);
  if (bytes !== null && !bytes.ok) return bytes;
  const value = bytes === null || bytes.value === null ? 0 : decodeCounter(bytes.value);
  if (value !== null) return { ok: true, value };
  return { ok: false, error: { offset: 0, reason: `meta/${key.toString()} is no counter` } };
}

/** Null, or why the snapshot is not of the entry that it was sent for. */
export function snapshotMismatch(facts: SnapshotFacts, index: number): string | null {
  // Neither etcd nor this program sends another. A newer one would tell of entries that this log need not have: a stop before they come
  // would leave a database beyond its log, which no start takes.
  if (facts.consistentIndex === index) return null;
  return `its consistent index is ${facts.consistentIndex}, but it was sent as a snapshot of entry ${index}`;
}

/** The new database, before it is filled. */
export interface ConversionTarget {
  readonly backend: Backend;
  readonly flusher: FlusherInline;
  /** Removes what cannot be completed. */
  discard(): void;
}

/** Nothing is done by time: the flusher runs when it is told to. */
const timeless: Clock = { ...systemClock, setTimer: () => ({ dueMs: Infinity }), clearTimer: () => {} };

export interface TargetOptions {
  readonly path: string;
  readonly noSync: boolean;
  readonly limits?: BackendLimits;
  readonly indexLimits?: IndexLimits;
}

/** Over LMDB, at `path`; what an earlier process has left there is removed. */
export function openTarget(options: TargetOptions): ConversionTarget {
  const { path, noSync, limits = backendLimits } = options;
  removeLmdb(path);
  const environment = new LmdbEnvironment({ path, noSync });
  for (const name of TABLE_NAMES) environment.table(name);
  const reader: ReadEnvironment = new LmdbEnvironment({ path, noSync, trusted: true, mapped: true });
  const flusher = new FlusherInline({
    environment,
    pin: () => environment.pin(),
    now: () => performance.now(),
    limits,
  });
  const onFatal = (error: FatalError): never => {
    throw error;
  };
  const backend = new Backend({ ...options, clock: timeless, onFatal }, { reader, port: flusher, reopen: null });
  const discard = (): void => {
    reader.close();
    environment.close();
    // The disk may have been too small for it, and the log needs it.
    removeLmdb(path);
  };
  return { backend, flusher, discard };
}

/** Databases that nobody has open, before a start. */
export interface DatabaseFiles {
  /** 0: a new one. */
  consistentIndex(path: string): number;
  /** The one that is to take the place of that at `path`, empty. */
  openNext(path: string): ConversionTarget;
  /** It is complete: durably renamed over the other. */
  putInPlace(path: string): void;
}

export function lmdbFiles(noSync: boolean): DatabaseFiles {
  return {
    consistentIndex: storedConsistentIndex,
    openNext: (path) => openTarget({ path: installPath(path), noSync }),
    putInPlace,
  };
}

function storedConsistentIndex(path: string): number {
  const environment = new LmdbEnvironment({ path });
  try {
    readEngineState(environment.table('keelson'), `the database ${path}`);
    const bytes = environment.table('meta').get(MetaKey.consistentIndex);
    // Whether it is sound is seen when it is opened for good.
    return bytes === undefined ? 0 : (decodeCounter(bytes) ?? 0);
  } finally {
    environment.close();
  }
}

/** Fills the database and closes it. Throws FatalError; then nothing is left of it. */
export function convertSnapshot(disk: Disk, snapshot: SnapshotFile, target: ConversionTarget): void {
  try {
    fill(disk, snapshot, target);
  } catch (error) {
    target.discard();
    throw error;
  }
  let isClosed = false;
  target.backend.close(() => {
    isClosed = true;
  });
  target.flusher.run();
  assert(isClosed, 'conversion: the database is not closed');
}

function fill(disk: Disk, snapshot: SnapshotFile, target: ConversionTarget): void {
  const file = new DiskBytes(disk, snapshot.path);
  try {
    new Conversion(file, snapshot, target).run();
  } finally {
    file.close();
  }
}

class Conversion {
  readonly #file: RandomAccessFile;
  readonly #snapshot: SnapshotFile;
  readonly #backend: Backend;
  readonly #flusher: FlusherInline;

  constructor(file: RandomAccessFile, snapshot: SnapshotFile, target: ConversionTarget) {
    this.#file = file;
    this.#snapshot = snapshot;
    this.#backend = target.backend;
    this.#flusher = target.flusher;
  }

  run(): void {
    const facts = this.#sound(readSnapshotFacts(this.#file));
    const mismatch = snapshotMismatch(facts, this.#snapshot.index);
    if (mismatch !== null) throw this.#refusal(mismatch);
    const reader = this.#sound(openBolt(this.#file));
    const term = facts.term > 0 ? facts.term : this.#snapshot.term;
    this.#copyRows(reader, facts.consistentIndex, term);
    for (const name of BUCKET_NAMES) if (name !== 'key') this.#copyBucket(reader, name, facts.consistentIndex, term);
    this.#backend.endApply(facts.consistentIndex, term);
    this.#backend.settle();
    this.#flusher.run();
    assert(this.#backend.isSettled, 'conversion: the database is not complete');
  }

  #copyRows(reader: BoltReader, index: number, term: number): void {
    const rows = new StoredRows(this.#backend, index, term, (revision) => {
      throw this.#refusal(`its row ${revision} has no key, and no other row has one`);
    });
    let count = 0;
    for (const cursor of this.#entries(reader, 'key')) {
      if (!isRevisionKey(cursor.key)) throw this.#damage(cursor.entryOffset(), 'not a revision key');
      if (!rows.add(cursor.key, cursor.value))
        throw this.#damage(cursor.entryOffset(), 'not the KeyValue of its revision');
      if (++count % partRows === 0 || this.#backend.backlog() > partBytes) this.#flusher.run();
    }
    rows.end();
  }

  #copyBucket(reader: BoltReader, name: BucketName, index: number, term: number): void {
    for (const { key, value } of this.#entries(reader, name)) {
      const isNumber = key.equals(MetaKey.consistentIndex) || key.equals(MetaKey.term);
      // The engine writes them with what they belong to.
      if (name !== 'meta' || !isNumber) this.#backend.bucketPut(name, key, value);
      if (this.#backend.backlog() <= partBytes) continue;
      this.#backend.endApply(index, term);
      this.#backend.flush(() => {});
      this.#flusher.run();
    }
  }

  *#entries(reader: BoltReader, name: BucketName): Generator<BoltCursor, void, undefined> {
    const bucket = this.#sound(reader.bucket(Buffer.from(name)));
    if (bucket === null) return;
    const cursor = bucket.cursor();
    while (cursor.next() === CursorStep.entry) {
      if (cursor.isBucket) throw this.#damage(cursor.entryOffset(), 'a bucket among entries');
      yield cursor;
    }
    if (cursor.error !== null) throw this.#damage(cursor.error.offset, cursor.error.reason);
  }

  #sound<T>(result: BoltResult<T>): T {
    if (result.ok) return result.value;
    throw this.#damage(result.error.offset, result.error.reason);
  }

  #damage(offset: number, reason: string): FatalError {
    return this.#refusal(`it is damaged: ${reason} (at byte ${offset})`);
  }

  #refusal(reason: string): FatalError {
    return new FatalError(
      ExitCode.backendCorrupt,
      `the leader's snapshot ${this.#snapshot.path} cannot be installed: ${reason}. Remove this member, delete its data directory and ` +
        'add it again',
    );
  }
}
