// The server's side of one HTTP/2 connection (RFC 9113): bytes in, calls of the layer above and bytes out. No I/O and no
// timers: the owner feeds `receive`, writes at `flush`, and injects the clock. Here are the connection's life (preface, drain, end)
// and its own frames (SETTINGS, PING, GOAWAY); the frames of streams are streams.ts's.
//
//                 fail: GOAWAY with an error                          flush: the transport is ended
//   open ─────────────────────────────────────────────▶ stopped, ending ────────────────────────▶ lost
//     └─ announceGoAway(final) ─▶ draining ─ drained ────────┘              closed: the transport is gone, from any state
//
// Errors: a violation by one stream resets it (RST_STREAM), one that breaks the connection's state ends it (GOAWAY, then the
// transport is ended). Cheap frames sent in masses end it with ENHANCE_YOUR_CALM (abuse-bounds.ts, connection-limits.ts).

import type { Http2Limits } from '../connection-limits.ts';
import { AbuseBounds } from './abuse-bounds.ts';
import type { Http2Application, Http2ConnectionOptions, Transport } from './application.ts';
import { FlowControl } from './flow-control.ts';
import { ErrorCode, FrameFlag, FrameType, readUint31, streamIdMax } from './frame.ts';
import { FrameReader, type FrameSink } from './frame-reader.ts';
import { ownSettings } from './settings.ts';
import type { Http2Stream } from './stream.ts';
import { Streams, type StreamsOwner } from './streams.ts';
import { Http2Writer, type WriterOwner } from './writer.ts';

export class Http2Connection implements FrameSink, WriterOwner, StreamsOwner {
  readonly writer: Http2Writer;
  private readonly application: Http2Application;
  private readonly transport: Transport;
  private readonly limits: Http2Limits;
  private readonly reader: FrameReader;
  private readonly bounds: AbuseBounds;
  private readonly flow: FlowControl;
  private readonly streams: Streams;
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
    this.writer = new Http2Writer(this, limits, options.outputPool);
    this.reader = new FrameReader(this, limits.frameBytesMax, options.framePool);
    this.bounds = new AbuseBounds(this, limits, options.clock);
    this.flow = new FlowControl(this.writer, limits);
    this.streams = new Streams(this, options, this.writer, this.flow, this.bounds);
    this.writer.settings(ownSettings(limits, options.concurrentStreamsMax));
    this.flow.announce();
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
      this.bounds.useful(frames);
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

  /** GOAWAY, reading goes on: a step of a graceful drain. The final one names the last stream that is acted on. */
  announceGoAway(final: boolean, debug: string): void {
    if (this.stopped) return;
    if (final) this.streams.acceptNoMore();
    this.writer.goAway(final ? this.streams.lastStreamId : streamIdMax, ErrorCode.noError, debug);
    if (final) this.streams.checkDrained();
  }

  /** Ends the connection with an error of the peer's or ours. Always false, so that frame handlers can return it. */
  fail(code: ErrorCode, debug: string): false {
    if (this.stopped) return false;
    this.writer.goAway(this.streams.lastStreamId, code, debug);
    this.ending = true;
    this.stop();
    this.application.closing();
    return false;
  }

  private stop(): void {
    this.stopped = true;
    this.reader.stop();
    this.streams.cancelAll();
  }

  /** By the streams: a drain is over. */
  drained(): void {
    if (this.stopped) return;
    this.stopped = true;
    this.ending = true;
    this.reader.stop();
    this.application.closing();
  }

  /** By the writer: END_STREAM of our side was written. */
  streamEnded(stream: Http2Stream): void {
    this.streams.ended(stream);
  }

  // --- the layer above's side ---

  /** Resets an open stream for a reason of ours. Its onReset is not called. */
  resetStream(stream: Http2Stream, code: ErrorCode): void {
    this.streams.reset(stream, code);
  }

