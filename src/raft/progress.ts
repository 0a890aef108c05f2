// What a leader knows of one member's log, and how it therefore sends to it. Three states, as in etcd-io/raft's
// tracker:
//
//            append accepted                      snapshot needed
//   ┌─────────────────────────► replicate ──────────────────────────┐
//   │                               │                               ▼
//  probe ◄── rejected, unreachable ─┘                            snapshot
//   ▲  └──────────────────── snapshot needed ───────────────────────►│
//   └──────────────── reported done or failed, or answered ──────────┘
//
// probe: one append a heartbeat, to find where the logs agree. replicate: appends stream ahead of the answers, bounded
// by Inflights. snapshot: nothing is sent until the snapshot's fate is known.

import { assert } from '../base/assert.ts';
import { Inflights } from './inflights.ts';
import type { NodeId } from './types.ts';

export const ProgressState = { probe: 0, replicate: 1, snapshot: 2 } as const;
export type ProgressState = (typeof ProgressState)[keyof typeof ProgressState];

/** As somebody outside sees it. */
export interface ProgressStatus {
  readonly id: NodeId;
  readonly match: number;
  readonly next: number;
  readonly state: ProgressState;
  readonly isLearner: boolean;
  readonly recentActive: boolean;
  readonly paused: boolean;
  readonly pendingSnapshot: number;
  readonly inflightCount: number;
  readonly inflightFull: boolean;
}

export class Progress {
  readonly id: NodeId;
  /** The log is known to agree with the leader's up to here. On the leader itself: how far its own log is durable. */
  match = 0;
  /** The next entry to send. Invariant: match < next; those between are in flight. */
  next: number;
  state: ProgressState = ProgressState.probe;
  /** In state snapshot: the index of the snapshot that was sent, below `next`. Else 0. */
  pendingSnapshot = 0;
  /** The member was heard from since the last quorum check. Always true on the leader itself. */
  recentActive: boolean;
  /** No append until a heartbeat is answered: the probe is out, or the window is full. */
  paused = false;
  isLearner: boolean;
  /** The highest commit index in flight to the member. It may fall back when sent messages are known to be lost. */
  #sentCommit = 0;
  readonly inflights: Inflights;

  constructor(
    id: NodeId,
    next: number,
    isLearner: boolean,
    recentActive: boolean,
    inflightCountMax: number,
    inflightBytesMax: number,
  ) {
    assert(next > 0, 'the first index is 1');
    this.id = id;
    this.next = next;
    this.isLearner = isLearner;
    this.recentActive = recentActive;
    this.inflights = new Inflights(inflightCountMax, inflightBytesMax);
  }

  /** A new term begins: nothing is known of the member. */
  reset(match: number, next: number): void {
    assert(match < next, 'progress: match must be below next');
    this.match = match;
    this.next = next;
    this.recentActive = false;
    this.#sentCommit = 0;
    this.#resetState(ProgressState.probe);
  }

  becomeProbe(): void {
    if (this.state === ProgressState.snapshot) {
      // The snapshot may have arrived: try right after it.
      const pending = this.pendingSnapshot;
      this.#resetState(ProgressState.probe);
      this.next = Math.max(this.match + 1, pending + 1);
    } else {
      this.#resetState(ProgressState.probe);
      this.next = this.match + 1;
    }
    this.#regressCommit();
  }

  becomeReplicate(): void {
    this.#resetState(ProgressState.replicate);
    this.next = this.match + 1;
  }

  becomeSnapshot(index: number): void {
    this.#resetState(ProgressState.snapshot);
    this.pendingSnapshot = index;
    this.next = index + 1;
    this.#sentCommit = index;
  }

  get isPaused(): boolean {
    return this.paused || this.state === ProgressState.snapshot;
  }

  /** An append with `count` entries of `bytes` went out. */
  sentEntries(count: number, bytes: number): void {
    assert(this.state !== ProgressState.snapshot, 'an append during a snapshot');
    if (this.state === ProgressState.replicate) {
      if (count > 0) {
        this.next += count;
        this.inflights.add(this.next - 1, bytes);
      }
      this.paused = this.inflights.full;
    } else if (count > 0) {
      this.paused = true;
    }
  }

  /** A message with this commit index would let the member commit more of what is already on its way to it. */
  canBumpCommit(commit: number): boolean {
    return commit > this.#sentCommit && this.#sentCommit < this.next - 1;
  }

  sentCommit(commit: number): void {
    this.#sentCommit = commit;
  }

  /** The member confirmed its log up to `index`. False when that is old news. */
  maybeUpdate(index: number): boolean {
    if (index <= this.match) return false;
    this.match = index;
    if (this.next <= index) this.next = index + 1;
    this.paused = false;
    return true;
  }

  /**
   * The member refused an append after `rejected`; `hint` is the next guess of where the logs agree. False when the
   * answer is stale, which reordering makes possible.
   */
  maybeDecrease(rejected: number, hint: number): boolean {
    if (this.state === ProgressState.replicate) {
      if (rejected <= this.match) return false;
      this.next = this.match + 1;
      this.#regressCommit();
      return true;
    }
    // A probe is alone: only its own index can be the one refused. During a snapshot any refusal is stale.
    if (this.next - 1 !== rejected || this.state === ProgressState.snapshot) return false;
    this.next = Math.max(Math.min(rejected, hint + 1), this.match + 1);
    this.#regressCommit();
    this.paused = false;
    return true;
  }

  #resetState(state: ProgressState): void {
    this.state = state;
    this.paused = false;
    this.pendingSnapshot = 0;
    this.inflights.reset();
  }

  #regressCommit(): void {
    this.#sentCommit = Math.min(this.#sentCommit, this.next - 1);
  }

  status(): ProgressStatus {
    const { id, match, next, state, isLearner, recentActive, isPaused, pendingSnapshot, inflights } = this;
    const flow = { inflightCount: inflights.count, inflightFull: inflights.full };
    return { id, match, next, state, isLearner, recentActive, paused: isPaused, pendingSnapshot, ...flow };
  }

  checkInvariants(): void {
    assert(this.match >= 0 && this.match < this.next, 'progress: match must be below next');
    if (this.state === ProgressState.snapshot) {
      // Beyond it when the member answered with more and still needs a snapshot, as the log was compacted further.
      assert(this.next > this.pendingSnapshot, 'progress: after a snapshot comes the entry after it');
    } else {
      assert(this.pendingSnapshot === 0, 'progress: a pending snapshot outside its state');
    }
    if (this.state !== ProgressState.replicate) {
      assert(this.inflights.count === 0, 'progress: inflight messages outside replicate');
    }
    this.inflights.checkInvariants();
  }
}
