// One gRPC call on the server: the HTTP/2 stream that carries it and the ServerCall that its handler sees.
//
// Hot path (unary, everything in one chunk): openStream, onData with the whole message in one DATA frame, the handler,
// respond. Budget: 2.5 us of CPU a call with reading and writing the socket; benchmark: bench/echo.ts. No copy of the
// request, one of the answer (into the arena), no allocation but this object.

import { assert } from '../base/assert.ts';
import { ErrorCode, readUint32, writeUint32 } from '../http2/frame.ts';
import type { HeaderBlock } from '../http2/header-block.ts';
import type { RequestHead } from '../http2/request-head.ts';
import { Http2Stream } from '../http2/stream.ts';
import type { Grantee } from './assembly-grants.ts';
import type { ConnectionInfo, ServerCall } from './call.ts';
import type { CallPlan } from './call-plan.ts';
import { compress, decompress } from './compression.ts';
import type { GrpcConnection } from './connection.ts';
import { MessageAssembly, messagePrefixBytes } from './message-assembly.ts';
import { decodeBinaryHeader } from './metadata.ts';
import { errorTrailers, responseHeaders, trailersOnly } from './response-blocks.ts';
import type { MethodEntry } from './router.ts';
import { type Status, StatusCode } from './status.ts';
import { Timer, type TimerOwner } from './timer-wheel.ts';

export class GrpcCall extends Http2Stream implements ServerCall, Grantee, TimerOwner {
  readonly method: MethodEntry;
  private readonly owner: GrpcConnection;
  private readonly plan: CallPlan;
  deadlineMs: number = Number.POSITIVE_INFINITY;
  context: unknown = undefined;
  onDrain: (() => void) | null = null;
  onCancel: (() => void) | null = null;
  ended = false;
  grantedBytes = 0;
  awaitsGrant = false;
  private started = false;
  private headersSent = false;
  private paused = false;
  private halfClosed = false;
  private inputFinished = false;
  private delivering = false;
  private messageCount = 0;
  private startedMs = 0;
  /** Of a unary call: its message while the handler runs, then what the handler keeps of it. */
  private request: Buffer | null = null;
  private requestStart = 0;
  private requestEnd = 0;
  private assembly: MessageAssembly | null = null;
  private timer: Timer | null = null;

  constructor(id: number, head: RequestHead, plan: CallPlan, method: MethodEntry, owner: GrpcConnection) {
    super(id, head);
    this.plan = plan;
    this.method = method;
    this.owner = owner;
  }

  // --- for the handler ---

  get connection(): ConnectionInfo {
    return this.owner.info;
  }

  get bufferedBytes(): number {
    return this.pendingBytes;
  }

  metadata(name: string): string | undefined {
    if (name === ':authority') return this.head.authority;
    return this.head.value(name);
  }

  metadataBytes(name: string): Buffer | undefined {
    const value = this.head.value(name);
    return value === undefined ? undefined : (decodeBinaryHeader(value) ?? undefined);
  }

  keepRequest(message: Buffer, start: number, end: number): void {
    this.request = message;
    this.requestStart = start;
    this.requestEnd = end;
  }

  respond(message: Buffer, start: number, end: number): void {
    if (this.ended) return;
    assert(!this.headersSent && start <= end && end <= message.length, 'one answer, within its buffer');
    const bytes = end - start;
    const { writer } = this.owner.http2;
    if (this.plan.gzip || !writer.canWriteData(this, messagePrefixBytes + bytes)) {
      this.respondLater(Buffer.from(message.subarray(start, end)));
      return;
    }
    if (!this.sendHeaders()) return;
    writer.output.ensure(9 + messagePrefixBytes + bytes);
    const at = writer.writeDataHeader(this, messagePrefixBytes + bytes);
    const out = writer.output.buffer;
    out[at] = 0;
    writeUint32(out, at + 1, bytes);
    copyBytes(message, start, end, out, at + messagePrefixBytes);
    this.finishOk(message, start, end);
  }

