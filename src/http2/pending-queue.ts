// Bytes of one stream that wait to be sent: buffers by reference, consumed from the front. Most streams never have one.

import { assert } from '../base/assert.ts';

export class PendingQueue {
  private parts: Buffer[] = [];
  private head = 0;
  private offset = 0;
  bytes = 0;

  /** Whoever pushes a buffer does not change it any more. */
  push(buffer: Buffer): void {
    if (buffer.length === 0) return;
    this.parts.push(buffer);
    this.bytes += buffer.length;
  }

  /** Copies the first `bytes` to `out` at `offset` and drops them. */
  copyTo(out: Buffer, at: number, bytes: number): void {
    assert(bytes <= this.bytes, 'no more is taken than waits');
    let left = bytes;
    let to = at;
    while (left > 0) {
      const part = this.parts[this.head]!;
      const take = Math.min(left, part.length - this.offset);
      part.copy(out, to, this.offset, this.offset + take);
      to += take;
      left -= take;
      this.offset += take;
      if (this.offset === part.length) this.dropHead();
    }
    this.bytes -= bytes;
  }

  private dropHead(): void {
    this.parts[this.head] = none;
    this.head += 1;
    this.offset = 0;
    // The array is cut now and then so that a stream that always has something pending does not grow it for ever.
    if (this.head === this.parts.length) {
      this.parts = [];
      this.head = 0;
    } else if (this.head >= 64 && this.head * 2 >= this.parts.length) {
      this.parts = this.parts.slice(this.head);
      this.head = 0;
    }
  }
}

const none: Buffer = Buffer.alloc(0);
