// Goal: what rpc/kv.ts adds to its parts: reads that take many turns let everything else through, are measured and told as etcd tells
// them, whether they are ranges or Txns of ranges. Method: the registered handlers over a real member, with calls that record; the
// bounds shrunk.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { Router } from '../grpc/router.ts';
import { RequestField } from '../proto/internal-request.ts';
import { decode, encode, type Message, type MessageInit } from '../proto/message.ts';
import { bigReadsOf } from '../testing/big-reads-of-member.ts';
import { decodeTxnAnswer, encodeTxn, type OpInit, RangeAnswer, RangeMessage } from '../testing/kv-messages.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { RecordedCall } from '../testing/recorded-call.ts';
import type { BigReads } from './big-reads.ts';
import { registerKv } from './kv.ts';

let fixture: MemberFixture;
let router: Router;
const bytesOf = (text: string): Buffer => Buffer.from(text);
const SLICE = { keys: 20, bytes: 100_000, countKeys: 20 };
const ALL = { key: bytesOf('k'), rangeEnd: bytesOf('l') };

afterEach(() => fixture.remove());

async function setUp(...flags: string[]): Promise<void> {
  fixture = new MemberFixture();
  register(bigReadsOf(await fixture.start(...flags), { slice: SLICE }));
}

function register(bigReads: BigReads): void {
  router = new Router();
  registerKv(router, fixture.member, {
    txnOpsMax: 2000,
    requestBytesMax: 1 << 20,
    afterCompaction: (_revision, done) => done(),
    bigReads,
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
    // A turn has one slice for all.
    await new Promise((resolve) => setImmediate(resolve));
  }
  await fixture.stop();
});

const txn = (success: readonly OpInit[]): RecordedCall => call('Txn', encodeTxn({ success }));

/** What each range of a Txn has answered. */
function rangesOf(recorded: RecordedCall): Message<typeof RangeAnswer>[] {
  assert.deepEqual(recorded.status, { code: 0, message: '' });
  return decodeTxnAnswer(recorded.sent[0]!)!.responses.map((response) => response.range!);
}

test('a Txn that only reads and takes many turns lets gets, puts and small Txns through, and is exact at its revision', async () => {
  await setUp('--warning-apply-duration=1ns');
  const revision = await fill(1000);
  const key: OpInit = { range: { key: bytesOf('k1005') } };
  const sorted: OpInit = { range: { ...ALL, sortTarget: 3, sortOrder: 2, limit: 30 } };
  const list = txn([key, { range: ALL }, sorted, key]);
  assert.ok(!list.ended);
  await new Promise((resolve) => setImmediate(resolve));
  const small = txn([key, { range: { ...ALL, limit: 5 } }]);
  assert.ok(small.ended, 'what fits a slice is answered in its turn');
  assert.deepEqual(
    rangesOf(small).map(({ kvs, more, count }) => [kvs.length, more, count]),
    [
      [1, false, 1],
      [5, true, 1000],
    ],
  );
  assert.equal(await fixture.put('k1005', 'later'), revision + 1);
  assert.equal(await fixture.put('kz', 'new'), revision + 2);
  assert.ok(!list.ended, 'the puts had to wait for the Txn');
  await list.finished();
  const ranges = rangesOf(list);
  assert.deepEqual(
    ranges.map(({ header, kvs, more, count }) => [header!.revision, kvs.length, more, count]),
    [
      [revision, 1, false, 1],
      [revision, 1000, false, 1000],
      [revision, 30, true, 1000],
      [revision, 1, false, 1],
    ],
  );
  assert.equal(decodeTxnAnswer(list.sent[0]!)!.header!.revision, revision);
  assert.equal(ranges[3]!.kvs[0]!.value.toString(), 'v5');
  // As etcd tells it.
  const counts = [1, 1000, 30, 1].map((count) => `range_response_count:${count}`).join(' ');
  const headerBytes = 2 + list.sent[0]![1]!;
  const size = list.sent[0]!.length - headerBytes + 4;
  const told = fixture.logged('apply request took too long').map((fields) => String(fields['response']));
  assert.ok(told.includes(`responses:<${counts}> size:${size}`), told.join('\n'));
  await fixture.stop();
});

test('Txns that read much wait as ranges do; one that is cancelled lets go of its revision', async () => {
  await setUp();
  const revision = await fill(500);
  const bigReads = bigReadsOf(fixture.member, { slice: SLICE, connectionReadsMax: 1 });
  register(bigReads);
  const all: OpInit = { range: ALL };
  const [first, second, third] = [txn([all]), txn([all, all]), txn([all])];
  assert.deepEqual(bigReads.load.reads, 1);
  assert.deepEqual(bigReads.load.waiting, 2);
  for (const gone of [first, second]) {
    gone.cancel();
  }
  const compaction = encode({ revision: { no: 1, kind: 'int' }, physical: { no: 2, kind: 'bool' } }, { revision });
  await call('Compact', compaction).finished();
  await third.finished();
  assert.equal(rangesOf(third)[0]!.kvs.length, 500);
  assert.deepEqual(bigReads.load, { reads: 0, waiting: 0, bytes: 0 });
  // What was asked before the compaction is refused as in one turn.
  const old = txn([all, { range: { ...ALL, revision: 1 } }]);
  assert.equal(old.status?.code, 11);
  await fixture.stop();
});

