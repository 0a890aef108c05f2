// Goal: the log is one list, wherever its parts are: compacted, in the storage, handed to the driver, new. Method:
// cases by hand, and random operations against a plain list with the storage lagging behind as it pleases.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { raftWritesInFlightMax } from '../limits.ts';
import { RaftLog } from './log.ts';
import { MemoryStorage } from './memory-storage.ts';
import { seededRandom } from './simulation.ts';
import { NO_TERM } from './storage.ts';
import { entries, entry, silent, voterStorage } from './testing.ts';
import type { Entry, Snapshot } from './types.ts';
import { WriteQueue } from './write-queue.ts';

function newLog(storage = new MemoryStorage()): RaftLog {
  return new RaftLog(storage, Number.POSITIVE_INFINITY, silent);
}

/** Hands the new entries out as Ready `sequence`. */
function take(log: RaftLog, sequence: number): Entry[] {
  const taken = log.takeEntries();
  log.writes.push({ sequence, lastIndex: log.handedOutIndex, term: 1, vote: 0n, snapshotIndex: 0 });
  return taken;
}

/** What RawNode.persisted() does with the log. */
function persisted(log: RaftLog, sequence: number): void {
  for (let write = log.writes.shift(sequence); write !== null; write = log.writes.shift(sequence)) {
    log.stableTo(write.lastIndex);
    if (write.snapshotIndex > 0) log.stableSnapshotTo(write.snapshotIndex);
  }
}

function terms(log: RaftLog): number[] {
  return Array.from({ length: log.lastIndex }, (_, i) => log.term(i + 1));
}

test('appending: agreeing entries stay, a conflict replaces the rest', () => {
  const log = newLog();
  log.append(entries(1, 1, 2, 3), 0);
  assert.equal(log.maybeAppend(3, 2, entries(4, 4), 0), -1, 'another term at the entry before');
  assert.equal(log.maybeAppend(5, 3, entries(6, 4), 0), -1, 'a gap');
  assert.equal(log.maybeAppend(0, 0, entries(1, 1, 2), 2), 2);
  assert.deepEqual(terms(log), [1, 2, 3], 'a prefix does not cut the rest');
  assert.equal(log.committed, 2);
  assert.equal(log.maybeAppend(2, 2, entries(3, 4, 4), 9), 4);
  assert.deepEqual(terms(log), [1, 2, 4, 4]);
  assert.equal(log.committed, 4, 'commit only what the message vouches for');
  assert.throws(() => log.maybeAppend(1, 1, entries(2, 5), 0), /committed entry would be overwritten/);
});

test('the guess of where logs agree takes one step a term', () => {
  const log = newLog();
  log.append(entries(1, 1, 3, 3, 3, 5, 5, 5), 0);
  assert.deepEqual(log.findConflictByTerm(7, 4), { index: 4, term: 3 });
  assert.deepEqual(log.findConflictByTerm(7, 2), { index: 1, term: 1 });
  assert.deepEqual(log.findConflictByTerm(7, 0), { index: 0, term: 0 });
  assert.deepEqual(log.findConflictByTerm(6, 5), { index: 6, term: 5 });
  assert.deepEqual(log.findConflictByTerm(9, 5), { index: 9, term: 0 }, 'not known: it may agree');
});

test('a longer log or a later term is more up to date', () => {
  const log = newLog();
  log.append(entries(1, 1, 1, 2), 0);
  assert.equal(log.isUpToDate(3, 2), true);
  assert.equal(log.isUpToDate(4, 2), true);
  assert.equal(log.isUpToDate(2, 2), false);
  assert.equal(log.isUpToDate(1, 3), true);
  assert.equal(log.isUpToDate(9, 1), false);
});

test('a commit beyond the log is the loss of entries', () => {
  const log = newLog();
  log.append(entries(1, 1), 0);
  assert.throws(() => log.commitTo(2), { name: 'FatalError', exitCode: 10 });
});

