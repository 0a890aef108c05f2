// Whether the voters would still have a quorum of started members after a change, as etcd counts them (RaftCluster.IsReadyTo...): a
// member is started once it has published its name. Not whether they are connected: that is the server's to ask of its peers.

import type { Member } from './cluster.ts';

export interface Readiness {
  readonly isReady: boolean;
  readonly startedCount: number;
  readonly quorum: number;
}

export function quorumOf(voterCount: number): number {
  return Math.floor(voterCount / 2) + 1;
}

/** The added one counts as a voter that is not started. */
export function readinessToAddVoter(voters: readonly Member[]): Readiness {
  const readiness = readinessOf(startedIn(voters), voters.length + 1);
  // A cluster of one must be able to grow.
  return voters.length === 1 && readiness.startedCount === 1 ? { ...readiness, isReady: true } : readiness;
}

export function readinessToRemoveVoter(voters: readonly Member[], id: bigint): Readiness {
  const left = voters.filter((voter) => voter.id !== id);
  return readinessOf(startedIn(left), left.length);
}

/** The learner is started: it has caught up. */
export function readinessToPromote(voters: readonly Member[]): Readiness {
  return readinessOf(startedIn(voters) + 1, voters.length + 1);
}

function startedIn(members: readonly Member[]): number {
  return members.filter(({ name }) => name !== '').length;
}

function readinessOf(startedCount: number, voterCount: number): Readiness {
  const quorum = quorumOf(voterCount);
  return { isReady: startedCount >= quorum, startedCount, quorum };
}
