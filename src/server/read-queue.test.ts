// Goal: the requests of reads that wait have so many bytes, wherever in the queue they wait; what leaves it, answered or failed, makes room.
// A read is answered by its own round or by one that began later, whatever a peer's answers say. Method: the queue alone, over a raft whose rounds the test
// confirms.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bigReadLimits } from '../limits.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import type { RawNode } from '../raft/raw-node.ts';
import type { ReadState } from '../raft/types.ts';
import { ReadQueue } from './read-queue.ts';

const HALF = bigReadLimits.waitingBytesMax / 2;
const refused: EtcdError = { code: 8, message: 'keelson: too many reads wait for the leader already' };

class Bench {
  readonly contexts: Buffer[] = [];
  private readonly raft = { readIndex: (context: Buffer): boolean => this.contexts.push(context) > 0 };
  private readonly ids = { idPrefix: 0xfedc, nextCounter: (): number => ++this.counter };
  private counter: number;
  readonly queue: ReadQueue;

  constructor(counter = 0) {
    this.counter = counter;
    this.queue = new ReadQueue(this.raft as unknown as RawNode, this.ids);
  }

  /** What becomes of a read. */
  add(requestBytes: number, nowMs = 0): string[] {
    const seen: string[] = [];
    const failed = ({ message }: EtcdError): void => void seen.push(message);
    this.queue.add({ ready: () => seen.push('ready'), failed }, nowMs, requestBytes);
    return seen;
  }

  confirm(index: number): void {
    const state: ReadState = { context: this.contexts.shift()!, index };
    this.queue.confirm([state]);
  }
}

test('bytes count until the read has left, by whatever way', () => {
  const bench = new Bench();
  const { queue } = bench;
  const ways: readonly (readonly [string, () => void])[] = [
    [
      'ready',
      () => {
        queue.startRound(0);
        bench.confirm(5);
        queue.answer(5);
      },
    ],
    [etcdErrors.timeout.message, () => void queue.expire(1)],
    [
      etcdErrors.timeout.message,
      () => {
        queue.startRound(0);
        queue.expire(1);
      },
    ],
    [etcdErrors.stopped.message, () => queue.fail(etcdErrors.stopped)],
    [
      etcdErrors.stopped.message,
      () => {
        queue.startRound(0);
        queue.fail(etcdErrors.stopped);
      },
    ],
    [
      etcdErrors.stopped.message,
      () => {
        bench.contexts.length = 0;
        queue.startRound(0);
        bench.confirm(9);
        queue.fail(etcdErrors.stopped);
      },
    ],
  ];
  for (const [expected, leave] of ways) {
    const waiting = [bench.add(HALF), bench.add(HALF)];
    assert.deepEqual(bench.add(1), [refused.message]);
    const small = bench.add(0);
    assert.deepEqual(small, [], 'one without a request waits all the same');
    leave();
    assert.deepEqual([...waiting, small], [[expected], [expected], [expected]]);
  }
});

test('in a round, in one that begins again and behind what is applied they count too', () => {
  const bench = new Bench();
  const { queue } = bench;
  const first = bench.add(HALF);
  queue.startRound(0);
  queue.restart();
  const second = bench.add(HALF);
  queue.startRound(0);
  assert.deepEqual(bench.add(1), [refused.message]);
  bench.contexts.shift();
  bench.confirm(7);
  queue.answer(6);
  assert.deepEqual([bench.add(1), first, second], [[refused.message], [], []]);
  queue.answer(7);
  assert.deepEqual([first, second, bench.add(2 * HALF)], [['ready'], ['ready'], []]);
});

test('an answer that is of no round of this member does nothing', () => {
  const bench = new Bench();
  const { queue } = bench;
  const seen = bench.add(1);
  queue.startRound(0);
  const [context] = bench.contexts as [Buffer];
  const foreign = Buffer.from(context);
  foreign[0]! ^= 1;
  for (const answer of [Buffer.alloc(0), context.subarray(1), Buffer.concat([context, context]), foreign]) {
    queue.confirm([{ context: answer, index: 1 }]);
    queue.answer(1);
    assert.deepEqual(seen, [], `answered by ${answer.toString('hex')}`);
  }
  bench.confirm(2);
  queue.answer(2);
  assert.deepEqual(seen, ['ready']);
});

