// Goal: those that are behind catch up, whatever the writers, the other watchers and their own client do, and cost nobody else
// more than a bound. Method: histories of known length; slices taken one at a time, as the member's turns take them; each
// response is checked as it is sent (watch-fixture.ts).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { watchCatchUpRows, watchCatchUpWatchersMax, watchGroupBodyBytesMax } from '../limits.ts';
import { RecordingStream, WatchBench, type Watched } from './watch-fixture.ts';

/** So many puts of one key as one turn's changes, 50 to a revision. */
function writeTurn(bench: WatchBench, key: string, count: number, value = 'v'): void {
  for (let left = count; left > 0; left -= 50) {
    bench.write(...Array.from({ length: Math.min(50, left) }, (): [string, string] => [key, value]));
  }
  bench.hub.flush();
}

/** Turns of the member's loop until the watchers have caught up: writers, then one slice. */
function turnsUntilSynced(bench: WatchBench, turnsMax: number, write: () => void): number {
  for (let turn = 1; turn <= turnsMax; turn++) {
    write();
    bench.hub.catchUp();
    bench.hub.checkInvariants();
    if (bench.hub.unsyncedCount === 0) return turn;
  }
  return Infinity;
}

test('a slice ends between revisions, and the next goes on from there', () => {
  const bench = new WatchBench();
  // Revisions of three changes: a bound in rows falls into one.
  const revisions = watchCatchUpRows + 50;
  for (let i = 0; i < revisions; i++) bench.write(['a', `${i}`], ['b', `${i}`], ['c', `${i}`]);
  const stream = new RecordingStream(bench);
  const all = stream.add({ key: 'a', end: '\0', start: 1 });
  const late = stream.add({ key: 'b', start: bench.revision - 1, prevKv: true });
  assert.equal(bench.hub.catchUp(), true);
  assert.ok(all.givenCount >= watchCatchUpRows && all.givenCount < watchCatchUpRows + 3, `${all.givenCount} events`);
  assert.equal(late.givenCount, 0, 'what is beyond the slice waits');
  bench.write(['a', 'meanwhile']);
  const slices = bench.catchUpAll();
  assert.ok(slices >= 3 && slices <= 4, `${slices} slices`);
  stream.checkComplete();
});

test('a response is bounded in bytes', () => {
  const bench = new WatchBench();
  for (let i = 0; i < 6; i++) bench.write(['a', 'x'.repeat(0.7 * watchGroupBodyBytesMax)]);
  const stream = new RecordingStream(bench);
  const watched = stream.add({ key: 'a', start: 1 });
  bench.hub.catchUp();
  assert.deepEqual([watched.givenCount, watched.responseCount], [6, 3]);
  stream.checkComplete();
});

test('one whose client stops reading in the middle of a slice is sent nothing more, and the others all', () => {
  const bench = new WatchBench();
  for (let i = 0; i < 6; i++) bench.write(['a', 'x'.repeat(0.7 * watchGroupBodyBytesMax)]);
  const [slow, quick] = [new RecordingStream(bench), new RecordingStream(bench)];
  const behind = [slow.add({ key: 'a', start: 1 }), slow.add({ key: 'a', end: 'b', start: 1 })];
  const other = quick.add({ key: 'a', start: 1 });
  slow.onSend = () => slow.setBlocked(true);
  bench.hub.catchUp();
  assert.deepEqual(
    [...behind, other].map(({ givenCount }) => givenCount),
    [1, 0, 6],
    'the bound in bytes ends the first response, the full stream the rest',
  );
  // The unserved are first: neither starves while the client reads a response at a time.
  for (let reads = 1; bench.hub.unsyncedCount > 0; reads++) {
    assert.ok(reads < 12, 'catching up does not end');
    slow.setBlocked(false);
    bench.hub.catchUp();
    const [first, second] = behind.map(({ responseCount }) => responseCount);
    assert.ok(Math.abs(first! - second!) <= 1, `${first} responses to one, ${second} to the other`);
  }
  slow.checkComplete();
  quick.checkComplete();
});

test('catching up gains on 1,500 puts a turn', () => {
  const bench = new WatchBench();
  for (let i = 0; i < 4; i++) writeTurn(bench, 'a', 1500);
  const stream = new RecordingStream(bench);
  stream.add({ key: 'a', start: 1 });
  // Behind by 6,000; a slice of the plain bound reads fewer than a turn brings, for ever.
  assert.ok(watchCatchUpRows < 1500);
  const turns = turnsUntilSynced(bench, 20, () => writeTurn(bench, 'a', 1500));
  assert.ok(turns <= 8, `${turns} turns`);
  stream.checkComplete();
});

test('... also when they are larger than a response', () => {
  const bench = new WatchBench();
  const value = 'x'.repeat(3000);
  assert.ok(1500 * value.length > 4 * watchGroupBodyBytesMax);
  for (let i = 0; i < 2; i++) writeTurn(bench, 'a', 1500, value);
  const stream = new RecordingStream(bench);
  stream.add({ key: 'a', start: 1 });
  const turns = turnsUntilSynced(bench, 12, () => writeTurn(bench, 'a', 1500, value));
  assert.ok(turns <= 6, `${turns} turns`);
  stream.checkComplete();
});

