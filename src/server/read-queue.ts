// Linearizable reads on their way: those of a turn share one ReadIndex round; a confirmed round waits until the state machine has
// applied its index. Without a leader they wait for the next one. The bytes of their requests are bounded for all connections together:
// without a leader nobody's read is answered, and with one they wait for no more than a round.
//
//   new ──startRound──> in a round ──confirm──> confirmed ──answer (applied >= index)──> ready()
//                            ├── no answer in time ──retry──> the next round begins beside it: the answer to either will do
//                            └── the leader changed ──restart──> new, with a context of its own (etcd#20418)

import { bigReadLimits } from '../limits.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { RawNode } from '../raft/raw-node.ts';
import type { ReadState } from '../raft/types.ts';

/** A read that waits until it may be answered: one of the two is called, once. */
export interface ReadWaiter {
  ready(): void;
  failed(error: EtcdError): void;
}

interface WaitingRead {
  readonly waiter: ReadWaiter;
  readonly sinceMs: number;
  readonly requestBytes: number;
}

/**
 * Where rounds get their contexts from: as a request's id, each is of this member and of this run of it. A leader may hold a round of the
 * run before a restart, or of another member (etcd before 3.7 knows rounds by their contexts alone): its index says nothing about ours.
 */
export interface RoundIds {
  readonly idPrefix: number;
  nextCounter(): number;
}

/** Of a context, which is an id in 8 bytes, big-endian: the prefix, then the counter. */
const PREFIX_BYTES = 2;
const COUNTER_BYTES = 6;

export class ReadQueue {
  private readonly raft: RawNode;
  private readonly ids: RoundIds;
  private fresh: WaitingRead[] = [];
  /**
   * By the counter of the round that a read came in with, in the order in which they began. Each reads a state behind the reads of the ones
   * before it, so that its answer is theirs too. More than one only after a retry: then some may have no read of their own.
   */
  private readonly rounds = new Map<number, readonly WaitingRead[]>();
  /** Of the newest one. */
  private roundSinceMs = 0;
  private newestRound = 0;
  private isRetryDue = false;
  private requestBytes = 0;
  /** By ascending index. */
  private readonly confirmed: { readonly index: number; readonly reads: readonly WaitingRead[] }[] = [];

  constructor(raft: RawNode, ids: RoundIds) {
    this.raft = raft;
    this.ids = ids;
  }

  get hasNew(): boolean {
    return this.fresh.length > 0 || this.isRetryDue;
  }

  /** `requestBytes`: what is kept of its request. Beyond the bound it fails at once. */
  add(waiter: ReadWaiter, nowMs: number, requestBytes: number): void {
    if (this.requestBytes + requestBytes > bigReadLimits.waitingBytesMax) {
      waiter.failed(tooManyReadsWait);
      return;
    }
    this.requestBytes += requestBytes;
    this.fresh.push({ waiter, sinceMs: nowMs, requestBytes });
  }

  /** One at a time, unless it takes too long: what comes meanwhile shares the next one. */
  startRound(nowMs: number): void {
    if (!this.isRetryDue && (this.fresh.length === 0 || this.rounds.size > 0)) return;
    const round = this.ids.nextCounter();
    const context = Buffer.allocUnsafe(PREFIX_BYTES + COUNTER_BYTES);
    context.writeUInt16BE(this.ids.idPrefix, 0);
    context.writeUIntBE(round, PREFIX_BYTES, COUNTER_BYTES);
    if (!this.raft.readIndex(context)) return;
    this.rounds.set(round, this.fresh);
    this.newestRound = round;
    this.roundSinceMs = nowMs;
    this.isRetryDue = false;
    this.fresh = [];
  }

  /** What is of no round that waits is passed over: a peer's answer to one that was given up, or whatever it sends. */
  confirm(states: readonly ReadState[]): void {
    for (const { context, index } of states) {
      if (context.length !== PREFIX_BYTES + COUNTER_BYTES || context.readUInt16BE(0) !== this.ids.idPrefix) continue;
      const round = context.readUIntBE(PREFIX_BYTES, COUNTER_BYTES);
      if (!this.rounds.has(round)) continue;
      for (const [begun, reads] of this.rounds) {
        this.rounds.delete(begun);
        if (reads.length > 0) this.confirmed.push({ index, reads });
        if (begun === round) break;
      }
      if (!this.hasReads()) this.endRounds();
    }
  }

  private hasReads(): boolean {
    for (const reads of this.rounds.values()) if (reads.length > 0) return true;
    return false;
  }

  private endRounds(): void {
    this.rounds.clear();
    this.isRetryDue = false;
  }

  answer(appliedIndex: number): void {
    while (this.confirmed.length > 0 && this.confirmed[0]!.index <= appliedIndex) {
      for (const read of this.confirmed.shift()!.reads) this.leave(read).ready();
    }
  }

  /**
   * The newest round was begun before `beforeMs` and is not confirmed: its messages may be lost, so another is due. Or they only take
   * longer than that, so that the answer counts whenever it comes. Returns the number of the round, 0 for none.
   */
  retry(beforeMs: number): number {
    if (this.rounds.size === 0 || this.isRetryDue || this.roundSinceMs >= beforeMs) return 0;
    this.isRetryDue = true;
    return this.newestRound;
  }

  /** A round whose leader went away gets no answer. */
  restart(): void {
    if (this.rounds.size === 0) return;
    this.fresh = [...this.rounds.values(), this.fresh].flat();
    this.endRounds();
  }

  /** Fails what has waited for a leader or a round since before `beforeMs`; returns how many. */
  expire(beforeMs: number): number {
    let expired = 0;
    for (const [round, reads] of this.rounds) {
      if (reads.length > 0 && reads[0]!.sinceMs >= beforeMs) break;
      this.rounds.delete(round);
      for (const read of reads) this.leave(read).failed(etcdErrors.timeout);
      expired += reads.length;
    }
    if (this.rounds.size === 0) this.isRetryDue = false;
    // Confirmed, and the state machine does not come so far.
    for (let i = this.confirmed.length - 1; i >= 0; i--) {
      const { reads } = this.confirmed[i]!;
      if (reads[0]!.sinceMs >= beforeMs) continue;
      this.confirmed.splice(i, 1);
      for (const read of reads) this.leave(read).failed(etcdErrors.timeoutWaitAppliedIndex);
    }
    while (this.fresh.length > 0 && this.fresh[0]!.sinceMs < beforeMs) {
      this.leave(this.fresh.shift()!).failed(etcdErrors.timeout);
      expired++;
    }
    return expired;
  }

  fail(error: EtcdError): void {
    for (const read of this.fresh.splice(0)) this.leave(read).failed(error);
    for (const reads of this.rounds.values()) for (const read of reads) this.leave(read).failed(error);
    this.endRounds();
    for (const { reads } of this.confirmed.splice(0)) for (const read of reads) this.leave(read).failed(error);
  }

  private leave({ waiter, requestBytes }: WaitingRead): ReadWaiter {
    this.requestBytes -= requestBytes;
    return waiter;
  }
}

const tooManyReadsWait: EtcdError = {
  code: 8,
  message: 'keelson: too many reads wait for the leader already',
};
