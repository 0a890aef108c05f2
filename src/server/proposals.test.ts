// Goal: what is proposed is answered once and never gathers without bound: while the disk stands still, while there is no leader, when raft
// does not take it. Method: a member over real parts, with a WAL that completes nothing until the test says so.

import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { unsyncedBytesMax } from '../limits.ts';
import { encodeInternalRequest, InternalRequest, RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { ProposeStatus } from '../raft/propose.ts';
import type { RawNode } from '../raft/raw-node.ts';
import { PutMessage } from '../testing/kv-messages.ts';
import { MemberFixture } from '../testing/member-fixture.ts';

let fixture: MemberFixture;
afterEach(() => fixture.remove());

const DROPPED = { code: 2, message: 'raft proposal dropped' };

describe('a WAL that completes nothing', () => {
  it(`refuses proposals beyond ${unsyncedBytesMax} unsynced bytes, takes them again afterwards, and loses none that it took`, async () => {
    fixture = new MemberFixture();
    const member = await fixture.start();
    fixture.walStalled = true;
    const value = 'v'.repeat(1_000_000);
    const answers: Promise<unknown>[] = [];
    const settled: unknown[] = [];
    // Far more than the bound, in many turns: only what a turn brings is looked at together.
    for (let i = 0; i < 100; i++) {
      const answer = fixture.put(`k${i}`, value);
      answers.push(answer);
      void answer.then((result) => settled.push(result));
      await turn();
    }
    await turn();
    assert.ok(settled.length > 0, 'some were refused');
    for (const result of settled) assert.equal(result, etcdErrors.requestTooManyRequests);
    const taken = answers.length - settled.length;
    const bound = unsyncedBytesMax / value.length;
    assert.ok(taken >= Math.floor(bound) && taken <= bound + 3, `${taken} of ${value.length} bytes were taken`);
    assert.ok(member.parts.wal.pendingBytes <= unsyncedBytesMax + 2 * value.length, `${member.parts.wal.pendingBytes}`);
    assert.equal(member.pending.count, taken);
    // Refused, not slow: in the same turn, whatever its size.
    assert.equal(await fixture.put('small', 'v'), etcdErrors.requestTooManyRequests);
    fixture.walStalled = false;
    const results = await Promise.all(answers);
    const revisions = results.filter((result) => typeof result === 'number');
    assert.deepEqual(
      revisions,
      Array.from({ length: taken }, (_, i) => i + 2),
      'every one that was taken, in order',
    );
    assert.equal(await fixture.put('after', 'v'), taken + 2);
    // A note of the commit index may wait for the next record.
    assert.ok(member.parts.wal.pendingBytes < 1000, `${member.parts.wal.pendingBytes}`);
    await fixture.stop();
  });
});

describe('proposals that raft does not take', () => {
  it('wait for a leader, and are applied when there is one', async () => {
    fixture = new MemberFixture();
    const member = await fixture.open();
    // What makes the member the only voter of its cluster does not get to the disk, so it cannot elect itself.
    fixture.walStalled = true;
    const early = [fixture.put('a', '1'), fixture.put('b', '2')];
    for (let i = 0; i < 5; i++) await turn();
    assert.equal(member.leader, 0n);
    assert.equal(member.pending.count, 2);
    fixture.walStalled = false;
    await new Promise<void>((ready) => member.start(ready));
    assert.deepEqual(await Promise.all(early), [2, 3]);
    assert.equal(await fixture.put('c', '3'), 4);
    assert.equal(member.parts.counters.proposalsFailed, 0, 'waiting is no failure');
    await fixture.stop();
  });

  it('time out each for itself when no leader comes', async () => {
    fixture = new MemberFixture();
    const member = await fixture.open();
    fixture.walStalled = true;
    const first = fixture.put('a', '1');
    await turn();
    fixture.advance(member.requestTimeoutMs - 1000);
    const second = fixture.put('b', '2');
    await turn();
    fixture.advance(1001);
    member.tick();
    assert.deepEqual(await first, { code: 4, message: 'context deadline exceeded' });
    assert.equal(member.pending.count, 1);
    fixture.advance(1000_000);
    member.tick();
    assert.deepEqual(await second, { code: 4, message: 'context deadline exceeded' });
    assert.equal(member.parts.counters.proposalsFailed, 2);
    fixture.walStalled = false;
    await new Promise<void>((ready) => member.start(ready));
    assert.equal(await fixture.put('c', '3'), 2, 'the others were never proposed');
    await fixture.stop();
  });

  it('fail at once for any other reason, and the next ones are taken', async () => {
    fixture = new MemberFixture();
    const member = await fixture.start();
    const { raft, counters } = member.parts;
    const failedBefore = counters.proposalsFailed;
    // As with too much uncommitted: what a lone member does not come to by itself.
    const dropped = {
      status: ProposeStatus.dropped,
      index: 0,
      term: 0,
      reason: 'too many uncommitted bytes',
    } as const;
    const refuse: RawNode['proposeBatch'] = () => dropped;
    const own = raft.proposeBatch;
    Object.defineProperty(raft, 'proposeBatch', { value: refuse, configurable: true });
    const [a, b] = await Promise.all([fixture.put('a', '1'), fixture.put('b', '2')]);
    assert.deepEqual([a, b], [DROPPED, DROPPED]);
    assert.equal(member.pending.count, 0);
    assert.equal(counters.proposalsFailed, failedBefore + 2);
    Object.defineProperty(raft, 'proposeBatch', { value: own, configurable: true });
    assert.equal(await fixture.put('c', '3'), 2, 'the dropped ones left nothing');
    await fixture.stop();
  });
});

describe('a batch at a follower', () => {
  it('is passed on in messages that hold nobody up', async () => {
    fixture = new MemberFixture();
    const member = await fixture.start();
    const { raft } = member.parts;
    const passedOn: number[] = [];
    const forward: RawNode['proposeBatch'] = (datas) => {
      passedOn.push(datas.length);
      return { status: ProposeStatus.forwarded, index: 0, term: 0, reason: 'none' };
    };
    Object.defineProperty(raft, 'isLeader', { value: false, configurable: true });
    Object.defineProperty(raft, 'proposeBatch', { value: forward, configurable: true });
    const puts = [400, 400, 400, 1100, 1].map((kib, i) => fixture.put(`k${i}`, 'v'.repeat(kib * 1024)));
    await turn();
    await turn();
    assert.deepEqual(passedOn, [2, 1, 1, 1], 'a MiB each, but one at least');
    fixture.advance(1_000_000);
    member.tick();
    assert.deepEqual(new Set(await Promise.all(puts)).size, 1, 'nobody waits for ever');
    await fixture.stop();
  });
});

describe('an entry of another member under the id of a proposal', () => {
  it('answers nobody: two members of a cluster may have the same sixteen bits in their ids, as in etcd', async () => {
    fixture = new MemberFixture();
    const member = await fixture.start();
    const { raft } = member.parts;
    const puts = ['mine', 'another'].map((key) => encode(PutMessage, { key: Buffer.from(key) })) as [Buffer, Buffer];
    const revision = await new Promise<number>((resolve, reject) => {
      const error = member.propose(RequestField.put, puts[0], 0, puts[0].length, {
        // The other one comes first.
        proposed: (entry) => {
          const request = new InternalRequest();
          assert.ok(request.parse(entry, 0, entry.length));
          const { idPrefix, idCounter } = request;
          raft.propose(encodeInternalRequest(RequestField.put, puts[1], 0, puts[1].length, idPrefix, idCounter));
        },
        applied: (applier) => resolve(applier.revision),
        failed: reject,
      });
      assert.equal(error, null);
    });
    assert.equal(revision, 3, 'of its own entry, behind the other');
    assert.equal(member.pending.count, 0);
    await fixture.stop();
  });
});
