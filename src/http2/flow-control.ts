// Flow control (RFC 9113, 5.2 and 6.9): how the four kinds of window are opened and what exceeds them. The windows of sending shrink
// in writer.ts, where the bytes leave.
//
//   window               is                     shrinks by   grows by
//   receive, connection  here                   DATA         being half used: returned whatever becomes of the stream
//   receive, stream      stream.receiveWindow   DATA         `grant`: the layer above has taken the bytes
//   send, connection     writer.sendWindow      DATA         WINDOW_UPDATE on stream 0
//   send, stream         stream.sendWindow      DATA         WINDOW_UPDATE, a change of SETTINGS_INITIAL_WINDOW_SIZE
//
// The connection's receive window does not wait for the layer above: a stream that is not read must not starve the others. What a
// connection makes us hold is bounded by its streams' windows and by the layer above (grpc/assembly-grants.ts).

import { assert } from '../base/assert.ts';
import type { Http2Limits } from '../connection-limits.ts';
import { windowBytesDefault, windowBytesMax } from './frame.ts';
import type { Http2Stream } from './stream.ts';
import type { Http2Writer } from './writer.ts';

export class FlowControl {
  private readonly writer: Http2Writer;
  private readonly connectionWindowBytes: number;
  private readonly streamWindowBytes: number;
  private receiveWindow: number;

  constructor(writer: Http2Writer, limits: Http2Limits) {
    this.writer = writer;
    this.connectionWindowBytes = limits.connectionWindowBytes;
    this.streamWindowBytes = limits.streamWindowBytes;
    this.receiveWindow = limits.connectionWindowBytes;
  }

  /** Behind the first SETTINGS, which cannot name the connection's window. */
  announce(): void {
    if (this.connectionWindowBytes > windowBytesDefault) {
      this.writer.windowUpdate(0, this.connectionWindowBytes - windowBytesDefault);
    }
  }

  open(stream: Http2Stream): void {
    stream.sendWindow = this.writer.peer.initialWindowSize;
    stream.receiveWindow = this.streamWindowBytes;
  }

  // --- receiving ---

  /** DATA of so many bytes, padding included, on whatever stream. False: more than the connection's window. */
  received(bytes: number): boolean {
    this.receiveWindow -= bytes;
    if (this.receiveWindow < 0) return false;
    if (this.receiveWindow * 2 < this.connectionWindowBytes) {
      this.writer.windowUpdate(0, this.connectionWindowBytes - this.receiveWindow);
      this.receiveWindow = this.connectionWindowBytes;
    }
    return true;
  }

  /** The same bytes, on their stream. False: more than its window. */
  receivedOn(stream: Http2Stream, bytes: number): boolean {
    stream.receiveWindow -= bytes;
    return stream.receiveWindow >= 0;
  }

  /** Lets the peer send `bytes` more on a stream. */
  grant(stream: Http2Stream, bytes: number): void {
    if (stream.closed || stream.remoteClosed) return;
    stream.receiveWindow += bytes;
    assert(stream.receiveWindow <= windowBytesMax, 'a window stays below 2^31');
    this.writer.windowUpdate(stream.id, bytes);
  }

  // --- sending: false is a window above 2^31 - 1 ---

  widenConnection(bytes: number): boolean {
    if (this.writer.sendWindow + bytes > windowBytesMax) return false;
    this.writer.sendWindow += bytes;
    return true;
  }

  /** `bytes` is negative when the peer's initial window shrinks: the stream's may fall below 0 then (6.9.2). */
  widen(stream: Http2Stream, bytes: number): boolean {
    if (stream.sendWindow + bytes > windowBytesMax) return false;
    stream.sendWindow += bytes;
    this.writer.schedule(stream);
    return true;
  }
}
