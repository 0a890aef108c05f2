// Goal: simulated time moves only when told and runs timers in order; the real clock is monotonic and its timers fire.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimClock, systemClock } from './clock.ts';

test('timers run in order of time, then of creation, those set meanwhile too', () => {
  const clock = new SimClock(1000);
  const ran: string[] = [];
  clock.setTimer(20, () => ran.push(`c ${clock.nowMs()}`));
  clock.setTimer(10, () => {
    ran.push(`a ${clock.nowMs()}`);
    clock.setTimer(5, () => ran.push(`b ${clock.nowMs()}`));
    clock.setTimer(0, () => ran.push(`now ${clock.nowMs()}`));
  });
  clock.setTimer(20, () => ran.push(`d ${clock.nowMs()}`));
  const dropped = clock.setTimer(15, () => ran.push('dropped'));
  clock.clearTimer(dropped);
  assert.equal(clock.nextDueMs(), 10);
  clock.advance(9);
  assert.deepEqual(ran, []);
  clock.advance(11);
  assert.deepEqual(ran, ['a 10', 'now 10', 'b 15', 'c 20', 'd 20']);
  assert.equal(clock.nowMs(), 20);
  assert.equal(clock.nextDueMs(), null);
  assert.equal(clock.wallMs(), 1020);
  clock.jumpWall(-500);
  assert.equal(clock.wallMs(), 520);
  assert.equal(clock.nowMs(), 20);
});

test('the real clock moves on, its timers fire once unless cleared', async () => {
  const before = systemClock.nowMs();
  let cleared = false;
  systemClock.clearTimer(
    systemClock.setTimer(1, () => {
      cleared = true;
    }),
  );
  await new Promise<void>((resolve) => systemClock.setTimer(20, resolve));
  assert.ok(systemClock.nowMs() - before >= 18);
  assert.equal(cleared, false);
  assert.ok(Math.abs(systemClock.wallMs() - Date.now()) < 1000);
});
