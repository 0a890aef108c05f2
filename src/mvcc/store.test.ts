// Goal: the store's numbers and answers are etcd's. Method: random histories of transactions, compactions and flushes of the
// engine; at every step random ranges with every option are compared with a second implementation over whole copies of each
// revision's state (store-fixture.ts). Then single rules, counters and misuse by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Random, SeededRandom } from '../io/random.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { CheckedStore, type RangeOptions, randomEnd, randomKey } from './store-fixture.ts';

function randomRange(random: Random, revision: number): RangeOptions {
  const key = random.below(8) === 0 ? '\0' : randomKey(random);
  const bound = (): number => (random.below(5) === 0 ? 1 + random.below(revision + 2) : 0);
  const limits = [0, 0, 0, -1, -(2 ** 40), 2 ** 53, 1, 2, 3, 5];
  return {
    key,
    end: randomEnd(random, key),
    limit: limits[random.below(limits.length)]!,
    revision: random.below(2) === 0 ? 0 : random.below(revision + 4) - 1,
    sortOrder: random.below(3),
    sortTarget: random.below(2) === 0 ? 0 : random.below(5),
    keysOnly: random.below(4) === 0,
    countOnly: random.below(8) === 0,
    minMod: bound(),
    maxMod: bound(),
    minCreate: bound(),
    maxCreate: bound(),
  };
}

function checkRanges(checked: CheckedStore, random: Random, count: number): void {
  for (let i = 0; i < count; i++) {
    const options = randomRange(random, checked.revision);
    assert.deepEqual(checked.range(options), checked.expected(options), JSON.stringify(options));
  }
}

function randomTransaction(checked: CheckedStore, random: Random): void {
  checked.begin();
  for (let ops = random.below(6); ops > 0; ops--) {
    const key = randomKey(random);
    if (random.below(3) > 0) {
      checked.put(key, `v${random.below(10)}`.repeat(random.below(3)), BigInt(random.below(3)) - 1n);
    } else {
      const options = { key, end: randomEnd(random, key) };
      const expected = checked.expected(options).kvs.map((kv) => kv.key);
      assert.deepEqual(checked.delete(options.key, options.end), expected);
    }
    checkRanges(checked, random, 2);
  }
  checked.commit();
}

function checkLeases(checked: CheckedStore): void {
  const expected = new Map<string, bigint>();
  for (const kv of checked.history.states[checked.revision]!.values())
    if (kv.lease !== 0n) expected.set(kv.key, kv.lease);
  assert.deepEqual(new Map([...checked.leases.keys].sort()), new Map([...expected].sort()));
}

function checkCompaction(checked: CheckedStore, random: Random): void {
  const { store, revision } = checked;
  const asked = random.below(revision + 3) - 1;
  const before = store.compactRevision;
  const error = checked.compact(asked);
  if (asked <= before) assert.equal(error, etcdErrors.compacted);
  else if (asked > revision) assert.equal(error, etcdErrors.futureRev);
  else assert.equal(error, null);
  assert.equal(store.compactRevision, error === null ? asked : before);
}

test('random histories answer every range as etcd would', () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = new SeededRandom(seed);
    const checked = new CheckedStore();
    const commits: number[] = [];
    checked.store.onCommit = (main, changeCount) => {
      assert.equal(changeCount, checked.store.changes.length);
      commits.push(main);
    };
    try {
      for (let step = 0; step < 60; step++) {
        randomTransaction(checked, random);
        assert.equal(checked.store.currentRevision, checked.revision);
        assert.equal(commits.length, checked.revision - 1, 'one commit a revision, none without a change');
        checkLeases(checked);
        checkRanges(checked, random, 6);
        if (random.below(12) === 0) checkCompaction(checked, random);
        if (random.below(6) === 0) checked.storage.flush();
      }
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
});

test('every revision is answered until it is compacted, and the compacted revision itself still', () => {
  const checked = new CheckedStore();
  for (let i = 0; i < 20; i++) {
    checked.begin();
    if (i % 5 === 4) checked.delete('a');
    else checked.put('a', `v${i}`);
    checked.put(`k${i}`, '');
    checked.commit();
  }
  const all = { key: '\0', end: '\0' };
  for (const compacted of [5, 6, 14, 21]) {
    assert.equal(checked.compact(compacted), null);
    for (let revision = -1; revision <= 22; revision++) {
      const result = checked.range({ ...all, revision });
      assert.deepEqual(result, checked.expected({ ...all, revision }));
      assert.equal(result.error === etcdErrors.compacted, revision > 0 && revision < compacted);
      assert.equal(result.error === etcdErrors.futureRev, revision > 21);
    }
  }
  assert.equal(checked.compact(21), etcdErrors.compacted);
  assert.equal(checked.compact(22), etcdErrors.futureRev);
});

test('compaction at 0 is accepted once before any other, as in etcd', () => {
  const checked = new CheckedStore();
  assert.equal(checked.compact(-1), etcdErrors.compacted);
  assert.equal(checked.compact(0), null);
  assert.equal(checked.compact(0), etcdErrors.compacted);
  assert.equal(checked.compact(1), null);
});

