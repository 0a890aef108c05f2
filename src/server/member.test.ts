// Goal: the member answers each request once, whatever happens to the log, and its loop never stands still. Method: real parts in a
// scratch folder, a WAL that the test stalls, time that the test moves.

import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { ByteWriter } from '../base/byte-writer.ts';
import { overlapBytesMin } from '../cluster-limits.ts';
import { walWaitMs } from '../limits.ts';
import { CompactionRequest, LeaseGrantRequest, LeaseRevokeRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { RangeRequest } from '../proto/kv-request.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import type { Member } from './member.ts';

let fixture: MemberFixture;

afterEach(() => fixture.remove());

const turns = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function storedAt(member: Member, key: string): string | null {
  const body = new ByteWriter(256);
  const request = new RangeRequest();
  const bytes = Buffer.concat([Buffer.from([0x0a, key.length]), Buffer.from(key)]);
  assert.ok(request.parse(bytes, 0, bytes.length));
  assert.equal(member.parts.store.range(request, body), null);
  const text = body.bytes.toString('latin1', 0, body.length);
  return text.includes(key) ? text : null;
}

describe('a member alone', () => {
  it('starts, applies, stops, and finds everything again', async () => {
    fixture = new MemberFixture();
    const first = await fixture.start();
    assert.ok(first.isLeader);
    assert.equal(first.leader, first.parts.id);
    assert.equal(await fixture.put('k', 'one'), 2);
    assert.equal(await fixture.put('k', 'two'), 3);
    assert.equal(first.pending.count, 0);
    assert.ok(storedAt(first, 'k')!.includes('two'));
    const applied = first.appliedIndex;
    await fixture.stop();

    const again = await fixture.start();
    assert.equal(again.parts.id, first.parts.id);
    assert.equal(again.parts.store.currentRevision, 3);
    assert.ok(again.appliedIndex > applied, 'a new term appends its entry');
    assert.ok(again.term > first.term || again.term >= 2);
    assert.ok(storedAt(again, 'k')!.includes('two'));
    assert.equal(fixture.logged('restarting local member').length, 1);
    await fixture.stop();
  });

  it('answers linearizable reads at once, after a restart too', async () => {
    fixture = new MemberFixture();
    const first = await fixture.start();
    await fixture.put('k', 'v');
    assert.ok(first.canReadNow);
    await fixture.stop();
    const again = await fixture.start();
    await fixture.put('k', 'w');
    assert.ok(again.canReadNow, 'a lone voter needs no ReadIndex round');
    assert.equal(await fixture.read(), null);
    await fixture.stop();
  });

  it('starts without warnings and names the leader as etcd does', async () => {
    fixture = new MemberFixture();
    const { parts } = await fixture.start();
    // But that a busy machine took long over an apply.
    const bad = fixture.lines.filter((line) => !/"level":"(debug|info)"|took too long/.test(line));
    assert.deepEqual(bad, []);
    const id = parts.id.toString(16);
    assert.equal(fixture.logged(`raft.node: ${id} elected leader ${id} at term 2`).length, 1);
    for (const message of ['opened backend db', 'kvstore restored', 'added member', 'set initial cluster version']) {
      assert.equal(fixture.logged(message).length, 1, message);
    }
    await fixture.stop();
  });
});

describe('requests that cannot be answered', () => {
  it('fails what is pending when it stops, and refuses what comes later', async () => {
    fixture = new MemberFixture();
    await fixture.start();
    fixture.walStalled = true;
    const pending = fixture.put('k', 'v');
    await turns(10);
    assert.equal(fixture.member.pending.count, 1);
    const stopped = fixture.stop();
    assert.equal(await pending, etcdErrors.stopped);
    assert.equal(await fixture.put('k', 'v'), etcdErrors.stopped);
    assert.equal(await fixture.read(), etcdErrors.stopped);
    fixture.walStalled = false;
    await stopped;
  });

  it('times a proposal out after etcd’s request time-out, and counts it', async () => {
    fixture = new MemberFixture();
    const member = await fixture.start();
    fixture.walStalled = true;
    const late = fixture.put('k', 'v');
    await turns(5);
    fixture.advance(member.requestTimeoutMs - 1000);
    member.tick();
    assert.equal(member.pending.count, 1, 'not yet');
    fixture.advance(2000);
    member.tick();
    assert.equal(await late, etcdErrors.timeout);
    assert.equal(member.parts.counters.proposalsFailed, 1);
    // Its entry is applied all the same once the disk answers: nobody waits any more.
    fixture.walStalled = false;
    await turns(30);
    assert.ok(storedAt(member, 'k') !== null);
    await fixture.stop();
  });

  it('refuses an entry that is larger than --max-request-bytes', async () => {
    fixture = new MemberFixture();
    await fixture.start('--max-request-bytes=1000');
    assert.equal(await fixture.put('k', 'v'.repeat(1000)), etcdErrors.requestTooLarge);
    assert.equal(await fixture.put('k', 'v'.repeat(800)), 2);
    await fixture.stop();
  });

  it('keeps a read waiting while there is no leader, and times it out', async () => {
    fixture = new MemberFixture();
    const member = await fixture.open();
    fixture.walStalled = true;
    member.start(() => {});
    await turns(5);
    assert.equal(member.leader, 0n);
    assert.ok(!member.canReadNow);
    assert.deepEqual(member.errors(), [etcdErrors.noLeader.message]);
    const read = fixture.read();
    await turns(5);
    fixture.advance(member.requestTimeoutMs + 2000);
    member.tick();
    assert.equal(await read, etcdErrors.timeout);
    assert.equal(member.parts.counters.slowReadIndexes, 1);
    fixture.walStalled = false;
    await turns(20);
    assert.ok(member.isLeader);
    await fixture.stop();
  });
});

describe('a disk that stands still', () => {
  it('does not stop the loop: ticks run, reads of what is applied are answered, writes go on afterwards', async () => {
    fixture = new MemberFixture();
    const member = await fixture.start();
    await fixture.put('k', 'before');
    fixture.walStalled = true;
    let answered = 0;
    const puts = [1, 2, 3].map((i) => fixture.put(`s${i}`, 'x').then(() => answered++));
    // How long each turn of the loop was ready to wait for the disk.
    const waits: number[] = [];
    const { wal } = member.parts;
    const wait = wal.waitDurable.bind(wal);
    wal.waitDurable = (ticket, timeoutMs): boolean => {
      waits.push(timeoutMs);
      return wait(ticket, timeoutMs);
    };
    for (let i = 0; i < 10; i++) {
      member.tick();
      member.wake();
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.deepEqual(waits, Array(10).fill(walWaitMs), 'every turn came, and waited once, and not for longer');
    assert.equal(answered, 0, 'nothing is acknowledged before it is durable');
    assert.equal(storedAt(member, 's1'), null, 'nor applied');
    assert.ok(storedAt(member, 'k')!.includes('before'));
    assert.ok(member.isLeader, 'its own vote keeps a lone voter the leader');
    assert.equal(await fixture.read(), null, 'everything committed is applied');
    fixture.walStalled = false;
    await Promise.all(puts);
    assert.equal(answered, 3);
    assert.ok(storedAt(member, 's3') !== null);
    await fixture.stop();
  });
});

describe('a large record on its way to the disk', () => {
  it('is not waited for, in no turn, until it is durable', async () => {
    fixture = new MemberFixture();
    const member = await fixture.start();
    await fixture.put('k', 'before');
    const waits: number[] = [];
    const { wal } = member.parts;
    const wait = wal.waitDurable.bind(wal);
    wal.waitDurable = (ticket, timeoutMs): boolean => {
      waits.push(timeoutMs);
      return wait(ticket, timeoutMs);
    };
    const turn = (): Promise<void> => {
      member.wake();
      return new Promise((resolve) => setImmediate(resolve));
    };
    fixture.walStalled = true;
    const puts = [fixture.put('large', 'x'.repeat(overlapBytesMin))];
    for (let i = 0; i < 3; i++) await turn();
    puts.push(fixture.put('small', 'x'));
    for (let i = 0; i < 3; i++) await turn();
    assert.deepEqual(waits, Array(6).fill(0), 'neither for it nor for what comes behind it');
    fixture.walStalled = false;
    assert.deepEqual(await Promise.all(puts), [3, 4]);
    fixture.walStalled = true;
    waits.length = 0;
    const last = fixture.put('small', 'y');
    await turn();
    assert.deepEqual(waits, [walWaitMs], 'a small one is waited for again');
    fixture.walStalled = false;
    assert.equal(await last, 5);
    await fixture.stop();
  });
});

describe('what the member tells', () => {
  it('compactions: hash, lines with etcd’s keys, waiters', async () => {
    fixture = new MemberFixture();
    const member = await fixture.start();
    for (let i = 0; i < 6; i++) await fixture.put('k', `${i}`);
    await fixture.propose(RequestField.compaction, CompactionRequest, { revision: 5 });
    assert.ok(member.isCompactingTo(5));
    await new Promise<void>((done) => member.afterCompaction(5, done));
    assert.ok(!member.isCompactingTo(5));
    await new Promise<void>((done) => member.afterCompaction(5, done));
    const hash = member.parts.compactionHashes.at(5)!;
    assert.equal(hash.compactRevision, -1);
    const [line] = fixture.logged('finished scheduled compaction');
    assert.equal(line!['compact-revision'], 5);
    assert.equal(line!['number-of-keys-compacted'], 3);
    assert.equal(line!['hash'], hash.hash);
    assert.match(String(line!['took']), /^[\d.]+(µs|ms|s)$/);
    assert.match(String(line!['current-db-size']), /^\d+ kB$/);
    const { mvcc } = fixture.metrics;
    assert.equal(mvcc.compactedKeys, 3);
    assert.equal(mvcc.indexCompactionPause.count, 1);
    assert.ok(mvcc.dbCompactionPause.count >= 1);
    assert.equal(mvcc.dbCompactionTotal.count, 1);
    // Compacted already: an answer with an error, but no failure.
    assert.equal(
      await fixture.propose(RequestField.compaction, CompactionRequest, { revision: 5 }),
      etcdErrors.compacted,
    );
    assert.deepEqual(fixture.logged('failed to apply request'), []);
    await fixture.stop();
  });

  it('a failed apply and a slow apply, with etcd’s keys', async () => {
    fixture = new MemberFixture();
    const member = await fixture.start('--warning-apply-duration=1ns');
    assert.equal(
      await fixture.propose(RequestField.leaseRevoke, LeaseRevokeRequest, { id: 0x1234n }),
      etcdErrors.leaseNotFound,
    );
    const [failed] = fixture.logged('failed to apply request');
    assert.match(String(failed!['request']), /^header:<ID:\d+> lease_revoke:<id:0000000000001234>$/);
    assert.deepEqual([failed!['level'], failed!['error']], ['warn', 'lease not found']);
    await fixture.put('some-key', 'a secret');
    const slow = fixture.logged('apply request took too long').at(-1)!;
    assert.deepEqual(Object.keys(slow).slice(4), ['took', 'expected-duration', 'prefix', 'request', 'response']);
    assert.match(String(slow['request']), /put:<key:"some-key" value_size:8 >$/);
    assert.equal(slow['response'], 'size:4');
    assert.ok(!fixture.lines.join('').includes('a secret'), 'no value in the log');
    assert.ok(member.parts.counters.slowApplies > 0);
    await fixture.stop();
  });

  it('durations of requests by kind and outcome, made with the first', async () => {
    fixture = new MemberFixture();
    await fixture.start();
    await fixture.propose(RequestField.leaseGrant, LeaseGrantRequest, { ttl: 100n, id: 7n });
    await fixture.propose(RequestField.leaseRevoke, LeaseRevokeRequest, { id: 8n });
    const text = await fixture.metrics.text();
    const count = (name: string, labels: string): string | undefined =>
      text.split('\n').find((line) => line.startsWith(`${name}_count{${labels}}`));
    const request = 'etcd_server_request_duration_seconds';
    const apply = 'etcd_server_apply_duration_seconds';
    assert.match(count(request, 'success="true",type="LeaseGrant"') ?? '', / 1$/);
    assert.equal(count(request, 'success="false",type="LeaseGrant"'), undefined);
    // The request was applied; what it did failed.
    assert.match(count(request, 'success="true",type="LeaseRevoke"') ?? '', / 1$/);
    assert.match(count(apply, 'op="LeaseRevoke",success="false",version="v3"') ?? '', / 1$/);
    await fixture.stop();
  });
});
