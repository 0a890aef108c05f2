// The storage engine as the core thread sees it: rows by revision, the key index, small buckets, the consistent index, and
// maintenance. It applies to memory at once (row-log.ts, index-*.ts, bucket-overlay.ts); a flusher moves that into LMDB and
// says so; only then does memory let go of it. Not the multi-version store (src/mvcc) and not the log that makes writes
// durable (src/wal): what is acknowledged lies there until `durableIndex` has passed it. When it goes to the flusher is decided
// in write-back.ts; compactions, hashes and defragmentations are asked for in maintenance.ts; how the database of a leader's
// snapshot is made is install.ts.
//
//   apply ──▶ row log ─────▶ flusher ─▶ key, garbage, buckets, meta   every --backend-batch-interval, -limit or 8 MB
//         └─▶ index delta ─▶ flusher ─▶ live, dead, hist, ...         every 100,000 changes, or when idle, or to compact
//   read  ──▶ row log / delta, then tables
//
// One apply is: any of appendRow, bucketPut, bucketDelete, compact, then endApply(index, term). It is flushed whole.

import { assert } from '../base/assert.ts';
import { failpoint } from '../base/failpoint.ts';
import { assertSound, FatalError } from '../base/fatal.ts';
import { removeLmdb } from '../io/lmdb.ts';
import type { ReadEnvironment, ReadTable, ScanVisitor } from '../io/table.ts';
import { indexLimits } from '../limits.ts';
import { type BucketName, encodeRevisionKey, MetaKey } from '../snapshot/schema.ts';
import {
  type BackendObserver,
  type BackendOptions,
  type BackendParts,
  type BackendSizes,
  type CompactionHash,
  effectiveLimits,
  type Installer,
  type SnapshotFile,
  silentObserver,
} from './backend-options.ts';
import { DatabaseSizes } from './database-sizes.ts';
import { defragPath } from './defrag.ts';
import { readEngineState } from './engine-state.ts';
import type { FlushDone } from './flush-waiters.ts';
import type { FlusherPort } from './flusher-port.ts';
import { KeyIndex } from './index.ts';
import { installPath, LmdbInstaller, openDatabase } from './install.ts';
import { type HashDone, Maintenance } from './maintenance.ts';
import type { FromFlusher } from './messages.ts';
import { type Recovered, recoverIndex, recoverNumbers } from './recovery.ts';
import { RowAhead } from './row-ahead.ts';
import { RowLog, type RowRef, type RowVisitor } from './row-log.ts';
import { RowReads } from './row-reads.ts';
import { SmallBuckets } from './small-buckets.ts';
import { SnapshotReader, type SnapshotSink, type SnapshotTrailer, snapshotTrailer } from './snapshot-source.ts';
import { WriteBack } from './write-back.ts';

export type { BackendObserver, BackendOptions, CompactionHash } from './backend-options.ts';

export class Backend {
  // Of the database that is open: all of it is new after install().
  index!: KeyIndex;
  private reader!: ReadEnvironment;
  private port!: FlusherPort;
  private reopen!: ((path: string) => void) | null;
  private rows!: RowLog;
  private buckets!: SmallBuckets;
  private rowReads!: RowReads;
  private stateTable!: ReadTable;
  private writeBack!: WriteBack;
  private maintenance!: Maintenance;
  private databaseSizes!: DatabaseSizes;
  private index_ = 0;
  private term_ = 0;
  private revision_ = 0;
  private compact_ = 0;

  /** Consistent index of the last synced commit: the WAL may be released up to it. */
  durableIndex = 0;
  onDurable: ((index: number) => void) | null = null;
  /** Told of every compaction's hash, those resumed at the start too. */
  onCompactionHash: ((hash: CompactionHash) => void) | null = null;
  /** Rows that compactions have deleted since the start. */
  compactedRows = 0;
  /** Rows that the index tables lacked at the start. */
  recoveredRows = 0;
  private readonly options: BackendOptions;
  private readonly observer: BackendObserver;
  private readonly installer: Installer | null;
  private failure: FatalError | null = null;
  private closing: (() => void) | null = null;
  private closeSent = false;
  private closeAfterMerges = 0;
  /** The flusher closes the database, which another one will replace: who waits for that. */
  private replacing: (() => void) | null = null;

