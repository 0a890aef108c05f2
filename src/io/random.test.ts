// Goal: a seed replays, values are spread evenly and within their bounds.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Random, SeededRandom, systemRandom } from './random.ts';

test('the same seed gives the same sequence, another seed another', () => {
  const draw = (seed: number): number[] => {
    const random = new SeededRandom(seed);
    return Array.from({ length: 100 }, () => random.uint32());
  };
  assert.deepEqual(draw(42), draw(42));
  assert.notDeepEqual(draw(42), draw(43));
  // Fixed, so that an old failing seed stays the same run.
  assert.deepEqual(draw(1).slice(0, 3), [2442144158, 3238099751, 3819917871]);
});

test('values are within bounds and spread evenly', () => {
  for (const random of [new SeededRandom(7), systemRandom] satisfies Random[]) {
    const counts = new Array<number>(10).fill(0);
    let sum = 0;
    for (let i = 0; i < 20_000; i++) {
      const value = random.below(10);
      counts[value]!++;
      const fraction = random.float();
      assert.ok(fraction >= 0 && fraction < 1);
      sum += fraction;
    }
    assert.ok(
      counts.every((count) => count > 1700 && count < 2300),
      counts.join(),
    );
    assert.ok(Math.abs(sum / 20_000 - 0.5) < 0.02);
    assert.equal(random.below(1), 0);
    assert.throws(() => random.below(0), /bound/);
    const high = Array.from({ length: 100 }, () => random.uint64());
    assert.ok(high.some((value) => value >= 1n << 63n) && high.every((value) => value < 1n << 64n));
    const bytes = Buffer.alloc(1003);
    random.fill(bytes);
    assert.ok(new Set(bytes).size > 200 && bytes.subarray(-3).some((byte) => byte !== 0));
  }
});
