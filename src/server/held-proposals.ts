// Proposals that followers have sent to this member while nobody could take them: it leads and is about to hand over, or it led a moment
// ago and the next leader is not known yet. Raft drops such messages without a word, and their clients wait for their time-out; here they
// wait for the new leader, to whom this member then passes them on. They are in no log yet, so nothing is done twice. Bounded in bytes and
// in time: what is dropped after all is what raft would have dropped.

import { heldProposalBytesMax } from '../cluster-limits.ts';
import type { RawNode } from '../raft/raw-node.ts';
import { type Message, MessageType, NONE, payloadBytes } from '../raft/types.ts';

export class HeldProposals {
  private readonly raft: RawNode;
  private readonly holdMs: number;
  private readonly isLeaving: () => boolean;
  private messages: Message[] = [];
  private bytes = 0;
  private sinceMs = 0;

  /** `isLeaving`: this member leads, and must not take them whatever raft would do. */
  constructor(raft: RawNode, holdMs: number, isLeaving: () => boolean) {
    this.raft = raft;
    this.holdMs = holdMs;
    this.isLeaving = isLeaving;
  }

  /** Whether it is kept: the caller then has nothing to do with it. */
  takes(message: Message, nowMs: number): boolean {
    if (message.type !== MessageType.prop || this.hasTaker) return false;
    const bytes = payloadBytes(message.entries);
    if (this.bytes + bytes > heldProposalBytesMax) return false;
    if (this.messages.length === 0) this.sinceMs = nowMs;
    this.messages.push(message);
    this.bytes += bytes;
    return true;
  }

  private get hasTaker(): boolean {
    return this.raft.lead !== NONE && this.raft.leadTransferee === NONE && !this.isLeaving();
  }

  /** After a change of the leader, and once a tick. True when raft got them. */
  release(nowMs: number): boolean {
    if (this.messages.length === 0) return false;
    const isTaken = this.hasTaker;
    if (!isTaken && nowMs - this.sinceMs <= this.holdMs) return false;
    const held = this.messages;
    this.messages = [];
    this.bytes = 0;
    if (isTaken) for (const message of held) this.raft.step(message);
    return isTaken;
  }
}
