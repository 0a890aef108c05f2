// Goal: ranges that take many turns end with the answer of their revision, take turns, hold no more than their bounds allow, and leave
// nothing behind when they are cancelled or too large. Method: the store over its model engine, calls whose answers the test takes part
// by part, and a scheduler that the test turns; random mixes of all of it, then each bound alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteWriter } from '../base/byte-writer.ts';
import { Router } from '../grpc/router.ts';
import { type Random, SeededRandom } from '../io/random.ts';
import type { BigReadLimits } from '../limits.ts';
import { RangeRead } from '../mvcc/range-read.ts';
import {
  CheckedStore,
  decodeRange,
  type RangeOptions,
  type RangeResult,
  randomKey,
  requestOf,
} from '../mvcc/store-fixture.ts';
import { ResponseHeaderEncoder } from '../server/response-header.ts';
import { RecordedCall } from '../testing/recorded-call.ts';
import { BigReads, ReadSize } from './big-reads.ts';

const router = new Router();
router.unary('etcdserverpb.KV', 'Range', () => {});

/** A call of a client that takes its answer when the test says so. */
class SlowCall extends RecordedCall {
  override readonly connection: RecordedCall['connection'];
  readonly taken: Buffer[] = [];
  total = -1;
  private next: (() => Buffer) | null = null;

  constructor(connectionId: number) {
    super(router, '/etcdserverpb.KV/Range');
    this.connection = { id: connectionId, remoteAddress: 'test', localAddress: 'test', tls: null };
  }

  room: (() => void) | null = null;

  override whenRoom(done: () => void): void {
    this.room = done;
  }

  override respondPulled(bytes: number, _last: Buffer, next: () => Buffer): void {
    assert.ok(!this.ended && this.total === -1);
    this.total = bytes;
    this.next = next;
  }

  get sending(): boolean {
    return this.next !== null && !this.ended;
  }

  /** Takes one part; true: that was the last. */
  pull(): boolean {
    this.taken.push(this.next!());
    const bytes = this.taken.reduce((sum, part) => sum + part.length, 0);
    assert.ok(bytes <= this.total);
    if (bytes < this.total) return false;
    this.end();
    return true;
  }
}

const plenty: BigReadLimits = {
  slice: { keys: 3, bytes: 100, countKeys: 3 },
  answerBytesMax: 2 ** 31 - 1,
  assembledBytesMax: 1e9,
  sendingBytesMax: 1e9,
  unreadBytesMax: 1e9,
  connectionReadsMax: 100,
  unsentBytesMax: 1e9,
  connectionWaitingMax: 1000,
  waitingMax: 1000,
  connectionWaitingBytesMax: 1e9,
  waitingBytesMax: 1e9,
  idleMs: 5000,
  stallMs: 120_000,
  lookMs: 1000,
};

interface Asked {
  readonly call: SlowCall;
  /** Null while it waits to begin. */
  expected: RangeResult | null;
  ended: number;
  /** How often it had to wait before it began. */
  waits: number;
}

class Bench {
  readonly checked: CheckedStore = new CheckedStore();
  readonly bigReads: BigReads;
  private readonly limits: BigReadLimits;
  private due: (() => void) | null = null;
  private timers: { readonly atMs: number; readonly callback: () => void }[] = [];
  nowMs = 0;

  constructor(limits: Partial<BigReadLimits> = {}) {
    this.limits = { ...plenty, ...limits };
    this.bigReads = new BigReads(this.limits, new ResponseHeaderEncoder(1n, 2n), {
      schedule: (run) => {
        assert.equal(this.due, null, 'scheduled twice');
        this.due = run;
      },
      setTimer: (delayMs, callback) => this.timers.push({ atMs: this.nowMs + delayMs, callback }),
      nowMs: () => this.nowMs,
    });
  }

  /** Time goes on, with the turns that fall due. */
  pass(ms: number): void {
    const endMs = this.nowMs + ms;
    for (this.turns(); ; this.turns()) {
      const timer = this.timers.find(({ atMs }) => atMs <= endMs);
      if (timer === undefined) break;
      this.nowMs = timer.atMs;
      this.timers = this.timers.filter((other) => other !== timer);
      timer.callback();
    }
    this.nowMs = endMs;
  }

