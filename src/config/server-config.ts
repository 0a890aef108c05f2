// The typed configuration that the rest of the server is built from: names with units, etcd's "0 means the default" resolved.
// Made by load.ts out of a validated FlagSet; nothing in here reads flags later.

import type { FeatureGateSet } from './feature-gates.ts';
import type { FlagSet } from './flag-set.ts';
import type { InitialCluster } from './initial-cluster.ts';
import type { MemberUrl } from './member-url.ts';

const gibibyte = 1024 ** 3;
const quotaBytesDefault: number = 2 * gibibyte;

/** Automatic compaction: off, by age, or by count of revisions. */
export type AutoCompaction =
  | { readonly mode: 'off' }
  | { readonly mode: 'periodic'; readonly retentionMs: number }
  | { readonly mode: 'revision'; readonly retentionRevisions: number };

export interface ServerConfig {
  readonly name: string;
  readonly dataDir: string;
  /** '' for the place inside the data directory. */
  readonly walDir: string;

  readonly listenPeerUrls: readonly MemberUrl[];
  readonly listenClientUrls: readonly MemberUrl[];
  readonly listenClientHttpUrls: readonly MemberUrl[];
  readonly listenMetricsUrls: readonly MemberUrl[];
  readonly advertisePeerUrls: readonly MemberUrl[];
  readonly advertiseClientUrls: readonly MemberUrl[];
  readonly socketReusePort: boolean;
  readonly socketReuseAddress: boolean;

  /** Only for a member without data; empty when bootstrapError says why it cannot be read. */
  readonly initialCluster: InitialCluster;
  /** Why it cannot be read; a member with data ignores it, as in etcd. The other checks are in server/start-plan.ts. */
  readonly bootstrapError: string | null;
  readonly initialClusterState: 'new' | 'existing';
  readonly initialClusterToken: string;
  /** Null without --discovery-endpoints. */
  readonly discovery: DiscoveryConfig | null;
  /** '' without. */
  readonly discoverySrv: string;
  readonly discoverySrvName: string;
  readonly forceNewCluster: boolean;
  readonly strictReconfigCheck: boolean;
  readonly maxLearners: number;

  readonly heartbeatIntervalMs: number;
  readonly electionTimeoutMs: number;
  /** Whole heartbeats in an election timeout, as raft counts them. */
  readonly electionTickCount: number;
  readonly initialElectionTickAdvance: boolean;
  readonly preVote: boolean;
  readonly snapshotEntryCount: number;
  readonly snapshotCatchupEntryCount: number;
  readonly snapshotFilesMax: number;
  readonly walFilesMax: number;
  readonly unsafeNoFsync: boolean;
  readonly raftReadTimeoutMs: number;
  readonly raftWriteTimeoutMs: number;

  /** The quota in force; null when a negative flag switched it off. */
  readonly quotaBytes: number | null;
  readonly quotaIsDefault: boolean;
  readonly backendBatchIntervalMs: number;
  readonly backendBatchLimit: number;
  readonly compactionBatchLimit: number;
  readonly compactionSleepIntervalMs: number;
  readonly autoCompaction: AutoCompaction;
  readonly bootstrapDefragThresholdBytes: number;

  readonly txnOpsMax: number;
  readonly requestBytesMax: number;
  readonly concurrentStreamsMax: number;
  readonly keepaliveMinTimeMs: number;
  readonly keepaliveIntervalMs: number;
  readonly keepaliveTimeoutMs: number;
  readonly watchProgressNotifyIntervalMs: number;
  readonly enableGrpcGateway: boolean;

  readonly cors: readonly string[];
  readonly hostWhitelist: readonly string[];
  readonly authToken: string;
  readonly authTokenTtlSeconds: number;
  readonly bcryptCost: number;

  readonly extensiveMetrics: boolean;
  readonly warningApplyDurationMs: number;
  readonly warningUnaryRequestDurationMs: number;
  readonly corruptCheckIntervalMs: number;
  readonly compactHashCheckIntervalMs: number;
  readonly downgradeCheckIntervalMs: number;
  readonly features: FeatureGateSet;

  readonly log: LogConfig;
}

/** A running store in which the members of a new cluster find each other (v3 discovery). */
export interface DiscoveryConfig {
  readonly endpoints: readonly string[];
  readonly token: string;
  readonly dialTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly keepAliveMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly user: { readonly name: string; readonly password: string } | null;
  /** Paths, '' where not given; null: without TLS, unless an endpoint's scheme asks for it. */
  readonly tls: {
    readonly certFile: string;
    readonly keyFile: string;
    readonly caFile: string;
    readonly skipVerify: boolean;
  } | null;
}

