// Goal: the primitives of the wire format are read and written as protobuf.dev says, and malformed bytes end the read instead of
// throwing. Method: every boundary of a varint against an encoding by bigint arithmetic, then the malformed ones by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  bigVarintLength,
  Reader,
  varint64Length,
  varintLength,
  writeBigVarint,
  writeVarint,
  writeVarint64,
} from './wire.ts';

function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, value);
  for (; rest >= 128n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  bytes.push(Number(rest));
  return Buffer.from(bytes);
}

function readerOf(bytes: Buffer | number[]): Reader {
  const content = Buffer.from(bytes);
  // Read in the middle of something else: bytes around it must not be touched.
  const around = Buffer.concat([Buffer.alloc(3, 0xff), content, Buffer.alloc(12, 0x01)]);
  const reader = new Reader();
  reader.reset(around, 3, 3 + content.length);
  return reader;
}

/** Each power of two with its neighbours: all lengths of a varint and both halves' edges. */
const edges: bigint[] = [];
for (let bits = 0n; bits <= 64n; bits++) {
  for (const near of [-1n, 0n, 1n]) {
    const value = (1n << bits) + near;
    if (value >= 0n && value < 1n << 64n) edges.push(value);
  }
}

test('64-bit varints at every boundary, read and written', () => {
  const out = Buffer.alloc(12);
  for (const value of edges) {
    const expected = varint(value);
    const high = Number(value >> 32n);
    const low = Number(value & 0xffffffffn);
    assert.equal(varint64Length(high, low), expected.length, `${value}`);
    assert.equal(bigVarintLength(value), expected.length);
    assert.equal(writeVarint64(out, 1, high, low), 1 + expected.length);
    assert.deepEqual(out.subarray(1, 1 + expected.length), expected);
    assert.equal(writeVarint64(out, 0, high | 0, low | 0), expected.length, 'halves may be signed');
    assert.equal(writeBigVarint(out, 0, value), expected.length);
    assert.deepEqual(out.subarray(0, expected.length), expected);
    assert.equal(readerOf(expected).readUint64(), value);
    assert.equal(readerOf(expected).readInt64(), BigInt.asIntN(64, value));
    assert.equal(readerOf(expected).readBool(), value !== 0n);
    assert.equal(readerOf(expected).readEnum(), Number(BigInt.asIntN(32, value)));
    assert.equal(readerOf(expected).readUint(), Number(value));
    assert.equal(readerOf(expected).readInt(), Number(BigInt.asIntN(64, value)));
  }
});

test('numbers at every boundary, written', () => {
  const out = Buffer.alloc(12);
  for (const value of edges) {
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) continue;
    const expected = varint(value);
    assert.equal(varintLength(Number(value)), expected.length);
    assert.equal(writeVarint(out, 2, Number(value)), 2 + expected.length);
    assert.deepEqual(out.subarray(2, 2 + expected.length), expected);
  }
  assert.throws(() => writeVarint(out, 0, -1), /negative/);
});

test('negative numbers take ten bytes', () => {
  const out = Buffer.alloc(12);
  for (const value of [-1n, -2n, -(2n ** 31n), -(2n ** 32n) - 7n, -(2n ** 53n) + 1n, -(2n ** 63n)]) {
    assert.equal(writeBigVarint(out, 0, value), 10);
    assert.equal(readerOf(out.subarray(0, 10)).readInt64(), value);
    assert.equal(readerOf(out.subarray(0, 10)).readInt(), Number(value));
  }
});

test('a varint of padding is read; beyond ten bytes or 64 bits it is malformed', () => {
  assert.equal(readerOf([0x85, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]).readUint64(), 5n);
  const nine = Array<number>(9).fill(0xff);
  for (const bad of [[], [0x80], nine, [...nine, 0x02], [...nine, 0x81], [...nine, 0x80, 0x00]]) {
    const reader = readerOf(bad);
    assert.equal(reader.readVarint64(), false, `${bad}`);
    assert.equal(reader.ok, false);
    assert.equal(reader.position, reader.end, 'nothing more is read');
    assert.equal(readerOf(bad).readInt(), 0);
    assert.equal(readerOf(bad).readUint(), 0);
    assert.equal(readerOf(bad).readInt64(), 0n);
    assert.equal(readerOf(bad).readUint64(), 0n);
    assert.equal(readerOf(bad).readBool(), false);
    assert.equal(readerOf(bad).readEnum(), 0);
  }
});

test('lengths and tags: 32 bits, padded or not', () => {
  for (const value of [0, 1, 127, 128, 16383, 16384, 2 ** 28 - 1, 2 ** 28, 2 ** 31, 2 ** 32 - 1]) {
    const reader = readerOf(varint(BigInt(value)));
    assert.equal(reader.readUint32(), value);
    assert.ok(reader.ok && reader.position === reader.end);
  }
  assert.equal(readerOf([0x83, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]).readUint32(), 3);
  for (const bad of [[], [0x80], [0x80, 0x80], [0x80, 0x80, 0x80, 0x80, 0x10], Array<number>(10).fill(0xff)]) {
    const reader = readerOf(bad);
    assert.equal(reader.readUint32(), 0, `${bad}`);
    assert.ok(!reader.ok && reader.position === reader.end);
  }
});

