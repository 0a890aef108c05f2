// All deadlines of all calls in one hashed wheel: setting and cancelling a timer is a few pointer writes, and nothing is
// asked of the operating system. The owner turns it with the injected clock; timers fire up to one tick late.
//
// Worked example (8 slots of 25 ms, now tick 100): a timer in 60 ms is due at tick 103 and sits in slot 103 % 8 = 7. One in
// 300 ms is due at tick 112, slot 0: at ticks 104 the wheel passes it and leaves it there, since its tick is later.

import { assert } from '../base/assert.ts';

const slotCount = 512;

export interface TimerOwner {
  timerFired(timer: Timer): void;
}

export class Timer {
  readonly owner: TimerOwner;
  dueTick = 0;
  /** The ring it is in, or null when it is not set. */
  previous: Timer | null = null;
  next: Timer | null = null;

  constructor(owner: TimerOwner) {
    this.owner = owner;
  }

  get isSet(): boolean {
    return this.next !== null;
  }
}

const nobody: TimerOwner = { timerFired: (): void => {} };

export class TimerWheel {
  readonly tickMs: number;
  /** Each slot is a ring around a timer that never fires. */
  private readonly slots: Timer[] = [];
  private tick: number;
  count = 0;

  constructor(tickMs: number, nowMs: number) {
    assert(tickMs > 0, 'a tick takes time');
    this.tickMs = tickMs;
    this.tick = Math.floor(nowMs / tickMs);
    for (let i = 0; i < slotCount; i += 1) {
      const head = new Timer(nobody);
      head.previous = head;
      head.next = head;
      this.slots.push(head);
    }
  }

  /** Sets a timer, or moves it. Never fires during this call. */
  set(timer: Timer, dueMs: number): void {
    if (timer.isSet) this.cancel(timer);
    timer.dueTick = Math.max(this.tick + 1, Math.ceil(dueMs / this.tickMs));
    const head = this.slots[timer.dueTick % slotCount]!;
    timer.previous = head.previous;
    timer.next = head;
    head.previous!.next = timer;
    head.previous = timer;
    this.count += 1;
  }

  cancel(timer: Timer): void {
    if (!timer.isSet) return;
    timer.previous!.next = timer.next;
    timer.next!.previous = timer.previous;
    timer.previous = null;
    timer.next = null;
    this.count -= 1;
  }

  /** Fires what is due. A timer may set or cancel any other. */
  advance(nowMs: number): void {
    const target = Math.floor(nowMs / this.tickMs);
    if (target <= this.tick) return;
    // After a long pause each slot is visited once: every due timer is in one of them.
    const first = Math.max(this.tick + 1, target - slotCount + 1);
    this.tick = target;
    for (let tick = first; tick <= target; tick += 1) this.fireSlot(this.slots[tick % slotCount]!, target);
  }

  private fireSlot(head: Timer, target: number): void {
    // Collected first: firing may change the ring.
    const due: Timer[] = [];
    for (let timer = head.next!; timer !== head; timer = timer.next!) if (timer.dueTick <= target) due.push(timer);
    for (const timer of due) {
      if (!timer.isSet || timer.dueTick > target) continue;
      this.cancel(timer);
      timer.owner.timerFired(timer);
    }
  }
}
