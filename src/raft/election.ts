// How a member comes to lead: campaigns, the counting of votes, the answers to those who ask. Raft 5.2 and 5.4.1, with
// pre-vote (thesis 9.6), the leader's lease of check-quorum (thesis 6.2) and campaigns by transfer (thesis 3.10).
//
//   follower ──tick──► pre-candidate ──majority would──► candidate ──majority did──► leader
//      ▲                     │                               │
//      └──── leader heard, lost, or a higher term ───────────┘

import { assert } from '../base/assert.ts';
import { hex } from './describe.ts';
import { messageTypeName } from './message-type-name.ts';
import { VoteResult } from './quorum.ts';
import type { Raft } from './raft.ts';
import { type Entry, EntryType, type Message, MessageType, NONE, type NodeId, newMessage, RaftState } from './types.ts';

export type Campaign = 'pre-election' | 'election' | 'transfer';

/** The context of a vote request after a transfer, as etcd-io/raft's members send and expect it. */
const TRANSFER_CONTEXT: Buffer = Buffer.from('CampaignTransfer');

/** Campaigns, if this member may. */
export function tryCampaign(raft: Raft, kind: Campaign): void {
  if (raft.state === RaftState.leader) return;
  if (!raft.isPromotable) {
    raft.logger.warn(`${hex(raft.id)} is unpromotable and can not campaign`);
    return;
  }
  // One that is committed here and not applied: its quorum is not known to this member yet.
  if (unappliedConfChange(raft, raft.log.committed) !== null) {
    raft.logger.warn(
      `${hex(raft.id)} cannot campaign at term ${raft.term} since there are still pending configuration changes to apply`,
    );
    return;
  }
  raft.logger.info(`${hex(raft.id)} is starting a new election at term ${raft.term}`);
  campaign(raft, kind);
}

function campaign(raft: Raft, kind: Campaign): void {
  const isPre = kind === 'pre-election';
  if (isPre) raft.becomePreCandidate();
  else raft.becomeCandidate();
  // A pre-vote asks for the term to come.
  const term = isPre ? raft.term + 1 : raft.term;
  const last = `[logterm: ${raft.log.lastTerm}, index: ${raft.log.lastIndex}]`;
  for (const id of raft.tracker.voterIds()) {
    if (id === raft.id) continue;
    const request = newMessage(isPre ? MessageType.preVote : MessageType.vote, id);
    const name = messageTypeName(request.type);
    raft.logger.info(`${hex(raft.id)} ${last} sent ${name} request to ${hex(id)} at term ${raft.term}`);
    request.term = term;
    request.index = raft.log.lastIndex;
    request.logTerm = raft.log.lastTerm;
    if (kind === 'transfer') request.context = TRANSFER_CONTEXT;
    raft.send(request);
  }
  // Its own pre-vote promises nothing and counts at once; its own vote counts when it is durable (RawNode.persisted).
  if (isPre) countVote(raft, raft.id, true);
}

/** A vote or pre-vote of this campaign came in. */
export function countVote(raft: Raft, from: NodeId, granted: boolean): void {
  const isPre = raft.state === RaftState.preCandidate;
  const answer = messageTypeName(isPre ? MessageType.preVoteResp : MessageType.voteResp);
  const received = `received ${answer}${granted ? '' : ' rejection'}`;
  raft.logger.info(`${hex(raft.id)} ${received} from ${hex(from)} at term ${raft.term}`);
  raft.tracker.recordVote(from, granted);
  const granting = `${raft.tracker.countVotes(true)} ${answer} votes`;
  raft.logger.info(`${hex(raft.id)} has received ${granting} and ${raft.tracker.countVotes(false)} vote rejections`);
  const result = raft.tracker.electionResult();
  if (result === VoteResult.won) {
    if (isPre) campaign(raft, 'election');
    else raft.becomeLeader();
  } else if (result === VoteResult.lost) {
    raft.becomeFollower(raft.term, NONE);
  }
}

/** True when the request must be ignored: the leader was heard within an election timeout, and this is no transfer. */
export function inLease(raft: Raft, message: Message): boolean {
  if (!raft.config.checkQuorum || raft.lead === NONE || raft.electionElapsed >= raft.config.electionTick) return false;
  return !message.context.equals(TRANSFER_CONTEXT);
}

export function voteRequestLine(raft: Raft, message: Message, verdict: 'cast' | 'rejected' | 'ignored'): string {
  const here = `[logterm: ${raft.log.lastTerm}, index: ${raft.log.lastIndex}, vote: ${hex(raft.vote)}]`;
  const there = `[logterm: ${message.logTerm}, index: ${message.index}]`;
  const asker = `${verdict === 'cast' ? 'for' : 'from'} ${hex(message.from)}`;
  return `${hex(raft.id)} ${here} ${verdict} ${messageTypeName(message.type)} ${asker} ${there} at term ${raft.term}`;
}

/** Answers a request for a vote or pre-vote. */
export function answerVote(raft: Raft, message: Message): void {
  const isPre = message.type === MessageType.preVote;
  const canVote =
    // The same vote again,
    raft.vote === message.from ||
    // the first of this term, with no leader known in it,
    (raft.vote === NONE && raft.lead === NONE) ||
    // or a pre-vote for a later term: it binds to nothing.
    (isPre && message.term > raft.term);
  // Learners vote too: one may be a voter already and not know it yet; the candidate knows better or can't win.
  const granted = canVote && raft.log.isUpToDate(message.index, message.logTerm);
  raft.logger.info(voteRequestLine(raft, message, granted ? 'cast' : 'rejected'));
  const response = newMessage(isPre ? MessageType.preVoteResp : MessageType.voteResp, message.from);
  // A grant carries the term that was asked for, which in a pre-vote is not ours; else the asker would take it for old.
  response.term = granted ? message.term : raft.term;
  response.reject = !granted;
  raft.send(response);
  if (granted && !isPre) {
    raft.electionElapsed = 0;
    raft.vote = message.from;
  }
}

/** The first configuration change of the log up to `last` that is not applied; null when there is none. */
export function unappliedConfChange(raft: Raft, last: number): Entry | null {
  // Entries before firstIndex are part of a snapshot, whose configuration is in force already.
  let lo = Math.max(raft.log.applied + 1, raft.log.firstIndex);
  while (lo <= last) {
    const entries = raft.log.slice(lo, last + 1, raft.config.maxCommittedSizePerReady);
    assert(entries !== null && entries.length > 0, 'unapplied entries must be there');
    for (const entry of entries) if (entry.type !== EntryType.normal) return entry;
    lo += entries.length;
  }
  return null;
}