  /** Lets the peer send `bytes` more on a stream. */
  grant(stream: Http2Stream, bytes: number): void {
    this.flow.grant(stream, bytes);
  }

  /** Bytes waiting in streams have passed what a connection may hold: to be asked before more is queued. */
  get outputExhausted(): boolean {
    return this.writer.pendingBytes > this.limits.pendingCloseBytes;
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
    const { openBlockId } = this.streams;
    if (openBlockId !== 0 && (type !== FrameType.continuation || id !== openBlockId)) {
      return this.fail(ErrorCode.protocolError, 'a header block was interrupted');
    }
    switch (type) {
      case FrameType.data:
        return this.streams.data(buffer, start, end, flags, id);
      case FrameType.headers:
        return this.streams.headers(buffer, start, end, flags, id);
      case FrameType.windowUpdate:
        return this.windowUpdate(buffer, start, end, id);
      case FrameType.rstStream:
        return this.streams.rstStream(buffer, start, end, id);
      case FrameType.ping:
        return this.ping(buffer, start, end, flags, id);
      case FrameType.settings:
        return this.settings(buffer, start, end, flags, id);
      case FrameType.continuation:
        return this.streams.continuation(buffer, start, end, flags);
      case FrameType.priority:
        return this.streams.priority(buffer, start, end, id);
      case FrameType.pushPromise:
        return this.fail(ErrorCode.protocolError, 'clients do not push');
      case FrameType.goAway:
        if (id !== 0) return this.fail(ErrorCode.protocolError, 'GOAWAY on a stream');
        if (end - start < 8) return this.fail(ErrorCode.frameSizeError, 'short GOAWAY');
        return this.bounds.idle(1);
      default:
        return this.bounds.idle(1);
    }
  }

  private windowUpdate(buffer: Buffer, start: number, end: number, id: number): boolean {
    if (end - start !== 4) return this.fail(ErrorCode.frameSizeError, 'WINDOW_UPDATE of a wrong size');
    if (!this.bounds.idle(1)) return false;
    const bytes = readUint31(buffer, start);
    if (id !== 0) return this.streams.windowUpdate(id, bytes);
    if (bytes === 0) return this.fail(ErrorCode.protocolError, 'WINDOW_UPDATE of 0');
    return (
      this.flow.widenConnection(bytes) || this.fail(ErrorCode.flowControlError, 'connection window above 2^31 - 1')
    );
  }

  private settings(buffer: Buffer, start: number, end: number, flags: number, id: number): boolean {
    if (id !== 0) return this.fail(ErrorCode.protocolError, 'SETTINGS on a stream');
    if (!this.bounds.idle(this.limits.floodSettingsCost)) return false;
    if ((flags & FrameFlag.ack) !== 0) {
      return end === start || this.fail(ErrorCode.frameSizeError, 'SETTINGS acknowledgement with a payload');
    }
    this.sawSettings = true;
    const { peer } = this.writer;
    const before = peer.initialWindowSize;
    const error = peer.apply(buffer, start, end);
    if (error !== ErrorCode.noError) return this.fail(error, 'invalid SETTINGS');
    const change = peer.initialWindowSize - before;
    if (change !== 0 && !this.streams.initialWindowChanged(change)) return false;
    this.writer.settingsChanged();
    this.writer.settings(null);
    return true;
  }

  private ping(buffer: Buffer, start: number, end: number, flags: number, id: number): boolean {
    if (id !== 0) return this.fail(ErrorCode.protocolError, 'PING on a stream');
    if (end - start !== 8) return this.fail(ErrorCode.frameSizeError, 'PING of a wrong size');
    if (!this.bounds.idle(1)) return false;
    if ((flags & FrameFlag.ack) !== 0) {
      this.application.pingAcked(buffer, start);
    } else {
      this.writer.ping(buffer, start, true);
      this.application.pingReceived();
    }
    return !this.stopped;
  }
}
