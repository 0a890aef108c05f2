// Goal: frames come out of the reader whole and in order, however the input is cut. Method: one stream of frames of many
// sizes, cut at every offset and into single bytes; oversize frames and wrong prefaces, whole and in pieces.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChunkPool } from './chunk-pool.ts';
import { clientPreface, writeFrameHeader } from './frame.ts';
import { FrameReader } from './frame-reader.ts';

interface Seen {
  readonly frames: string[];
  tooLarge: number;
  badPreface: number;
}

const pool = new ChunkPool(9 + 16_384, 4);

function makeReader(stopAt = -1): { reader: FrameReader; seen: Seen } {
  const seen: Seen = { frames: [], tooLarge: 0, badPreface: 0 };
  const reader = new FrameReader(
    {
      frame: (buffer, start, end, type, flags, id): boolean => {
        seen.frames.push(
          `${type} ${flags} ${id} ${end - start} ${buffer.toString('hex', start, Math.min(end, start + 8))}`,
        );
        return seen.frames.length !== stopAt;
      },
      frameTooLarge: (): void => {
        seen.tooLarge += 1;
      },
      badPreface: (): void => {
        seen.badPreface += 1;
      },
    },
    16_384,
    pool,
  );
  return { reader, seen };
}

function frame(type: number, flags: number, id: number, length: number): Buffer {
  const out = Buffer.alloc(9 + length, type + length);
  writeFrameHeader(out, 0, length, type, flags, id);
  return out;
}

const input = Buffer.concat([
  clientPreface,
  frame(4, 0, 0, 0),
  frame(1, 5, 1, 20),
  frame(0, 1, 0x7fffffff, 300),
  frame(99, 255, 3, 1),
  frame(6, 0, 0, 8),
]);
const expected = ['4 0 0 0 ', '1 5 1 20', '0 1 2147483647 300', '99 255 3 1', '6 0 0 8'];

function check(seen: Seen): void {
  assert.equal(seen.frames.length, expected.length);
  for (const [i, text] of seen.frames.entries()) assert.ok(text.startsWith(expected[i]!), text);
  const tail = Buffer.alloc(8, 6 + 8).toString('hex');
  assert.ok(seen.frames[4]!.endsWith(tail));
}

test('frames survive every cut into two', () => {
  for (let cut = 0; cut <= input.length; cut += 1) {
    const { reader, seen } = makeReader();
    reader.feed(input.subarray(0, cut));
    reader.feed(input.subarray(cut));
    check(seen);
  }
});

test('frames survive pieces of any size', () => {
  for (let size = 1; size < 40; size += 1) {
    const { reader, seen } = makeReader();
    for (let at = 0; at < input.length; at += size) reader.feed(input.subarray(at, at + size));
    check(seen);
  }
});

test('the largest frame passes, one byte more stops the reader, whole or cut', () => {
  for (const cut of [33, 35, 60]) {
    const { reader, seen } = makeReader();
    const bytes = Buffer.concat([clientPreface, frame(0, 0, 1, 16_384), frame(0, 0, 1, 16_385), frame(6, 0, 0, 8)]);
    reader.feed(bytes.subarray(0, cut + 16_384));
    reader.feed(bytes.subarray(cut + 16_384));
    assert.deepEqual([seen.frames.length, seen.tooLarge], [1, 1]);
    reader.feed(frame(6, 0, 0, 8));
    assert.equal(seen.frames.length, 1);
  }
});

test('a wrong preface stops the reader at its first wrong byte', () => {
  for (let wrong = 0; wrong < clientPreface.length; wrong += 1) {
    const bytes = Buffer.from(input);
    bytes[wrong]! ^= 1;
    const { reader, seen } = makeReader();
    for (let at = 0; at < bytes.length; at += 1) reader.feed(bytes.subarray(at, at + 1));
    assert.deepEqual([seen.badPreface, seen.frames.length], [1, 0]);
  }
});

test('a sink that says stop gets nothing more', () => {
  for (let size = 1; size < 60; size += 7) {
    const { reader, seen } = makeReader(2);
    for (let at = 0; at < input.length; at += size) reader.feed(input.subarray(at, at + size));
    assert.equal(seen.frames.length, 2);
  }
});
