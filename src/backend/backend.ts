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
import type { ScanVisitor } from '../io/table.ts';
import { type BucketName, encodeRevisionKey, MetaKey } from '../snapshot/schema.ts';
import {
  type BackendObserver,
  type BackendOptions,
  type BackendParts,
  type BackendSizes,
  type CompactionHash,
  type Installer,
  type SnapshotFile,
  silentObserver,
} from './backend-options.ts';
import { defragPath } from './defrag.ts';
import { readEngineState } from './engine-state.ts';
import type { FlushDone } from './flush-waiters.ts';
import type { KeyIndex } from './index.ts';
import { installPath, LmdbInstaller, openDatabase } from './install.ts';
import type { HashDone, Maintenance } from './maintenance.ts';
import type { FromFlusher } from './messages.ts';
import { type DatabaseOwner, OpenDatabase } from './open-database.ts';
import type { RowRef, RowVisitor } from './row-log.ts';
import { SnapshotReader, type SnapshotSink, type SnapshotTrailer, snapshotTrailer } from './snapshot-source.ts';

export type { BackendObserver, BackendOptions, CompactionHash } from './backend-options.ts';

export class Backend {
  private database!: OpenDatabase;
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
      letGo(parts);
      throw error;
    }
  }

  constructor(options: BackendOptions, parts: BackendParts) {
    this.options = options;
    this.observer = options.observer ?? silentObserver;
    this.installer = parts.installer ?? null;
    this.take(parts, null);
  }

  /** The database that is open from now on; `before`: of the one that it has replaced. */
  private take(parts: BackendParts, before: Maintenance | null): void {
    const owner: DatabaseOwner = {
      observer: this.observer,
      allRows: this,
      revision: () => this.revision_,
      compactionHash: (hash) => this.onCompactionHash?.(hash),
    };
    this.database = new OpenDatabase(this.options, parts, owner, before);
    const { recovered, recoveredRows, maintenance, port, writeBack } = this.database;
    const { scheduledCompactRevision, finishedCompactRevision } = recovered;
    this.index_ = recovered.consistentIndex;
    this.term_ = recovered.consistentTerm;
    this.revision_ = recovered.currentRevision;
    this.compact_ = Math.max(scheduledCompactRevision, finishedCompactRevision);
    this.durableIndex = recovered.consistentIndex;
    this.recoveredRows = recoveredRows;
    if (scheduledCompactRevision > finishedCompactRevision) {
      maintenance.compact(scheduledCompactRevision, finishedCompactRevision, () => {});
    }
    // When all is there: of a start that is refused nothing more is heard.
    port.listen(
      (message) => this.receive(message),
      (error) => this.fail(error),
    );
    writeBack.wakeTimer();
  }

  get index(): KeyIndex {
    return this.database.index;
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
    return this.database.rows.rowBuffer;
  }

  get rowOffset(): number {
    return this.database.rows.rowOffset;
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
    this.database.writeBack.beginApply();
    this.revision_ = main;
    return this.database.rows.appendRow(main, sub, tombstone, byteCount, supersededMain, supersededSub);
  }

  /** The database file. */
  get path(): string {
    return this.options.path;
  }

  bucketPut(bucket: BucketName, key: Buffer, value: Buffer): void {
    this.database.writeBack.beginApply();
    this.database.buckets.put(bucket, key, value);
  }

  bucketDelete(bucket: BucketName, key: Buffer): void {
    this.database.writeBack.beginApply();
    this.database.buckets.remove(bucket, key);
  }

  /** The newest value; a table's is valid until the next read. */
  bucketGet(bucket: BucketName, key: Buffer): Buffer | undefined {
    return this.database.buckets.get(bucket, key);
  }

  /** Newest entries with start <= key < end, ascending, until `visit` returns false. Valid only inside. */
  bucketScan(bucket: BucketName, start: Buffer | undefined, end: Buffer | undefined, visit: ScanVisitor): void {
    this.database.buckets.scan(bucket, start, end, visit);
  }

  /** Ends an apply: what it changed becomes visible in the tables together with its index, or not at all. */
  endApply(index: number, term: number): void {
    assert(index >= this.index_, 'backend: the consistent index does not fall');
    assert(this.replacing === null, 'backend: an apply into a database that is being replaced');
    failpoint('beforeWritebackBuf');
    this.database.rows.endApply(index, term);
    this.index_ = index;
    this.term_ = term;
    failpoint('afterWritebackBuf');
    this.database.writeBack.applied();
  }

  // --- reads ---

  /** The KeyValue of a revision; `ordinal` as the index has it. From memory it is valid until the turn ends, from a table
   * until the next read. False: there is no such row. Hot. */
  readRow(main: number, sub: number, ordinal: number, out: RowRef): boolean {
    return this.database.rowReads.read(main, sub, ordinal, out);
  }

  /** All rows with fromMain <= main <= toMain in revision order. Those from tables are valid only inside of `visit`. */
  scanRows(fromMain: number, toMain: number, visit: RowVisitor): void {
    this.database.rowReads.scan(fromMain, Math.min(toMain, this.revision_), visit);
  }

  /** A read as of `revision` goes on over several turns: until unpin() no compaction deletes what it needs. */
  pin(revision: number): void {
    this.database.maintenance.gate.pin(revision);
  }

  unpin(revision: number): void {
    this.database.maintenance.gate.unpin(revision);
  }

  // --- flushing ---

  /** Answers when everything applied before the call is durable in the tables. At once when it is already. */
  flush(done: FlushDone): void {
    this.database.writeBack.flush(done);
  }

  /** Bytes that are applied but not in the tables. Above limits.backlogBytesMax the server refuses proposals. */
  backlog(): number {
    return this.database.rows.backlogBytes;
  }

  /** The flusher is behind its bounds: whoever applies waits, by whenRoom(), until it has caught up. */
  isOverloaded(): boolean {
    return this.database.writeBack.isOverloaded();
  }

  /** Calls back once, when isOverloaded() has become false. Not when the engine fails or is closed. */
  whenRoom(done: () => void): void {
    this.database.writeBack.whenRoom(done);
  }

  sizes(): BackendSizes {
    return this.database.sizes.of(this.database.rows.backlogBytes);
  }

  private receive(message: FromFlusher): void {
    switch (message.kind) {
      case 'committed':
        this.committed(message);
        return;
      case 'jobDone':
        this.database.maintenance.done(message);
        return;
      case 'swap':
        assert(this.database.reopen !== null, 'backend: these tables cannot move');
        this.database.reopen(message.path);
        this.database.port.post({ kind: 'swapped' });
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
    this.database.reader.refresh();
    const state = readEngineState(this.database.stateTable);
    assert(state !== null && state.generation >= message.generation, 'backend: the view does not show the commit');
    this.database.rows.drop(message.position, message.rowCount);
    this.database.buckets.drop(message.position);
    this.database.sizes.committed(message);
    this.observer.commit(message.durationMs);
    if (message.deletedRows > 0) {
      this.compactedRows += message.deletedRows;
      this.observer.compactedRows(message.deletedRows, message.durationMs);
    }
    this.database.writeBack.committed(message);
    if (message.index > this.durableIndex) {
      this.durableIndex = message.index;
      this.onDurable?.(message.index);
    }
    this.database.writeBack.answer();
    this.continueClose();
  }

  private fail(error: FatalError): void {
    if (this.failure !== null) return;
    this.failure = error;
    this.database.writeBack.failed(error);
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
    this.database.maintenance.compact(revision, previous, done);
    this.observer.compactionBegun(clock.nowMs() - startMs);
  }

  /** etcd's HashKV at `revision`, over everything applied before the call. `compactRevision` -1: never compacted. */
  hashKv(revision: number, compactRevision: number, done: HashDone): void {
    this.database.maintenance.hashKv(revision, compactRevision, done);
  }

  /** The hash over etcd's buckets but what differs between members. */
  hash(done: HashDone): void {
    this.database.maintenance.hash(done);
  }

  /** Rewrites the file without its free pages, while everything goes on. An error leaves the file as it was; damage is fatal. */
  defrag(done: (error: Error | null) => void): void {
    assert(this.database.reopen !== null, 'backend: these tables cannot be defragmented');
    this.database.maintenance.defrag(done);
  }

  get defragsRunning(): number {
    return this.database.maintenance.defragsRunning;
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
      this.database.writeBack.stop();
      this.database.maintenance.end();
      this.database.port.post({ kind: 'close' });
    });
  }

  /** Both sides have let go of the old database. */
  private replace(): void {
    const done = this.replacing!;
    const before = this.database.maintenance;
    const answerWaiters = this.database.writeBack.takeWaiters();
    this.database.close();
    let parts: BackendParts | null = null;
    try {
      parts = this.installer!.replace();
      this.take(parts, before);
    } catch (error) {
      if (!(error instanceof FatalError)) throw error;
      if (parts !== null) letGo(parts);
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
    this.database.writeBack.post();
    this.database.writeBack.wantMerged();
  }

  /** Nothing waits to be written or merged. */
  get isSettled(): boolean {
    return this.backlog() === 0 && this.index.activeEntries === 0 && !this.index.hasFrozen;
  }

  /** For tests and simulation. */
  checkInvariants(): void {
    this.database.buckets.checkInvariants();
    assert(
      this.database.rows.backlogBytes > 0 || !this.database.buckets.hasChanges,
      'backend: bucket changes outlive their flush',
    );
    assert(
      this.database.rows.backlogBytes > 0 || this.database.rows.firstMain() === Infinity,
      'backend: rows outlive their flush',
    );
    this.database.writeBack.checkInvariants();
    assert(this.durableIndex <= this.index_, 'backend: durable before it was applied');
  }

  // --- end ---

  /** Flushes everything, then lets go of the files. Jobs that have not ended are dropped: compactions resume at the next
   * start, hashes are never answered. */
  close(done: () => void): void {
    // While it is replaced the flusher is closing already: what is not there then, the next start finds in the log.
    if (this.beginClose(done) || this.replacing !== null) return;
    this.closeAfterMerges = this.database.writeBack.postLast();
    this.continueClose();
  }

  /** Lets go of the files without writing anything that can wait: for a start that is refused. */
  abandon(done: () => void): void {
    assert(this.database.rows.position === 0, 'backend abandoned after it was used');
    if (!this.beginClose(done)) this.continueClose();
  }

  /** True when it is closed: after a failure there is nothing to wait for. */
  private beginClose(done: () => void): boolean {
    assert(this.closing === null, 'backend closed twice');
    this.closing = done;
    this.installer?.cancel();
    this.database.writeBack.stop();
    this.database.maintenance.gate.close();
    if (this.failure === null) return false;
    // Of a failure that was not its own it knows nothing.
    this.database.port.post({ kind: 'close' });
    this.endClose();
    return true;
  }

  private endClose(): void {
    this.database.close();
    this.closing?.();
  }

  private continueClose(): void {
    if (this.closing === null || this.closeSent) return;
    if (!this.database.writeBack.isDone(this.closeAfterMerges)) return;
    this.closeSent = true;
    this.database.port.post({ kind: 'close' });
  }
}

/** Of a database that could not be taken up. */
function letGo({ port, reader }: BackendParts): void {
  port.post({ kind: 'close' });
  reader.close();
}
