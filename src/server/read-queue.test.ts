// Goal: the requests of reads that wait have so many bytes, wherever in the queue they wait; what leaves it, answered or failed, makes room.
// Method: the queue alone, over a raft whose rounds the test confirms.

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
  readonly queue: ReadQueue = new ReadQueue(this.raft as unknown as RawNode);

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
        queue.startRound();
        bench.confirm(5);
        queue.answer(5);
      },
    ],
    [etcdErrors.timeout.message, () => void queue.expire(1)],
    [
      etcdErrors.timeout.message,
      () => {
        queue.startRound();
        queue.expire(1);
      },
    ],
    [etcdErrors.stopped.message, () => queue.fail(etcdErrors.stopped)],
    [
      etcdErrors.stopped.message,
      () => {
        queue.startRound();
        queue.fail(etcdErrors.stopped);
      },
    ],
    [
      etcdErrors.stopped.message,
      () => {
        bench.contexts.length = 0;
        queue.startRound();
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
  queue.startRound();
  queue.restart();
  const second = bench.add(HALF);
  queue.startRound();
  assert.deepEqual(bench.add(1), [refused.message]);
  bench.contexts.shift();
  bench.confirm(7);
  queue.answer(6);
  assert.deepEqual([bench.add(1), first, second], [[refused.message], [], []]);
  queue.answer(7);
  assert.deepEqual([first, second, bench.add(2 * HALF)], [['ready'], ['ready'], []]);
});
