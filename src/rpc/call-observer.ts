// Where the engine's measurements of calls become etcd's metrics and its line about slow calls. On the hot path: counters are found by
// number, and no label is built.

import type { CallObserver } from '../grpc/observer.ts';
import type { Router } from '../grpc/router.ts';
import { StatusCode } from '../grpc/status.ts';
import { grpcMethodIndex } from '../telemetry/grpc-methods.ts';
import type { ClientVersionCounter, GrpcMetrics, NetworkMetrics } from '../telemetry/member-metrics.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { CLIENT_VERSION, isVersionText } from './interceptor.ts';
import type { RequestStats } from './request-stats.ts';

/** `recentMs`: the clock as it was read last. */
export function callObserver(
  metrics: Metrics,
  router: Router,
  stats: RequestStats,
  recentMs: () => number,
): CallObserver {
  const { grpc, network } = metrics;
  // Requests of one client follow each other: most have the version of the one before.
  let lastVersion = '';
  let lastCounter: ClientVersionCounter | null = null;
  const countVersion = (version: string, isUnary: boolean): void => {
    if (version !== lastVersion) {
      lastVersion = version;
      // What the interceptor refuses is not counted.
      lastCounter = isVersionText(version) ? network.clientVersion(Buffer.from(version, 'latin1').toString()) : null;
    }
    lastCounter?.count(isUnary);
  };
  // The metrics' place of each method of the router, filled once all methods are registered.
  const indexes: number[] = [];
  const indexOf = (index: number): number => {
    if (indexes.length === 0) indexes.push(...router.methods().map(({ path }) => grpcMethodIndex(path)));
    return indexes[index]!;
  };
  return {
    wantsDuration: grpc.handling !== null,
    slowMs: stats.slowMs,
    recentMs,
    slow: (call, durationMs, request, answer) => stats.tell(call, durationMs, request, answer),
    started: (method, call) => {
      grpc.started[indexOf(method.index)]!++;
      countVersion(call.metadata(CLIENT_VERSION) ?? 'unknown', method.kind === 'unary');
    },
    received: (method) => grpc.received[indexOf(method.index)]!++,
    sent: (method) => grpc.sent[indexOf(method.index)]!++,
    handled: (method, code, durationMs) => {
      const index = indexOf(method.index);
      grpc.handled(index, code);
      if (method.kind === 'bidi') countStreamEnd(network, grpc, index, code, method.name);
      // etcd's interceptor counts the answer of a unary call even when it is an error.
      else if (code !== 0 && method.kind === 'unary') grpc.sent[index]!++;
      grpc.handling?.[index]?.observe(durationMs / 1000);
    },
    receivedBytes: (bytes) => {
      network.clientReceivedBytes += bytes;
    },
    sentBytes: (bytes) => {
      network.clientSentBytes += bytes;
    },
  };
}

/** In etcd the receive that finds a stream's end counts as one, but none follows where the server has ended it. */
function countStreamEnd(network: NetworkMetrics, grpc: GrpcMetrics, index: number, code: number, name: string): void {
  const { ok, canceled, deadlineExceeded, internal, resourceExhausted } = StatusCode;
  // Of these two a message that does not parse or is too large.
  const isReceiveFailure = code === internal || code === resourceExhausted;
  if (isReceiveFailure || code === ok || code === canceled || code === deadlineExceeded) grpc.received[index]!++;
  if (!isReceiveFailure) return;
  if (name === 'Watch') network.streamFailures.with('receive', 'watch').value++;
  else if (name === 'LeaseKeepAlive') network.streamFailures.with('receive', 'lease-keepalive').value++;
}
