// Goal: messages survive any framing. Method: the framing fuzzer for about a second, from a seed that is printed when a run
// fails; `make fuzz` runs it for long.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzFor } from '../testing/fuzz-loop.ts';
import { fuzzGrpcFraming } from './grpc-framing.fuzz.ts';

test('gRPC framing fuzz', () => {
  assert.ok(fuzzFor(fuzzGrpcFraming, 1, Date.now() % 1_000_000_000) > 0);
});
