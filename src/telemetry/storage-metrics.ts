// The metric groups of the storage: disk, store, leases and watches. A number or histogram for every metric, and beside it the
// family that shows it under etcd's name. Help texts are our own.

import { exponentialBounds, type Histogram } from './histogram.ts';
import { type Builder, fastBounds } from './metric-builder.ts';

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
    this.walFsync = b.histogram('etcd_disk_wal_fsync_duration_seconds', 'Seconds of a sync of the WAL.', fastBounds);
    this.walWrite = b.histogram('etcd_disk_wal_write_duration_seconds', 'Seconds of a write to the WAL.', fastBounds);
    this.backendCommit = b.histogram(
      'etcd_disk_backend_commit_duration_seconds',
      'Seconds of a commit of the backend.',
      fastBounds,
    );
    const commit = 'etcd_debugging_disk_backend_commit';
    this.backendCommitRebalance = b.histogram(
      `${commit}_rebalance_duration_seconds`,
      "Part of bbolt's commit; empty here.",
      fastBounds,
    );
    this.backendCommitSpill = b.histogram(
      `${commit}_spill_duration_seconds`,
      "Part of bbolt's commit; empty here.",
      fastBounds,
    );
    this.backendCommitWrite = b.histogram(
      `${commit}_write_duration_seconds`,
      'Seconds of the write in a commit.',
      fastBounds,
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
    this.snapFsync = b.histogram(
      'etcd_snap_fsync_duration_seconds',
      'Seconds of a sync of a raft snapshot.',
      fastBounds,
    );
    this.snapSave = b.histogram(
      'etcd_debugging_snap_save_total_duration_seconds',
      'Seconds to save a raft snapshot.',
      fastBounds,
    );
    this.snapSaveMarshalling = b.histogram(
      'etcd_debugging_snap_save_marshalling_duration_seconds',
      'Seconds to encode a raft snapshot.',
      fastBounds,
    );
    this.snapDbFsync = b.histogram(
      'etcd_snap_db_fsync_duration_seconds',
      'Seconds of a sync of a received database.',
      fastBounds,
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
      fastBounds,
    );
    this.sendLoopPerEvent = b.histogram(
      `${name}_watch_stream_duration_per_event_seconds`,
      'The same for one event.',
      fastBounds,
    );
    this.sendLoopControl = b.histogram(
      `${name}_control_stream_duration_seconds`,
      'Seconds to send a created or canceled response.',
      fastBounds,
    );
    this.sendLoopProgress = b.histogram(`${name}_progress_duration_seconds`, 'Seconds to send progress.', fastBounds);
  }
}