  fill(count: number, valueBytes = 20): void {
    this.checked.begin();
    for (let i = 0; i < count; i++) this.checked.put(`k${1000 + i}`, 'v'.repeat(valueBytes));
    this.checked.commit();
  }

  /** As rpc/kv.ts does. */
  ask(connectionId: number, options: RangeOptions): Asked {
    const asked: Asked = { call: new SlowCall(connectionId), expected: null, ended: 0, waits: 0 };
    asked.call.connectionBufferedBytes = this.buffered;
    this.begin(asked, options);
    return asked;
  }

  private begin(asked: Asked, options: RangeOptions): void {
    const { call } = asked;
    const request = requestOf(options);
    const isKey = request.rangeEndStart === request.rangeEndEnd;
    const isPage = request.limit > 0 && request.limit <= this.limits.slice.keys;
    const size = isKey ? ReadSize.keys : isPage ? ReadSize.page : ReadSize.any;
    if (this.bigReads.mustWait(call, size, request.buffer.length)) {
      asked.waits++;
      this.bigReads.wait(call, size, request.buffer.length, () => this.begin(asked, options));
      return;
    }
    asked.expected = this.checked.expected(options);
    const out = new ByteWriter(16);
    const read = this.checked.store.rangeSliced(request, out, this.limits.slice);
    if (!isKey) this.bigReads.spend(this.checked.store.sliceKeys, out.length);
    if (read instanceof RangeRead) {
      this.bigReads.begin(call, request.buffer.length, read, out, (error, bytes) => {
        asked.ended++;
        if (error !== null) assert.equal(bytes, 0);
      });
      return;
    }
    assert.equal(read, asked.expected.error);
    assert.equal(asked.expected.kvs.length <= this.limits.slice.keys, true);
    asked.ended++;
    call.end();
  }

  /** What waits to be sent in the connections of the calls that come. */
  buffered = 0;

  /** One turn of the loop; false: nothing is due. */
  turn(): boolean {
    const { due } = this;
    if (due === null) return false;
    this.due = null;
    due();
    return true;
  }

  turns(): number {
    let count = 0;
    while (this.turn()) assert.ok(++count < 100_000, 'it does not end');
    return count;
  }
}

function checkAnswer({ call, expected, ended }: Asked): void {
  assert.equal(ended, 1);
  if (call.taken.length === 0) return;
  const message = Buffer.concat(call.taken);
  assert.equal(message.length, call.total);
  // Field 1 is the header; the schema of the body leaves it out.
  assert.equal(message[0], 0x0a);
  const body = message.subarray(2 + message[1]!);
  assert.deepEqual(decodeRange(body, expected!.revision), expected);
}

const ALL: RangeOptions = { key: 'k', end: 'l' };

function randomOptions(random: Random): RangeOptions {
  return {
    key: random.below(2) === 0 ? '\0' : randomKey(random),
    end: '\0',
    limit: random.below(3) === 0 ? 1 + random.below(20) : 0,
    sortOrder: random.below(3),
    sortTarget: random.below(2) === 0 ? 0 : random.below(5),
    keysOnly: random.below(4) === 0,
  };
}