test('tags', () => {
  const reader = readerOf([0x08, 0xa2, 0x06, 0xfa, 0xff, 0xff, 0xff, 0x0f]);
  const seen: number[][] = [];
  while (reader.readTag()) seen.push([reader.fieldNumber, reader.wireType]);
  assert.ok(reader.ok);
  assert.deepEqual(seen, [
    [1, 0],
    [100, 2],
    [2 ** 29 - 1, 2],
  ]);
  for (const bad of [[0x00], [0x07], [0x80], [0x82, 0x80, 0x80, 0x80, 0x10]]) {
    const malformed = readerOf(bad);
    assert.equal(malformed.readTag(), false, `${bad}`);
    assert.equal(malformed.ok, false);
  }
});

test('length-delimited fields end within their message', () => {
  const reader = readerOf([3, 10, 11, 12, 0, 1, 13]);
  assert.ok(reader.readBytes());
  assert.deepEqual([...reader.buffer.subarray(reader.bytesStart, reader.bytesEnd)], [10, 11, 12]);
  assert.ok(reader.readBytes());
  assert.equal(reader.bytesStart, reader.bytesEnd);
  assert.ok(reader.readBytes());
  assert.equal(reader.position, reader.end);
  for (const bad of [[], [1], [4, 1, 2, 3], [0xff, 0xff, 0xff, 0xff, 0x0f, 1], [0xff, 0xff, 0xff, 0xff, 0xff, 0x01]]) {
    const malformed = readerOf(bad);
    assert.equal(malformed.readBytes(), false, `${bad}`);
    assert.equal(malformed.ok, false);
    assert.equal(malformed.bytesStart, malformed.bytesEnd, 'the bytes of a malformed field are none');
  }
});

test('skip steps over each wire type; unknown types and ends of groups that never began are malformed', () => {
  const fields = [0x08, 0x96, 0x01, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x1a, 2, 9, 9, 0x25, 1, 2, 3, 4, 0x28, 0x2a];
  const reader = readerOf(fields);
  for (let i = 0; i < 4; i++) {
    assert.ok(reader.readTag());
    reader.skip();
  }
  assert.ok(reader.readTag());
  assert.equal(reader.fieldNumber, 5);
  assert.equal(reader.readInt(), 42);
  assert.ok(reader.ok && !reader.readTag());
  for (const bad of [[0x0c], [0x0e], [0x0f], [0x09, 1, 2, 3], [0x0d, 1], [0x0a, 9], [0x08]]) {
    const malformed = readerOf(bad);
    assert.ok(malformed.readTag());
    malformed.skip();
    assert.equal(malformed.ok, false, `${bad}`);
    assert.equal(malformed.readTag(), false);
  }
});

const tag = (fieldNumber: number, wireType: number): Buffer => varint(BigInt(fieldNumber) * 8n + BigInt(wireType));

/** A group of this number around `inner`. */
function group(fieldNumber: number, inner: readonly number[] = []): number[] {
  return [...tag(fieldNumber, 3), ...inner, ...tag(fieldNumber, 4)];
}

/** Whether Go's protobuf reads it, which is where each of these answers was looked up (test-e2e/wire.peer-test.ts). */
function isSkipped(bytes: readonly number[]): boolean {
  const reader = readerOf([...bytes, 0x28, 0x2a]);
  assert.ok(reader.readTag());
  reader.skip();
  if (!reader.ok) {
    assert.equal(reader.readTag(), false);
    return false;
  }
  assert.ok(reader.readTag());
  assert.deepEqual([reader.fieldNumber, reader.readInt(), reader.ok], [5, 42, true]);
  return true;
}

test('skip steps over groups, however they are filled, up to the nesting that Go takes', () => {
  const fields = [0x08, 0x96, 0x01, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x1a, 2, 0x0c, 9, 0x25, 1, 2, 3, 4];
  assert.ok(isSkipped(group(1)));
  assert.ok(isSkipped(group(99, fields)));
  assert.ok(isSkipped(group(536_870_911, [...fields, ...group(1, fields), ...group(1, group(2))])));
  // A tag may be padded; inside of a group a number may have 31 bits.
  assert.ok(isSkipped([0x9b, 0x06, 0x9c, 0x86, 0x80, 0x00]));
  assert.ok(isSkipped(group(9, [...tag(2_147_483_647, 0), 1])));
  assert.equal(isSkipped(group(9, [...tag(2_147_483_648, 0), 1])), false);
  const nested = (depth: number): number[] => [
    ...Array.from({ length: depth }, () => 0x0b),
    ...Array.from({ length: depth }, () => 0x0c),
  ];
  assert.ok(isSkipped(nested(10_001)));
  assert.equal(isSkipped(nested(10_002)), false);
  assert.equal(isSkipped(nested(500_000)), false);
});

test('a group that does not end, ends under another number, or holds what is malformed is malformed', () => {
  const broken = [
    [0x0b],
    [0x0b, 0x14],
    [0x0b, 0x13, 0x0c, 0x14],
    group(1, [0x00, 1]),
    group(1, [0x0e]),
    group(1, [0x0f]),
    [0x0b, 0x0a, 9, 0x0c],
    [0x0b, 0x09, 1, 2],
    [0x0b, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x0c],
    [0x0b, 0x80],
  ];
  for (const bytes of broken) {
    const malformed = readerOf(bytes);
    assert.ok(malformed.readTag());
    malformed.skip();
    assert.equal(malformed.ok, false, `${bytes}`);
    assert.equal(malformed.readTag(), false);
  }
});
