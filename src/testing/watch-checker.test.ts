// Goal: the watch checker accepts what a correct server sends and finds each kind of wrong. Method: one short history, and for each
// guarantee a stream that keeps it and streams that break it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type TrueEvent, TrueHistory, WatchChecker, type WatchedEvent, WatchViolation } from './watch-checker.ts';

const put = (key: string, value: string): TrueEvent => ({ isDelete: false, key, value, createRevision: 2, version: 1 });
const history = new TrueHistory();
history.add(2, [put('a', '1')]);
history.add(3, [put('x', '1')]);
history.add(4, [put('a', '2'), put('b', '2')]);
history.add(5, [{ ...put('a', ''), isDelete: true }]);

const at = (revision: number, ...places: number[]): WatchedEvent[] =>
  places.map((place) => ({ ...history.at(revision)[place]!, revision }));

function watch(from = 2): WatchChecker {
  return new WatchChecker(history, 'w', { key: 'a', end: 'c' }, from);
}

function refuses(what: RegExp, body: (watch: WatchChecker) => void, from = 2): void {
  assert.throws(
    () => {
      const checker = watch(from);
      body(checker);
      checker.checkComplete(5);
    },
    (error) => error instanceof WatchViolation && what.test(error.message),
  );
}

test('a complete stream, in one response or several, over breaks, with progress', () => {
  const whole = watch();
  whole.events(5, [...at(2, 0), ...at(4, 0, 1), ...at(5, 0)]);
  whole.checkComplete(5);
  assert.equal(whole.eventCount, 4);
  const parts = watch();
  parts.events(2, at(2, 0));
  parts.progress(3);
  assert.equal(parts.resumeRevision, 4);
  parts.events(4, at(4, 0, 1));
  parts.events(5, at(5, 0));
  parts.checkComplete(5);
});

test('events before the history is known wait for it', () => {
  const later = new TrueHistory();
  const checker = new WatchChecker(later, 'w', { key: 'a', end: '' }, 2);
  checker.events(2, [{ ...put('a', 'wrong'), revision: 2 }]);
  checker.check();
  later.add(2, [put('a', '1')]);
  assert.throws(() => checker.check(), WatchViolation);
});

test('each guarantee broken', () => {
  refuses(/misses revision 4/, (w) => w.events(5, [...at(2, 0), ...at(5, 0)]));
  refuses(/misses revision 5/, (w) => w.events(4, [...at(2, 0), ...at(4, 0, 1)]));
  refuses(/again or out of order/, (w) => w.events(5, [...at(4, 0, 1), ...at(2, 0)]), 4);
  refuses(/again or out of order/, (w) => {
    w.events(2, at(2, 0));
    w.events(2, at(2, 0));
  });
  refuses(/again or out of order/, (w) => w.events(2, at(2, 0)), 3);
  refuses(/not whole/, (w) => w.events(4, [...at(2, 0), ...at(4, 0)]));
  refuses(/instead of/, (w) => w.events(4, [...at(2, 0), ...at(4, 1, 0)]));
  refuses(/instead of/, (w) => w.events(2, [{ ...at(2, 0)[0]!, value: 'other' }]));
  refuses(/more than happened/, (w) => w.events(2, [...at(2, 0), ...at(2, 0)]));
  refuses(/under a header/, (w) => w.events(3, [...at(2, 0), ...at(4, 0, 1)]));
  refuses(/progress beyond/, (w) => w.progress(2));
  refuses(/a response without events/, (w) => w.events(2, []));
});

test('compaction: told when what is wanted is gone, and only then', () => {
  const checker = watch();
  checker.compacted(4);
  assert.equal(checker.resumeRevision, 4);
  checker.events(5, [...at(4, 0, 1), ...at(5, 0)]);
  checker.checkComplete(5);
  assert.equal(checker.compactedCount, 1);
  refuses(/compacted at 4, but/, (w) => w.compacted(4), 4);
});
