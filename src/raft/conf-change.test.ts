// Goal: configurations change only as Raft's thesis 4.3 and etcd-io/raft allow. Method: a table of cases in the
// notation of describeConfState, and random sequences of changes whose every result must keep the invariants, survive a
// round trip by ConfState, and end where the same changes lead one by one.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Configuration,
  changeConfiguration,
  configurationError,
  EMPTY_CONFIGURATION,
  restoreConfiguration,
  toConfState,
} from './conf-change.ts';
import { describeConfState } from './describe.ts';
import { parseConfChange } from './interaction-words.ts';
import { seededRandom } from './simulation.ts';
import { Tracker } from './tracker.ts';
import {
  type ConfChangeSingle,
  ConfChangeTransition,
  type ConfChangeType,
  EMPTY_CONF_STATE,
  NO_BYTES,
} from './types.ts';

/** Applies 'v1 l2', '' (leave), ... one after the other; the last may fail. */
function after(...changes: string[]): string {
  let configuration: Configuration = EMPTY_CONFIGURATION;
  for (const [i, text] of changes.entries()) {
    const result = changeConfiguration(configuration, parseConfChange(text)!);
    if (!result.ok) {
      assert.equal(i, changes.length - 1, result.error);
      return result.error;
    }
    configuration = result.configuration;
  }
  return describeConfState(toConfState(configuration));
}

test('simple changes', () => {
  assert.equal(after('v1'), 'voters=(1)');
  assert.equal(after('v1', 'v2', 'l3'), 'voters=(1 2) learners=(3)');
  assert.equal(after('v1', 'v1', 'u1', 'r9', 'v0'), 'voters=(1)');
  assert.equal(after('v1', 'l2', 'v2'), 'voters=(1 2)');
  assert.equal(after('v1', 'v2', 'l2'), 'voters=(1) learners=(2)');
  assert.equal(after('v1', 'v2', 'r2'), 'voters=(1)');
  assert.equal(after('v1', 'l2', 'r2'), 'voters=(1)');
});

test('joint changes', () => {
  assert.equal(after('v1', 'v2 v3'), 'voters=(1 2 3)&&(1) autoleave');
  assert.equal(after('v1', 'v2 v3', ''), 'voters=(1 2 3)');
  assert.equal(after('v1', 'v2 v3 explicit'), 'voters=(1 2 3)&&(1)');
  assert.equal(after('v1', 'v2 implicit'), 'voters=(1 2)&&(1) autoleave');
  assert.equal(after('v1', 'v2', 'v3', 'l3 explicit'), 'voters=(1 2)&&(1 2 3) learners_next=(3)');
  assert.equal(after('v1', 'v2', 'v3', 'l3 explicit', ''), 'voters=(1 2) learners=(3)');
  assert.equal(after('v1', 'v2', 'l2 v2 explicit'), 'voters=(1 2)&&(1 2)');
  assert.equal(after('v1', 'v2', 'l2 r2 explicit', ''), 'voters=(1)');
  assert.equal(after('v1', 'l2', 'r2 v3 explicit'), 'voters=(1 3)&&(1)');
  assert.equal(after('v1', 'v2', 'r1 v3 l4', ''), 'voters=(2 3) learners=(4)');
});

test('impossible changes', () => {
  assert.equal(after('r1'), 'removed all voters');
  assert.equal(after('v1', 'r1'), 'removed all voters');
  assert.equal(after('v1', 'l1'), 'removed all voters');
  assert.equal(after(''), "can't leave a configuration that is not joint");
  assert.equal(after('v1 v2'), "can't make a configuration without voters joint");
  assert.equal(after('v1', 'v2 v3', 'r2'), "can't apply a simple change to a joint configuration");
  assert.equal(after('v1', 'v2 v3', 'r2 r3'), 'the configuration is already joint');
  assert.equal(after('v1', 'v2', 'r1 r2'), 'removed all voters');
});

