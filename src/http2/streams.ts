// The streams of a connection (RFC 9113, 5.1): what opens, feeds and ends them, and the frames that do (HEADERS, CONTINUATION, DATA,
// RST_STREAM, PRIORITY, WINDOW_UPDATE of a stream). Not the connection's own frames and life (connection.ts), nor how what is
// sent takes turns (writer.ts).
//
// The walk of a request: `headers` → hpack or the block cache (request-head-decoder.ts) → `open` → the layer's stream → `data` ...
//
//   0 ──────────── lastStreamId ─────── seenStreamId ────────────▶ ids
//   acted on       │ ignored: opened above `acceptedIdMax`,       │ idle
//                  │ which only the end of a drain lowers         │
//
// Errors: a violation by one stream resets it (RST_STREAM), one that breaks the connection's state ends the connection. Handlers
// of frames return false when nothing more is to be read.

import type { Http2Limits } from '../connection-limits.ts';
import type { AbuseBounds, Failable } from './abuse-bounds.ts';
import type { Http2Application } from './application.ts';
import type { FlowControl } from './flow-control.ts';
import { ErrorCode, FrameFlag, readUint31, readUint32, streamIdMax } from './frame.ts';
import { HeaderAssembly } from './header-assembly.ts';
import type { RequestHead } from './request-head.ts';
import { RequestHeadDecoder } from './request-head-decoder.ts';
import type { Http2Stream } from './stream.ts';
import { ClosedBy, StreamTable } from './stream-table.ts';
import type { Http2Writer } from './writer.ts';

export interface StreamsOwner extends Failable {
  /** No more input is read. */
  readonly isClosing: boolean;
  /** The last stream that is acted on has gone. */
  drained(): void;
}

export interface StreamsOptions {
  readonly application: Http2Application;
  readonly limits: Http2Limits;
  /** Enforced; see Http2ConnectionOptions. */
  readonly concurrentStreamsMax: number;
}

export class Streams {
  private readonly owner: StreamsOwner;
  private readonly application: Http2Application;
  private readonly limits: Http2Limits;
  private readonly streamsMax: number;
  private readonly writer: Http2Writer;
  private readonly flow: FlowControl;
  private readonly bounds: AbuseBounds;
  private readonly heads: RequestHeadDecoder;
  private readonly assembly: HeaderAssembly;
  private readonly table: StreamTable = new StreamTable();
  /** Stream of the last HEADERS: its DATA usually comes next. */
  private latest: Http2Stream | null = null;
  /** The highest stream that was opened, and of those that we act on: the same until a drain's last GOAWAY. */
  private seenStreamId = 0;
  lastStreamId = 0;
  /** Streams above this are ignored: set by the GOAWAY that ends a drain. */
  private acceptedIdMax: number = streamIdMax;

  constructor(
    owner: StreamsOwner,
    options: StreamsOptions,
    writer: Http2Writer,
    flow: FlowControl,
    bounds: AbuseBounds,
  ) {
    const { limits } = options;
    this.owner = owner;
    this.application = options.application;
    this.limits = limits;
    this.streamsMax = Math.min(options.concurrentStreamsMax, limits.streamsMax);
    this.writer = writer;
    this.flow = flow;
    this.bounds = bounds;
    this.heads = new RequestHeadDecoder(limits);
    this.assembly = new HeaderAssembly(limits.headerBlockBytesMax, limits.continuationFramesMax);
  }

  // --- for the connection ---

  get count(): number {
    return this.table.count;
  }

  /** The stream whose header block waits for its CONTINUATION: no other frame may come; 0 when there is none. */
  get openBlockId(): number {
    return this.assembly.streamId;
  }

  /** The end of a drain begins: what is open goes on, nothing new is acted on. */
  acceptNoMore(): void {
    this.acceptedIdMax = this.lastStreamId;
  }

  /** Tells the owner when a drain is over. */
  checkDrained(): void {
    if (this.acceptedIdMax !== streamIdMax && this.table.count === 0) this.owner.drained();
  }

