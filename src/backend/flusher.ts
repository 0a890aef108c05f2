// The one writer of the tables: moves the row log into them, merges the index, and runs maintenance jobs, in bounded commits.
// It is a state machine without a thread of its own: flusher-worker.ts drives it in a worker, FlusherInline on the caller's
// thread. Not a reader for the core: that one has its own view and moves it when told of a commit.
//
//           receive(message)                     step(): one bounded piece of work
//   core  ─────────────────────▶  what is due  ──▶ 1. rows up to the flush position, with a merge slice of the index
//                                              ──▶ 2. one slice of the first job (compact, hashKv, hash, defrag)
//         ◀─────────────────────  committed, jobDone
//
// Every commit holds whole applies: rows, bucket changes and the consistent index move together or not at all (etcd issues
// 13766 and 13514). It also writes the generation, by which the core knows that its view shows the commit.

import { assert } from '../base/assert.ts';
import { failpoint } from '../base/failpoint.ts';
import { assertSound, ExitCode, FatalError } from '../base/fatal.ts';
import type { ReadEnvironment, WriteEnvironment, WriteTable } from '../io/table.ts';
import {
  BUCKET_NAMES,
  decodeCounter,
  encodeCounter,
  isRevisionKey,
  MetaKey,
  revisionMain,
  writeRevisionKey,
} from '../snapshot/schema.ts';
import { type BackendLimits, backendLimits } from '../storage-limits.ts';
import { CompactJob } from './compaction.ts';
import { type EngineState, readEngineState, writeEngineState } from './engine-state.ts';
import { GarbageWriter } from './garbage.ts';
import { HashJob, HashKvJob } from './hash.ts';
import type { FrozenDelta } from './index-delta.ts';
import { mergeSlice } from './index-merge.ts';
import { type IndexTables, indexTables } from './index-tables.ts';
import { type FromFlusher, type Job, JobHash, type ToFlusher } from './messages.ts';
import type { RowHashes } from './row-hashes.ts';
import { RecordKind, RowLogReader } from './row-log.ts';

export interface FlusherOptions {
  readonly environment: WriteEnvironment;
  /** A read view of the newest commit that stays there until its close(). */
  pin(): ReadEnvironment;
  /** Milliseconds, for durations. */
  now(): number;
  send(message: FromFlusher): void;
  readonly limits?: BackendLimits;
  /** Builds the defragmentation job; null: the environment cannot (memory tables). */
  defrag?(flusher: Flusher, id: number): RunningJob;
}

/** What a job's slice answers: `wait` until woken by a message or by itself. */
export type JobStep = 'more' | 'done' | 'wait';

/** A job that has begun. */
export interface RunningJob {
  /** One slice, outside of any transaction. */
  step(): JobStep;
  /** Of a hash; else 0. */
  readonly hash: number;
  /** Why it did not succeed; empty: it did. */
  readonly error: string;
  /** Nothing else may be committed meanwhile. */
  readonly holdsCommits: boolean;
  /** It races with what is written, and must win: it gets three times the time of commits. */
  readonly hurries?: boolean;
  /** Cannot be dropped at the end of the process: it notices `closing` and ends soon. */
  readonly mustEnd: boolean;
}

interface Running {
  readonly id: number;
  /** Compactions that this one does too. */
  readonly absorbed: readonly number[];
  readonly startedMs: number;
  readonly run: RunningJob;
}

interface Merge {
  readonly delta: FrozenDelta;
  readonly position: number;
  readonly revision: number;
  from: number;
}

export class Flusher {
  readonly environment: WriteEnvironment;
  readonly limits: BackendLimits;
  readonly options: FlusherOptions;
  readonly state: EngineState;
  /** The newest revision to which rows were or are being deleted; older rows need not be indexed. */
  compactRevision = 0;
  private readonly reader = new RowLogReader();
  private readonly garbage: GarbageWriter;
  private readonly keyScratch = Buffer.alloc(18);
  private readonly key17: Buffer;
  private readonly buckets: WriteTable[];
  private readonly keyTable: WriteTable;
  private readonly garbageTable: WriteTable;
  private readonly metaTable: WriteTable;
  private readonly stateTable: WriteTable;
  private readonly indexTables: IndexTables;
  private flushTarget = 0;
  private rowCount = 0;
  private index = 0;
  private term = 0;
  private merge: Merge | null = null;
  private mergesDone = 0;
  private jobs: Job[] = [];
  private job: Running | null = null;
  private closing = false;
  private closed = false;
  private coreSwapped = false;
  /** Time that jobs may take before rows and merges have had their share again. */
  private jobCreditMs = 0;

