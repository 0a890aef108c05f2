// Where the parts' measurements become etcd's metrics: one small object for each observer interface, filled here alone.

import { alarmName } from '../apply/alarms.ts';
import type { BackendObserver } from '../backend/backend.ts';
import type { WalObserver } from '../io/wal-writer.ts';
import type { LeaseCounters } from '../lease/lessor.ts';
import { hexId } from '../membership/cluster.ts';
import { majorMinor } from '../membership/semantic-version.ts';
import { AlarmType } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import type { Histogram } from '../telemetry/histogram.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { authRevisionOf } from './auth-state.ts';
import { type Member, readOnlyTxnKind } from './member.ts';
import type { MemberCounters } from './member-parts.ts';

export function walObserver({ disk }: Metrics): WalObserver {
  return {
    write: (seconds, bytes) => {
      disk.walWrite.observe(seconds);
      disk.walWriteBytes += bytes;
    },
    fsync: (seconds) => disk.walFsync.observe(seconds),
  };
}

export function backendObserver({ disk, mvcc }: Metrics, wallMs: () => number): BackendObserver {
  return {
    commit: (durationMs) => {
      disk.backendCommit.observe(durationMs / 1000);
      disk.backendCommitWrite.observe(durationMs / 1000);
    },
    compaction: (durationMs) => {
      mvcc.dbCompactionTotal.observe(Math.floor(durationMs));
      mvcc.compactionLast = Math.floor(wallMs() / 1000);
    },
    compactionBegun: (durationMs) => mvcc.indexCompactionPause.observe(Math.floor(durationMs)),
    compactedRows: (count, durationMs) => {
      mvcc.compactedKeys += count;
      mvcc.dbCompactionPause.observe(Math.floor(durationMs));
    },
    defrag: (durationMs) => disk.backendDefrag.observe(durationMs / 1000),
    hash: (durationMs) => mvcc.hash.observe(durationMs / 1000),
    hashKv: (durationMs) => mvcc.hashRevision.observe(durationMs / 1000),
  };
}

export function leaseCounters({ lease }: Metrics): LeaseCounters {
  return {
    granted: 0,
    renewed: 0,
    revoked: 0,
    expired: 0,
    observeTtl(seconds: number): void {
      lease.ttl.observe(seconds);
    },
  };
}

/** etcd's names of the requests, by their field in the entry. */
const operationNames: ReadonlyMap<number, string> = new Map([
  [RequestField.range, 'Range'],
  [RequestField.put, 'Put'],
  [RequestField.deleteRange, 'DeleteRange'],
  [RequestField.txn, 'Txn'],
  [RequestField.compaction, 'Compaction'],
  [RequestField.leaseGrant, 'LeaseGrant'],
  [RequestField.leaseRevoke, 'LeaseRevoke'],
  [RequestField.alarm, 'Alarm'],
  [RequestField.leaseCheckpoint, 'LeaseCheckpoint'],
  [RequestField.clusterVersionSet, 'ClusterVersionSet'],
  [RequestField.clusterMemberAttrSet, 'ClusterMemberAttrSet'],
  [RequestField.downgradeInfoSet, 'DowngradeInfoSet'],
  [RequestField.downgradeVersionTest, 'unknown'],
]);

/** The two histograms of one kind. Each is made with its first observation, as Go's client makes them: what never came shows no
 * series. Found by number, so that no label is built on the hot path. */
class Outcomes {
  private readonly make: (success: 'true' | 'false') => Histogram;
  private ok: Histogram | null = null;
  private failed: Histogram | null = null;

  constructor(make: (success: 'true' | 'false') => Histogram) {
    this.make = make;
  }

  observe(succeeded: boolean, seconds: number): void {
    if (succeeded) {
      this.ok ??= this.make('true');
      this.ok.observe(seconds);
    } else {
      this.failed ??= this.make('false');
      this.failed.observe(seconds);
    }
  }
}