test('a target without an order sorts, but only the first keys that the limit lets in and one more', () => {
  const checked = new CheckedStore();
  checked.begin();
  for (const [key, value] of ['d4', 'b1', 'a9', 'c0']) checked.put(key!, value!);
  checked.commit();
  const all = { key: '\0', end: '\0', sortTarget: 4 };
  const keys = (options: RangeOptions): string =>
    checked
      .range(options)
      .kvs.map((kv) => kv.key)
      .join('');
  assert.equal(keys(all), 'cbda');
  assert.equal(keys({ ...all, limit: 1 }), 'b', 'of a and b the one with the smaller value');
  assert.equal(keys({ ...all, limit: 1, sortOrder: 1 }), 'c');
  const cut = checked.range({ ...all, limit: 1 });
  assert.deepEqual([cut.more, cut.count], [true, 4]);
});

test('keys_only keeps the lease only when the values were read for sorting', () => {
  const checked = new CheckedStore();
  checked.begin();
  checked.put('a', 'value', 7n);
  checked.commit();
  const lease = (options: object): bigint => checked.range({ key: 'a', keysOnly: true, ...options }).kvs[0]!.lease;
  assert.equal(lease({}), 0n);
  assert.equal(lease({ sortTarget: 3, sortOrder: 1 }), 0n);
  assert.equal(lease({ minMod: 1 }), 0n);
  assert.equal(lease({ sortTarget: 4 }), 7n);
  assert.equal(lease({ sortTarget: 4, sortOrder: 2 }), 7n);
});

test('a transaction sees its own changes at its own revision, and the older ones at theirs', () => {
  const checked = new CheckedStore();
  checked.begin();
  checked.put('a', 'old');
  checked.commit();
  checked.begin();
  assert.equal(checked.range({ key: 'a' }).revision, 2);
  assert.equal(checked.range({ key: 'a', revision: 3 }).error, etcdErrors.futureRev);
  checked.put('a', 'new');
  assert.equal(checked.range({ key: 'a' }).revision, 3);
  assert.equal(checked.range({ key: 'a' }).kvs[0]!.value, 'new');
  assert.equal(checked.range({ key: 'a', revision: 3 }).kvs[0]!.value, 'new');
  assert.equal(checked.range({ key: 'a', revision: 2 }).kvs[0]!.value, 'old');
  checked.delete('a');
  assert.equal(checked.range({ key: 'a' }).count, 0);
  assert.equal(checked.range({ key: 'a', revision: 2 }).count, 1);
  // Made anew after its delete: a first version, in the same revision.
  checked.put('a', 'third');
  const [kv] = checked.range({ key: 'a' }).kvs;
  assert.deepEqual([kv!.create, kv!.mod, kv!.version], [3, 3, 1]);
  checked.commit();
  assert.deepEqual(checked.range({ key: 'a' }).kvs, [kv]);
});

test('at() finds the value before a revision, and nothing that is compacted', () => {
  const checked = new CheckedStore();
  for (const value of ['x', 'y', 'z']) {
    checked.begin();
    checked.put('a', value);
    checked.commit();
  }
  const row = { buffer: Buffer.alloc(0), start: 0, end: 0 };
  const at = (revision: number): boolean => checked.store.at(Buffer.from('a'), 0, 1, revision, row);
  assert.deepEqual([at(1), at(2), at(3), at(4)], [false, true, true, true]);
  checked.compact(3);
  assert.deepEqual([at(2), at(3)], [false, true]);
});

test('rows longer than any buffer before, and empty values', () => {
  const checked = new CheckedStore();
  checked.begin();
  checked.put('big', 'x'.repeat(300_000));
  checked.put('empty', '');
  checked.put('e\0', '\0');
  checked.commit();
  const all = { key: '\0', end: '\0' };
  assert.deepEqual(checked.range(all), checked.expected(all));
  checked.storage.flush();
  assert.deepEqual(checked.range(all), checked.expected(all));
});

test('counters: a put is a put, a transaction is more than one operation', () => {
  const checked = new CheckedStore();
  const { store } = checked;
  checked.begin();
  checked.put('ab', 'cde');
  checked.commit();
  assert.deepEqual({ ...store.counters }, { put: 1, delete: 0, range: 0, txn: 0, totalPutBytes: 5 });
  checked.begin();
  checked.put('a', '1');
  checked.range({ key: 'a' });
  checked.commit();
  checked.begin();
  checked.commit();
  checked.range({ key: 'a', revision: 99 });
  assert.deepEqual({ ...store.counters }, { put: 2, delete: 0, range: 2, txn: 1, totalPutBytes: 7 });
});

test('misuse is caught', () => {
  const { store } = new CheckedStore();
  assert.throws(() => store.end(), /no write transaction/);
  assert.throws(() => store.put(Buffer.from('k'), 0, 1, Buffer.from('v'), 0, 1, 0, 0), /outside/);
  store.begin();
  assert.throws(() => store.begin(), /open already/);
  assert.throws(() => store.deleteKey(Buffer.from('k'), 0, 1), /not live/);
});