  /** The connection ends, and with it all streams. */
  cancelAll(): void {
    for (const stream of this.table.list()) {
      // The handler of one may have ended another.
      if (stream.closed) continue;
      this.forget(stream, ClosedBy.ourReset);
      if (!stream.localClosed) stream.onReset(ErrorCode.cancel);
    }
  }

  /** Resets an open stream for a reason of ours. Its onReset is not called. */
  reset(stream: Http2Stream, code: ErrorCode): void {
    if (stream.closed) return;
    this.writer.reset(stream.id, code);
    this.forget(stream, ClosedBy.ourReset);
    this.checkDrained();
  }

  /** END_STREAM of our side was written. */
  ended(stream: Http2Stream): void {
    this.bounds.answered();
    if (stream.remoteClosed) {
      this.forget(stream, ClosedBy.end);
    } else if (stream.awaitsPeerEnd) {
      stream.localClosed = true;
    } else {
      // RFC 9113, 8.1: the answer is complete, the rest of the request is not wanted.
      this.writer.reset(stream.id, ErrorCode.noError);
      this.forget(stream, ClosedBy.ourReset);
    }
    this.checkDrained();
  }

  private forget(stream: Http2Stream, closedBy: ClosedBy): void {
    stream.closed = true;
    if (stream.pendingBytes > 0) this.writer.drop(stream);
    this.table.remove(stream, closedBy);
  }

  /** Never opened. */
  private isIdle(id: number): boolean {
    return id > this.seenStreamId || (id & 1) === 0;
  }

  /** A stream error by the peer: RST_STREAM to it, onReset to the layer above. */
  private streamError(stream: Http2Stream, code: ErrorCode): boolean {
    this.reset(stream, code);
    stream.onReset(code);
    return this.bounds.violation();
  }

  // --- DATA ---

  data(buffer: Buffer, start: number, end: number, flags: number, id: number): boolean {
    if (id === 0) return this.owner.fail(ErrorCode.protocolError, 'DATA on stream 0');
    const length = end - start;
    if (!this.flow.received(length)) return this.owner.fail(ErrorCode.flowControlError, 'connection window exceeded');
    let from = start;
    let to = end;
    if ((flags & FrameFlag.padded) !== 0) {
      const padding = length > 0 ? buffer[start]! : 0;
      if (padding >= length) return this.owner.fail(ErrorCode.protocolError, 'padding exceeds the frame');
      from += 1;
      to -= padding;
    }
    const latest = this.latest;
    const stream = latest !== null && latest.id === id && !latest.closed ? latest : this.table.get(id);
    if (stream === null) return this.dataOnClosed(id);
    if (stream.remoteClosed) return this.streamError(stream, ErrorCode.streamClosed);
    if (!this.flow.receivedOn(stream, length)) return this.streamError(stream, ErrorCode.flowControlError);
    const endStream = (flags & FrameFlag.endStream) !== 0;
    if (stream.localClosed) return this.afterLocalEnd(stream, endStream);
    if (stream.bodyBytesLeft >= 0) {
      stream.bodyBytesLeft -= to - from;
      if (stream.bodyBytesLeft < 0 || (endStream && stream.bodyBytesLeft > 0)) {
        return this.streamError(stream, ErrorCode.protocolError);
      }
    }
    if (endStream) stream.remoteClosed = true;
    if (to === from && !endStream) {
      if (!this.bounds.idle(1)) return false;
    } else {
      this.bounds.useful(1);
    }
    stream.onData(buffer, from, to, endStream);
    return !this.owner.isClosing;
  }

  /** DATA or trailers on a stream that we have ended: its end, or more than anybody wants. */
  private afterLocalEnd(stream: Http2Stream, endStream: boolean): boolean {
    if (endStream) this.forget(stream, ClosedBy.end);
    else this.reset(stream, ErrorCode.noError);
    this.checkDrained();
    return !this.owner.isClosing;
  }

