// The server's side of one HTTP/2 connection (RFC 9113): bytes in, calls of the layer above and bytes out. No I/O and no
// timers: the owner feeds `receive`, writes at `flush`, and injects the clock.
//
// Errors: a violation by one stream resets it (RST_STREAM), one that breaks the connection's state ends it (GOAWAY, then the
// transport is ended). Cheap frames sent in masses end it with ENHANCE_YOUR_CALM (flood-guard.ts, limits.ts).
// The walk of a request: frame-reader → `frame` → `headers` → hpack or the block cache → `open` → the layer's stream.

import { assert } from '../base/assert.ts';
import type { Http2Limits } from '../limits.ts';
import type { Http2Application, Http2ConnectionOptions, Transport } from './application.ts';
import { FloodGuard } from './flood-guard.ts';
import {
  ErrorCode,
  FrameFlag,
  FrameType,
  readUint31,
  readUint32,
  SettingId,
  streamIdMax,
  windowBytesDefault,
  windowBytesMax,
} from './frame.ts';
import { FrameReader, type FrameSink } from './frame-reader.ts';
import { HeaderAssembly } from './header-assembly.ts';
import type { RequestHead } from './request-head.ts';
import { RequestHeadDecoder } from './request-head-decoder.ts';
import { settingsPayload } from './settings.ts';
import type { Http2Stream } from './stream.ts';
import { ClosedBy, StreamTable } from './stream-table.ts';
import { Http2Writer, type WriterOwner } from './writer.ts';

export class Http2Connection implements FrameSink, WriterOwner {
  readonly writer: Http2Writer;
  private readonly application: Http2Application;
  private readonly transport: Transport;
  private readonly limits: Http2Limits;
  private readonly streamsMax: number;
  private readonly reader: FrameReader;
  private readonly heads: RequestHeadDecoder;
  private readonly assembly: HeaderAssembly;
  private readonly streams: StreamTable = new StreamTable();
  private readonly floodGuard: FloodGuard;
  private readonly resetGuard: FloodGuard;
  private readonly violationGuard: FloodGuard;
  /** Stream of the last HEADERS: its DATA usually comes next. */
  private latest: Http2Stream | null = null;
  /** The highest stream that was opened, and of those that we act on: the same until a drain's last GOAWAY. */
  private seenStreamId = 0;
  private lastStreamId = 0;
  /** Streams above this are ignored: set by the GOAWAY that ends a drain. */
  private acceptedIdMax: number = streamIdMax;
  private receiveWindow: number;
  private sawSettings = false;
  /** No more input is read. `ending` asks flush to end the transport behind the output. */
  private stopped = false;
  private ending = false;
  private lost = false;

  constructor(options: Http2ConnectionOptions) {
    const { limits } = options;
    this.application = options.application;
    this.transport = options.transport;
    this.limits = limits;
    this.streamsMax = Math.min(options.concurrentStreamsMax, limits.streamsMax);
    this.writer = new Http2Writer(this, limits, options.outputPool);
    this.reader = new FrameReader(this, limits.frameBytesMax, options.framePool);
    this.heads = new RequestHeadDecoder(limits);
    this.assembly = new HeaderAssembly(limits.headerBlockBytesMax, limits.continuationFramesMax);
    this.floodGuard = new FloodGuard(options.clock, limits.floodBurst, limits.floodPerSecond);
    this.resetGuard = new FloodGuard(options.clock, limits.resetBurst, limits.resetPerSecond);
    this.violationGuard = new FloodGuard(options.clock, limits.violationBurst, limits.violationPerSecond);
    this.receiveWindow = limits.connectionWindowBytes;
    this.preface(options.concurrentStreamsMax);
  }

