// raft.status of /debug/vars, in the JSON of etcd-io/raft's Status: ids are hexadecimal, states are Go's names.

import { progressStateName } from '../raft/describe.ts';
import type { Status } from '../raft/raw-node.ts';
import { RaftState } from '../raft/types.ts';

const stateNames: Readonly<Record<RaftState, string>> = {
  [RaftState.follower]: 'StateFollower',
  [RaftState.candidate]: 'StateCandidate',
  [RaftState.leader]: 'StateLeader',
  [RaftState.preCandidate]: 'StatePreCandidate',
};

export function raftStatusJson(status: Status): string {
  const { id, term, vote, commit, lead, state, applied, leadTransferee } = status;
  const progress = Object.fromEntries(
    status.progress.map((one) => [
      one.id.toString(16),
      { match: one.match, next: one.next, state: progressStateName(one.state) },
    ]),
  );
  return JSON.stringify({
    id: id.toString(16),
    term,
    vote: vote.toString(16),
    commit,
    lead: lead.toString(16),
    raftState: stateNames[state],
    applied,
    progress,
    leadtransferee: leadTransferee.toString(16),
  });
}
