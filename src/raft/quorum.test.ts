// Goal: majorities are right for every number of voters. Method: small cases by hand, random ones against a slow oracle
// that counts for every index; joint ones through a Tracker.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { jointVote, majorityIndex, majoritySize, majorityVote, VoteResult } from './quorum.ts';
import { seededRandom } from './simulation.ts';
import { Tracker } from './tracker.ts';

/** The largest index that more than half have reached, by trying all. */
function slowMajorityIndex(acked: readonly number[]): number {
  if (acked.length === 0) return Number.POSITIVE_INFINITY;
  for (let index = Math.max(...acked); index > 0; index--) {
    if (acked.filter((one) => one >= index).length * 2 > acked.length) return index;
  }
  return 0;
}

test('majorityIndex by hand', () => {
  assert.equal(majorityIndex([]), Number.POSITIVE_INFINITY);
  assert.equal(majorityIndex([7]), 7);
  assert.equal(majorityIndex([7, 9]), 7);
  assert.equal(majorityIndex([0, 9, 5]), 5);
  assert.equal(majorityIndex([3, 9, 4, 7, 7]), 7);
  assert.equal(majorityIndex([1, 2, 3, 4]), 2);
});

test('majorityIndex against the slow oracle', () => {
  const seed = Date.now() % 1_000_000;
  const random = seededRandom(seed);
  for (let i = 0; i < 5000; i++) {
    const acked = Array.from({ length: random(10) }, () => random(12));
    const expected = slowMajorityIndex(acked);
    assert.equal(majorityIndex([...acked]), expected, `seed ${seed}: ${acked.join()}`);
  }
});

test('majorityVote for every split of up to 8 voters', () => {
  for (let voters = 0; voters <= 8; voters++) {
    for (let granted = 0; granted <= voters; granted++) {
      for (let rejected = 0; granted + rejected <= voters; rejected++) {
        const open = voters - granted - rejected;
        const canWin = (granted + open) * 2 > voters || voters === 0;
        const hasWon = granted * 2 > voters || voters === 0;
        const expected = hasWon ? VoteResult.won : canWin ? VoteResult.pending : VoteResult.lost;
        assert.equal(majorityVote(voters, granted, rejected), expected, `${voters} ${granted} ${rejected}`);
      }
    }
  }
  assert.deepEqual([1, 2, 3, 4, 5].map(majoritySize), [1, 2, 2, 3, 3]);
});

test('jointVote needs both halves', () => {
  const { won, lost, pending } = VoteResult;
  assert.equal(jointVote(won, won), won);
  assert.equal(jointVote(won, pending), pending);
  assert.equal(jointVote(pending, won), pending);
  for (const other of [won, lost, pending]) {
    assert.equal(jointVote(lost, other), lost);
    assert.equal(jointVote(other, lost), lost);
  }
});

test('a tracker commits, elects and stays active by both halves of a joint configuration', () => {
  const seed = Date.now() % 1_000_000;
  const random = seededRandom(seed);
  const pickIds = (): Set<bigint> => new Set([1n, 2n, 3n, 4n, 5n, 6n].filter(() => random(2) === 0));
  for (let i = 0; i < 1000; i++) {
    const voters = pickIds().add(1n);
    const outgoing = random(2) === 0 ? new Set<bigint>() : pickIds();
    const tracker = new Tracker(1n, 8, 1000);
    const configuration = {
      voters,
      outgoing,
      learners: new Set([9n]),
      learnersNext: new Set<bigint>(),
      autoLeave: false,
    };
    tracker.switchTo(configuration, new Set(), 5);
    for (const one of tracker.all) {
      one.match = random(5);
      one.recentActive = random(2) === 0;
      const vote = random(3);
      if (vote < 2) tracker.recordVote(one.id, vote === 1);
    }
    const of = (half: ReadonlySet<bigint>): number[] => [...half].map((id) => tracker.get(id)!.match);
    const expected = Math.min(slowMajorityIndex(of(voters)), slowMajorityIndex(of(outgoing)));
    assert.equal(tracker.committedIndex(), expected, `seed ${seed}`);
    const isActive = (half: ReadonlySet<bigint>): boolean =>
      half.size === 0 || [...half].filter((id) => tracker.get(id)!.recentActive).length * 2 > half.size;
    assert.equal(tracker.quorumActive(), isActive(voters) && isActive(outgoing), `seed ${seed}`);
    assert.equal(tracker.isSingleton, voters.size === 1 && outgoing.size === 0);
    tracker.checkInvariants();
  }
});

test('an election: the first vote of a member counts, learners do not', () => {
  const tracker = new Tracker(1n, 8, 1000);
  const configuration = {
    voters: new Set([1n, 2n, 3n]),
    outgoing: new Set<bigint>(),
    learners: new Set([4n]),
    learnersNext: new Set<bigint>(),
    autoLeave: false,
  };
  tracker.switchTo(configuration, new Set(), 1);
  tracker.recordVote(1n, true);
  tracker.recordVote(4n, true);
  assert.equal(tracker.electionResult(), VoteResult.pending);
  assert.equal(tracker.countVotes(true), 1);
  tracker.recordVote(2n, false);
  tracker.recordVote(2n, true);
  assert.equal(tracker.electionResult(), VoteResult.pending);
  tracker.recordVote(3n, false);
  assert.equal(tracker.electionResult(), VoteResult.lost);
  tracker.resetVotes();
  assert.equal(tracker.hasVoteOf(1n), false);
});
