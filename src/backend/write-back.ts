// When what the core has applied goes to the flusher, and who waits for it. Not the writing, which is flusher.ts, and not what memory lets
// go of afterwards, which is backend.ts.
//
//   rows     applied ──▶ posted ──▶ flushed    after a batch (rows, bytes or time), or when somebody waits
//   index    active ───▶ frozen ──▶ merged     at mergeEntries changes, when idle, for a compaction, for room; one at a time
//
// Waiters are those of a position of the row log (flush) and those of room (whenRoom), who apply nothing meanwhile: whatever makes the
// room must begin by itself.

import { assert } from '../base/assert.ts';
import type { Clock, Timer } from '../io/clock.ts';
import type { BackendLimits } from '../storage-limits.ts';
import { type FlushDone, FlushWaiters } from './flush-waiters.ts';
import type { FlusherPort } from './flusher-port.ts';
import type { KeyIndex } from './index.ts';
import type { FromFlusher } from './messages.ts';
import type { RowLog } from './row-log.ts';

export interface WriteBackParts {
  readonly rows: RowLog;
  readonly index: KeyIndex;
  readonly limits: BackendLimits;
  readonly clock: Clock;
  readonly batchIntervalMs: number;
  readonly port: FlusherPort;
  /** The newest revision that was applied. */
  revision(): number;
}

export class WriteBack {
  /** An apply has begun and not ended: nothing is posted, since it would be a part of it. */
  private applying = false;
  private readonly rows: RowLog;
  private readonly index: KeyIndex;
  private readonly limits: BackendLimits;
  private readonly parts: WriteBackParts;
  private postedPosition = 0;
  private postedRows = 0;
  private flushedPosition = 0;
  /** Merges that were begun and done, and up to which number they are wanted. */
  private mergesBegun = 0;
  private mergesDone = 0;
  private mergesWanted = 0;
  /** Changes of the frozen delta that are not merged yet. */
  private frozenLeft = 0;
  /** Something waits for the end of this apply to be flushed. */
  private flushSoon = false;
  private idleTicks = 0;
  private timer: Timer | null = null;
  private stopped = false;
  private failure: Error | null = null;
  private readonly flushWaiters = new FlushWaiters();
  private readonly roomWaiters: (() => void)[] = [];

  constructor(parts: WriteBackParts) {
    const { mergeEntries, indexLagEntriesMax } = parts.limits;
    assert(mergeEntries <= indexLagEntriesMax, 'backend: changes wait for room that no merge would make');
    this.parts = parts;
    this.rows = parts.rows;
    this.index = parts.index;
    this.limits = parts.limits;
  }

  /** With each change of an apply. Hot. */
  beginApply(): void {
    this.applying = true;
  }

  get isApplying(): boolean {
    return this.applying;
  }

  /** At the end of each apply. Hot. */
  applied(): void {
    const { rows, limits } = this;
    this.applying = false;
    this.idleTicks = 0;
    if (
      this.flushSoon ||
      rows.rowsAppended - this.postedRows >= limits.commitRows ||
      rows.position - this.postedPosition >= limits.commitBytes
    ) {
      this.post();
    }
    if (this.isMergeDue) this.beginMerge();
    if (this.timer === null) this.wakeTimer();
  }

  // --- rows ---

  /** Answers when everything applied before the call is in the tables, durably. At once when it is already. */
  flush(done: FlushDone): void {
    if (this.failure !== null || this.rows.position <= this.flushedPosition) {
      done(this.failure);
      return;
    }
    this.flushWaiters.add(this.rows.position, done);
    this.post();
  }

  /** As soon as this apply has ended. */
  postSoon(): void {
    this.flushSoon = true;
  }

  post(): void {
    assert(!this.applying, 'backend: flush inside of an apply');
    this.flushSoon = false;
    if (this.rows.position === this.postedPosition) return;
    this.postedPosition = this.rows.position;
    this.postedRows = this.rows.rowsAppended;
    this.parts.port.post({ kind: 'flush', position: this.postedPosition });
  }

  // --- merges ---

  private get isMergeDue(): boolean {
    return this.index.activeEntries >= this.limits.mergeEntries || this.mergesWanted > this.mergesBegun;
  }

