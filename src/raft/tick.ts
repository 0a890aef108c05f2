// What time does: followers and candidates campaign, leaders send heartbeats and check that a majority still answers.

import { hex } from './describe.ts';
import { tryCampaign } from './election.ts';
import type { Raft } from './raft.ts';
import { NONE, RaftState } from './types.ts';

export function tick(raft: Raft): void {
  raft.electionElapsed++;
  if (raft.state === RaftState.leader) tickLeader(raft);
  else tickElection(raft);
}

function tickElection(raft: Raft): void {
  if (!raft.isPromotable || raft.electionElapsed < raft.randomizedElectionTimeout) return;
  raft.electionElapsed = 0;
  tryCampaign(raft, raft.config.preVote ? 'pre-election' : 'election');
}

function tickLeader(raft: Raft): void {
  raft.heartbeatElapsed++;
  if (raft.electionElapsed >= raft.config.electionTick) {
    raft.electionElapsed = 0;
    if (raft.config.checkQuorum) checkQuorum(raft);
    // A transfer that takes longer has failed: proposals go on here.
    raft.leadTransferee = NONE;
  }
  if (raft.state === RaftState.leader && raft.heartbeatElapsed >= raft.config.heartbeatTick) {
    raft.heartbeatElapsed = 0;
    raft.broadcastHeartbeat();
  }
}

function checkQuorum(raft: Raft): void {
  if (!raft.tracker.quorumActive()) {
    raft.logger.warn(`${hex(raft.id)} stepped down to follower since quorum is not active`);
    raft.becomeFollower(raft.term, NONE);
    return;
  }
  for (const peer of raft.tracker.peers) peer.recentActive = false;
}
