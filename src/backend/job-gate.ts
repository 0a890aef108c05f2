// Jobs on their way to the flusher. A compaction waits here while a read that goes on over several turns needs what it would delete;
// the jobs behind it wait too, since some of them (a hash) count on what came before. Bounded by the reads that were under way
// when it came: new ones below its revision are refused.

import { assert } from '../base/assert.ts';
import type { Job } from './messages.ts';

export class JobGate {
  private readonly post: (job: Job) => void;
  /** Revisions that are read, and by how many. */
  private readonly pins = new Map<number, number>();
  private held: Job[] = [];

  constructor(post: (job: Job) => void) {
    this.post = post;
  }

  send(job: Job): void {
    if (this.held.length > 0 || this.isNeeded(job)) this.held.push(job);
    else this.post(job);
  }

  pin(revision: number): void {
    this.pins.set(revision, (this.pins.get(revision) ?? 0) + 1);
  }

  unpin(revision: number): void {
    const reads = this.pins.get(revision);
    assert(reads !== undefined, 'backend: a revision is let go that was not pinned');
    if (reads > 1) {
      this.pins.set(revision, reads - 1);
      return;
    }
    this.pins.delete(revision);
    while (this.held.length > 0 && !this.isNeeded(this.held[0]!)) this.post(this.held.shift()!);
  }

  /** Another database takes the place of the one that `other` guarded: its reads go on in it. */
  adoptPins(other: JobGate): void {
    assert(this.held.length === 0, 'backend: jobs before the reads that they may have to wait for');
    for (const [revision, reads] of other.pins) this.pins.set(revision, reads);
  }

  /** The process ends, or the database is replaced: what waits is not done any more. */
  close(): void {
    this.held = [];
  }

  /** Whether a read needs what the job deletes. At the revision of a compaction itself nothing goes. */
  private isNeeded(job: Job): boolean {
    if (job.kind !== 'compact') return false;
    for (const pin of this.pins.keys()) if (pin < job.revision) return true;
    return false;
  }
}
