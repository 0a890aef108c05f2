// One client's connection: HTTP/2 below, calls above. Owned by a transport's owner (io/listener.ts): it feeds `receive`,
// calls `flush` after it, `transportDrained` and `closed`. Outside of `receive` a connection that has output puts itself
// into the server's FlushQueue.
//
// The end of a connection, in order: GOAWAY written (an error, a drain, too many pings) → the transport is ended behind the
// output → after closeLingerMs it is destroyed → the owner calls `closed`.

import type { Http2Limits } from '../connection-limits.ts';
import type { Http2Application, Transport } from '../http2/application.ts';
import type { ChunkPool } from '../http2/chunk-pool.ts';
import { Http2Connection } from '../http2/connection.ts';
import type { MonotonicClock } from '../http2/flood-guard.ts';
import { ErrorCode } from '../http2/frame.ts';
import type { HeaderBlock } from '../http2/header-block.ts';
import type { RequestHead } from '../http2/request-head.ts';
import type { Http2Stream } from '../http2/stream.ts';
import { AssemblyGrants } from './assembly-grants.ts';
import type { ConnectionInfo } from './call.ts';
import { type CallGate, type CallPlan, planCall } from './call-plan.ts';
import type { Flushable } from './flush-queue.ts';
import { GrpcCall } from './grpc-call.ts';
import { HttpExchange } from './http-exchange.ts';
import { Keepalive, type KeepaliveOwner, PingPolicy } from './keepalive.ts';
import type { CallObserver } from './observer.ts';
import { RejectedCall } from './rejected-call.ts';
import { ResponseBlocks } from './response-blocks.ts';
import type { GrpcServer } from './server.ts';
import { Timer, type TimerOwner, type TimerWheel } from './timer-wheel.ts';

// grpc-go's payload of the ping between a drain's two GOAWAYs.
const drainPing: Buffer = Buffer.from([1, 6, 1, 8, 0, 3, 3, 9]);
const keepalivePing: Buffer = Buffer.alloc(8);

export class GrpcConnection implements Http2Application, KeepaliveOwner, Flushable, TimerOwner {
  readonly info: ConnectionInfo;
  readonly http2: Http2Connection;
  readonly limits: Http2Limits;
  readonly clock: MonotonicClock;
  readonly wheel: TimerWheel;
  readonly observer: CallObserver;
  readonly messageBytesMax: number;
  readonly blocks: ResponseBlocks = new ResponseBlocks();
  readonly grants: AssemblyGrants;
  readonly assemblyBytesMax: number;
  readonly messagePool: ChunkPool;
  /** Held by all calls' assemblies. */
  assemblyBytes = 0;
  /** Called once when little waits to be sent. */
  onRoom: (() => void) | null = null;
  /** Time of the turn: read once a chunk, not once a call. */
  nowMs: number;
  lastReadMs: number;
  private readonly server: GrpcServer;
  private readonly transport: Transport;
  private readonly pings: PingPolicy;
  private readonly keepalive: Keepalive;
  /** The second half of a drain, or the end of lingering. */
  private readonly timer: Timer = new Timer(this);
  private receiving = false;
  private queued = false;
  private gone = false;
  private draining = false;

  constructor(server: GrpcServer, transport: Transport, info: ConnectionInfo) {
    const { options } = server;
    this.server = server;
    this.transport = transport;
    this.info = info;
    this.limits = options.http2Limits;
    this.clock = options.clock;
    this.wheel = server.wheel;
    this.observer = options.observer;
    this.messageBytesMax = options.messageBytesMax;
    this.grants = new AssemblyGrants(options.limits.assemblyGrantBytes);
    this.assemblyBytesMax = options.limits.assemblyBytesMax;
    this.messagePool = server.messagePool;
    this.nowMs = this.clock.nowMs();
    this.lastReadMs = this.nowMs;
    this.pings = new PingPolicy(options.keepalive);
    this.keepalive = new Keepalive(options.keepalive, this, server.wheel);
    this.http2 = new Http2Connection({
      application: this,
      transport,
      clock: options.clock,
      limits: options.http2Limits,
      outputPool: server.outputPool,
      framePool: server.framePool,
      concurrentStreamsMax: options.concurrentStreamsMax,
    });
    this.touch();
  }

  // --- for the transport's owner ---

  receive(chunk: Buffer): void {
    if (this.gone) return;
    this.nowMs = this.clock.nowMs();
    this.lastReadMs = this.nowMs;
    this.receiving = true;
    this.http2.receive(chunk);
    this.receiving = false;
  }

