// What the core asks the flusher for beside flushing and merging: compactions, hashes and defragmentations, each with what must be in
// the tables before it, what is measured, and how it answers. They are done one after the other (flusher.ts), and those that delete
// what a long read needs wait for it (job-gate.ts). A snapshot is none of them: it has a thread of its own.

import type { BackendObserver, CompactionHash } from './backend-options.ts';
import type { DatabaseSizes } from './database-sizes.ts';
import type { FlusherPort } from './flusher-port.ts';
import type { KeyIndex } from './index.ts';
import type { JobGate } from './job-gate.ts';
import { Jobs } from './jobs.ts';
import { hasLiveKeyAt, hasTombstoneAt, keepsKeyAt, type RevisionRows } from './keep-set.ts';
import { type FromFlusher, JobHash } from './messages.ts';
import type { RowLog } from './row-log.ts';
import type { WriteBack } from './write-back.ts';

export interface MaintenanceParts {
  readonly rows: RowLog;
  readonly index: KeyIndex;
  readonly writeBack: WriteBack;
  readonly sizes: DatabaseSizes;
  readonly observer: BackendObserver;
  readonly port: FlusherPort;
  /** All rows, in memory and in tables. */
  readonly allRows: RevisionRows;
  /** Told of every compaction's hash. */
  compactionHash(hash: CompactionHash): void;
}

/** Error: the database was replaced before it was done. */
export type HashDone = (hash: number, error: Error | null) => void;

const replaced = 'keelson: the database was replaced by a snapshot of the leader; ask again';

export class Maintenance {
  defragsRunning = 0;
  private compactionsPending = 0;
  private readonly parts: MaintenanceParts;
  private readonly jobs: Jobs;

  /** `before`: of the database that this one has replaced. */
  constructor(parts: MaintenanceParts, before: Maintenance | null = null) {
    this.parts = parts;
    this.jobs = new Jobs((job) => parts.port.post({ kind: 'job', job }));
    if (before !== null) this.gate.adoptPins(before.gate);
  }

  get gate(): JobGate {
    return this.jobs.gate;
  }

  /** The database is about to be replaced: its jobs end with an error, compactions as if there were no hash. */
  end(): void {
    this.jobs.refuse(replaced);
  }

  done(message: FromFlusher & { kind: 'jobDone' }): void {
    this.jobs.done(message);
  }

  /** `previous`: the compact revision before, 0 for none. Inside of its apply, or at the start when the last process has not ended it. */
  compact(revision: number, previous: number, done: (hash: CompactionHash | null) => void): void {
    const { writeBack, observer, index, allRows } = this.parts;
    const compactRevision = previous > 0 ? previous : -1;
    // As etcd (issue 15919): after a compaction that had not ended, what is hashed would depend on how far it had come.
    const hashes = writeBack.isApplying && this.compactionsPending === 0;
    const keepsNothing = hashes && !hasLiveKeyAt(index, revision) && !hasTombstoneAt(allRows, revision);
    this.compactionsPending++;
    writeBack.postSoon();
    // The flusher deletes no row that only the delta knows: a restart rebuilds the delta from the rows.
    const merges = writeBack.wantMerged();
    const job = { kind: 'compact', revision, previous: compactRevision, hashes, keepsNothing } as const;
    this.jobs.send(job, this.parts.rows.position, merges, (hash, durationMs, error) => {
      this.compactionsPending--;
      if (hash !== JobHash.absorbed && error === '') observer.compaction(durationMs, revision);
      if (hash < 0) {
        done(null);
        return;
      }
      const result = { hash, revision, compactRevision };
      this.parts.compactionHash(result);
      done(result);
    });
  }

  hashKv(revision: number, compactRevision: number, done: HashDone): void {
    const { writeBack, rows, observer, index, allRows } = this.parts;
    const keepsNothing = !keepsKeyAt(index, allRows, revision);
    writeBack.post();
    const job = { kind: 'hashKv', revision, compactRevision, keepsNothing } as const;
    this.jobs.send(job, rows.position, 0, (hash, durationMs, error) => {
      if (error === '') observer.hashKv(durationMs);
      done(hash, errorOf(error));
    });
  }

  hash(done: HashDone): void {
    const { writeBack, rows, observer } = this.parts;
    writeBack.post();
    this.jobs.send({ kind: 'hash' }, rows.position, 0, (hash, durationMs, error) => {
      if (error === '') observer.hash(durationMs);
      done(hash, errorOf(error));
    });
  }

  defrag(done: (error: Error | null) => void): void {
    const { writeBack, rows, observer, sizes } = this.parts;
    writeBack.post();
    this.defragsRunning++;
    sizes.defragBegun();
    this.jobs.send({ kind: 'defrag' }, rows.position, 0, (_hash, durationMs, error) => {
      this.defragsRunning--;
      sizes.defragEnded();
      if (error === '') observer.defrag(durationMs);
      done(errorOf(error));
    });
  }
}

function errorOf(message: string): Error | null {
  return message === '' ? null : new Error(message);
}