  respondWith<T>(sizeMax: number, write: (out: Buffer, offset: number, arg: T) => number, arg: T): void {
    if (this.ended) return;
    assert(!this.headersSent, 'a unary call has one answer');
    const { writer } = this.owner.http2;
    if (this.plan.gzip || !writer.canWriteData(this, messagePrefixBytes + sizeMax)) {
      const buffer = Buffer.allocUnsafe(sizeMax);
      const end = write(buffer, 0, arg);
      assert(end <= sizeMax, 'the answer is no larger than it said');
      this.respondLater(buffer.subarray(0, end));
      return;
    }
    if (!this.sendHeaders()) return;
    const { output } = writer;
    output.ensure(9 + messagePrefixBytes + sizeMax);
    const frameAt = output.end;
    const start = frameAt + 9 + messagePrefixBytes;
    const bytes = write(output.buffer, start, arg) - start;
    assert(bytes >= 0 && bytes <= sizeMax, 'the answer is no larger than it said');
    assert(output.end === frameAt, 'an encoder writes nothing but its answer');
    const at = writer.writeDataHeader(this, messagePrefixBytes + bytes);
    output.buffer[at] = 0;
    writeUint32(output.buffer, at + 1, bytes);
    this.finishOk(output.buffer, at + messagePrefixBytes, at + messagePrefixBytes + bytes);
  }

  respondPulled(bytes: number, last: Buffer, next: () => Buffer): void {
    if (this.ended) return;
    assert(!this.headersSent, 'a unary call has one answer');
    if (this.refuseQueue() || !this.sendHeaders()) return;
    const { writer } = this.owner.http2;
    // A message that is not compressed may stand in any encoding.
    writer.queue(this, messagePrefix(0, bytes));
    this.countSent(bytes);
    let left = bytes;
    this.onDrain = (): void => {
      while (left > 0 && this.pendingBytes < this.owner.limits.streamHighWaterBytes) {
        const part = next();
        left -= part.length;
        assert(left >= 0, 'the answer is no larger than it said');
        writer.queue(this, part);
      }
      this.owner.touch();
      if (left > 0) {
        this.wantsWritable = true;
        return;
      }
      this.onDrain = null;
      this.noteSlow(last, 0, last.length, bytes);
      this.end();
    };
    this.onDrain();
  }

  fail(status: Status): void {
    if (this.ended) return;
    assert(status.code !== StatusCode.ok, 'OK is not a failure');
    this.noteSlow(null, 0, 0);
    this.finish(status.code);
    const block = this.headersSent ? errorTrailers(status) : trailersOnly(200, this.plan.contentType, status);
    this.endWith(block);
  }

  send(message: Buffer, start: number, end: number): boolean {
    if (this.ended) return true;
    const bytes = end - start;
    const { writer } = this.owner.http2;
    if (this.plan.gzip || !writer.canWriteData(this, messagePrefixBytes + bytes)) {
      return this.sendQueued([Buffer.from(message.subarray(start, end))], bytes);
    }
    if (!this.sendHeaders()) return true;
    writer.output.ensure(9 + messagePrefixBytes + bytes);
    const at = writer.writeDataHeader(this, messagePrefixBytes + bytes);
    const out = writer.output.buffer;
    out[at] = 0;
    writeUint32(out, at + 1, bytes);
    copyBytes(message, start, end, out, at + messagePrefixBytes);
    this.countSent(bytes);
    this.owner.touch();
    return true;
  }

  sendParts(parts: readonly Buffer[]): boolean {
    if (this.ended) return true;
    let bytes = 0;
    for (const part of parts) bytes += part.length;
    const { writer } = this.owner.http2;
    if (this.plan.gzip || !writer.canWriteData(this, messagePrefixBytes + bytes)) return this.sendQueued(parts, bytes);
    if (!this.sendHeaders()) return true;
    writer.output.ensure(9 + messagePrefixBytes + bytes);
    let at = writer.writeDataHeader(this, messagePrefixBytes + bytes);
    const out = writer.output.buffer;
    out[at] = 0;
    writeUint32(out, at + 1, bytes);
    at += messagePrefixBytes;
    for (const part of parts) {
      copyBytes(part, 0, part.length, out, at);
      at += part.length;
    }
    this.countSent(bytes);
    this.owner.touch();
    return true;
  }

  end(): void {
    if (this.ended) return;
    if (!this.sendHeaders()) return;
    this.finish(StatusCode.ok);
    this.endWith(this.owner.blocks.trailers);
  }

  pauseReceive(): void {
    this.paused = true;
  }

  resumeReceive(): void {
    if (!this.paused) return;
    this.paused = false;
    if (this.ended || this.delivering) return;
    this.deliverAssembled();
    this.replenish();
    this.owner.touch();
  }

  // --- sending ---