  constructor(options: FlusherOptions) {
    this.options = options;
    this.environment = options.environment;
    this.limits = options.limits ?? backendLimits;
    this.garbage = new GarbageWriter(this.limits.garbageBlockEntries);
    this.key17 = this.keyScratch.subarray(0, 17);
    const table = (name: string): WriteTable => this.environment.table(name);
    this.buckets = BUCKET_NAMES.map(table);
    this.keyTable = table('key');
    this.garbageTable = table('garbage');
    this.metaTable = table('meta');
    this.stateTable = table('keelson');
    this.indexTables = indexTables(this.environment);
    this.environment.refresh();
    this.state = readEngineState(this.stateTable) ?? { generation: 0, currentRevision: 0, indexedRevision: 0 };
    const index = this.metaTable.get(MetaKey.consistentIndex);
    this.index = index === undefined ? 0 : (decodeCounter(index) ?? 0);
    const term = this.metaTable.get(MetaKey.term);
    this.term = term === undefined ? 0 : (decodeCounter(term) ?? 0);
    const finished = this.metaTable.get(MetaKey.finishedCompactRev);
    assertSound(finished === undefined || isRevisionKey(finished), 'its compaction has no revision');
    this.compactRevision = finished === undefined ? 0 : revisionMain(finished);
  }

  get position(): number {
    return this.reader.position;
  }

  get tables(): IndexTables {
    return this.indexTables;
  }

  get hasCoreSwapped(): boolean {
    return this.coreSwapped;
  }

  get isClosing(): boolean {
    return this.closing;
  }

  receive(message: ToFlusher): void {
    switch (message.kind) {
      case 'slab':
        this.reader.addSlab(message.id, message.memory);
        return;
      case 'dropSlab':
        this.reader.dropSlab(message.id);
        return;
      case 'flush':
        this.flushTarget = Math.max(this.flushTarget, message.position);
        return;
      case 'merge':
        assert(this.merge === null, 'flusher: a second merge at once');
        this.merge = { delta: message.delta, position: message.position, revision: message.revision, from: 0 };
        return;
      case 'job':
        this.jobs.push(message.job);
        return;
      case 'swapped':
        this.coreSwapped = true;
        return;
      case 'close':
        // What is not done is done again after the next start: merges from the rows, compactions from meta.
        this.closing = true;
        this.merge = null;
        this.jobs = [];
        if (this.job !== null && !this.job.run.mustEnd) this.job = null;
        return;
    }
  }

  /** Does one bounded piece of work; false: nothing to do until the next message. */
  step(): boolean {
    if (this.closed) return false;
    const holds = this.job?.run.holdsCommits === true;
    const startedMs = this.options.now();
    const flushed = !holds && this.stepCommit();
    const worked = this.stepJobs(flushed ? this.options.now() - startedMs : 0);
    if (flushed || worked) return true;
    if (this.closing && this.job === null && this.jobs.length === 0) {
      this.closed = true;
      this.environment.close();
      this.options.send({ kind: 'closed' });
    }
    return false;
  }

  /** The rows' hashes once a hash or a compaction has loaded them. */
  rowHashes: RowHashes | null = null;
  /** Those of what is flushed while they are being loaded. */
  rowHashesTail: RowHashes | null = null;
  /** There are too many rows to keep their hashes. */
  rowHashesRefused = false;

  refuseRowHashes(): void {
    this.rowHashes = null;
    this.rowHashesTail = null;
    this.rowHashesRefused = true;
  }

  /** No merge of the index may begin, as a defragmentation is about to move; one that is under way goes on. */
  mergesHeld = false;

  /** The index tables hold a part of a delta. */
  get isMerging(): boolean {
    return this.merge !== null && this.merge.from > 0;
  }

  private get isLagging(): boolean {
    const { jobLagBytes } = this.limits;
    const position = this.reader.position;
    return (
      this.flushTarget - position > jobLagBytes || (this.merge !== null && position - this.merge.position > jobLagBytes)
    );
  }

  private stepCommit(): boolean {
    const rows = this.reader.position < this.flushTarget;
    const merge = this.merge;
    const held = this.mergesHeld && !this.isMerging;
    const merging = merge !== null && !held && this.reader.position >= merge.position;
    if (!rows && !merging) return false;
    let mergeDone = false;
    this.commit(() => {
      if (rows) this.flushRows();
      if (merging) mergeDone = this.stepMerge(merge);
    }, mergeDoneOf);
    function mergeDoneOf(): boolean {
      return mergeDone;
    }
    return true;
  }