test('only entries that are durable and committed are handed out to be applied', () => {
  const storage = new MemoryStorage();
  const log = newLog(storage);
  log.append(entries(1, 1, 1, 1), 0);
  log.commitTo(2);
  assert.equal(log.hasNextCommitted, false);
  storage.append(take(log, 1));
  assert.equal(log.hasNextCommitted, false, 'handed out is not durable');
  persisted(log, 1);
  assert.deepEqual(
    log.takeCommitted().map((one) => one.index),
    [1, 2],
  );
  assert.equal(log.hasNextCommitted, false);
  assert.throws(() => log.appliedTo(3), /up to what was handed out/);
  log.appliedTo(1);
  log.appliedTo(2);
  assert.throws(() => log.appliedTo(1), /move forward/);
  log.checkInvariants();
});

test('what is being applied is bounded in bytes, and one entry always goes', () => {
  const storage = new MemoryStorage();
  const log = new RaftLog(storage, 100, silent);
  log.append(
    [1, 2, 3].map((index) => entry(1, index, 'x'.repeat(60))),
    0,
  );
  log.commitTo(3);
  storage.append(take(log, 1));
  persisted(log, 1);
  assert.equal(log.takeCommitted().length, 1);
  assert.equal(log.hasNextCommitted, false, 'the next entry would pass the bound');
  assert.equal(log.takeCommitted().length, 0);
  assert.equal(log.appliedTo(1), 60);
  assert.equal(log.takeCommitted().length, 1);
  assert.equal(log.appliedTo(2), 60);
  assert.equal(log.takeCommitted().length, 1);
  assert.equal(log.appliedTo(3), 60);
});

test('ABA: entries that come back are not made durable by their first write', () => {
  const storage = new MemoryStorage();
  const log = newLog(storage);
  log.append(entries(1, 1), 0);
  storage.append(take(log, 1));
  persisted(log, 1);
  log.append(entries(2, 1, 1), 0);
  const first = take(log, 2);
  log.append(entries(2, 2), 0);
  const second = take(log, 3);
  log.append(entries(2, 1, 1), 0);
  const third = take(log, 4);
  storage.append(first);
  persisted(log, 2);
  assert.equal(log.stableIndex, 1, 'the second write will undo the first');
  storage.append(second);
  persisted(log, 3);
  assert.equal(log.stableIndex, 1);
  assert.deepEqual(terms(log), [1, 1, 1]);
  storage.append(third);
  persisted(log, 4);
  assert.equal(log.stableIndex, 3);
  assert.equal(storage.lastIndex(), 3);
  log.checkInvariants();
});

test('writes beyond the bound are acknowledged together', () => {
  const queue = new WriteQueue();
  for (let sequence = 1; sequence <= raftWritesInFlightMax + 2; sequence++) {
    queue.push({ sequence, lastIndex: sequence, term: sequence, vote: 1n, snapshotIndex: 0 });
  }
  assert.equal(queue.count, raftWritesInFlightMax);
  for (let i = 1; i < raftWritesInFlightMax; i++) assert.equal(queue.shift(i)!.lastIndex, i);
  assert.equal(queue.shift(raftWritesInFlightMax), null, 'merged: not before the last of them');
  const last = queue.shift(raftWritesInFlightMax + 2)!;
  assert.deepEqual([last.lastIndex, last.term], [raftWritesInFlightMax + 2, raftWritesInFlightMax + 2]);
});

test('a snapshot replaces the log, and what is in flight no longer counts', () => {
  const storage = voterStorage(1n);
  const log = newLog(storage);
  log.append(entries(1, 1, 1, 1), 0);
  const flying = take(log, 1);
  const meta = { confState: storage.initialState().confState, index: 2, term: 2 };
  const snapshot: Snapshot = { meta, data: Buffer.from('s') };
  log.restore(snapshot);
  assert.equal(log.lastIndex, 2);
  assert.equal(log.term(2), 2);
  assert.equal(log.term(1), NO_TERM);
  log.append(entries(3, 2), 0);
  storage.append(flying);
  persisted(log, 1);
  assert.equal(log.stableIndex, 2);
  assert.equal(log.hasPendingSnapshot, true);
  assert.equal(log.takeSnapshot(), snapshot);
  assert.equal(log.takeSnapshot(), null, 'handed out once');
  const taken = log.takeEntries();
  log.writes.push({ sequence: 2, lastIndex: log.handedOutIndex, term: 2, vote: 0n, snapshotIndex: 2 });
  storage.applySnapshot(snapshot);
  storage.append(taken);
  persisted(log, 2);
  assert.equal(log.hasPendingSnapshot, false);
  assert.equal(log.stableIndex, 3);
  log.appliedTo(2);
  log.checkInvariants();
});

