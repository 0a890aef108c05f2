// Goal: what is written comes out, whatever growth falls in between, and embedded messages get the canonical length. Method:
// random sequences of writes on a buffer that starts with a few bytes, beside a plain array of what was written.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import { ByteWriter } from './byte-writer.ts';

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = BigInt(value);
  for (; rest >= 128n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  bytes.push(Number(rest));
  return bytes;
}

function content(writer: ByteWriter): number[] {
  return [...writer.bytes.subarray(0, writer.length)];
}

test('varints at every boundary', () => {
  for (let bits = 0; bits <= 53; bits++) {
    for (const value of [2 ** bits - 1, 2 ** bits, 2 ** bits + 1]) {
      if (value > Number.MAX_SAFE_INTEGER) continue;
      const writer = new ByteWriter(1);
      writer.varint(value);
      assert.deepEqual(content(writer), varint(value), String(value));
    }
  }
  assert.throws(() => new ByteWriter(8).varint(-1), /negative/);
});

test('fields', () => {
  const writer = new ByteWriter(2);
  writer.varintField(0x10, 0);
  assert.equal(writer.length, 0, 'a zero is left out');
  writer.varintField(0x10, 300);
  writer.bytesField(0x12, Buffer.from('abcdef'), 1, 3);
  assert.deepEqual(content(writer), [0x10, 0xac, 0x02, 0x12, 2, 0x62, 0x63]);
  writer.reset();
  assert.equal(writer.length, 0);
});

/** Writes a random message into both; nests. */
function writeRandom(writer: ByteWriter, expected: number[], random: SeededRandom, depth: number): void {
  for (let count = random.below(4); count > 0; count--) {
    const kind = random.below(depth > 3 ? 3 : 4);
    if (kind === 0) {
      const value = random.below(256);
      writer.byte(value);
      expected.push(value);
    } else if (kind === 1) {
      const value = random.below(2 ** (1 + random.below(31)));
      writer.varint(value);
      expected.push(...varint(value));
    } else if (kind === 2) {
      const source = Buffer.alloc(random.below(4) === 0 ? 200 : 6);
      random.fill(source);
      const start = random.below(3);
      writer.copy(source, start, source.length - 2);
      expected.push(...source.subarray(start, source.length - 2));
    } else {
      const inner: number[] = [];
      const mark = writer.openMessage(0x0a);
      writeRandom(writer, inner, random, depth + 1);
      writer.closeMessage(mark);
      expected.push(0x0a, ...varint(inner.length), ...inner);
    }
  }
}

test('random content with nested messages survives every growth', () => {
  for (let seed = 1; seed <= 3000; seed++) {
    const random = new SeededRandom(seed);
    const writer = new ByteWriter(1 + random.below(40));
    const expected: number[] = [];
    for (let i = 0; i < 4; i++) writeRandom(writer, expected, random, 0);
    assert.deepEqual(content(writer), expected, `seed ${seed}`);
  }
});

test('a message that ends at the end of the buffer keeps its content when its length is written', () => {
  for (let size = 1; size < 24; size++) {
    const writer = new ByteWriter(size);
    const mark = writer.openMessage(0x0a);
    writer.byte(7);
    writer.closeMessage(mark);
    assert.deepEqual(content(writer), [0x0a, 1, 7], `size ${size}`);
  }
});

test('release() gives a big buffer back and keeps a small one', () => {
  const writer = new ByteWriter(16);
  writer.reserve(1000);
  const grown = writer.bytes;
  writer.release(grown.length);
  assert.equal(writer.bytes, grown);
  writer.length = 5;
  writer.release(grown.length - 1);
  assert.equal(writer.bytes.length, 16);
  assert.equal(writer.length, 0);
});