test('configurations that contradict themselves are refused', () => {
  const refused = (changes: Partial<typeof EMPTY_CONF_STATE>): boolean =>
    !restoreConfiguration({ ...EMPTY_CONF_STATE, ...changes }).ok;
  assert.ok(refused({ voters: [1n], learners: [1n] }));
  assert.ok(refused({ voters: [1n], learners: [2n], votersOutgoing: [2n] }));
  assert.ok(refused({ voters: [1n], learnersNext: [2n] }));
  assert.ok(refused({ voters: [1n, 2n], votersOutgoing: [2n], learnersNext: [2n] }));
  assert.ok(refused({ voters: [1n], autoLeave: true }));
  assert.ok(!refused({ voters: [1n], votersOutgoing: [1n, 2n], learnersNext: [2n], learners: [3n], autoLeave: true }));
});

test('random changes keep the invariants', () => {
  const seed = Date.now() % 1_000_000;
  const random = seededRandom(seed);
  let applied = 0;
  for (let run = 0; run < 300; run++) {
    const start = restoreConfiguration({ ...EMPTY_CONF_STATE, voters: [1n, 2n, 3n] });
    assert.ok(start.ok);
    let configuration = start.configuration;
    const tracker = new Tracker(1n, 8, 1000);
    for (let i = 0; i < 30; i++) {
      const changes = Array.from({ length: random(4) }, (): ConfChangeSingle => {
        return { type: random(4) as ConfChangeType, nodeId: BigInt(random(7)) };
      });
      // Few changes alone are simple ones, or leave; several enter.
      const transition = changes.length > 1 ? (random(3) as ConfChangeTransition) : ConfChangeTransition.auto;
      const result = changeConfiguration(configuration, { transition, changes, context: NO_BYTES });
      if (!result.ok) continue;
      applied++;
      configuration = result.configuration;
      assert.equal(configurationError(configuration), null, `seed ${seed}`);
      const again = restoreConfiguration(toConfState(configuration));
      assert.ok(again.ok);
      assert.deepEqual(toConfState(again.configuration), toConfState(configuration));
      tracker.switchTo(configuration, result.forgotten, 10);
      tracker.checkInvariants();
    }
  }
  assert.ok(applied > 1000, 'too few changes were possible');
});

test('a joint change ends where its single changes lead', () => {
  const seed = Date.now() % 1_000_000;
  const random = seededRandom(seed);
  const leave = { transition: ConfChangeTransition.auto, changes: [], context: NO_BYTES };
  for (let run = 0; run < 1000; run++) {
    const start = restoreConfiguration({ ...EMPTY_CONF_STATE, voters: [1n, 2n, 3n], learners: [4n] });
    assert.ok(start.ok);
    const changes = Array.from({ length: 2 + random(3) }, (): ConfChangeSingle => {
      return { type: random(4) as ConfChangeType, nodeId: BigInt(1 + random(6)) };
    });
    const joint = changeConfiguration(start.configuration, { transition: 0, changes, context: NO_BYTES });
    let single: Configuration | null = start.configuration;
    for (const change of changes) {
      const result = changeConfiguration(single, { transition: 0, changes: [change], context: NO_BYTES });
      single = result.ok ? result.configuration : null;
      if (single === null) break;
    }
    if (!joint.ok || single === null) continue;
    const left = changeConfiguration(joint.configuration, leave);
    assert.ok(left.ok);
    assert.deepEqual(toConfState(left.configuration), toConfState(single), `seed ${seed}`);
  }
});

test('a member that is removed and added again is not known any more', () => {
  const tracker = new Tracker(1n, 8, 1000);
  const start = restoreConfiguration({ ...EMPTY_CONF_STATE, voters: [1n], learners: [2n] });
  assert.ok(start.ok);
  tracker.switchTo(start.configuration, start.forgotten, 1);
  tracker.get(2n)!.maybeUpdate(7);
  const kept = changeConfiguration(start.configuration, parseConfChange('v2')!);
  assert.ok(kept.ok && !kept.forgotten.has(2n));
  const again = changeConfiguration(start.configuration, parseConfChange('r2 l2 explicit')!);
  assert.ok(again.ok && again.forgotten.has(2n));
  tracker.switchTo(again.configuration, again.forgotten, 9);
  assert.equal(tracker.get(2n)!.match, 0);
  assert.equal(tracker.get(2n)!.next, 9);
  assert.equal(tracker.get(2n)!.recentActive, true);
});
