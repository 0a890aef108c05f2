// Everything that a connection sends: frames into the arena, the peer's windows, and the order of what has to wait.
//
// Order: control frames, HEADERS and small DATA are written at once. DATA that does not fit a window, one frame or the
// output's bound waits in its stream and enters round robin, one frame a stream and round, when the connection is flushed
// (`pump`). So a heartbeat or a watch event never waits behind more than http2Limits.outputPumpBytes of a large answer.
// A stream's trailers follow its last byte, and are encoded only then: HPACK's order is the wire's.

import { assert } from '../base/assert.ts';
import type { Http2Limits } from '../connection-limits.ts';
import type { ChunkPool } from './chunk-pool.ts';
import {
  type ErrorCode,
  FrameFlag,
  FrameType,
  frameHeaderBytes,
  windowBytesDefault,
  windowBytesMax,
  writeFrameHeader,
  writeUint32,
} from './frame.ts';
import type { HeaderBlock } from './header-block.ts';
import { HpackEncoder } from './hpack-encoder.ts';
import { OutputArena } from './output-arena.ts';
import { PendingQueue } from './pending-queue.ts';
import { ReadyStreams } from './ready-streams.ts';
import { PeerSettings } from './settings.ts';
import type { Http2Stream } from './stream.ts';

export interface WriterOwner {
  /** END_STREAM of our side was written. */
  streamEnded(stream: Http2Stream): void;
}

export class Http2Writer {
  readonly output: OutputArena;
  readonly encoder: HpackEncoder;
  readonly peer: PeerSettings = new PeerSettings();
  private readonly owner: WriterOwner;
  private readonly limits: Http2Limits;
  /** Connection send window (RFC 9113, 6.9.1). Never negative. */
  sendWindow: number = windowBytesDefault;
  /** Bytes that wait in all streams. */
  pendingBytes = 0;
  /** Bytes that the transport has and the kernel has not, as of the last flush. */
  transportPendingBytes = 0;
  /** HEADERS or DATA were written since this was last cleared (gRPC's ping strikes look at it). */
  wroteResponse = false;
  /** DATA frames written; the connection gives flood tokens back for them. */
  dataFrames = 0;
  private frameBytesMax = 16_384;
  /** Streams that could send now. */
  readonly ready: ReadyStreams = new ReadyStreams();
  private writable: Http2Stream[] = [];

  constructor(owner: WriterOwner, limits: Http2Limits, pool: ChunkPool) {
    this.owner = owner;
    this.limits = limits;
    this.output = new OutputArena(pool);
    this.encoder = new HpackEncoder(limits.encoderTableBytesMax);
  }

  /** Something waits that a window allows to be sent. */
  get hasReady(): boolean {
    return this.ready.count > 0 && this.sendWindow > 0;
  }

  // --- responses ---

  /** False when the peer said that it takes no list of this size: nothing was written. */
  writeHeaders(stream: Http2Stream, block: HeaderBlock, endStream: boolean): boolean {
    assert(!stream.closed && stream.pendingBytes === 0, 'HEADERS only when nothing waits in an open stream');
    if (block.listBytes > this.peer.maxHeaderListSize) return false;
    if (block.bytesMax > this.frameBytesMax) return this.writeLongHeaders(stream, block, endStream);
    const output = this.output;
    output.ensure(frameHeaderBytes + block.bytesMax);
    const at = output.end;
    const end = block.write(this.encoder, output.buffer, at + frameHeaderBytes);
    const flags = endStream ? FrameFlag.endHeaders | FrameFlag.endStream : FrameFlag.endHeaders;
    writeFrameHeader(output.buffer, at, end - at - frameHeaderBytes, FrameType.headers, flags, stream.id);
    output.end = end;
    this.wroteResponse = true;
    if (endStream) this.owner.streamEnded(stream);
    return true;
  }

  /** A block that may need CONTINUATION. */
  private writeLongHeaders(stream: Http2Stream, block: HeaderBlock, endStream: boolean): boolean {
    const bytes = Buffer.allocUnsafe(block.bytesMax);
    const length = block.write(this.encoder, bytes, 0);
    let at = 0;
    do {
      const take = Math.min(length - at, this.frameBytesMax);
      let flags: number = at + take === length ? FrameFlag.endHeaders : 0;
      if (at === 0 && endStream) flags |= FrameFlag.endStream;
      const type = at === 0 ? FrameType.headers : FrameType.continuation;
      const to = this.control(take, type, flags, stream.id);
      bytes.copy(this.output.buffer, to, at, at + take);
      at += take;
    } while (at < length);
    this.wroteResponse = true;
    if (endStream) this.owner.streamEnded(stream);
    return true;
  }

  /** Whether a DATA frame of `bytes` can be written now, before anything that waits. */
  canWriteData(stream: Http2Stream, bytes: number): boolean {
    return (
      stream.pendingBytes === 0 &&
      bytes <= stream.sendWindow &&
      bytes <= this.sendWindow &&
      bytes <= this.limits.sendQuantumBytes &&
      this.output.length + this.transportPendingBytes <= this.limits.outputDirectBytes
    );
  }

  /**
   * Writes a DATA frame's header and takes `bytes` from the windows: `canWriteData` was true, and the output has room for
   * the frame. Returns where the caller has to put the payload in `output.buffer`.
   */
  writeDataHeader(stream: Http2Stream, bytes: number): number {
    const output = this.output;
    const at = writeFrameHeader(output.buffer, output.end, bytes, FrameType.data, 0, stream.id);
    output.end = at + bytes;
    assert(output.end <= output.buffer.length, 'the output has room for the frame');
    stream.sendWindow -= bytes;
    this.sendWindow -= bytes;
    this.wroteResponse = true;
    this.dataFrames += 1;
    return at;
  }

