// What the raft core reads of the durable log. Not the WAL itself: the driver appends what a Ready gives to the WAL and
// to its Storage, then says so by RawNode.persisted(). Entries that a Ready has given may be in the Storage earlier
// than that; after persisted() they must be. Follows the Storage interface of go.etcd.io/raft, with values in place of
// errors.

import type { ConfState, Entry, HardState, Snapshot } from './types.ts';

/** What term() answers for an index that is compacted or beyond the log. */
export const NO_TERM = -1;

export interface Storage {
  /** Called once, at the start. */
  initialState(): { readonly hardState: HardState; readonly confState: ConfState };
  /**
   * The entries [lo, hi), cut to `bytesMax` but at least one. Null when `lo` is compacted. `hi` is never beyond the
   * log. The array is the caller's; the entries in it are shared and read-only.
   */
  entries(lo: number, hi: number, bytesMax: number): Entry[] | null;
  /** Known for firstIndex() - 1 (the compaction point) up to lastIndex(); NO_TERM elsewhere. */
  term(index: number): number;
  /** The first entry that is still there; lastIndex() + 1 when there is none. */
  firstIndex(): number;
  lastIndex(): number;
  /** The newest snapshot, at or after firstIndex() - 1. Null while one is being made: raft asks again later. */
  snapshot(): Snapshot | null;
}
