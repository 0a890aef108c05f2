// The two keepalive policies of a connection, with grpc-go's rules as etcd sets them.
//
// PingPolicy: a client may ping no more often than the minimum interval (and hardly ever without a call, since etcd leaves
// PermitWithoutStream off); answers reset the count; the third strike is GOAWAY ENHANCE_YOUR_CALM "too_many_pings".
// Keepalive: a connection from which nothing was read for the interval is pinged, and closed when nothing comes within the
// timeout.

import { Timer, type TimerOwner, type TimerWheel } from './timer-wheel.ts';

export interface KeepaliveOptions {
  /** --grpc-keepalive-min-time. */
  readonly minTimeMs: number;
  readonly permitWithoutStream: boolean;
  /** --grpc-keepalive-interval and -timeout. */
  readonly intervalMs: number;
  readonly timeoutMs: number;
}

export const etcdKeepalive: KeepaliveOptions = {
  minTimeMs: 5_000,
  permitWithoutStream: false,
  intervalMs: 7_200_000,
  timeoutMs: 20_000,
};

const strikesMax = 2;
const idleMinTimeMs = 7_200_000;

export class PingPolicy {
  private readonly options: KeepaliveOptions;
  private strikes = 0;
  private lastPingMs: number = Number.NEGATIVE_INFINITY;

  constructor(options: KeepaliveOptions) {
    this.options = options;
  }

  /** Counts a ping. `answered`: HEADERS or DATA were sent since the last one. False when it was one too many. */
  allows(nowMs: number, answered: boolean, streamCount: number): boolean {
    const sinceMs = nowMs - this.lastPingMs;
    this.lastPingMs = nowMs;
    if (answered) {
      this.strikes = 0;
      return true;
    }
    const idle = streamCount === 0 && !this.options.permitWithoutStream;
    if (sinceMs < (idle ? idleMinTimeMs : this.options.minTimeMs)) this.strikes += 1;
    return this.strikes <= strikesMax;
  }
}

export interface KeepaliveOwner {
  /** When bytes were last read. */
  readonly lastReadMs: number;
  sendKeepalivePing(): void;
  keepaliveTimedOut(): void;
}

export class Keepalive implements TimerOwner {
  private readonly options: KeepaliveOptions;
  private readonly owner: KeepaliveOwner;
  private readonly wheel: TimerWheel;
  private readonly timer: Timer = new Timer(this);
  /** When the unanswered ping was sent, or -1. */
  private pingedMs = -1;

  constructor(options: KeepaliveOptions, owner: KeepaliveOwner, wheel: TimerWheel) {
    this.options = options;
    this.owner = owner;
    this.wheel = wheel;
    wheel.set(this.timer, owner.lastReadMs + options.intervalMs);
  }

  stop(): void {
    this.wheel.cancel(this.timer);
  }

  timerFired(timer: Timer): void {
    const { intervalMs, timeoutMs } = this.options;
    const readMs = this.owner.lastReadMs;
    if (this.pingedMs >= 0 && readMs <= this.pingedMs) {
      this.owner.keepaliveTimedOut();
      return;
    }
    this.pingedMs = -1;
    const nowMs = timer.dueTick * this.wheel.tickMs;
    if (nowMs >= readMs + intervalMs) {
      this.owner.sendKeepalivePing();
      this.pingedMs = nowMs;
      this.wheel.set(timer, nowMs + timeoutMs);
    } else {
      this.wheel.set(timer, readMs + intervalMs);
    }
  }
}
