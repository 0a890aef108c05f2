// Request bytes that could not be handed to the handler where they lay: a message that spans frames, or the input of a
// paused call. A growing buffer that is consumed from the front; it grows with what has come, never with what a prefix
// promises.
//
//   offset  bytes  gRPC message (gRPC over HTTP/2, "Length-Prefixed-Message")
//   0       1      1 = compressed
//   1       4      length, big endian
//   5       -      message

import { readUint32 } from '../http2/frame.ts';

export const messagePrefixBytes: number = 5;

export class MessageAssembly {
  buffer: Buffer = Buffer.allocUnsafe(512);
  start = 0;
  end = 0;

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

  private makeRoom(bytes: number): void {
    const held = this.bytes;
    let target = this.buffer;
    if (held + bytes > target.length / 2) target = Buffer.allocUnsafeSlow((held + bytes) * 2);
    this.buffer.copy(target, 0, this.start, this.end);
    this.buffer = target;
    this.start = 0;
    this.end = held;
  }
}