  /** Lets a buffer wait its turn. It must not change any more. */
  queue(stream: Http2Stream, buffer: Buffer): void {
    assert(!stream.closed && !stream.ending, 'data only before the end of an open stream');
    stream.pending ??= new PendingQueue();
    stream.pending.push(buffer);
    stream.pendingBytes += buffer.length;
    this.pendingBytes += buffer.length;
    this.schedule(stream);
  }

  /** Ends our side: trailers, or an empty DATA frame when null. At once, or behind what waits. False as writeHeaders. */
  end(stream: Http2Stream, trailers: HeaderBlock | null): boolean {
    assert(!stream.closed && !stream.ending, 'a stream ends once');
    if (stream.pendingBytes > 0) {
      stream.ending = true;
      stream.trailers = trailers;
      return true;
    }
    if (trailers !== null) return this.writeHeaders(stream, trailers, true);
    this.control(0, FrameType.data, FrameFlag.endStream, stream.id);
    this.owner.streamEnded(stream);
    return true;
  }

  /** Forgets what waits in a stream that closed. */
  drop(stream: Http2Stream): void {
    this.pendingBytes -= stream.pendingBytes;
    stream.pendingBytes = 0;
    stream.pending = null;
    stream.trailers = null;
    stream.wantsWritable = false;
    if (this.ready.has(stream)) this.ready.remove(stream);
  }

  // --- what waits ---

  /** To be called when a stream that has something waiting may have got window. */
  schedule(stream: Http2Stream): void {
    if (stream.pendingBytes === 0 || stream.sendWindow <= 0 || this.ready.has(stream)) return;
    this.ready.push(stream);
  }

  /** Moves waiting data into the output, round robin, up to the output's bound. */
  pump(): void {
    const bound = this.limits.outputPumpBytes - this.transportPendingBytes;
    while (this.ready.count > 0 && this.sendWindow > 0 && this.output.length < bound) {
      const stream = this.ready.shift();
      assert(!stream.closed, 'a stream that closes leaves at once');
      // Its window may have shrunk since it became ready (SETTINGS).
      if (stream.sendWindow > 0) this.pumpStream(stream);
    }
    // Handlers run only now: they may write, queue, or close streams.
    while (this.writable.length > 0) {
      const streams = this.writable;
      this.writable = [];
      for (const stream of streams) if (!stream.closed) stream.onWritable();
    }
  }

  private pumpStream(stream: Http2Stream): void {
    const quantum = Math.min(this.limits.sendQuantumBytes, this.frameBytesMax);
    const bytes = Math.min(quantum, stream.sendWindow, this.sendWindow, stream.pendingBytes);
    this.output.ensure(frameHeaderBytes + bytes);
    const at = this.writeDataHeader(stream, bytes);
    stream.pending!.copyTo(this.output.buffer, at, bytes);
    stream.pendingBytes -= bytes;
    this.pendingBytes -= bytes;
    assert(stream.pending!.bytes === stream.pendingBytes, 'the queue and the count agree');
    if (stream.pendingBytes === 0) {
      stream.pending = null;
      if (stream.ending) {
        stream.ending = false;
        if (!this.end(stream, stream.trailers)) this.control(0, FrameType.data, FrameFlag.endStream, stream.id);
        return;
      }
    } else {
      this.schedule(stream);
    }
    if (stream.wantsWritable && stream.pendingBytes <= this.limits.streamLowWaterBytes) {
      stream.wantsWritable = false;
      this.writable.push(stream);
    }
  }

  // --- control frames ---

  /** Writes a frame header with room for a payload, whose offset in `output.buffer` is returned. */
  control(bytes: number, type: FrameType, flags: number, streamId: number): number {
    this.output.ensure(frameHeaderBytes + bytes);
    const at = writeFrameHeader(this.output.buffer, this.output.end, bytes, type, flags, streamId);
    this.output.end = at + bytes;
    return at;
  }

  reset(streamId: number, code: ErrorCode): void {
    const at = this.control(4, FrameType.rstStream, 0, streamId);
    writeUint32(this.output.buffer, at, code);
  }

  windowUpdate(streamId: number, bytes: number): void {
    assert(bytes > 0 && bytes <= windowBytesMax, 'a window grows by something');
    const at = this.control(4, FrameType.windowUpdate, 0, streamId);
    writeUint32(this.output.buffer, at, bytes);
  }

  ping(payload: Buffer, start: number, ack: boolean): void {
    const at = this.control(8, FrameType.ping, ack ? FrameFlag.ack : 0, 0);
    payload.copy(this.output.buffer, at, start, start + 8);
  }

  settings(payload: Buffer | null): void {
    const at = this.control(payload?.length ?? 0, FrameType.settings, payload === null ? FrameFlag.ack : 0, 0);
    if (payload !== null) payload.copy(this.output.buffer, at);
  }

  goAway(lastStreamId: number, code: ErrorCode, debug: string): void {
    const at = this.control(8 + debug.length, FrameType.goAway, 0, 0);
    writeUint32(this.output.buffer, at, lastStreamId);
    writeUint32(this.output.buffer, at + 4, code);
    this.output.buffer.write(debug, at + 8, 'latin1');
  }

  /** After `peer` has changed. */
  settingsChanged(): void {
    this.frameBytesMax = this.peer.maxFrameSize;
    this.encoder.peerTableSize(this.peer.headerTableSize);
  }
}
