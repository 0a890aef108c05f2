// How a call fails, with the text that Go's clientv3 gives: etcd's own message alone when it is one of etcd's, the context's
// words when the caller's deadline or close ended the call, and grpc's "rpc error: code = … desc = …" for the rest.

import { etcdErrors } from '../proto/rpctypes.ts';
import { grpcCodeNames } from '../telemetry/grpc-methods.ts';

export const StatusCode = {
  canceled: 1,
  unknown: 2,
  deadlineExceeded: 4,
  notFound: 5,
  resourceExhausted: 8,
  failedPrecondition: 9,
  outOfRange: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
} as const;

const etcdMessages: ReadonlySet<string> = new Set(Object.values(etcdErrors).map((error) => error.message));

/** An answer other than OK, or none. `message` is what a program prints. */
export class EtcdClientError extends Error {
  override readonly name: string = 'EtcdClientError';
  /** grpc's status code. */
  readonly code: number;
  /** The status message alone. */
  readonly details: string;
  constructor(code: number, details: string, message: string = statusText(code, details)) {
    super(message);
    this.code = code;
    this.details = details;
  }
  /** The whole status, also where `message` is shorter: for logs. */
  get status(): string {
    return rpcErrorText(this.code, this.details);
  }
  is(error: { readonly message: string }): boolean {
    return this.details === error.message;
  }
}

function rpcErrorText(code: number, details: string): string {
  return `rpc error: code = ${grpcCodeNames[code] ?? `Code(${code})`} desc = ${details}`;
}

function statusText(code: number, details: string): string {
  return etcdMessages.has(details) ? details : rpcErrorText(code, details);
}

export function isEtcdMessage(details: string): boolean {
  return etcdMessages.has(details);
}

/** The caller's own deadline has passed. `details` is what the transport knows about the reason. */
export function deadlineError(details = 'context deadline exceeded'): EtcdClientError {
  return new EtcdClientError(StatusCode.deadlineExceeded, details, 'context deadline exceeded');
}

/** The caller has closed what the call ran on. */
export function canceledError(): EtcdClientError {
  return new EtcdClientError(StatusCode.canceled, 'context canceled', 'context canceled');
}
