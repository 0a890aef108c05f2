// The metric groups of the member: server, network, health and gRPC. A number or histogram for every metric, and beside it the
// family that shows it under etcd's name. Help texts are our own.

import { metricClientVersionsMax } from '../limits.ts';
import type { Cell, CellFamily, HistogramFamily } from './exposition.ts';
import { grpcCodeNames, grpcMethods } from './grpc-methods.ts';
import { exponentialBounds, type Histogram } from './histogram.ts';
import { type Builder, fastBounds, requestBounds, rpcBounds } from './metric-builder.ts';

export interface MetricsOptions {
  readonly serverVersion: string;
  /** For etcd_server_go_version and go_info: what runs here instead of Go. */
  readonly runtimeVersion: string;
  /** --metrics=extensive: a latency histogram for each gRPC method. */
  readonly extensive: boolean;
  readonly features: readonly { readonly name: string; readonly stage: string; readonly enabled: boolean }[];
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
    this.#addNumbers(b);
    this.learnerPromoteFailures = b.cells(
      'etcd_server_learner_promote_failures',
      'counter',
      'Promotions refused while leading.',
      ['Reason'],
    );
    this.applyDuration = b.histograms(
      'etcd_server_apply_duration_seconds',
      'Seconds to apply an entry.',
      requestBounds,
      ['version', 'op', 'success'],
    );
    this.requestDuration = b.histograms(
      'etcd_server_request_duration_seconds',
      'Seconds to answer a request, by kind.',
      fastBounds,
      ['type', 'success'],
    );
    this.rangeDuration = b.histograms(
      'etcd_server_range_duration_seconds',
      'Seconds of a range in the store.',
      requestBounds,
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

  #addNumbers(b: Builder): void {
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
  }
}

/** Requests of clients that name one version of the client API; kept by the connection and counted there. */
export class ClientVersionCounter {
  readonly #family: CellFamily;
  readonly #version: string;
  #unary: Cell | null = null;
  #stream: Cell | null = null;
  constructor(family: CellFamily, version: string) {
    this.#family = family;
    this.#version = version;
  }

  /** Each series begins with its first request. */
  count(isUnary: boolean): void {
    if (isUnary) {
      this.#unary ??= this.#family.with('unary', this.#version);
      this.#unary.value++;
    } else {
      this.#stream ??= this.#family.with('stream', this.#version);
      this.#stream.value++;
    }
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
    const counter = (name: string, help: string, ...labels: string[]): CellFamily =>
      b.cells(`etcd_network_${name}`, 'counter', help, labels);
    const gauge = (name: string, help: string, ...labels: string[]): CellFamily =>
      b.cells(`etcd_network_${name}`, 'gauge', help, labels);
    const histogram = (name: string, help: string, bounds: readonly number[], label: string): HistogramFamily =>
      b.histograms(`etcd_network_${name}`, help, bounds, [label]);
    this.knownPeers = gauge('known_peers', 'Members that this one knows.', 'Local', 'Remote');
    this.activePeers = gauge('active_peers', 'Connections to members that live.', 'Local', 'Remote');
    this.disconnectedPeers = counter('disconnected_peers_total', 'Connections to members lost.', 'Local', 'Remote');
    this.peerReceivedBytes = counter('peer_received_bytes_total', 'Bytes from a member.', 'From');
    this.peerReceivedFailures = counter('peer_received_failures_total', 'Failed receives from a member.', 'From');
    this.peerSentBytes = counter('peer_sent_bytes_total', 'Bytes to a member.', 'To');
    this.peerSentFailures = counter('peer_sent_failures_total', 'Failed sends to a member.', 'To');
    const roundTrip = exponentialBounds(0.0001, 2, 16);
    this.peerRoundTrip = histogram('peer_round_trip_time_seconds', 'Seconds to a member and back.', roundTrip, 'To');
    const slow = exponentialBounds(0.1, 2, 10);
    this.snapshotSendSuccess = counter('snapshot_send_success', 'Snapshots sent.', 'To');
    this.snapshotSendFailures = counter('snapshot_send_failures', 'Snapshots not sent.', 'To');
    this.snapshotSendInflights = gauge('snapshot_send_inflights_total', 'Snapshots being sent.', 'To');
    this.snapshotSendDuration = histogram('snapshot_send_total_duration_seconds', 'Seconds to send one.', slow, 'To');
    this.snapshotReceiveSuccess = counter('snapshot_receive_success', 'Snapshots received.', 'From');
    this.snapshotReceiveFailures = counter('snapshot_receive_failures', 'Snapshots not received.', 'From');
    this.snapshotReceiveInflights = gauge('snapshot_receive_inflights_total', 'Snapshots being received.', 'From');
    const receive = 'snapshot_receive_total_duration_seconds';
    this.snapshotReceiveDuration = histogram(receive, 'Seconds to receive one.', slow, 'From');
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
    const family = b.histograms('grpc_server_handling_seconds', 'Seconds of an RPC.', rpcBounds, names);
    this.handling = grpcMethods.map(({ type, service, method }) => family.with(type, service, method));
  }

  /** An RPC ended with a status code (0 to 16; another counts as Unknown). */
  handled(methodIndex: number, code: number): void {
    const known = code >= 0 && code < grpcCodeNames.length ? code : 2;
    this.#handled[methodIndex * grpcCodeNames.length + known]!++;
  }
}
