// Builds the member from what its data directory holds: nothing (a new cluster of one, its log begun as etcd begins it, with the
// membership change that adds this member), or a database and a log (a restart: the log is replayed from the database's
// consistent index on). Checks that belong to a start are here; the loop is member.ts.

import { AlarmStore } from '../apply/alarms.ts';
import { Applier } from '../apply/applier.ts';
import { Backend, type BackendObserver } from '../backend/backend.ts';
import { assertSound, ExitCode, FatalError } from '../base/fatal.ts';
import { clusterId, memberId } from '../config/cluster-id.ts';
import { urlTexts } from '../config/member-url.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { type Clock, systemClock } from '../io/clock.ts';
import { type Disk, type DiskLock, errorCode, errorText, nodeDisk } from '../io/file.ts';
import type { Random } from '../io/random.ts';
import type { WalObserver, WalWriterFactory } from '../io/wal-writer.ts';
import { absolutePath } from '../io/working-directory.ts';
import { type LeaseCounters, Lessor, leaseIdOf } from '../lease/lessor.ts';
import {
  applyHandedOutBytesMax,
  type BackendLimits,
  raftMessageBytesMax,
  raftMessagesInFlightMax,
  raftUncommittedBytesMax,
} from '../limits.ts';
import { type BucketStore, Cluster, hexId } from '../membership/cluster.ts';
import { Store } from '../mvcc/store.ts';
import { WatchHub } from '../mvcc/watch-hub.ts';
import { decode, encode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import { ReadOnlyOption } from '../raft/config.ts';
import { MemoryStorage } from '../raft/memory-storage.ts';
import { RawNode } from '../raft/raw-node.ts';
import {
  type ConfChangeType,
  type ConfChangeV2,
  type ConfState,
  confChangeAsV2,
  EMPTY_CONF_STATE,
  type Entry,
  EntryType,
  NO_BYTES,
} from '../raft/types.ts';
import { KvHasher } from '../snapshot/hashkv.ts';
import { type BucketName, decodeConfState, encodeMember, MetaKey } from '../snapshot/schema.ts';
import type { Logger } from '../telemetry/logger.ts';
import { listSegments, type WalReplay } from '../wal/replay.ts';
import { openWal, type Wal, walExists } from '../wal/wal.ts';
import { CompactionHashes } from './compaction-hashes.ts';
import { checkPermissions, makeDirectory } from './data-directory.ts';
import { Member } from './member.ts';
import { durationText } from './member-log.ts';
import type { MemberCounters } from './member-parts.ts';
import { ResponseHeaderEncoder } from './response-header.ts';

/** What the environment lends. */
export interface BootstrapOptions {
  readonly config: ServerConfig;
  readonly clusterVersion: string;
  readonly logger: Logger;
  readonly random: Random;
  readonly walWriter: WalWriterFactory;
  readonly walObserver: WalObserver;
  readonly backendObserver: BackendObserver;
  readonly memberCounters: MemberCounters;
  readonly leaseCounters: LeaseCounters;
  readonly failpoints: SharedArrayBuffer | null;
  readonly onFatal: (error: FatalError) => void;
  readonly flushConnections: () => void;
  readonly schedule: (run: () => void) => void;
  readonly disk?: Disk;
  readonly clock?: Clock;
  /** Tests shrink them. */
  readonly limits?: BackendLimits;
  readonly walSegmentBytes?: number;
}

/** Absolute paths. */
interface Directories {
  readonly lock: string;
  readonly database: string;
  readonly wal: string;
}

/** Absolute, whatever the working directory becomes. */
export function databasePath(config: ServerConfig): string {
  return `${absolutePath(config.dataDir, '--data-dir')}/member/snap/keelson.mdb`;
}

/** Opens or creates everything and returns the member, not yet started. Throws FatalError. */
export function openMember(options: BootstrapOptions): Member {
  const { config } = options;
  const disk = options.disk ?? nodeDisk;
  const directories = makeDirectories(disk, config);
  checkPermissions(disk, options.logger, config.dataDir);
  const lock = lockDirectory(disk, directories, config.dataDir);
  let backend: Backend | null = null;
  try {
    const isNew = !walExists(disk, directories.wal);
    if (isNew && config.bootstrapError !== null) throw new FatalError(ExitCode.bug, config.bootstrapError);
    const openedMs = (options.clock ?? systemClock).nowMs();
    backend = openBackend(options, directories);
    return openOver(options, directories, backend, openedMs, lock);
  } catch (error) {
    // The flusher's thread would keep a process alive that only wants to say why it can't start.
    if (backend === null) lock.release();
    else backend.abandon(() => lock.release());
    throw error;
  }
}

function openBackend(options: BootstrapOptions, directories: Directories): Backend {
  const { config } = options;
  return Backend.open({
    path: directories.database,
    clock: options.clock ?? systemClock,
    onFatal: options.onFatal,
    noSync: config.unsafeNoFsync,
    batchIntervalMs: config.backendBatchIntervalMs,
    batchRows: config.backendBatchLimit,
    failpoints: options.failpoints,
    observer: options.backendObserver,
    ...(options.limits === undefined ? {} : { limits: options.limits }),
  });
}

/** The rest of a start, over the open database. */
function openOver(
  options: BootstrapOptions,
  directories: Directories,
  backend: Backend,
  openedMs: number,
  lock: DiskLock,
): Member {
  const { config, logger } = options;
  const disk = options.disk ?? nodeDisk;
  const clock = options.clock ?? systemClock;
  const isNew = !walExists(disk, directories.wal);
  const newMemberId = memberId(urlTexts(config.advertisePeerUrls), config.initialClusterToken);
  const metadata = isNew ? { clusterId: clusterId([newMemberId]), memberId: newMemberId } : null;
  logger.info('server/bootstrap.ts', 'opened backend db', {
    path: directories.database,
    took: durationText(clock.nowMs() - openedMs),
    'rows-indexed': backend.recoveredRows,
  });
  logger.info('server/bootstrap.ts', 'kvstore restored', { 'current-rev': Math.max(1, backend.currentRevision) });
  if (isNew) checkNothingApplied(backend, directories);
  const walMs = clock.nowMs();
  const { wal, replay } = openWal({
    disk,
    directory: directories.wal,
    writer: options.walWriter,
    random: options.random,
    metadata,
    startIndex: firstIndexToRead(disk, directories.wal, backend.consistentIndex, config.snapshotCatchupEntryCount) - 1,
    fsync: !config.unsafeNoFsync,
    segmentsMax: config.walFilesMax,
    observer: options.walObserver,
    log: (level, message, fields) => logger[level]('wal/wal.ts', message, fields),
    onFatal: options.onFatal,
    ...(options.walSegmentBytes === undefined ? {} : { segmentBytes: options.walSegmentBytes }),
  });
  logger.info('server/bootstrap.ts', 'read the log', {
    path: directories.wal,
    took: durationText(clock.nowMs() - walMs),
    'entry-count': replay.entries.length,
  });
  try {
    checkTogether(replay, backend, directories);
    return begin(options, wal, replay, backend, lock);
  } catch (error) {
    wal.close();
    throw error;
  }
}

/** The member over database and log, which are of one history. */
function begin(options: BootstrapOptions, wal: Wal, replay: WalReplay, backend: Backend, lock: DiskLock): Member {
  const { config } = options;
  const member = build(options, wal, replay, backend, lock);
  // A first start that was cut short has made the log, but nothing in it is durable: it begins again, under the log's ids.
  const isEmpty = replay.last.index === 0 && replay.hardState.term === 0 && backend.consistentIndex === 0;
  if (isEmpty) {
    const id = wal.metadata.memberId;
    const peerUrls = urlTexts(config.advertisePeerUrls);
    const own = { id, peerUrls, isLearner: false, name: config.name, clientUrls: [] };
    const data = encode(ConfChange, { type: 0, nodeId: id, context: encodeMember(own) });
    member.parts.raft.bootstrap([{ id, data }]);
  }
  logStart(options, member, isEmpty);
  return member;
}

function makeDirectories(disk: Disk, config: ServerConfig): Directories {
  // Absolute, for the whole life of the process: its working directory may go.
  const dataDir = absolutePath(config.dataDir, '--data-dir');
  const member = `${dataDir}/member`;
  const wal = config.walDir === '' ? `${member}/wal` : absolutePath(config.walDir, '--wal-dir');
  makeDirectory(disk, `${member}/snap`, `the data directory ${config.dataDir}`);
  makeDirectory(disk, wal, config.walDir === '' ? wal : `--wal-dir ${config.walDir}`);
  if (disk.exists(`${member}/snap/db`)) {
    throw new FatalError(
      ExitCode.dataDir,
      `${member}/snap/db is a database of etcd: keelson does not open it in place yet. Take a snapshot of it with etcdctl and ` +
        'restore that into another directory',
    );
  }
  return { lock: `${member}/lock`, database: databasePath(config), wal };
}

/** Before any file is looked at: even to open the database of a running member would disturb it (its defragmentation, say). */
function lockDirectory(disk: Disk, directories: Directories, dataDir: string): DiskLock {
  const path = directories.lock;
  let lock: DiskLock | null;
  try {
    lock = disk.lock(path);
  } catch (error) {
    if (errorCode(error) === '') throw error;
    throw new FatalError(
      ExitCode.dataDir,
      `the data directory ${dataDir} cannot be used: ${path}: ${errorText(error)}`,
    );
  }
  if (lock !== null) return lock;
  throw new FatalError(
    ExitCode.dataDir,
    `the data directory ${dataDir} is in use by another process (it holds ${path})`,
  );
}

/** A new log is not begun beside an old database: the operator may yet find the old log, and put it back. */
function checkNothingApplied(backend: Backend, directories: Directories): void {
  const applied = backend.consistentIndex;
  if (applied === 0) return;
  throw new FatalError(
    ExitCode.backendCorrupt,
    `the database ${directories.database} has applied entry ${applied}, but there is no log in ${directories.wal}: it was ` +
      'removed, or --wal-dir is another one. Restore the log, or restore from a snapshot',
  );
}

/**
 * Followers that lag are served from memory; what is older than they may need is not read. The log may begin later than that
 * when --snapshot-catchup-entries was smaller before: only what the database lacks must be there.
 */
function firstIndexToRead(disk: Disk, walDirectory: string, applied: number, catchUpEntries: number): number {
  const wanted = Math.max(0, applied - catchUpEntries) + 1;
  const oldest = listSegments(disk, walDirectory)[0]?.firstIndex ?? 1;
  return Math.max(wanted, Math.min(oldest, applied + 1));
}

/** The database and the log must be of one member: what the database holds, the log has committed. */
function checkTogether(replay: WalReplay, backend: Backend, directories: Directories): void {
  const applied = backend.consistentIndex;
  if (applied > replay.last.index) {
    throw new FatalError(
      ExitCode.backendCorrupt,
      `the database ${directories.database} has applied entry ${applied}, but the log in ${directories.wal} ends at ` +
        `${replay.last.index}: the log was removed or is another member's. Restore the log, or restore from a snapshot`,
    );
  }
  if (applied < replay.start.index) {
    throw new FatalError(
      ExitCode.backendCorrupt,
      `the database ${directories.database} has applied entry ${applied}, but the log in ${directories.wal} begins after ` +
        `${replay.start.index}: the database was removed or is older than the log. Restore it, or restore from a snapshot`,
    );
  }
}

function build(options: BootstrapOptions, wal: Wal, replay: WalReplay, backend: Backend, lock: DiskLock): Member {
  const { config, logger } = options;
  const clock = options.clock ?? systemClock;
  const nowMs = (): number => clock.nowMs();
  const id = wal.metadata.memberId;
  const buckets = bucketStore(backend);
  const cluster = new Cluster(wal.metadata.clusterId, buckets);
  const damaged = cluster.recover();
  assertSound(damaged === null, `its membership: ${damaged}`);
  const alarms = new AlarmStore(buckets);
  alarms.recover();
  const lessor = recoverLeases(options, backend, nowMs);
  const compactRevision = backend.compactRevision === 0 ? -1 : backend.compactRevision;
  const store = new Store(backend, lessor, Math.max(1, backend.currentRevision), compactRevision);
  const hub = new WatchHub(store, backend);
  store.onCommit = (main) => hub.committed(main, store.changes);
  const quotaBytes = config.quotaBytes ?? Infinity;
  const compactionHashes = new CompactionHashes();
  backend.onCompactionHash = (hash) => compactionHashes.store(hash);
  const applier = new Applier({
    store,
    lessor,
    alarms,
    cluster,
    backendBytes: () => backend.sizes().totalBytes,
    quotaBytes,
    onCompact: (revision) => {
      if (revision > 0 && revision <= backend.currentRevision) member.startCompaction(revision);
      // Before every row (etcd's revisions begin at 1): nothing to delete, but etcd keeps the hash of no row for it.
      else compactionHashes.store({ hash: new KvHasher(-1, 0, null).hash(), revision, compactRevision: -1 });
    },
  });
  const { raft, storage } = openRaft(options, id, replay, backend);
  const member: Member = new Member({
    id,
    name: config.name,
    clientUrls: urlTexts(config.advertiseClientUrls),
    raft,
    storage,
    lock,
    wal,
    backend,
    store,
    hub,
    lessor,
    cluster,
    alarms,
    applier,
    compactionHashes,
    header: new ResponseHeaderEncoder(wal.metadata.clusterId, id),
    logger,
    counters: options.memberCounters,
    nowMs,
    wallMs: () => clock.wallMs(),
    electionMs: config.electionTimeoutMs,
    quotaBytes,
    warningApplyMs: config.warningApplyDurationMs,
    requestBytesMax: config.requestBytesMax,
    catchUpEntries: config.snapshotCatchupEntryCount,
    clusterVersion: options.clusterVersion,
    flushConnections: options.flushConnections,
    schedule: options.schedule,
  });
  return member;
}

function bucketStore(backend: Backend): BucketStore {
  return {
    put: (bucket, key, value) => backend.bucketPut(bucket as BucketName, key, value),
    remove: (bucket, key) => backend.bucketDelete(bucket as BucketName, key),
    scan: (bucket, visit) => backend.bucketScan(bucket as BucketName, undefined, undefined, visit),
  };
}

function recoverLeases(options: BootstrapOptions, backend: Backend, nowMs: () => number): Lessor {
  const { config, leaseCounters } = options;
  const electionTicks = config.electionTickCount;
  const lessor = new Lessor({
    nowMs,
    // etcd's minimum: one and a half election timeouts in whole ticks, rounded up to seconds.
    minTtlSeconds: Math.ceil((Math.floor((3 * electionTicks) / 2) * config.heartbeatIntervalMs) / 1000),
    bucket: {
      put: (key, value) => backend.bucketPut('lease', key, value),
      remove: (key) => backend.bucketDelete('lease', key),
    },
    counters: leaseCounters,
    checkpoints: config.features.enabled('LeaseCheckpoint'),
  });
  backend.bucketScan('lease', undefined, undefined, (_key, value) => {
    const isLease = lessor.recover(Buffer.from(value));
    assertSound(isLease, 'a stored lease does not parse');
    return true;
  });
  backend.index.visitLeased((leaseHi, leaseLo, key, start, end) => {
    if (lessor.recoverKey(leaseHi, leaseLo, key, start, end)) return;
    options.logger.error('server/bootstrap.ts', 'failed to attach a lease', {
      lease: hexId(leaseIdOf(leaseHi, leaseLo)),
    });
  });
  return lessor;
}

function openRaft(
  options: BootstrapOptions,
  id: bigint,
  replay: WalReplay,
  backend: Backend,
): { raft: RawNode; storage: MemoryStorage } {
  const { config, logger, random } = options;
  const confState = readConfState(backend);
  const storage = new MemoryStorage(confState);
  if (replay.start.index > 0) {
    storage.applySnapshot({ meta: { confState, index: replay.start.index, term: replay.start.term }, data: NO_BYTES });
  }
  storage.append(replay.entries);
  const { hardState } = replay;
  // What the database holds was committed, even if the log's last note of the commit index is older.
  storage.setHardState({ ...hardState, commit: Math.max(hardState.commit, backend.consistentIndex) });
  const raft = new RawNode({
    id,
    electionTick: config.electionTickCount,
    heartbeatTick: 1,
    storage,
    applied: backend.consistentIndex,
    maxSizePerMessage: raftMessageBytesMax,
    maxCommittedSizePerReady: applyHandedOutBytesMax,
    maxUncommittedEntriesSize: raftUncommittedBytesMax,
    maxInflightMessages: raftMessagesInFlightMax,
    maxInflightBytes: Infinity,
    checkQuorum: true,
    preVote: config.preVote,
    readOnlyOption: ReadOnlyOption.safe,
    random: (n) => random.below(n),
    logger: {
      debugEnabled: false,
      debug: (line) => logger.debug('raft/raft.ts', line),
      info: (line) => logger.info('raft/raft.ts', line),
      warn: (line) => logger.warn('raft/raft.ts', line),
    },
    disableProposalForwarding: false,
    decodeConfChange,
  });
  return { raft, storage };
}

function readConfState(backend: Backend): ConfState {
  const bytes = backend.bucketGet('meta', MetaKey.confState);
  if (bytes === undefined) return EMPTY_CONF_STATE;
  const confState = decodeConfState(bytes);
  assertSound(confState !== null, 'its confState does not parse');
  return confState;
}

function decodeConfChange(entry: Entry): ConfChangeV2 | null {
  if (entry.type !== EntryType.confChange) return null;
  const change = decode(ConfChange, entry.data);
  if (change === undefined) return null;
  const type = (change.type ?? 0) as ConfChangeType;
  return confChangeAsV2({ type, nodeId: change.nodeId ?? 0n, context: change.context ?? NO_BYTES });
}

function logStart({ logger, config }: BootstrapOptions, member: Member, isNew: boolean): void {
  const { parts } = member;
  logger.info('server/bootstrap.ts', isNew ? 'starting local member' : 'restarting local member', {
    'cluster-id': parts.cluster.id.toString(16),
    'local-member-id': parts.id.toString(16),
    'commit-index': parts.raft.committedIndex,
    'applied-index': parts.backend.consistentIndex,
    'current-revision': parts.store.currentRevision,
    'data-dir': config.dataDir,
  });
}