  /** Opens or creates the database, in LMDB with a flusher thread. Blocks while it recovers. Throws FatalError. */
  static open(options: BackendOptions): Backend {
    // Of a defragmentation, or of an installation, that a crash ended before its rename.
    removeLmdb(defragPath(options.path));
    removeLmdb(installPath(options.path));
    const parts = openDatabase(options);
    try {
      return new Backend(options, { ...parts, installer: new LmdbInstaller(options) });
    } catch (error) {
      parts.port.post({ kind: 'close' });
      parts.reader.close();
      throw error;
    }
  }

  constructor(options: BackendOptions, parts: BackendParts) {
    this.options = options;
    this.observer = options.observer ?? silentObserver;
    this.installer = parts.installer ?? null;
    this.take(parts, null);
  }

  /** Everything about the database that is open now; `before`: of the one that it has replaced. */
  private take(parts: BackendParts, before: Maintenance | null): void {
    const { options } = this;
    const limits = effectiveLimits(options);
    this.reader = parts.reader;
    this.port = parts.port;
    this.reopen = parts.reopen;
    this.reader.refresh();
    this.stateTable = this.reader.table('keelson');
    const keyTable = this.reader.table('key');
    const rowAhead = new RowAhead(keyTable);
    this.index = new KeyIndex(this.reader, {
      rowAhead,
      hashSeed: options.hashSeed ?? 0,
      limits: options.indexLimits ?? indexLimits,
    });
    const { port } = parts;
    this.rows = new RowLog(
      {
        slabAdded: (id, memory) => port.post({ kind: 'slab', id, memory }),
        slabDropped: (id) => port.post({ kind: 'dropSlab', id }),
      },
      limits.slabBytes,
    );
    this.rowReads = new RowReads(this.rows, keyTable, rowAhead);
    this.buckets = new SmallBuckets(this.reader, this.rows);
    const recovered = recoverNumbers(this.reader);
    this.takeNumbers(recovered);
    this.databaseSizes = new DatabaseSizes(this.reader.sizes());
    this.recoveredRows = recoverIndex(this.reader, this.index, recovered.indexedRevision);
    this.takeFlusher(before);
    if (recovered.scheduledCompactRevision > recovered.finishedCompactRevision) {
      this.maintenance.compact(recovered.scheduledCompactRevision, recovered.finishedCompactRevision, () => {});
    }
    // When all is there: of a start that is refused nothing more is heard.
    port.listen(
      (message) => this.receive(message),
      (error) => this.fail(error),
    );
    this.writeBack.wakeTimer();
  }

  private takeNumbers(recovered: Recovered): void {
    this.index_ = recovered.consistentIndex;
    this.term_ = recovered.consistentTerm;
    this.revision_ = recovered.currentRevision;
    this.compact_ = Math.max(recovered.scheduledCompactRevision, recovered.finishedCompactRevision);
    this.durableIndex = recovered.consistentIndex;
  }

  private takeFlusher(before: Maintenance | null): void {
    const { options, rows, index, port } = this;
    this.writeBack = new WriteBack({
      rows,
      index,
      limits: effectiveLimits(options),
      clock: options.clock,
      batchIntervalMs: options.batchIntervalMs ?? 100,
      port,
      revision: () => this.revision_,
    });
    this.maintenance = new Maintenance(
      {
        rows,
        index,
        writeBack: this.writeBack,
        sizes: this.databaseSizes,
        observer: this.observer,
        port,
        allRows: this,
        compactionHash: (hash) => this.onCompactionHash?.(hash),
      },
      before,
    );
  }

  /** Another database takes the place of this one: until then nothing is applied. */
  get isReplacing(): boolean {
    return this.replacing !== null;
  }