  /** Hands the delta to the flusher, unless one is on its way or there is nothing in it. */
  private beginMerge(): void {
    if (this.mergesBegun > this.mergesDone) return;
    if (this.index.activeEntries === 0) return;
    this.post();
    const delta = this.index.freeze();
    this.mergesBegun++;
    this.frozenLeft = delta.changeCount;
    this.parts.port.post({ kind: 'merge', delta, position: this.rows.position, revision: this.parts.revision() });
  }

  /** Wants all that is not merged to be. Returns how many merges that takes, counted from the start. */
  wantMerged(): number {
    const pending = this.index.activeEntries > 0;
    this.mergesWanted = Math.max(this.mergesWanted, this.mergesBegun + (pending ? 1 : 0));
    const merges = this.mergesWanted;
    if (!this.applying) this.beginMerge();
    return merges;
  }

  // --- room ---

  isOverloaded(): boolean {
    const { rows, limits } = this;
    if (rows.backlogBytes > limits.backlogBytesMax || rows.backlogRows > limits.backlogRowsMax) return true;
    return this.index.activeEntries + this.frozenLeft > limits.indexLagEntriesMax;
  }

  whenRoom(done: () => void): void {
    assert(this.isOverloaded(), 'backend: waiting for room that is there');
    this.roomWaiters.push(done);
    this.post();
    this.beginMerge();
  }

  // --- time ---

  /** A timer only while something waits for it, so that an idle server sleeps. */
  wakeTimer(): void {
    const needed = this.rows.position > this.postedPosition || this.index.activeEntries > 0;
    const { clock, batchIntervalMs } = this.parts;
    this.timer = needed && !this.stopped ? clock.setTimer(batchIntervalMs, () => this.tick()) : null;
  }

  private tick(): void {
    this.timer = null;
    if (this.stopped) return;
    if (!this.applying) {
      this.post();
      if (++this.idleTicks >= this.limits.mergeIdleTicks) this.beginMerge();
    }
    this.wakeTimer();
  }

  // --- the flusher's answers ---

  /** The core's view shows the commit. Waiters hear of it by answer(). */
  committed(message: FromFlusher & { kind: 'committed' }): void {
    this.flushedPosition = message.position;
    if (message.mergeLeft >= 0) this.frozenLeft = message.mergeLeft;
    if (!message.mergeDone) return;
    this.mergesDone++;
    this.frozenLeft = 0;
    this.index.dropFrozen();
    // At once: those who wait for room apply nothing that would begin it. Not at the end, which nothing large shall delay (postLast).
    if (!this.stopped && !this.applying && this.isMergeDue) this.beginMerge();
  }

  answer(): void {
    this.flushWaiters.flushed(this.flushedPosition);
    if (this.roomWaiters.length > 0 && !this.isOverloaded()) for (const done of this.roomWaiters.splice(0)) done();
  }

  failed(error: Error): void {
    this.failure = error;
    this.stopped = true;
    this.flushWaiters.failed(error);
  }

  // --- end ---

  /** Nothing more is posted by time. */
  stop(): void {
    assert(!this.applying, 'backend closed inside of an apply');
    if (this.timer !== null) this.parts.clock.clearTimer(this.timer);
    this.timer = null;
    this.stopped = true;
  }

  /** Those who wait for a flush or for room, for whoever answers them now: here nothing happens any more. */
  takeWaiters(): () => void {
    const room = this.roomWaiters.splice(0);
    return () => {
      this.flushWaiters.flushed(Infinity);
      for (const done of room) done();
    };
  }

  /** Posts what is left. Returns how many merges to wait for, counted from the start. */
  postLast(): number {
    this.post();
    // A small merge saves the next start its scan; a large one would keep the process from its end longer than that.
    const small = this.index.activeEntries <= this.limits.mergeSliceKeys && this.mergesBegun === this.mergesDone;
    if (small) this.beginMerge();
    return small ? this.mergesBegun : 0;
  }

  /** Everything applied is in the tables, and so many merges are done. */
  isDone(merges: number): boolean {
    return this.flushedPosition >= this.rows.position && this.mergesDone >= merges;
  }

  /** For tests and simulation. */
  checkInvariants(): void {
    assert(this.mergesBegun - this.mergesDone === (this.index.hasFrozen ? 1 : 0), 'backend: merges miscounted');
  }
}
