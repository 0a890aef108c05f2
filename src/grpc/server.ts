// What all connections of a server share: methods, bounds, timers, buffers, and the end of them all. No I/O: io/listener.ts
// brings transports in by `accept`, and the owner turns the clock by `tick`.

import { assert } from '../base/assert.ts';
import { type GrpcLimits, grpcLimits, type Http2Limits, http2Limits } from '../connection-limits.ts';
import type { Transport } from '../http2/application.ts';
import { ChunkPool } from '../http2/chunk-pool.ts';
import type { MonotonicClock } from '../http2/flood-guard.ts';
import { frameHeaderBytes } from '../http2/frame.ts';
import type { ConnectionInfo } from './call.ts';
import { type CallGate, openGate } from './call-plan.ts';
import { GrpcConnection } from './connection.ts';
import { FlushQueue } from './flush-queue.ts';
import type { GrpcCall } from './grpc-call.ts';
import type { HttpHandler } from './http-exchange.ts';
import { etcdKeepalive, type KeepaliveOptions } from './keepalive.ts';
import { messagePrefixBytes } from './message-assembly.ts';
import { type CallObserver, silentObserver } from './observer.ts';
import type { Router } from './router.ts';
import { TimerWheel } from './timer-wheel.ts';

export interface GrpcServerOptions {
  readonly router: Router;
  readonly clock: MonotonicClock;
  /** Runs a function once, soon (setImmediate). */
  readonly schedule: (run: () => void) => void;
  readonly observer: CallObserver;
  readonly gate: CallGate;
  /** Largest request message: --max-request-bytes and 512 KiB. */
  readonly messageBytesMax: number;
  /** --max-concurrent-streams. */
  readonly concurrentStreamsMax: number;
  readonly keepalive: KeepaliveOptions;
  /** Requests over HTTP/2 that are not gRPC; without it they get grpc-go's 415. */
  readonly onHttpRequest: HttpHandler | null;
  readonly limits: GrpcLimits;
  readonly http2Limits: Http2Limits;
}

/** etcd's defaults for everything that may be left out. */
export function grpcServerOptions(
  given: Pick<GrpcServerOptions, 'router' | 'clock' | 'schedule'> & Partial<GrpcServerOptions>,
): GrpcServerOptions {
  return {
    observer: silentObserver,
    gate: openGate,
    messageBytesMax: 1_572_864 + 512 * 1024,
    concurrentStreamsMax: 0xffffffff,
    keepalive: etcdKeepalive,
    onHttpRequest: null,
    limits: grpcLimits,
    http2Limits,
    ...given,
  };
}

export class GrpcServer {
  readonly options: GrpcServerOptions;
  readonly wheel: TimerWheel;
  readonly flushQueue: FlushQueue;
  readonly outputPool: ChunkPool;
  readonly framePool: ChunkPool;
  /** For large messages that come in many frames. */
  readonly messagePool: ChunkPool;
  /** Open streams with demands on the gate. */
  readonly demanding: Set<GrpcCall> = new Set();
  private readonly connections: Set<GrpcConnection> = new Set();
  /** Called when the last connection of a drain is gone. */
  private drained: (() => void) | null = null;

  constructor(options: GrpcServerOptions) {
    const { http2Limits: bounds } = options;
    assert(options.messageBytesMax > 0, 'requests have a size');
    this.options = options;
    this.wheel = new TimerWheel(options.limits.timerTickMs, options.clock.nowMs());
    this.flushQueue = new FlushQueue(options.schedule);
    this.outputPool = new ChunkPool(bounds.outputChunkBytes, bounds.chunkPoolCount);
    this.framePool = new ChunkPool(frameHeaderBytes + bounds.frameBytesMax, bounds.chunkPoolCount);
    const { pooledMessageBytes, messagePoolCount } = options.limits;
    this.messagePool = new ChunkPool(messagePrefixBytes + pooledMessageBytes, messagePoolCount);
  }

  get connectionCount(): number {
    return this.connections.size;
  }

  list(): IterableIterator<GrpcConnection> {
    return this.connections.values();
  }

  /** A transport whose peer is about to send the HTTP/2 preface. */
  accept(transport: Transport, info: ConnectionInfo): GrpcConnection {
    const connection = new GrpcConnection(this, transport, info);
    this.connections.add(connection);
    // Came in between the listener's close and now.
    if (this.drained !== null) connection.drain('graceful_stop');
    return connection;
  }

  /** To be called every limits.timerTickMs or so: deadlines, keepalive, lingering. */
  tick(): void {
    this.wheel.advance(this.options.clock.nowMs());
  }

  /** Ends the open streams whose demands the gate refuses by now. */
  endRefused(): void {
    for (const call of [...this.demanding]) call.endIfRefused();
  }

  /** Lets all calls finish, no new ones begin, and calls `done` when the last connection is gone. */
  drain(done: () => void): void {
    assert(this.drained === null, 'a server drains once');
    this.drained = done;
    for (const connection of [...this.connections]) connection.drain('graceful_stop');
    this.flushQueue.flushAll();
    if (this.connections.size === 0) done();
  }

  /** Cuts what is left: after a drain's grace, or at once. */
  destroy(): void {
    for (const connection of [...this.connections]) connection.destroy();
  }

  /** By a connection that is closed. */
  forget(connection: GrpcConnection): void {
    if (this.connections.delete(connection) && this.connections.size === 0) this.drained?.();
  }
}
