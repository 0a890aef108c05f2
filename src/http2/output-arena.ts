// The bytes that a connection will write at its next flush: frames are built in place, in one chunk as long as they fit.
//
//   buffer   [ handed to the transport | not yet flushed | free ]
//            0                         start             end     buffer.length
//
// Hot path: `ensure(n)`, write at `buffer[end...]`, set `end`. A chunk goes back to the pool only when the transport holds
// no view of it any more; until then it is in one of three places:
//
//   buffer → sealed (full, not yet flushed) → lent (flushed, the transport may hold a view) → the pool
//
// Why every chunk comes back and not only the last one: memory outside of the heap that is left to the collector has it mark the
// whole heap again after every 30 MB of output.

import type { ChunkPool } from './chunk-pool.ts';

const none: Buffer = Buffer.alloc(0);

export class OutputArena {
  private readonly pool: ChunkPool;
  buffer: Buffer = none;
  end = 0;
  private start = 0;
  /** What is not flushed of full chunks, in order, and the chunks themselves. */
  private sealed: Buffer[] = [];
  private readonly sealedChunks: Buffer[] = [];
  private sealedBytes = 0;
  private readonly lent: Buffer[] = [];

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
      this.sealed.push(this.unflushed());
      this.sealedChunks.push(this.buffer);
      this.sealedBytes += this.end - this.start;
    } else if (this.buffer !== none) {
      this.lent.push(this.buffer);
    }
    this.buffer = bytes <= this.pool.chunkBytes ? this.pool.take() : Buffer.allocUnsafeSlow(bytes);
    this.start = 0;
    this.end = 0;
  }

  private unflushed(): Buffer {
    const whole = this.start === 0 && this.end === this.buffer.length;
    return whole ? this.buffer : this.buffer.subarray(this.start, this.end);
  }

  /** Takes what is to be flushed. Call `settle` when the transport has it. */
  take(): Buffer[] {
    const views = this.sealed;
    if (this.end > this.start) views.push(this.unflushed());
    for (const chunk of this.sealedChunks) this.lent.push(chunk);
    this.sealedChunks.length = 0;
    this.sealed = [];
    this.sealedBytes = 0;
    this.start = this.end;
    return views;
  }

  /**
   * The transport has taken everything that was flushed. `written`: it holds no view of any chunk, now or from before, so they
   * are free; otherwise they stay lent, and the space behind what was taken is used.
   */
  settle(written: boolean): void {
    if (!written) return;
    for (const chunk of this.lent) this.giveBack(chunk);
    this.lent.length = 0;
    if (this.end > this.start) return;
    this.giveBack(this.buffer);
    this.buffer = none;
    this.start = 0;
    this.end = 0;
  }

  private giveBack(chunk: Buffer): void {
    if (chunk.length === this.pool.chunkBytes) this.pool.give(chunk);
  }

  /** Forgets everything unflushed. What the transport may still hold is left to the collector. */
  clear(): void {
    this.sealed = [];
    this.sealedChunks.length = 0;
    this.lent.length = 0;
    this.sealedBytes = 0;
    this.buffer = none;
    this.start = 0;
    this.end = 0;
  }
}