  get consistentIndex(): number {
    return this.index_;
  }

  get consistentTerm(): number {
    return this.term_;
  }

  /** The largest main revision ever applied here; 0 for a new database. */
  get currentRevision(): number {
    return this.revision_;
  }

  /** 0: never compacted. */
  get compactRevision(): number {
    return this.compact_;
  }

  // --- apply ---

  get rowBuffer(): Buffer {
    return this.rows.rowBuffer;
  }

  get rowOffset(): number {
    return this.rows.rowOffset;
  }

  /**
   * Reserves `byteCount` bytes for the KeyValue of a change, which the caller writes into rowBuffer at rowOffset before
   * anything else; returns the row's ordinal, for the index. `supersededMain`, `supersededSub`: the key's revision before
   * if it was live (0: none, or deleted). Hot.
   */
  appendRow(
    main: number,
    sub: number,
    tombstone: boolean,
    byteCount: number,
    supersededMain: number,
    supersededSub: number,
  ): number {
    assert(main >= this.revision_ && main > 0, 'backend: revisions ascend');
    // It is what the key index says of the key.
    assertSound(supersededMain <= main, 'an entry of the key index is newer than the newest revision');
    this.writeBack.beginApply();
    this.revision_ = main;
    return this.rows.appendRow(main, sub, tombstone, byteCount, supersededMain, supersededSub);
  }

  /** The database file. */
  get path(): string {
    return this.options.path;
  }

  bucketPut(bucket: BucketName, key: Buffer, value: Buffer): void {
    this.writeBack.beginApply();
    this.buckets.put(bucket, key, value);
  }

  bucketDelete(bucket: BucketName, key: Buffer): void {
    this.writeBack.beginApply();
    this.buckets.remove(bucket, key);
  }

  /** The newest value; a table's is valid until the next read. */
  bucketGet(bucket: BucketName, key: Buffer): Buffer | undefined {
    return this.buckets.get(bucket, key);
  }

  /** Newest entries with start <= key < end, ascending, until `visit` returns false. Valid only inside. */
  bucketScan(bucket: BucketName, start: Buffer | undefined, end: Buffer | undefined, visit: ScanVisitor): void {
    this.buckets.scan(bucket, start, end, visit);
  }

  /** Ends an apply: what it changed becomes visible in the tables together with its index, or not at all. */
  endApply(index: number, term: number): void {
    assert(index >= this.index_, 'backend: the consistent index does not fall');
    assert(this.replacing === null, 'backend: an apply into a database that is being replaced');
    failpoint('beforeWritebackBuf');
    this.rows.endApply(index, term);
    this.index_ = index;
    this.term_ = term;
    failpoint('afterWritebackBuf');
    this.writeBack.applied();
  }

  // --- reads ---

  /** The KeyValue of a revision; `ordinal` as the index has it. From memory it is valid until the turn ends, from a table
   * until the next read. False: there is no such row. Hot. */
  readRow(main: number, sub: number, ordinal: number, out: RowRef): boolean {
    return this.rowReads.read(main, sub, ordinal, out);
  }

  /** All rows with fromMain <= main <= toMain in revision order. Those from tables are valid only inside of `visit`. */
  scanRows(fromMain: number, toMain: number, visit: RowVisitor): void {
    this.rowReads.scan(fromMain, Math.min(toMain, this.revision_), visit);
  }

  /** A read as of `revision` goes on over several turns: until unpin() no compaction deletes what it needs. */
  pin(revision: number): void {
    this.maintenance.gate.pin(revision);
  }

  unpin(revision: number): void {
    this.maintenance.gate.unpin(revision);
  }

  // --- flushing ---

  /** Answers when everything applied before the call is durable in the tables. At once when it is already. */
  flush(done: FlushDone): void {
    this.writeBack.flush(done);
  }

  /** Bytes that are applied but not in the tables. Above limits.backlogBytesMax the server refuses proposals. */
  backlog(): number {
    return this.rows.backlogBytes;
  }

