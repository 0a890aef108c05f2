// Proposals of this member that wait for their entry to be applied, by the counter of the request's id. Bounded by the number
// of calls that the transport admits; the oldest come first, so expiry looks at the front alone.

import type { Applier } from '../apply/applier.ts';
import type { EtcdError } from '../proto/rpctypes.ts';

/** Whoever proposed. Exactly one of `applied` and `failed` is called, once. */
export interface Waiter {
  /** Before the others: the request is entry[start, end) now, which stays as it is. */
  proposed?(entry: Buffer, start: number, end: number): void;
  /** In the turn of the apply: `applier` holds the answer until it returns. */
  applied(applier: Applier): void;
  failed(error: EtcdError): void;
}

interface Pending {
  /** Field of InternalRaftRequest. */
  readonly kind: number;
  readonly entry: Buffer;
  readonly waiter: Waiter;
  readonly sinceMs: number;
}

export class PendingProposals {
  private readonly byCounter = new Map<number, Pending>();

  get count(): number {
    return this.byCounter.size;
  }

  add(counter: number, kind: number, entry: Buffer, waiter: Waiter, nowMs: number): void {
    this.byCounter.set(counter, { kind, entry, waiter, sinceMs: nowMs });
  }

  has(counter: number): boolean {
    return this.byCounter.has(counter);
  }

  /**
   * Whether it is `entry` that waits. An id may be another member's, too: both take sixteen bits of their own, and the time at which they
   * started. Whoever waits must not be answered for what is not in the log. Hot: a leader finds its own buffer again.
   */
  awaits(counter: number, entry: Buffer): boolean {
    const pending = this.byCounter.get(counter);
    return pending !== undefined && (pending.entry === entry || pending.entry.equals(entry));
  }

  /** When the proposal was made; Infinity when it does not wait any more. */
  sinceMs(counter: number): number {
    return this.byCounter.get(counter)?.sinceMs ?? Infinity;
  }

  /** When the proposal that take() gave last was made. */
  takenSinceMs = 0;

  take(counter: number): Waiter | undefined {
    const pending = this.byCounter.get(counter);
    if (pending === undefined) return undefined;
    this.byCounter.delete(counter);
    this.takenSinceMs = pending.sinceMs;
    return pending.waiter;
  }

  /** Fails those that were proposed before `beforeMs`, telling of each; returns how many. */
  expire(
    beforeMs: number,
    errorOf: (sinceMs: number) => EtcdError,
    expiring: (kind: number, sinceMs: number) => void,
  ): number {
    let expired = 0;
    for (const [counter, pending] of this.byCounter) {
      if (pending.sinceMs >= beforeMs) break;
      this.byCounter.delete(counter);
      expiring(pending.kind, pending.sinceMs);
      pending.waiter.failed(errorOf(pending.sinceMs));
      expired++;
    }
    return expired;
  }
}
