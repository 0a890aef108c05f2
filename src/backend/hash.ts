// Hashes over the tables, in slices on the flusher: HashKV (rows of one revision; src/snapshot/hashkv.ts has the algorithm)
// and Hash (all of etcd's buckets but what differs between members). Who may ask for which revision is the caller's part.
//
// HashKV skips, at and below the compaction revision, what compaction does not keep. Which rows those are follows from
// `garbage`: a row there is superseded by a change at or below the hashed revision or is not; tombstones at or below the
// compaction revision never count (one exactly at it is left out by the algorithm, older ones are not kept).

import { crc32c } from '../base/crc32c.ts';
import type { ReadEnvironment } from '../io/table.ts';
import type { BackendLimits } from '../limits.ts';
import { KvHasher } from '../snapshot/hashkv.ts';
import { BUCKET_NAMES, encodeRevisionKey, MetaKey } from '../snapshot/schema.ts';
import type { Flusher, JobStep, RunningJob } from './flusher.ts';
import { GARBAGE_ENTRY_BYTES, GarbageEntry, garbageKeyMain } from './garbage.ts';
import type { JobKind } from './messages.ts';

/** Revisions as a set without an object each: most have sub 0. */
class RevisionSet {
  private readonly mains = new Set<number>();
  private readonly others = new Map<number, Set<number>>();

  add(main: number, sub: number): void {
    if (sub === 0) {
      this.mains.add(main);
      return;
    }
    let subs = this.others.get(main);
    if (subs === undefined) {
      subs = new Set();
      this.others.set(main, subs);
    }
    subs.add(sub);
  }

  has(main: number, sub: number): boolean {
    if (sub === 0) return this.mains.has(main);
    return this.others.get(main)?.has(sub) === true;
  }
}

/** The hash of the rows up to `revision`. Rows up to there do not change meanwhile: compactions are jobs that wait. */
export class RowHash {
  hash = 0;
  private readonly environment: ReadEnvironment;
  private readonly limits: BackendLimits;
  private readonly revision: number;
  private readonly compactRevision: number;
  private readonly dropped = new RevisionSet();
  private readonly hasher: KvHasher;
  private garbageRead = false;
  private from: Buffer | undefined;

  /** For HashKV and for a compaction's own hash alike: their keep sets (hashkv.ts) differ only in a tombstone at `revision`
   * itself, which decides nothing but `keepsNothing`. */
  constructor(
    environment: ReadEnvironment,
    limits: BackendLimits,
    revision: number,
    compactRevision: number,
    keepsNothing: boolean,
  ) {
    this.environment = environment;
    this.limits = limits;
    this.revision = revision;
    this.compactRevision = compactRevision;
    const keep = keepsNothing ? null : (main: number, sub: number): boolean => !this.dropped.has(main, sub);
    this.hasher = new KvHasher(compactRevision, revision, keep);
  }

  /** One slice; true when `hash` is the answer. */
  step(): boolean {
    this.environment.refresh();
    if (!this.garbageRead) {
      this.readGarbage();
      this.garbageRead = true;
      return false;
    }
    return this.hashRows();
  }

  private readGarbage(): void {
    if (this.compactRevision <= 0) return;
    const entry = new GarbageEntry();
    this.environment.table('garbage').scan(undefined, undefined, (key, value) => {
      if (garbageKeyMain(key) > this.revision) return false;
      for (let at = 0; at < value.length; at += GARBAGE_ENTRY_BYTES) {
        entry.read(value, at);
        if (entry.atMain <= this.revision && entry.main <= this.compactRevision)
          this.dropped.add(entry.main, entry.sub);
      }
      return true;
    });
  }

  private hashRows(): boolean {
    let rows = 0;
    let bytes = 0;
    let done = true;
    const end = encodeRevisionKey(this.revision + 1, 0);
    this.environment.table('key').scan(this.from, end, (key, value) => {
      if (rows >= this.limits.hashSliceRows || bytes >= this.limits.hashSliceBytes) {
        this.from = Buffer.from(key);
        done = false;
        return false;
      }
      rows++;
      bytes += value.length;
      this.hasher.write(key, value);
      return true;
    });
    this.hash = this.hasher.hash();
    return done;
  }
}

export class HashKvJob implements RunningJob {
  readonly error = '';
  readonly holdsCommits = false;
  readonly mustEnd = false;
  private readonly rows: RowHash;

  constructor(flusher: Flusher, job: JobKind & { kind: 'hashKv' }) {
    const { revision, compactRevision, keepsNothing } = job;
    this.rows = new RowHash(flusher.environment, flusher.limits, revision, compactRevision, keepsNothing);
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
  private readonly view: ReadEnvironment;
  private readonly limits: BackendLimits;
  private bucket = 0;
  private from: Buffer | undefined;
  private begun = false;

  constructor(view: ReadEnvironment, limits: BackendLimits) {
    this.view = view;
    this.limits = limits;
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
    let entries = 0;
    let bytes = 0;
    let done = true;
    this.view.table(name).scan(this.from, undefined, (key, value) => {
      if (entries >= this.limits.hashSliceRows || bytes >= this.limits.hashSliceBytes) {
        this.from = Buffer.from(key);
        done = false;
        return false;
      }
      entries++;
      bytes += value.length;
      if (name === 'meta' && IGNORED.some((ignored) => ignored.equals(key))) return true;
      this.hash = crc32c(crc32c(this.hash, key), value);
      return true;
    });
    return done;
  }
}
