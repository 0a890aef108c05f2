// Linearizable reads on their way: those of a turn share one ReadIndex round; a confirmed round waits until the state machine has
// applied its index. Without a leader they wait for the next one.
//
//   new ──startRound──> in a round ──confirm──> confirmed ──answer (applied >= index)──> ready()
//                            └── the leader changed ──restart──> new, with a context of its own (etcd#20418)

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
}

const NO_READS: readonly WaitingRead[] = [];

export class ReadQueue {
  private readonly raft: RawNode;
  private fresh: WaitingRead[] = [];
  /** By the context of their round. */
  private readonly rounds = new Map<number, readonly WaitingRead[]>();
  private round = 0;
  /** By ascending index. */
  private readonly confirmed: { readonly index: number; readonly reads: readonly WaitingRead[] }[] = [];

  constructor(raft: RawNode) {
    this.raft = raft;
  }

  get hasNew(): boolean {
    return this.fresh.length > 0;
  }

  add(waiter: ReadWaiter, nowMs: number): void {
    this.fresh.push({ waiter, sinceMs: nowMs });
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
      for (const { waiter } of this.confirmed.shift()!.reads) waiter.ready();
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
      for (const { waiter } of reads) waiter.failed(etcdErrors.timeout);
      expired += reads.length;
    }
    while (this.fresh.length > 0 && this.fresh[0]!.sinceMs < beforeMs) {
      this.fresh.shift()!.waiter.failed(etcdErrors.timeout);
      expired++;
    }
    return expired;
  }

  fail(error: EtcdError): void {
    for (const { waiter } of this.fresh.splice(0)) waiter.failed(error);
    for (const reads of this.rounds.values()) for (const { waiter } of reads) waiter.failed(error);
    this.rounds.clear();
    for (const { reads } of this.confirmed.splice(0)) for (const { waiter } of reads) waiter.failed(error);
  }
}
