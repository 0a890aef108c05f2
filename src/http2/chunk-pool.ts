// Buffers of one size for reuse, shared by all connections: an idle connection holds none. Bounded: what comes back beyond
// `countMax` is left to the collector.

import { assert } from '../base/assert.ts';

export class ChunkPool {
  readonly chunkBytes: number;
  private readonly countMax: number;
  private readonly free: Buffer[] = [];

  constructor(chunkBytes: number, countMax: number) {
    this.chunkBytes = chunkBytes;
    this.countMax = countMax;
  }

  take(): Buffer {
    return this.free.pop() ?? Buffer.allocUnsafeSlow(this.chunkBytes);
  }

  /** Nobody may hold a view of `chunk` any more: its bytes will be another connection's. */
  give(chunk: Buffer): void {
    assert(chunk.length === this.chunkBytes, 'the pool holds chunks of one size');
    if (this.free.length < this.countMax) this.free.push(chunk);
  }
}
