// Goal: table keys sort as the keys they stand for, are unique for short ones, bounded, and turn back.
// Method: random keys over an alphabet of 00, 01, fe, ff and letters, with bodies cut at 8 bytes, so that every second key is
// a long one; all pairs are compared.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { indexLimits, lmdbKeyBytesMax } from '../storage-limits.ts';
import { compareBytes, KeyReader, TableKey } from './index-key.ts';

function randomFrom(seed: number): (bound: number) => number {
  let state = seed;
  return (bound) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
}

test('order, uniqueness and return of random keys', () => {
  const random = randomFrom(3);
  const alphabet = [0, 1, 0xfe, 0xff, 97];
  const keys: Buffer[] = [];
  for (let i = 0; i < 600; i++) {
    keys.push(Buffer.from(Array.from({ length: random(14) }, () => alphabet[random(alphabet.length)]!)));
  }
  const builder = new TableKey(0, 8);
  const reader = new KeyReader();
  const tableKeys = keys.map((key) => {
    const tableKey = Buffer.from(builder.set(key, 0, key.length));
    assert.ok(tableKey.length > 0 && tableKey.length <= 10);
    if (builder.long) return { tableKey, end: Buffer.from(builder.groupEnd()), long: true };
    reader.read(tableKey, 0);
    assert.ok(reader.buffer.subarray(reader.start, reader.end).equals(key));
    return { tableKey, end: tableKey, long: false };
  });
  assert.ok(tableKeys.some((entry) => entry.long) && tableKeys.some((entry) => !entry.long));
  for (let i = 0; i < keys.length; i++) {
    for (let j = 0; j < keys.length; j++) {
      const order = keys[i]!.compare(keys[j]!);
      const a = tableKeys[i]!;
      const b = tableKeys[j]!;
      assert.equal(compareBytes(keys[i]!, 0, keys[i]!.length, keys[j]!, 0, keys[j]!.length), order);
      if (a.long && b.long && a.tableKey.equals(b.tableKey)) continue;
      assert.equal(a.tableKey.compare(b.tableKey), order, `${keys[i]!.toString('hex')} ${keys[j]!.toString('hex')}`);
      // A group, with whatever ordinals follow, lies wholly on one side of any other key.
      if (a.long && order < 0) assert.ok(a.end.compare(b.tableKey) <= 0);
    }
  }
});

test('a long key of any size stays below the bound of LMDB, with the head that `leased` needs', () => {
  const builder = new TableKey(8);
  const key = Buffer.alloc(100_000);
  builder.set(key, 0, key.length);
  assert.ok(builder.long);
  assert.ok(builder.withOrdinal(2 ** 48 - 1).length <= lmdbKeyBytesMax);
  // An escape cut in half: 3,899 letters and a zero need 3,901 bytes.
  const edge = Buffer.alloc(indexLimits.diskKeyBytes, 'a');
  builder.set(edge, 0, edge.length);
  assert.equal(builder.long, false);
  edge[edge.length - 1] = 0;
  builder.set(edge, 0, edge.length);
  assert.equal(builder.long, true);
});

test('broken table keys are bugs', () => {
  const reader = new KeyReader();
  assert.throws(() => reader.read(Buffer.from([97, 0, 1]), 0), /end mark/);
  assert.throws(() => reader.read(Buffer.from([97, 0, 5, 98, 0, 0]), 0), /broken escape/);
  assert.throws(() => new TableKey(8, lmdbKeyBytesMax), /longer than LMDB takes/);
});
