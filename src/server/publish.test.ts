// Goal: a member whose first request of its own cannot be proposed, or is lost, tries again at the next tick, once a tick, and serves
// when it has come through; it neither gives up nor calls itself. Method: real parts; the ways in which a proposal fails, by hand.

import assert from 'node:assert/strict';
import { afterEach, it } from 'node:test';
import { MemberFixture } from '../testing/member-fixture.ts';

let fixture: MemberFixture;
let isReady = false;

afterEach(async () => {
  fixture.walStalled = false;
  await fixture.stop();
  fixture.remove();
});

const turns = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const failures = (): number => fixture.logged('failed to publish local member to cluster through raft').length;
const successes = (): number => fixture.logged('published local member to cluster through raft').length;

async function open(): Promise<void> {
  fixture = new MemberFixture();
  isReady = false;
  await fixture.open();
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !condition(); i++) await turns(5);
  assert.ok(condition(), 'not within two seconds');
}

const start = (): void => fixture.member.start(() => (isReady = true));

it('is tried again by the tick when it is refused at once', async () => {
  await open();
  const parts = fixture.member.parts as { requestBytesMax: number };
  const { requestBytesMax } = parts;
  parts.requestBytesMax = 10;
  start();
  await until(() => failures() > 0);
  await turns(30);
  assert.equal(failures(), 1, 'without a tick it is not tried again');
  for (let tick = 1; tick <= 5; tick++) {
    fixture.member.tick();
    await turns(5);
    assert.equal(failures(), 1 + tick);
  }
  assert.ok(!isReady);
  parts.requestBytesMax = requestBytesMax;
  fixture.member.tick();
  await until(() => isReady);
  assert.deepEqual([failures(), successes()], [6, 1]);
  fixture.member.tick();
  await turns(20);
  assert.equal(successes(), 1, 'once is enough');
});

it('is tried again when it is not durable in time, and what comes late of the first tries does no harm', async () => {
  await open();
  const { member } = fixture;
  const { lessor } = member.parts;
  // The last thing before the first try: what is proposed from here on stays with the disk.
  const promote = lessor.promote.bind(lessor);
  lessor.promote = (extendMs): void => {
    fixture.walStalled = true;
    promote(extendMs);
  };
  start();
  await until(() => fixture.walStalled);
  for (let i = 1; i <= 3; i++) {
    await turns(5);
    fixture.advance(member.requestTimeoutMs + 1000);
    member.tick();
    assert.equal(failures(), i, 'the time-out of the one try');
    member.tick();
  }
  assert.ok(!isReady);
  fixture.walStalled = false;
  await until(() => isReady);
  assert.deepEqual([failures(), successes()], [3, 1]);
});

it('passes the bounds that refuse clients', async () => {
  await open();
  const { wal } = fixture.member.parts;
  // More waits for the disk than clients may add to.
  Object.defineProperty(wal, 'pendingBytes', { get: () => 1e9, configurable: true });
  start();
  await until(() => isReady);
  assert.equal(failures(), 0);
  const refused = await fixture.put('k', 'v');
  assert.equal(typeof refused, 'object', 'the bound holds for clients');
});
