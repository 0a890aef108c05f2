// What a server tells its metrics. Called on the hot path: an implementation adds to typed arrays by `method.index`, and a
// scrape reads them (telemetry).

import type { ServerCall } from './call.ts';
import type { MethodEntry } from './router.ts';
import type { StatusCode } from './status.ts';

/** Bytes of a message, valid during the call that they are handed to. */
export interface MessageBytes {
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
  /** Of a message that is not in one buffer, of which this is the last part: all its bytes. */
  readonly totalBytes?: number;
}

export interface CallObserver {
  /** Whether `handled` gets a true duration: reading the clock for each call has its price. */
  readonly wantsDuration: boolean;
  /** Unary calls that took longer are told to `slow`: Infinity for none, below 0 for all. */
  readonly slowMs: number;
  /** The server's clock as somebody read it last, at most a timer's tick ago: what slowMs is held against. */
  recentMs(): number;
  /**
   * A unary call over slowMs, before its answer is counted. `request` null: its handler did not keep it. `answer` null: it
   * ended without one.
   */
  slow(call: ServerCall, durationMs: number, request: MessageBytes | null, answer: MessageBytes | null): void;
  /** `call` for its metadata alone: its handler has not seen it. */
  started(method: MethodEntry, call: ServerCall): void;
  /** A message of the client was handed to the handler. */
  received(method: MethodEntry): void;
  sent(method: MethodEntry): void;
  /** The call is over for the handler: answered, cancelled, past its deadline. 0 ms unless wantsDuration. */
  handled(method: MethodEntry, code: StatusCode, durationMs: number): void;
  /** Message bytes, without their prefix. */
  receivedBytes(bytes: number): void;
  sentBytes(bytes: number): void;
}

export const silentObserver: CallObserver = {
  wantsDuration: false,
  slowMs: Number.POSITIVE_INFINITY,
  recentMs: (): number => 0,
  slow: (): void => {},
  started: (): void => {},
  received: (): void => {},
  sent: (): void => {},
  handled: (): void => {},
  receivedBytes: (): void => {},
  sentBytes: (): void => {},
};