  private dataOnClosed(id: number): boolean {
    if (this.isIdle(id)) return this.owner.fail(ErrorCode.protocolError, 'DATA on an idle stream');
    const fate = this.table.fate(id);
    if (fate === ClosedBy.end || fate === ClosedBy.peerReset) {
      this.writer.reset(id, ErrorCode.streamClosed);
      this.table.remember(id, ClosedBy.ourReset);
      return this.bounds.violation();
    }
    // In flight when we reset it, or so long ago that we cannot tell.
    return this.bounds.idle(1);
  }

  // --- HEADERS and CONTINUATION ---

  headers(buffer: Buffer, start: number, end: number, flags: number, id: number): boolean {
    if ((id & 1) === 0) return this.owner.fail(ErrorCode.protocolError, "HEADERS on a stream that is not a client's");
    let from = start;
    let to = end;
    let selfDependent = false;
    if ((flags & (FrameFlag.padded | FrameFlag.priority)) !== 0) {
      if ((flags & FrameFlag.padded) !== 0) {
        if (to - from < 1) return this.owner.fail(ErrorCode.frameSizeError, 'short HEADERS');
        to -= buffer[from]!;
        from += 1;
      }
      if ((flags & FrameFlag.priority) !== 0) {
        if (end - from < 5) return this.owner.fail(ErrorCode.frameSizeError, 'short HEADERS');
        selfDependent = readUint31(buffer, from) === id;
        from += 5;
      }
      if (to < from) return this.owner.fail(ErrorCode.protocolError, 'padding exceeds the frame');
    }
    const endStream = (flags & FrameFlag.endStream) !== 0;
    if ((flags & FrameFlag.endHeaders) === 0) {
      this.assembly.begin(id, endStream, selfDependent, buffer, from, to);
      return true;
    }
    return this.headerBlock(buffer, from, to, endStream, selfDependent, id);
  }

  continuation(buffer: Buffer, start: number, end: number, flags: number): boolean {
    const { assembly } = this;
    if (assembly.streamId === 0) return this.owner.fail(ErrorCode.protocolError, 'CONTINUATION without HEADERS');
    if (!assembly.add(buffer, start, end)) return this.owner.fail(ErrorCode.enhanceYourCalm, 'header block too large');
    if ((flags & FrameFlag.endHeaders) === 0) return true;
    const id = assembly.streamId;
    const block = assembly.finish();
    return this.headerBlock(block, 0, block.length, assembly.endStream, assembly.selfDependent, id);
  }

  private headerBlock(
    buffer: Buffer,
    start: number,
    end: number,
    endStream: boolean,
    selfDependent: boolean,
    id: number,
  ): boolean {
    if (id <= this.seenStreamId) return this.trailers(buffer, start, end, endStream, id);
    const head = this.heads.request(buffer, start, end);
    if (head === null) return this.owner.fail(ErrorCode.compressionError, 'header block cannot be decoded');
    this.seenStreamId = id;
    if (id > this.acceptedIdMax) {
      this.table.remember(id, ClosedBy.ourReset);
      return this.bounds.idle(1);
    }
    this.lastStreamId = id;
    if (head.malformed || selfDependent || (endStream && head.contentLength > 0)) {
      return this.refuse(id, ErrorCode.protocolError);
    }
    if (head.tooLarge) return this.refuse(id, ErrorCode.enhanceYourCalm);
    if (this.table.count >= this.streamsMax || this.writer.pendingBytes > this.limits.pendingRefuseBytes) {
      return this.refuse(id, ErrorCode.refusedStream);
    }
    return this.open(id, head, endStream);
  }

  private open(id: number, head: RequestHead, endStream: boolean): boolean {
    const stream = this.application.openStream(id, head);
    this.flow.open(stream);
    stream.remoteClosed = endStream;
    this.table.add(stream);
    this.latest = stream;
    this.bounds.useful(1);
    stream.onOpen();
    return !this.owner.isClosing;
  }

  private refuse(id: number, code: ErrorCode): boolean {
    this.writer.reset(id, code);
    this.table.remember(id, ClosedBy.ourReset);
    return code === ErrorCode.refusedStream ? this.bounds.refused() : this.bounds.violation();
  }

