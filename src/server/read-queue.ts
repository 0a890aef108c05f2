// Linearizable reads on their way: those of a turn share one ReadIndex round; a confirmed round waits until the state machine has
// applied its index. Without a leader they wait for the next one. The bytes of their requests are bounded for all connections together:
// without a leader nobody's read is answered, and with one they wait for no more than a round.
//
//   new ──startRound──> in a round ──confirm──> confirmed ──answer (applied >= index)──> ready()
//                            └── the leader changed ──restart──> new, with a context of its own (etcd#20418)

import { bigReadLimits } from '../limits.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
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

const NO_READS: readonly WaitingRead[] = [];

export class ReadQueue {
  private readonly raft: RawNode;
  private fresh: WaitingRead[] = [];
  /** By the context of their round. */
  private readonly rounds = new Map<number, readonly WaitingRead[]>();
  private round = 0;
  private requestBytes = 0;
  /** By ascending index. */
  private readonly confirmed: { readonly index: number; readonly reads: readonly WaitingRead[] }[] = [];

  constructor(raft: RawNode) {
    this.raft = raft;
  }

  get hasNew(): boolean {
    return this.fresh.length > 0;
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

  startRound(): void {
    if (this.fresh.length === 0) return;
    const context = Buffer.allocUnsafe(8);
    context.writeDoubleBE(++this.round);
    if (!this.raft.readIndex(context)) return;
    this.rounds.set(this.round, this.fresh);
    this.fresh = [];
  }

  confirm(states: readonly ReadState[]): void {
    for (const { context, index } of states) {
      const round = context.readDoubleBE(0);
      this.confirmed.push({ index, reads: this.rounds.get(round) ?? NO_READS });
      this.rounds.delete(round);
    }
  }

  answer(appliedIndex: number): void {
    while (this.confirmed.length > 0 && this.confirmed[0]!.index <= appliedIndex) {
      for (const read of this.confirmed.shift()!.reads) this.leave(read).ready();
    }
  }

  /** A round whose leader went away gets no answer. */
  restart(): void {
    for (const reads of this.rounds.values()) this.fresh.push(...reads);
    this.rounds.clear();
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
    while (this.fresh.length > 0 && this.fresh[0]!.sinceMs < beforeMs) {
      this.leave(this.fresh.shift()!).failed(etcdErrors.timeout);
      expired++;
    }
    return expired;
  }

  fail(error: EtcdError): void {
    for (const read of this.fresh.splice(0)) this.leave(read).failed(error);
    for (const reads of this.rounds.values()) for (const read of reads) this.leave(read).failed(error);
    this.rounds.clear();
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
