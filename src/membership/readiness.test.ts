// Goal: a change is ready exactly when a majority of the voters after it are started, as etcd counts. Method: every cluster of up to seven
// voters with every number of started ones, against the count by hand; etcd's exception for a cluster of one.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Member } from './cluster.ts';
import { quorumOf, readinessToAddVoter, readinessToPromote, readinessToRemoveVoter } from './readiness.ts';

/** The first `startedCount` of them have names; ids from 1 on. */
function voters(count: number, startedCount: number): Member[] {
  return Array.from({ length: count }, (_, i) => {
    const name = i < startedCount ? `m${i}` : '';
    return { id: BigInt(i + 1), peerUrls: [], isLearner: false, name, clientUrls: [] };
  });
}

test('a majority after the change is started, or the change is not ready', () => {
  assert.deepEqual([1, 2, 3, 4, 5].map(quorumOf), [1, 2, 2, 3, 3]);
  for (let count = 1; count <= 7; count++) {
    for (let started = 0; started <= count; started++) {
      const all = voters(count, started);
      const label = `${started} of ${count}`;
      const grown = Math.floor((count + 1) / 2) + 1;
      const add = readinessToAddVoter(all);
      assert.deepEqual([add.startedCount, add.quorum], [started, grown], label);
      assert.equal(add.isReady, started >= grown || (count === 1 && started === 1), label);
      assert.equal(readinessToPromote(all).isReady, started + 1 >= grown, label);
      const shrunk = Math.floor((count - 1) / 2) + 1;
      const [first, last] = [readinessToRemoveVoter(all, 1n), readinessToRemoveVoter(all, BigInt(count))];
      assert.equal(first.isReady, Math.max(0, started - 1) >= shrunk, label);
      assert.equal(last.isReady, started - (started === count ? 1 : 0) >= shrunk, label);
      assert.equal(readinessToRemoveVoter(all, 99n).isReady, started >= Math.floor(count / 2) + 1, label);
    }
  }
});
