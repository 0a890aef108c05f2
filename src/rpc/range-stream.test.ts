// Goal: a RangeStream's chunks glued together are the range, at one revision, with header, more and count in the last alone; what a
// slow client has not taken is never overwritten, a stream holds two chunks at most, and its count takes no long turn. Method: the handler over a real member, with
// a call that keeps what it is sent by reference and takes it in random pieces, as the connection does.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { http2Limits } from '../connection-limits.ts';
import { Router } from '../grpc/router.ts';
import { SeededRandom } from '../io/random.ts';
import { type ReadSlice, rangeStreamChunkBytesMax } from '../limits.ts';
import { RangeCount } from '../mvcc/range-count.ts';
import { CompactionRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { RangeStreamResponse } from '../proto/kv-schema.ts';
import { decode, encode, type Message, type MessageInit } from '../proto/message.ts';
import { bigReadsOf } from '../testing/big-reads-of-member.ts';
import { encodeTxn, type OpInit, RangeMessage } from '../testing/kv-messages.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { RecordedCall } from '../testing/recorded-call.ts';
import { RangeStreamHandler } from './range-stream.ts';

const SERVICE = 'etcdserverpb.KV';
const METHOD = 'RangeStream';
const MESSAGE_PREFIX_BYTES = 5;
const random: SeededRandom = new SeededRandom(20261121);
let fixture: MemberFixture;
let router: Router;

afterEach(async () => {
  await fixture.stop();
  fixture.remove();
});

async function setUp(chunkBytes: number): Promise<void> {
  fixture = new MemberFixture();
  const member = await fixture.start();
  router = new Router();
  router.stream(SERVICE, METHOD, 'server', new RangeStreamHandler(member, chunkBytes, bigReadsOf(member)));
}

/** Takes what was sent a piece at a time; the message that is complete is in `sent`. */
class SlowCall extends RecordedCall {
  /** Memory that messages were in. */
  readonly memory = new Set<ArrayBufferLike>();
  bufferedMax = 0;
  private unread: { part: Buffer; at: number; got: Buffer[] }[] = [];
  private owesDrain = false;

  override sendParts(parts: readonly Buffer[]): boolean {
    assert.equal(parts.length, 1);
    this.memory.add(parts[0]!.buffer);
    this.unread.push({ part: parts[0]!, at: -MESSAGE_PREFIX_BYTES, got: [] });
    this.bufferedBytes += MESSAGE_PREFIX_BYTES + parts[0]!.length;
    this.bufferedMax = Math.max(this.bufferedMax, this.bufferedBytes);
    this.owesDrain = this.bufferedBytes >= http2Limits.streamHighWaterBytes;
    return !this.owesDrain;
  }

  get idle(): boolean {
    return this.bufferedBytes === 0;
  }

  take(bytes: number): void {
    let left = Math.min(bytes, this.bufferedBytes);
    this.bufferedBytes -= left;
    while (left > 0) {
      const head = this.unread[0]!;
      const end = Math.min(head.part.length, head.at + left);
      left -= end - head.at;
      head.got.push(Buffer.from(head.part.subarray(Math.max(0, head.at), Math.max(0, end))));
      head.at = end;
      if (end < head.part.length) break;
      this.sent.push(Buffer.concat(head.got));
      this.unread.shift();
    }
    if (!this.owesDrain || this.bufferedBytes > http2Limits.streamLowWaterBytes) return;
    this.owesDrain = false;
    this.onDrain?.();
  }
}

const valueAt = (i: number): Buffer => Buffer.alloc(i % 500 === 0 ? 40_000 : i % 700, i);
const keyAt = (i: number): Buffer => Buffer.from(`k${String(i).padStart(6, '0')}`);

/** In Txns of a hundred. */
async function fill(count: number): Promise<void> {
  for (let from = 0; from < count; from += 100) {
    const success: OpInit[] = [];
    for (let i = from; i < Math.min(count, from + 100); i++)
      success.push({ put: { key: keyAt(i), value: valueAt(i) } });
    const bytes = encodeTxn({ success });
    await new Promise<void>((resolve, reject) => {
      const failed = (): void => reject(new Error('a put failed'));
      fixture.member.propose(RequestField.txn, bytes, 0, bytes.length, { applied: () => resolve(), failed });
    });
  }
}

/** Reads the stream to its end at a random pace. */
async function read(call: SlowCall): Promise<Message<typeof RangeStreamResponse>[]> {
  while (!call.ended || !call.idle) {
    call.take(1 + random.below(random.below(4) === 0 ? 300_000 : 20_000));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual(call.status, { code: 0, message: '' });
  return call.sent.map((bytes) => decode(RangeStreamResponse, bytes)!);
}

function streamOf(limit = 0, more: MessageInit<typeof RangeMessage> = {}): SlowCall {
  const request = encode(RangeMessage, { key: Buffer.from('k'), rangeEnd: Buffer.from('l'), limit, ...more });
  return new SlowCall(router, `/${SERVICE}/${METHOD}`).deliver(request);
}

function check(chunks: Message<typeof RangeStreamResponse>[], count: number, total: number): void {
  const responses = chunks.map((chunk) => chunk.rangeResponse!);
  const last = responses.at(-1)!;
  for (const response of responses.slice(0, -1)) {
    assert.equal(response.header, undefined);
    assert.equal(response.more, false);
    assert.equal(response.count, 0);
    assert.ok(response.kvs.length > 0);
  }
  assert.ok(last.header!.revision > 0);
  assert.equal(last.count, total);
  assert.equal(last.more, count < total);
  const kvs = responses.flatMap((response) => response.kvs);
  assert.equal(kvs.length, count);
  for (const [i, kv] of kvs.entries()) {
    assert.ok(keyAt(i).equals(kv.key), `key ${i}`);
    assert.ok(valueAt(i).equals(kv.value), `value ${i}`);
  }
}

test('a slow client gets the range, and the stream holds two chunks', async () => {
  await setUp(2 * rangeStreamChunkBytesMax);
  const total = 6000;
  await fill(total);
  for (const limit of [0, 1, 10, 11, 1234, total, total + 1]) {
    const call = streamOf(limit);
    check(await read(call), limit === 0 ? total : Math.min(limit, total), total);
    // A chunk is at most twice its size, and one value more.
    assert.ok(call.bufferedMax <= 2 * rangeStreamChunkBytesMax + 40_000 + http2Limits.streamHighWaterBytes);
    // Two writers, which may grow a few times each, and new ones for the first chunks, which are small and wait together.
    assert.ok(call.memory.size <= 12, `${call.memory.size} pieces of memory for ${call.sent.length} chunks`);
    if (limit === 0) assert.ok(call.sent.length > 12);
  }
});

test('--max-request-bytes bounds the chunks when it is less', async () => {
  await setUp(4000);
  await fill(400);
  const call = streamOf();
  check(await read(call), 400, 400);
  // A single row may be larger.
  for (const bytes of call.sent)
    assert.ok(bytes.length <= 8000 + 700 + 100 || bytes.length > 40_000, `${bytes.length}`);
});

test('puts meanwhile are not seen, a cancelled stream ends', async () => {
  await setUp(rangeStreamChunkBytesMax);
  const total = 2000;
  await fill(total);
  const call = streamOf();
  call.take(100_000);
  const success: OpInit[] = [];
  for (let i = 0; i < 100; i++) success.push({ put: { key: keyAt(total - i), value: Buffer.from('new') } });
  const bytes = encodeTxn({ success });
  await new Promise<void>((resolve) => {
    const failed = (): void => assert.fail();
    fixture.member.propose(RequestField.txn, bytes, 0, bytes.length, { applied: () => resolve(), failed });
  });
  check(await read(call), total, total);
  const cancelled = streamOf();
  cancelled.fail({ code: 1, message: 'cancelled' });
  cancelled.take(1e9);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(cancelled.idle, true, 'chunks for a call that is over');
});

const COUNT_SLICE: ReadSlice = { keys: 1, bytes: 1, countKeys: 100 };

/** Slices of counts and the pins of a member's store, while a test runs. */
class Watched {
  /** The turn of each slice. */
  readonly slices: number[] = [];
  pinned = 0;
  pins = 0;
  turn = 0;
  private readonly step = RangeCount.prototype.step;
  private ticker: NodeJS.Immediate | null = null;

  constructor() {
    const tick = (): void => {
      this.turn++;
      this.ticker = setImmediate(tick);
    };
    tick();
    const watched = this;
    RangeCount.prototype.step = function (sliceMax): boolean {
      watched.slices.push(watched.turn);
      const looked = this.looked;
      const done = watched.step.call(this, sliceMax);
      // The rows of one revision are never split: a hundred, here.
      assert.ok(this.looked - looked <= 2 * COUNT_SLICE.countKeys, 'a turn counts more than a slice');
      return done;
    };
    const { store } = fixture.member.parts;
    const { pin, unpin } = store;
    store.pin = (revision) => {
      this.pinned++;
      this.pins++;
      pin.call(store, revision);
    };
    store.unpin = (revision) => {
      this.pinned--;
      unpin.call(store, revision);
    };
  }

  stop(): void {
    if (this.ticker !== null) clearImmediate(this.ticker);
    RangeCount.prototype.step = this.step;
  }
}

/** Puts so that the index cannot count them at the revision before: what it knows of older ones is gone with the process. */
async function fillTwice(before: number, after: number): Promise<number> {
  await fill(before);
  const { currentRevision } = fixture.member.parts.store;
  await fill(after);
  await fixture.stop();
  const member = await fixture.start();
  router = new Router();
  const bigReads = bigReadsOf(member, { slice: COUNT_SLICE });
  router.stream(SERVICE, METHOD, 'server', new RangeStreamHandler(member, rangeStreamChunkBytesMax, bigReads));
  return currentRevision;
}

test('a count that costs a scan is made a slice a turn, at a pinned revision, and lets go when its stream ends', async () => {
  await setUp(rangeStreamChunkBytesMax);
  const revision = await fillTwice(3000, 1500);
  const watched = new Watched();
  try {
    for (const [limit, countOnly] of [
      [0, true],
      [25, false],
    ] as const) {
      watched.slices.length = 0;
      const call = streamOf(limit, { revision, countOnly });
      assert.equal(watched.pinned, countOnly ? 1 : 0);
      const chunks = await read(call);
      if (countOnly) {
        const [only, ...others] = chunks.map((chunk) => chunk.rangeResponse!);
        assert.deepEqual([others.length, only!.kvs.length, only!.more, only!.count], [0, 0, false, 3000]);
        assert.equal(only!.header!.revision, fixture.member.parts.store.currentRevision);
      } else check(chunks, 25, 3000);
      assert.ok(watched.slices.length >= 10, `only ${watched.slices.length} slices`);
      assert.equal(new Set(watched.slices).size, watched.slices.length, 'two slices in a turn');
      assert.equal(watched.pinned, 0);
    }
    const cancelled = streamOf(0, { revision, countOnly: true });
    assert.equal(watched.pinned, 1);
    cancelled.cancel();
    assert.equal(watched.pinned, 0, 'a compaction waits for a stream that is gone');
    const slices = watched.slices.length;
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(watched.slices.length, slices);
    assert.equal(watched.pins, 3);
  } finally {
    watched.stop();
  }
});

test('many streams make one chunk, or slice of a count, a turn, all together, and each comes to its end', async () => {
  await setUp(rangeStreamChunkBytesMax);
  const revision = await fillTwice(1200, 800);
  const watched = new Watched();
  const { store } = fixture.member.parts;
  const { rangeChunk } = store;
  const chunks: number[] = [];
  store.rangeChunk = (request, out, bytesMax) => {
    chunks.push(watched.turn);
    return rangeChunk.call(store, request, out, bytesMax);
  };
  try {
    // The first chunk of each is made when it comes, and the first slice of a count when nobody waits.
    const streams = Array.from({ length: 12 }, () => streamOf(0, { revision }));
    // Each of another range: what one counts it leaves to the others.
    const counts = Array.from({ length: 8 }, (_, i) => streamOf(0, { key: keyAt(i), revision, countOnly: true }));
    assert.deepEqual([chunks.length, watched.slices.length <= 1], [streams.length, true]);
    watched.slices.length = chunks.length = 0;
    const results = await Promise.all([...streams, ...counts].map(read));
    for (const result of results.slice(0, 12)) check(result, 1200, 1200);
    for (const [i, [chunk]] of results.slice(12).entries()) assert.equal(chunk!.rangeResponse!.count, 1200 - i);
    assert.ok(chunks.length >= 12 * 5 && watched.slices.length >= 8 * 5, `${chunks.length}, ${watched.slices.length}`);
    const turns = [...chunks, ...watched.slices];
    assert.equal(new Set(turns).size, turns.length, 'two in a turn');
    assert.equal(watched.pinned, 0);
  } finally {
    watched.stop();
  }
});

function compact(revision: number): Promise<void> {
  const bytes = encode(CompactionRequest, { revision });
  return new Promise((resolve, reject) => {
    const failed = (): void => reject(new Error('the compaction failed'));
    fixture.member.propose(RequestField.compaction, bytes, 0, bytes.length, { applied: () => resolve(), failed });
  });
}

test('a count at a future or compacted revision is refused; a compaction meanwhile ends chunks, and no count', async () => {
  await setUp(rangeStreamChunkBytesMax);
  const revision = await fillTwice(1200, 200);
  const future = fixture.member.parts.store.currentRevision + 1;
  const futureRevision = { code: 11, message: 'etcdserver: mvcc: required revision is a future revision' };
  const compacted = { code: 11, message: 'etcdserver: mvcc: required revision has been compacted' };
  const watched = new Watched();
  try {
    const refused = streamOf(0, { revision: future, countOnly: true });
    assert.deepEqual([refused.status, refused.sent.length], [futureRevision, 0]);
    const counting = streamOf(0, { revision, countOnly: true });
    const listing = streamOf(0, { revision });
    assert.ok(!counting.ended && watched.pinned === 1);
    await compact(revision + 1);
    const [chunk] = await read(counting);
    assert.deepEqual([chunk!.rangeResponse!.count, watched.pinned], [1200, 0]);
    // It had a chunk or two, and no room for more.
    listing.take(1e9);
    await listing.finished();
    assert.deepEqual(listing.status, compacted);
    assert.ok(listing.sent.length > 0);
    for (const countOnly of [true, false]) assert.deepEqual(streamOf(0, { revision, countOnly }).status, compacted);
    assert.equal(watched.pins, 1);
  } finally {
    watched.stop();
  }
});
