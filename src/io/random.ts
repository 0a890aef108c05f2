// Randomness, injected: `systemRandom` for ids, timeouts and salts, SeededRandom (xoshiro128**, Blackman and Vigna 2018) for
// simulation and tests, where a seed must replay the whole run. Not for secrets: those call node:crypto in src/auth.

import crypto from 'node:crypto';
import { assert } from '../base/assert.ts';

export interface Random {
  /** Uniform in [0, 2^32). */
  uint32(): number;
  /** Uniform in [0, 1), 53 bits. */
  float(): number;
  /** Uniform in [0, bound), for 0 < bound <= 2^32. */
  below(bound: number): number;
  uint64(): bigint;
  fill(buffer: Uint8Array): void;
}

abstract class RandomBase implements Random {
  abstract uint32(): number;

  float(): number {
    return ((this.uint32() >>> 5) * 0x4000000 + (this.uint32() >>> 6)) / 0x20000000000000;
  }

  below(bound: number): number {
    assert(bound > 0 && bound <= 0x100000000, 'bound of a random number');
    // The first multiple-of-bound values only: a plain remainder would favour the small ones.
    const limit = 0x100000000 - (0x100000000 % bound);
    let value = this.uint32();
    while (value >= limit) value = this.uint32();
    return value % bound;
  }

  uint64(): bigint {
    return (BigInt(this.uint32()) << 32n) | BigInt(this.uint32());
  }

  fill(buffer: Uint8Array): void {
    for (let i = 0; i < buffer.length; i += 4) {
      let word = this.uint32();
      for (let j = i; j < i + 4 && j < buffer.length; j++) {
        buffer[j] = word & 0xff;
        word >>>= 8;
      }
    }
  }
}

/** The same seed gives the same sequence, on every machine. */
export class SeededRandom extends RandomBase {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  constructor(seed: number) {
    super();
    // splitmix32 spreads a small seed over the state, which must not be all zero.
    let state = seed >>> 0;
    const mix = (): number => {
      state = (state + 0x9e3779b9) >>> 0;
      let z = state;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      return (z ^ (z >>> 16)) >>> 0;
    };
    this.#a = mix();
    this.#b = mix();
    this.#c = mix();
    this.#d = mix() | 1;
  }

  override uint32(): number {
    const product = Math.imul(this.#b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }
}

/** The operating system's randomness, fetched 4 KiB at a time because one call costs about a microsecond. */
class SystemRandom extends RandomBase {
  readonly #pool = Buffer.alloc(4096);
  #used = 4096;

  override uint32(): number {
    if (this.#used === this.#pool.length) {
      crypto.randomFillSync(this.#pool);
      this.#used = 0;
    }
    const value = this.#pool.readUInt32LE(this.#used);
    this.#used += 4;
    return value;
  }
}

export const systemRandom: Random = new SystemRandom();
