// What a member is built of, and what it counts: the types beside member.ts, which bootstrap.ts fills in.

import type { AlarmStore } from '../apply/alarms.ts';
import type { Applier } from '../apply/applier.ts';
import type { Backend } from '../backend/backend.ts';
import type { DiskLock } from '../io/file.ts';
import type { Lessor } from '../lease/lessor.ts';
import type { Cluster, Member as ClusterMember } from '../membership/cluster.ts';
import type { Store } from '../mvcc/store.ts';
import type { WatchHub } from '../mvcc/watch-hub.ts';
import type { PeerRequests, PeerTransport } from '../peer/peer-transport.ts';
import type { MemoryStorage } from '../raft/memory-storage.ts';
import type { RawNode } from '../raft/raw-node.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Wal } from '../wal/wal.ts';
import type { CompactionHashes } from './compaction-hashes.ts';
import type { ResponseHeaderEncoder } from './response-header.ts';
import type { SnapshotDisk } from './snapshot-files.ts';

export interface MemberParts {
  readonly id: bigint;
  readonly name: string;
  readonly clientUrls: readonly string[];
  readonly raft: RawNode;
  readonly storage: MemoryStorage;
  /** Keeps every other process off the data directory. */
  readonly lock: DiskLock;
  readonly wal: Wal;
  readonly backend: Backend;
  /** Where the databases are written that leaders send. */
  readonly files: SnapshotDisk;
  readonly store: Store;
  readonly hub: WatchHub;
  readonly lessor: Lessor;
  readonly cluster: Cluster;
  /** The way to the peers. */
  readonly transport: PeerTransport;
  /** Requests to their listeners beside raft's traffic. */
  readonly peerRequests: PeerRequests;
  /** Of a first start: who is in the cluster with this member, which neither the database nor raft says yet. Peers from the start. */
  readonly firstMembers: readonly ClusterMember[];
  readonly alarms: AlarmStore;
  readonly applier: Applier;
  readonly compactionHashes: CompactionHashes;
  readonly header: ResponseHeaderEncoder;
  readonly logger: Logger;
  readonly counters: MemberCounters;
  readonly nowMs: () => number;
  readonly wallMs: () => number;
  readonly electionMs: number;
  /** Ticks in an election timeout. */
  readonly electionTicks: number;
  /** --initial-election-tick-advance. */
  readonly advancesFirstElection: boolean;
  /** Feature gate FastLeaseKeepAlive: a lease that is known is renewed without a look at what is not applied yet. */
  readonly fastLeaseKeepAlive: boolean;
  readonly quotaBytes: number;
  /** --warning-apply-duration. */
  readonly warningApplyMs: number;
  readonly requestBytesMax: number;
  readonly catchUpEntries: number;
  /** Entries beyond those that go from memory at a time. */
  readonly logCompactionEntries: number;
  /** --strict-reconfig-check. */
  readonly strictReconfigCheck: boolean;
  /** --max-learners. */
  readonly learnersMax: number;
  /** The etcd release that this server is, e.g. 3.7.1. */
  readonly serverVersion: string;
  readonly checks: MemberChecks;
  /** Writes out what the answers left in the connections' buffers. */
  readonly flushConnections: () => void;
  /** Schedules run() for the end of this turn of the event loop. */
  readonly schedule: (run: () => void) => void;
  /** The member is in its cluster no more: the process ends after this turn. */
  readonly onRemoved: (reason: string) => void;
}

/** What a member looks at now and then, and how often; 0: never. */
export interface MemberChecks {
  /** Members' hashes are compared (--corrupt-check-time). */
  readonly corruptMs: number;
  /** The hashes that compactions left are (--compact-hash-check-time, under its feature gate). */
  readonly compactHashMs: number;
  /** Whether a downgrade is done (--downgrade-check-time). */
  readonly downgradeMs: number;
}

/** Plain numbers and hooks, read at scrape. */
export interface MemberCounters {
  leaderChanges: number;
  /** Heartbeats that went out late. */
  lateHeartbeats: number;
  proposalsFailed: number;
  slowApplies: number;
  readIndexesFailed: number;
  slowReadIndexes: number;
  /** Snapshots being sent. */
  snapshotsRunning: number;
  /** The apply of an entry; `field` as in InternalRaftRequest. */
  observeApply(field: number, succeeded: boolean, seconds: number): void;
  /** A request from its arrival to its answer; `kind` is a field of InternalRaftRequest or readOnlyTxnKind. */
  observeRequest(kind: number, succeeded: boolean, seconds: number): void;
  /** A promotion of a learner while this member leads; `failure` null: it succeeded. */
  observePromotion(failure: string | null): void;
  /** A range in the store. */
  observeRange(succeeded: boolean, seconds: number): void;
  /** A snapshot sent to a client, to its end or the client's. */
  observeSnapshot(seconds: number): void;
  /** A leader's database was saved: in all, and its last sync. */
  observeSnapshotSaved(seconds: number, syncSeconds: number): void;
}