  /** False when the client takes no such header list: the call is over. */
  private sendHeaders(): boolean {
    if (this.headersSent) return true;
    this.headersSent = true;
    const { plan, owner } = this;
    const plain = !plan.gzip && plan.contentType === 'application/grpc';
    const block = plain ? owner.blocks.headers : responseHeaders(plan.contentType, plan.gzip);
    if (owner.http2.writer.writeHeaders(this, block, false)) return true;
    this.abort(StatusCode.internal, ErrorCode.internalError);
    return false;
  }

  /** Behind the one message of a unary call: its bytes are out[start, end) still. */
  private finishOk(out: Buffer, start: number, end: number): void {
    this.countSent(end - start);
    this.noteSlow(out, start, end);
    this.finish(StatusCode.ok);
    this.endWith(this.owner.blocks.trailers);
  }

  private respondLater(message: Buffer): void {
    this.noteSlow(message, 0, message.length);
    this.sendQueued([message], message.length);
    this.end();
  }

  private sendQueued(parts: readonly Buffer[], bytes: number): boolean {
    const { http2 } = this.owner;
    if (this.refuseQueue() || !this.sendHeaders()) return true;
    let body = parts;
    let sizeOnWire = bytes;
    // grpc-go leaves an empty message uncompressed.
    const compressed = this.plan.gzip && bytes > 0;
    if (compressed) {
      const packed = compress(parts.length === 1 ? parts[0]! : Buffer.concat(parts));
      body = [packed];
      sizeOnWire = packed.length;
    }
    http2.writer.queue(this, messagePrefix(compressed ? 1 : 0, sizeOnWire));
    for (const part of body) http2.writer.queue(this, part);
    this.countSent(bytes);
    this.owner.touch();
    if (this.pendingBytes < this.owner.limits.streamHighWaterBytes) return true;
    this.wantsWritable = true;
    return false;
  }

  /** True, and the connection is over, when it holds so much that nothing more may be queued. */
  private refuseQueue(): boolean {
    const { http2 } = this.owner;
    if (!http2.outputExhausted) return false;
    this.owner.touch();
    http2.fail(ErrorCode.enhanceYourCalm, 'answers are not read');
    return true;
  }

  private countSent(bytes: number): void {
    const { observer } = this.owner;
    observer.sent(this.method);
    observer.sentBytes(bytes);
  }

  private endWith(trailers: HeaderBlock): void {
    this.owner.touch();
    // A unary client's END_STREAM is on its way behind its one message; any other might never come.
    this.awaitsPeerEnd = this.method.kind === 'unary' && this.messageCount > 0;
    if (this.owner.http2.writer.end(this, trailers)) return;
    this.owner.http2.resetStream(this, ErrorCode.internalError);
  }

  /** The call is over for its handler, whatever is still to be sent. */
  private finish(code: StatusCode): void {
    assert(!this.ended, 'a call ends once');
    this.ended = true;
    const { owner } = this;
    if (this.timer !== null) {
      owner.wheel.cancel(this.timer);
      this.timer = null;
    }
    if (this.assembly !== null) {
      owner.assemblyBytes -= this.assembly.bytes;
      this.assembly = null;
    }
    if (this.grantedBytes > 0) owner.grants.release(this);
    this.request = null;
    if (!this.started) return;
    if (this.plan.demands !== 0) owner.demanding.delete(this);
    const { observer } = owner;
    observer.handled(this.method, code, observer.wantsDuration ? owner.clock.nowMs() - this.startedMs : 0);
  }

  /** Tells the observer of a unary call that took long. `answer` null: there is none. */
  private noteSlow(answer: Buffer | null, start: number, end: number, totalBytes = end - start): void {
    const { observer } = this.owner;
    const durationMs = observer.recentMs() - this.startedMs;
    if (durationMs <= observer.slowMs || !this.started || this.method.kind !== 'unary') return;
    const { request } = this;
    const kept = request === null ? null : { buffer: request, start: this.requestStart, end: this.requestEnd };
    observer.slow(this, durationMs, kept, answer === null ? null : { buffer: answer, start, end, totalBytes });
  }

  /** Ends without trailers. */
  private abort(code: StatusCode, reset: ErrorCode): void {
    if (this.ended) return;
    this.noteSlow(null, 0, 0);
    this.finish(code);
    this.owner.touch();
    this.owner.http2.resetStream(this, reset);
    this.onCancel?.();
  }

  // --- the stream's events ---

