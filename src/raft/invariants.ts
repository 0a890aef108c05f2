// What must hold for a member between any two inputs. Costly, so run by the scripts and the simulation at every step.

import { assert } from '../base/assert.ts';
import { configurationError } from './conf-change.ts';
import type { Raft } from './raft.ts';
import { NONE, RaftState } from './types.ts';

export function checkInvariants(raft: Raft): void {
  raft.log.checkInvariants();
  raft.tracker.checkInvariants();
  assert(configurationError(raft.tracker.configuration) === null, 'the configuration is impossible');
  assert(raft.term >= raft.log.lastTerm, 'an entry of a term to come');
  assert(raft.randomizedElectionTimeout > 0, 'the election timeout must be set');
  for (const message of raft.messages) assert(message.to !== raft.id && message.to !== NONE, 'a message to nobody');
  if (raft.state === RaftState.leader) checkLeader(raft);
  else checkNonLeader(raft);
}

function checkLeader(raft: Raft): void {
  const self = raft.tracker.self;
  assert(self !== null && !self.isLearner, 'a leader that is no voter');
  assert(raft.lead === raft.id, 'a leader follows itself');
  assert(raft.vote === raft.id, 'a leader voted for itself');
  assert(!raft.log.hasPendingSnapshot, 'a leader with a pending snapshot');
  assert(self.match === raft.log.stableIndex, 'a leader counts exactly what is durable');
  for (const peer of raft.tracker.peers) {
    assert(peer.match <= raft.log.lastIndex, 'a follower holds more than its leader');
    assert(peer.next <= raft.log.lastIndex + 1, 'entries sent that are not there');
  }
}

function checkNonLeader(raft: Raft): void {
  assert(raft.lead !== raft.id, 'only a leader follows itself');
  assert(raft.leadTransferee === NONE, 'a transfer without leading');
  assert(raft.pendingReads.length === 0 && raft.readOnly.count === 0, 'reads wait without a leader');
  if (raft.state === RaftState.candidate) assert(raft.vote === raft.id, 'a candidate votes for itself');
  if (raft.state !== RaftState.follower) assert(raft.lead === NONE, 'a campaign while a leader is known');
}
