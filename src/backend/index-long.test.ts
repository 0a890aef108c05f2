// Goal: the ordinals of long keys keep the keys' order, whatever the order of inserts, also when the gaps run out and the
// group is numbered anew. Method: keys that share a prefix are inserted ascending, descending, at random, and converging to
// one place (each halves a gap, so 200 of them need a new numbering); then the table's order and every look-up are checked.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryStore } from '../testing/memory-tables.ts';
import { EntryFlag, EntryWriter } from './index-entry.ts';
import { TableKey } from './index-key.ts';
import { LongKeyFinder } from './index-long.ts';

const PREFIX = 'a common prefix of more than 16 bytes/';

function keyOf(n: number): Buffer {
  return Buffer.from(`${PREFIX}${String(n).padStart(6, '0')}`);
}

function converging(count: number): number[] {
  return Array.from({ length: count }, (_, i) => (i % 2 === 0 ? i : 100_000 - i));
}

const ORDERS: Record<string, number[]> = {
  ascending: Array.from({ length: 300 }, (_, i) => i),
  descending: Array.from({ length: 300 }, (_, i) => 300 - i),
  scattered: Array.from({ length: 300 }, (_, i) => (i * 7919) % 1009),
  converging: converging(200),
  'to one side': [0, ...Array.from({ length: 200 }, (_, i) => 100_000 - i)],
};

for (const [name, numbers] of Object.entries(ORDERS)) {
  test(`inserts ${name}`, () => {
    const store = new MemoryStore();
    const writer = store.openWriter();
    const table = writer.table('t');
    const tableKey = new TableKey(0, 16);
    const finder = new LongKeyFinder();
    const out = new EntryWriter();
    writer.transaction(() => {
      for (const n of numbers) {
        const key = keyOf(n);
        tableKey.set(key, 0, key.length);
        out.length = 0;
        out.byte(EntryFlag.long);
        out.varint(key.length);
        out.copy(key, 0, key.length);
        table.put(finder.insertKey(table, tableKey, key, 0, key.length), out.view());
      }
    });
    const seen: string[] = [];
    table.scan(undefined, undefined, (_key, value) => {
      seen.push(value.toString('latin1', 2));
      return true;
    });
    const sorted = numbers.toSorted((a, b) => a - b).map((n) => keyOf(n).toString());
    assert.deepEqual(seen, sorted);
    for (const n of numbers) {
      for (const [candidate, found] of [
        [keyOf(n), true],
        [Buffer.concat([keyOf(n), Buffer.from([0])]), false],
      ] as const) {
        tableKey.set(candidate, 0, candidate.length);
        finder.find(table, tableKey, candidate, 0, candidate.length);
        assert.equal(finder.found, found);
        const bound = finder.bound(table, tableKey, candidate, 0, candidate.length);
        const before = sorted.filter((key) => key < candidate.toString('latin1')).length;
        assert.equal(table.count(undefined, bound), before);
      }
    }
    assert.throws(() => {
      const key = keyOf(numbers[0]!);
      tableKey.set(key, 0, key.length);
      finder.insertKey(table, tableKey, key, 0, key.length);
    }, /there already/);
  });
}
