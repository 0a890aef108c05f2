// What the core thread and the flusher tell each other. Messages keep their order; everything in them can be cloned between
// threads. The data itself goes through the row log's shared memory, not through messages.

import type { ExitCode } from '../base/fatal.ts';
import type { FrozenDelta } from './index-delta.ts';

/** When a job may begin: rows flushed up to `position`, and so many merges done since the start. */
export interface JobStart {
  readonly id: number;
  readonly position: number;
  readonly merges: number;
}

/** Work that the flusher does one after the other, beside flushing and merging. */
export type Job = JobStart & JobKind;

export type JobKind =
  | {
      readonly kind: 'compact';
      readonly revision: number;
      /** The compact revision before, -1: none. */
      readonly previous: number;
      /** The hash that etcd keeps is wanted. */
      readonly hashes: boolean;
      /** Nothing at all is kept at that revision: etcd then hashes without its keep set. */
      readonly keepsNothing: boolean;
    }
  | {
      readonly kind: 'hashKv';
      readonly revision: number;
      /** -1: none. */
      readonly compactRevision: number;
      readonly keepsNothing: boolean;
    }
  | { readonly kind: 'hash' }
  | { readonly kind: 'defrag' };

/** What stands for a job's hash when there is none: not asked for, or the job was done by a later one. */
export const JobHash = { none: -1, absorbed: -2 } as const;

export type ToFlusher =
  | { readonly kind: 'slab'; readonly id: number; readonly memory: SharedArrayBuffer }
  | { readonly kind: 'dropSlab'; readonly id: number }
  | { readonly kind: 'flush'; readonly position: number }
  | { readonly kind: 'merge'; readonly delta: FrozenDelta; readonly position: number; readonly revision: number }
  | { readonly kind: 'job'; readonly job: Job }
  /** The core has moved to the defragmented file. */
  | { readonly kind: 'swapped' }
  | { readonly kind: 'close' };

export type FromFlusher =
  | {
      readonly kind: 'committed';
      readonly generation: number;
      /** Everything before this position of the row log is in the tables, synced. */
      readonly position: number;
      readonly rowCount: number;
      readonly index: number;
      readonly term: number;
      readonly mergeDone: boolean;
      /** Changes of the delta being merged that the tables lack; -1: the flusher knew of no merge. */
      readonly mergeLeft: number;
      readonly allocatedBytes: number;
      readonly freeBytes: number;
      readonly durationMs: number;
      readonly deletedRows: number;
    }
  | {
      readonly kind: 'jobDone';
      readonly id: number;
      readonly hash: number;
      readonly error: string;
      readonly durationMs: number;
    }
  /** The file at `path` holds everything: move to it and answer 'swapped'. */
  | { readonly kind: 'swap'; readonly path: string }
  | { readonly kind: 'failed'; readonly exitCode: ExitCode; readonly message: string }
  | { readonly kind: 'closed' };