  private preface(concurrentStreamsMax: number): void {
    const { limits } = this;
    const settings: [number, number][] = [[SettingId.maxFrameSize, limits.frameBytesMax]];
    // As grpc-go: no number announced means no limit, and ours without one is only a guard of memory.
    if (concurrentStreamsMax < limits.streamsMax) settings.push([SettingId.maxConcurrentStreams, concurrentStreamsMax]);
    if (limits.streamWindowBytes !== windowBytesDefault) {
      settings.push([SettingId.initialWindowSize, limits.streamWindowBytes]);
    }
    if (limits.headerTableBytes !== 4096) settings.push([SettingId.headerTableSize, limits.headerTableBytes]);
    settings.push([SettingId.maxHeaderListSize, limits.headerListBytesMax]);
    this.writer.settings(settingsPayload(settings));
    if (limits.connectionWindowBytes > windowBytesDefault) {
      this.writer.windowUpdate(0, limits.connectionWindowBytes - windowBytesDefault);
    }
  }

  // --- the owner's side ---

  get streamCount(): number {
    return this.streams.count;
  }

  get isClosing(): boolean {
    return this.stopped;
  }

  /** The peer does not read what we answer: the owner should not read from it until transportDrained. */
  get inputPaused(): boolean {
    return this.writer.output.length + this.writer.transportPendingBytes > this.limits.outputPauseBytes;
  }

  receive(chunk: Buffer): void {
    if (!this.stopped) this.reader.feed(chunk);
    const frames = this.writer.dataFrames;
    if (frames > 0) {
      this.writer.dataFrames = 0;
      this.floodGuard.refund(frames * this.limits.floodRefund);
    }
  }

  /**
   * Hands what was written to the transport, in one write if it is not too much. True when more could be sent but others
   * should have their turn first: call again later.
   */
  flush(): boolean {
    if (this.lost) return false;
    const { writer, transport, limits } = this;
    let written = 0;
    let again = false;
    for (;;) {
      writer.pump();
      const bytes = writer.output.length;
      if (bytes === 0) break;
      transport.write(writer.output.take());
      const pending = transport.pendingBytes;
      writer.output.settle(pending === 0);
      writer.transportPendingBytes = pending;
      written += bytes;
      if (pending > 0 || !writer.hasReady) break;
      if (written >= limits.flushTurnBytes) {
        again = true;
        break;
      }
    }
    if (this.ending && !again) {
      this.lost = true;
      transport.end();
    }
    return again;
  }

  /** The kernel took everything. The owner flushes afterwards. */
  transportDrained(): void {
    const pending = this.transport.pendingBytes;
    this.writer.transportPendingBytes = pending;
    this.writer.output.settle(pending === 0);
  }

  /** The transport is gone: all streams end. */
  closed(): void {
    this.lost = true;
    this.stop();
    this.writer.output.clear();
  }

  /** Lists the open streams, for drains and invariants. */
  openStreams(): Http2Stream[] {
    return this.streams.list();
  }

  /** GOAWAY with `lastStreamId`, reading goes on: a step of a graceful drain. */
  announceGoAway(final: boolean, debug: string): void {
    if (this.stopped) return;
    if (final) this.acceptedIdMax = this.lastStreamId;
    this.writer.goAway(final ? this.lastStreamId : streamIdMax, ErrorCode.noError, debug);
    if (final) this.finishDrain();
  }

  /** Ends the connection with an error of the peer's or ours. Always false, so that frame handlers can return it. */
  fail(code: ErrorCode, debug: string): false {
    if (this.stopped) return false;
    this.writer.goAway(this.lastStreamId, code, debug);
    this.ending = true;
    this.stop();
    this.application.closing();
    return false;
  }

  private stop(): void {
    this.stopped = true;
    this.reader.stop();
    for (const stream of this.streams.list()) {
      this.forget(stream, ClosedBy.ourReset);
      if (!stream.localClosed) stream.onReset(ErrorCode.cancel);
    }
  }

  private finishDrain(): void {
    if (this.acceptedIdMax === streamIdMax || this.streams.count > 0 || this.stopped) return;
    this.stopped = true;
    this.ending = true;
    this.reader.stop();
    this.application.closing();
  }

  // --- the layer above's side ---