  private stepMerge(merge: Merge): boolean {
    const { mergeSliceKeys, mergeStepKeys, commitPartMs } = this.limits;
    const deadlineMs = this.options.now() + commitPartMs;
    for (let keys = 0; keys < mergeSliceKeys; keys += mergeStepKeys) {
      const next = mergeSlice(merge.delta, merge.from, mergeStepKeys, this.indexTables, this.compactRevision);
      if (next < 0) return this.endMerge(merge);
      merge.from = next;
      if (this.options.now() >= deadlineMs) break;
    }
    return false;
  }

  private get mergeLeft(): number {
    if (this.merge === null) return -1;
    const { delta, from } = this.merge;
    return Math.ceil((delta.changeCount * (delta.keyCount - from)) / delta.keyCount);
  }

  private endMerge(merge: Merge): boolean {
    this.merge = null;
    this.mergesDone++;
    this.state.indexedRevision = Math.max(this.state.indexedRevision, merge.revision);
    return true;
  }

  /** One synced transaction, and the message about it. */
  commit(body: () => void, mergeDone: () => boolean = never, deletedRows: () => number = none): void {
    const startedMs = this.options.now();
    this.state.generation++;
    failpoint('beforeStartDBTxn');
    this.environment.transaction(() => {
      failpoint('afterStartDBTxn');
      body();
      failpoint('commitBeforePreCommitHook');
      writeEngineState(this.stateTable, this.state);
      failpoint('commitAfterPreCommitHook');
      failpoint('beforeCommit');
    });
    failpoint('afterCommit');
    const sizes = this.environment.sizes();
    this.options.send({
      kind: 'committed',
      generation: this.state.generation,
      position: this.reader.position,
      rowCount: this.rowCount,
      index: this.index,
      term: this.term,
      mergeDone: mergeDone(),
      mergeLeft: this.mergeLeft,
      allocatedBytes: sizes.allocatedBytes,
      freeBytes: sizes.freeBytes,
      durationMs: this.options.now() - startedMs,
      deletedRows: deletedRows(),
    });
  }

  /** Moves records into the tables until the target or, at the end of an apply, the bounds of a commit. Hot: 1-2 us a row. */
  private flushRows(): void {
    const reader = this.reader;
    const start = reader.position;
    const target = this.flushTarget;
    const { commitRows, commitBytes, commitPartMs } = this.limits;
    const deadlineMs = this.options.now() + commitPartMs;
    let rows = 0;
    let rowsTimed = ROWS_PER_CLOCK_READ;
    let late = false;
    let ended = true;
    this.garbage.reset();
    while (reader.position < target) {
      if (ended && (late || rows >= commitRows || reader.position - start >= commitBytes)) break;
      if (rows >= rowsTimed) {
        rowsTimed = rows + ROWS_PER_CLOCK_READ;
        late = this.options.now() >= deadlineMs;
      }
      reader.next();
      ended = reader.kind === RecordKind.endApply;
      if (ended) continue;
      if (reader.kind === RecordKind.row || reader.kind === RecordKind.tombstone) {
        this.flushRow(reader);
        rows++;
      } else {
        this.flushBucket(reader);
        rows++;
      }
    }
    assert(ended, 'flusher: the flush position is not at the end of an apply');
    if (this.rowHashes !== null && this.rowHashes.rowCount > this.limits.rowHashesMax) this.refuseRowHashes();
    this.garbage.flush(this.garbageTable);
    this.writeIndex(reader.index, reader.term);
  }

  private flushRow(reader: RowLogReader): void {
    const tombstone = reader.kind === RecordKind.tombstone;
    writeRevisionKey(this.keyScratch, 0, reader.main, reader.sub, tombstone);
    const value = reader.bytes.subarray(reader.valueStart, reader.valueEnd);
    const key = tombstone ? this.keyScratch : this.key17;
    this.keyTable.put(key, value);
    (this.rowHashes ?? this.rowHashesTail)?.append(reader.main, reader.sub, key, value);
    if (reader.supersededMain !== 0) {
      const { main, sub, supersededMain, supersededSub } = reader;
      this.garbage.add(this.garbageTable, main, sub, supersededMain, supersededSub, false);
    }
    if (tombstone) this.garbage.add(this.garbageTable, reader.main, reader.sub, reader.main, reader.sub, true);
    assert(reader.main >= this.state.currentRevision, 'flusher: revisions do not ascend');
    this.state.currentRevision = reader.main;
    this.rowCount++;
  }

