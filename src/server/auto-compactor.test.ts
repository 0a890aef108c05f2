// Goal: automatic compaction at the times and revisions of etcd's v3compactor. Method: a member that only counts, simulated time, and
// the schedules of etcd's periodic.go and revision.go worked out by hand.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SimClock } from '../io/clock.ts';
import { CompactionRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { decode } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { type AutoCompaction, startAutoCompaction } from './auto-compactor.ts';
import type { Member } from './member.ts';
import type { Waiter } from './pending.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

class FakeMember {
  readonly clock = new SimClock();
  readonly compactions: { atMs: number; revision: number }[] = [];
  readonly lines: string[] = [];
  revision = 1;
  private stepMs = 0;
  isLeader = true;
  error: EtcdError | null = null;
  /** Keeps the waiters instead of answering. */
  holds = false;
  readonly held: Waiter[] = [];
  readonly parts: object;

  constructor(compaction: AutoCompaction) {
    const self = this;
    this.parts = {
      store: {
        get currentRevision(): number {
          return self.stepMs === 0 ? self.revision : 1 + Math.round(self.clock.nowMs() / self.stepMs);
        },
      },
      nowMs: () => this.clock.nowMs(),
      logger: {
        info: (_caller: string, message: string, fields: object) =>
          this.lines.push(`${message} ${JSON.stringify(fields)}`),
        warn: (_caller: string, message: string, fields: object) =>
          this.lines.push(`${message} ${JSON.stringify(fields)}`),
      },
    };
    startAutoCompaction(this as unknown as Member, compaction, (delayMs, run) => this.clock.setTimer(delayMs, run));
  }

  propose(field: number, message: Buffer, start: number, end: number, waiter: Waiter): EtcdError | null {
    assert.equal(field, RequestField.compaction);
    const { revision } = decode(CompactionRequest, message, start, end)!;
    this.compactions.push({ atMs: this.clock.nowMs(), revision });
    if (this.holds) this.held.push(waiter);
    else waiter.applied({ error: this.error } as unknown as Parameters<Waiter['applied']>[0]);
    return null;
  }

  /** Time goes on; meanwhile the revision is `1 + ms / stepMs`, so that it tells its time. */
  run(totalMs: number, stepMs: number): void {
    this.stepMs = stepMs;
    this.clock.advance(totalMs);
  }

  revisions(): number[] {
    return this.compactions.map(({ revision }) => revision);
  }

  times(unitMs: number): number[] {
    return this.compactions.map(({ atMs }) => Math.round(atMs / unitMs));
  }
}

describe('periodic', () => {
  it('ten minutes: first after the period, to the revision of its begin; then every ten minutes', () => {
    const member = new FakeMember({ mode: 'periodic', retentionMs: 10 * MINUTE_MS });
    member.run(9 * MINUTE_MS, MINUTE_MS);
    assert.deepEqual(member.compactions, []);
    member.run(22 * MINUTE_MS, MINUTE_MS);
    assert.deepEqual(member.times(MINUTE_MS), [10, 20, 30]);
    // A sample is taken behind the look at the clock, so the oldest of the eleven is eleven samples old from then on, as in etcd.
    assert.deepEqual(member.revisions(), [1, 10, 20]);
  });

  it('a day: first after the day, then hourly', () => {
    const member = new FakeMember({ mode: 'periodic', retentionMs: 24 * HOUR_MS });
    member.run(27 * HOUR_MS, 6 * MINUTE_MS);
    assert.deepEqual(member.times(HOUR_MS), [24, 25, 26, 27]);
    assert.deepEqual(member.revisions(), [1, 10, 20, 30]);
  });

  it('tries what failed again at the next sample', () => {
    const member = new FakeMember({ mode: 'periodic', retentionMs: 10 * MINUTE_MS });
    member.error = etcdErrors.timeout;
    member.run(12 * MINUTE_MS, MINUTE_MS);
    assert.deepEqual(member.times(MINUTE_MS), [10, 11, 12]);
    assert.match(member.lines.at(-1)!, /^failed auto periodic compaction .*"retry-interval":"1m0s"/);
    member.error = null;
    member.run(1 * MINUTE_MS, MINUTE_MS);
    assert.equal(member.compactions.length, 4);
    assert.match(member.lines.at(-1)!, /^completed auto periodic compaction .*"compact-period":"10m0s","took":/);
    member.run(9 * MINUTE_MS, MINUTE_MS);
    assert.equal(member.compactions.length, 4, 'the next interval counts from the success');
    member.run(1 * MINUTE_MS, MINUTE_MS);
    assert.equal(member.compactions.length, 5);
  });

  it('takes "already compacted" for success, and compacts no revision twice', () => {
    const member = new FakeMember({ mode: 'periodic', retentionMs: 10 * MINUTE_MS });
    member.error = etcdErrors.compacted;
    member.clock.advance(60 * MINUTE_MS);
    assert.deepEqual(member.revisions(), [1]);
    assert.match(member.lines.at(-1)!, /^completed auto periodic compaction/);
  });

  it('rests while another member leads', () => {
    const member = new FakeMember({ mode: 'periodic', retentionMs: 10 * MINUTE_MS });
    member.isLeader = false;
    member.run(30 * MINUTE_MS, MINUTE_MS);
    assert.deepEqual(member.compactions, []);
    member.isLeader = true;
    member.run(1 * MINUTE_MS, MINUTE_MS);
    assert.deepEqual(member.revisions(), [21], 'its samples went on: eleven back');
  });

  it('waits for the compaction under way', () => {
    const member = new FakeMember({ mode: 'periodic', retentionMs: 10 * MINUTE_MS });
    member.holds = true;
    member.run(25 * MINUTE_MS, MINUTE_MS);
    assert.equal(member.compactions.length, 1);
    member.holds = false;
    member.held[0]!.failed(etcdErrors.timeout);
    member.run(1 * MINUTE_MS, MINUTE_MS);
    assert.equal(member.compactions.length, 2);
  });
});

describe('revision', () => {
  it('every five minutes, so many revisions back, only when that is a new one', () => {
    const member = new FakeMember({ mode: 'revision', retentionRevisions: 10 });
    member.revision = 10;
    member.clock.advance(5 * MINUTE_MS);
    assert.deepEqual(member.compactions, [], '10 - 10 is no revision');
    member.revision = 15;
    member.clock.advance(5 * MINUTE_MS - 1);
    assert.deepEqual(member.compactions, []);
    member.clock.advance(1);
    assert.deepEqual(member.revisions(), [5]);
    member.clock.advance(20 * MINUTE_MS);
    assert.deepEqual(member.revisions(), [5]);
    member.revision = 16;
    member.clock.advance(5 * MINUTE_MS);
    assert.deepEqual(member.revisions(), [5, 6]);
    assert.match(member.lines.at(-1)!, /^completed auto revision compaction .*"revision-compaction-retention":10/);
  });

  it('tries again when it failed, and rests without leadership', () => {
    const member = new FakeMember({ mode: 'revision', retentionRevisions: 1 });
    member.revision = 100;
    member.error = etcdErrors.timeout;
    member.clock.advance(10 * MINUTE_MS);
    assert.deepEqual(member.revisions(), [99, 99]);
    member.isLeader = false;
    member.clock.advance(10 * MINUTE_MS);
    assert.equal(member.compactions.length, 2);
  });
});

it('off: no timer at all', () => {
  assert.equal(new FakeMember({ mode: 'off' }).clock.nextDueMs(), null);
});
