// Goal: every watcher gets exactly its events, whatever happens to it and to its neighbours. Method: random histories with
// watchers that join at any revision, streams that block, unblock and close at any time (also while they are being written to),
// compactions, removals and states that are replaced by later ones, each response checked as it is sent (watch-fixture.ts) and completeness when all is quiet, the hub's
// invariants after every step. Then each rule and past bug by hand. How those that are behind catch up: catch-up.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Random, SeededRandom } from '../io/random.ts';
import { randomEnd, randomKey } from './store-fixture.ts';
import { RecordingStream, WatchBench, type Watched, type WatchOptions } from './watch-fixture.ts';

function randomOptions(random: Random, bench: WatchBench): WatchOptions {
  const key = randomKey(random);
  const starts = [0, 0, bench.revision + random.below(4), 1 + random.below(bench.revision + 5)];
  const end = randomEnd(random, key);
  return {
    key,
    // An empty range is refused before it comes here.
    end: end === '' || end === '\0' || key < end ? end : '\0',
    start: starts[random.below(starts.length)]!,
    noPut: random.below(5) === 0,
    noDelete: random.below(5) === 0,
    prevKv: random.below(2) === 0,
  };
}

/** Of a compaction's own revision a change that the same revision has superseded is gone, as in etcd: whoever is behind it lacks it. So
 * the keys of a transaction are `distinct` where there are compactions. */
function randomWrite(random: Random, bench: WatchBench, distinct: boolean): void {
  const ops: [string, string?][] = [];
  for (let count = 1 + random.below(4); count > 0; count--) {
    const key = randomKey(random);
    if (distinct && ops.some(([other]) => other === key)) continue;
    ops.push(random.below(3) === 0 ? [key] : [key, `v${random.below(100)}`]);
  }
  bench.write(...ops);
}

class Simulation {
  readonly bench = new WatchBench();
  private readonly random: SeededRandom;
  private readonly streams: RecordingStream[] = [];
  /** Never blocked, never closed: what the others do must not touch it. */
  private readonly quick: RecordingStream;
  private isQuiet = false;

  private readonly compacts: boolean;

  constructor(seed: number) {
    this.compacts = seed % 2 === 0;
    this.random = new SeededRandom(seed);
    this.quick = new RecordingStream(this.bench);
    for (let i = 0; i < 4; i++) this.quick.add({ ...randomOptions(this.random, this.bench), start: 0 });
  }

  step(): void {
    const { random, bench } = this;
    const { hub, checked } = bench;
    const stream = this.streams.length === 0 ? undefined : this.streams[random.below(this.streams.length)]!;
    const kind = random.below(17);
    if (kind === 16) this.replaceState();
    else if (kind < 5) randomWrite(random, bench, this.compacts);
    else if (kind < 7) this.endTurn();
    else if (kind < 8) bench.hub.catchUp();
    else if (kind < 10) (stream ?? this.openStream()).add(randomOptions(random, bench));
    else if (kind === 10) this.openStream();
    else if (kind === 11 && stream !== undefined) stream.setBlocked(!stream.isBlocked);
    else if (kind === 12 && stream !== undefined) {
      const live = stream.live();
      if (live.length > 0) stream.remove(live[random.below(live.length)]!);
    } else if (kind === 13 && random.below(4) === 0) checked.storage.flush();
    else if (kind === 14 && this.compacts && random.below(3) === 0) checked.compact(bench.revision - random.below(10));
    else if (kind === 15 && random.below(4) === 0 && stream !== undefined) this.closeStream(stream);
    hub.checkInvariants();
  }