  override onOpen(): void {
    const { owner } = this;
    this.startedMs = owner.nowMs;
    if (this.plan.timeoutMs !== Number.POSITIVE_INFINITY) {
      this.deadlineMs = owner.nowMs + this.plan.timeoutMs;
      this.timer = new Timer(this);
      owner.wheel.set(this.timer, this.deadlineMs);
    }
    const { stream } = this.method;
    if (stream !== null) {
      this.start();
      if (!this.passes()) return;
      stream.open(this);
    }
    if (this.remoteClosed && !this.ended) this.halfClose();
  }

  override onData(buffer: Buffer, start: number, end: number, endStream: boolean): void {
    if (this.ended) return;
    let from = start;
    if (this.assembly === null && !this.paused) from = this.consume(buffer, start, end);
    if (this.ended) return;
    if (from < end) {
      this.hold(buffer, from, end);
      if (this.assembly !== null && !this.paused) this.deliverAssembled();
      if (this.ended) return;
    }
    if (endStream) this.halfClose();
    else this.replenish();
  }

  override onTrailers(): void {
    if (!this.ended) this.halfClose();
  }

  override onReset(): void {
    if (this.ended) return;
    this.noteSlow(null, 0, 0);
    this.finish(StatusCode.canceled);
    this.onCancel?.();
  }

  override onWritable(): void {
    this.onDrain?.();
  }

  timerFired(): void {
    this.timer = null;
    this.abort(StatusCode.deadlineExceeded, ErrorCode.cancel);
  }

  // --- receiving ---

  /** Delivers the whole messages of buffer[from, to) and returns where the rest begins. */
  private consume(buffer: Buffer, from: number, to: number): number {
    const { kind } = this.method;
    let at = from;
    this.delivering = true;
    while (to - at >= messagePrefixBytes && !this.paused) {
      // As grpc-go: a unary call takes its first message and looks at nothing behind it.
      if (kind === 'unary' && this.messageCount > 0) at = to;
      if (at === to) break;
      const length = readUint32(buffer, at + 1);
      if (length > this.owner.messageBytesMax) {
        const text = `grpc: received message larger than max (${length} vs. ${this.owner.messageBytesMax})`;
        this.fail({ code: StatusCode.resourceExhausted, message: text });
        break;
      }
      const start = at + messagePrefixBytes;
      const end = start + length;
      if (end > to) break;
      if (kind === 'server') {
        if (end < to || this.messageCount > 0) {
          const text = 'cardinality violation: received multiple request messages for non-client-streaming RPC';
          this.fail({ code: StatusCode.internal, message: text });
          break;
        }
        if (!this.remoteClosed) break;
      }
      at = end;
      this.messageCount += 1;
      if (buffer[start - messagePrefixBytes] === 0) this.deliver(buffer, start, end);
      else this.deliverFlagged(buffer[start - messagePrefixBytes]!, buffer, start, end);
      if (this.ended) break;
    }
    this.delivering = false;
    return at;
  }

  private deliver(buffer: Buffer, start: number, end: number): void {
    const { observer } = this.owner;
    const { unary, stream } = this.method;
    if (unary !== null) this.start();
    observer.received(this.method);
    observer.receivedBytes(end - start);
    if (unary === null) {
      stream!.message(this, buffer, start, end);
      return;
    }
    if (!this.passes()) return;
    this.keepRequest(buffer, start, end);
    unary(this, buffer, start, end);
    if (!this.ended && this.request === buffer) this.releaseRequest();
  }

  /** The handler has returned and kept nothing: the buffer is not ours any more. */
  private releaseRequest(): void {
    const { request, requestStart: start, requestEnd: end } = this;
    this.request = null;
    if (this.owner.observer.slowMs >= 0 || request === null) return;
    this.keepRequest(Buffer.from(request.subarray(start, end)), 0, end - start);
  }

  /** A message whose first byte is not 0. */
  private deliverFlagged(flag: number, buffer: Buffer, start: number, end: number): void {
    if (flag !== 1) {
      const message = `grpc: received unexpected payload format ${flag}`;
      this.fail({ code: StatusCode.internal, message });
      return;
    }
    if (!this.plan.gzip) {
      const message = 'grpc: compressed flag set with identity or empty encoding';
      this.fail({ code: StatusCode.internal, message });
      return;
    }
    const plain = decompress(buffer, start, end, this.owner.messageBytesMax);
    if (Buffer.isBuffer(plain)) this.deliver(plain, 0, plain.length);
    else this.fail(plain);
  }

