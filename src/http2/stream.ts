// One stream of a server connection (RFC 9113, 5.1). The layer above extends it with what it does with a request: one
// object a request, no second lookup.
//
//              HEADERS                END_STREAM received
//     idle ------------> open ------------------------------> half-closed (remote)
//                         |  \                                      |
//                         |   \ RST_STREAM either way               | END_STREAM sent, RST_STREAM either way
//       END_STREAM sent   |    \                                    v
//     (and RST NO_ERROR)  +-----+-------------------------------> closed
//
// A server that has answered before the client's END_STREAM resets the stream with NO_ERROR (8.1), unless the layer above
// knows that the END_STREAM is on its way (`awaitsPeerEnd`): then the stream stays half-closed (local) until it is here.

import type { HeaderBlock } from './header-block.ts';
import type { PendingQueue } from './pending-queue.ts';
import type { RequestHead } from './request-head.ts';

export abstract class Http2Stream {
  readonly id: number;
  readonly head: RequestHead;
  /** END_STREAM has come. */
  remoteClosed = false;
  /** Our END_STREAM was written, the peer's is awaited. */
  localClosed = false;
  /** After our END_STREAM, wait for the peer's instead of resetting the stream. */
  awaitsPeerEnd = false;
  /** The stream is gone for the connection: writes to it are a bug of the caller. */
  closed = false;

  /** What the peer lets us send. May be negative after a SETTINGS change (6.9.2). */
  sendWindow = 0;
  /** What we let the peer send. */
  receiveWindow = 0;
  /** Bytes that content-length still promises, or -1 without one. */
  bodyBytesLeft: number;

  // Output that waits for a window or for the socket. Owned by writer.ts.
  pending: PendingQueue | null = null;
  pendingBytes = 0;
  /** What goes behind the last pending byte; null and `ending` means an empty END_STREAM. */
  trailers: HeaderBlock | null = null;
  ending = false;
  /** Its neighbours in the writer's ReadyStreams. */
  previousReady: Http2Stream | null = null;
  nextReady: Http2Stream | null = null;
  /** A write was told to wait: onWritable is owed. */
  wantsWritable = false;

  constructor(id: number, head: RequestHead) {
    this.id = id;
    this.head = head;
    this.bodyBytesLeft = head.contentLength;
  }

  /** The request's HEADERS, right after the stream was registered. `remoteClosed` tells whether a body follows. */
  abstract onOpen(): void;
  /** Body bytes, padding removed, valid during the call. May be empty together with `endStream`. */
  abstract onData(buffer: Buffer, start: number, end: number, endStream: boolean): void;
  /** The request ended by trailers. */
  abstract onTrailers(): void;
  /** The stream ended without us: peer's reset, a violation, or the connection's loss. No write may follow. */
  abstract onReset(code: number): void;
  /** Unsent bytes fell below the low-water mark after a write was told to wait. */
  abstract onWritable(): void;
}
