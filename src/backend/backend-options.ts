// What the storage engine is opened with, runs over, measures and answers: the types beside backend.ts.

import type { FatalError } from '../base/fatal.ts';
import type { Clock } from '../io/clock.ts';
import type { ReadEnvironment } from '../io/table.ts';
import { type BackendLimits, backendLimits, type IndexLimits } from '../storage-limits.ts';
import type { FlusherPort } from './flusher-port.ts';

/** What the engine measures; the server turns it into etcd's metrics. Durations in milliseconds. */
export interface BackendObserver {
  commit(durationMs: number): void;
  compaction(durationMs: number, revision: number): void;
  /** The core's own part of a compaction: while it lasts nothing else is done. */
  compactionBegun(durationMs: number): void;
  /** A commit that deleted rows of a compaction. */
  compactedRows(count: number, durationMs: number): void;
  defrag(durationMs: number): void;
  hash(durationMs: number): void;
  hashKv(durationMs: number): void;
}

export const silentObserver: BackendObserver = {
  commit: () => {},
  compaction: () => {},
  compactionBegun: () => {},
  compactedRows: () => {},
  defrag: () => {},
  hash: () => {},
  hashKv: () => {},
};

export interface BackendOptions {
  /** The database file, in a folder that exists. */
  readonly path: string;
  readonly clock: Clock;
  /** Called once, when the flusher cannot go on; the process must end. */
  onFatal(error: FatalError): void;
  /** --unsafe-no-fsync. */
  readonly noSync?: boolean;
  /** --backend-batch-interval. */
  readonly batchIntervalMs?: number;
  /** --backend-batch-limit. */
  readonly batchRows?: number;
  /** Shared memory of armed failpoints, for the flusher thread. */
  readonly failpoints?: SharedArrayBuffer | null;
  readonly observer?: BackendObserver;
  /** Random: makes collisions of client keys unpredictable. */
  readonly hashSeed?: number;
  readonly limits?: BackendLimits;
  readonly indexLimits?: IndexLimits;
}

/** What the engine runs over: LMDB and a thread, or anything else in tests. */
export interface BackendParts {
  /** The core's read view. */
  readonly reader: ReadEnvironment;
  readonly port: FlusherPort;
  /** Moves the core's view to another file; null: not possible. */
  readonly reopen: ((path: string) => void) | null;
  /** Not there: these tables cannot be replaced. */
  readonly installer?: Installer;
}

/** A leader's snapshot: a bbolt file, whole and durable. */
export interface SnapshotFile {
  readonly path: string;
  /** Of the last entry whose effect it holds. */
  readonly index: number;
  readonly term: number;
}

/** Puts the database of a snapshot in the place of the present one. */
export interface Installer {
  /** Makes a database of it beside the present one, which goes on meanwhile. `done` once, in a later turn. */
  convert(snapshot: SnapshotFile, done: (error: FatalError | null) => void): void;
  /** The present database is closed, on all sides: durably renames the new one over it and opens it. Throws FatalError. */
  replace(): BackendParts;
  /** The process ends: `done` is not called any more. */
  cancel(): void;
}

export interface BackendSizes {
  /** Allocated pages plus what is not flushed. */
  readonly totalBytes: number;
  /** That less the free pages. */
  readonly inUseBytes: number;
}

/** The hash of a compaction, as etcd keeps them. */
export interface CompactionHash {
  readonly hash: number;
  readonly revision: number;
  /** -1: none before. */
  readonly compactRevision: number;
}

export function effectiveLimits(options: BackendOptions): BackendLimits {
  const limits = options.limits ?? backendLimits;
  return options.batchRows === undefined ? limits : { ...limits, commitRows: options.batchRows };
}
