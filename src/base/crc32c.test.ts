// Goal: crc32c equals CRC-32C for every length and split. Method: the vectors of RFC 3720 (iSCSI) appendix B.4 and the usual
// check value, then a bit-by-bit reference over seeded bytes at every length to 200 and at random splits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32c } from './crc32c.ts';

function bitwise(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

test('published vectors', () => {
  const ascending = Uint8Array.from({ length: 32 }, (_, i) => i);
  assert.equal(crc32c(0, Buffer.from('123456789')), 0xe3069283);
  assert.equal(crc32c(0, new Uint8Array(32)), 0x8a9136aa);
  assert.equal(crc32c(0, new Uint8Array(32).fill(0xff)), 0x62a8ab43);
  assert.equal(crc32c(0, ascending), 0x46dd794e);
  assert.equal(crc32c(0, ascending.toReversed()), 0x113fdb5c);
  assert.equal(crc32c(0, new Uint8Array(0)), 0);
});

test('every length and offset equals the bit-by-bit reference', () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => (Math.imul(i + 1, 0x9e3779b1) >>> 13) & 255);
  for (let length = 0; length <= 200; length++) {
    const start = length % 23;
    assert.equal(crc32c(0, bytes, start, start + length), bitwise(bytes.subarray(start, start + length)));
  }
});

test('any split gives the same value', () => {
  const bytes = Uint8Array.from({ length: 1000 }, (_, i) => (Math.imul(i + 7, 0x85ebca6b) >>> 11) & 255);
  const whole = crc32c(0, bytes);
  for (let cut = 0; cut <= bytes.length; cut += 7) {
    assert.equal(crc32c(crc32c(0, bytes, 0, cut), bytes, cut), whole);
  }
});

test('a range outside of the bytes is a bug', () => {
  assert.throws(() => crc32c(0, new Uint8Array(4), 0, 5), /range outside/);
  assert.throws(() => crc32c(0, new Uint8Array(4), 3, 2), /range outside/);
});
