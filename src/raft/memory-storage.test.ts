// Goal: the in-memory log answers for exactly what was appended and not compacted. Method: by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryStorage } from './memory-storage.ts';
import { NO_TERM } from './storage.ts';
import { entries, voterStorage } from './testing.ts';
import { EMPTY_CONF_STATE, type Entry, EntryType, NO_BYTES } from './types.ts';

const terms = (storage: MemoryStorage): number[] => {
  const first = storage.firstIndex();
  if (storage.lastIndex() < first) return [];
  return storage.entries(first, storage.lastIndex() + 1, 1e9)!.map((one) => one.term);
};

test('appends in order, replaces from an earlier index on, refuses a gap', () => {
  const storage = new MemoryStorage();
  storage.append([]);
  storage.append(entries(1, 1, 1, 1));
  assert.deepEqual(terms(storage), [1, 1, 1]);
  storage.append(entries(2, 2));
  assert.deepEqual(terms(storage), [1, 2]);
  assert.throws(() => storage.append(entries(4, 2)), /a gap/);
  assert.equal(storage.term(0), 0);
  assert.equal(storage.term(3), NO_TERM);
});

test('compaction keeps the term of its last entry; late appends skip what is compacted', () => {
  const storage = new MemoryStorage();
  storage.append(entries(1, 1, 2, 3, 4));
  storage.compact(2);
  assert.deepEqual([storage.firstIndex(), storage.lastIndex(), storage.term(2), storage.term(1)], [3, 4, 2, NO_TERM]);
  assert.equal(storage.entries(2, 4, 1e9), null);
  storage.compact(1);
  assert.equal(storage.firstIndex(), 3, 'compacted already');
  storage.append(entries(1, 1, 2, 5));
  assert.deepEqual(terms(storage), [5]);
  storage.append(entries(1, 1));
  assert.deepEqual(terms(storage), [5], 'all of it is compacted');
  assert.throws(() => storage.compact(9), /beyond the log/);
});

test('an array given out does not change with the log', () => {
  const storage = new MemoryStorage();
  storage.append(entries(1, 1, 1));
  const given = storage.entries(1, 3, 1e9)!;
  storage.append(entries(2, 2, 2));
  assert.deepEqual(
    given.map((one) => one.term),
    [1, 1],
  );
});

test('snapshots: made at an index of the log, received ones replace it', () => {
  const storage = voterStorage(1n, 2n);
  storage.append(entries(1, 1, 1, 2));
  const confState = { ...EMPTY_CONF_STATE, voters: [1n] };
  const made = storage.createSnapshot(2, confState, Buffer.from('state'));
  assert.deepEqual(made.meta, { confState, index: 2, term: 1 });
  assert.equal(storage.firstIndex(), 1, 'the log stays');
  assert.throws(() => storage.createSnapshot(2, confState, NO_BYTES), /older/);
  assert.throws(() => storage.createSnapshot(9, confState, NO_BYTES), /outside the log/);
  storage.applySnapshot({ meta: { confState, index: 7, term: 3 }, data: NO_BYTES });
  assert.deepEqual([storage.firstIndex(), storage.lastIndex(), storage.term(7)], [8, 7, 3]);
  assert.throws(() => storage.applySnapshot(made), /older/);
  assert.deepEqual(storage.initialState().confState, confState);
  storage.setConfState(EMPTY_CONF_STATE);
  assert.deepEqual(storage.initialState().confState, EMPTY_CONF_STATE);
});

test('knows the bytes of its payloads, and what has to go for a bound', () => {
  const storage = new MemoryStorage();
  const sized = (first: number, term: number, ...sizes: number[]): Entry[] =>
    sizes.map((size, i) => ({ term, index: first + i, type: EntryType.normal, data: Buffer.alloc(size) }));
  storage.append(sized(1, 1, 10, 20, 30, 40));
  assert.equal(storage.bytes, 100);
  storage.append(sized(3, 2, 5));
  assert.equal(storage.bytes, 35, 'what was replaced does not count');
  storage.append(sized(4, 2, 100, 1000));
  assert.equal(storage.dropFor(2000, 5), 0);
  assert.equal(storage.dropFor(1100, 5), 3);
  assert.equal(storage.dropFor(1, 5), 5);
  assert.equal(storage.dropFor(1, 2), 2, 'no further than allowed');
  storage.compact(3);
  assert.equal(storage.bytes, 1100);
  assert.equal(storage.dropFor(1000, 5), 4);
  storage.applySnapshot({ meta: { confState: EMPTY_CONF_STATE, index: 9, term: 3 }, data: NO_BYTES });
  assert.equal(storage.bytes, 0);
});