  /** The flusher is behind its bounds: whoever applies waits, by whenRoom(), until it has caught up. */
  isOverloaded(): boolean {
    return this.writeBack.isOverloaded();
  }

  /** Calls back once, when isOverloaded() has become false. Not when the engine fails or is closed. */
  whenRoom(done: () => void): void {
    this.writeBack.whenRoom(done);
  }

  sizes(): BackendSizes {
    return this.databaseSizes.of(this.rows.backlogBytes);
  }

  private receive(message: FromFlusher): void {
    switch (message.kind) {
      case 'committed':
        this.committed(message);
        return;
      case 'jobDone':
        this.maintenance.done(message);
        return;
      case 'swap':
        assert(this.reopen !== null, 'backend: these tables cannot move');
        this.reopen(message.path);
        this.port.post({ kind: 'swapped' });
        return;
      case 'failed':
        this.fail(new FatalError(message.exitCode, message.message));
        return;
      case 'closed':
        if (this.replacing !== null && this.closing === null) this.replace();
        else this.endClose();
        return;
    }
  }

  private committed(message: FromFlusher & { kind: 'committed' }): void {
    this.reader.refresh();
    const state = readEngineState(this.stateTable);
    assert(state !== null && state.generation >= message.generation, 'backend: the view does not show the commit');
    this.rows.drop(message.position, message.rowCount);
    this.buckets.drop(message.position);
    this.databaseSizes.committed(message);
    this.observer.commit(message.durationMs);
    if (message.deletedRows > 0) {
      this.compactedRows += message.deletedRows;
      this.observer.compactedRows(message.deletedRows, message.durationMs);
    }
    this.writeBack.committed(message);
    if (message.index > this.durableIndex) {
      this.durableIndex = message.index;
      this.onDurable?.(message.index);
    }
    this.writeBack.answer();
    this.continueClose();
  }

  private fail(error: FatalError): void {
    if (this.failure !== null) return;
    this.failure = error;
    this.writeBack.failed(error);
    this.options.onFatal(error);
    if (this.closing !== null) this.endClose();
  }

  // --- maintenance ---

  /**
   * Compacts to `revision`; part of an apply, before its endApply(). Reads below it are refused by the caller from now on;
   * rows go in the background. `done` hears the hash that etcd keeps for this compaction, null when the compaction
   * before it had not ended, as in etcd.
   */
  compact(revision: number, done: (hash: CompactionHash | null) => void): void {
    assert(revision > this.compact_ && revision <= this.revision_, 'backend: compaction out of range');
    failpoint('compactBeforeCommitScheduledCompact');
    this.bucketPut('meta', MetaKey.scheduledCompactRev, encodeRevisionKey(revision, 0));
    failpoint('compactAfterCommitScheduledCompact');
    const previous = this.compact_;
    this.compact_ = revision;
    const { clock } = this.options;
    const startMs = clock.nowMs();
    this.maintenance.compact(revision, previous, done);
    this.observer.compactionBegun(clock.nowMs() - startMs);
  }

  /** etcd's HashKV at `revision`, over everything applied before the call. `compactRevision` -1: never compacted. */
  hashKv(revision: number, compactRevision: number, done: HashDone): void {
    this.maintenance.hashKv(revision, compactRevision, done);
  }

  /** The hash over etcd's buckets but what differs between members. */
  hash(done: HashDone): void {
    this.maintenance.hash(done);
  }

  /** Rewrites the file without its free pages, while everything goes on. An error leaves the file as it was; damage is fatal. */
  defrag(done: (error: Error | null) => void): void {
    assert(this.reopen !== null, 'backend: these tables cannot be defragmented');
    this.maintenance.defrag(done);
  }

  get defragsRunning(): number {
    return this.maintenance.defragsRunning;
  }