export interface LogConfig {
  readonly level: string;
  readonly format: 'json' | 'console';
  /** 'stderr', 'stdout' or paths, sorted and without repeats; only '/dev/null' discards everything. */
  readonly outputs: readonly string[];
}

/** The parts that are not a flag's value alone. */
export interface Resolved {
  readonly dataDir: string;
  readonly advertisePeerUrls: readonly MemberUrl[];
  readonly advertiseClientUrls: readonly MemberUrl[];
  readonly initialCluster: InitialCluster;
  readonly bootstrapError: string | null;
  readonly autoCompaction: AutoCompaction;
}

export function buildServerConfig(flags: FlagSet, resolved: Resolved): ServerConfig {
  return { ...memberPart(flags, resolved), ...raftPart(flags), ...storagePart(flags, resolved), ...servicePart(flags) };
}

type MemberKeys =
  | 'name'
  | 'dataDir'
  | 'walDir'
  | `listen${string}`
  | `advertise${string}`
  | `socket${string}`
  | `initialCluster${string}`
  | `discovery${string}`
  | 'bootstrapError'
  | 'forceNewCluster'
  | 'strictReconfigCheck'
  | 'maxLearners';
type PartOf<Keys> = Pick<ServerConfig, Extract<keyof ServerConfig, Keys>>;

function memberPart(flags: FlagSet, resolved: Resolved): PartOf<MemberKeys> {
  return {
    name: flags.string('name'),
    dataDir: resolved.dataDir,
    walDir: flags.string('wal-dir'),
    listenPeerUrls: flags.urls('listen-peer-urls'),
    listenClientUrls: flags.urls('listen-client-urls'),
    listenClientHttpUrls: flags.urls('listen-client-http-urls'),
    listenMetricsUrls: flags.urls('listen-metrics-urls'),
    advertisePeerUrls: resolved.advertisePeerUrls,
    advertiseClientUrls: resolved.advertiseClientUrls,
    socketReusePort: flags.bool('socket-reuse-port'),
    socketReuseAddress: flags.bool('socket-reuse-address'),
    initialCluster: resolved.initialCluster,
    bootstrapError: resolved.bootstrapError,
    initialClusterState: flags.string('initial-cluster-state') === 'existing' ? 'existing' : 'new',
    initialClusterToken: flags.string('initial-cluster-token'),
    discovery: discoveryConfig(flags),
    discoverySrv: flags.string('discovery-srv'),
    discoverySrvName: flags.string('discovery-srv-name'),
    forceNewCluster: flags.bool('force-new-cluster'),
    strictReconfigCheck: flags.bool('strict-reconfig-check'),
    maxLearners: flags.number('max-learners'),
  };
}

function discoveryConfig(flags: FlagSet): DiscoveryConfig | null {
  const endpoints = flags.strings('discovery-endpoints');
  if (endpoints.length === 0) return null;
  const [certFile, keyFile, caFile] = ['cert', 'key', 'cacert'].map((name) => flags.string(`discovery-${name}`));
  const skipVerify = flags.bool('discovery-insecure-skip-tls-verify');
  const hasTls = skipVerify || !flags.bool('discovery-insecure-transport') || `${certFile}${keyFile}${caFile}` !== '';
  const name = flags.string('discovery-user');
  return {
    endpoints,
    token: flags.string('discovery-token'),
    dialTimeoutMs: flags.milliseconds('discovery-dial-timeout'),
    requestTimeoutMs: flags.milliseconds('discovery-request-timeout'),
    keepAliveMs: flags.milliseconds('discovery-keepalive-time'),
    keepAliveTimeoutMs: flags.milliseconds('discovery-keepalive-timeout'),
    user: name === '' ? null : { name, password: flags.string('discovery-password') },
    tls: hasTls ? { certFile: certFile!, keyFile: keyFile!, caFile: caFile!, skipVerify } : null,
  };
}

type RaftKeys =
  | 'heartbeatIntervalMs'
  | `election${string}`
  | 'initialElectionTickAdvance'
  | 'preVote'
  | `snapshot${string}`
  | 'walFilesMax'
  | 'unsafeNoFsync'
  | `raft${string}`;

