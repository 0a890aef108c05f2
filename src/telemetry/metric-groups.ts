// The groups of metrics.ts: one class for each part of the member, with a number or histogram for every metric, and beside it
// the family that shows it under etcd's name. Help texts are our own.

import { metricClientVersionsMax } from '../limits.ts';
import { ArrayFamily, type Cell, CellFamily, type Family, HistogramFamily, ScalarFamily } from './exposition.ts';
import { grpcCodeNames, grpcMethods } from './grpc-methods.ts';
import { exponentialBounds, type Histogram } from './histogram.ts';

export interface MetricsOptions {
  readonly serverVersion: string;
  /** For etcd_server_go_version and go_info: what runs here instead of Go. */
  readonly runtimeVersion: string;
  /** --metrics=extensive: a latency histogram for each gRPC method. */
  readonly extensive: boolean;
  readonly features: readonly { readonly name: string; readonly stage: string; readonly enabled: boolean }[];
}

// Bounds that several families share, in seconds.
const fast: readonly number[] = exponentialBounds(0.001, 2, 14);
const request: readonly number[] = exponentialBounds(0.0001, 2, 20);
const defaultBounds: readonly number[] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Makes families and keeps them; the groups below are built with it. */
export class Builder {
  readonly families: Family[] = [];

  scalar(name: string, type: 'counter' | 'gauge', help: string, read: () => number): void {
    this.families.push(new ScalarFamily(name, type, help, read));
  }
  gauge(name: string, help: string, read: () => number): void {
    this.scalar(name, 'gauge', help, read);
  }
  counter(name: string, help: string, read: () => number): void {
    this.scalar(name, 'counter', help, read);
  }
  cells(name: string, type: 'counter' | 'gauge', help: string, labels: readonly string[]): CellFamily {
    const family = new CellFamily(name, type, help, labels);
    this.families.push(family);
    return family;
  }
  histogram(name: string, help: string, bounds: readonly number[]): Histogram {
    return this.histograms(name, help, bounds, []).with();
  }
  histograms(name: string, help: string, bounds: readonly number[], labels: readonly string[]): HistogramFamily {
    const family = new HistogramFamily(name, help, bounds, labels);
    this.families.push(family);
    return family;
  }
  array(name: string, help: string, labels: readonly Readonly<Record<string, string>>[]): Float64Array {
    const values = new Float64Array(labels.length);
    this.families.push(new ArrayFamily(name, 'counter', help, labels, values));
    return values;
  }
}

/** etcd_server_*: the member, its proposals and its requests. */
export class ServerMetrics {
  hasLeader = 0;
  isLeader = 0;
  isLearner = 0;
  leaderChanges = 0;
  heartbeatSendFailures = 0;
  snapshotApplyInProgress = 0;
  proposalsCommitted = 0;
  proposalsApplied = 0;
  proposalsPending = 0;
  proposalsFailed = 0;
  slowApplies = 0;
  slowReadIndexes = 0;
  readIndexesFailed = 0;
  quotaBytes = 0;
  leasesExpired = 0;
  learnerPromoteSuccesses = 0;
  readonly learnerPromoteFailures: CellFamily;
  /** Labels version ("v3"), op, success ("true"/"false"). */
  readonly applyDuration: HistogramFamily;
  /** Labels type, success. */
  readonly requestDuration: HistogramFamily;
  /** Label success. */
  readonly rangeDuration: HistogramFamily;
  /** Label server_id, hexadecimal; set to 1. */
  readonly id: CellFamily;
  /** Labels server_id, alarm_type. */
  readonly alarms: CellFamily;
  /** Label cluster_version; clear() before another version is set to 1. */
  readonly clusterVersion: CellFamily;