test('the answer to a round that was given up holds up no other, however far its index is', () => {
  const bench = new Bench();
  const { queue } = bench;
  const seen = bench.add(1);
  queue.startRound(0);
  queue.restart();
  queue.startRound(0);
  queue.confirm([{ context: bench.contexts.shift()!, index: Number.MAX_SAFE_INTEGER }]);
  bench.confirm(3);
  queue.answer(3);
  assert.deepEqual(seen, ['ready']);
});

test('a round that takes longer than a retry is answered by its own answer, and those that came meanwhile by the next', () => {
  const bench = new Bench();
  const { queue } = bench;
  const first = bench.add(1, 0);
  queue.startRound(0);
  const second = bench.add(1, 100);
  queue.startRound(100);
  assert.deepEqual([queue.retry(0), bench.contexts.length], [0, 1], 'not yet');
  assert.deepEqual([queue.retry(1), queue.retry(1)], [1, 0], 'once');
  queue.startRound(500);
  assert.equal(bench.contexts.length, 2);
  // The way there and back is longer than the time between two retries.
  assert.equal(queue.retry(501), 2);
  queue.startRound(1000);
  bench.confirm(7);
  queue.answer(7);
  assert.deepEqual([first, second], [['ready'], []]);
  bench.confirm(7);
  queue.answer(7);
  assert.deepEqual(second, ['ready']);
  // The third has nobody left: its answer is nobody's, and a read that comes begins a round of its own.
  const third = bench.add(1, 1100);
  queue.startRound(1100);
  assert.equal(bench.contexts.length, 2);
  bench.confirm(7);
  queue.answer(7);
  assert.deepEqual(third, []);
  bench.confirm(8);
  queue.answer(8);
  assert.deepEqual(third, ['ready']);
});

test('the answer to a later round is one to those before it, not the other way round', () => {
  const bench = new Bench();
  const { queue } = bench;
  const first = bench.add(1, 0);
  queue.startRound(0);
  const second = bench.add(1, 100);
  queue.retry(1);
  queue.startRound(500);
  const [, later] = bench.contexts as [Buffer, Buffer];
  queue.confirm([{ context: later, index: 3 }]);
  queue.answer(3);
  assert.deepEqual([first, second], [['ready'], ['ready']]);
  // Nobody waits for the first one any more: what its late answer says counts for nobody.
  const third = bench.add(1, 600);
  bench.confirm(Number.MAX_SAFE_INTEGER);
  bench.contexts.length = 0;
  queue.startRound(600);
  bench.confirm(4);
  queue.answer(4);
  assert.deepEqual(third, ['ready']);
});

test('with another leader no round of before counts, retried or not', () => {
  const bench = new Bench();
  const { queue } = bench;
  const first = bench.add(1, 0);
  queue.startRound(0);
  queue.retry(1);
  queue.startRound(500);
  const second = bench.add(1, 600);
  queue.restart();
  for (const context of bench.contexts.splice(0)) queue.confirm([{ context, index: 1 }]);
  queue.answer(1);
  assert.deepEqual([first, second], [[], []]);
  queue.startRound(700);
  assert.equal(bench.contexts.length, 1);
  bench.confirm(2);
  queue.answer(2);
  assert.deepEqual([first, second], [['ready'], ['ready']]);
});

test('the answer to a round of before a restart answers none of after it', () => {
  const before = new Bench(100);
  before.add(1);
  before.queue.startRound(0);
  // The clock has gone on: so have the counters that begin by it.
  const after = new Bench(200);
  const seen = after.add(1);
  after.queue.startRound(0);
  after.queue.confirm([{ context: before.contexts.shift()!, index: 1 }]);
  after.queue.answer(1);
  assert.deepEqual(seen, []);
  after.confirm(9);
  after.queue.answer(9);
  assert.deepEqual(seen, ['ready']);
});
