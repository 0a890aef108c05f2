// Goal: bytes leave in the order in which they were written and unchanged, a chunk goes back to the pool when the transport holds
// no view of it and not before, and every chunk does. Method: random frames against a transport that keeps what it takes for a
// while; the pool's chunks are overwritten as soon as they are given back, as another connection would.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import { ChunkPool } from './chunk-pool.ts';
import { OutputArena } from './output-arena.ts';

const chunkBytes = 256;

/** Overwrites what comes back, and counts what is out. */
class PoisoningPool extends ChunkPool {
  out = 0;
  override take(): Buffer {
    this.out += 1;
    return super.take();
  }
  override give(chunk: Buffer): void {
    this.out -= 1;
    chunk.fill(0xee);
    super.give(chunk);
  }
}

/** Writes the next `bytes` of the counting sequence. */
function write(arena: OutputArena, at: number, bytes: number): number {
  arena.ensure(bytes);
  for (let i = 0; i < bytes; i++) arena.buffer[arena.end + i] = (at + i) % 251;
  arena.end += bytes;
  return at + bytes;
}

test('random frames, flushes and slow transports', () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = new SeededRandom(seed);
    const pool = new PoisoningPool(chunkBytes, 64);
    const arena = new OutputArena(pool);
    let written = 0;
    let arrived = 0;
    /** Views that the transport holds. */
    let held: Buffer[] = [];
    const arrive = (): void => {
      for (const byte of Buffer.concat(held)) assert.equal(byte, arrived++ % 251, `seed ${seed}`);
      held = [];
    };
    for (let step = 0; step < 400; step++) {
      const kind = random.below(8);
      // One in twenty is larger than a chunk.
      if (kind < 5) written = write(arena, written, 1 + random.below(random.below(20) === 0 ? 900 : 120));
      else if (kind < 7 && arena.length > 0) {
        assert.equal(arena.length, written - arrived - Buffer.concat(held).length);
        held.push(...arena.take());
        assert.equal(arena.length, 0);
        const isSlow = random.below(2) === 0;
        if (!isSlow) arrive();
        arena.settle(!isSlow);
      } else if (kind === 7 && held.length > 0) {
        arrive();
        arena.settle(true);
      }
    }
    held.push(...arena.take());
    arrive();
    arena.settle(true);
    assert.equal(arrived, written);
    assert.deepEqual(
      [pool.out, arena.buffer.length, arena.length],
      [0, 0, 0],
      `seed ${seed}: an idle arena holds nothing`,
    );
  }
});

test('a turn of many chunks makes no new ones in the next', () => {
  const pool = new PoisoningPool(chunkBytes, 64);
  const arena = new OutputArena(pool);
  const seen = new Set<Buffer>();
  for (let turn = 0; turn < 50; turn++) {
    for (let i = 0; i < 40; i++) {
      write(arena, 0, 100);
      seen.add(arena.buffer);
    }
    arena.take();
    arena.settle(true);
  }
  assert.equal(seen.size, 20);
});

test('what is forgotten is not handed to another connection: the transport may hold it', () => {
  const pool = new PoisoningPool(chunkBytes, 64);
  const arena = new OutputArena(pool);
  for (let i = 0; i < 5; i++) write(arena, 0, 200);
  arena.take();
  arena.settle(false);
  write(arena, 0, 200);
  arena.clear();
  assert.equal(arena.length, 0);
  arena.settle(true);
  assert.equal(pool.out, 6);
});