  constructor(b: Builder, options: MetricsOptions) {
    b.gauge('etcd_server_has_leader', '1 while this member knows a leader.', () => this.hasLeader);
    b.gauge('etcd_server_is_leader', '1 while this member leads.', () => this.isLeader);
    b.gauge('etcd_server_is_learner', '1 while this member is a learner.', () => this.isLearner);
    b.counter('etcd_server_leader_changes_seen_total', 'Changes of the leader seen.', () => this.leaderChanges);
    b.counter('etcd_server_heartbeat_send_failures_total', 'Heartbeats sent late.', () => this.heartbeatSendFailures);
    b.gauge(
      'etcd_server_snapshot_apply_in_progress_total',
      '1 while a received snapshot is applied.',
      () => this.snapshotApplyInProgress,
    );
    b.gauge('etcd_server_proposals_committed_total', 'Commit index of raft.', () => this.proposalsCommitted);
    b.gauge('etcd_server_proposals_applied_total', 'Applied index of raft.', () => this.proposalsApplied);
    b.gauge('etcd_server_proposals_pending', 'Proposals that wait for their commit.', () => this.proposalsPending);
    b.counter('etcd_server_proposals_failed_total', 'Proposals that failed.', () => this.proposalsFailed);
    b.counter('etcd_server_slow_apply_total', 'Applies over the warning duration.', () => this.slowApplies);
    b.counter(
      'etcd_server_slow_read_indexes_total',
      'ReadIndex rounds that took too long.',
      () => this.slowReadIndexes,
    );
    b.counter('etcd_server_read_indexes_failed_total', 'ReadIndex rounds that failed.', () => this.readIndexesFailed);
    b.gauge('etcd_server_quota_backend_bytes', 'Quota of the backend in bytes.', () => this.quotaBytes);
    b.counter('etcd_debugging_server_lease_expired_total', 'Leases that expired.', () => this.leasesExpired);
    b.counter(
      'etcd_server_learner_promote_successes',
      'Learners promoted while leading.',
      () => this.learnerPromoteSuccesses,
    );
    this.learnerPromoteFailures = b.cells(
      'etcd_server_learner_promote_failures',
      'counter',
      'Promotions refused while leading.',
      ['Reason'],
    );
    this.applyDuration = b.histograms('etcd_server_apply_duration_seconds', 'Seconds to apply an entry.', request, [
      'version',
      'op',
      'success',
    ]);
    this.requestDuration = b.histograms(
      'etcd_server_request_duration_seconds',
      'Seconds to answer a request, by kind.',
      fast,
      ['type', 'success'],
    );
    this.rangeDuration = b.histograms(
      'etcd_server_range_duration_seconds',
      'Seconds of a range in the store.',
      request,
      ['success'],
    );
    this.id = b.cells('etcd_server_id', 'gauge', '1, with the id of the member in hexadecimal as label.', [
      'server_id',
    ]);
    this.alarms = b.cells('etcd_debugging_server_alarms', 'gauge', '1 for each alarm that is on.', [
      'server_id',
      'alarm_type',
    ]);
    this.clusterVersion = b.cells('etcd_cluster_version', 'gauge', '1, with the cluster version as label.', [
      'cluster_version',
    ]);
    b
      .cells('etcd_server_version', 'gauge', '1, with the version of the server as label.', ['server_version'])
      .with(options.serverVersion).value = 1;
    b
      .cells('etcd_server_go_version', 'gauge', '1, with the runtime as label (not Go here).', ['server_go_version'])
      .with(options.runtimeVersion).value = 1;
    const features = b.cells('etcd_server_feature_enabled', 'gauge', '1 for a feature gate that is on, else 0.', [
      'name',
      'stage',
    ]);
    for (const feature of options.features) features.with(feature.name, feature.stage).value = feature.enabled ? 1 : 0;
  }
}

/** Requests of clients that name one version of the client API; kept by the connection and counted there. */
export class ClientVersionCounter {
  readonly unary: Cell;
  readonly stream: Cell;
  constructor(family: CellFamily, version: string) {
    this.unary = family.with('unary', version);
    this.stream = family.with('stream', version);
  }
}

/** etcd_network_*: bytes and streams of clients, and traffic with peers. */
export class NetworkMetrics {
  clientReceivedBytes = 0;
  clientSentBytes = 0;
  /** Labels Type ("send"/"receive"), API ("watch"/"lease-keepalive"). */
  readonly streamFailures: CellFamily;
  /** Labels Local, Remote. */
  readonly knownPeers: CellFamily;
  readonly activePeers: CellFamily;
  readonly disconnectedPeers: CellFamily;
  /** Labels From or To. */
  readonly peerReceivedBytes: CellFamily;
  readonly peerReceivedFailures: CellFamily;
  readonly peerSentBytes: CellFamily;
  readonly peerSentFailures: CellFamily;
  readonly peerRoundTrip: HistogramFamily;
  readonly snapshotSendSuccess: CellFamily;
  readonly snapshotSendFailures: CellFamily;
  readonly snapshotSendInflights: CellFamily;
  readonly snapshotSendDuration: HistogramFamily;
  readonly snapshotReceiveSuccess: CellFamily;
  readonly snapshotReceiveFailures: CellFamily;
  readonly snapshotReceiveInflights: CellFamily;
  readonly snapshotReceiveDuration: HistogramFamily;
  readonly #clientRequests: CellFamily;
  readonly #clientVersions: Map<string, ClientVersionCounter> = new Map();

