// How much of the log in memory is not applied: what grows while a member's state is replaced, or while its disk is slower than its
// leader's. Too much at most, where entries were replaced by another leader's, and right again whenever all is applied.

import { unappliedBytesMax } from '../cluster-limits.ts';
import { type Entry, payloadBytes } from '../raft/types.ts';

export class UnappliedBytes {
  private bytes = 0;

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

  /** Whether the log may grow. */
  get hasRoom(): boolean {
    return this.bytes < unappliedBytesMax;
  }
}
