// Goal: the protobuf readers survive any bytes. Method: a second of each fuzzer from a fresh seed on.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzFor } from '../testing/fuzz-loop.ts';
import { fuzzKvRequests } from './kv-request.fuzz.ts';
import { type FuzzTally, fuzzMessages } from './message.fuzz.ts';

function run(fuzz: (seed: number, tally: FuzzTally) => void): void {
  const tally = { read: 0, refused: 0 };
  const runs = fuzzFor((seed) => fuzz(seed, tally), 1, Date.now() % 1_000_000_000);
  const share = tally.read / (tally.read + tally.refused);
  assert.ok(runs > 200 && share > 0.05 && share < 0.95, `${runs} runs, ${JSON.stringify(tally)}`);
}

test('harmed messages are read or refused, without a throw', () => run(fuzzMessages));
test('harmed KV requests are read or refused, without a throw', () => run(fuzzKvRequests));
