// One gRPC call on the server: the HTTP/2 stream that carries it and the ServerCall that its handler sees. Here are its life (start,
// deadline, end), its answers, and what is told to the observer; how messages come in is call-input.ts's, how they are framed on
// their way out message-writer.ts's.
//
//                    respond…, end, fail: of the handler, or by what came (call-input.ts)
//   open ── start: the handler ────────▶ ended: onEnd ── what waits was sent ──▶ closed
//     └───── reset, deadline, connection lost: onEnd ───────────────────────────▲
//
// Hot path (unary, everything in one chunk): openStream, onData with the whole message in one DATA frame, the handler,
// respond. Budget: 2.5 us of CPU a call with reading and writing the socket; benchmark: bench/echo.ts. No copy of the
// request, one of the answer (into the arena), no allocation but this object.

import { assert } from '../base/assert.ts';
import { ErrorCode } from '../http2/frame.ts';
import type { HeaderBlock } from '../http2/header-block.ts';
import type { RequestHead } from '../http2/request-head.ts';
import type { ConnectionInfo, ServerCall } from './call.ts';
import { CallInput } from './call-input.ts';
import type { CallPlan } from './call-plan.ts';
import type { GrpcConnection } from './connection.ts';
import type { MessageAssembly } from './message-assembly.ts';
import {
  canWriteMessage,
  type MessageEncoder,
  queueParts,
  queuePrefix,
  writeEncoded,
  writeMessage,
  writeParts,
} from './message-writer.ts';
import { decodeBinaryHeader } from './metadata.ts';
import { PulledAnswer } from './pulled-answer.ts';
import { errorTrailers, responseHeaders, trailersOnly } from './response-blocks.ts';
import type { MethodEntry } from './router.ts';
import { type Status, StatusCode } from './status.ts';
import { Timer, type TimerOwner } from './timer-wheel.ts';

export class GrpcCall extends CallInput implements ServerCall, TimerOwner {
  override readonly method: MethodEntry;
  protected override readonly owner: GrpcConnection;
  protected override readonly plan: CallPlan;
  deadlineMs: number = Number.POSITIVE_INFINITY;
  context: unknown = undefined;
  /** Both are null again when the call has ended, however it did. */
  onDrain: (() => void) | null = null;
  onEnd: (() => void) | null = null;
  override ended = false;
  override grantedBytes = 0;
  override awaitsGrant = false;
  protected override messageCount = 0;
  protected override paused = false;
  protected override halfClosed = false;
  protected override inputFinished = false;
  protected override delivering = false;
  protected override assembly: MessageAssembly | null = null;
  private started = false;
  private headersSent = false;
  private readonly startedMs: number;
  /** Of a unary call: its message while the handler runs, then what the handler keeps of it. */
  private request: Buffer | null = null;
  private requestStart = 0;
  private requestEnd = 0;
  private timer: Timer | null = null;

  constructor(id: number, head: RequestHead, plan: CallPlan, method: MethodEntry, owner: GrpcConnection) {
    super(id, head);
    this.plan = plan;
    this.method = method;
    this.owner = owner;
    this.startedMs = owner.nowMs;
  }

  // --- for the handler ---

  get connection(): ConnectionInfo {
    return this.owner.info;
  }

  get bufferedBytes(): number {
    return this.pendingBytes;
  }

  get connectionBufferedBytes(): number {
    return this.owner.http2.writer.pendingBytes;
  }

  whenRoom(done: () => void): void {
    this.owner.onRoom = done;
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
    const { writer } = this.owner.http2;
    if (this.plan.gzip || !canWriteMessage(writer, this, end - start)) {
      this.respondLater(Buffer.from(message.subarray(start, end)));
      return;
    }
    if (!this.sendHeaders()) return;
    writeMessage(writer, this, message, start, end);
    this.finishOk(message, start, end);
  }

  respondWith<T>(sizeMax: number, write: MessageEncoder<T>, arg: T): void {
    if (this.ended) return;
    assert(!this.headersSent, 'a unary call has one answer');
    const { writer } = this.owner.http2;
    if (this.plan.gzip || !canWriteMessage(writer, this, sizeMax)) {
      const buffer = Buffer.allocUnsafe(sizeMax);
      const end = write(buffer, 0, arg);
      assert(end <= sizeMax, 'the answer is no larger than it said');
      this.respondLater(buffer.subarray(0, end));
      return;
    }
    if (!this.sendHeaders()) return;
    const bytes = writeEncoded(writer, this, sizeMax, write, arg);
    const { buffer, end } = writer.output;
    this.finishOk(buffer, end - bytes, end);
  }