/** Records what is kept of its request, as a call does that is answered later. */
class KeepingCall extends RecordedCall {
  readonly kept: Buffer[] = [];
  override keepRequest(message?: Buffer): void {
    this.kept.push(message!);
  }
}

const LONG_BYTES = 1_000_000;
/** As many of those as have room. */
const WAITING = 16;

test('requests that wait are kept once, counted while they wait, bounded by their bytes, and answered', async () => {
  const longKey: OpInit = { range: { key: Buffer.alloc(LONG_BYTES, 'k1') } };
  for (const [method, message] of [
    ['Txn', encodeTxn({ success: [{ range: ALL }, longKey] })],
    ['Range', encode(RangeMessage, { key: bytesOf('k'), rangeEnd: Buffer.alloc(LONG_BYTES, 'l') })],
  ] as const) {
    await setUp();
    await fill(100);
    const bigReads = bigReadsOf(fixture.member, { slice: SLICE, connectionReadsMax: 1 });
    register(bigReads);
    // The connection's: one message after the other lies in it.
    const buffer = Buffer.alloc(5 + message.length);
    const ask = (): KeepingCall => {
      const recorded = new KeepingCall(router, `/etcdserverpb.KV/${method}`);
      message.copy(buffer, 5);
      recorded.method.unary!(recorded, buffer, 5, buffer.length);
      buffer.fill(0xdd);
      return recorded;
    };
    const first = ask();
    const { bytes } = bigReads.load;
    // The call's copy, and those of the read itself.
    assert.ok(bytes > 2 * LONG_BYTES && bytes < 4 * LONG_BYTES, `${method}: ${bytes} bytes`);
    const { arrayBuffers } = process.memoryUsage();
    const waiting = Array.from({ length: WAITING }, ask);
    const grown = process.memoryUsage().arrayBuffers - arrayBuffers;
    assert.ok(grown < 1.5 * WAITING * LONG_BYTES, `${grown} bytes for ${WAITING} ${method}s that wait`);
    assert.deepEqual([bigReads.load.waiting, bigReads.load.bytes - bytes], [WAITING, WAITING * message.length]);
    assert.equal(ask().status?.code, 8);
    for (const each of [first, ...waiting]) {
      await each.finished();
      assert.deepEqual([each.status?.code, each.kept.length, each.kept[0]?.equals(message)], [0, 1, true]);
      const answer = each.sent[0]!;
      const { count } = method === 'Txn' ? decodeTxnAnswer(answer)!.responses[0]!.range! : decode(RangeAnswer, answer)!;
      assert.equal(count, 100);
    }
    assert.deepEqual(bigReads.load, { reads: 0, waiting: 0, bytes: 0 });
    await fixture.stop();
    fixture.remove();
  }
});

test('a Txn of single keys is answered at once whatever its connection reads, unless their values are large', async () => {
  await setUp();
  await fill(500);
  for (let i = 0; i < 3; i++) await fixture.put(`x${i}`, 'x'.repeat(SLICE.bytes));
  const bigReads = bigReadsOf(fixture.member, { slice: SLICE, connectionReadsMax: 1 });
  register(bigReads);
  const key: OpInit = { range: { key: bytesOf('k1005') } };
  const list = range(ALL);
  const [keys, paged] = [txn([key, key]), txn([key, { range: { ...ALL, limit: 2 } }])];
  assert.deepEqual([list.ended, keys.ended, paged.ended], [false, true, false]);
  assert.deepEqual(
    rangesOf(keys).map(({ kvs }) => kvs[0]!.value.toString()),
    ['v5', 'v5'],
  );
  // The other branch may be chosen.
  const either = encodeTxn({ success: [key], failure: [{ range: ALL }] });
  assert.equal(call('Txn', either).ended, false);
  const large = txn(Array.from({ length: 3 }, (_, i) => ({ range: { key: bytesOf(`x${i}`) } })));
  assert.deepEqual([large.ended, bigReads.load.reads, bigReads.load.waiting], [false, 1, 3]);
  await large.finished();
  assert.deepEqual(
    rangesOf(large).map(({ kvs }) => kvs[0]!.value.length),
    [SLICE.bytes, SLICE.bytes, SLICE.bytes],
  );
  assert.deepEqual(bigReads.load, { reads: 0, waiting: 0, bytes: 0 });
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
  gone.cancel();
  const left = range(ALL);
  assert.ok(!left.ended);
  const compaction = encode({ revision: { no: 1, kind: 'int' } }, { revision });
  await call('Compact', compaction).finished();
  await left.finished();
  assert.equal(answerOf(left).kvs.length, 500);
  await fixture.stop();
});
