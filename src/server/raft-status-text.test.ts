// Goal: /debug/vars shows raft's status as etcd does. Method: a status of each role; the text, as etcd-io/raft's MarshalJSON writes it.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { Status } from '../raft/raw-node.ts';
import { raftStatusJson } from './raft-status-text.ts';

const follower: Status = {
  id: 0xab12n,
  term: 4,
  vote: 0xffffffffffffffffn,
  commit: 9,
  lead: 0n,
  state: 3,
  applied: 8,
  lastIndex: 10,
  leadTransferee: 0n,
  confState: { voters: [0xab12n], learners: [], votersOutgoing: [], learnersNext: [], autoLeave: false },
  progress: [],
};

it('raft.status of a member that does not lead', () => {
  const text =
    '{"id":"ab12","term":4,"vote":"ffffffffffffffff","commit":9,"lead":"0","raftState":"StatePreCandidate",' +
    '"applied":8,"progress":{},"leadtransferee":"0"}';
  assert.equal(raftStatusJson(follower), text);
});

it('raft.status of a leader names how far each member is', () => {
  const one = {
    id: 0xcdn,
    match: 7,
    next: 8,
    state: 2,
    isLearner: true,
    recentActive: true,
    paused: false,
    pendingSnapshot: 6,
    inflightCount: 0,
    inflightFull: false,
  } as const;
  const { raftState, progress, leadtransferee } = JSON.parse(
    raftStatusJson({ ...follower, state: 2, leadTransferee: 0xcdn, progress: [one] }),
  ) as Record<string, unknown>;
  assert.deepEqual(
    { raftState, progress, leadtransferee },
    {
      raftState: 'StateLeader',
      progress: { cd: { match: 7, next: 8, state: 'StateSnapshot' } },
      leadtransferee: 'cd',
    },
  );
});
