// Goal: the flow control towards one follower. Method: the window against a plain list, at random; the states'
// transitions one by one, as in the table at the head of progress.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Inflights } from './inflights.ts';
import { Progress, ProgressState } from './progress.ts';
import { seededRandom } from './simulation.ts';

function newProgress(): Progress {
  return new Progress(2n, 10, false, true, 3, 1000);
}

test('the window against a list', () => {
  const seed = Date.now() % 1_000_000;
  const random = seededRandom(seed);
  for (let run = 0; run < 200; run++) {
    const countMax = 1 + random(9);
    const bytesMax = 50 + random(100);
    const window = new Inflights(countMax, bytesMax);
    let model: { index: number; bytes: number }[] = [];
    let next = 1;
    for (let i = 0; i < 200; i++) {
      const bytes = model.reduce((sum, one) => sum + one.bytes, 0);
      assert.equal(window.full, model.length === countMax || bytes >= bytesMax, `seed ${seed}`);
      if (random(2) === 0 && !window.full) {
        next += 1 + random(3);
        const size = random(40);
        window.add(next, size);
        model.push({ index: next, bytes: size });
      } else {
        const to = next - random(12);
        window.freeTo(to);
        model = model.filter((one) => one.index > to);
      }
      if (random(100) === 0) {
        window.reset();
        model = [];
      }
      assert.equal(window.count, model.length, `seed ${seed}`);
      window.checkInvariants();
    }
  }
});

test('a full window takes nothing', () => {
  const window = new Inflights(1, 10);
  window.add(1, 1);
  assert.throws(() => window.add(2, 1), /beyond the window/);
});

test('a probe is sent once, and its answer starts the stream', () => {
  const progress = newProgress();
  progress.sentEntries(0, 0);
  assert.equal(progress.isPaused, false, 'an empty probe does not pause');
  progress.sentEntries(2, 20);
  assert.equal(progress.isPaused, true);
  assert.equal(progress.next, 10, 'a probe does not move on');
  assert.equal(progress.maybeUpdate(11), true);
  progress.becomeReplicate();
  assert.equal(progress.next, 12);
  assert.equal(progress.isPaused, false);
  progress.checkInvariants();
});

test('replicating moves ahead until the window is full', () => {
  const progress = newProgress();
  progress.maybeUpdate(9);
  progress.becomeReplicate();
  for (let i = 0; i < 3; i++) {
    assert.equal(progress.isPaused, false);
    progress.sentEntries(2, 10);
  }
  assert.equal(progress.next, 16);
  assert.equal(progress.isPaused, true);
  progress.maybeUpdate(11);
  progress.inflights.freeTo(11);
  assert.equal(progress.isPaused, false);
  assert.equal(progress.inflights.count, 2);
  progress.checkInvariants();
});

test('refusals: stale ones change nothing', () => {
  const progress = newProgress();
  assert.equal(progress.maybeDecrease(5, 3), false, 'not the probe that is out');
  assert.equal(progress.maybeDecrease(9, 3), true);
  assert.equal(progress.next, 4);
  assert.equal(progress.maybeDecrease(3, 100), true, 'the hint never leads forward');
  assert.equal(progress.next, 3);
  progress.maybeUpdate(5);
  progress.becomeReplicate();
  progress.sentEntries(4, 10);
  assert.equal(progress.maybeDecrease(5, 0), false, 'it has confirmed that already');
  assert.equal(progress.maybeDecrease(8, 0), true);
  assert.equal(progress.next, 6, 'never behind what is confirmed');
});

test('a snapshot: nothing is sent, and the next probe depends on its fate', () => {
  const progress = newProgress();
  progress.maybeUpdate(2);
  progress.becomeSnapshot(20);
  assert.equal(progress.isPaused, true);
  assert.equal(progress.next, 21);
  assert.equal(progress.maybeDecrease(20, 1), false);
  assert.throws(() => progress.sentEntries(1, 1), /during a snapshot/);
  progress.becomeProbe();
  assert.equal(progress.next, 21, 'it may have arrived');
  progress.becomeSnapshot(20);
  progress.pendingSnapshot = 0;
  progress.becomeProbe();
  assert.equal(progress.next, 3, 'it was lost: after what is confirmed');
});

test('the commit index is sent only where it helps', () => {
  const progress = newProgress();
  progress.maybeUpdate(9);
  progress.becomeReplicate();
  assert.equal(progress.canBumpCommit(5), true);
  progress.sentCommit(5);
  assert.equal(progress.canBumpCommit(5), false, 'already sent');
  assert.equal(progress.canBumpCommit(6), true);
  progress.sentCommit(9);
  assert.equal(progress.canBumpCommit(12), false, 'it holds no more than 9');
  progress.sentEntries(3, 1);
  assert.equal(progress.canBumpCommit(12), true);
  progress.sentCommit(12);
  progress.becomeProbe();
  assert.equal(progress.canBumpCommit(12), false, 'falls back to what is confirmed');
  assert.equal(progress.state, ProgressState.probe);
});