  constructor(b: Builder) {
    b.counter(
      'etcd_network_client_grpc_received_bytes_total',
      'Message bytes received from gRPC clients.',
      () => this.clientReceivedBytes,
    );
    b.counter(
      'etcd_network_client_grpc_sent_bytes_total',
      'Message bytes sent to gRPC clients.',
      () => this.clientSentBytes,
    );
    this.#clientRequests = b.cells(
      'etcd_server_client_requests_total',
      'counter',
      'Requests by the version of the client API.',
      ['type', 'client_api_version'],
    );
    this.streamFailures = b.cells('etcd_network_server_stream_failures_total', 'counter', 'Streams that failed.', [
      'Type',
      'API',
    ]);
    const pair = ['Local', 'Remote'];
    this.knownPeers = b.cells('etcd_network_known_peers', 'gauge', 'Members that this one knows.', pair);
    this.activePeers = b.cells('etcd_network_active_peers', 'gauge', 'Connections to members that live.', pair);
    this.disconnectedPeers = b.cells(
      'etcd_network_disconnected_peers_total',
      'counter',
      'Connections to members lost.',
      pair,
    );
    this.peerReceivedBytes = b.cells('etcd_network_peer_received_bytes_total', 'counter', 'Bytes from a member.', [
      'From',
    ]);
    this.peerReceivedFailures = b.cells(
      'etcd_network_peer_received_failures_total',
      'counter',
      'Failed receives from a member.',
      ['From'],
    );
    this.peerSentBytes = b.cells('etcd_network_peer_sent_bytes_total', 'counter', 'Bytes to a member.', ['To']);
    this.peerSentFailures = b.cells('etcd_network_peer_sent_failures_total', 'counter', 'Failed sends to a member.', [
      'To',
    ]);
    this.peerRoundTrip = b.histograms(
      'etcd_network_peer_round_trip_time_seconds',
      'Seconds to a member and back.',
      exponentialBounds(0.0001, 2, 16),
      ['To'],
    );
    const snapshot = exponentialBounds(0.1, 2, 10);
    this.snapshotSendSuccess = b.cells('etcd_network_snapshot_send_success', 'counter', 'Snapshots sent.', ['To']);
    this.snapshotSendFailures = b.cells('etcd_network_snapshot_send_failures', 'counter', 'Snapshots not sent.', [
      'To',
    ]);
    this.snapshotSendInflights = b.cells(
      'etcd_network_snapshot_send_inflights_total',
      'gauge',
      'Snapshots being sent.',
      ['To'],
    );
    this.snapshotSendDuration = b.histograms(
      'etcd_network_snapshot_send_total_duration_seconds',
      'Seconds to send a snapshot.',
      snapshot,
      ['To'],
    );
    this.snapshotReceiveSuccess = b.cells('etcd_network_snapshot_receive_success', 'counter', 'Snapshots received.', [
      'From',
    ]);
    this.snapshotReceiveFailures = b.cells(
      'etcd_network_snapshot_receive_failures',
      'counter',
      'Snapshots not received.',
      ['From'],
    );
    this.snapshotReceiveInflights = b.cells(
      'etcd_network_snapshot_receive_inflights_total',
      'gauge',
      'Snapshots being received.',
      ['From'],
    );
    this.snapshotReceiveDuration = b.histograms(
      'etcd_network_snapshot_receive_total_duration_seconds',
      'Seconds to receive a snapshot.',
      snapshot,
      ['From'],
    );
  }

  /** The counter of a client-api-version; "unknown" when the client sent none. The set is bounded: the text is the client's. */
  clientVersion(version: string): ClientVersionCounter {
    let counter = this.#clientVersions.get(version);
    if (counter === undefined) {
      const label = this.#clientVersions.size < metricClientVersionsMax ? version : 'other';
      counter = this.#clientVersions.get(label) ?? new ClientVersionCounter(this.#clientRequests, label);
      this.#clientVersions.set(label, counter);
    }
    return counter;
  }
}

