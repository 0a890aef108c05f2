// Goal: a physical compaction is answered when its deletes are done, also one that comes second and finds its revision compacted
// already; any other at once. Method: the registered handler over a real member whose deletes are held by a read that needs the rows.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { Router } from '../grpc/router.ts';
import { StatusCode } from '../grpc/status.ts';
import { CompactionRequest } from '../proto/etcdserverpb.ts';
import { encode } from '../proto/message.ts';

import { bigReadsOf } from '../testing/big-reads-of-member.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { RecordedCall } from '../testing/recorded-call.ts';
import { registerKv } from './kv.ts';

const fixture = new MemberFixture();
afterEach(() => fixture.remove());

test('a physical compaction waits for the deletes, whether it began them or not', async () => {
  const member = await fixture.start();
  const router = new Router();
  registerKv(router, member, {
    bigReads: bigReadsOf(member),
    txnOpsMax: 128,
    requestBytesMax: 1 << 20,
    afterCompaction: (revision, done) => member.afterCompaction(revision, done),
  });
  const compact = (revision: number, physical: boolean): RecordedCall =>
    new RecordedCall(router, '/etcdserverpb.KV/Compact').deliver(encode(CompactionRequest, { revision, physical }));
  for (let i = 0; i < 10; i++) await fixture.put('k', `v${i}`);
  const { backend } = member.parts;
  backend.pin(2);
  const first = compact(8, true);
  const second = compact(8, true);
  const logical = await compact(8, false).finished();
  assert.equal(logical.status?.code, StatusCode.outOfRange, 'it is compacted');
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.ok(!first.ended, 'its deletes have not begun');
  assert.ok(!second.ended, 'the same deletes are what it waits for');
  assert.equal(backend.compactedRows, 0);
  backend.unpin(2);
  await Promise.all([first.finished(), second.finished()]);
  assert.ok(backend.compactedRows > 0);
  assert.equal(first.status?.code, StatusCode.ok);
  assert.equal(second.status?.code, StatusCode.outOfRange);
  assert.match(second.status.message, /required revision has been compacted/);
  await fixture.stop();
});
