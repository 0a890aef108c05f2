// Goal: a member is asked at its URLs in their order until one says something, and nobody is told what nobody waits for. Method: a
// PeerRequests that keeps what it is asked, answered by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PeerAnswer, PeerRequest, PeerRequests } from '../peer/peer-transport.ts';
import { askPeer } from './peer-question.ts';

const ok: PeerAnswer = { status: 200, headers: {}, body: Buffer.alloc(0) };

class Asked implements PeerRequests {
  readonly urls: string[] = [];
  readonly timeouts: (number | undefined)[] = [];
  private answerLast: ((error: Error | null, answer: PeerAnswer | null) => void) | null = null;

  request(url: string, request: PeerRequest, done: (error: Error | null, answer: PeerAnswer | null) => void): void {
    this.urls.push(url);
    this.timeouts.push(request.timeoutMs);
    this.answerLast = done;
  }

  answer(error: Error | null, answer: PeerAnswer | null): void {
    this.answerLast!(error, answer);
  }
}

interface Ending {
  readonly asked: Asked;
  readonly read: string[];
  readonly results: (number | null)[];
}

/** Answers of status 200 say their status, others nothing. */
function ask(urls: readonly string[], isOver?: () => boolean): Ending {
  const ending: Ending = { asked: new Asked(), read: [], results: [] };
  let leftMs = 100;
  askPeer<number>(ending.asked, urls, {
    request: () => ({ method: 'GET', path: '/version', timeoutMs: leftMs-- }),
    read: (answer, url) => {
      ending.read.push(`${url} ${typeof answer === 'string' ? answer : answer.status}`);
      return typeof answer !== 'string' && answer.status === 200 ? answer.status : null;
    },
    done: (result) => ending.results.push(result),
    ...(isOver === undefined ? {} : { isOver }),
  });
  return ending;
}

test('the next URL is asked after an error and after an answer that says nothing, and none after one that does', () => {
  const { asked, read, results } = ask(['a', 'b', 'c', 'd']);
  asked.answer(new Error('refused'), null);
  asked.answer(null, { ...ok, status: 503 });
  assert.deepEqual(results, []);
  asked.answer(null, ok);
  assert.deepEqual(asked.urls, ['a', 'b', 'c']);
  assert.deepEqual(asked.timeouts, [100, 99, 98]);
  assert.deepEqual(read, ['a refused', 'b 503', 'c 200']);
  assert.deepEqual(results, [200]);
});

test('when no URL has answered, and when there is none, the result is null', () => {
  assert.deepEqual(ask([]).results, [null]);
  const { asked, read, results } = ask(['a']);
  asked.answer(null, null);
  assert.deepEqual(read, ['a no answer']);
  assert.deepEqual(results, [null]);
});

test('once it is over, an answer is not read and no other URL is asked', () => {
  let isOver = false;
  const { asked, read, results } = ask(['a', 'b'], () => isOver);
  isOver = true;
  asked.answer(new Error('refused'), null);
  assert.deepEqual([asked.urls, read, results], [['a'], [], []]);
});