  private flushBucket(reader: RowLogReader): void {
    const table = this.buckets[reader.bucket]!;
    const key = reader.bytes.subarray(reader.keyStart, reader.keyEnd);
    if (reader.kind === RecordKind.bucketPut) {
      table.put(key, reader.bytes.subarray(reader.valueStart, reader.valueEnd));
    } else {
      table.remove(key);
    }
  }

  /** etcd never stores 0: a new database before its first entry. */
  private writeIndex(index: number, term: number): void {
    if (index > 0 && index !== this.index) this.metaTable.put(MetaKey.consistentIndex, encodeCounter(index));
    if (term > 0 && term !== this.term) this.metaTable.put(MetaKey.term, encodeCounter(term));
    this.index = index;
    this.term = term;
  }

  /** Jobs get half of the thread's time beside commits, a third when those lag: less would starve a compaction, whose
   * garbage grows with the load, and so the disk. */
  private stepJobs(commitMs: number): boolean {
    const hurries = this.job?.run.hurries === true;
    const share = hurries ? 3 : this.isLagging ? 0.5 : 1;
    const stepMs = hurries ? 3 * this.limits.jobStepMs : this.limits.jobStepMs;
    const credit = commitMs === 0 ? 0 : Math.min(stepMs, this.jobCreditMs + commitMs * share);
    this.jobCreditMs = credit;
    if (credit < 0) return false;
    for (;;) {
      const startedMs = this.options.now();
      const worked = this.stepJob();
      this.jobCreditMs -= this.options.now() - startedMs;
      if (!worked || this.job === null || this.jobCreditMs <= 0) return worked;
    }
  }

  private stepJob(): boolean {
    if (this.job === null) {
      const next = this.jobs[0];
      if (next === undefined || this.reader.position < next.position) return false;
      // Its revision is committed as scheduled: a merge may leave out what it makes garbage.
      if (next.kind === 'compact') this.compactRevision = Math.max(this.compactRevision, next.revision);
      if (this.mergesDone < next.merges) return false;
      this.jobs.shift();
      const absorbed: number[] = [];
      const job = this.newestCompaction(next, absorbed);
      this.job = { id: job.id, absorbed, startedMs: this.options.now(), run: this.begin(job) };
    }
    const { id, absorbed, startedMs, run } = this.job;
    const step = run.step();
    if (step !== 'done') return step === 'more';
    this.job = null;
    const durationMs = this.options.now() - startedMs;
    for (const other of absorbed)
      this.options.send({ kind: 'jobDone', id: other, hash: JobHash.absorbed, error: '', durationMs });
    this.options.send({ kind: 'jobDone', id, hash: run.hash, error: run.error, durationMs });
    return true;
  }

  /** Of compactions without a hash that wait in a row only the newest is done: it deletes what the others would. */
  private newestCompaction(first: Job, absorbed: number[]): Job {
    let newest = first;
    if (first.kind !== 'compact' || first.hashes) return first;
    for (;;) {
      const next = this.jobs[0];
      if (next === undefined || next.kind !== 'compact') return newest;
      if (this.reader.position < next.position || this.mergesDone < next.merges) return newest;
      absorbed.push(newest.id);
      newest = next;
      this.compactRevision = Math.max(this.compactRevision, next.revision);
      this.jobs.shift();
    }
  }

  private begin(job: Job): RunningJob {
    switch (job.kind) {
      case 'compact':
        return new CompactJob(this, job);
      case 'hashKv':
        return new HashKvJob(this, job);
      case 'hash':
        return new HashJob(this);
      case 'defrag': {
        const make = this.options.defrag;
        if (make === undefined) throw new FatalError(ExitCode.bug, 'these tables cannot be defragmented');
        this.coreSwapped = false;
        return make(this, job.id);
      }
    }
  }
}

/** Rows take 1-2 us each. */
const ROWS_PER_CLOCK_READ = 500;

function never(): boolean {
  return false;
}

function none(): number {
  return 0;
}

/** A failure inside the flusher as a message: errors lose their class between threads. */
export function failureOf(error: unknown): FromFlusher {
  if (error instanceof FatalError) return { kind: 'failed', exitCode: error.exitCode, message: error.message };
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { kind: 'failed', exitCode: ExitCode.bug, message };
}
