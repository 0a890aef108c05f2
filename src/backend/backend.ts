// The storage engine as the core thread sees it: rows by revision, the key index, small buckets, the consistent index, and
// maintenance. It applies to memory at once (row-log.ts, index-*.ts, bucket-overlay.ts); a flusher moves that into LMDB and
// says so; only then does memory let go of it. Not the multi-version store (src/mvcc) and not the log that makes writes
// durable (src/wal): what is acknowledged lies there until `durableIndex` has passed it. When it goes to the flusher is decided
// in write-back.ts; compactions, hashes and defragmentations are asked for in maintenance.ts.
//
//   apply ──▶ row log ─────▶ flusher ─▶ key, garbage, buckets, meta   every --backend-batch-interval, -limit or 8 MB
//         └─▶ index delta ─▶ flusher ─▶ live, dead, hist, ...         every 100,000 changes, or when idle, or to compact
//   read  ──▶ row log / delta, then tables
//
// One apply is: any of appendRow, bucketPut, bucketDelete, compact, then endApply(index, term). It is flushed whole.

import { assert } from '../base/assert.ts';
import { failpoint } from '../base/failpoint.ts';
import { assertSound, FatalError } from '../base/fatal.ts';
import { LmdbEnvironment, removeLmdb } from '../io/lmdb.ts';
import type { EntryVisitor, ReadEnvironment, ReadTable, ScanVisitor } from '../io/table.ts';
import { indexLimits } from '../limits.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import {
  type BucketName,
  encodeRevisionKey,
  MetaKey,
  REVISION_KEY_BYTES,
  revisionMain,
  revisionSub,
  TOMBSTONE_KEY_BYTES,
  writeRevisionKey,
} from '../snapshot/schema.ts';
import {
  type BackendObserver,
  type BackendOptions,
  type BackendParts,
  type BackendSizes,
  type CompactionHash,
  effectiveLimits,
  silentObserver,
} from './backend-options.ts';
import { DatabaseSizes } from './database-sizes.ts';
import { defragPath } from './defrag.ts';
import { readEngineState, TABLE_NAMES } from './engine-state.ts';
import type { FlushDone } from './flush-waiters.ts';
import { type FlusherPort, FlusherThread } from './flusher-port.ts';
import { KeyIndex } from './index.ts';
import { Maintenance } from './maintenance.ts';
import type { FromFlusher } from './messages.ts';
import { recoverIndex, recoverNumbers } from './recovery.ts';
import { RowAhead } from './row-ahead.ts';
import { RowLog, type RowRef, type RowVisitor } from './row-log.ts';
import { SmallBuckets } from './small-buckets.ts';
import { SnapshotReader, type SnapshotSink } from './snapshot-source.ts';
import { WriteBack } from './write-back.ts';

export type { BackendObserver, BackendOptions, CompactionHash } from './backend-options.ts';

export class Backend {
  readonly index: KeyIndex;
  /** Consistent index of the last synced commit: the WAL may be released up to it. */
  durableIndex: number;
  onDurable: ((index: number) => void) | null = null;
  /** Told of every compaction's hash, those resumed at the start too. */
  onCompactionHash: ((hash: CompactionHash) => void) | null = null;
  /** Rows that compactions have deleted since the start. */
  compactedRows = 0;
  /** Rows that the index tables lacked at the start. */
  readonly recoveredRows: number;
  private readonly options: BackendOptions;
  private readonly observer: BackendObserver;
  private readonly reader: ReadEnvironment;
  private readonly port: FlusherPort;
  private readonly reopen: ((path: string) => void) | null;
  private readonly rows: RowLog;
  private readonly buckets: SmallBuckets;
  private readonly keyTable: ReadTable;
  private readonly rowAhead: RowAhead;
  private readonly stateTable: ReadTable;
  private readonly rowKey = Buffer.alloc(18);
  private readonly rowView: KeyValueView = new KeyValueView();
  private readonly rowKey17: Buffer;
  private index_ = 0;
  private term_ = 0;
  private revision_ = 0;
  private compact_ = 0;
  private readonly writeBack: WriteBack;
  private readonly maintenance: Maintenance;
  private readonly databaseSizes: DatabaseSizes;
  private failure: FatalError | null = null;
  private closing: (() => void) | null = null;
  private closeSent = false;
  private closeAfterMerges = 0;

  /** Opens or creates the database, in LMDB with a flusher thread. Blocks while it recovers. Throws FatalError. */
  static open(options: BackendOptions): Backend {
    const noSync = options.noSync === true;
    // A defragmentation that a crash ended before its rename.
    removeLmdb(defragPath(options.path));
    const environment = new LmdbEnvironment({ path: options.path, noSync, mapped: true });
    try {
      // Before anything is written to it: it may be another version's.
      readEngineState(environment.table('keelson'), `the database ${options.path}`);
      // All tables exist before the second thread looks: creating one is a commit.
      for (const name of TABLE_NAMES) environment.table(name);
    } catch (error) {
      environment.close();
      throw error;
    }
    const limits = effectiveLimits(options);
    const failpoints = options.failpoints ?? null;
    const port = new FlusherThread({ path: options.path, noSync, failpoints, limits });
    try {
      return new Backend(options, { reader: environment, port, reopen: (path) => environment.reopen(path) });
    } catch (error) {
      port.post({ kind: 'close' });
      environment.close();
      throw error;
    }
  }

