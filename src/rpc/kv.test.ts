// Goal: what rpc/kv.ts adds to its parts: reads that take many turns let everything else through, are measured and told as etcd tells
// them, and read-only Txns are bounded. Method: the registered handlers over a real member, with calls that record; the bounds shrunk.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { Router } from '../grpc/router.ts';
import { RequestField } from '../proto/internal-request.ts';
import { decode, encode, type Message, type MessageInit } from '../proto/message.ts';
import { bigReadsOf } from '../testing/big-reads-of-member.ts';
import { encodeTxn, type OpInit, RangeAnswer, RangeMessage } from '../testing/kv-messages.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { RecordedCall } from '../testing/recorded-call.ts';
import { registerKv } from './kv.ts';

let fixture: MemberFixture;
let router: Router;
const bytesOf = (text: string): Buffer => Buffer.from(text);
const ALL = { key: bytesOf('k'), rangeEnd: bytesOf('l') };

afterEach(() => fixture.remove());

async function setUp(...flags: string[]): Promise<void> {
  fixture = new MemberFixture();
  const member = await fixture.start(...flags);
  router = new Router();
  registerKv(router, member, {
    txnOpsMax: 2000,
    requestBytesMax: 1 << 20,
    afterCompaction: (_revision, done) => done(),
    bigReads: bigReadsOf(member, { slice: { keys: 20, bytes: 100_000, countKeys: 20 } }),
  });
}

function call(method: string, message: Buffer): RecordedCall {
  return new RecordedCall(router, `/etcdserverpb.KV/${method}`).deliver(message);
}

const range = (init: MessageInit<typeof RangeMessage>): RecordedCall => call('Range', encode(RangeMessage, init));

function answerOf(recorded: RecordedCall): Message<typeof RangeAnswer> {
  assert.deepEqual(recorded.status, { code: 0, message: '' });
  return decode(RangeAnswer, recorded.sent[0]!)!;
}

async function fill(count: number): Promise<number> {
  const success: OpInit[] = [];
  for (let i = 0; i < count; i++) success.push({ put: { key: bytesOf(`k${1000 + i}`), value: bytesOf(`v${i}`) } });
  const bytes = encodeTxn({ success });
  return await new Promise((resolve) => {
    const failed = (): void => assert.fail();
    fixture.member.propose(RequestField.txn, bytes, 0, bytes.length, {
      applied: (applier) => resolve(applier.revision),
      failed,
    });
  });
}

test('a list of many turns: gets and puts go through meanwhile, and it is exact at its revision', async () => {
  await setUp('--warning-apply-duration=1ns');
  const revision = await fill(1000);
  const list = range(ALL);
  const sorted = range({ ...ALL, sortTarget: 3, sortOrder: 2, limit: 5 });
  assert.ok(!list.ended && !sorted.ended);
  const get = range({ key: bytesOf('k1005') });
  assert.equal(answerOf(get).kvs[0]!.value.toString(), 'v5');
  assert.equal(await fixture.put('k1005', 'later'), revision + 1);
  assert.equal(await fixture.put('kz', 'new'), revision + 2);
  assert.ok(!list.ended, 'the puts had to wait for the list');
  await Promise.all([list.finished(), sorted.finished()]);
  const { kvs, count, header } = answerOf(list);
  assert.deepEqual([kvs.length, count, header!.revision], [1000, 1000, revision]);
  assert.deepEqual(
    kvs.map(({ value }) => value.toString()),
    Array.from({ length: 1000 }, (_, i) => `v${i}`),
  );
  assert.equal(answerOf(sorted).kvs.length, 5);
  assert.equal(answerOf(sorted).more, true);
  // As etcd tells it: the size of the response with a header of the revision alone.
  const line = fixture
    .logged('apply request took too long')
    .find((fields) => String(fields['response']).startsWith('range_response_count:1000 '));
  const headerBytes = 2 + list.sent[0]![1]!;
  assert.equal(line!['response'], `range_response_count:1000 size:${list.sent[0]!.length - headerBytes + 4}`);
  await fixture.stop();
});

test('what fits a slice is answered in its turn, sorted or not', async () => {
  await setUp();
  await fill(20);
  for (const init of [
    ALL,
    { ...ALL, sortTarget: 4, sortOrder: 2 },
    { ...ALL, countOnly: true },
    { ...ALL, limit: 7 },
  ]) {
    const recorded = range(init);
    assert.ok(recorded.ended, JSON.stringify(init));
    assert.equal(answerOf(recorded).count, 20);
  }
  await fixture.stop();
});

test('a chunk of a stream is bounded in bytes, however large the values are that follow small ones', async () => {
  await setUp();
  const small = await fill(3000);
  for (let i = 0; i < 60; i++) await fixture.put(`k9${100 + i}`, 'x'.repeat(100_000));
  const stream = new RecordedCall(router, '/etcdserverpb.KV/RangeStream').open();
  await stream.deliver(encode(RangeMessage, ALL)).finished();
  const keys: string[] = [];
  for (const sent of stream.sent) {
    assert.ok(sent.length < 2 * (1 << 20) + 200_000, `a chunk of ${sent.length} bytes`);
    const chunk = decode({ range: { no: 1, kind: RangeAnswer } }, sent)!.range!;
    keys.push(...chunk.kvs.map((kv) => kv.key.toString()));
    if (chunk.header !== undefined) assert.deepEqual([chunk.count, chunk.header.revision], [3060, small + 60]);
  }
  assert.deepEqual(keys, keys.toSorted());
  assert.equal(new Set(keys).size, 3060);
  await fixture.stop();
});

test('a read that is cancelled lets go; a compaction to its revision takes nothing from another', async () => {
  await setUp();
  const revision = await fill(500);
  const gone = range(ALL);
  gone.ended = true;
  gone.onCancel!();
  const left = range(ALL);
  assert.ok(!left.ended);
  const compaction = encode({ revision: { no: 1, kind: 'int' } }, { revision });
  await call('Compact', compaction).finished();
  await left.finished();
  assert.equal(answerOf(left).kvs.length, 500);
  await fixture.stop();
});
