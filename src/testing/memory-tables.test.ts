// Goal: the in-memory tables behave as io/table.ts says. Method: random operations against a plain sorted array, with
// readers opened at random whose view must stay until refresh(), and transactions that are lost.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryStore } from './memory-tables.ts';

type Model = Map<string, string>;

function randomFrom(seed: number): (bound: number) => number {
  let state = seed >>> 0;
  return (bound) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
}

function listing(model: Model): [string, string][] {
  return [...model].sort((a, b) => Buffer.compare(Buffer.from(a[0], 'latin1'), Buffer.from(b[0], 'latin1')));
}

test('random operations equal a plain map; views stay until refresh', () => {
  const random = randomFrom(7);
  const store = new MemoryStore();
  const writer = store.openWriter();
  const reader = store.openReader();
  let committed: Model = new Map();
  let viewed: Model = new Map();
  const key = (): string => String.fromCharCode(random(6), 97 + random(26), random(256)).slice(0, 1 + random(3));
  for (let round = 0; round < 300; round++) {
    const next: Model = new Map(committed);
    const lost = random(5) === 0;
    const run = (): void =>
      writer.transaction(() => {
        const table = writer.table('t');
        for (let i = 0; i < 40; i++) {
          const k = key();
          if (random(3) === 0) assert.equal(table.remove(Buffer.from(k, 'latin1')), next.delete(k));
          else {
            const v = String(random(1000));
            table.put(Buffer.from(k, 'latin1'), Buffer.from(v));
            next.set(k, v);
          }
          assert.equal(table.entryCount(), next.size);
        }
        if (lost) throw new Error('lost');
      });
    if (lost) assert.throws(run, /lost/);
    else {
      run();
      committed = next;
    }
    if (random(3) === 0) {
      reader.refresh();
      viewed = committed;
    }
    const table = reader.table('t');
    const a = key();
    const b = key();
    const inRange = listing(viewed).filter(
      ([k]) =>
        Buffer.compare(Buffer.from(k, 'latin1'), Buffer.from(a, 'latin1')) >= 0 &&
        Buffer.compare(Buffer.from(k, 'latin1'), Buffer.from(b, 'latin1')) < 0,
    );
    for (const reverse of [false, true]) {
      const seen: [string, string][] = [];
      table.scan(
        Buffer.from(a, 'latin1'),
        Buffer.from(b, 'latin1'),
        (k, v) => {
          seen.push([k.toString('latin1'), v.toString()]);
          return true;
        },
        reverse,
      );
      assert.deepEqual(reverse ? seen.toReversed() : seen, inRange);
    }
    assert.equal(table.count(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1')), inRange.length);
    assert.equal(table.count(undefined, undefined), viewed.size);
    assert.equal(table.get(Buffer.from(a, 'latin1'))?.toString(), viewed.get(a));
  }
});

test('bytes handed out do not survive the next call; writes need a transaction', () => {
  const store = new MemoryStore();
  const writer = store.openWriter();
  writer.transaction(() => writer.table('t').put(Buffer.from('a'), Buffer.from('1')));
  const value = writer.table('t').get(Buffer.from('a'))!;
  assert.equal(value.toString(), '1');
  writer.table('u').get(Buffer.from('b'));
  assert.notEqual(value.toString(), '1');
  assert.throws(() => writer.table('t').put(Buffer.from('a'), Buffer.from('2')), /outside of a transaction/);
  assert.throws(() => writer.table('t').get(Buffer.alloc(0)), /empty key/);
});
