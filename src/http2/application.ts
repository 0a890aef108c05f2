// What an HTTP/2 connection stands between: the transport below it and the application above it. Interfaces only.

import type { Http2Limits } from '../connection-limits.ts';
import type { ChunkPool } from './chunk-pool.ts';
import type { MonotonicClock } from './flood-guard.ts';
import type { RequestHead } from './request-head.ts';
import type { Http2Stream } from './stream.ts';

/** Where the bytes go. Implemented over sockets in src/io, over arrays in tests. */
export interface Transport {
  /** Takes the buffers, in order. False when the kernel did not take all: `transportDrained` will follow. */
  write(chunks: Buffer[]): boolean;
  /** Bytes taken and not yet written. At 0 no view of any chunk is held. */
  readonly pendingBytes: number;
  /** Closes after what was written. */
  end(): void;
  destroy(): void;
}

export interface Http2Application {
  /** A valid request. The stream is registered when this returns, then its onOpen is called. */
  openStream(id: number, head: RequestHead): Http2Stream;
  /** A PING that wants an answer has come (and got it). */
  pingReceived(): void;
  pingAcked(payload: Buffer, start: number): void;
  /** GOAWAY was written and nothing more will be read: the transport is ended at the next flush. */
  closing(): void;
}

export interface Http2ConnectionOptions {
  readonly application: Http2Application;
  readonly transport: Transport;
  readonly clock: MonotonicClock;
  readonly limits: Http2Limits;
  /** Chunks of limits.outputChunkBytes, shared by all connections. */
  readonly outputPool: ChunkPool;
  /** Chunks that hold one frame, shared by all connections. */
  readonly framePool: ChunkPool;
  /** Announced and enforced; limits.streamsMax is enforced without being announced. */
  readonly concurrentStreamsMax: number;
}
