// Request bytes that could not be handed to the handler where they lay: a message that spans frames, or the input of a
// paused call. A growing buffer that is consumed from the front; it grows with what has come, never with what a prefix
// promises, but for a large message whose rest was let come: it gets a buffer of a pool, so that neither new memory nor copies of
// what has come already are needed for each.
//
//   offset  bytes  gRPC message (gRPC over HTTP/2, "Length-Prefixed-Message")
//   0       1      1 = compressed
//   1       4      length, big endian
//   5       -      message

import { assert } from '../base/assert.ts';
import type { ChunkPool } from '../http2/chunk-pool.ts';
import { readUint32 } from '../http2/frame.ts';

export const messagePrefixBytes: number = 5;
/** A message is worth a pool's buffer from this part of it on: what a prefix alone costs is at most so many times what was let come. */
const pooledPart = 4;

export class MessageAssembly {
  buffer: Buffer = Buffer.allocUnsafe(512);
  start = 0;
  end = 0;
  /** Whose `buffer` is. */
  private pool: ChunkPool | null = null;

  get bytes(): number {
    return this.end - this.start;
  }

  append(from: Buffer, start: number, end: number): void {
    const bytes = end - start;
    if (this.buffer.length - this.end < bytes) this.makeRoom(bytes);
    from.copy(this.buffer, this.end, start, end);
    this.end += bytes;
  }

  /** Bytes that the first message lacks; 0 when it is whole or its prefix is not. */
  get missing(): number {
    if (this.bytes < messagePrefixBytes) return 0;
    return Math.max(0, messagePrefixBytes + readUint32(this.buffer, this.start + 1) - this.bytes);
  }

  /** What the first message lacks may come: room for the whole of it, if it is large and `pool`'s buffers hold it. */
  expectWhole(pool: ChunkPool): void {
    const whole = this.bytes + this.missing;
    const isWorth = whole > this.buffer.length - this.start && whole * pooledPart > pool.chunkBytes;
    if (!isWorth || whole > pool.chunkBytes) return;
    this.moveTo(pool.take());
    this.pool = pool;
  }

  /** It is empty and of no use any more, and nobody looks at what it held. */
  release(): void {
    assert(this.pool === null || this.buffer.length === this.pool.chunkBytes, "the buffer is the pool's still");
    this.pool?.give(this.buffer);
    this.pool = null;
  }

  private makeRoom(bytes: number): void {
    const needed = this.bytes + bytes;
    this.moveTo(needed > this.buffer.length / 2 ? Buffer.allocUnsafeSlow(needed * 2) : this.buffer);
  }

  private moveTo(target: Buffer): void {
    const held = this.bytes;
    this.buffer.copy(target, 0, this.start, this.end);
    if (target !== this.buffer) this.release();
    this.buffer = target;
    this.start = 0;
    this.end = held;
  }
}
