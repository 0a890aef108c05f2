// Hashes over the tables, in slices on the flusher: HashKV (rows of one revision; src/snapshot/hashkv.ts has the algorithm)
// and Hash (all of etcd's buckets but what differs between members). Who may ask for which revision is the caller's part.
//
// HashKV skips, at and below the compaction revision, what compaction does not keep. Which rows those are follows from
// `garbage`: a row there is superseded by a change at or below the hashed revision or is not; tombstones at or below the
// compaction revision never count (one exactly at it is left out by the algorithm, older ones are not kept).
//
// The first hash of a process reads all rows once (1 us each); later ones fold what row-hashes.ts remembers (10 ns each).
// A keyspace beyond limits.rowHashesMax is read each time instead.

import { crc32c } from '../base/crc32c.ts';
import { assertSound } from '../base/fatal.ts';
import type { ReadEnvironment } from '../io/table.ts';
import { KvHasher } from '../snapshot/hashkv.ts';
import {
  BUCKET_NAMES,
  encodeRevisionKey,
  isRevisionKey,
  MetaKey,
  revisionMain,
  revisionSub,
} from '../snapshot/schema.ts';
import type { Flusher, JobStep, RunningJob } from './flusher.ts';
import { GARBAGE_ENTRY_BYTES, GarbageEntry, garbageKeyMain } from './garbage.ts';
import type { JobKind } from './messages.ts';
import { RevisionList } from './revision-list.ts';
import { type HashFold, RowHashes } from './row-hashes.ts';

/** Ends a slice of reading by rows, bytes and time. */
class Slice {
  private readonly flusher: Flusher;
  private readonly deadlineMs: number;
  private rows = 0;
  private bytes = 0;

  constructor(flusher: Flusher) {
    this.flusher = flusher;
    this.deadlineMs = flusher.options.now() + flusher.limits.hashSliceMs;
  }

  /** Whether one more entry may be read. */
  takes(bytes: number): boolean {
    const { hashSliceRows, hashSliceBytes } = this.flusher.limits;
    if (this.rows >= hashSliceRows || this.bytes >= hashSliceBytes) return false;
    this.rows++;
    this.bytes += bytes;
    return this.rows % 256 !== 0 || this.flusher.options.now() < this.deadlineMs;
  }
}

/** The hash of the rows up to `revision`. Rows up to there do not change meanwhile: compactions are jobs that wait. */
export class RowHash {
  hash = 0;
  private readonly flusher: Flusher;
  private readonly revision: number;
  private readonly compactRevision: number;
  private readonly keepsNothing: boolean;
  private readonly dropped = new RevisionList();
  private readonly scanHasher: KvHasher;
  private loading: RowHashes | null = null;
  private loadEnd: Buffer | undefined;
  private fold: HashFold | null = null;
  private garbageRead: boolean;
  private garbageFrom: Buffer | undefined;
  private from: Buffer | undefined;

  /** For HashKV and for a compaction's own hash alike: their keep sets (hashkv.ts) differ only in a tombstone at `revision`
   * itself, which decides nothing but `keepsNothing`. */
  constructor(flusher: Flusher, revision: number, compactRevision: number, keepsNothing: boolean) {
    this.flusher = flusher;
    this.revision = revision;
    this.compactRevision = compactRevision;
    this.keepsNothing = keepsNothing;
    this.garbageRead = keepsNothing || compactRevision <= 0;
    const keep = keepsNothing ? null : (main: number, sub: number): boolean => !this.dropped.has(main, sub);
    this.scanHasher = new KvHasher(compactRevision, revision, keep);
  }

  /** One slice; true when `hash` is the answer. */
  step(): boolean {
    const { flusher } = this;
    flusher.environment.refresh();
    if (!this.garbageRead) {
      this.readGarbage();
      return false;
    }
    if (flusher.rowHashes !== null) return this.stepFold(flusher.rowHashes);
    if (flusher.rowHashesRefused) return this.scanRows();
    this.load();
    return false;
  }

  private readGarbage(): void {
    const slice = new Slice(this.flusher);
    const entry = new GarbageEntry();
    let done = true;
    this.flusher.environment.table('garbage').scan(this.garbageFrom, undefined, (key, value) => {
      if (garbageKeyMain(key) > this.revision) return false;
      if (!slice.takes(value.length)) {
        this.garbageFrom = Buffer.from(key);
        done = false;
        return false;
      }
      for (let at = 0; at < value.length; at += GARBAGE_ENTRY_BYTES) {
        entry.read(value, at);
        if (entry.atMain > this.revision || entry.main > this.compactRevision) continue;
        this.dropped.push(entry.main, entry.sub, entry.tombstone);
      }
      return true;
    });
    if (!done) return;
    this.dropped.sort();
    this.garbageRead = true;
  }