  private start(): void {
    this.started = true;
    this.owner.observer.started(this.method, this);
  }

  /** False when the gate refuses the call, which has failed then. */
  private passes(): boolean {
    const { gate, demanding } = this.owner;
    if (this.plan.demands === 0) return true;
    const refusal = gate.refusal(this.plan.demands);
    if (refusal !== null) this.fail(refusal);
    else if (this.method.stream !== null) demanding.add(this);
    return refusal === null;
  }

  /** For an open stream: the gate is asked again. */
  endIfRefused(): void {
    const refusal = this.owner.gate.refusal(this.plan.demands);
    if (refusal === null || this.ended) return;
    this.fail(refusal);
    this.onCancel?.();
  }

  /** Keeps bytes for later, within the connection's bound. */
  private hold(buffer: Buffer, start: number, end: number): void {
    const { owner } = this;
    if (owner.assemblyBytes + end - start > owner.assemblyBytesMax) {
      const message = 'keelson: too many bytes of incomplete messages on this connection';
      this.fail({ code: StatusCode.resourceExhausted, message });
      return;
    }
    this.assembly ??= new MessageAssembly();
    this.assembly.append(buffer, start, end);
    owner.assemblyBytes += end - start;
  }

  private deliverAssembled(): void {
    const { assembly, owner } = this;
    if (assembly !== null) {
      const from = assembly.start;
      const at = this.consume(assembly.buffer, from, assembly.end);
      // finish() has settled the account when the call ended meanwhile.
      if (this.ended) return;
      assembly.start = at;
      owner.assemblyBytes -= at - from;
      if (at > from && this.grantedBytes > 0) owner.grants.release(this);
      if (assembly.bytes === 0) this.assembly = null;
    }
    if (this.halfClosed && !this.paused) this.finishInput();
  }

  /** END_STREAM has come. */
  private halfClose(): void {
    this.halfClosed = true;
    if (!this.paused) this.deliverAssembled();
  }

  /** Everything that the client sent was delivered, or can never be. */
  private finishInput(): void {
    if (this.inputFinished) return;
    this.inputFinished = true;
    const { kind } = this.method;
    // As grpc-go: a part of a prefix is no message, a part of a message is an error.
    if (this.assembly !== null && this.assembly.bytes >= messagePrefixBytes) {
      // grpc-go: a unary handler never ran, so the bare error goes out; a stream's RecvMsg wraps it.
      const code = kind === 'unary' ? StatusCode.unknown : StatusCode.internal;
      this.fail({ code, message: 'unexpected EOF' });
      return;
    }
    if (this.messageCount === 0 && kind === 'unary') {
      this.fail({ code: StatusCode.unknown, message: 'EOF' });
      return;
    }
    if (this.messageCount === 0 && kind === 'server') {
      const text = 'cardinality violation: received no request message from non-client-streaming RPC';
      this.fail({ code: StatusCode.internal, message: text });
      return;
    }
    if (this.method.stream !== null) this.method.stream.halfClose(this);
  }

  /** Lets the client send on. */
  private replenish(): void {
    if (this.paused || this.ended || this.remoteClosed || this.closed) return;
    // Nothing behind a unary call's message is wanted.
    if (this.messageCount > 0 && this.method.kind === 'unary') return;
    const missing = this.assembly === null ? 0 : this.assembly.missing;
    if (missing > this.receiveWindow) this.owner.grants.request(this);
    else if (this.assembly === null || missing > 0) this.owner.replenish(this);
  }

  wantedGrant(): number {
    if (this.paused || this.ended || this.remoteClosed || this.closed || this.assembly === null) return 0;
    return Math.max(0, this.assembly.missing - this.receiveWindow);
  }

  takeGrant(bytes: number): boolean {
    this.owner.touch();
    this.owner.http2.grant(this, bytes);
    return true;
  }
}

function messagePrefix(flag: 0 | 1, bytes: number): Buffer {
  const prefix = Buffer.allocUnsafe(messagePrefixBytes);
  prefix[0] = flag;
  writeUint32(prefix, 1, bytes);
  return prefix;
}

/** Copies like Buffer.copy; a loop is faster for the short messages that most answers are. */
function copyBytes(from: Buffer, start: number, end: number, to: Buffer, at: number): void {
  if (end - start > 64) {
    from.copy(to, at, start, end);
    return;
  }
  for (let i = start, j = at; i < end; i += 1, j += 1) to[j] = from[i]!;
}
