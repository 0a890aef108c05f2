// Goal: the protobuf readers survive any bytes. Method: a second of each fuzzer with a fresh seed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzKvRequests } from './kv-request.fuzz.ts';
import { type FuzzTally, fuzzMessages } from './message.fuzz.ts';

function run(name: string, fuzz: (seed: number, seconds: number) => FuzzTally): void {
  const seed = Date.now() % 1_000_000_000;
  console.log(`${name} fuzz: seed ${seed}`);
  const tally = fuzz(seed, 1);
  const share = tally.read / (tally.read + tally.refused);
  assert.ok(tally.rounds > 200 && share > 0.05 && share < 0.95, JSON.stringify(tally));
}

test('harmed messages are read or refused, without a throw', () => run('message', fuzzMessages));
test('harmed KV requests are read or refused, without a throw', () => run('kv-request', fuzzKvRequests));
