// Goal: snapshots do not keep the database's pages for ever: few run at once, one more is refused in words, a client that stops reading
// loses its own, and every end gives its place back. Method: the handler over a real member; calls whose reading and timers are the test's.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Router } from '../grpc/router.ts';
import { snapshotStallMs, snapshotStreamsMax } from '../limits.ts';
import { SnapshotResponse } from '../proto/etcdserverpb.ts';
import { decode } from '../proto/message.ts';
import type { Member } from '../server/member.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { RecordedCall } from '../testing/recorded-call.ts';
import { registerMaintenance } from './maintenance.ts';

const path = '/etcdserverpb.Maintenance/Snapshot';

/** Reads `messages` messages at a time, then stands until the test lets it go on. */
class SlowCall extends RecordedCall {
  left: number;
  constructor(router: Router, messages: number) {
    super(router, path);
    this.left = messages;
    this.deliver(Buffer.alloc(0));
  }

  override send(message: Buffer, start: number, end: number): boolean {
    super.send(message, start, end);
    this.left--;
    return this.left > 0;
  }

  read(messages: number): void {
    this.left = messages;
    this.onDrain!();
  }
}

let fixture: MemberFixture;
let member: Member;
let router: Router;
let timers: { delayMs: number; callback: () => void }[];

beforeEach(async () => {
  fixture = new MemberFixture();
  member = await fixture.start();
  router = new Router();
  timers = [];
  registerMaintenance(router, member, {
    etcdVersion: '3.7.1',
    quotaBytes: 0,
    setTimer: (delayMs, callback) => timers.push({ delayMs, callback }),
  });
  for (let i = 0; i < 20; i++) await fixture.put(`k${i}`, 'v'.repeat(50_000));
});
afterEach(async () => {
  await fixture.stop();
  fixture.remove();
});

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail(`not within 5 s: ${what}`);
}

const running = (): number => member.parts.counters.snapshotsRunning;

describe('snapshot streams', () => {
  it(`${snapshotStreamsMax} at once; one more is refused, and has a place as soon as one ends`, async () => {
    const calls = Array.from({ length: snapshotStreamsMax }, () => new SlowCall(router, 1));
    const refused = await new SlowCall(router, 1).finished();
    assert.deepEqual(refused.status, {
      code: 8,
      message: `keelson: ${snapshotStreamsMax} snapshots are being sent already`,
    });
    await until('all have begun', () => calls.every((call) => call.sent.length > 0));
    assert.equal(running(), snapshotStreamsMax);
    // One client goes away, another reads to the end.
    calls[0]!.cancel();
    assert.equal(running(), snapshotStreamsMax - 1);
    calls[1]!.read(Number.POSITIVE_INFINITY);
    await calls[1]!.finished();
    assert.equal(running(), snapshotStreamsMax - 2);
    const more = [new SlowCall(router, 1), new SlowCall(router, Number.POSITIVE_INFINITY)];
    assert.equal(running(), snapshotStreamsMax);
    const { status, sent } = await more[1]!.finished();
    assert.equal(status!.code, 0);
    const blobs = sent.map((message) => decode(SnapshotResponse, message)!);
    assert.ok(blobs.reduce((sum, { blob }) => sum + blob.length, 0) > 1_000_000);
    assert.equal(blobs.at(-1)!.blob.length, 32);
    for (const call of [calls[2]!, calls[3]!, more[0]!]) call.cancel();
    assert.equal(running(), 0);
  });

  it('a client that stops reading loses its snapshot; one that reads in time does not', async () => {
    const [stopped, slow] = [new SlowCall(router, 1), new SlowCall(router, 1)];
    await until('both stand', () => timers.length === 2);
    assert.deepEqual(
      timers.map(({ delayMs }) => delayMs),
      [snapshotStallMs, snapshotStallMs],
    );
    const both = timers.splice(0);
    slow.read(2);
    await until('it stands again', () => slow.left <= 0);
    for (const { callback } of both) callback();
    assert.deepEqual(stopped.status, { code: 10, message: 'keelson: the snapshot was not read for 120 seconds' });
    assert.equal(running(), 1);
    const [line] = fixture.logged('a client stopped reading its snapshot');
    assert.equal(line!['level'], 'warn');
    assert.ok(Number(line!['sent-bytes']) > 0 && Number(line!['sent-bytes']) < Number(line!['total-bytes']));
    const heard = stopped.sent.length;
    slow.read(Number.POSITIVE_INFINITY);
    assert.equal((await slow.finished()).status!.code, 0);
    // Timers of a call that has ended do nothing.
    for (const { callback } of timers.splice(0)) callback();
    assert.equal(running(), 0);
    assert.equal(stopped.sent.length, heard, 'nothing is sent behind the end');
    const metrics = await fixture.metrics.text();
    assert.match(metrics, /^etcd_disk_backend_snapshot_duration_seconds_count 2$/m);
  });
});