  /** A header block on a stream that is not new: trailers, or an error. It is decoded in any case, for the table. */
  private trailers(buffer: Buffer, start: number, end: number, endStream: boolean, id: number): boolean {
    const valid = this.heads.trailers(buffer, start, end);
    if (valid === null) return this.owner.fail(ErrorCode.compressionError, 'header block cannot be decoded');
    const stream = this.table.get(id);
    if (stream === null) {
      const fate = this.table.fate(id);
      if (fate === ClosedBy.ourReset) return this.bounds.idle(1);
      if (fate === ClosedBy.unknown) {
        return this.owner.fail(ErrorCode.protocolError, 'HEADERS on a stream below the last');
      }
      return this.owner.fail(ErrorCode.streamClosed, 'HEADERS on a closed stream');
    }
    if (stream.remoteClosed) return this.streamError(stream, ErrorCode.streamClosed);
    if (stream.localClosed) return this.afterLocalEnd(stream, endStream);
    if (!endStream || !valid || stream.bodyBytesLeft > 0) return this.streamError(stream, ErrorCode.protocolError);
    stream.remoteClosed = true;
    stream.onTrailers();
    return !this.owner.isClosing;
  }

  // --- RST_STREAM, WINDOW_UPDATE, PRIORITY ---

  rstStream(buffer: Buffer, start: number, end: number, id: number): boolean {
    if (id === 0) return this.owner.fail(ErrorCode.protocolError, 'RST_STREAM on stream 0');
    if (end - start !== 4) return this.owner.fail(ErrorCode.frameSizeError, 'RST_STREAM of a wrong size');
    const stream = this.table.get(id);
    if (stream === null) {
      if (this.isIdle(id)) return this.owner.fail(ErrorCode.protocolError, 'RST_STREAM on an idle stream');
      return this.bounds.idle(1);
    }
    this.forget(stream, ClosedBy.peerReset);
    if (!stream.localClosed) {
      stream.onReset(readUint32(buffer, start));
      if (!this.bounds.peerReset()) return false;
    }
    this.checkDrained();
    return !this.owner.isClosing;
  }

  windowUpdate(id: number, bytes: number): boolean {
    const stream = this.table.get(id);
    if (stream === null) {
      if (this.isIdle(id)) return this.owner.fail(ErrorCode.protocolError, 'WINDOW_UPDATE on an idle stream');
      return true;
    }
    if (bytes === 0) return this.streamError(stream, ErrorCode.protocolError);
    return this.flow.widen(stream, bytes) || this.streamError(stream, ErrorCode.flowControlError);
  }

  /** SETTINGS_INITIAL_WINDOW_SIZE has changed: so do the windows of all open streams (6.9.2). */
  initialWindowChanged(change: number): boolean {
    // No other frame costs more the more streams are open.
    if (!this.bounds.idle(Math.floor(this.table.count / this.limits.floodStreamsChanged))) return false;
    for (const stream of this.table.list()) {
      if (this.flow.widen(stream, change)) continue;
      return this.owner.fail(ErrorCode.flowControlError, 'stream window above 2^31 - 1');
    }
    return true;
  }

  /** Priorities are read for their errors only (RFC 9113, 5.3.2). */
  priority(buffer: Buffer, start: number, end: number, id: number): boolean {
    if (id === 0) return this.owner.fail(ErrorCode.protocolError, 'PRIORITY on stream 0');
    let error: ErrorCode = ErrorCode.noError;
    if (end - start !== 5) error = ErrorCode.frameSizeError;
    else if (readUint31(buffer, start) === id) error = ErrorCode.protocolError;
    if (error === ErrorCode.noError) return this.bounds.idle(1);
    const stream = this.table.get(id);
    // Only an open stream can be reset: on any other the error is the connection's.
    return stream === null ? this.owner.fail(error, 'invalid PRIORITY') : this.streamError(stream, error);
  }
}
