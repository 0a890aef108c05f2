// gRPC status codes and statuses as values. The texts of etcd's errors are src/rpc's; the ones of gRPC itself stand where
// they arise (call-plan.ts, call-input.ts), exactly as grpc-go writes them.

export const StatusCode = {
  ok: 0,
  canceled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  alreadyExists: 6,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  aborted: 10,
  outOfRange: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  dataLoss: 15,
  unauthenticated: 16,
} as const;
export type StatusCode = (typeof StatusCode)[keyof typeof StatusCode];

/** An error as a value. `message` may hold any characters. */
export interface Status {
  readonly code: StatusCode;
  readonly message: string;
}