  /** Resets an open stream for a reason of ours. Its onReset is not called. */
  resetStream(stream: Http2Stream, code: ErrorCode): void {
    if (stream.closed) return;
    this.writer.reset(stream.id, code);
    this.forget(stream, ClosedBy.ourReset);
    this.finishDrain();
  }

  /** Lets the peer send `bytes` more on a stream. */
  grant(stream: Http2Stream, bytes: number): void {
    if (stream.closed || stream.remoteClosed) return;
    stream.receiveWindow += bytes;
    assert(stream.receiveWindow <= windowBytesMax, 'a window stays below 2^31');
    this.writer.windowUpdate(stream.id, bytes);
  }

  /** Bytes waiting in streams have passed what a connection may hold: to be asked before more is queued. */
  get outputExhausted(): boolean {
    return this.writer.pendingBytes > this.limits.pendingCloseBytes;
  }

  streamEnded(stream: Http2Stream): void {
    this.resetGuard.refund(1);
    if (stream.remoteClosed) {
      this.forget(stream, ClosedBy.end);
    } else if (stream.awaitsPeerEnd) {
      stream.localClosed = true;
    } else {
      // RFC 9113, 8.1: the answer is complete, the rest of the request is not wanted.
      this.writer.reset(stream.id, ErrorCode.noError);
      this.forget(stream, ClosedBy.ourReset);
    }
    if (this.acceptedIdMax !== streamIdMax) this.finishDrain();
  }

  private forget(stream: Http2Stream, closedBy: ClosedBy): void {
    stream.closed = true;
    if (stream.pendingBytes > 0) this.writer.drop(stream);
    this.streams.remove(stream, closedBy);
  }

  // --- frames ---

  badPreface(): void {
    this.fail(ErrorCode.protocolError, 'bad client preface');
  }

  frameTooLarge(): void {
    this.fail(ErrorCode.frameSizeError, 'frame larger than SETTINGS_MAX_FRAME_SIZE');
  }

  frame(buffer: Buffer, start: number, end: number, type: number, flags: number, id: number): boolean {
    if (!this.sawSettings && (type !== FrameType.settings || (flags & FrameFlag.ack) !== 0)) {
      return this.fail(ErrorCode.protocolError, 'the first frame is not SETTINGS');
    }
    if (this.assembly.streamId !== 0 && (type !== FrameType.continuation || id !== this.assembly.streamId)) {
      return this.fail(ErrorCode.protocolError, 'a header block was interrupted');
    }
    switch (type) {
      case FrameType.data:
        return this.data(buffer, start, end, flags, id);
      case FrameType.headers:
        return this.headers(buffer, start, end, flags, id);
      case FrameType.windowUpdate:
        return this.windowUpdate(buffer, start, end, id);
      case FrameType.rstStream:
        return this.rstStream(buffer, start, end, id);
      case FrameType.ping:
        return this.ping(buffer, start, end, flags, id);
      case FrameType.settings:
        return this.settings(buffer, start, end, flags, id);
      case FrameType.continuation:
        return this.continuation(buffer, start, end, flags, id);
      case FrameType.priority:
        return this.priority(buffer, start, end, id);
      case FrameType.pushPromise:
        return this.fail(ErrorCode.protocolError, 'clients do not push');
      case FrameType.goAway:
        if (id !== 0) return this.fail(ErrorCode.protocolError, 'GOAWAY on a stream');
        if (end - start < 8) return this.fail(ErrorCode.frameSizeError, 'short GOAWAY');
        return this.idle(1);
      default:
        return this.idle(1);
    }
  }

  /** Accounts for a frame that carries nothing. */
  private idle(cost: number): boolean {
    return this.floodGuard.spend(cost) || this.fail(ErrorCode.enhanceYourCalm, 'too many frames without content');
  }

  private violation(): boolean {
    return this.violationGuard.spend(1) || this.fail(ErrorCode.enhanceYourCalm, 'too many invalid streams');
  }

