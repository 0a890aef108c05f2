// Compaction of the `key` table and the index to a revision, in slices on the flusher. What may go is listed in `garbage`
// and the index's `histlog`, so it costs what it deletes. First, as etcd does, the hash over the rows up to the revision is
// taken (hash.ts): that one does read them all. Resumes after a crash: the rows and their garbage entries go in one commit.
//
//   hash slices ──▶ row slices ──▶ index slices ──▶ finishedCompactRev in the last commit

import { failpoint } from '../base/failpoint.ts';
import { encodeRevisionKey, MetaKey, writeRevisionKey } from '../snapshot/schema.ts';
import type { Flusher, JobStep, RunningJob } from './flusher.ts';
import { GARBAGE_ENTRY_BYTES, GarbageEntry, garbageKeyMain } from './garbage.ts';
import { RowHash } from './hash.ts';
import { compactSlice } from './index-merge.ts';
import type { JobKind } from './messages.ts';

/** A block of garbage with what remains of it, to be written after the scan. */
interface TouchedBlock {
  readonly key: Buffer;
  /** null: nothing remains. */
  readonly rest: Buffer | null;
}

export class CompactJob implements RunningJob {
  readonly error = '';
  readonly holdsCommits = false;
  readonly mustEnd = false;
  private readonly flusher: Flusher;
  private readonly job: JobKind & { kind: 'compact' };
  private readonly rowHash: RowHash;
  private hashed = false;
  private rowsDone = false;
  /** Blocks below are done, though some of their rows may remain. */
  private from: Buffer | undefined;
  private readonly scratch = Buffer.alloc(18);

  constructor(flusher: Flusher, job: JobKind & { kind: 'compact' }) {
    this.flusher = flusher;
    this.job = job;
    this.rowHash = new RowHash(flusher.environment, flusher.limits, job.revision, job.previous, job.keepsNothing);
  }

  get hash(): number {
    return this.rowHash.hash;
  }

  step(): JobStep {
    if (!this.hashed) this.hashed = this.rowHash.step();
    else if (!this.rowsDone) this.compactRows();
    else if (this.compactIndex()) return 'done';
    return 'more';
  }

  private compactRows(): void {
    failpoint('compactBeforeCommitBatch');
    const rows: Buffer[] = [];
    const blocks: TouchedBlock[] = [];
    const done = this.collect(rows, blocks);
    if (blocks.length > 0) {
      const keyTable = this.flusher.environment.table('key');
      const garbageTable = this.flusher.environment.table('garbage');
      this.flusher.commit(
        () => {
          for (const row of rows) keyTable.remove(row);
          for (const block of blocks) {
            if (block.rest === null) garbageTable.remove(block.key);
            else garbageTable.put(block.key, block.rest);
          }
        },
        undefined,
        rows.length,
      );
    }
    failpoint('compactAfterCommitBatch');
    this.rowsDone = done;
  }

  /** Gathers one slice; true when it is the last. */
  private collect(rows: Buffer[], blocks: TouchedBlock[]): boolean {
    const environment = this.flusher.environment;
    const entry = new GarbageEntry();
    let done = true;
    environment.refresh();
    environment.table('garbage').scan(this.from, undefined, (key, value) => {
      if (garbageKeyMain(key) > this.job.revision) return false;
      if (rows.length >= this.flusher.limits.compactSliceRows) {
        done = false;
        return false;
      }
      const before = rows.length;
      const rest: Buffer[] = [];
      for (let at = 0; at < value.length; at += GARBAGE_ENTRY_BYTES) {
        entry.read(value, at);
        if (entry.deletedBy(this.job.revision)) rows.push(this.rowKey(entry));
        else rest.push(Buffer.from(value.subarray(at, at + GARBAGE_ENTRY_BYTES)));
      }
      const keyCopy = Buffer.from(key);
      this.from = Buffer.concat([keyCopy, Buffer.alloc(1)]);
      if (rows.length > before) blocks.push({ key: keyCopy, rest: rest.length === 0 ? null : Buffer.concat(rest) });
      return true;
    });
    return done;
  }

  private rowKey(entry: GarbageEntry): Buffer {
    const end = writeRevisionKey(this.scratch, 0, entry.main, entry.sub, entry.tombstone);
    return Buffer.from(this.scratch.subarray(0, end));
  }

  private compactIndex(): boolean {
    const { flusher, job } = this;
    const meta = flusher.environment.table('meta');
    let done = false;
    flusher.commit(() => {
      done = compactSlice(job.revision, flusher.limits.compactSliceRows, flusher.tables);
      if (!done) return;
      failpoint('compactBeforeSetFinishedCompact');
      meta.put(MetaKey.finishedCompactRev, encodeRevisionKey(job.revision, 0));
    });
    if (done) failpoint('compactAfterSetFinishedCompact');
    return done;
  }
}
