// Majorities: what a set of voters has agreed on. Pure arithmetic on plain numbers, for one majority and for the joint
// configuration of two (Raft thesis 4.3), where both must agree. The callers map voters to numbers.
//
// An empty half of a joint configuration agrees to everything (index Infinity, election won), so that the other
// decides.

/** The outcome of an election so far. */
export const VoteResult = { pending: 0, lost: 1, won: 2 } as const;
export type VoteResult = (typeof VoteResult)[keyof typeof VoteResult];

/**
 * The largest index that a majority of the voters has reached. `acked` has one index a voter and is sorted in place.
 * Example: 5 voters at [3, 9, 4, 7, 7] → sorted [3, 4, 7, 7, 9], three of them are at 7 or beyond → 7.
 */
export function majorityIndex(acked: number[]): number {
  const n = acked.length;
  if (n === 0) return Number.POSITIVE_INFINITY;
  // Insertion sort: voters are few, and nothing is allocated.
  for (let i = 1; i < n; i++) {
    const value = acked[i]!;
    let j = i - 1;
    for (; j >= 0 && acked[j]! > value; j--) acked[j + 1] = acked[j]!;
    acked[j + 1] = value;
  }
  return acked[n - majoritySize(n)]!;
}

export function majoritySize(voters: number): number {
  return Math.floor(voters / 2) + 1;
}

/** The outcome among `voters` of whom `granted` said yes and `rejected` no. */
export function majorityVote(voters: number, granted: number, rejected: number): VoteResult {
  if (voters === 0) return VoteResult.won;
  const needed = majoritySize(voters);
  if (granted >= needed) return VoteResult.won;
  return voters - rejected >= needed ? VoteResult.pending : VoteResult.lost;
}

/** Both halves must win; one lost half decides. */
export function jointVote(incoming: VoteResult, outgoing: VoteResult): VoteResult {
  if (incoming === outgoing) return incoming;
  if (incoming === VoteResult.lost || outgoing === VoteResult.lost) return VoteResult.lost;
  return VoteResult.pending;
}
