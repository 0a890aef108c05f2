// Goal: the peer protocol's codecs survive any bytes, however they are cut. Method: a second of the fuzzer from a fresh seed on.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzFor } from '../testing/fuzz-loop.ts';
import { fuzzPeerStreams } from './peer-streams.fuzz.ts';

test('harmed streams are read or refused, without a throw', () => {
  const tally = { read: 0, refused: 0 };
  const runs = fuzzFor((seed) => fuzzPeerStreams(seed, tally), 1, Date.now() % 1_000_000_000);
  const share = tally.read / (tally.read + tally.refused);
  assert.ok(runs > 100 && share > 0.05 && share < 0.95, `${runs} runs, ${JSON.stringify(tally)}`);
});
