// What a member is built of, and what it counts: the types beside member.ts, which bootstrap.ts fills in.

import type { AlarmStore } from '../apply/alarms.ts';
import type { Applier } from '../apply/applier.ts';
import type { Backend } from '../backend/backend.ts';
import type { DiskLock } from '../io/file.ts';
import type { Lessor } from '../lease/lessor.ts';
import type { Cluster } from '../membership/cluster.ts';
import type { Store } from '../mvcc/store.ts';
import type { WatchHub } from '../mvcc/watch-hub.ts';
import type { MemoryStorage } from '../raft/memory-storage.ts';
import type { RawNode } from '../raft/raw-node.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Wal } from '../wal/wal.ts';
import type { CompactionHashes } from './compaction-hashes.ts';
import type { ResponseHeaderEncoder } from './response-header.ts';

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
  readonly store: Store;
  readonly hub: WatchHub;
  readonly lessor: Lessor;
  readonly cluster: Cluster;
  readonly alarms: AlarmStore;
  readonly applier: Applier;
  readonly compactionHashes: CompactionHashes;
  readonly header: ResponseHeaderEncoder;
  readonly logger: Logger;
  readonly counters: MemberCounters;
  readonly nowMs: () => number;
  readonly wallMs: () => number;
  readonly electionMs: number;
  readonly quotaBytes: number;
  /** --warning-apply-duration. */
  readonly warningApplyMs: number;
  readonly requestBytesMax: number;
  readonly catchUpEntries: number;
  /** Version of the cluster that a new one is set to, e.g. 3.7.0. */
  readonly clusterVersion: string;
  /** Writes out what the answers left in the connections' buffers. */
  readonly flushConnections: () => void;
  /** Schedules run() for the end of this turn of the event loop. */
  readonly schedule: (run: () => void) => void;
}

/** Plain numbers and hooks, read at scrape. */
export interface MemberCounters {
  leaderChanges: number;
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
  /** A range in the store. */
  observeRange(succeeded: boolean, seconds: number): void;
  /** A snapshot sent to a client, to its end or the client's. */
  observeSnapshot(seconds: number): void;
}
