// Builds the member from what its data directory holds: nothing (a new cluster, its log begun as etcd begins it, with the membership
// changes that add its members; or one that runs, which sends its log), or a database and a log (a restart: the log is replayed
// from the database's consistent index on). Which of them it is says start-plan.ts. Checks of files are here; the loop is member.ts.

import { AlarmStore } from '../apply/alarms.ts';
import { Applier } from '../apply/applier.ts';
import { Backend, type BackendObserver } from '../backend/backend.ts';
import type { BackendOptions, BackendSizes } from '../backend/backend-options.ts';
import { type DatabaseFiles, lmdbFiles } from '../backend/snapshot-conversion.ts';
import { assertSound, ExitCode, FatalError } from '../base/fatal.ts';
import { urlTexts } from '../config/member-url.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { type Clock, systemClock } from '../io/clock.ts';
import { type Disk, type DiskLock, errorCode, errorText, nodeDisk } from '../io/file.ts';
import type { Random } from '../io/random.ts';
import { type OpenStreamFile, openStreamFile } from '../io/stream-file.ts';
import type { WalObserver, WalWriterFactory } from '../io/wal-writer.ts';
import { absolutePath } from '../io/working-directory.ts';
import { type LeaseCounters, Lessor } from '../lease/lessor.ts';
import { logCompactionSlack } from '../limits.ts';
import { type BucketStore, Cluster, type Member as ClusterMember, hexId } from '../membership/cluster.ts';
import { majorMinor } from '../membership/semantic-version.ts';
import { Store } from '../mvcc/store.ts';
import { WatchHub } from '../mvcc/watch-hub.ts';
import type { PeerEvents, PeerRequests, PeerTransport } from '../peer/peer-transport.ts';
import { encode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import { KvHasher } from '../snapshot/hashkv.ts';
import { type BucketName, encodeMember } from '../snapshot/schema.ts';
import type { BackendLimits } from '../storage-limits.ts';
import type { Logger } from '../telemetry/logger.ts';
import { listSegments, type WalReplay } from '../wal/replay.ts';
import { openWal, type Wal, walExists } from '../wal/wal.ts';
import { CompactionHashes } from './compaction-hashes.ts';
import { checkPermissions, makeDirectory, walDirectory } from './data-directory.ts';
import { forceNewCluster } from './force-new-cluster.ts';
import { storesCheckpoints } from './lease-upkeep.ts';
import { Member } from './member.ts';
import { durationText, humanBytes, recoveredCluster } from './member-log.ts';
import type { MemberCounters } from './member-parts.ts';
import { openRaft, readConfState } from './open-raft.ts';
import { peerEvents } from './peer-events.ts';
import { ResponseHeaderEncoder } from './response-header.ts';
import { recoverLeases, storedRevisions } from './restored-state.ts';
import { checkSnapshotHeld, recoverSnapshot } from './snapshot-recovery.ts';
import type { StartPlan } from './start-plan.ts';
import { checkVersions } from './version-check.ts';

/** What the environment lends. */
export interface BootstrapOptions {
  readonly config: ServerConfig;
  /** Of planStart(), with the same configuration. */
  readonly plan: StartPlan;
  /** The etcd release that this server is. */
  readonly serverVersion: string;
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
  /** The way to the peers, made once the ids are known. */
  readonly newTransport: (
    events: PeerEvents,
    ids: { readonly id: bigint; readonly clusterId: bigint },
  ) => PeerTransport;
  readonly peerRequests: PeerRequests;
  readonly onRemoved: (reason: string) => void;
  readonly disk?: Disk;
  readonly openStreamFile?: OpenStreamFile;
  readonly clock?: Clock;
  /** The simulation's: over a database in memory. */
  readonly openBackend?: (options: BackendOptions) => Backend;
  readonly databases?: DatabaseFiles;
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
    const openedMs = (options.clock ?? systemClock).nowMs();
    recoverSnapshot({
      disk,
      logger: options.logger,
      databases: options.databases ?? lmdbFiles(config.unsafeNoFsync),
      databasePath: directories.database,
      walDirectory: directories.wal,
    });
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
  const open = options.openBackend ?? Backend.open;
  return open({
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
  const { plan } = options;
  const metadata = plan.kind === 'restart' ? null : { clusterId: plan.clusterId, memberId: plan.memberId };
  logger.info('server/bootstrap.ts', 'opened backend db', {
    path: directories.database,
    took: durationText(clock.nowMs() - openedMs),
    'rows-indexed': backend.recoveredRows,
  });
  logger.info('server/bootstrap.ts', 'restore consistentIndex', { index: backend.consistentIndex });
  if (!isNew) tellRecovered(logger, backend.sizes());
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
    checkSnapshotHeld(replay.marker, directories.database, backend.consistentIndex);
    checkTogether(replay, backend, directories);
    return begin(options, wal, replay, backend, lock);
  } catch (error) {
    wal.close();
    throw error;
  }
}

/** The member over database and log, which are of one history. */
function begin(options: BootstrapOptions, wal: Wal, replay: WalReplay, backend: Backend, lock: DiskLock): Member {
  const { plan } = options;
  // A first start that was cut short has made the log, but nothing in it is durable: it begins again, under the log's ids.
  const isEmpty = replay.last.index === 0 && replay.hardState.term === 0 && backend.consistentIndex === 0;
  if (isEmpty && plan.kind === 'restart') {
    throw new FatalError(ExitCode.dataDir, 'the log was emptied while this member started on it');
  }
  const log = isEmpty || !options.config.forceNewCluster ? replay : forced(options, wal, replay, backend);
  const member = build(options, wal, log, backend, lock);
  // The same entries at the same places on every member of a new cluster. Who joins one gets them from its leader.
  if (isEmpty && plan.kind === 'new') member.parts.raft.bootstrap(plan.members.map(bootstrapPeer));
  logStart(options, member, isEmpty);
  return member;
}

function forced({ logger }: BootstrapOptions, wal: Wal, replay: WalReplay, backend: Backend): WalReplay {
  const applied = { index: backend.consistentIndex, confState: readConfState(backend) };
  return forceNewCluster(wal, replay, applied, logger);
}

function bootstrapPeer(member: ClusterMember): { readonly id: bigint; readonly data: Buffer } {
  return { id: member.id, data: encode(ConfChange, { type: 0, nodeId: member.id, context: encodeMember(member) }) };
}

function makeDirectories(disk: Disk, config: ServerConfig): Directories {
  // Absolute, for the whole life of the process: its working directory may go.
  const dataDir = absolutePath(config.dataDir, '--data-dir');
  const member = `${dataDir}/member`;
  const wal = walDirectory(config);
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
  recoveredCluster(logger, cluster, id);
  if (cluster.members().filter(({ isLearner }) => isLearner).length > config.maxLearners) {
    throw new FatalError(ExitCode.bug, 'membership: too many learner members in cluster');
  }
  checkVersions({ backend, cluster, logger, serverVersion: options.serverVersion });
  const alarms = new AlarmStore(buckets);
  alarms.recover();
  const lessor = newLessor(options, backend, cluster, nowMs);
  recoverLeases(lessor, backend, logger);
  const { current, compact } = storedRevisions(backend);
  const store = new Store(backend, lessor, current, compact);
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
  const { raft, storage } = openRaft({ config, logger, random: options.random, id, replay, backend });
  const member: Member = new Member({
    id,
    name: config.name,
    clientUrls: urlTexts(config.advertiseClientUrls),
    raft,
    storage,
    lock,
    wal,
    backend,
    files: { disk: options.disk ?? nodeDisk, openStreamFile: options.openStreamFile ?? openStreamFile },
    store,
    hub,
    lessor,
    cluster,
    transport: options.newTransport(
      peerEvents(() => member),
      { id, clusterId: wal.metadata.clusterId },
    ),
    peerRequests: options.peerRequests,
    firstMembers: firstMembers(options.plan),
    alarms,
    applier,
    compactionHashes,
    header: new ResponseHeaderEncoder(wal.metadata.clusterId, id),
    logger,
    counters: options.memberCounters,
    nowMs,
    wallMs: () => clock.wallMs(),
    electionMs: config.electionTimeoutMs,
    electionTicks: config.electionTickCount,
    advancesFirstElection: config.initialElectionTickAdvance,
    fastLeaseKeepAlive: config.features.enabled('FastLeaseKeepAlive'),
    quotaBytes,
    warningApplyMs: config.warningApplyDurationMs,
    requestBytesMax: config.requestBytesMax,
    catchUpEntries: config.snapshotCatchupEntryCount,
    logCompactionEntries: Math.min(config.snapshotEntryCount, logCompactionSlack),
    strictReconfigCheck: config.strictReconfigCheck,
    learnersMax: config.maxLearners,
    serverVersion: options.serverVersion,
    checks: {
      corruptMs: config.corruptCheckIntervalMs,
      compactHashMs: config.features.enabled('CompactHashCheck') ? config.compactHashCheckIntervalMs : 0,
      downgradeMs: config.downgradeCheckIntervalMs,
    },
    flushConnections: options.flushConnections,
    schedule: options.schedule,
    onRemoved: options.onRemoved,
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

function newLessor(options: BootstrapOptions, backend: Backend, cluster: Cluster, nowMs: () => number): Lessor {
  const { config, leaseCounters } = options;
  const electionTicks = config.electionTickCount;
  return new Lessor({
    nowMs,
    // etcd's minimum: one and a half election timeouts in whole ticks, rounded up to seconds.
    minTtlSeconds: Math.ceil((Math.floor((3 * electionTicks) / 2) * config.heartbeatIntervalMs) / 1000),
    bucket: {
      put: (key, value) => backend.bucketPut('lease', key, value),
      remove: (key) => backend.bucketDelete('lease', key),
    },
    counters: leaseCounters,
    checkpoints: config.features.enabled('LeaseCheckpoint'),
    persistsCheckpoints: () => config.features.enabled('LeaseCheckpointPersist') || storesCheckpoints(cluster),
  });
}

function tellRecovered(logger: Logger, { totalBytes, inUseBytes }: BackendSizes): void {
  logger.info('server/bootstrap.ts', 'recovered v3 backend', {
    'backend-size-bytes': totalBytes,
    'backend-size': humanBytes(totalBytes),
    'backend-size-in-use-bytes': inUseBytes,
    'backend-size-in-use': humanBytes(inUseBytes),
  });
}

function logStart({ logger, config, serverVersion }: BootstrapOptions, member: Member, isNew: boolean): void {
  const { parts } = member;
  logger.info('server/bootstrap.ts', isNew ? 'starting local member' : 'restarting local member', {
    'cluster-id': parts.cluster.id.toString(16),
    'local-member-id': parts.id.toString(16),
    'commit-index': parts.raft.committedIndex,
    'applied-index': parts.backend.consistentIndex,
    'current-revision': parts.store.currentRevision,
    'data-dir': config.dataDir,
  });
  const { version } = parts.cluster;
  logger.info('server/bootstrap.ts', 'starting etcd server', {
    'local-member-id': hexId(parts.id),
    'local-server-version': serverVersion,
    ...(version === undefined ? {} : { 'cluster-id': hexId(parts.cluster.id) }),
    'cluster-version': version === undefined ? 'to_be_decided' : majorMinor(version),
  });
  // A lone member campaigns at once.
  if (Math.max(parts.cluster.members().length, parts.firstMembers.length) === 1) return;
  const advance = config.initialElectionTickAdvance ? 'starting' : 'skipping';
  const ticks = { 'election-ticks': config.electionTickCount };
  logger.info('server/bootstrap.ts', `${advance} initial election tick advance`, ticks);
}

function firstMembers(plan: StartPlan): readonly ClusterMember[] {
  if (plan.kind === 'restart') return [];
  return plan.kind === 'new' ? plan.members : plan.remotes;
}
