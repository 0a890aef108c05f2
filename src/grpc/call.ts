// A call as its handler sees it: the interface between the gRPC engine and src/rpc. The implementation is grpc-call.ts.

import type { MethodEntry } from './router.ts';
import type { Status } from './status.ts';

/** The client's side of a TLS connection. */
export interface TlsInfo {
  /** Common name of a verified client certificate, or null. */
  readonly commonName: string | null;
}

export interface ConnectionInfo {
  /** Counts the connections of this process. */
  readonly id: number;
  /** `host:port`, or `@` for a unix socket. */
  readonly remoteAddress: string;
  readonly localAddress: string;
  readonly tls: TlsInfo | null;
}

export interface ServerCall {
  readonly method: MethodEntry;
  readonly connection: ConnectionInfo;
  /** First value of an ASCII header, by its lower-case name. */
  metadata(name: string): string | undefined;
  /** First value of a header whose name ends in `-bin`. */
  metadataBytes(name: string): Buffer | undefined;
  /** On the injected monotonic clock; Infinity without one. */
  readonly deadlineMs: number;
  /** For the handler's own state of this call. */
  context: unknown;
  /** Unary, of a call that is answered in a later turn: the request's bytes, which must not change until it is. Lines about slow
   * calls show them. */
  keepRequest(message: Buffer, start: number, end: number): void;

  /** Unary: the answer message[start, end) and OK. The bytes are copied before this returns. */
  respond(message: Buffer, start: number, end: number): void;
  /**
   * Unary: the answer is written by `write` at `offset` of a buffer with room for `sizeMax` bytes; it returns the offset
   * behind what it wrote and touches no call. It is not called when the call is dead.
   */
  respondWith<T>(sizeMax: number, write: (out: Buffer, offset: number, arg: T) => number, arg: T): void;
  /**
   * Unary, a large answer of `bytes` bytes: `next` gives its parts in order, each of which is kept until it is sent and must not
   * change. It is called when the client has taken most of what came before, so that the connection does not hold the answer;
   * not again once the call has ended, be it by `fail`. `last` is the last part. Never compressed: that would take a turn for all of it.
   */
  respondPulled(bytes: number, last: Buffer, next: () => Buffer): void;
  /** Ends the call with an error: trailers-only when nothing was sent, else trailers behind what was. */
  fail(status: Status): void;

  /** Streams: one message, copied. False when this stream's unsent bytes passed their high-water mark: await onDrain. */
  send(message: Buffer, start: number, end: number): boolean;
  /** Streams: one message out of several buffers, which are kept until they are sent and must not change. */
  sendParts(parts: readonly Buffer[]): boolean;
  /** Streams: OK, behind what was sent. */
  end(): void;
  /** Bytes of this call that wait for the client's window or the socket. */
  readonly bufferedBytes: number;
  /** The same of all calls of its connection. */
  readonly connectionBufferedBytes: number;
  /** Calls back once, when few bytes of the connection wait any more (http2Limits.roomBytes); not when it is lost. One at a time: a
   * later one takes the place of an earlier. */
  whenRoom(done: () => void): void;
  /** Called when bufferedBytes fell below the low-water mark after send returned false; not once the call has ended. */
  onDrain: (() => void) | null;
  /** Called once when the call has ended, however it did: answered, failed by its handler or by what came, reset, its deadline, its
   * connection lost. Sends do nothing afterwards. What a handler holds for a call it lets go of here. */
  onEnd: (() => void) | null;
  /** Answered, failed or cancelled. */
  readonly ended: boolean;
  /** Client streams: no more messages are delivered and no window is granted until resumeReceive. */
  pauseReceive(): void;
  resumeReceive(): void;
}
