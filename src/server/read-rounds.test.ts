// Goal: a read that comes while a round is on its way begins the next one when that is confirmed, and not with the next tick. Method: three
// members in one process over a network in memory, whose time stands still.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { MemberCluster } from '../testing/member-cluster-fixture.ts';

const names = ['a', 'b', 'c'];
let cluster: MemberCluster;

beforeEach(() => {
  cluster = new MemberCluster();
});

afterEach(() => cluster.end());

for (const role of ['leader', 'follower'] as const) {
  test(`reads that come one by one at the ${role} are answered without a tick`, async () => {
    await cluster.begin(names);
    const name = await cluster[role]();
    await cluster.settled();
    cluster.stopTicks();
    let answered = 0;
    const count = 8;
    for (let i = 0; i < count; i++) {
      cluster.member(name).read({ ready: () => answered++, failed: () => {} });
      await turn();
    }
    await cluster.turns(() => answered >= count);
    assert.equal(answered, count);
  });
}
