// Bounds of clients' connections: HTTP/2, gRPC on it, HTTP/1.1. Beside limits.ts, under the same rules.

import { assert } from './base/assert.ts';

// --- http2 ---
export interface Http2Limits {
  readonly frameBytesMax: number;
  readonly headerTableBytes: number;
  readonly encoderTableBytesMax: number;
  readonly headerBlockBytesMax: number;
  readonly headerListBytesMax: number;
  readonly continuationFramesMax: number;
  readonly cachedBlockBytesMax: number;
  readonly streamsMax: number;
  readonly streamWindowBytes: number;
  readonly connectionWindowBytes: number;
  readonly outputChunkBytes: number;
  readonly outputPumpBytes: number;
  readonly outputDirectBytes: number;
  readonly outputPauseBytes: number;
  readonly sendQuantumBytes: number;
  readonly flushTurnBytes: number;
  readonly streamHighWaterBytes: number;
  readonly streamLowWaterBytes: number;
  readonly pendingRefuseBytes: number;
  readonly roomBytes: number;
  readonly pendingCloseBytes: number;
  readonly chunkPoolCount: number;
  readonly floodBurst: number;
  readonly floodPerSecond: number;
  readonly floodRefund: number;
  readonly floodSettingsCost: number;
  readonly floodStreamsChanged: number;
  readonly resetBurst: number;
  readonly resetPerSecond: number;
  readonly violationBurst: number;
  readonly violationPerSecond: number;
  readonly closeLingerMs: number;
}
export const http2Limits: Http2Limits = {
  /** SETTINGS_MAX_FRAME_SIZE: RFC 9113's smallest and grpc's only value; more would only grow what a partial frame holds. */
  frameBytesMax: 16_384,
  /** SETTINGS_HEADER_TABLE_SIZE: the default; a gRPC client's fields take some 500 bytes of it. */
  headerTableBytes: 4_096,
  /** Our encoder uses no more of the peer's table: two fields settle in it (grpc/response-blocks.ts). */
  encoderTableBytesMax: 4_096,
  /** Encoded header block over HEADERS and CONTINUATION: four frames; clients send 100 B, with a JWT 2 KiB. Beyond: GOAWAY. */
  headerBlockBytesMax: 65_536,
  /** Decoded list by RFC 9113's count (name + value + 32): stops an HPACK bomb (1 byte may name a 4 KiB field). */
  headerListBytesMax: 65_536,
  /** A block of the size above needs four; empty ones cost nothing to send (CONTINUATION flood, CVE-2024-27316). */
  continuationFramesMax: 16,
  /** Blocks up to this are remembered with their decoding; a settled gRPC client's have 10 to 40 bytes. */
  cachedBlockBytesMax: 128,
  /** Open streams of a connection when no --max-concurrent-streams is given: some 0.5 KB each, so 32 MB. */
  streamsMax: 65_536,
  /** Receive window of a stream, the protocol's default: most requests fit, bigger messages get a grant (grpc/assembly-grants.ts). */
  streamWindowBytes: 65_535,
  /** Receive window of a connection: returned when half is used, whatever the streams do, so it only spans a round trip. */
  connectionWindowBytes: 4 * 1024 * 1024,
  /** Output is written into chunks of this size, shared by all connections: one socket write of a busy turn. */
  outputChunkBytes: 65_536,
  /** Queued (large) data enters the output only up to here, so that a small frame never waits behind more. */
  outputPumpBytes: 256 * 1024,
  /** Small messages may pass the queued data up to here; then they queue too. */
  outputDirectBytes: 1024 * 1024,
  /** Output that the kernel did not take, beyond which we stop reading from the peer (slow reader, PING flood). */
  outputPauseBytes: 4 * 1024 * 1024,
  /** Bytes of one stream in a round of the round robin: one frame. */
  sendQuantumBytes: 16_384,
  /** Bytes that one flush of one connection may write before the others have their turn. */
  flushTurnBytes: 1024 * 1024,
  /** A stream's unsent bytes at which send() answers false, and below which onDrain is called. */
  streamHighWaterBytes: 64 * 1024,
  streamLowWaterBytes: 16 * 1024,
  /** Unsent bytes of all streams (their reader is slow or gives no window) at which new streams are refused. */
  pendingRefuseBytes: 64 * 1024 * 1024,
  /** So little waits that those who have waited for it begin again (grpc/call.ts, whenRoom). */
  roomBytes: 40 * 1024 * 1024,
  /** ... and at which a further answer closes the connection instead of being queued. */
  pendingCloseBytes: 256 * 1024 * 1024,
  /** Output chunks and partial-frame buffers kept for reuse: enough for the connections of one turn. */
  chunkPoolCount: 64,
  /** Frames that carry nothing (PING, SETTINGS, WINDOW_UPDATE, PRIORITY, empty DATA, unknown): burst, refill, ... */
  floodBurst: 10_000,
  floodPerSecond: 1_000,
  /** ... and what each request or DATA frame gives back: grpc-go sends two WINDOW_UPDATEs and a PING for one. */
  floodRefund: 4,
  /** A SETTINGS frame costs so many of them, and one more for each so many open streams, when it changes their windows. */
  floodSettingsCost: 20,
  floodStreamsChanged: 20,
  /** Streams that the client resets before they are answered (rapid reset, CVE-2023-44487). Answered ones give back. A client
   *  whose 1000 calls all run into their deadline stays below; each costs us 3 us. */
  resetBurst: 2_000,
  resetPerSecond: 500,
  /** Streams that we reset because of the client's fault (MadeYouReset, CVE-2025-8671). Real clients cause none. */
  violationBurst: 100,
  violationPerSecond: 10,
  /** After GOAWAY the socket is ended; a peer that does not read is cut after this (grpc-go's one second). */
  closeLingerMs: 1_000,
};

