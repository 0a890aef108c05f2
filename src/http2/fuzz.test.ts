// Goal: no input breaks HPACK or the connection. Method: each fuzzer for about a second, from a seed that is printed when a
// run fails; `make fuzz` runs them for long.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzFor } from '../testing/fuzz-loop.ts';
import { fuzzFrames } from './frame.fuzz.ts';
import { fuzzHpack } from './hpack.fuzz.ts';

test('HPACK fuzz', () => {
  assert.ok(fuzzFor(fuzzHpack, 1, Date.now() % 1_000_000_000) > 0);
});

test('frame fuzz', () => {
  assert.ok(fuzzFor(fuzzFrames, 1, Date.now() % 1_000_000_000) > 0);
});