/** etcd_disk_*, etcd_snap_*: times in seconds. */
export class DiskMetrics {
  /** 1 while defragmenting. */
  defragInflight = 0;
  walWriteBytes = 0;
  readonly walFsync: Histogram;
  readonly walWrite: Histogram;
  readonly backendCommit: Histogram;
  readonly backendCommitRebalance: Histogram;
  readonly backendCommitSpill: Histogram;
  readonly backendCommitWrite: Histogram;
  readonly backendDefrag: Histogram;
  readonly backendSnapshot: Histogram;
  readonly snapFsync: Histogram;
  readonly snapSave: Histogram;
  readonly snapSaveMarshalling: Histogram;
  readonly snapDbFsync: Histogram;
  readonly snapDbSave: Histogram;

  constructor(b: Builder) {
    b.gauge('etcd_disk_defrag_inflight', '1 while the backend is defragmented.', () => this.defragInflight);
    b.gauge('etcd_disk_wal_write_bytes_total', 'Bytes written to the WAL.', () => this.walWriteBytes);
    this.walFsync = b.histogram('etcd_disk_wal_fsync_duration_seconds', 'Seconds of a sync of the WAL.', fast);
    this.walWrite = b.histogram('etcd_disk_wal_write_duration_seconds', 'Seconds of a write to the WAL.', fast);
    this.backendCommit = b.histogram(
      'etcd_disk_backend_commit_duration_seconds',
      'Seconds of a commit of the backend.',
      fast,
    );
    const commit = 'etcd_debugging_disk_backend_commit';
    this.backendCommitRebalance = b.histogram(
      `${commit}_rebalance_duration_seconds`,
      "Part of bbolt's commit; empty here.",
      fast,
    );
    this.backendCommitSpill = b.histogram(
      `${commit}_spill_duration_seconds`,
      "Part of bbolt's commit; empty here.",
      fast,
    );
    this.backendCommitWrite = b.histogram(
      `${commit}_write_duration_seconds`,
      'Seconds of the write in a commit.',
      fast,
    );
    this.backendDefrag = b.histogram(
      'etcd_disk_backend_defrag_duration_seconds',
      'Seconds of a defragmentation.',
      exponentialBounds(0.1, 2, 13),
    );
    this.backendSnapshot = b.histogram(
      'etcd_disk_backend_snapshot_duration_seconds',
      'Seconds of a snapshot of the backend.',
      exponentialBounds(0.01, 2, 17),
    );
    this.snapFsync = b.histogram('etcd_snap_fsync_duration_seconds', 'Seconds of a sync of a raft snapshot.', fast);
    this.snapSave = b.histogram(
      'etcd_debugging_snap_save_total_duration_seconds',
      'Seconds to save a raft snapshot.',
      fast,
    );
    this.snapSaveMarshalling = b.histogram(
      'etcd_debugging_snap_save_marshalling_duration_seconds',
      'Seconds to encode a raft snapshot.',
      fast,
    );
    this.snapDbFsync = b.histogram(
      'etcd_snap_db_fsync_duration_seconds',
      'Seconds of a sync of a received database.',
      fast,
    );
    this.snapDbSave = b.histogram(
      'etcd_snap_db_save_total_duration_seconds',
      'Seconds to save a received database.',
      exponentialBounds(0.1, 2, 10),
    );
  }
}

/** etcd_mvcc_*, etcd_debugging_mvcc_*: the store. */
export class MvccMetrics {
  put = 0;
  delete = 0;
  range = 0;
  txn = 0;
  putBytes = 0;
  keys = 0;
  currentRevision = 0;
  compactRevision = 0;
  dbTotalBytes = 0;
  dbInUseBytes = 0;
  openReadTransactions = 0;
  compactedKeys = 0;
  /** Unix seconds. */
  compactionLast = 0;
  watchStreams = 0;
  watchers = 0;
  slowWatchers = 0;
  events = 0;
  pendingEvents = 0;
  readonly hash: Histogram;
  readonly hashRevision: Histogram;
  /** Milliseconds, as the names say. */
  readonly dbCompactionPause: Histogram;
  readonly dbCompactionTotal: Histogram;
  readonly indexCompactionPause: Histogram;

