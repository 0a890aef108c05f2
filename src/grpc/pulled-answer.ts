// A large answer that its owner hands over part by part, as the client takes it (ServerCall.respondPulled): the stream holds no more
// of it than its high-water mark and one part.
//
//   begun ── pull: up to the high-water mark ──▶ waits ── onWritable ──▶ pull ... ── the last part ──▶ complete
//                                                  └── the call ends: by its owner's fail, too ──▶ dropped, nothing is pulled

import { assert } from '../base/assert.ts';
import type { Http2Stream } from '../http2/stream.ts';
import type { Http2Writer } from '../http2/writer.ts';

/** The call that is answered. */
export interface PullingCall extends Http2Stream {
  readonly ended: boolean;
}

export class PulledAnswer {
  /** Of the whole message. */
  readonly bytes: number;
  readonly last: Buffer;
  private readonly next: () => Buffer;
  private left: number;

  constructor(bytes: number, last: Buffer, next: () => Buffer) {
    this.bytes = bytes;
    this.last = last;
    this.next = next;
    this.left = bytes;
  }

  /** Queues parts while less than `bytesMax` waits. True: that was the last. */
  pull(call: PullingCall, writer: Http2Writer, bytesMax: number): boolean {
    while (this.left > 0 && call.pendingBytes < bytesMax) {
      const part = this.next();
      // Its owner may end the call when it is asked for a part: behind an error nothing is sent.
      if (call.ended) return false;
      this.left -= part.length;
      assert(this.left >= 0, 'the answer is no larger than it said');
      writer.queue(call, part);
    }
    return this.left === 0;
  }
}
