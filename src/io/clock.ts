// Time, injected: the monotonic clock for durations and timers, the wall clock for what is shown or stored. `systemClock` is
// the real one; SimClock stands still until told to advance and runs due timers in order of time, then of creation.

import { assert } from '../base/assert.ts';

/** Handle of a timer, for clearTimer. */
export interface Timer {
  readonly dueMs: number;
}

export interface Clock {
  /** Monotonic milliseconds with a fraction, from an arbitrary origin. */
  nowMs(): number;
  /** Milliseconds since 1970-01-01 UTC; may jump in both directions. */
  wallMs(): number;
  /** Runs `callback` once, not before `delayMs`. */
  setTimer(delayMs: number, callback: () => void): Timer;
  /** Fine for a timer that has already run. */
  clearTimer(timer: Timer): void;
}

interface SystemTimer extends Timer {
  readonly handle: NodeJS.Timeout;
}

const lastMs: Float64Array = new Float64Array(1);

/** What the system clock's nowMs() gave last, to whomever: reading the clock takes 70 ns, this nothing. */
export const lastReading = (): number => lastMs[0]!;

/** For what is logged: the wall's time with a fraction, which goes on evenly from the process's start and never jumps. */
export const evenWallMs = (): number => performance.timeOrigin + performance.now();

/** The real clock. Its timers keep the process alive. */
export const systemClock: Clock = {
  nowMs: () => {
    const now = performance.now();
    lastMs[0] = now;
    return now;
  },
  wallMs: () => Date.now(),
  setTimer: (delayMs, callback): SystemTimer => ({
    dueMs: performance.now() + delayMs,
    handle: setTimeout(callback, delayMs),
  }),
  clearTimer: (timer) => clearTimeout((timer as SystemTimer).handle),
};

interface SimTimer extends Timer {
  readonly order: number;
  readonly callback: () => void;
}

/** A clock for simulation: time moves only in advance(). */
export class SimClock implements Clock {
  #nowMs = 0;
  #wallOffsetMs: number;
  #order = 0;
  readonly #timers = new Set<SimTimer>();

  constructor(wallMs = 1_700_000_000_000) {
    this.#wallOffsetMs = wallMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return Math.floor(this.#wallOffsetMs + this.#nowMs);
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer: SimTimer = { dueMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, callback };
    this.#timers.add(timer);
    return timer;
  }

  clearTimer(timer: Timer): void {
    this.#timers.delete(timer as SimTimer);
  }

  /** The wall clock jumps, as after a step of NTP; timers and nowMs do not notice. */
  jumpWall(deltaMs: number): void {
    this.#wallOffsetMs += deltaMs;
  }

  /** When the next timer is due, or null. */
  nextDueMs(): number | null {
    return this.#next()?.dueMs ?? null;
  }

  /** Moves time on by `deltaMs`, running what falls due, timers set meanwhile included. */
  advance(deltaMs: number): void {
    assert(deltaMs >= 0, 'time moves forward');
    const end = this.#nowMs + deltaMs;
    for (let timer = this.#next(); timer !== null && timer.dueMs <= end; timer = this.#next()) {
      this.#timers.delete(timer);
      this.#nowMs = timer.dueMs;
      timer.callback();
    }
    this.#nowMs = end;
  }

  #next(): SimTimer | null {
    let first: SimTimer | null = null;
    for (const timer of this.#timers) {
      if (first === null || timer.dueMs < first.dueMs || (timer.dueMs === first.dueMs && timer.order < first.order))
        first = timer;
    }
    return first;
  }
}
