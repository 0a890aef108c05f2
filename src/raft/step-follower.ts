// What followers and candidates do with a message of their own term: appends, heartbeats, snapshots of the leader;
// requests to pass on; votes to count. Raft 5.3 and 7.

import { assert } from '../base/assert.ts';
import { restoreConfiguration } from './conf-change.ts';
import { ReadOnlyOption } from './config.ts';
import { describeConfState, hex } from './describe.ts';
import { countVote, tryCampaign } from './election.ts';
import { tellNotForwarded } from './propose.ts';
import type { Raft } from './raft.ts';
import { type Message, MessageType, NONE, newMessage, RaftState, type Snapshot } from './types.ts';

export function stepFollower(raft: Raft, message: Message): void {
  switch (message.type) {
    case MessageType.app:
    case MessageType.heartbeat:
    case MessageType.snap:
      raft.electionElapsed = 0;
      raft.lead = message.from;
      handleLeader(raft, message);
      break;
    case MessageType.prop:
      if (raft.lead === NONE) raft.tellNoLeader('proposal');
      else if (raft.config.disableProposalForwarding) tellNotForwarded(raft);
      else raft.forward(message);
      break;
    case MessageType.readIndex:
    case MessageType.transferLeader:
      if (raft.lead !== NONE) raft.forward(message);
      else raft.tellNoLeader(message.type === MessageType.readIndex ? 'index reading msg' : 'leader transfer msg');
      break;
    case MessageType.readIndexResp:
      if (message.entries.length === 1) {
        raft.readStates.push({ index: message.index, context: message.entries[0]!.data });
      }
      break;
    case MessageType.timeoutNow:
      raft.logger.info(
        `${hex(raft.id)} [term ${raft.term}] received MsgTimeoutNow from ${hex(message.from)} and starts an election to get leadership.`,
      );
      // No pre-vote: the leader itself asks, so nobody's lease is in the way.
      tryCampaign(raft, 'transfer');
      break;
    case MessageType.forgetLeader:
      forgetLeader(raft);
      break;
    default:
  }
}

/** Also for pre-candidates. Another leader of the same term ends the campaign. */
export function stepCandidate(raft: Raft, message: Message): void {
  switch (message.type) {
    case MessageType.app:
    case MessageType.heartbeat:
    case MessageType.snap:
      raft.becomeFollower(message.term, message.from);
      handleLeader(raft, message);
      break;
    case MessageType.voteResp:
      // In a campaign a late answer to the pre-vote does not count, nor the other way round.
      if (raft.state === RaftState.candidate) countVote(raft, message.from, !message.reject);
      break;
    case MessageType.preVoteResp:
      if (raft.state === RaftState.preCandidate) countVote(raft, message.from, !message.reject);
      break;
    default:
  }
}

/** Not with lease-based reads: the vote that it makes possible could elect a leader within the old one's lease. */
export function forgetLeader(raft: Raft): void {
  if (raft.state !== RaftState.follower || raft.config.readOnlyOption === ReadOnlyOption.leaseBased) return;
  if (raft.lead === NONE) return;
  raft.logger.info(`${hex(raft.id)} forgetting leader ${hex(raft.lead)} at term ${raft.term}`);
  raft.lead = NONE;
}

function handleLeader(raft: Raft, message: Message): void {
  if (message.type === MessageType.app) handleAppend(raft, message);
  else if (message.type === MessageType.heartbeat) handleHeartbeat(raft, message);
  else handleSnapshot(raft, message);
}

function handleAppend(raft: Raft, message: Message): void {
  const response = newMessage(MessageType.appResp, message.from);
  if (message.index < raft.log.committed) {
    // Old news: everything up to commit agrees with every leader to come.
    response.index = raft.log.committed;
    raft.send(response);
    return;
  }
  const lastNew = raft.log.maybeAppend(message.index, message.logTerm, message.entries, message.commit);
  if (lastNew >= 0) {
    response.index = lastNew;
    raft.send(response);
    return;
  }
  // The logs do not agree at message.index. The leader's entries before it have terms of at most logTerm: the last
  // index with such a term here is the first that can agree, so a diverged tail of higher terms is skipped in one
  // answer.
  const hint = raft.log.findConflictByTerm(Math.min(message.index, raft.log.lastIndex), message.logTerm);
  if (raft.logger.debugEnabled) {
    const ours = Math.max(raft.log.term(message.index), 0);
    const asked = `[logterm: ${message.logTerm}, index: ${message.index}]`;
    raft.logger.debug(
      `${hex(raft.id)} [logterm: ${ours}, index: ${message.index}] rejected MsgApp ${asked} from ${hex(message.from)}`,
    );
  }
  response.index = message.index;
  response.reject = true;
  response.rejectHint = hint.index;
  response.logTerm = hint.term;
  raft.send(response);
}

function handleHeartbeat(raft: Raft, message: Message): void {
  raft.log.commitTo(message.commit);
  const response = newMessage(MessageType.heartbeatResp, message.from);
  response.context = message.context;
  raft.send(response);
}

function handleSnapshot(raft: Raft, message: Message): void {
  const response = newMessage(MessageType.appResp, message.from);
  const restored = message.snapshot !== null && restore(raft, message.snapshot);
  if (message.snapshot !== null) {
    const verdict = `${restored ? 'restored' : 'ignored'} ${snapshotText(message.snapshot)}`;
    raft.logger.info(`${hex(raft.id)} [commit: ${raft.log.committed}] ${verdict}`);
  }
  response.index = restored ? raft.log.lastIndex : raft.log.committed;
  raft.send(response);
}

/** Replaces log and configuration by the snapshot's. False when it brings nothing new or is not for this member. */
function restore(raft: Raft, snapshot: Snapshot): boolean {
  const { index, term, confState } = snapshot.meta;
  if (index <= raft.log.committed) return false;
  assert(raft.state === RaftState.follower, 'only a follower takes a snapshot');
  const isMember =
    confState.voters.includes(raft.id) ||
    confState.learners.includes(raft.id) ||
    confState.votersOutgoing.includes(raft.id);
  if (!isMember) {
    raft.logger.warn(
      `${hex(raft.id)} attempted to restore snapshot but it is not in the ConfState ${describeConfState(confState)}; should never happen`,
    );
    return false;
  }
  if (raft.log.matchTerm(index, term)) {
    // The log holds that entry: all before it agrees and is committed. No need to throw the log away.
    raft.logger.info(`${hex(raft.id)} ${logText(raft)} fast-forwarded commit to ${snapshotText(snapshot)}`);
    raft.log.commitTo(index);
    return false;
  }
  const configuration = restoreConfiguration(confState);
  if (!configuration.ok) {
    raft.logger.warn(`${hex(raft.id)} ignored a snapshot whose configuration is impossible: ${configuration.error}`);
    return false;
  }
  raft.log.restore(snapshot);
  raft.takeSnapshotConfiguration(index, configuration.configuration);
  raft.logger.info(`${hex(raft.id)} ${logText(raft)} restored ${snapshotText(snapshot)}`);
  return true;
}

function logText({ log }: Raft): string {
  return `[commit: ${log.committed}, lastindex: ${log.lastIndex}, lastterm: ${log.lastTerm}]`;
}

function snapshotText({ meta }: Snapshot): string {
  return `snapshot [index: ${meta.index}, term: ${meta.term}]`;
}