  /** A bbolt file of etcd's buckets at one commit that includes everything applied before the call, from a thread of its
   * own. */
  snapshot(sink: SnapshotSink, trailer: SnapshotTrailer = snapshotTrailer.hash): SnapshotReader {
    const reader = new SnapshotReader(sink, trailer);
    this.flush((error) => {
      if (error !== null) reader.fail(error);
      else reader.start(this.options.path);
    });
    return reader;
  }

  // --- replacing ---

  /**
   * The database of a leader's snapshot takes the place of this one. Until shortly before `done` everything goes on; then nothing may
   * be applied. What was not flushed is dropped: it is in the snapshot. Jobs that have not ended fail, reads that are pinned go on
   * in the new database. `done` is not called when the process has to end.
   */
  install(snapshot: SnapshotFile, done: () => void): void {
    const { installer } = this;
    assert(installer !== null, 'backend: these tables cannot be replaced');
    assert(snapshot.index > this.index_, 'backend: a snapshot that is older than the database');
    installer.convert(snapshot, (error) => {
      if (error !== null) this.fail(error);
      if (this.failure !== null || this.closing !== null) return;
      this.replacing = done;
      this.writeBack.stop();
      this.maintenance.end();
      this.port.post({ kind: 'close' });
    });
  }

  /** Both sides have let go of the old database. */
  private replace(): void {
    const done = this.replacing!;
    const before = this.maintenance;
    const answerWaiters = this.writeBack.takeWaiters();
    this.reader.close();
    try {
      this.take(this.installer!.replace(), before);
    } catch (error) {
      if (!(error instanceof FatalError)) throw error;
      this.fail(error);
      return;
    }
    this.replacing = null;
    this.onDurable?.(this.durableIndex);
    // All that they wait for is in the new database, durably.
    answerWaiters();
    done();
  }

  /** Has everything that is applied written and merged, as soon as the flusher can. */
  settle(): void {
    this.writeBack.post();
    this.writeBack.wantMerged();
  }

  /** Nothing waits to be written or merged. */
  get isSettled(): boolean {
    return this.backlog() === 0 && this.index.activeEntries === 0 && !this.index.hasFrozen;
  }

  /** For tests and simulation. */
  checkInvariants(): void {
    this.buckets.checkInvariants();
    assert(this.rows.backlogBytes > 0 || !this.buckets.hasChanges, 'backend: bucket changes outlive their flush');
    assert(this.rows.backlogBytes > 0 || this.rows.firstMain() === Infinity, 'backend: rows outlive their flush');
    this.writeBack.checkInvariants();
    assert(this.durableIndex <= this.index_, 'backend: durable before it was applied');
  }

  // --- end ---

  /** Flushes everything, then lets go of the files. Jobs that have not ended are dropped: compactions resume at the next
   * start, hashes are never answered. */
  close(done: () => void): void {
    // While it is replaced the flusher is closing already: what is not there then, the next start finds in the log.
    if (this.beginClose(done) || this.replacing !== null) return;
    this.closeAfterMerges = this.writeBack.postLast();
    this.continueClose();
  }

  /** Lets go of the files without writing anything that can wait: for a start that is refused. */
  abandon(done: () => void): void {
    assert(this.rows.position === 0, 'backend abandoned after it was used');
    if (!this.beginClose(done)) this.continueClose();
  }

  /** True when it is closed: after a failure there is nothing to wait for. */
  private beginClose(done: () => void): boolean {
    assert(this.closing === null, 'backend closed twice');
    this.closing = done;
    this.installer?.cancel();
    this.writeBack.stop();
    this.maintenance.gate.close();
    if (this.failure === null) return false;
    // Of a failure that was not its own it knows nothing.
    this.port.post({ kind: 'close' });
    this.endClose();
    return true;
  }

  private endClose(): void {
    this.reader.close();
    this.closing?.();
  }

  private continueClose(): void {
    if (this.closing === null || this.closeSent) return;
    if (!this.writeBack.isDone(this.closeAfterMerges)) return;
    this.closeSent = true;
    this.port.post({ kind: 'close' });
  }
}