  /** A snapshot of a later state is installed: the hub hears of no change in it. */
  private replaceState(): void {
    const { random, bench } = this;
    const { store } = bench.checked;
    bench.hub.flush();
    const { onCommit } = store;
    const before = bench.revision;
    const lowest = new Map<Watched, number>();
    for (const stream of [...this.streams, this.quick]) {
      for (const watched of stream.live()) lowest.set(watched, watched.watcher.minRevision);
    }
    store.onCommit = null;
    for (let count = random.below(4); count > 0; count--) randomWrite(random, bench, this.compacts);
    // The quick one is never behind what is compacted otherwise; nor is it here.
    if (this.compacts && random.below(3) === 0) bench.checked.compact(before);
    store.onCommit = onCommit;
    store.restore(store.currentRevision, store.compactRevision);
    bench.hub.restored(before);
    for (const [{ watcher }, revision] of lowest) {
      assert.ok(watcher.minRevision >= revision, 'what it was given it would be given again');
      if (watcher.minRevision <= bench.revision) assert.equal(bench.hub.isSynced(watcher), false);
    }
    // One that is synced again must have got all.
    while (bench.hub.hasCatchUp) bench.hub.catchUp();
  }

  private openStream(): RecordingStream {
    const { random } = this;
    const stream = new RecordingStream(this.bench);
    stream.onSend = () => {
      const kind = this.isQuiet ? -1 : random.below(12);
      if (kind === 0) stream.setBlocked(true);
      else if (kind === 1) this.closeStream(stream);
    };
    this.streams.push(stream);
    return stream;
  }

  private closeStream(stream: RecordingStream): void {
    stream.close();
    const at = this.streams.indexOf(stream);
    if (at >= 0) this.streams.splice(at, 1);
  }

  private endTurn(): void {
    this.bench.hub.flush();
    this.quick.checkComplete();
    for (const { watcher } of this.quick.live()) {
      assert.equal(this.bench.hub.isSynced(watcher), true);
    }
  }

  /** Everybody reads: everything must arrive, or the watcher have been cancelled. */
  settle(): void {
    const { bench } = this;
    this.isQuiet = true;
    for (const stream of this.streams) stream.setBlocked(false);
    bench.hub.flush();
    bench.catchUpAll();
    assert.equal(bench.hub.unsyncedCount, 0);
    let live = this.quick.live().length;
    for (const stream of this.streams) {
      stream.checkComplete();
      live += stream.live().length;
      for (const { watcher, firstRevision } of stream.live()) {
        const isThere = firstRevision <= bench.revision || watcher.startRevision === 0;
        assert.equal(bench.hub.isSynced(watcher), isThere);
      }
    }
    this.quick.checkComplete();
    assert.equal(bench.hub.watcherCount, live);
    this.isQuiet = false;
  }

  end(): void {
    this.settle();
    for (const stream of [...this.streams, this.quick]) stream.close();
    const { hub } = this.bench;
    assert.deepEqual([hub.watcherCount, hub.unsyncedCount, hub.hasCatchUp], [0, 0, false]);
    // Nothing is left behind in the groups: changes find nobody.
    const before = hub.eventsTotal;
    this.bench.write(['a', 'x'], ['b', 'y']);
    hub.flush();
    assert.equal(hub.eventsTotal, before);
  }
}