export function memberCounters({ server, disk }: Metrics): MemberCounters {
  const applies = new Map<number, Outcomes>();
  const requests = new Map<number, Outcomes>();
  const ranges = new Outcomes((success) => server.rangeDuration.with(success));
  const nameOf = (kind: number): string =>
    kind === readOnlyTxnKind ? 'ReadonlyTxn' : (operationNames.get(kind) ?? 'Unknown');
  return {
    leaderChanges: 0,
    lateHeartbeats: 0,
    proposalsFailed: 0,
    slowApplies: 0,
    readIndexesFailed: 0,
    slowReadIndexes: 0,
    snapshotsRunning: 0,
    observeApply(field: number, succeeded: boolean, seconds: number): void {
      let outcomes = applies.get(field);
      if (outcomes === undefined) {
        outcomes = new Outcomes((success) => server.applyDuration.with('v3', nameOf(field), success));
        applies.set(field, outcomes);
      }
      outcomes.observe(succeeded, seconds);
    },
    observeRequest(kind: number, succeeded: boolean, seconds: number): void {
      let outcomes = requests.get(kind);
      if (outcomes === undefined) {
        outcomes = new Outcomes((success) => server.requestDuration.with(nameOf(kind), success));
        requests.set(kind, outcomes);
      }
      outcomes.observe(succeeded, seconds);
    },
    observePromotion: (failure) => {
      if (failure === null) server.learnerPromoteSuccesses++;
      else server.learnerPromoteFailures.with(failure).value++;
    },
    observeRange: (succeeded, seconds) => ranges.observe(succeeded, seconds),
    observeSnapshot: (seconds) => disk.backendSnapshot.observe(seconds),
    observeSnapshotSaved: (seconds, syncSeconds) => {
      disk.snapDbSave.observe(seconds);
      disk.snapDbFsync.observe(syncSeconds);
    },
  };
}

/** Copies the numbers that live in the parts into the metrics before each scrape. */
export function scrapeMember(metrics: Metrics, member: Member, counters: LeaseCounters): void {
  const { server, network, disk, mvcc, lease } = metrics;
  const { raft, store, hub, backend, cluster, quotaBytes, alarms } = member.parts;
  const sizes = backend.sizes();
  server.hasLeader = member.leader === 0n ? 0 : 1;
  server.isLeader = member.isLeader ? 1 : 0;
  server.isLearner = raft.isLearner ? 1 : 0;
  server.snapshotApplyInProgress = member.snapshots.isInstalling ? 1 : 0;
  server.leaderChanges = member.parts.counters.leaderChanges;
  server.proposalsCommitted = raft.committedIndex;
  server.proposalsApplied = raft.appliedIndex;
  server.proposalsPending = member.pending.count;
  server.heartbeatSendFailures = member.parts.counters.lateHeartbeats;
  server.proposalsFailed = member.parts.counters.proposalsFailed;
  server.slowApplies = member.parts.counters.slowApplies;
  server.readIndexesFailed = member.parts.counters.readIndexesFailed;
  server.slowReadIndexes = member.parts.counters.slowReadIndexes;
  server.quotaBytes = quotaBytes === Infinity ? -1 : quotaBytes;
  server.leasesExpired = counters.expired;
  server.clusterVersion.clear();
  if (cluster.version !== undefined) {
    server.clusterVersion.with(majorMinor(cluster.version)).value = 1;
  }
  server.id.with(hexId(member.parts.id)).value = 1;
  server.alarms.clear();
  for (const { memberId, alarm } of alarms.get(AlarmType.none)) {
    server.alarms.with(hexId(memberId), alarmName(alarm)).value = 1;
  }
  // As in etcd: the series of who was removed stays.
  network.knownPeers.zero();
  for (const { id } of cluster.members()) network.knownPeers.with(hexId(member.parts.id), hexId(id)).value = 1;
  metrics.authRevision = authRevisionOf(backend);
  disk.defragInflight = backend.defragsRunning > 0 ? 1 : 0;
  lease.granted = counters.granted;
  lease.renewed = counters.renewed;
  lease.revoked = counters.revoked;
  mvcc.put = store.counters.put;
  mvcc.delete = store.counters.delete;
  mvcc.range = store.counters.range;
  mvcc.txn = store.counters.txn;
  mvcc.putBytes = store.counters.totalPutBytes;
  mvcc.keys = backend.index.liveKeyCount();
  mvcc.currentRevision = store.currentRevision;
  mvcc.compactRevision = store.compactRevision;
  // The core's own view, which is always open, and a pinned one for each snapshot.
  mvcc.openReadTransactions = 1 + member.parts.counters.snapshotsRunning;
  mvcc.dbTotalBytes = sizes.totalBytes;
  mvcc.dbInUseBytes = sizes.inUseBytes;
  mvcc.watchers = hub.watcherCount;
  mvcc.slowWatchers = hub.unsyncedCount;
  mvcc.events = hub.eventsTotal;
}
