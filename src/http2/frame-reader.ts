// Cuts a connection's input into frames. A frame that lies whole in the socket's chunk is handed on by offsets; only a
// frame that the chunk's end cuts is copied, into a buffer that lives until its rest has come.
// Not an interpreter: types, flags and ids go to the sink as they are. The client's preface is checked here.

import { assert } from '../base/assert.ts';
import type { ChunkPool } from './chunk-pool.ts';
import { clientPreface, frameHeaderBytes, readUint31 } from './frame.ts';

export interface FrameSink {
  /** One whole frame, its payload at buffer[start, end), valid during the call. False stops the reader for good. */
  frame(buffer: Buffer, start: number, end: number, type: number, flags: number, streamId: number): boolean;
  /** A frame that announces more than `frameBytesMax`. The reader has stopped. */
  frameTooLarge(type: number, streamId: number): void;
  /** The first bytes are not HTTP/2's. The reader has stopped. */
  badPreface(): void;
}

export class FrameReader {
  private readonly sink: FrameSink;
  private readonly frameBytesMax: number;
  private readonly pool: ChunkPool;
  /** Beginning of a frame whose rest has not come: held[0, heldBytes). Null when there is none. */
  private held: Buffer | null = null;
  private heldBytes = 0;
  private prefaceBytes = 0;
  private stopped = false;

  /** `pool`'s chunks hold one frame: frameHeaderBytes + frameBytesMax. */
  constructor(sink: FrameSink, frameBytesMax: number, pool: ChunkPool) {
    assert(pool.chunkBytes >= frameHeaderBytes + frameBytesMax, 'a held frame fits in a chunk');
    this.sink = sink;
    this.frameBytesMax = frameBytesMax;
    this.pool = pool;
  }

  stop(): void {
    this.stopped = true;
    this.release();
  }

  feed(chunk: Buffer): void {
    if (this.stopped) return;
    let at = 0;
    if (this.prefaceBytes < clientPreface.length) {
      at = this.preface(chunk);
      if (at < 0) return;
    }
    if (this.held !== null) at = this.completeHeld(chunk, at);
    const length = chunk.length;
    while (!this.stopped && length - at >= frameHeaderBytes) {
      const bytes = (chunk[at]! << 16) | (chunk[at + 1]! << 8) | chunk[at + 2]!;
      if (bytes > this.frameBytesMax) {
        this.tooLarge(chunk, at);
        return;
      }
      const start = at + frameHeaderBytes;
      const end = start + bytes;
      if (end > length) break;
      at = end;
      const streamId = readUint31(chunk, start - 4);
      if (!this.sink.frame(chunk, start, end, chunk[start - 6]!, chunk[start - 5]!, streamId)) this.stop();
    }
    if (!this.stopped && at < length) this.hold(chunk, at, length);
  }

  /** Compares the preface as far as it has come. Returns the offset behind it, or -1 to read no further. */
  private preface(chunk: Buffer): number {
    let at = 0;
    while (at < chunk.length && this.prefaceBytes < clientPreface.length) {
      if (chunk[at] !== clientPreface[this.prefaceBytes]) {
        this.stop();
        this.sink.badPreface();
        return -1;
      }
      at += 1;
      this.prefaceBytes += 1;
    }
    return at;
  }

  private hold(chunk: Buffer, start: number, end: number): void {
    this.held ??= this.pool.take();
    chunk.copy(this.held, this.heldBytes, start, end);
    this.heldBytes += end - start;
    assert(this.heldBytes < frameHeaderBytes + this.frameBytesMax, 'only a part of a frame is held');
  }

  /** Adds to the held frame what it lacks and hands it on when it is whole. Returns the offset of what is left. */
  private completeHeld(chunk: Buffer, offset: number): number {
    const held = this.held!;
    let at = offset;
    while (this.heldBytes < frameHeaderBytes && at < chunk.length) {
      held[this.heldBytes] = chunk[at]!;
      this.heldBytes += 1;
      at += 1;
    }
    if (this.heldBytes < frameHeaderBytes) return at;
    const bytes = (held[0]! << 16) | (held[1]! << 8) | held[2]!;
    if (bytes > this.frameBytesMax) {
      this.tooLarge(held, 0);
      return chunk.length;
    }
    const end = frameHeaderBytes + bytes;
    const take = Math.min(end - this.heldBytes, chunk.length - at);
    chunk.copy(held, this.heldBytes, at, at + take);
    this.heldBytes += take;
    at += take;
    if (this.heldBytes < end) return at;
    const goOn = this.sink.frame(held, frameHeaderBytes, end, held[3]!, held[4]!, readUint31(held, 5));
    if (goOn) this.release();
    else this.stop();
    return at;
  }

  private tooLarge(buffer: Buffer, at: number): void {
    const type = buffer[at + 3]!;
    const streamId = readUint31(buffer, at + 5);
    this.stop();
    this.sink.frameTooLarge(type, streamId);
  }

  private release(): void {
    if (this.held !== null && this.held.length === this.pool.chunkBytes) this.pool.give(this.held);
    this.held = null;
    this.heldBytes = 0;
  }
}