test('random histories: each watcher gets its events once, in order, whole revisions, or is told that they are compacted', () => {
  for (let seed = 1; seed <= 120; seed++) {
    const simulation = new Simulation(seed);
    try {
      for (let step = 0; step < 250; step++) {
        simulation.step();
        if (step % 60 === 59) simulation.settle();
      }
      simulation.end();
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
});

test('a turn with large changes is handed out in parts', () => {
  const bench = new WatchBench();
  const stream = new RecordingStream(bench);
  const watched = stream.add({ key: 'a' });
  for (let i = 0; i < 4; i++) bench.write(['a', 'x'.repeat(700_000)]);
  assert.equal(watched.givenCount, 4);
  assert.equal(watched.responseCount, 2);
  bench.write(['a', 'small'], ['b', 'x']);
  bench.write(['a', 'small']);
  assert.equal(watched.responseCount, 2, 'small ones wait for the end of the turn');
  bench.hub.flush();
  assert.equal(watched.responseCount, 3);
  stream.checkComplete();
});

test('a stream that ends while events before its new watcher are handed out', () => {
  const bench = new WatchBench();
  const stream = new RecordingStream(bench);
  stream.add({ key: 'a' });
  bench.write(['a', '1']);
  stream.onSend = () => stream.close();
  stream.add({ key: 'a' });
  assert.equal(bench.hub.watcherCount, 0);
  bench.hub.checkInvariants();
  bench.write(['a', '2']);
  bench.hub.flush();
  assert.equal(bench.hub.eventsTotal, 1);
});

test('another state: those behind its compaction are cancelled, the others get what they lack, nobody anything twice', () => {
  const bench = new WatchBench();
  const stream = new RecordingStream(bench);
  bench.write(['a', '1']);
  const synced = stream.add({ key: 'a' });
  const same = stream.add({ key: 'a' });
  const future = stream.add({ key: 'a', start: 5 });
  const farFuture = stream.add({ key: 'a', start: 50 });
  const blocked = new RecordingStream(bench);
  const behind = blocked.add({ key: 'a' });
  blocked.setBlocked(true);
  bench.write(['a', '2']);
  bench.hub.flush();
  assert.deepEqual([synced.givenCount, behind.givenCount], [1, 0]);
  const { store } = bench.checked;
  const { onCommit } = store;
  const before = bench.revision;
  store.onCommit = null;
  for (let i = 3; i < 7; i++) bench.write(['a', `${i}`]);
  bench.checked.compact(before + 1);
  store.onCommit = onCommit;
  store.restore(store.currentRevision, store.compactRevision);
  bench.hub.restored(before);
  bench.hub.checkInvariants();
  assert.equal(synced.watcher.minRevision, before + 1);
  bench.catchUpAll();
  blocked.setBlocked(false);
  bench.catchUpAll();
  assert.equal(behind.isCompacted, true);
  assert.deepEqual([synced.givenCount, same.givenCount, future.givenCount, farFuture.givenCount], [5, 5, 3, 0]);
  bench.write(['a', 'next']);
  bench.hub.flush();
  stream.checkComplete();
  assert.equal(synced.givenCount, 6);
});

test('a future revision: nothing before it, everything from it on', () => {
  const bench = new WatchBench();
  bench.write(['a', '1']);
  const stream = new RecordingStream(bench);
  const next = stream.add({ key: 'a', start: 3 });
  const later = stream.add({ key: 'a', start: 5 });
  assert.deepEqual(
    [next, later].map(({ watcher }) => bench.hub.isSynced(watcher)),
    [false, false],
  );
  bench.write(['a', '2']);
  bench.hub.flush();
  bench.catchUpAll();
  assert.deepEqual([next.givenCount, later.givenCount], [1, 0]);
  assert.deepEqual(
    [next, later].map(({ watcher }) => bench.hub.isSynced(watcher)),
    [true, false],
  );
  bench.write(['a', '3']);
  bench.write(['a', '4']);
  bench.write(['a', '5']);
  bench.hub.flush();
  bench.catchUpAll();
  assert.deepEqual([next.givenCount, later.givenCount], [4, 2]);
  assert.equal(bench.hub.isSynced(later.watcher), true);
});

test('a watch from exactly the compacted revision gets its tombstone; from before it is cancelled', () => {
  const bench = new WatchBench();
  bench.write(['a', '1']);
  bench.write(['a']);
  bench.write(['b', '2']);
  bench.checked.compact(3);
  const stream = new RecordingStream(bench);
  const exact = stream.add({ key: 'a', start: 3, prevKv: true });
  const before = stream.add({ key: 'a', start: 2 });
  bench.catchUpAll();
  assert.deepEqual([exact.givenCount, exact.isCompacted], [1, false]);
  assert.deepEqual([before.givenCount, before.isCompacted], [0, true]);
  assert.equal(bench.hub.watcherCount, 1);
});

test('a slow stream that compaction passes is cancelled once it reads; one that it does not pass goes on', () => {
  const bench = new WatchBench();
  const slow = new RecordingStream(bench);
  const quick = new RecordingStream(bench);
  const lost = slow.add({ key: 'a' });
  const quiet = slow.add({ key: 'z' });
  const other = quick.add({ key: 'a' });
  slow.setBlocked(true);
  for (let i = 0; i < 5; i++) {
    bench.write(['a', `${i}`]);
    bench.hub.flush();
  }
  assert.equal(bench.hub.hasCatchUp, false, 'there is nothing to do for a blocked stream');
  bench.checked.compact(5);
  assert.equal(bench.hub.catchUp(), false);
  slow.setBlocked(false);
  bench.catchUpAll();
  assert.deepEqual([lost.isCompacted, quiet.isCompacted, other.givenCount], [true, false, 5]);
  bench.write(['z', '1']);
  bench.hub.flush();
  assert.equal(quiet.givenCount, 1);
});

test('the same events for many watchers are counted for each', () => {
  const bench = new WatchBench();
  const stream = new RecordingStream(bench);
  for (let i = 0; i < 3; i++) stream.add({ key: 'a' });
  bench.write(['a', '1'], ['a', '2'], ['b', '1']);
  bench.hub.flush();
  assert.equal(bench.hub.eventsTotal, 6);
  stream.add({ key: 'a', start: 2 });
  bench.catchUpAll();
  assert.equal(bench.hub.eventsTotal, 8);
});

test('one that joins in the middle of a turn gets what comes after, even when its group ends at that moment', () => {
  const bench = new WatchBench();
  const blocked = new RecordingStream(bench);
  const stream = new RecordingStream(bench);
  blocked.add({ key: 'a' });
  blocked.setBlocked(true);
  bench.write(['a', '1']);
  // Handing out the group's events finds its only watcher blocked: the group is dropped while the new one joins it.
  const joined = stream.add({ key: 'a' });
  bench.write(['a', '2']);
  bench.hub.flush();
  assert.equal(joined.givenCount, 1);
  stream.remove(joined);
  blocked.setBlocked(false);
  bench.catchUpAll();
  blocked.checkComplete();
});

test('a stream that closes while its watchers are caught up is not written to again', () => {
  const bench = new WatchBench();
  bench.write(['a', '1']);
  const stream = new RecordingStream(bench);
  for (let i = 0; i < 3; i++) stream.add({ key: 'a', start: 1 });
  stream.onSend = () => stream.close();
  bench.catchUpAll();
  assert.equal(bench.hub.watcherCount, 0);
  bench.write(['a', '2']);
  bench.hub.flush();
});

test('removed in the middle of a turn, a watcher gets nothing more; twice is once', () => {
  const bench = new WatchBench();
  const stream = new RecordingStream(bench);
  const [gone, stays] = [stream.add({ key: 'a' }), stream.add({ key: 'a' })];
  bench.write(['a', '1']);
  stream.remove(gone);
  stream.remove(gone);
  bench.hub.flush();
  assert.deepEqual([gone.givenCount, stays.givenCount, bench.hub.watcherCount], [0, 1, 1]);
});

test('previous values: of the revision before, not of a change in the same one', () => {
  const bench = new WatchBench();
  bench.write(['a', 'old']);
  const stream = new RecordingStream(bench);
  const watched = stream.add({ key: 'a', prevKv: true });
  bench.write(['a', 'mid'], ['a']);
  bench.write(['a', 'new']);
  bench.hub.flush();
  assert.equal(watched.givenCount, 3);
  const again = stream.add({ key: 'a', end: 'b', start: 2, prevKv: true });
  bench.checked.storage.flush();
  bench.catchUpAll();
  assert.equal(again.givenCount, 4);
});