  /** A stream error by the peer: RST_STREAM to it, onReset to the layer above. */
  private streamError(stream: Http2Stream, code: ErrorCode): boolean {
    this.resetStream(stream, code);
    stream.onReset(code);
    return this.violation();
  }

  private data(buffer: Buffer, start: number, end: number, flags: number, id: number): boolean {
    if (id === 0) return this.fail(ErrorCode.protocolError, 'DATA on stream 0');
    const length = end - start;
    // The connection's window comes back whatever becomes of the stream: one that is not read must not starve the others.
    this.receiveWindow -= length;
    if (this.receiveWindow < 0) return this.fail(ErrorCode.flowControlError, 'connection window exceeded');
    if (this.receiveWindow * 2 < this.limits.connectionWindowBytes) {
      this.writer.windowUpdate(0, this.limits.connectionWindowBytes - this.receiveWindow);
      this.receiveWindow = this.limits.connectionWindowBytes;
    }
    let from = start;
    let to = end;
    if ((flags & FrameFlag.padded) !== 0) {
      const padding = length > 0 ? buffer[start]! : 0;
      if (padding >= length) return this.fail(ErrorCode.protocolError, 'padding exceeds the frame');
      from += 1;
      to -= padding;
    }
    const latest = this.latest;
    const stream = latest !== null && latest.id === id && !latest.closed ? latest : this.streams.get(id);
    if (stream === null) return this.dataOnClosed(id);
    if (stream.remoteClosed) return this.streamError(stream, ErrorCode.streamClosed);
    stream.receiveWindow -= length;
    if (stream.receiveWindow < 0) return this.streamError(stream, ErrorCode.flowControlError);
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
      if (!this.idle(1)) return false;
    } else {
      this.floodGuard.refund(this.limits.floodRefund);
    }
    stream.onData(buffer, from, to, endStream);
    return !this.stopped;
  }

  /** DATA or trailers on a stream that we have ended: its end, or more than anybody wants. */
  private afterLocalEnd(stream: Http2Stream, endStream: boolean): boolean {
    if (endStream) this.forget(stream, ClosedBy.end);
    else this.resetStream(stream, ErrorCode.noError);
    this.finishDrain();
    return !this.stopped;
  }

  private dataOnClosed(id: number): boolean {
    if (this.isIdle(id)) return this.fail(ErrorCode.protocolError, 'DATA on an idle stream');
    const fate = this.streams.fate(id);
    if (fate === ClosedBy.end || fate === ClosedBy.peerReset) {
      this.writer.reset(id, ErrorCode.streamClosed);
      this.streams.remember(id, ClosedBy.ourReset);
      return this.violation();
    }
    // In flight when we reset it, or so long ago that we cannot tell.
    return this.idle(1);
  }

  private isIdle(id: number): boolean {
    return id > this.seenStreamId || (id & 1) === 0;
  }

  private headers(buffer: Buffer, start: number, end: number, flags: number, id: number): boolean {
    if ((id & 1) === 0) return this.fail(ErrorCode.protocolError, "HEADERS on a stream that is not a client's");
    let from = start;
    let to = end;
    let selfDependent = false;
    if ((flags & (FrameFlag.padded | FrameFlag.priority)) !== 0) {
      if ((flags & FrameFlag.padded) !== 0) {
        if (to - from < 1) return this.fail(ErrorCode.frameSizeError, 'short HEADERS');
        to -= buffer[from]!;
        from += 1;
      }
      if ((flags & FrameFlag.priority) !== 0) {
        if (end - from < 5) return this.fail(ErrorCode.frameSizeError, 'short HEADERS');
        selfDependent = readUint31(buffer, from) === id;
        from += 5;
      }
      if (to < from) return this.fail(ErrorCode.protocolError, 'padding exceeds the frame');
    }
    const endStream = (flags & FrameFlag.endStream) !== 0;
    if ((flags & FrameFlag.endHeaders) === 0) {
      this.assembly.begin(id, endStream, selfDependent, buffer, from, to);
      return true;
    }
    return this.headerBlock(buffer, from, to, endStream, selfDependent, id);
  }

  private continuation(buffer: Buffer, start: number, end: number, flags: number, id: number): boolean {
    const assembly = this.assembly;
    if (assembly.streamId === 0) return this.fail(ErrorCode.protocolError, 'CONTINUATION without HEADERS');
    if (!assembly.add(buffer, start, end)) return this.fail(ErrorCode.enhanceYourCalm, 'header block too large');
    if ((flags & FrameFlag.endHeaders) === 0) return true;
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
    if (head === null) return this.fail(ErrorCode.compressionError, 'header block cannot be decoded');
    this.seenStreamId = id;
    if (id > this.acceptedIdMax) {
      this.streams.remember(id, ClosedBy.ourReset);
      return this.idle(1);
    }
    this.lastStreamId = id;
    if (head.malformed || selfDependent || (endStream && head.contentLength > 0)) {
      return this.refuse(id, ErrorCode.protocolError);
    }
    if (head.tooLarge) return this.refuse(id, ErrorCode.enhanceYourCalm);
    if (this.streams.count >= this.streamsMax || this.writer.pendingBytes > this.limits.pendingRefuseBytes) {
      return this.refuse(id, ErrorCode.refusedStream);
    }
    return this.open(id, head, endStream);
  }

  private open(id: number, head: RequestHead, endStream: boolean): boolean {
    const stream = this.application.openStream(id, head);
    stream.sendWindow = this.writer.peer.initialWindowSize;
    stream.receiveWindow = this.limits.streamWindowBytes;
    stream.remoteClosed = endStream;
    this.streams.add(stream);
    this.latest = stream;
    this.floodGuard.refund(this.limits.floodRefund);
    stream.onOpen();
    return !this.stopped;
  }

  private refuse(id: number, code: ErrorCode): boolean {
    this.writer.reset(id, code);
    this.streams.remember(id, ClosedBy.ourReset);
    // A refused stream may be the race of an honest client: it costs as a reset, not as a violation.
    if (code !== ErrorCode.refusedStream) return this.violation();
    return this.resetGuard.spend(1) || this.fail(ErrorCode.enhanceYourCalm, 'too many refused streams');
  }

  /** A header block on a stream that is not new: trailers, or an error. It is decoded in any case, for the table. */
  private trailers(buffer: Buffer, start: number, end: number, endStream: boolean, id: number): boolean {
    const valid = this.heads.trailers(buffer, start, end);
    if (valid === null) return this.fail(ErrorCode.compressionError, 'header block cannot be decoded');
    const stream = this.streams.get(id);
    if (stream === null) {
      const fate = this.streams.fate(id);
      if (fate === ClosedBy.ourReset) return this.idle(1);
      if (fate === ClosedBy.unknown) return this.fail(ErrorCode.protocolError, 'HEADERS on a stream below the last');
      return this.fail(ErrorCode.streamClosed, 'HEADERS on a closed stream');
    }
    if (stream.remoteClosed) return this.streamError(stream, ErrorCode.streamClosed);
    if (stream.localClosed) return this.afterLocalEnd(stream, endStream);
    if (!endStream || !valid || stream.bodyBytesLeft > 0) {
      return this.streamError(stream, ErrorCode.protocolError);
    }
    stream.remoteClosed = true;
    stream.onTrailers();
    return !this.stopped;
  }

  private rstStream(buffer: Buffer, start: number, end: number, id: number): boolean {
    if (id === 0) return this.fail(ErrorCode.protocolError, 'RST_STREAM on stream 0');
    if (end - start !== 4) return this.fail(ErrorCode.frameSizeError, 'RST_STREAM of a wrong size');
    const stream = this.streams.get(id);
    if (stream === null) {
      if (this.isIdle(id)) return this.fail(ErrorCode.protocolError, 'RST_STREAM on an idle stream');
      return this.idle(1);
    }
    this.forget(stream, ClosedBy.peerReset);
    if (stream.localClosed) {
      this.finishDrain();
      return !this.stopped;
    }
    stream.onReset(readUint32(buffer, start));
    if (!this.resetGuard.spend(1)) return this.fail(ErrorCode.enhanceYourCalm, 'too many reset streams');
    this.finishDrain();
    return !this.stopped;
  }

  private windowUpdate(buffer: Buffer, start: number, end: number, id: number): boolean {
    if (end - start !== 4) return this.fail(ErrorCode.frameSizeError, 'WINDOW_UPDATE of a wrong size');
    if (!this.idle(1)) return false;
    const bytes = readUint31(buffer, start);
    if (id === 0) {
      if (bytes === 0) return this.fail(ErrorCode.protocolError, 'WINDOW_UPDATE of 0');
      if (this.writer.sendWindow + bytes > windowBytesMax) {
        return this.fail(ErrorCode.flowControlError, 'connection window above 2^31 - 1');
      }
      this.writer.sendWindow += bytes;
      return true;
    }
    const stream = this.streams.get(id);
    if (stream === null) {
      if (this.isIdle(id)) return this.fail(ErrorCode.protocolError, 'WINDOW_UPDATE on an idle stream');
      return true;
    }
    if (bytes === 0) return this.streamError(stream, ErrorCode.protocolError);
    if (stream.sendWindow + bytes > windowBytesMax) return this.streamError(stream, ErrorCode.flowControlError);
    stream.sendWindow += bytes;
    this.writer.schedule(stream);
    return true;
  }

  private settings(buffer: Buffer, start: number, end: number, flags: number, id: number): boolean {
    if (id !== 0) return this.fail(ErrorCode.protocolError, 'SETTINGS on a stream');
    if (!this.idle(this.limits.floodSettingsCost)) return false;
    if ((flags & FrameFlag.ack) !== 0) {
      return end === start || this.fail(ErrorCode.frameSizeError, 'SETTINGS acknowledgement with a payload');
    }
    this.sawSettings = true;
    const before = this.writer.peer.initialWindowSize;
    const error = this.writer.peer.apply(buffer, start, end);
    if (error !== ErrorCode.noError) return this.fail(error, 'invalid SETTINGS');
    const delta = this.writer.peer.initialWindowSize - before;
    if (delta !== 0) {
      for (const stream of this.streams.list()) {
        stream.sendWindow += delta;
        if (stream.sendWindow > windowBytesMax) {
          return this.fail(ErrorCode.flowControlError, 'stream window above 2^31 - 1');
        }
        this.writer.schedule(stream);
      }
    }
    this.writer.settingsChanged();
    this.writer.settings(null);
    return true;
  }

  private ping(buffer: Buffer, start: number, end: number, flags: number, id: number): boolean {
    if (id !== 0) return this.fail(ErrorCode.protocolError, 'PING on a stream');
    if (end - start !== 8) return this.fail(ErrorCode.frameSizeError, 'PING of a wrong size');
    if (!this.idle(1)) return false;
    if ((flags & FrameFlag.ack) !== 0) {
      this.application.pingAcked(buffer, start);
    } else {
      this.writer.ping(buffer, start, true);
      this.application.pingReceived();
    }
    return !this.stopped;
  }

  /** Priorities are read for their errors only (RFC 9113, 5.3.2). */
  private priority(buffer: Buffer, start: number, end: number, id: number): boolean {
    if (id === 0) return this.fail(ErrorCode.protocolError, 'PRIORITY on stream 0');
    let error: ErrorCode = ErrorCode.noError;
    if (end - start !== 5) error = ErrorCode.frameSizeError;
    else if (readUint31(buffer, start) === id) error = ErrorCode.protocolError;
    if (error === ErrorCode.noError) return this.idle(1);
    const stream = this.streams.get(id);
    // Only an open stream can be reset: on any other the error is the connection's.
    return stream === null ? this.fail(error, 'invalid PRIORITY') : this.streamError(stream, error);
  }
}
