// Goal: what is written is read, at the edges of the numbers. Method: round trips of varints around powers of two, and of
// lists of changes with large differences, sub revisions and tombstones; cut entries are refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteReader, ChangeList, EntryFlag, EntryReader, EntryWriter, readUint64, writeUint64 } from './index-entry.ts';

test('varints', () => {
  const values: number[] = [];
  for (let bits = 0; bits < 53; bits++) values.push(2 ** bits - 1, 2 ** bits, 2 ** bits + 1);
  const writer = new EntryWriter();
  for (const value of values) writer.varint(value);
  const reader = new ByteReader();
  reader.buffer = writer.view();
  reader.end = writer.length;
  for (const value of values) assert.equal(reader.varint(), value);
  assert.equal(reader.at, reader.end);
});

test('64-bit numbers', () => {
  const buffer = Buffer.alloc(8);
  for (const value of [0, 1, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER]) {
    writeUint64(buffer, 0, value);
    assert.equal(buffer.readBigUInt64BE(0), BigInt(value));
    assert.equal(readUint64(buffer, 0), value);
  }
});

test('changes of a key', () => {
  const list = new ChangeList();
  const expected: [number, number, boolean][] = [];
  let main = 2 ** 49;
  for (let i = 0; i < 3000; i++) {
    const change: [number, number, boolean] = [main, i % 3 === 0 ? 0 : i, i % 7 === 0];
    expected.push(change);
    list.push(...change);
    main -= i % 5 === 0 ? 0 : i % 11 === 0 ? 2 ** 33 : i;
  }
  const writer = new EntryWriter();
  writer.byte(0);
  writer.varint(expected[0]![0]);
  writer.varint(expected[0]![1]);
  writer.varint(5);
  writer.varint(9);
  list.writeItems(writer, 1, list.length, expected[0]![0]);
  const entry = new EntryReader();
  entry.read(writer.view());
  assert.equal(entry.createMain, 2 ** 49 - 5);
  assert.equal(entry.version, 9);
  const seen: [number, number, boolean][] = [[entry.main, entry.sub, expected[0]![2]]];
  while (entry.next()) seen.push([entry.main, entry.sub, entry.tombstone]);
  assert.deepEqual(seen, expected);
  assert.throws(() => list.writeItems(new EntryWriter(), 0, 2, 1), /out of order/);
});

test('cut entries are refused', () => {
  const writer = new EntryWriter();
  writer.byte(EntryFlag.lease | EntryFlag.hist);
  for (const value of [300, 0, 1, 1]) writer.varint(value);
  writer.uint32(7);
  writer.uint32(0xffffffff);
  writer.varint(200);
  writer.varint(0);
  const entry = new EntryReader();
  entry.read(writer.view());
  assert.deepEqual([entry.leaseHi, entry.leaseLo, entry.histMain, entry.histSub], [7, 0xffffffff, 200, 0]);
  for (let length = 0; length < writer.length; length++) {
    assert.throws(() => entry.read(Buffer.from(writer.view().subarray(0, length))), `cut at ${length}`);
  }
});
