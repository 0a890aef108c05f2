// The bytes that a connection will write at its next flush: frames are built in place, in one chunk as long as they fit.
//
//   buffer   [ handed to the transport | not yet flushed | free ]
//            0                         start             end     buffer.length
//
// Hot path: `ensure(n)`, write at `buffer[end...]`, set `end`. A chunk goes back to the pool only when the transport holds
// no view of it any more.

import { assert } from '../base/assert.ts';
import type { ChunkPool } from './chunk-pool.ts';

const none: Buffer = Buffer.alloc(0);

export class OutputArena {
  private readonly pool: ChunkPool;
  buffer: Buffer = none;
  end = 0;
  private start = 0;
  private sealed: Buffer[] = [];
  private sealedBytes = 0;

  constructor(pool: ChunkPool) {
    this.pool = pool;
  }

  /** Bytes not yet flushed. */
  get length(): number {
    return this.sealedBytes + this.end - this.start;
  }

  /** Makes room for `bytes` behind `end`, in one piece. */
  ensure(bytes: number): void {
    if (this.buffer.length - this.end < bytes) this.extend(bytes);
  }

  private extend(bytes: number): void {
    if (this.end > this.start) {
      this.sealed.push(this.buffer.subarray(this.start, this.end));
      this.sealedBytes += this.end - this.start;
    }
    this.buffer = bytes <= this.pool.chunkBytes ? this.pool.take() : Buffer.allocUnsafeSlow(bytes);
    this.start = 0;
    this.end = 0;
  }

  /** Takes what is to be flushed. Call `settle` when the transport has it. */
  take(): Buffer[] {
    const chunks = this.sealed;
    if (this.end > this.start) {
      const whole = this.start === 0 && this.end === this.buffer.length;
      chunks.push(whole ? this.buffer : this.buffer.subarray(this.start, this.end));
    }
    this.sealed = [];
    this.sealedBytes = 0;
    this.start = this.end;
    return chunks;
  }

  /**
   * After `take` and the transport's write. `written`: the transport holds no view of any chunk, now or from before, so this
   * one is free; otherwise the space behind what was taken is used and the collector gets the chunk when it is full.
   */
  settle(written: boolean): void {
    assert(this.start === this.end && this.sealedBytes === 0, 'settled only right after take');
    if (!written) return;
    if (this.buffer.length === this.pool.chunkBytes) this.pool.give(this.buffer);
    this.buffer = none;
    this.start = 0;
    this.end = 0;
  }

  /** Forgets everything unflushed. */
  clear(): void {
    this.sealed = [];
    this.sealedBytes = 0;
    this.buffer = none;
    this.start = 0;
    this.end = 0;
  }
}
