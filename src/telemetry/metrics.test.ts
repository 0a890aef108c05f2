// Goal: the exposition has every metric of etcd 3.7 that a member shows, with its type, labels and buckets, in the text format
// of Go's client. Method: a table typed from ETCD-SURFACE.md §7 is held against the parsed text of a Metrics whose every
// labelled family got one sample; prom-client's own text of the same registry must show the same numbers.

import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { type ParsedFamily, parseExposition } from '../testing/exposition-parser.ts';
import { CellFamily, goFloat, HistogramFamily, writeFamilies } from './exposition.ts';
import { grpcCodeNames, grpcMethodIndex, grpcMethods } from './grpc-methods.ts';
import { exponentialBounds, Histogram } from './histogram.ts';
import { Metrics } from './metrics.ts';
import { RuntimeMetrics } from './runtime-metrics.ts';

const e = exponentialBounds;

/** name, type, labels, bounds. */
const surface: readonly (readonly [string, string, string, (readonly number[])?])[] = [
  ['etcd_cluster_version', 'gauge', 'cluster_version'],
  ['etcd_debugging_auth_revision', 'gauge', ''],
  ['etcd_debugging_disk_backend_commit_rebalance_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_debugging_disk_backend_commit_spill_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_debugging_disk_backend_commit_write_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_debugging_lease_granted_total', 'counter', ''],
  ['etcd_debugging_lease_renewed_total', 'counter', ''],
  ['etcd_debugging_lease_revoked_total', 'counter', ''],
  ['etcd_debugging_lease_ttl_total', 'histogram', '', e(1, 2, 24)],
  ['etcd_debugging_mvcc_compact_revision', 'gauge', ''],
  ['etcd_debugging_mvcc_current_revision', 'gauge', ''],
  ['etcd_debugging_mvcc_db_compaction_keys_total', 'counter', ''],
  ['etcd_debugging_mvcc_db_compaction_last', 'gauge', ''],
  ['etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds', 'histogram', '', e(1, 2, 13)],
  ['etcd_debugging_mvcc_db_compaction_total_duration_milliseconds', 'histogram', '', e(100, 2, 14)],
  ['etcd_debugging_mvcc_events_total', 'counter', ''],
  ['etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds', 'histogram', '', e(0.5, 2, 14)],
  ['etcd_debugging_mvcc_keys_total', 'gauge', ''],
  ['etcd_debugging_mvcc_pending_events_total', 'gauge', ''],
  ['etcd_debugging_mvcc_slow_watcher_total', 'gauge', ''],
  ['etcd_debugging_mvcc_total_put_size_in_bytes', 'gauge', ''],
  ['etcd_debugging_mvcc_watch_stream_total', 'gauge', ''],
  ['etcd_debugging_mvcc_watcher_total', 'gauge', ''],
  ['etcd_debugging_server_alarms', 'gauge', 'alarm_type,server_id'],
  ['etcd_debugging_server_lease_expired_total', 'counter', ''],
  ['etcd_debugging_server_watch_send_loop_control_stream_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_debugging_server_watch_send_loop_progress_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_debugging_snap_save_marshalling_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_debugging_snap_save_total_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_debugging_store_expires_total', 'counter', ''],
  ['etcd_debugging_store_watch_requests_total', 'counter', ''],
  ['etcd_debugging_store_watchers', 'gauge', ''],
  ['etcd_disk_backend_commit_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_disk_backend_defrag_duration_seconds', 'histogram', '', e(0.1, 2, 13)],
  ['etcd_disk_backend_snapshot_duration_seconds', 'histogram', '', e(0.01, 2, 17)],
  ['etcd_disk_defrag_inflight', 'gauge', ''],
  ['etcd_disk_wal_fsync_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_disk_wal_write_bytes_total', 'gauge', ''],
  ['etcd_disk_wal_write_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_grpc_proxy_cache_hits_total', 'gauge', ''],
  ['etcd_grpc_proxy_cache_keys_total', 'gauge', ''],
  ['etcd_grpc_proxy_cache_misses_total', 'gauge', ''],
  ['etcd_grpc_proxy_events_coalescing_total', 'counter', ''],
  ['etcd_grpc_proxy_watchers_coalescing_total', 'gauge', ''],
  ['etcd_mvcc_db_open_read_transactions', 'gauge', ''],
  ['etcd_mvcc_db_total_size_in_bytes', 'gauge', ''],
  ['etcd_mvcc_db_total_size_in_use_in_bytes', 'gauge', ''],
  ['etcd_mvcc_delete_total', 'counter', ''],
  ['etcd_mvcc_hash_duration_seconds', 'histogram', '', e(0.01, 2, 15)],
  ['etcd_mvcc_hash_rev_duration_seconds', 'histogram', '', e(0.01, 2, 15)],
  ['etcd_mvcc_put_total', 'counter', ''],
  ['etcd_mvcc_range_total', 'counter', ''],
  ['etcd_mvcc_txn_total', 'counter', ''],
  ['etcd_network_active_peers', 'gauge', 'Local,Remote'],
  ['etcd_network_client_grpc_received_bytes_total', 'counter', ''],
  ['etcd_network_client_grpc_sent_bytes_total', 'counter', ''],
  ['etcd_network_disconnected_peers_total', 'counter', 'Local,Remote'],
  ['etcd_network_known_peers', 'gauge', 'Local,Remote'],
  ['etcd_network_peer_received_bytes_total', 'counter', 'From'],
  ['etcd_network_peer_received_failures_total', 'counter', 'From'],
  ['etcd_network_peer_round_trip_time_seconds', 'histogram', 'To', e(0.0001, 2, 16)],
  ['etcd_network_peer_sent_bytes_total', 'counter', 'To'],
  ['etcd_network_peer_sent_failures_total', 'counter', 'To'],
  ['etcd_network_server_stream_failures_total', 'counter', 'API,Type'],
  ['etcd_network_snapshot_receive_failures', 'counter', 'From'],
  ['etcd_network_snapshot_receive_inflights_total', 'gauge', 'From'],
  ['etcd_network_snapshot_receive_success', 'counter', 'From'],
  ['etcd_network_snapshot_receive_total_duration_seconds', 'histogram', 'From', e(0.1, 2, 10)],
  ['etcd_network_snapshot_send_failures', 'counter', 'To'],
  ['etcd_network_snapshot_send_inflights_total', 'gauge', 'To'],
  ['etcd_network_snapshot_send_success', 'counter', 'To'],
  ['etcd_network_snapshot_send_total_duration_seconds', 'histogram', 'To', e(0.1, 2, 10)],
  ['etcd_server_apply_duration_seconds', 'histogram', 'op,success,version', e(0.0001, 2, 20)],
  ['etcd_server_client_requests_total', 'counter', 'client_api_version,type'],
  ['etcd_server_feature_enabled', 'gauge', 'name,stage'],
  ['etcd_server_go_version', 'gauge', 'server_go_version'],
  ['etcd_server_has_leader', 'gauge', ''],
  ['etcd_server_health_failures', 'counter', ''],
  ['etcd_server_health_success', 'counter', ''],
  ['etcd_server_healthcheck', 'gauge', 'name,type'],
  ['etcd_server_healthchecks_total', 'counter', 'name,status,type'],
  ['etcd_server_heartbeat_send_failures_total', 'counter', ''],
  ['etcd_server_id', 'gauge', 'server_id'],
  ['etcd_server_is_leader', 'gauge', ''],
  ['etcd_server_is_learner', 'gauge', ''],
  ['etcd_server_leader_changes_seen_total', 'counter', ''],
  ['etcd_server_learner_promote_failures', 'counter', 'Reason'],
  ['etcd_server_learner_promote_successes', 'counter', ''],
  ['etcd_server_proposals_applied_total', 'gauge', ''],
  ['etcd_server_proposals_committed_total', 'gauge', ''],
  ['etcd_server_proposals_failed_total', 'counter', ''],
  ['etcd_server_proposals_pending', 'gauge', ''],
  ['etcd_server_quota_backend_bytes', 'gauge', ''],
  ['etcd_server_range_duration_seconds', 'histogram', 'success', e(0.0001, 2, 20)],
  ['etcd_server_read_indexes_failed_total', 'counter', ''],
  ['etcd_server_request_duration_seconds', 'histogram', 'success,type', e(0.001, 2, 14)],
  ['etcd_server_slow_apply_total', 'counter', ''],
  ['etcd_server_slow_read_indexes_total', 'counter', ''],
  ['etcd_server_snapshot_apply_in_progress_total', 'gauge', ''],
  ['etcd_server_version', 'gauge', 'server_version'],
  ['etcd_snap_db_fsync_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['etcd_snap_db_save_total_duration_seconds', 'histogram', '', e(0.1, 2, 10)],
  ['etcd_snap_fsync_duration_seconds', 'histogram', '', e(0.001, 2, 14)],
  ['os_fd_limit', 'gauge', ''],
  ['os_fd_used', 'gauge', ''],
  ['grpc_server_started_total', 'counter', 'grpc_method,grpc_service,grpc_type'],
  ['grpc_server_handled_total', 'counter', 'grpc_code,grpc_method,grpc_service,grpc_type'],
  ['grpc_server_msg_received_total', 'counter', 'grpc_method,grpc_service,grpc_type'],
  ['grpc_server_msg_sent_total', 'counter', 'grpc_method,grpc_service,grpc_type'],
  [
    'grpc_server_handling_seconds',
    'histogram',
    'grpc_method,grpc_service,grpc_type',
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  ],
  ['go_info', 'gauge', 'version'],
  ['go_goroutines', 'gauge', ''],
  ['go_threads', 'gauge', ''],
  ['process_cpu_seconds_total', 'counter', ''],
  ['process_max_fds', 'gauge', ''],
  ['process_open_fds', 'gauge', ''],
  ['process_resident_memory_bytes', 'gauge', ''],
  ['process_start_time_seconds', 'gauge', ''],
  ['process_virtual_memory_bytes', 'gauge', ''],
  ['process_virtual_memory_max_bytes', 'gauge', ''],
  ['process_network_receive_bytes_total', 'counter', ''],
  ['process_network_transmit_bytes_total', 'counter', ''],
  ['promhttp_metric_handler_requests_in_flight', 'gauge', ''],
  ['promhttp_metric_handler_requests_total', 'counter', 'code'],
  ['nodejs_eventloop_lag_p99_seconds', 'gauge', ''],
  ['nodejs_version_info', 'gauge', 'major,minor,patch,version'],
];

let runtime: RuntimeMetrics;
const options = {
  serverVersion: '3.7.1',
  runtimeVersion: 'none (node v26)',
  extensive: true,
  features: [{ name: 'LeaseCheckpoint', stage: 'ALPHA', enabled: false }],
};

function makeMetrics(extensive: boolean): Metrics {
  const reader = {
    readText: () => 'Max open files 20000 20000 files\nMax address space unlimited unlimited bytes\n',
    entryCount: () => 7,
  };
  return new Metrics({ ...options, extensive }, async (families) => {
    runtime = new RuntimeMetrics(families, options.runtimeVersion, reader);
    return runtime;
  });
}

/** Puts one sample into every family that etcd shows only once it has one. */
function touchLabelled(metrics: Metrics): void {
  for (const family of metrics.families) {
    const isEmpty = family.samples().length === 0;
    if (isEmpty && family instanceof CellFamily) family.with('1', '2', '3').value++;
    if (isEmpty && family instanceof HistogramFamily) family.with('1', '2', '3').observe(1);
  }
  metrics.network.clientVersion('3.7').count(true);
}

describe('metrics', () => {
  let metrics: Metrics;
  let text: string;
  let families: Map<string, ParsedFamily>;

  before(async () => {
    metrics = makeMetrics(true);
    touchLabelled(metrics);
    metrics.mvcc.put += 2;
    metrics.grpc.started[grpcMethodIndex('/etcdserverpb.KV/Put')]!++;
    metrics.grpc.handled(grpcMethodIndex('/etcdserverpb.KV/Put'), 0);
    metrics.grpc.handled(grpcMethodIndex('/etcdserverpb.KV/Put'), 99);
    metrics.disk.walFsync.observe(0.0015);
    metrics.onScrape(() => {
      metrics.mvcc.dbTotalBytes = 2147483648;
    });
    text = await metrics.text();
    families = parseExposition(text);
  });

  for (const [name, type, labels, bounds] of surface) {
    it(name, () => {
      const family = families.get(name);
      assert.ok(family, 'missing');
      assert.equal(family.type, type);
      assert.notEqual(family.help, '');
      for (const sample of family.samples) {
        const names = Object.keys(sample.labels).filter((label) => label !== 'le');
        assert.equal(names.join(','), labels);
      }
      if (bounds === undefined) return;
      const buckets = family.samples.filter((sample) => sample.name === `${name}_bucket`);
      const first = buckets.slice(0, bounds.length + 1).map((sample) => sample.labels['le']);
      assert.deepEqual(first, [...bounds.map(goFloat), '+Inf']);
    });
  }

  it('has no other etcd_ or grpc_ family', () => {
    const known = new Set(surface.map(([name]) => name));
    const leftovers = ['etcd_debugging_store_reads_total', 'etcd_debugging_store_writes_total'];
    const extra = [...families.keys()].filter((name) => /^(?:etcd|grpc|os)_/.test(name) && !known.has(name));
    assert.deepEqual(extra, leftovers);
  });

  it('shows counts where they belong', () => {
    assert.match(text, /\netcd_mvcc_put_total 2\n/);
    assert.match(text, /\netcd_mvcc_db_total_size_in_bytes 2\.147483648e\+09\n/);
    assert.match(
      text,
      /\ngrpc_server_started_total\{grpc_method="Put",grpc_service="etcdserverpb\.KV",grpc_type="unary"\} 1\n/,
    );
    assert.match(
      text,
      /\ngrpc_server_handled_total\{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb\.KV",grpc_type="unary"\} 1\n/,
    );
    assert.match(text, /\ngrpc_server_handled_total\{grpc_code="Unknown",grpc_method="Put",[^\n]*\} 1\n/);
    assert.match(text, /\netcd_disk_wal_fsync_duration_seconds_bucket\{le="0\.001"\} 0\n[^\n]*\{le="0\.002"\} 1\n/);
    assert.match(
      text,
      /\netcd_disk_wal_fsync_duration_seconds_sum 0\.0015\netcd_disk_wal_fsync_duration_seconds_count 1\n/,
    );
    assert.match(text, /\nos_fd_limit 20000\n/);
    assert.match(text, /\nprocess_virtual_memory_max_bytes 1\.8446744073709552e\+19\n/);
    assert.match(text, /\ngo_info\{version="none \(node v26\)"\} 1\n/);
    assert.equal(families.get('grpc_server_started_total')?.samples.length, grpcMethods.length);
    assert.equal(families.get('grpc_server_handled_total')?.samples.length, grpcMethods.length * grpcCodeNames.length);
  });

  it('gives prom-client the same numbers', async () => {
    const theirs = parseExposition(await runtime.registry.metrics());
    for (const family of metrics.families) {
      const sorted = (parsed: ParsedFamily | undefined): string[] =>
        (parsed?.samples ?? [])
          .map(({ name, labels, value }) => `${name} ${JSON.stringify(Object.entries(labels).sort())} ${value}`)
          .sort();
      if (family.name.startsWith('promhttp_')) continue;
      assert.deepEqual(sorted(theirs.get(family.name)), sorted(families.get(family.name)), family.name);
    }
  });

  it('counts scrapes and leaves empty families out', async () => {
    const plain = makeMetrics(false);
    await plain.warmUp();
    await plain.text();
    const second = parseExposition(await plain.text());
    assert.equal(
      second.get('promhttp_metric_handler_requests_total')?.samples.find((s) => s.labels['code'] === '200')?.value,
      1,
    );
    for (const name of [
      'grpc_server_handling_seconds',
      'etcd_network_active_peers',
      'etcd_server_apply_duration_seconds',
    ])
      assert.equal(second.has(name), false, name);
  });

  it('bounds the versions of clients', () => {
    const plain = makeMetrics(false);
    for (let i = 0; i < 1000; i++) plain.network.clientVersion(`v${i}`).count(true);
    const samples = plain.families.find((family) => family.name === 'etcd_server_client_requests_total')!.samples();
    assert.ok(samples.length <= 2 * 65);
    assert.equal(
      samples.reduce((sum, sample) => sum + sample.value, 0),
      1000,
    );
  });
});

describe('histogram', () => {
  it('puts a value equal to a bound under it', () => {
    const histogram = new Histogram([1, 2, 4]);
    for (const value of [0, 1, 1.5, 2, 4, 4.1, 1e9]) histogram.observe(value);
    assert.deepEqual([...histogram.counts], [2, 2, 1, 2]);
    assert.equal(histogram.count, 7);
    assert.equal(histogram.sum, 0 + 1 + 1.5 + 2 + 4 + 4.1 + 1e9);
  });
});

describe('text format', () => {
  it('prints numbers as Go', () => {
    const rows: [number, string][] = [
      [0, '0'],
      [1, '1'],
      [0.1, '0.1'],
      [0.0001, '0.0001'],
      [0.00001, '1e-05'],
      [7.8068e-5, '7.8068e-05'],
      [819200, '819200'],
      [999999.5, '999999.5'],
      [1e6, '1e+06'],
      [1048576, '1.048576e+06'],
      [2147483648, '2.147483648e+09'],
      [-1e6, '-1e+06'],
      [1e21, '1e+21'],
      [2 ** 64, '1.8446744073709552e+19'],
      [1e100, '1e+100'],
      [Number.NaN, 'NaN'],
      [Number.POSITIVE_INFINITY, '+Inf'],
      [0.0072899160000000005, '0.0072899160000000005'],
    ];
    for (const [value, printed] of rows) assert.equal(goFloat(value), printed);
  });

  it('escapes and sorts', () => {
    const family = new CellFamily('b', 'gauge', 'help with \\ and\nline', ['z', 'a']);
    family.with('1', 'q"\\\n').value = 1;
    family.with('0', 'a').value = 2;
    const empty = new CellFamily('a', 'counter', 'never', ['x']);
    assert.equal(
      writeFamilies([family, empty]),
      '# HELP b help with \\\\ and\\nline\n# TYPE b gauge\nb{a="a",z="0"} 2\nb{a="q\\"\\\\\\n",z="1"} 1\n',
    );
  });
});
