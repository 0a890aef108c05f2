// What a message does, whatever the role: the terms first (Raft 5.1), then votes, then the step of the role.

import { hex } from './describe.ts';
import { answerVote, inLease, voteRequestLine } from './election.ts';
import { messageTypeName } from './message-type-name.ts';
import type { Raft } from './raft.ts';
import { stepCandidate, stepFollower } from './step-follower.ts';
import { stepLeader } from './step-leader.ts';
import { type Message, MessageType, NONE, newMessage, RaftState } from './types.ts';

export function step(raft: Raft, message: Message): void {
  if (message.term > raft.term) {
    if (!takeHigherTerm(raft, message)) return;
  } else if (message.term < raft.term && message.term !== 0) {
    answerLowerTerm(raft, message);
    return;
  }
  if (message.type === MessageType.vote || message.type === MessageType.preVote) {
    answerVote(raft, message);
  } else if (raft.state === RaftState.leader) {
    stepLeader(raft, message);
  } else if (raft.state === RaftState.follower) {
    stepFollower(raft, message);
  } else {
    stepCandidate(raft, message);
  }
}

/** False when the message is to be ignored. */
function takeHigherTerm(raft: Raft, message: Message): boolean {
  const { type } = message;
  if ((type === MessageType.vote || type === MessageType.preVote) && inLease(raft, message)) {
    const remaining = `remaining ticks: ${raft.config.electionTick - raft.electionElapsed}`;
    raft.logger.info(`${voteRequestLine(raft, message, 'ignored')}: lease is not expired (${remaining})`);
    return false;
  }
  // A pre-vote asks for a term that nobody has yet, and its grant answers with that term.
  if (type === MessageType.preVote || (type === MessageType.preVoteResp && !message.reject)) return true;
  tellOtherTerm(raft, message, 'received', 'higher');
  const isLeaders = type === MessageType.app || type === MessageType.heartbeat || type === MessageType.snap;
  raft.becomeFollower(message.term, isLeaders ? message.from : NONE);
  return true;
}

function answerLowerTerm(raft: Raft, message: Message): void {
  const { type } = message;
  if (
    (type === MessageType.heartbeat || type === MessageType.app) &&
    (raft.config.checkQuorum || raft.config.preVote)
  ) {
    // A deposed leader, or one that we left behind by campaigning while we were cut off. With leases nobody would
    // listen to our vote requests, so that this answer is what frees us: its term makes the leader step down and start
    // anew.
    raft.send(newMessage(MessageType.appResp, message.from));
  } else if (type === MessageType.preVote) {
    // Silence could leave members of mixed versions without a leader for ever.
    raft.logger.info(voteRequestLine(raft, message, 'rejected'));
    const response = newMessage(MessageType.preVoteResp, message.from);
    response.term = raft.term;
    response.reject = true;
    raft.send(response);
  } else {
    tellOtherTerm(raft, message, 'ignored', 'lower');
  }
}

function tellOtherTerm(raft: Raft, message: Message, event: string, than: 'higher' | 'lower'): void {
  const text = `${event} a ${messageTypeName(message.type)} message with ${than} term from ${hex(message.from)}`;
  raft.logger.info(`${hex(raft.id)} [term: ${raft.term}] ${text} [term: ${message.term}]`);
}