  /** One slice of the rows into row-hashes. What is flushed from the first slice on is gathered by the flusher: else a load
   * of writes faster than this reading would keep it from ever ending. */
  private load(): void {
    const { flusher } = this;
    if (this.loading === null) {
      this.loading = new RowHashes();
      this.loadEnd = encodeRevisionKey(flusher.state.currentRevision + 1, 0);
      flusher.rowHashesTail = new RowHashes();
    }
    const { loading } = this;
    const done = this.readRows(this.loadEnd, (main, sub, key, value) => loading.append(main, sub, key, value));
    if (loading.rowCount > flusher.limits.rowHashesMax) {
      this.refuse();
    } else if (done) {
      loading.appendAll(flusher.rowHashesTail!);
      flusher.rowHashes = loading;
      flusher.rowHashesTail = null;
      // The flusher may find them too many at any time: then the rows are read from the first one on.
      this.from = undefined;
    }
  }

  /** Too many rows to remember: read them again at each hash. */
  private refuse(): void {
    this.flusher.refuseRowHashes();
    this.loading = null;
    this.from = undefined;
  }

  private stepFold(hashes: RowHashes): boolean {
    this.fold ??= hashes.fold(this.revision, this.compactRevision, this.keepsNothing ? null : this.dropped);
    const done = this.fold.step(this.flusher.limits.hashFoldRows);
    this.hash = this.fold.hash;
    return done;
  }

  private scanRows(): boolean {
    const end = encodeRevisionKey(this.revision + 1, 0);
    const done = this.readRows(end, (_main, _sub, key, value) => this.scanHasher.write(key, value));
    this.hash = this.scanHasher.hash();
    return done;
  }

  /** One slice from `from` on; true when it has reached the end. */
  private readRows(
    end: Buffer | undefined,
    take: (main: number, sub: number, key: Buffer, value: Buffer) => void,
  ): boolean {
    const slice = new Slice(this.flusher);
    let last: Buffer | undefined;
    this.flusher.environment.table('key').scan(this.from, end, (key, value) => {
      assertSound(isRevisionKey(key), 'a row without a revision');
      take(revisionMain(key), revisionSub(key), key, value);
      if (slice.takes(value.length)) return true;
      last = Buffer.concat([key, ZERO]);
      return false;
    });
    if (last === undefined) return true;
    this.from = last;
    return false;
  }
}

const ZERO: Buffer = Buffer.alloc(1);

export class HashKvJob implements RunningJob {
  readonly error = '';
  readonly holdsCommits = false;
  readonly mustEnd = false;
  private readonly rows: RowHash;

  constructor(flusher: Flusher, job: JobKind & { kind: 'hashKv' }) {
    this.rows = new RowHash(flusher, job.revision, job.compactRevision, job.keepsNothing);
  }

  get hash(): number {
    return this.rows.hash;
  }

  step(): JobStep {
    return this.rows.step() ? 'done' : 'more';
  }
}

/** Entries of `meta` that a member writes by itself: left out of Hash, as etcd does. */
const IGNORED: readonly Buffer[] = [MetaKey.consistentIndex, MetaKey.term, MetaKey.storageVersion];

/** CRC-32C over each bucket's name and its raw keys and values, in the order of names, at one commit. */
export class HashJob implements RunningJob {
  readonly error = '';
  readonly holdsCommits = false;
  readonly mustEnd = false;
  hash = 0;
  private readonly flusher: Flusher;
  private readonly view: ReadEnvironment;
  private bucket = 0;
  private from: Buffer | undefined;
  private begun = false;

  constructor(flusher: Flusher) {
    this.flusher = flusher;
    this.view = flusher.options.pin();
  }

  step(): JobStep {
    const name = BUCKET_NAMES[this.bucket];
    if (name === undefined) {
      this.view.close();
      return 'done';
    }
    if (!this.begun) this.hash = crc32c(this.hash, Buffer.from(name));
    this.begun = true;
    if (this.hashSlice(name)) {
      this.bucket++;
      this.begun = false;
      this.from = undefined;
    }
    return 'more';
  }

  private hashSlice(name: string): boolean {
    const slice = new Slice(this.flusher);
    let done = true;
    this.view.table(name).scan(this.from, undefined, (key, value) => {
      if (name !== 'meta' || !IGNORED.some((ignored) => ignored.equals(key))) {
        this.hash = crc32c(crc32c(this.hash, key), value);
      }
      if (slice.takes(value.length)) return true;
      this.from = Buffer.concat([key, ZERO]);
      done = false;
      return false;
    });
    return done;
  }
}
