// Goal: what Lease answers with lists of any length is whole and of one moment, in slices. Method: the registered handlers over a real
// member, with calls that record. What leases do is lease/lessor.test.ts, renewals are services.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Router } from '../grpc/router.ts';
import { readSlice } from '../limits.ts';
import {
  LeaseGrantRequest,
  LeaseLeasesResponse,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
} from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { decode, encode } from '../proto/message.ts';
import { bigReadsOf } from '../testing/big-reads-of-member.ts';
import { encodeTxn, RangeMessage } from '../testing/kv-messages.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { RecordedCall } from '../testing/recorded-call.ts';
import { registerKv } from './kv.ts';
import { registerLease } from './lease.ts';

async function txn(fixture: MemberFixture, keys: readonly string[], lease: bigint): Promise<void> {
  const success = keys.map((key) => ({ put: { key: Buffer.from(key, 'latin1'), value: Buffer.from('v'), lease } }));
  const bytes = encodeTxn({ success });
  await new Promise<void>((resolve, reject) => {
    const failed = (error: { readonly message: string }): void => reject(new Error(error.message));
    const waiter = { applied: (): void => resolve(), failed };
    const error = fixture.member.propose(RequestField.txn, bytes, 0, bytes.length, waiter);
    if (error !== null) failed(error);
  });
}

test('keys of a lease and all leases, few or more than a slice takes', async () => {
  const fixture = new MemberFixture();
  const member = await fixture.start();
  const router = new Router();
  registerLease(router, member, bigReadsOf(member));
  const ask = (method: string, message: Buffer): RecordedCall =>
    new RecordedCall(router, `/etcdserverpb.Lease/${method}`).deliver(message);
  const many = 2 * readSlice.countKeys + 10;
  const names = (count: number): string[] => Array.from({ length: count }, (_, i) => `k\xff${i}`);
  for (const count of [0, 3, many]) {
    const id = BigInt(100 + count);
    assert.equal(
      typeof (await fixture.propose(RequestField.leaseGrant, LeaseGrantRequest, { id, ttl: 60n })),
      'number',
    );
    if (count > 0) await txn(fixture, names(count), id);
    const call = ask('LeaseTimeToLive', encode(LeaseTimeToLiveRequest, { id, keys: true }));
    assert.equal(call.ended, count < many, 'a long list is given in one turn, or a short one is not');
    const revision = member.parts.store.currentRevision;
    // Not in the answer: it is of the moment of the request.
    if (count === many) await txn(fixture, ['later'], id);
    await call.finished();
    const answer = decode(LeaseTimeToLiveResponse, call.sent[0]!)!;
    assert.deepEqual([answer.id, answer.grantedTtl, answer.header!.revision], [id, 60n, revision]);
    assert.deepEqual(answer.keys.map((key) => key.toString('latin1')).sort(), names(count).sort());
    const without = ask('LeaseTimeToLive', encode(LeaseTimeToLiveRequest, { id, keys: false }));
    assert.deepEqual(decode(LeaseTimeToLiveResponse, without.sent[0]!)!.keys, []);
  }
  const granted = [];
  for (let i = 0; i < many; i++) {
    granted.push(fixture.propose(RequestField.leaseGrant, LeaseGrantRequest, { id: BigInt(10_000 + i), ttl: 600n }));
  }
  await Promise.all(granted);
  const call = ask('LeaseLeases', Buffer.alloc(0));
  assert.ok(!call.ended);
  await call.finished();
  const { leases } = decode(LeaseLeasesResponse, call.sent[0]!)!;
  const ids = leases.map(({ id }) => Number(id)).sort((a, b) => a - b);
  assert.deepEqual(ids, [100, 103, 100 + many, ...Array.from({ length: many }, (_, i) => 10_000 + i)]);
  await fixture.stop();
  fixture.remove();
});

test('lists of leases wait for ranges of the same connection: their bounds are one', async () => {
  const fixture = new MemberFixture();
  const member = await fixture.start();
  const router = new Router();
  const bigReads = bigReadsOf(member, { connectionReadsMax: 1 });
  const afterCompaction = (): void => assert.fail();
  registerKv(router, member, { bigReads, txnOpsMax: 128, requestBytesMax: 1 << 20, afterCompaction });
  registerLease(router, member, bigReads);
  const names = Array.from({ length: 2 * readSlice.keys }, (_, i) => `k${i}`);
  await txn(fixture, names, 0n);
  const range = new RecordedCall(router, '/etcdserverpb.KV/Range');
  range.deliver(encode(RangeMessage, { key: Buffer.from('k'), rangeEnd: Buffer.from('l') }));
  const leases = new RecordedCall(router, '/etcdserverpb.Lease/LeaseLeases').deliver(Buffer.alloc(0));
  assert.deepEqual([range.ended, leases.ended, bigReads.load.waiting], [false, false, 1]);
  await Promise.all([range.finished(), leases.finished()]);
  assert.deepEqual([range.status?.code, leases.status?.code], [0, 0]);
  await fixture.stop();
  fixture.remove();
});
