// How a member comes to lead: campaigns, the counting of votes, the answers to those who ask. Raft 5.2 and 5.4.1, with
// pre-vote (thesis 9.6), the leader's lease of check-quorum (thesis 6.2) and campaigns by transfer (thesis 3.10).
//
//   follower ──tick──► pre-candidate ──majority would──► candidate ──majority did──► leader
//      ▲                     │                               │
//      └──── leader heard, lost, or a higher term ───────────┘

import { assert } from '../base/assert.ts';
import { hex } from './describe.ts';
import { VoteResult } from './quorum.ts';
import type { Raft } from './raft.ts';
import { EntryType, type Message, MessageType, NONE, type NodeId, newMessage, RaftState } from './types.ts';

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
  if (hasUnappliedConfChange(raft)) {
    raft.logger.warn(
      `${hex(raft.id)} cannot campaign at term ${raft.term}: a committed configuration change is not applied`,
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
  for (const id of raft.tracker.voterIds()) {
    if (id === raft.id) continue;
    const request = newMessage(isPre ? MessageType.preVote : MessageType.vote, id);
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
  raft.tracker.recordVote(from, granted);
  raft.logger.info(
    `${hex(raft.id)} has ${raft.tracker.countVotes(true)} ${isPre ? 'pre-votes' : 'votes'} and ` +
      `${raft.tracker.countVotes(false)} rejections at term ${raft.term}, ${granted ? 'granted' : 'rejected'} by ${hex(from)}`,
  );
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
  raft.logger.info(
    `${hex(raft.id)} [logterm: ${raft.log.lastTerm}, index: ${raft.log.lastIndex}, vote: ${hex(raft.vote)}] ` +
      `${granted ? 'cast' : 'rejected'} ${isPre ? 'pre-vote' : 'vote'} for ${hex(message.from)} ` +
      `[logterm: ${message.logTerm}, index: ${message.index}] at term ${raft.term}`,
  );
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

/** A configuration change is committed here and not applied: its quorum is not known to this member yet. */
function hasUnappliedConfChange(raft: Raft): boolean {
  // Entries before firstIndex are part of a snapshot, whose configuration is in force already.
  let lo = Math.max(raft.log.applied + 1, raft.log.firstIndex);
  while (lo <= raft.log.committed) {
    const entries = raft.log.slice(lo, raft.log.committed + 1, raft.config.maxCommittedSizePerReady);
    assert(entries !== null && entries.length > 0, 'unapplied entries must be there');
    for (const entry of entries) if (entry.type !== EntryType.normal) return true;
    lo += entries.length;
  }
  return false;
}