  constructor(b: Builder) {
    b.counter('etcd_mvcc_put_total', 'Puts.', () => this.put);
    b.counter('etcd_mvcc_delete_total', 'Deletes.', () => this.delete);
    b.counter('etcd_mvcc_range_total', 'Ranges.', () => this.range);
    b.counter('etcd_mvcc_txn_total', 'Transactions.', () => this.txn);
    b.gauge('etcd_debugging_mvcc_total_put_size_in_bytes', 'Bytes of keys and values put.', () => this.putBytes);
    b.gauge('etcd_debugging_mvcc_keys_total', 'Live keys.', () => this.keys);
    b.gauge('etcd_debugging_mvcc_current_revision', 'Current revision.', () => this.currentRevision);
    b.gauge('etcd_debugging_mvcc_compact_revision', 'Revision of the last compaction.', () => this.compactRevision);
    b.gauge('etcd_mvcc_db_total_size_in_bytes', 'Allocated size of the database.', () => this.dbTotalBytes);
    b.gauge('etcd_mvcc_db_total_size_in_use_in_bytes', 'The same without free pages.', () => this.dbInUseBytes);
    b.gauge('etcd_mvcc_db_open_read_transactions', 'Open read transactions.', () => this.openReadTransactions);
    b.counter(
      'etcd_debugging_mvcc_db_compaction_keys_total',
      'Revisions removed by compactions.',
      () => this.compactedKeys,
    );
    b.gauge('etcd_debugging_mvcc_db_compaction_last', 'Unix time of the last compaction.', () => this.compactionLast);
    b.gauge('etcd_debugging_mvcc_watch_stream_total', 'Watch streams.', () => this.watchStreams);
    b.gauge('etcd_debugging_mvcc_watcher_total', 'Watchers.', () => this.watchers);
    b.gauge('etcd_debugging_mvcc_slow_watcher_total', 'Watchers that are not synced.', () => this.slowWatchers);
    b.counter('etcd_debugging_mvcc_events_total', 'Events sent.', () => this.events);
    b.gauge('etcd_debugging_mvcc_pending_events_total', 'Events that wait to be sent.', () => this.pendingEvents);
    const hash = exponentialBounds(0.01, 2, 15);
    this.hash = b.histogram('etcd_mvcc_hash_duration_seconds', 'Seconds of a hash of the whole database.', hash);
    this.hashRevision = b.histogram('etcd_mvcc_hash_rev_duration_seconds', 'Seconds of a hash up to a revision.', hash);
    const compaction = 'etcd_debugging_mvcc_db_compaction';
    this.dbCompactionPause = b.histogram(
      `${compaction}_pause_duration_milliseconds`,
      'Milliseconds of one batch of a compaction.',
      exponentialBounds(1, 2, 13),
    );
    this.dbCompactionTotal = b.histogram(
      `${compaction}_total_duration_milliseconds`,
      'Milliseconds of a compaction.',
      exponentialBounds(100, 2, 14),
    );
    this.indexCompactionPause = b.histogram(
      'etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds',
      'Milliseconds of the index part of a compaction.',
      exponentialBounds(0.5, 2, 14),
    );
  }
}

/** etcd_debugging_lease_*. */
export class LeaseMetrics {
  granted = 0;
  revoked = 0;
  renewed = 0;
  /** Seconds asked for. */
  readonly ttl: Histogram;

  constructor(b: Builder) {
    b.counter('etcd_debugging_lease_granted_total', 'Leases granted.', () => this.granted);
    b.counter('etcd_debugging_lease_revoked_total', 'Leases revoked.', () => this.revoked);
    b.counter('etcd_debugging_lease_renewed_total', 'Renewals while leading.', () => this.renewed);
    this.ttl = b.histogram('etcd_debugging_lease_ttl_total', 'Seconds that leases live.', exponentialBounds(1, 2, 24));
  }
}

/** etcd_debugging_server_watch_send_loop_*: seconds in the loop that sends to a watch stream. */
export class WatchMetrics {
  readonly sendLoop: Histogram;
  readonly sendLoopPerEvent: Histogram;
  readonly sendLoopControl: Histogram;
  readonly sendLoopProgress: Histogram;

