// What a peer may do that costs us more than it: three buckets (flood-guard.ts), each against other attacks. One that is empty ends
// the connection with ENHANCE_YOUR_CALM; what bounds memory (queues, windows, header lists) stands where the memory is held.
//
//   bucket      spent by                                          given back by        against
//   idle        frames that carry nothing                         requests and DATA    floods of PING, SETTINGS, WINDOW_UPDATE ...
//   resets      streams reset by the peer before their answer,    streams answered     rapid reset (CVE-2023-44487)
//               streams refused for their number
//   violations  streams that we reset for a fault of the peer's   time alone           MadeYouReset (CVE-2025-8671)
//
// All methods that spend return false when the connection has ended, so that frame handlers can return it.

import type { Http2Limits } from '../connection-limits.ts';
import { FloodGuard, type MonotonicClock } from './flood-guard.ts';
import { ErrorCode } from './frame.ts';

export interface Failable {
  /** Ends the connection with an error of the peer's or ours. Always false, so that frame handlers can return it. */
  fail(code: ErrorCode, debug: string): false;
}

export class AbuseBounds {
  private readonly connection: Failable;
  private readonly refundTokens: number;
  private readonly idleGuard: FloodGuard;
  private readonly resetGuard: FloodGuard;
  private readonly violationGuard: FloodGuard;

  constructor(connection: Failable, limits: Http2Limits, clock: MonotonicClock) {
    this.connection = connection;
    this.refundTokens = limits.floodRefund;
    this.idleGuard = new FloodGuard(clock, limits.floodBurst, limits.floodPerSecond);
    this.resetGuard = new FloodGuard(clock, limits.resetBurst, limits.resetPerSecond);
    this.violationGuard = new FloodGuard(clock, limits.violationBurst, limits.violationPerSecond);
  }

  /** A frame that carries nothing. */
  idle(cost: number): boolean {
    return this.idleGuard.spend(cost) || this.calm('too many frames without content');
  }

  /** Requests or DATA frames, in either direction. */
  useful(frames: number): void {
    this.idleGuard.refund(frames * this.refundTokens);
  }

  /** The peer has reset a stream that was not answered. */
  peerReset(): boolean {
    return this.resetGuard.spend(1) || this.calm('too many reset streams');
  }

  /** A stream above the number of streams may be the race of an honest client: it costs as a reset, not as a violation. */
  refused(): boolean {
    return this.resetGuard.spend(1) || this.calm('too many refused streams');
  }

  answered(): void {
    this.resetGuard.refund(1);
  }

  violation(): boolean {
    return this.violationGuard.spend(1) || this.calm('too many invalid streams');
  }

  private calm(debug: string): false {
    return this.connection.fail(ErrorCode.enhanceYourCalm, debug);
  }
}