test('a slice over storage and unstable entries keeps the bound', () => {
  const storage = new MemoryStorage();
  const log = newLog(storage);
  const all = [1, 2, 3, 4].map((index) => entry(1, index, 'x'.repeat(76))); // 100 bytes each.
  log.append(all.slice(0, 2), 0);
  storage.append(take(log, 1));
  persisted(log, 1);
  log.append(all.slice(2), 0);
  const count = (lo: number, bytesMax: number): number => log.entriesFrom(lo, bytesMax)!.length;
  assert.equal(count(1, 0), 1);
  assert.equal(count(1, 199), 1);
  assert.equal(count(1, 200), 2);
  assert.equal(count(1, 299), 2);
  assert.equal(count(1, 300), 3);
  assert.equal(count(1, 9999), 4);
  assert.equal(count(3, 0), 1);
  assert.equal(count(5, 9999), 0);
  storage.compact(2);
  assert.equal(log.entriesFrom(2, 9999), null);
  assert.equal(log.term(2), 1, 'the compaction point keeps its term');
  assert.equal(log.term(1), NO_TERM);
});

test('random operations against a list', () => {
  const seed = Date.now() % 1_000_000;
  const random = seededRandom(seed);
  for (let run = 0; run < 60; run++) {
    const storage = new MemoryStorage();
    const log = newLog(storage);
    let model: Entry[] = [];
    let sequence = 0;
    let flying: { sequence: number; entries: Entry[] }[] = [];
    for (let i = 0; i < 150; i++) {
      const what = random(6);
      if (what < 2) {
        // Somewhere after commit, new entries replace what follows.
        const from = log.committed + random(model.length - log.committed + 1);
        const term = log.lastTerm + random(2) + 1;
        const added = Array.from({ length: 1 + random(4) }, (_, j) => entry(term, from + 1 + j));
        log.append(added, 0);
        model = [...model.slice(0, from), ...added];
      } else if (what === 2) {
        sequence++;
        flying.push({ sequence, entries: take(log, sequence) });
      } else if (what === 3 && flying.length > 0) {
        const count = 1 + random(flying.length);
        const done = flying.slice(0, count);
        flying = flying.slice(count);
        for (const one of done) storage.append(one.entries);
        persisted(log, done[count - 1]!.sequence);
      } else if (what === 4 && model.length > 0) {
        log.commitTo(log.committed + random(model.length - log.committed + 1));
      } else {
        for (const one of log.takeCommitted()) log.appliedTo(one.index);
        if (random(10) === 0) storage.compact(log.applied);
      }
      log.checkInvariants();
      const first = log.firstIndex;
      assert.equal(log.lastIndex, model.length, `seed ${seed}`);
      for (let index = first; index <= model.length; index++) {
        assert.equal(log.term(index), model[index - 1]!.term, `seed ${seed}`);
      }
      if (first <= model.length) {
        const hi = first + random(model.length - first + 1) + 1;
        assert.deepEqual(log.slice(first, hi, 1e9), model.slice(first - 1, hi - 1), `seed ${seed}`);
      }
      // What is durable is what the storage has, unless older writes are in flight that will change it.
      if (flying.length === 0) {
        for (let index = first; index <= log.stableIndex; index++) {
          assert.equal(storage.term(index), model[index - 1]!.term, `seed ${seed}`);
        }
      }
    }
  }
});
