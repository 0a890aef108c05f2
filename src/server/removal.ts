// This member's own removal from the cluster. Whoever does not know yet that it is committed still counts this member's vote, and may be
// unable to elect a leader without it: of two voters the one that stays always, of four two that are left while the third is down. An
// etcd ends a second after it has applied the change, whether anybody knows or not. Here:
//
//   - A leader in whose log it is hands leadership over at once. What is proposed meanwhile waits for the next leader, so that nothing
//     follows the change in this log: with more than the others have, it could not vote for them.
//   - A member that has heard of it from a leader ends after removedStayMs, or when a peer refuses it. The leader tells the others.
//   - One that has not (it led until then, or has just started) stays until a quorum of the voters has refused it: whoever does so has
//     applied the change. Until then it votes and takes appends as a follower, whatever the clock says.

import { removedStayMs } from '../cluster-limits.ts';
import { hexId } from '../membership/cluster.ts';
import { quorumOf } from '../membership/readiness.ts';
import { decode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import { ConfChangeType, type Entry, EntryType, NONE, type NodeId } from '../raft/types.ts';
import type { Leadership } from './leadership.ts';
import type { MemberParts } from './member-parts.ts';

const CALLER = 'server/removal.ts';

/** The change is applied here. */
interface Applied {
  readonly sinceMs: number;
  /** Of whom a quorum has to know; null: the leader sees to it. */
  readonly voters: readonly NodeId[] | null;
}

export class Removal {
  private readonly parts: MemberParts;
  private readonly leadership: Leadership;
  /** What look() has seen: of which term, and up to where there may be a change of the membership. */
  private lookedTerm = 0;
  private lookedIndex = 0;
  /** The entry that removes this member, while it leads; 0: there is none. */
  private index = 0;
  private applied: Applied | null = null;
  /** The voters that have refused this member since. */
  private readonly informed = new Set<NodeId>();
  private hasWarned = false;
  private isOver = false;

  constructor(parts: MemberParts, leadership: Leadership) {
    this.parts = parts;
    this.leadership = leadership;
  }

  /**
   * Whether nothing may be proposed here any more: this member leads, and its own removal is in its log. To be asked before raft gets
   * proposals. Hot: a few comparisons, but for the first time behind a change.
   */
  isLeaving(): boolean {
    this.look();
    const { raft } = this.parts;
    return this.index > raft.appliedIndex && raft.isLeader;
  }

  private look(): void {
    const { raft, id } = this.parts;
    if (raft.pendingConfIndex === this.lookedIndex && raft.term === this.lookedTerm) return;
    this.lookedIndex = raft.pendingConfIndex;
    this.lookedTerm = raft.term;
    const entry = raft.pendingConfIndex > raft.appliedIndex ? raft.unappliedConfChange() : null;
    this.index = entry !== null && removes(entry, id) ? entry.index : 0;
    if (this.index > 0) this.leadership.giveAway();
  }

  /** To be called before what is committed is applied: with this, raft steps down. */
  beforeApply(): void {
    const { raft } = this.parts;
    if (this.index > raft.appliedIndex && this.index <= raft.committedIndex) this.leadership.giveToCaughtUp();
  }

  /** The state machine has applied it. Raft has stepped down already. */
  noteApplied(): void {
    const { raft, nowMs } = this.parts;
    this.applied = { sinceMs: nowMs(), voters: raft.lead === NONE ? raft.status().confState.voters : null };
  }

  /** A peer says that this member was removed. */
  refused(reason: string, by: NodeId): void {
    const voters = this.applied?.voters ?? null;
    if (voters !== null) {
      if (voters.includes(by)) this.informed.add(by);
      if (this.informed.size < quorumOf(voters.length)) return;
    }
    this.end(reason);
  }

  /** Once a raft tick. */
  tick(nowMs: number): void {
    // Raft gives up a transfer after an election timeout.
    if (this.isLeaving()) this.leadership.giveAway();
    if (this.applied === null || this.applied.sinceMs >= nowMs - removedStayMs) return;
    const { voters } = this.applied;
    if (voters === null) this.end('the member has been permanently removed from the cluster');
    else if (!this.hasWarned) {
      this.hasWarned = true;
      this.warn(
        'this member was removed, and stays until a quorum of the voters knows: they may need its vote',
        voters,
      );
    }
  }

  /** The process ends in any case. */
  stop(): void {
    const voters = this.applied?.voters ?? null;
    if (voters !== null && !this.isOver) {
      this.warn('this removed member ends before a quorum of the voters knows: they may not get a leader', voters);
    }
    this.isOver = true;
  }

  private warn(message: string, voters: readonly NodeId[]): void {
    const { logger, id } = this.parts;
    const others = voters.filter((voter) => !this.informed.has(voter)).map(hexId);
    logger.warn(CALLER, message, { 'local-member-id': hexId(id), 'voters-that-do-not-know': others });
  }

  private end(reason: string): void {
    if (this.isOver) return;
    this.isOver = true;
    this.parts.onRemoved(reason);
  }
}

function removes({ type, data }: Entry, id: NodeId): boolean {
  const change = type === EntryType.confChange ? decode(ConfChange, data) : undefined;
  return change?.type === ConfChangeType.removeNode && change.nodeId === id;
}