  flush(): void {
    this.queued = false;
    if (this.gone) return;
    if (this.http2.flush()) this.touch();
    if (this.onRoom !== null && this.http2.writer.pendingBytes <= this.limits.roomBytes) this.tellRoom();
  }

  private tellRoom(): void {
    const { onRoom } = this;
    this.onRoom = null;
    onRoom?.();
  }

  /** True while the owner should not read from the socket: its peer does not read our answers. */
  get inputPaused(): boolean {
    return this.http2.inputPaused;
  }

  transportDrained(): void {
    if (this.gone) return;
    this.http2.transportDrained();
    this.flush();
  }

  /** The transport is closed, by whomever. Calls that are open are cancelled. */
  closed(): void {
    if (this.gone) return;
    this.gone = true;
    this.onRoom = null;
    this.keepalive.stop();
    this.wheel.cancel(this.timer);
    this.http2.closed();
    this.server.forget(this);
  }

  // --- for the server ---

  /** Graceful end, as grpc-go: GOAWAY with the largest id and a ping; its answer (or time) brings the final GOAWAY. */
  drain(debug: string): void {
    if (this.gone || this.draining || this.http2.isClosing) return;
    this.draining = true;
    this.http2.announceGoAway(false, debug);
    this.http2.writer.ping(drainPing, 0, false);
    this.wheel.set(this.timer, this.clock.nowMs() + this.server.options.limits.drainPingMs);
    this.touch();
  }

  destroy(): void {
    this.transport.destroy();
    this.closed();
  }

  // --- for calls ---

  get gate(): CallGate {
    return this.server.options.gate;
  }

  /** Open streams with demands: the server asks the gate about them again. */
  get demanding(): Set<GrpcCall> {
    return this.server.demanding;
  }

  /** Something was written: see to it that it is flushed. */
  touch(): void {
    if (this.receiving || this.queued || this.gone) return;
    this.queued = true;
    this.server.flushQueue.add(this);
  }

  /** Gives back the window of a stream whose bytes are consumed as they come. */
  replenish(stream: Http2Stream): void {
    const full = this.limits.streamWindowBytes;
    if (stream.receiveWindow * 2 < full) this.http2.grant(stream, full - stream.receiveWindow);
  }

  /** Writes a whole answer: a header block, and a body if there is one. */
  answerWhole(stream: Http2Stream, block: HeaderBlock, body: Buffer | null = null): void {
    this.touch();
    if (stream.closed) return;
    const { writer } = this.http2;
    const empty = body === null || body.length === 0;
    if (!writer.writeHeaders(stream, block, empty)) {
      this.http2.resetStream(stream, ErrorCode.internalError);
      return;
    }
    if (empty) return;
    if (this.http2.outputExhausted) {
      this.http2.fail(ErrorCode.enhanceYourCalm, 'answers are not read');
      return;
    }
    writer.queue(stream, body);
    writer.end(stream, null);
  }

  // --- for HTTP/2 ---

  openStream(id: number, head: RequestHead): Http2Stream {
    let plan = head.application as CallPlan | null;
    if (plan === null) {
      const { router, gate, onHttpRequest } = this.server.options;
      plan = planCall(head, router, gate, onHttpRequest !== null);
      head.application = plan;
    }
    if (plan.http) return new HttpExchange(id, head, this, this.server.options.onHttpRequest!);
    if (plan.rejection !== null) return new RejectedCall(id, head, plan, this);
    return new GrpcCall(id, head, plan, plan.method!, this);
  }

  pingReceived(): void {
    const answered = this.http2.writer.wroteResponse;
    this.http2.writer.wroteResponse = false;
    if (this.pings.allows(this.nowMs, answered, this.http2.streamCount)) return;
    this.http2.fail(ErrorCode.enhanceYourCalm, 'too_many_pings');
  }

  pingAcked(payload: Buffer, start: number): void {
    if (!this.draining || this.http2.isClosing) return;
    if (drainPing.compare(payload, start, start + 8) !== 0) return;
    this.wheel.cancel(this.timer);
    this.http2.announceGoAway(true, '');
  }

  closing(): void {
    this.keepalive.stop();
    this.wheel.set(this.timer, this.clock.nowMs() + this.limits.closeLingerMs);
    this.touch();
  }

  sendKeepalivePing(): void {
    this.http2.writer.ping(keepalivePing, 0, false);
    this.touch();
  }

  keepaliveTimedOut(): void {
    this.destroy();
  }

  timerFired(): void {
    if (this.http2.isClosing) {
      this.destroy();
    } else {
      this.http2.announceGoAway(true, '');
      this.touch();
    }
  }
}
