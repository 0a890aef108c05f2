// What a server tells its metrics. Called on the hot path: an implementation adds to typed arrays by `method.index`, and a
// scrape reads them (telemetry).

import type { ServerCall } from './call.ts';
import type { MethodEntry } from './router.ts';
import type { StatusCode } from './status.ts';

export interface CallObserver {
  /** Whether `handled` gets a true duration: reading the clock for each call has its price. */
  readonly wantsDuration: boolean;
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
  started: (): void => {},
  received: (): void => {},
  sent: (): void => {},
  handled: (): void => {},
  receivedBytes: (): void => {},
  sentBytes: (): void => {},
};
