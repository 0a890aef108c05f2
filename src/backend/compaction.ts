// Compaction of the `key` table and the index to a revision, in slices on the flusher. What may go is listed in `garbage`
// and the index's `histlog`, so it costs what it deletes. First the hash that etcd keeps of a compaction is taken, unless the one before had not ended.
//
//   hash ──▶ collect garbage ──▶ delete rows ──▶ delete garbage ──▶ index ──▶ finishedCompactRev in the last commit
//                   ▲                                  │
//                   └──── while there is more ─────────┘
//
// Rows are deleted in the order of the table, whatever the order in which they became garbage, so that each page is
// written once. Garbage goes after its rows: after a crash between the two some of it names rows that are gone already.

import { failpoint } from '../base/failpoint.ts';
import { encodeRevisionKey, MetaKey, writeRevisionKey } from '../snapshot/schema.ts';
import type { Flusher, JobStep, RunningJob } from './flusher.ts';
import { GARBAGE_ENTRY_BYTES, GarbageEntry, garbageKeyMain } from './garbage.ts';
import { RowHash } from './hash.ts';
import { compactSlice } from './index-merge.ts';
import { JobHash, type JobKind } from './messages.ts';
import { RevisionList } from './revision-list.ts';

/** A block of garbage with what remains of it after its rows are deleted. */
interface TouchedBlock {
  readonly key: Buffer;
  /** null: nothing remains. */
  readonly rest: Buffer | null;
}

type Phase = 'hash' | 'collect' | 'rows' | 'garbage' | 'index';

export class CompactJob implements RunningJob {
  readonly error = '';
  readonly holdsCommits = false;
  readonly mustEnd = false;
  private readonly flusher: Flusher;
  private readonly revision: number;
  private readonly rowHash: RowHash | null;
  private phase: Phase = 'hash';
  /** Blocks below are done, though some of their rows may remain. */
  private from: Buffer | undefined;
  private collectedAll = false;
  private rows = new RevisionList();
  private rowsDeleted = 0;
  private blocks: TouchedBlock[] = [];
  private blocksDeleted = 0;
  private readonly scratch = Buffer.alloc(18);

  constructor(flusher: Flusher, job: JobKind & { kind: 'compact' }) {
    this.flusher = flusher;
    this.revision = job.revision;
    this.rowHash = job.hashes ? new RowHash(flusher, job.revision, job.previous, job.keepsNothing) : null;
  }

  get hash(): number {
    return this.rowHash?.hash ?? JobHash.none;
  }

  step(): JobStep {
    switch (this.phase) {
      case 'hash':
        if (this.rowHash === null || this.rowHash.step()) this.phase = 'collect';
        return 'more';
      case 'collect':
        this.collect();
        return 'more';
      case 'rows':
        this.deleteRows();
        return 'more';
      case 'garbage':
        this.deleteGarbage();
        return 'more';
      case 'index':
        return this.compactIndex() ? 'done' : 'more';
    }
  }

  /** One slice of the garbage; at the end of a round its rows are sorted. */
  private collect(): void {
    const { flusher, rows, blocks } = this;
    const { compactCollectRows, compactRoundRows } = flusher.limits;
    const before = rows.count;
    let sliceEnded = false;
    flusher.environment.refresh();
    flusher.environment.table('garbage').scan(this.from, undefined, (key, value) => {
      if (garbageKeyMain(key) > this.revision) return false;
      if (rows.count - before >= compactCollectRows || rows.count >= compactRoundRows) {
        sliceEnded = true;
        return false;
      }
      const rest = this.collectBlock(value);
      this.from = Buffer.concat([key, ZERO]);
      if (rest === null || rest.length < value.length) blocks.push({ key: Buffer.from(key), rest });
      return true;
    });
    this.collectedAll = !sliceEnded;
    if (sliceEnded && rows.count < compactRoundRows) return;
    rows.sort();
    this.phase = 'rows';
  }

  /** What remains of the block, null: nothing. */
  private collectBlock(value: Buffer): Buffer | null {
    const entry = new GarbageEntry();
    let rest: Buffer[] | null = null;
    for (let at = 0; at < value.length; at += GARBAGE_ENTRY_BYTES) {
      entry.read(value, at);
      if (entry.deletedBy(this.revision)) this.rows.push(entry.main, entry.sub, entry.tombstone);
      else {
        rest ??= [];
        rest.push(value.subarray(at, at + GARBAGE_ENTRY_BYTES));
      }
    }
    return rest === null ? null : Buffer.concat(rest);
  }

  private deleteRows(): void {
    const { flusher, rows } = this;
    failpoint('compactBeforeCommitBatch');
    if (this.rowsDeleted < rows.count) {
      const { mains } = rows;
      const keyTable = flusher.environment.table('key');
      const to = Math.min(rows.count, this.rowsDeleted + flusher.limits.compactSliceRows);
      const deadlineMs = flusher.options.now() + flusher.limits.commitPartMs;
      let deleted = 0;
      let next = this.rowsDeleted;
      flusher.commit(
        () => {
          for (; next < to; next++) {
            if (next > this.rowsDeleted && next % 256 === 0 && flusher.options.now() >= deadlineMs) break;
            const end = writeRevisionKey(this.scratch, 0, mains[next]!, rows.sub(next), rows.isTombstone(next));
            if (keyTable.remove(this.scratch.subarray(0, end))) deleted++;
          }
        },
        undefined,
        () => deleted,
      );
      this.rowsDeleted = next;
    }
    failpoint('compactAfterCommitBatch');
    if (this.rowsDeleted < rows.count) return;
    flusher.rowHashes?.remove(rows);
    this.phase = 'garbage';
  }

  private deleteGarbage(): void {
    const { flusher, blocks } = this;
    const garbageTable = flusher.environment.table('garbage');
    const to = Math.min(blocks.length, this.blocksDeleted + flusher.limits.compactSliceRows);
    if (to > this.blocksDeleted) {
      flusher.commit(() => {
        for (let i = this.blocksDeleted; i < to; i++) {
          const { key, rest } = blocks[i]!;
          if (rest === null) garbageTable.remove(key);
          else garbageTable.put(key, rest);
        }
      });
    }
    this.blocksDeleted = to;
    if (to < blocks.length) return;
    this.rows = new RevisionList();
    this.blocks = [];
    this.rowsDeleted = 0;
    this.blocksDeleted = 0;
    this.phase = this.collectedAll ? 'index' : 'collect';
  }

  private compactIndex(): boolean {
    const { flusher, revision } = this;
    const meta = flusher.environment.table('meta');
    let done = false;
    flusher.commit(() => {
      done = compactSlice(revision, flusher.limits.compactSliceRows, flusher.tables);
      if (!done) return;
      failpoint('compactBeforeSetFinishedCompact');
      meta.put(MetaKey.finishedCompactRev, encodeRevisionKey(revision, 0));
    });
    if (done) failpoint('compactAfterSetFinishedCompact');
    return done;
  }
}

const ZERO: Buffer = Buffer.alloc(1);