  respondPulled(bytes: number, last: Buffer, next: () => Buffer): void {
    if (this.ended) return;
    assert(!this.headersSent, 'a unary call has one answer');
    if (this.refuseQueue() || !this.sendHeaders()) return;
    // A message that is not compressed may stand in any encoding.
    queuePrefix(this.owner.http2.writer, this, 0, bytes);
    this.countSent(bytes);
    const answer = new PulledAnswer(bytes, last, next);
    this.onDrain = (): void => this.pull(answer);
    this.pull(answer);
  }

  override fail(status: Status): void {
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
    if (this.plan.gzip || !canWriteMessage(writer, this, bytes)) {
      return this.sendQueued([Buffer.from(message.subarray(start, end))], bytes);
    }
    if (!this.sendHeaders()) return true;
    writeMessage(writer, this, message, start, end);
    this.countSent(bytes);
    this.owner.touch();
    return true;
  }

  sendParts(parts: readonly Buffer[]): boolean {
    if (this.ended) return true;
    let bytes = 0;
    for (const part of parts) bytes += part.length;
    const { writer } = this.owner.http2;
    if (this.plan.gzip || !canWriteMessage(writer, this, bytes)) return this.sendQueued(parts, bytes);
    if (!this.sendHeaders()) return true;
    writeParts(writer, this, parts, bytes);
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
    if (this.refuseQueue() || !this.sendHeaders()) return true;
    queueParts(this.owner.http2.writer, this, parts, bytes, this.plan.gzip);
    this.countSent(bytes);
    this.owner.touch();
    if (this.pendingBytes < this.owner.limits.streamHighWaterBytes) return true;
    this.wantsWritable = true;
    return false;
  }

  /** Takes as much of a pulled answer as may wait, and the end behind its last part. */
  private pull(answer: PulledAnswer): void {
    const { owner } = this;
    const complete = answer.pull(this, owner.http2.writer, owner.limits.streamHighWaterBytes);
    owner.touch();
    if (this.ended) return;
    if (!complete) {
      this.wantsWritable = true;
      return;
    }
    this.noteSlow(answer.last, 0, answer.last.length, answer.bytes);
    this.end();
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
    if (!this.owner.http2.writer.end(this, trailers)) this.owner.http2.resetStream(this, ErrorCode.internalError);
    if (this.onEnd !== null) this.tellEnd();
  }

  /** Once, behind everything that the end does here: what it calls may end other calls. */
  private tellEnd(): void {
    const { onEnd } = this;
    this.onEnd = null;
    onEnd?.();
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
    this.dropInput();
    this.request = null;
    // What waits still goes out, but its owner is done with it: nothing is asked of it any more, be it a part of a pulled answer.
    this.onDrain = null;
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
    this.tellEnd();
  }

  // --- the stream's events ---

  override onOpen(): void {
    const { owner } = this;
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

  override onReset(): void {
    if (this.ended) return;
    this.noteSlow(null, 0, 0);
    this.finish(StatusCode.canceled);
    this.tellEnd();
  }

  override onWritable(): void {
    this.onDrain?.();
  }

  timerFired(): void {
    this.timer = null;
    this.abort(StatusCode.deadlineExceeded, ErrorCode.cancel);
  }

  // --- the request ---

  protected override deliver(buffer: Buffer, start: number, end: number): void {
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

  protected override inputEnded(): void {
    if (this.method.stream !== null) this.method.stream.halfClose(this);
  }

  private start(): void {
    this.started = true;
    this.owner.observer.started(this.method, this);
  }

  /** False when the gate refuses the call, which has failed then. */
  private passes(): boolean {
    const { gate, demanding } = this.owner;
    const closed = gate.methodRefusal(this.method.path);
    if (closed === null && this.plan.demands === 0) return true;
    const refusal = closed ?? gate.refusal(this.plan.demands);
    if (refusal !== null) this.fail(refusal);
    else if (this.method.stream !== null) demanding.add(this);
    return refusal === null;
  }

  /** For an open stream: the gate is asked again. */
  endIfRefused(): void {
    const refusal = this.owner.gate.refusal(this.plan.demands);
    if (refusal !== null) this.fail(refusal);
  }
}