test('... and for more watchers than a slice takes, each from another revision', () => {
  const bench = new WatchBench();
  for (let i = 0; i < 3000; i++) bench.write(['other', 'v']);
  bench.write(['a', 'v']);
  const stream = new RecordingStream(bench);
  for (let i = 0; i < 3 * watchCatchUpWatchersMax; i++) stream.add({ key: 'a', start: 1 + i });
  const turns = turnsUntilSynced(bench, 60, () => writeTurn(bench, 'other', 1500));
  assert.ok(turns <= 30, `${turns} turns`);
  stream.checkComplete();
});

test('one that is far behind does not hold up one that is nearly there', () => {
  const bench = new WatchBench();
  for (let i = 0; i < 20 * watchCatchUpRows; i++) bench.write(['a', 'v']);
  const stream = new RecordingStream(bench);
  const far = stream.add({ key: 'a', start: 1 });
  const near = stream.add({ key: 'a', start: bench.revision - 10 });
  bench.hub.catchUp();
  bench.hub.catchUp();
  assert.equal(near.givenCount, 11);
  assert.equal(bench.hub.isSynced(near.watcher), true);
  assert.ok(far.givenCount <= watchCatchUpRows, `${far.givenCount} events`);
  bench.catchUpAll();
  stream.checkComplete();
});

test('more watchers than a slice takes are all caught up', () => {
  const bench = new WatchBench();
  for (let i = 0; i < 5; i++) bench.write(['a', `${i}`]);
  const stream = new RecordingStream(bench);
  const count = watchCatchUpWatchersMax * 2 + 10;
  for (let i = 0; i < count; i++) stream.add({ key: 'a', start: 1 + (i % 6) });
  assert.equal(bench.hub.unsyncedCount, count);
  assert.equal(bench.catchUpAll(), 3);
  stream.checkComplete();
});

test('those that come back at once, from the same revision, share what is read for them', () => {
  const bench = new WatchBench();
  for (let i = 0; i < 100; i++) bench.write(['a', `${i}`], ['b', `${i}`]);
  const streams = [new RecordingStream(bench), new RecordingStream(bench)];
  const alike: Watched[] = [];
  for (const stream of streams) {
    for (let i = 0; i < 50; i++) alike.push(stream.add({ key: 'a', end: 'c', start: 50 }));
    stream.add({ key: 'a', end: 'c', start: 50, noPut: true });
    stream.add({ key: 'a', end: 'c', start: 51 });
    stream.add({ key: 'a', start: 50, prevKv: true });
  }
  bench.hub.catchUp();
  assert.equal(streams[0]!.batches.size, 3, 'a batch for each kind that gets events');
  assert.deepEqual(streams[1]!.batches, streams[0]!.batches);
  assert.ok(alike.every(({ givenCount }) => givenCount === alike[0]!.givenCount && givenCount > 0));
  for (const stream of streams) stream.checkComplete();
});

test('a thousand watchers of a stream that is not read cost a turn nothing', () => {
  const bench = new WatchBench();
  bench.write(['a', 'v']);
  const [slow, quick] = [new RecordingStream(bench), new RecordingStream(bench)];
  // Synced ones, alone and in groups, and some that were behind before the client stopped reading.
  for (let i = 0; i < 1000; i++) slow.add({ key: 'a', end: i % 2 === 0 ? '' : `b${i}`, start: i % 4 === 0 ? 1 : 0 });
  const other = quick.add({ key: 'a' });
  slow.setBlocked(true);
  const turn = (): void => {
    bench.write(['a', 'v']);
    bench.hub.flush();
    if (bench.hub.hasCatchUp) bench.hub.catchUp();
  };
  turn();
  assert.equal(bench.hub.unsyncedCount, 1000);
  const asked = slow.askedCount;
  for (let i = 0; i < 500; i++) turn();
  assert.equal(slow.askedCount, asked, 'its watchers are looked at again');
  assert.deepEqual([other.givenCount, bench.hub.hasCatchUp, bench.hub.unsyncedCount], [501, false, 1000]);
  slow.setBlocked(false);
  bench.catchUpAll();
  slow.checkComplete();
  assert.equal(bench.hub.unsyncedCount, 0);
});

test('parked watchers can be removed, and what is left of them catches up', () => {
  const bench = new WatchBench();
  const stream = new RecordingStream(bench);
  const watched = Array.from({ length: 4 }, () => stream.add({ key: 'a' }));
  stream.setBlocked(true);
  const born = stream.add({ key: 'a', start: 1 });
  bench.write(['a', '1']);
  bench.hub.flush();
  stream.remove(watched[1]!);
  stream.remove(watched[2]!);
  bench.hub.checkInvariants();
  assert.equal(bench.hub.unsyncedCount, 3);
  stream.setBlocked(false);
  bench.catchUpAll();
  assert.deepEqual(
    [...watched, born].map(({ givenCount }) => givenCount),
    [1, 0, 0, 1, 1],
  );
  bench.hub.checkInvariants();
});