function raftPart(flags: FlagSet): PartOf<RaftKeys> {
  const heartbeatIntervalMs = flags.number('heartbeat-interval');
  const electionTimeoutMs = flags.number('election-timeout');
  return {
    heartbeatIntervalMs,
    electionTimeoutMs,
    electionTickCount: Math.floor(electionTimeoutMs / heartbeatIntervalMs),
    initialElectionTickAdvance: flags.bool('initial-election-tick-advance'),
    preVote: flags.bool('pre-vote'),
    snapshotEntryCount: orDefault(flags.number('snapshot-count'), 10000),
    snapshotCatchupEntryCount: flags.number('snapshot-catchup-entries'),
    snapshotFilesMax: flags.number('max-snapshots'),
    walFilesMax: flags.number('max-wals'),
    unsafeNoFsync: flags.bool('unsafe-no-fsync'),
    raftReadTimeoutMs: Math.max(5000, flags.milliseconds('raft-read-timeout')),
    raftWriteTimeoutMs: Math.max(5000, flags.milliseconds('raft-write-timeout')),
  };
}

type StorageKeys =
  | `quota${string}`
  | `backend${string}`
  | `compaction${string}`
  | 'autoCompaction'
  | 'bootstrapDefragThresholdBytes';

function storagePart(flags: FlagSet, resolved: Resolved): PartOf<StorageKeys> {
  const quota = flags.number('quota-backend-bytes');
  return {
    quotaBytes: quota < 0 ? null : orDefault(quota, quotaBytesDefault),
    quotaIsDefault: quota === 0,
    backendBatchIntervalMs: orDefault(flags.milliseconds('backend-batch-interval'), 100),
    // Below one: each change is committed for itself, as in etcd.
    backendBatchLimit: Math.max(1, orDefault(flags.number('backend-batch-limit'), 10000)),
    compactionBatchLimit: orDefault(flags.number('compaction-batch-limit'), 1000),
    compactionSleepIntervalMs: orDefault(flags.milliseconds('compaction-sleep-interval'), 10),
    autoCompaction: resolved.autoCompaction,
    bootstrapDefragThresholdBytes: flags.number('bootstrap-defrag-threshold-megabytes') * 1024 * 1024,
  };
}

type ServiceKeys = Exclude<
  keyof ServerConfig,
  keyof PartOf<MemberKeys> | keyof PartOf<RaftKeys> | keyof PartOf<StorageKeys>
>;

function servicePart(flags: FlagSet): Pick<ServerConfig, ServiceKeys> {
  const bcryptCost = flags.number('bcrypt-cost');
  return {
    txnOpsMax: flags.number('max-txn-ops'),
    requestBytesMax: flags.number('max-request-bytes'),
    concurrentStreamsMax: flags.number('max-concurrent-streams'),
    keepaliveMinTimeMs: flags.milliseconds('grpc-keepalive-min-time'),
    keepaliveIntervalMs: flags.milliseconds('grpc-keepalive-interval'),
    keepaliveTimeoutMs: flags.milliseconds('grpc-keepalive-timeout'),
    watchProgressNotifyIntervalMs: progressIntervalMs(flags.milliseconds('watch-progress-notify-interval')),
    enableGrpcGateway: flags.bool('enable-grpc-gateway'),
    cors: flags.strings('cors'),
    hostWhitelist: flags.strings('host-whitelist'),
    authToken: flags.string('auth-token'),
    authTokenTtlSeconds: flags.number('auth-token-ttl'),
    bcryptCost: bcryptCost < 4 || bcryptCost > 31 ? 10 : bcryptCost,
    extensiveMetrics: flags.string('metrics') === 'extensive',
    warningApplyDurationMs: flags.milliseconds('warning-apply-duration'),
    warningUnaryRequestDurationMs: orDefault(flags.milliseconds('warning-unary-request-duration'), 300),
    corruptCheckIntervalMs: flags.milliseconds('corrupt-check-time'),
    compactHashCheckIntervalMs: flags.milliseconds('compact-hash-check-time'),
    downgradeCheckIntervalMs: flags.milliseconds('downgrade-check-time'),
    features: flags.gates('feature-gates'),
    log: logConfig(flags),
  };
}

/** Also used alone, for the lines about a configuration that was refused. */
export function logConfig(flags: FlagSet): LogConfig {
  const outputs = flags.strings('log-outputs').map((output) => (output === 'default' ? 'stderr' : output));
  return {
    level: flags.string('log-level'),
    format: flags.string('log-format') === 'console' ? 'console' : 'json',
    outputs: outputs.includes('/dev/null')
      ? ['/dev/null']
      : [...new Set(outputs.length === 0 ? ['stderr'] : outputs)].sort(),
  };
}

/** etcd's floor is 100 ms. */
function progressIntervalMs(value: number): number {
  return value <= 0 ? 600_000 : Math.max(100, value);
}

function orDefault(value: number, byDefault: number): number {
  return value === 0 ? byDefault : value;
}