  constructor(b: Builder) {
    const name = 'etcd_debugging_server_watch_send_loop';
    this.sendLoop = b.histogram(
      `${name}_watch_stream_duration_seconds`,
      'Seconds to send a response with events.',
      fast,
    );
    this.sendLoopPerEvent = b.histogram(
      `${name}_watch_stream_duration_per_event_seconds`,
      'The same for one event.',
      fast,
    );
    this.sendLoopControl = b.histogram(
      `${name}_control_stream_duration_seconds`,
      'Seconds to send a created or canceled response.',
      fast,
    );
    this.sendLoopProgress = b.histogram(`${name}_progress_duration_seconds`, 'Seconds to send progress.', fast);
  }
}

/** etcd_server_health*: results of /health, /livez and /readyz. */
export class HealthMetrics {
  successes = 0;
  failures = 0;
  /** Labels type ("livez"/"readyz"), name. */
  readonly last: CellFamily;
  /** Labels type, name, status ("success"/"error"). */
  readonly checks: CellFamily;

  constructor(b: Builder) {
    b.counter('etcd_server_health_success', 'Answers of /health that were healthy.', () => this.successes);
    b.counter('etcd_server_health_failures', 'Answers of /health that were not.', () => this.failures);
    this.last = b.cells('etcd_server_healthcheck', 'gauge', 'Last result of a check.', ['type', 'name']);
    this.checks = b.cells('etcd_server_healthchecks_total', 'counter', 'Results of checks.', [
      'type',
      'name',
      'status',
    ]);
  }
}

/** grpc_server_*: by the index of the method in grpcMethods. */
export class GrpcMetrics {
  readonly started: Float64Array;
  readonly received: Float64Array;
  readonly sent: Float64Array;
  /** Seconds of each method, or null without --metrics=extensive. */
  readonly handling: readonly Histogram[] | null;
  readonly #handled: Float64Array;

  constructor(b: Builder, extensive: boolean) {
    const labels = grpcMethods.map(({ service, method, type }) => ({
      grpc_method: method,
      grpc_service: service,
      grpc_type: type,
    }));
    this.started = b.array('grpc_server_started_total', 'RPCs started.', labels);
    this.received = b.array('grpc_server_msg_received_total', 'Messages received.', labels);
    this.sent = b.array('grpc_server_msg_sent_total', 'Messages sent.', labels);
    const handled = labels.flatMap((label) => grpcCodeNames.map((code) => ({ ...label, grpc_code: code })));
    this.#handled = b.array('grpc_server_handled_total', 'RPCs ended, by status.', handled);
    if (!extensive) {
      this.handling = null;
      return;
    }
    const names = ['grpc_type', 'grpc_service', 'grpc_method'];
    const family = b.histograms('grpc_server_handling_seconds', 'Seconds of an RPC.', defaultBounds, names);
    this.handling = grpcMethods.map(({ type, service, method }) => family.with(type, service, method));
  }

  /** An RPC ended with a status code (0 to 16; another counts as Unknown). */
  handled(methodIndex: number, code: number): void {
    const known = code >= 0 && code < grpcCodeNames.length ? code : 2;
    this.#handled[methodIndex * grpcCodeNames.length + known]!++;
  }
}

/** Shown by every etcd member though nothing counts in them any more, or only in another mode of the binary. */
export function addLeftovers(b: Builder): void {
  const none = (): number => 0;
  const unused = 'Kept for dashboards; always 0.';
  b.counter('etcd_debugging_store_expires_total', unused, none);
  b.counter('etcd_debugging_store_watch_requests_total', unused, none);
  b.gauge('etcd_debugging_store_watchers', unused, none);
  b.cells('etcd_debugging_store_reads_total', 'counter', unused, ['action']);
  b.cells('etcd_debugging_store_writes_total', 'counter', unused, ['action']);
  b.gauge('etcd_grpc_proxy_cache_hits_total', unused, none);
  b.gauge('etcd_grpc_proxy_cache_keys_total', unused, none);
  b.gauge('etcd_grpc_proxy_cache_misses_total', unused, none);
  b.counter('etcd_grpc_proxy_events_coalescing_total', unused, none);
  b.gauge('etcd_grpc_proxy_watchers_coalescing_total', unused, none);
}
