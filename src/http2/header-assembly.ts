// A header block that comes in several frames (RFC 9113, 6.10). Bounded in bytes and in frames: a peer that never sets
// END_HEADERS could otherwise grow it for ever (CONTINUATION flood).

import { assert } from '../base/assert.ts';

const none: Buffer = Buffer.alloc(0);

export class HeaderAssembly {
  private readonly bytesMax: number;
  private readonly framesMax: number;
  /** The stream whose block is open; 0 when there is none. */
  streamId = 0;
  endStream = false;
  selfDependent = false;
  private block: Buffer = none;
  private bytes = 0;
  private frames = 0;

  constructor(bytesMax: number, framesMax: number) {
    this.bytesMax = bytesMax;
    this.framesMax = framesMax;
  }

  begin(
    streamId: number,
    endStream: boolean,
    selfDependent: boolean,
    buffer: Buffer,
    start: number,
    end: number,
  ): void {
    assert(this.streamId === 0 && streamId !== 0, 'one block at a time');
    this.streamId = streamId;
    this.endStream = endStream;
    this.selfDependent = selfDependent;
    this.bytes = 0;
    this.frames = 0;
    assert(this.add(buffer, start, end), 'a frame is smaller than the bound of a block');
  }

  /** False when the block passed its bound. */
  add(buffer: Buffer, start: number, end: number): boolean {
    const bytes = this.bytes + end - start;
    this.frames += 1;
    if (bytes > this.bytesMax || this.frames > this.framesMax) {
      this.finish();
      return false;
    }
    if (bytes > this.block.length) {
      const bigger = Buffer.allocUnsafeSlow(Math.min(this.bytesMax, Math.max(bytes, this.block.length * 2)));
      this.block.copy(bigger, 0, 0, this.bytes);
      this.block = bigger;
    }
    buffer.copy(this.block, this.bytes, start, end);
    this.bytes = bytes;
    return true;
  }

  /** The whole block; the assembly is free for the next. */
  finish(): Buffer {
    const block = this.block.subarray(0, this.bytes);
    this.streamId = 0;
    this.block = none;
    return block;
  }
}
