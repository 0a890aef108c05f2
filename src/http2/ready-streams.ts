// The streams that have something to send and window for it, in the order of their turns: a list through the streams themselves
// (Http2Stream.previousReady, nextReady), so that entering and leaving cost a few pointer writes and no allocation.
//
// Linked both ways, because a stream that closes has to leave at once: while the connection's window is shut nobody takes turns, and
// a peer that opens and resets streams meanwhile would have us keep every one of them.
//
//   first → a ⇄ b ⇄ c ← last        shift() gives a; remove(b) leaves a ⇄ c

import { assert } from '../base/assert.ts';
import type { Http2Stream } from './stream.ts';

export class ReadyStreams {
  private first: Http2Stream | null = null;
  private last: Http2Stream | null = null;
  count = 0;

  has(stream: Http2Stream): boolean {
    return stream.previousReady !== null || this.first === stream;
  }

  push(stream: Http2Stream): void {
    assert(!this.has(stream), 'a stream has one turn');
    stream.previousReady = this.last;
    if (this.last === null) this.first = stream;
    else this.last.nextReady = stream;
    this.last = stream;
    this.count += 1;
  }

  /** The one whose turn it is; there is one. */
  shift(): Http2Stream {
    const stream = this.first;
    assert(stream !== null, 'somebody is ready');
    this.remove(stream);
    return stream;
  }

  remove(stream: Http2Stream): void {
    assert(this.has(stream), 'only who has a turn loses it');
    const { previousReady: previous, nextReady: next } = stream;
    if (previous === null) this.first = next;
    else previous.nextReady = next;
    if (next === null) this.last = previous;
    else next.previousReady = previous;
    stream.previousReady = null;
    stream.nextReady = null;
    this.count -= 1;
  }
}
