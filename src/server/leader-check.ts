// Whether this member still leads, before it does to leases what only the leader may (etcd#15247): a process that stood still for a
// while may find itself leader of a term that is over. As long as its ticks come, check-quorum would have told it; once they did not,
// a linearizable read has to be answered first. In etcd one read is asked for a call, and a tick that comes behind the gap ends the
// doubt; here the gap is remembered until a read has ended it.

import { leaderCheckTicks } from '../cluster-limits.ts';
import { hexId } from '../membership/cluster.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import type { MemberParts } from './member-parts.ts';
import type { ReadWaiter } from './read-queue.ts';

const CALLER = 'server/leader-check.ts';

export class LeaderCheck {
  private readonly parts: MemberParts;
  private readonly read: (waiter: ReadWaiter) => void;
  private readonly gapMs: number;
  private lastTickMs: number;
  private isDoubtful = false;
  /** They share the read that is under way. */
  private waiting: ((leads: boolean) => void)[] = [];

  constructor(parts: MemberParts, read: (waiter: ReadWaiter) => void) {
    this.parts = parts;
    this.read = read;
    this.gapMs = (leaderCheckTicks * parts.electionMs) / parts.electionTicks;
    this.lastTickMs = parts.nowMs();
  }

  /** Once a raft tick. */
  tick(nowMs: number): void {
    if (nowMs - this.lastTickMs >= this.gapMs && this.parts.raft.isLeader) this.isDoubtful = true;
    this.lastTickMs = nowMs;
  }

  /** Whoever is elected now, or not, is so by votes of now. */
  leaderChanged(): void {
    this.isDoubtful = false;
  }

  /** For a leader: `then` hears, at once where that is certain, whether it is one still. */
  ensure(then: (leads: boolean) => void): void {
    const { raft, nowMs } = this.parts;
    const isActive = !this.isDoubtful && nowMs() - this.lastTickMs < this.gapMs;
    if (isActive) {
      then(raft.isLeader);
      return;
    }
    this.waiting.push(then);
    if (this.waiting.length > 1) return;
    this.read({ ready: () => this.settle(null), failed: (error) => this.settle(error) });
  }

  private settle(error: EtcdError | null): void {
    const { raft, id, logger } = this.parts;
    if (error !== null) {
      logger.warn(CALLER, "Failed to check current member's leadership", { error: error.message });
    } else if (!raft.isLeader) {
      const fields = { 'local-member-id': hexId(id), 'new-lead': hexId(raft.lead) };
      logger.warn(CALLER, "Current member isn't a leader", fields);
    }
    const leads = error === null && raft.isLeader;
    if (leads) this.isDoubtful = false;
    const { waiting } = this;
    this.waiting = [];
    for (const then of waiting) then(leads);
  }
}
