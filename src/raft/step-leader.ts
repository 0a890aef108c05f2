// What a leader does with a message of its term: answers of followers move their progress and the commit index,
// requests of others become entries or reads. Raft 5.3, thesis 3.10 (transfer) and 6.4 (reads).

import { raftReadsPendingMax } from '../limits.ts';
import { hex } from './describe.ts';
import { type Progress, ProgressState } from './progress.ts';
import { proposeForwarded } from './propose.ts';
import type { Raft } from './raft.ts';
import { type Message, MessageType, NONE } from './types.ts';

export function stepLeader(raft: Raft, message: Message): void {
  switch (message.type) {
    case MessageType.prop:
      proposeForwarded(raft, message);
      return;
    case MessageType.readIndex:
      handleRead(raft, message);
      return;
    default:
  }
  const peer = raft.tracker.get(message.from);
  if (peer === undefined) return;
  if (message.type === MessageType.transferLeader) {
    transferLeader(raft, peer);
    return;
  }
  if (peer.id === raft.id) return;
  switch (message.type) {
    case MessageType.appResp:
      peer.recentActive = true;
      if (message.reject) handleRejection(raft, message, peer);
      else handleAcceptance(raft, message, peer);
      break;
    case MessageType.heartbeatResp:
      handleHeartbeatResponse(raft, message, peer);
      break;
    default:
  }
}

/** False when the read is not taken: too many wait. */
export function handleRead(raft: Raft, message: Message): boolean {
  if (message.entries.length !== 1) return false;
  // Until it has committed in its term a leader does not know what is committed. (etcd-io/raft lets a single voter
  // answer at once: after a restart its commit index may be behind entries that were acknowledged, and the read would
  // be stale.)
  if (!raft.hasCommittedInTerm) {
    if (raft.pendingReads.length >= raftReadsPendingMax) return false;
    raft.pendingReads.push(message);
    return true;
  }
  return raft.startRead(message);
}

function handleRejection(raft: Raft, message: Message, peer: Progress): void {
  if (raft.logger.debugEnabled) {
    const hinted = `hint: (index ${message.rejectHint}, term ${message.logTerm})`;
    raft.logger.debug(
      `${hex(raft.id)} received MsgAppResp(rejected, ${hinted}) from ${hex(peer.id)} for index ${message.index}`,
    );
  }
  // The follower's log has term logTerm at rejectHint. Where ours has a higher term at or before that index, the logs
  // can't agree, as terms only rise along a log: the probe goes to the last index where ours does not exceed it.
  const hint =
    message.logTerm > 0 ? raft.log.findConflictByTerm(message.rejectHint, message.logTerm).index : message.rejectHint;
  if (!peer.maybeDecrease(message.index, hint)) return;
  raft.tellProgress('decreased progress of', peer, ' to');
  if (peer.state === ProgressState.replicate) peer.becomeProbe();
  raft.maybeSendAppend(peer, true);
}

function handleAcceptance(raft: Raft, message: Message, peer: Progress): void {
  // An old index still matters to a probing peer: it answers, so that its log can be streamed again.
  const isProbeAnswer = peer.state === ProgressState.probe && peer.match === message.index;
  if (!peer.maybeUpdate(message.index) && !isProbeAnswer) return;
  if (peer.state === ProgressState.probe) {
    peer.becomeReplicate();
  } else if (peer.state === ProgressState.snapshot) {
    // Whatever snapshot it installed: if the log goes on from there, appends can follow.
    if (peer.match + 1 >= raft.log.firstIndex) {
      raft.tellProgress('recovered from needing snapshot, resumed sending replication messages to', peer);
      peer.becomeProbe();
      peer.becomeReplicate();
    }
  } else {
    peer.inflights.freeTo(message.index);
  }
  raft.maybeCommit();
  // The window has room again, or the peer's new entries may be committed: sent with the Ready.
  if (peer.next <= raft.log.lastIndex || peer.canBumpCommit(raft.log.committed)) raft.broadcastAppend();
  if (peer.id === raft.leadTransferee && peer.match === raft.log.lastIndex) {
    raft.logger.info(`${hex(raft.id)} sent MsgTimeoutNow to ${hex(peer.id)} after received MsgAppResp`);
    raft.sendTimeoutNow(peer.id);
  }
}

function handleHeartbeatResponse(raft: Raft, message: Message, peer: Progress): void {
  peer.recentActive = true;
  peer.paused = false;
  // Lost appends show here; and a probing peer needs an answer to be streamed to again, even if it misses nothing.
  if (peer.match < raft.log.lastIndex || peer.state === ProgressState.probe) raft.maybeSendAppend(peer, true);
  if (message.context.length === 0) return;
  raft.readOnly.acknowledge(message.from, message.context);
  raft.answerConfirmedReads();
}

/** A transfer to the leader itself only ends the one that is going on. */
export function transferLeader(raft: Raft, peer: Progress): void {
  if (peer.isLearner) return;
  const here = `${hex(raft.id)} [term ${raft.term}]`;
  const to = hex(peer.id);
  if (peer.id === raft.leadTransferee) {
    raft.logger.info(`${here} transfer leadership to ${to} is in progress, ignores request to same node ${to}`);
    return;
  }
  if (raft.leadTransferee !== NONE) {
    raft.logger.info(`${here} abort previous transferring leadership to ${hex(raft.leadTransferee)}`);
    raft.leadTransferee = NONE;
  }
  if (peer.id === raft.id) return;
  raft.logger.info(`${here} starts to transfer leadership to ${to}`);
  // It must be done within an election timeout.
  raft.electionElapsed = 0;
  raft.leadTransferee = peer.id;
  if (peer.match === raft.log.lastIndex) {
    raft.sendTimeoutNow(peer.id);
    raft.logger.info(`${hex(raft.id)} sends MsgTimeoutNow to ${to} immediately as ${to} already has up-to-date log`);
  } else {
    raft.maybeSendAppend(peer, true);
  }
}

/** The transport could not send to the peer: appends in flight are probably lost. */
export function reportUnreachable(raft: Raft, peer: Progress): void {
  if (peer.state === ProgressState.replicate) peer.becomeProbe();
  raft.tellProgress('failed to send message to', peer, ' because it is unreachable');
}

/** The fate of a snapshot's transfer. Either way the next append waits: for the peer's answer, or for a heartbeat. */
export function reportSnapshot(raft: Raft, peer: Progress, succeeded: boolean): void {
  if (peer.state !== ProgressState.snapshot) return;
  // Failed: probing must not go on after an index that the peer never got.
  if (!succeeded) peer.pendingSnapshot = 0;
  peer.becomeProbe();
  const verdict = succeeded ? 'succeeded' : 'failed';
  raft.tellProgress(`snapshot ${verdict}, resumed sending replication messages to`, peer);
  peer.paused = true;
}