test('random reads of random clients, some slow, some gone', () => {
  let answered = 0;
  let cancelled = 0;
  let waited = 0;
  for (let seed = 1; seed <= 25; seed++) {
    const random = new SeededRandom(seed);
    const bench = new Bench({
      slice: { keys: 1 + random.below(6), bytes: 20 + random.below(200), countKeys: 1 + random.below(6) },
      assembledBytesMax: 200 + random.below(2000),
      sendingBytesMax: random.below(2000),
      unreadBytesMax: 2000 + random.below(4000),
      connectionReadsMax: 1 + random.below(4),
    });
    const { checked, bigReads } = bench;
    let open: Asked[] = [];
    const settle = (): void => {
      open = open.filter((asked) => {
        if (!asked.call.ended) return true;
        if (asked.call.status === null) cancelled++;
        else {
          checkAnswer(asked);
          answered++;
        }
        return false;
      });
    };
    try {
      for (let step = 0; step < 400; step++) {
        const kind = random.below(10);
        if (kind < 3) {
          checked.begin();
          for (let ops = random.below(5); ops > 0; ops--) {
            if (random.below(4) > 0) checked.put(randomKey(random), 'v'.repeat(random.below(30)));
            else checked.delete(randomKey(random));
          }
          checked.commit();
          if (random.below(8) === 0) checked.compact(checked.revision);
        } else if (kind < 5) {
          open.push(bench.ask(random.below(3), randomOptions(random)));
          if (open.at(-1)!.expected === null) waited++;
        } else if (kind < 8) bench.turn();
        else if (open.length > 0) {
          const { call } = open[random.below(open.length)]!;
          if (random.below(12) === 0) call.cancel();
          else if (call.sending) call.pull();
        }
        settle();
      }
      for (let rounds = 0; open.length > 0; rounds++) {
        assert.ok(rounds < 1000, 'reads are left that nothing ends');
        bench.turns();
        for (const { call } of open) while (call.sending && !call.pull());
        settle();
      }
      bench.turns();
      assert.deepEqual(bigReads.load, { reads: 0, waiting: 0, bytes: 0 });
      assert.equal(checked.storage.pinned, 0, 'a revision stays pinned');
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
  assert.ok(answered > 800 && cancelled > 20 && waited > 100, JSON.stringify({ answered, cancelled, waited }));
});

test('reads take turns: a short one that comes late is not behind a long one', () => {
  const bench = new Bench();
  bench.fill(3000);
  const long = bench.ask(1, ALL);
  for (let i = 0; i < 50; i++) bench.turn();
  const short = bench.ask(2, { key: 'k1990', end: 'k2010' });
  let turns = 0;
  while (!short.call.sending && bench.turn()) turns++;
  assert.ok(turns < 20, `${turns} turns for 20 keys`);
  assert.ok(!long.call.sending);
  bench.turns();
  for (const asked of [long, short]) {
    while (!asked.call.pull());
    checkAnswer(asked);
  }
});

test('beyond what readings may hold together the oldest goes on alone, until it ends', () => {
  const bench = new Bench({ assembledBytesMax: 5000 });
  bench.fill(400);
  const asked = Array.from({ length: 10 }, (_, i) => bench.ask(i, ALL));
  const oneAnswer = 400 * 50;
  let highest = 0;
  while (bench.turn()) {
    // Answers that are complete are their connections' matter.
    for (const { call } of asked) while (call.sending && !call.pull());
    highest = Math.max(highest, bench.bigReads.load.bytes);
  }
  assert.ok(highest < 5000 + oneAnswer, `${highest} bytes were held`);
  for (const each of asked) checkAnswer(each);
});

test('a connection that does not take its answers holds up its own reads alone', () => {
  const bench = new Bench({ sendingBytesMax: 1000, connectionReadsMax: 3 });
  bench.fill(200);
  const first = bench.ask(1, ALL);
  bench.turns();
  assert.ok(first.call.sending, 'its answer is complete, and is not taken');
  const second = bench.ask(1, ALL);
  assert.equal(second.expected, null, 'it does not even begin');
  const page = bench.ask(1, { ...ALL, limit: 2 });
  const key = bench.ask(1, { key: 'k1000' });
  assert.ok(page.call.ended && key.call.ended, 'what is small is answered');
  const other = bench.ask(2, ALL);
  bench.turns();
  assert.ok(other.call.sending && !second.call.sending);
  while (!first.call.pull());
  bench.turns();
  assert.ok(second.call.sending, 'there is room now');
  while (!second.call.pull());
  for (const asked of [first, second]) checkAnswer(asked);
  other.call.cancel();
  assert.deepEqual(bench.bigReads.load, { reads: 0, waiting: 0, bytes: 0 });
});

test('reads that are under way wait too, while their connection takes nothing', () => {
  const bench = new Bench({ sendingBytesMax: 1000 });
  bench.fill(200);
  const [first, second] = [bench.ask(1, { ...ALL, limit: 150 }), bench.ask(1, ALL)];
  const other = bench.ask(2, ALL);
  bench.turns();
  assert.ok(first.call.sending && other.call.sending && !second.call.sending);
  while (!first.call.pull());
  bench.turns();
  assert.ok(second.call.sending);
  for (const { call } of [second, other]) while (!call.pull());
  for (const asked of [first, second, other]) checkAnswer(asked);
});

test('a connection has so many reads under way, and so many wait; those that are gone do not', () => {
  const bench = new Bench({ connectionReadsMax: 2 });
  bench.fill(200);
  const asked = Array.from({ length: 5 }, () => {
    const each = bench.ask(1, ALL);
    bench.turn();
    return each;
  });
  assert.deepEqual(
    asked.map(({ expected }) => expected !== null),
    [true, true, false, false, false],
  );
  assert.deepEqual([bench.bigReads.load.reads, bench.bigReads.load.waiting], [2, 3]);
  asked[3]!.call.cancel();
  assert.equal(bench.bigReads.load.waiting, 2);
  for (let rounds = 0; rounds < 3; rounds++) {
    bench.turns();
    for (const { call } of asked) while (call.sending && !call.pull());
  }
  for (const index of [0, 1, 2, 4]) checkAnswer(asked[index]!);
  assert.equal(asked[3]!.ended, 0);
});

test('an answer larger than a message is refused, with the bound, and holds nothing', () => {
  for (const sortTarget of [0, 3]) {
    const bench = new Bench({ answerBytesMax: 6000 });
    bench.fill(300);
    const asked = bench.ask(1, { ...ALL, sortTarget, sortOrder: 2 });
    bench.turns();
    assert.deepEqual(asked.call.status, {
      code: 8,
      message: 'grpc: trying to send message larger than max (6000 bytes)',
    });
    assert.equal(asked.ended, 1);
    assert.deepEqual(bench.bigReads.load, { reads: 0, waiting: 0, bytes: 0 });
    assert.equal(bench.checked.storage.pinned, 0);
    const fits = bench.ask(1, { ...ALL, limit: 50, sortTarget, sortOrder: 2 });
    bench.turns();
    while (!fits.call.pull());
    checkAnswer(fits);
  }
});

const refused = { code: 8, message: 'keelson: too many requests for large answers wait already' };

test('a read whose revision a new state has no more fails, to be asked again; others go on in it', () => {
  const bench = new Bench();
  bench.fill(20);
  const lost = bench.ask(1, ALL);
  bench.fill(20, 30);
  const kept = bench.ask(2, ALL);
  bench.turn();
  // A leader's snapshot in which everything before the newest revision is compacted.
  bench.checked.store.restore(bench.checked.revision, bench.checked.revision);
  bench.turns();
  assert.equal(lost.ended, 1);
  assert.equal(lost.call.status?.code, 14);
  assert.match(lost.call.status!.message, /replaced by a snapshot of the leader/);
  assert.equal(lost.call.taken.length, 0);
  while (!kept.call.pull());
  checkAnswer(kept);
  assert.equal(bench.checked.storage.pinned, 0);
  assert.deepEqual(bench.bigReads.load, { reads: 0, waiting: 0, bytes: 0 });
});

test('so many requests of a connection wait, and so many in all; the others are refused', () => {
  const bench = new Bench({ connectionReadsMax: 1, connectionWaitingMax: 3, waitingMax: 4 });
  bench.fill(200);
  const first = Array.from({ length: 5 }, () => bench.ask(1, ALL));
  assert.deepEqual(
    first.map(({ call }) => call.status),
    [null, null, null, null, refused],
  );
  const second = Array.from({ length: 3 }, () => bench.ask(2, ALL));
  assert.deepEqual(
    second.map(({ call }) => call.status),
    [null, null, refused],
  );
  // A place that is left is free.
  first[1]!.call.cancel();
  assert.equal(bench.ask(2, ALL).call.status, null);
  assert.equal(bench.bigReads.load.waiting, 4);
});

test('requests that wait have so many bytes, of a connection and in all; the others are refused', () => {
  const long = { ...ALL, end: `l${'x'.repeat(998)}` };
  const bench = new Bench({ connectionReadsMax: 1, connectionWaitingBytesMax: 2500, waitingBytesMax: 3500 });
  bench.fill(200);
  for (const [connection, statuses] of [
    [1, [null, null, null, refused]],
    [2, [null, null, refused]],
  ] as const) {
    const asked = statuses.map(() => bench.ask(connection, long));
    assert.deepEqual(
      asked.map(({ call }) => call.status),
      statuses,
    );
    // A place that is left is free.
    asked[1]!.call.cancel();
    assert.equal(bench.ask(connection, long).call.status, null);
  }
  // Those that are read have each a copy of their own beside the call's, and one of the rest.
  const { waiting, bytes } = bench.bigReads.load;
  assert.ok(waiting === 3 && bytes > (3 + 2 * 3) * 1000 && bytes < 9 * 1000 + 700, `${waiting} wait, ${bytes} bytes`);
});

test('while what is read holds too much, requests and all, nothing new begins but pages', () => {
  const bench = new Bench({ assembledBytesMax: 5000 });
  bench.fill(200);
  const first = bench.ask(1, { ...ALL, end: `l${'x'.repeat(3000)}` });
  const [second, page] = [bench.ask(2, ALL), bench.ask(2, { ...ALL, limit: 2 })];
  assert.deepEqual([first.expected !== null, second.expected, page.call.ended], [true, null, true]);
  bench.turns();
  assert.ok(first.call.sending && second.call.sending, 'it begins when there is room');
});

test('30,000 calls that wait are gone at once with their connection', () => {
  const COUNT = 30_000;
  const bench = new Bench({ connectionReadsMax: 1, connectionWaitingMax: COUNT, waitingMax: COUNT });
  bench.fill(20);
  const asked = Array.from({ length: COUNT }, () => bench.ask(1, ALL));
  const { user } = process.cpuUsage();
  for (const { call } of asked) call.cancel();
  const ms = (process.cpuUsage().user - user) / 1000;
  assert.deepEqual(bench.bigReads.load, { reads: 0, waiting: 0, bytes: 0 });
  assert.equal(bench.turns(), 1, 'nothing is left to be looked for');
  assert.ok(ms < 1000, `it took ${ms} ms of CPU`);
});

test('those that wait begin by turns of their connections', () => {
  const bench = new Bench({ connectionReadsMax: 1 });
  bench.fill(30);
  const many = Array.from({ length: 20 }, () => bench.ask(1, ALL));
  const few = Array.from({ length: 2 }, () => bench.ask(2, ALL));
  for (let round = 0; round < 2; round++) {
    bench.turns();
    for (const { call } of [...many, ...few]) while (call.sending && !call.pull());
  }
  assert.deepEqual([many.filter(({ ended }) => ended > 0).length, few[1]!.ended], [2, 1]);
});

test('a read that may not go on lets go of its revision in time, and what it waited for is ended too', () => {
  const bench = new Bench({ sendingBytesMax: 1000 });
  bench.fill(200);
  const [first, second] = [bench.ask(1, { ...ALL, limit: 150 }), bench.ask(1, ALL)];
  bench.pass(119_000);
  assert.ok(first.call.sending && !second.call.sending && bench.checked.storage.pinned > 0);
  bench.pass(2_000);
  assert.equal(bench.checked.storage.pinned, 0, 'a compaction waits for a client that does not read');
  assert.deepEqual([first.call.status?.code, second.call.status?.code], [10, 10]);
  assert.deepEqual([first.ended, second.ended], [1, 1]);
  assert.deepEqual(bench.bigReads.load, { reads: 0, waiting: 0, bytes: 0 });
});

test('an answer that is taken slowly is not ended', () => {
  const bench = new Bench();
  bench.fill(20);
  const { call } = bench.ask(1, ALL);
  for (bench.pass(100_000); !call.pull(); bench.pass(100_000));
  assert.equal(call.status?.code, 0);
  assert.ok(bench.nowMs > 500_000);
});

test('what a client takes lets its other reads go on before all of it is taken', () => {
  const bench = new Bench({ sendingBytesMax: 1000 });
  bench.fill(200);
  const [first, second] = [bench.ask(1, { ...ALL, limit: 150 }), bench.ask(1, ALL)];
  const third = bench.ask(1, ALL);
  bench.turns();
  assert.ok(first.call.sending && !second.call.sending && third.expected !== null);
  while (!second.call.sending) {
    assert.ok(!first.call.pull(), 'all of it had to be taken');
    bench.turns();
  }
  const waiting = bench.ask(1, ALL);
  assert.equal(waiting.expected, null);
  while (waiting.expected === null) {
    for (const { call } of [first, second, third]) if (call.sending && call.total > 0) call.pull();
    bench.turns();
  }
});

test('while all together hold too much nothing begins, and what nobody takes is ended first', () => {
  const bench = new Bench({ unreadBytesMax: 20_000 });
  bench.fill(200);
  const idle = Array.from({ length: 40 }, (_, i) => bench.ask(i, ALL));
  bench.turns();
  assert.ok(bench.bigReads.load.bytes > 20_000);
  const { call, ...late } = bench.ask(100, ALL);
  assert.equal(late.expected, null);
  const alive = idle[0]!.call;
  for (let second = 0; second < 8; second++) {
    if (alive.sending) alive.pull();
    bench.pass(1000);
  }
  assert.ok(alive.sending, 'of this one something was taken');
  const ended = idle.filter((asked) => asked.call.status?.code === 8);
  assert.ok(ended.length > 0 && !ended.some((asked) => asked.call === alive));
  for (let i = 0; i < 200 && !call.sending && !call.ended; i++) {
    if (alive.sending) alive.pull();
    bench.pass(1000);
  }
  assert.ok(call.sending || call.ended, 'there is no room for others');
  bench.pass(400_000);
  assert.deepEqual(bench.bigReads.load, { reads: 0, waiting: 0, bytes: 0 });
  assert.equal(bench.checked.storage.pinned, 0);
});

test('a turn reads a slice: what comes beyond waits for the next, whoever asks, and single keys do not', () => {
  const bench = new Bench({});
  bench.fill(50);
  const pages = Array.from({ length: 20 }, (_, i) => bench.ask(i % 4, { ...ALL, limit: 2 }));
  const key = bench.ask(1, { key: 'k1001' });
  const list = bench.ask(5, ALL);
  // Slices have three keys, so a turn has two pages of two.
  const begun = (): number => [...pages, list].filter(({ expected }) => expected !== null).length;
  assert.deepEqual([begun(), key.ended, list.expected], [2, 1, null]);
  for (let turns = 1; begun() <= pages.length; turns++) {
    const before = begun();
    assert.ok(bench.turn());
    // Once the list is read, it has every other turn.
    if (list.expected !== null && begun() === before) assert.ok(bench.turn());
    assert.ok(begun() > before && begun() <= before + 2, `${begun() - before} reads began in turn ${turns}`);
    // Others that come meanwhile are behind those.
    if (turns === 3) pages.push(bench.ask(9, { ...ALL, limit: 2 }));
  }
  bench.turns();
  assert.ok(pages.every(({ ended, waits }) => ended === 1 && waits <= 1));
  while (!list.call.sending) assert.ok(bench.turn());
  while (!list.call.pull());
  assert.deepEqual(bench.bigReads.load, { reads: 0, waiting: 0, bytes: 0 });
});

test('nothing of a connection begins while too much of it is not sent; it goes on when there is room', () => {
  const bench = new Bench({ unsentBytesMax: 1000 });
  bench.fill(20);
  bench.buffered = 1001;
  const key = bench.ask(1, { key: 'k1001' });
  const page = bench.ask(1, { ...ALL, limit: 2 });
  bench.buffered = 0;
  const other = bench.ask(2, { ...ALL, limit: 2 });
  bench.turns();
  assert.deepEqual([key.ended, page.ended, other.ended], [0, 0, 1]);
  assert.equal(bench.bigReads.load.waiting, 2);
  // The first one has asked for the connection's room. Still full, it is asked for again.
  key.call.room!();
  bench.turns();
  assert.deepEqual([key.ended, page.ended], [0, 0]);
  for (const { call } of [key, page]) call.connectionBufferedBytes = 1000;
  key.call.room!();
  bench.turns();
  assert.deepEqual([key.ended, page.ended, bench.bigReads.load.waiting], [1, 1, 0]);
  // One that is gone meanwhile leaves nothing behind.
  bench.buffered = 1001;
  const gone = bench.ask(1, { key: 'k1001' });
  gone.call.cancel();
  bench.buffered = 0;
  const next = bench.ask(1, { ...ALL, limit: 2 });
  gone.call.room!();
  bench.turns();
  assert.deepEqual([gone.ended, next.ended], [0, 1]);
});

test('a list goes on, however many pages keep coming', () => {
  const bench = new Bench({});
  bench.fill(60);
  const list = bench.ask(1, ALL);
  // Twice as many as a turn has room for.
  for (let turns = 0; !list.call.sending; turns++) {
    assert.ok(turns < 100, 'the pages keep the list from going on');
    for (let i = 0; i < 4; i++) bench.ask(2 + i, { ...ALL, limit: 2 });
    assert.ok(bench.turn());
  }
  while (!list.call.pull());
  checkAnswer(list);
});
