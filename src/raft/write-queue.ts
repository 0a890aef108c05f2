// The Readies that were handed out and are not yet durable, oldest first. Each remembers what becomes true once the
// driver says persisted(sequence): how far the log is durable, and under which term and vote.
//
// A later leader may overwrite entries whose write is still in flight, and the first leader's entries may then come
// back with the same index and term (the ABA case that etcd-io/raft describes in newStorageAppendRespMsg). Comparing
// terms cannot tell which write was the last one; so truncate() lowers what the older writes promise, and no comparison
// is needed.

import { assert } from '../base/assert.ts';
import { raftWritesInFlightMax } from '../limits.ts';
import type { NodeId } from './types.ts';

export interface Write {
  /** Newest Ready in it: more than one once the queue is at its bound. */
  sequence: number;
  /**
   * Every entry up to here was handed out by this or an earlier Ready and not overwritten since. Ascends in the queue.
   */
  lastIndex: number;
  /** The hard state in force. */
  term: number;
  vote: NodeId;
  /** Of the newest snapshot handed out by it, 0 without. */
  snapshotIndex: number;
}

export class WriteQueue {
  #writes: Write[] = [];

  get count(): number {
    return this.#writes.length;
  }

  push(write: Write): void {
    const newest = this.#writes[this.#writes.length - 1];
    if (newest !== undefined) {
      assert(write.sequence > newest.sequence, 'writes must be in order');
      assert(write.lastIndex >= newest.lastIndex, 'a later write covers at least the same entries');
    }
    if (newest !== undefined && this.#writes.length >= raftWritesInFlightMax) {
      // A stalled disk: merge, so that what both promise becomes true when the later one is durable.
      newest.sequence = write.sequence;
      newest.lastIndex = write.lastIndex;
      newest.term = write.term;
      newest.vote = write.vote;
      newest.snapshotIndex = Math.max(newest.snapshotIndex, write.snapshotIndex);
      return;
    }
    this.#writes.push(write);
  }

  /** The next write that is durable when everything up to `sequence` is; null when there is none. */
  shift(sequence: number): Write | null {
    const oldest = this.#writes[0];
    if (oldest === undefined || oldest.sequence > sequence) return null;
    this.#writes.shift();
    return oldest;
  }

  /** The entries from `from` on were replaced: no write before now makes the new ones durable. */
  truncate(from: number): void {
    for (const write of this.#writes) {
      if (write.lastIndex >= from) write.lastIndex = from - 1;
    }
  }
}