  constructor(options: BackendOptions, parts: BackendParts) {
    this.options = options;
    const limits = effectiveLimits(options);
    this.observer = options.observer ?? silentObserver;
    this.reader = parts.reader;
    this.port = parts.port;
    this.reopen = parts.reopen;
    this.rowKey17 = this.rowKey.subarray(0, 17);
    this.reader.refresh();
    this.keyTable = this.reader.table('key');
    this.stateTable = this.reader.table('keelson');
    this.rowAhead = new RowAhead(this.keyTable);
    this.index = new KeyIndex(this.reader, {
      rowAhead: this.rowAhead,
      hashSeed: options.hashSeed ?? 0,
      limits: options.indexLimits ?? indexLimits,
    });
    this.rows = new RowLog(
      {
        slabAdded: (id, memory) => this.port.post({ kind: 'slab', id, memory }),
        slabDropped: (id) => this.port.post({ kind: 'dropSlab', id }),
      },
      limits.slabBytes,
    );
    this.buckets = new SmallBuckets(this.reader, this.rows);
    const recovered = recoverNumbers(this.reader);
    this.index_ = recovered.consistentIndex;
    this.term_ = recovered.consistentTerm;
    this.revision_ = recovered.currentRevision;
    this.compact_ = Math.max(recovered.scheduledCompactRevision, recovered.finishedCompactRevision);
    this.durableIndex = recovered.consistentIndex;
    this.databaseSizes = new DatabaseSizes(this.reader.sizes());
    this.recoveredRows = recoverIndex(this.reader, this.index, recovered.indexedRevision);
    this.writeBack = new WriteBack({
      rows: this.rows,
      index: this.index,
      limits,
      clock: options.clock,
      batchIntervalMs: options.batchIntervalMs ?? 100,
      port: this.port,
      revision: () => this.revision_,
    });
    this.maintenance = new Maintenance({
      rows: this.rows,
      index: this.index,
      writeBack: this.writeBack,
      sizes: this.databaseSizes,
      observer: this.observer,
      port: this.port,
      allRows: this,
      compactionHash: (hash) => this.onCompactionHash?.(hash),
    });
    if (recovered.scheduledCompactRevision > recovered.finishedCompactRevision) {
      this.maintenance.compact(recovered.scheduledCompactRevision, recovered.finishedCompactRevision, () => {});
    }
    // When all is there: of a start that is refused nothing more is heard.
    this.port.listen(
      (message) => this.receive(message),
      (error) => this.fail(error),
    );
    this.writeBack.wakeTimer();
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
    if (ordinal >= 0 && this.rows.read(main, sub, ordinal, out)) return true;
    if (!this.rowAhead.take(main, sub, out)) {
      writeRevisionKey(this.rowKey, 0, main, sub, false);
      if (!this.keyTable.find(this.rowKey17, out)) return this.rows.find(main, sub, out);
    }
    // It goes to clients as it is: a damaged one shall not.
    const { rowView } = this;
    const isRow = rowView.parse(out.buffer, out.start, out.end) && rowView.modRevision === main;
    assertSound(isRow, `row ${main} is not its KeyValue`);
    return true;
  }

  /** All rows with fromMain <= main <= toMain in revision order. Those from tables are valid only inside of `visit`. */
  scanRows(fromMain: number, toMain: number, visit: RowVisitor): void {
    // What is in memory may be in the tables too. A revision is of one apply, so it is in memory whole or not at all.
    const memoryMain = this.rows.firstMain();
    const tableMain = Math.min(toMain, memoryMain - 1, this.revision_);
    if (fromMain <= tableMain && !this.scanTable(fromMain, tableMain, visit)) return;
    if (toMain >= memoryMain) this.rows.scan(Math.max(fromMain, memoryMain), toMain, visit);
  }

  /** False when `visit` stopped. */
  private scanTable(fromMain: number, toMain: number, visit: RowVisitor): boolean {
    let goOn = true;
    const visitEntry: EntryVisitor = (key, keyStart, keyEnd, value, start, end) => {
      assertSound(keyEnd - keyStart >= REVISION_KEY_BYTES, 'a row without a revision');
      const isTombstone = keyEnd - keyStart === TOMBSTONE_KEY_BYTES;
      goOn = visit(revisionMain(key, keyStart), revisionSub(key, keyStart), isTombstone, value, start, end);
      return goOn;
    };
    this.keyTable.walk(encodeRevisionKey(fromMain, 0), encodeRevisionKey(toMain + 1, 0), visitEntry);
    return goOn;
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
        this.endClose();
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
  hashKv(revision: number, compactRevision: number, done: (hash: number) => void): void {
    this.maintenance.hashKv(revision, compactRevision, done);
  }

  /** The hash over etcd's buckets but what differs between members. */
  hash(done: (hash: number) => void): void {
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
  snapshot(sink: SnapshotSink): SnapshotReader {
    const reader = new SnapshotReader(sink);
    this.flush((error) => {
      if (error !== null) reader.fail(error);
      else reader.start(this.options.path);
    });
    return reader;
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
    if (this.beginClose(done)) return;
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
    this.writeBack.stop();
    this.maintenance.gate.close();
    if (this.failure !== null) this.endClose();
    return this.failure !== null;
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
