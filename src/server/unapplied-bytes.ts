// How much of the log in memory is not applied: what grows while a member's state is replaced, or while its disk is slower than its
// leader's. Too much at most, where entries were replaced by another leader's, and right again whenever all is applied.

import { unappliedBytesMax } from '../cluster-limits.ts';
import { type Entry, payloadBytes } from '../raft/types.ts';

/** How far a member's raft is. */
export interface Progress {
  readonly appliedIndex: number;
  readonly committedIndex: number;
}

export class UnappliedBytes {
  private readonly bytesMax: number;
  private bytes = 0;

  /** `bytesMax`: unappliedBytesMax, but for tests. */
  constructor(bytesMax: number = unappliedBytesMax) {
    this.bytesMax = bytesMax;
  }

  /** Returns their bytes. */
  logged(entries: readonly Entry[]): number {
    const bytes = payloadBytes(entries);
    this.bytes += bytes;
    return bytes;
  }

  applied(entry: Entry): void {
    // Those that a start found in its log were never counted.
    this.bytes = Math.max(0, this.bytes - entry.data.length);
  }

  /** Nothing is left to apply. */
  reset(): void {
    this.bytes = 0;
  }

  /**
   * Whether the log may get more. Where nothing is there to apply no room would come by waiting: what is counted is not committed, and it
   * may be the next leader's append that cuts it off. How much of that there can be is the leader's to bound (raftUncommittedBytesMax).
   */
  mayGrow({ appliedIndex, committedIndex }: Progress): boolean {
    return this.bytes < this.bytesMax || appliedIndex === committedIndex;
  }
}
