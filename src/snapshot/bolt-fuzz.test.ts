// Goal: the reader survives any bytes. Method: a second of bolt-reader.fuzz.ts with a fresh seed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzBoltReader } from './bolt-reader.fuzz.ts';

test('damaged databases are refused or read, without a throw or a loop', () => {
  const seed = Date.now() % 1_000_000_000;
  console.log(`bolt-reader fuzz: seed ${seed}`);
  const tally = fuzzBoltReader(seed, 1);
  assert.ok(tally.rounds > 20 && tally.refusedInTree > 0 && tally.sound > 0, JSON.stringify(tally));
});
