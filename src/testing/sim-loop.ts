// The time of a simulated cluster: one queue of what happens when, and for each member a clock of its own over it, which may run a
// little fast or slow and whose wall time may jump. While its process is paused it goes on, and the timers come afterwards, all at
// once. Equal times go in order of creation, so that a seed replays exactly.

import { assert } from '../base/assert.ts';
import type { Clock, Timer } from '../io/clock.ts';

interface SimEvent extends Timer {
  readonly dueMs: number;
  readonly order: number;
  run: (() => void) | null;
}

export class SimLoop {
  nowMs = 0;
  /** Events that were run. */
  steps = 0;
  private order = 0;
  private readonly heap: SimEvent[] = [];

  after(delayMs: number, run: () => void): SimEvent {
    const event: SimEvent = { dueMs: this.nowMs + Math.max(0, delayMs), order: this.order++, run };
    const { heap } = this;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
    return event;
  }

  cancel(event: SimEvent): void {
    event.run = null;
  }

  /** Runs the next event; false when there is none up to `endMs`, and then it is that time. */
  step(endMs: number): boolean {
    const first = this.heap[0];
    if (first === undefined || first.dueMs > endMs) {
      this.nowMs = Math.max(this.nowMs, endMs);
      return false;
    }
    this.pop();
    assert(first.dueMs >= this.nowMs, 'simulated time goes on');
    this.nowMs = first.dueMs;
    const { run } = first;
    if (run === null) return true;
    first.run = null;
    this.steps++;
    run();
    return true;
  }

  private pop(): void {
    const { heap } = this;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

function isBefore(a: SimEvent, b: SimEvent): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order);
}

/** A member's clock. `enter` runs a callback as the member: later when it is paused, never when it has died since. */
export class MemberClock implements Clock {
  private readonly loop: SimLoop;
  private readonly enter: (run: () => void) => void;
  /** Of this clock to the loop's; 1.01: it runs ahead. */
  readonly rate: number;
  private readonly originMs: number;
  private wallOffsetMs: number;

  constructor(loop: SimLoop, rate: number, wallOffsetMs: number, enter: (run: () => void) => void) {
    this.loop = loop;
    this.rate = rate;
    this.enter = enter;
    // Every process starts its monotonic clock anew, at anything.
    this.originMs = loop.nowMs - 1000;
    this.wallOffsetMs = 1_700_000_000_000 + wallOffsetMs;
  }

  nowMs(): number {
    return (this.loop.nowMs - this.originMs) * this.rate;
  }

  wallMs(): number {
    return Math.floor(this.wallOffsetMs + this.loop.nowMs);
  }

  jumpWall(deltaMs: number): void {
    this.wallOffsetMs += deltaMs;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    return this.loop.after(delayMs / this.rate, () => this.enter(callback));
  }

  clearTimer(timer: Timer): void {
    this.loop.cancel(timer as SimEvent);
  }
}
