// A token bucket against frames that cost the server more than the client: each costs tokens, useful work gives some back,
// time gives some back. Empty means that the connection is closed with ENHANCE_YOUR_CALM. The clock is read only when the
// bucket runs dry, so the guard costs an addition in normal operation.

import { assert } from '../base/assert.ts';

/** Milliseconds that only grow. Injected: the simulator's in tests. */
export interface MonotonicClock {
  nowMs(): number;
}

export class FloodGuard {
  private readonly clock: MonotonicClock;
  private readonly burst: number;
  private readonly perSecond: number;
  private tokens: number;
  private filledMs: number;

  constructor(clock: MonotonicClock, burst: number, perSecond: number) {
    assert(burst > 0 && perSecond > 0, 'a guard lets something pass');
    this.clock = clock;
    this.burst = burst;
    this.perSecond = perSecond;
    this.tokens = burst;
    this.filledMs = clock.nowMs();
  }

  /** False when the peer has spent more than it may. */
  spend(cost: number): boolean {
    this.tokens -= cost;
    if (this.tokens >= 0) return true;
    const now = this.clock.nowMs();
    const earned = ((now - this.filledMs) * this.perSecond) / 1000;
    this.filledMs = now;
    this.tokens = Math.min(this.burst, this.tokens + earned);
    return this.tokens >= 0;
  }

  refund(tokens: number): void {
    this.tokens = Math.min(this.burst, this.tokens + tokens);
  }
}