// --- grpc ---
export interface GrpcLimits {
  readonly assemblyGrantBytes: number;
  readonly assemblyBytesMax: number;
  readonly pooledMessageBytes: number;
  readonly messagePoolCount: number;
  readonly httpBodyBytesMax: number;
  readonly statusMessageBytesMax: number;
  readonly timerTickMs: number;
  readonly drainPingMs: number;
  readonly sniffTimeoutMs: number;
  readonly connectionsMax: number;
  readonly listenBacklog: number;
}
export const grpcLimits: GrpcLimits = {
  /** Window beyond the default that may be granted at once to messages of a connection that did not fit in it. */
  assemblyGrantBytes: 64 * 1024 * 1024,
  /** Bytes of incomplete messages that a connection may hold; beyond, the stream that asks for more fails. */
  assemblyBytesMax: 128 * 1024 * 1024,
  /**
   * Buffers kept for messages that come in many frames: as large as what --max-request-bytes' default lets through, and as many as
   * messages of the largest size are under way at once in common use.
   */
  pooledMessageBytes: 2 * 1024 * 1024,
  messagePoolCount: 4,
  /** Body of a request that is not gRPC (JSON gateway): as large as etcd's gateway takes, its gRPC message bound. */
  httpBodyBytesMax: 2 * 1024 * 1024,
  /** A grpc-message is cut here: clients refuse header lists above 8 to 16 KiB. */
  statusMessageBytesMax: 4_096,
  /** Deadlines and keepalive are looked at this often: clients watch their own deadlines to the millisecond. */
  timerTickMs: 25,
  /** A draining connection's second GOAWAY waits this long for the PING's answer (grpc-go). */
  drainPingMs: 5_000,
  /** A connection must show by then which protocol it speaks (grpc-go's connection timeout). */
  sniffTimeoutMs: 120_000,
  /** Connections of clients, where there are descriptors for them (io/connection-quota.ts); beyond, new ones are closed at once. */
  connectionsMax: 60_000,
  /** Connections that the kernel holds while the loop is busy: as many as it allows (somaxconn cuts it), as Go asks for. */
  listenBacklog: 65_535,
};

// --- http/1.1 ---

/** Request line and headers of HTTP/1.1, held for each connection. Go allows 1 MiB; ours are probes, scrapes, JSON with a token. */
export const http1HeaderBytesMax: number = 64 * 1024;
/** Time for a request's headers to arrive, etcd's ReadHeaderTimeout. */
export const http1HeadersTimeoutMs: number = 300_000;
/** An idle keep-alive connection is closed after this; longer than any usual scrape or probe period, so that a client's
 * request rarely meets a connection that is just closing. */
export const http1IdleTimeoutMs: number = 180_000;
/** A body that a GET endpoint is sent: read and dropped up to here, then the connection ends. */
export const http1IgnoredBodyBytesMax: number = 64 * 1024;

// --- relations ---
assert(http2Limits.outputPumpBytes < http2Limits.outputDirectBytes, 'small answers pass the queued ones');
assert(http2Limits.outputDirectBytes < http2Limits.outputPauseBytes, 'output is queued before input is paused');
assert(http2Limits.streamLowWaterBytes < http2Limits.streamHighWaterBytes, 'a stream drains before it fills');
assert(http2Limits.pendingRefuseBytes < http2Limits.pendingCloseBytes, 'streams are refused before it is closed');
assert(http2Limits.sendQuantumBytes <= http2Limits.outputChunkBytes, 'a frame fits in an output chunk');
assert(http2Limits.frameBytesMax <= http2Limits.headerBlockBytesMax, 'a header block may fill a frame');
assert(grpcLimits.assemblyGrantBytes <= grpcLimits.assemblyBytesMax, 'what is granted may be held');
