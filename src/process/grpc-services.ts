// The gRPC server of the process and its services, as the configuration wants them.

import type { ServerConfig } from '../config/server-config.ts';
import { etcdVersion } from '../config/version.ts';
import type { HttpHandler } from '../grpc/http-exchange.ts';
import type { Router } from '../grpc/router.ts';
import { GrpcServer, grpcServerOptions } from '../grpc/server.ts';
import { evenWallMs, lastReading, systemClock } from '../io/clock.ts';
import { systemRandom } from '../io/random.ts';
import { bigReadLimits } from '../limits.ts';
import { registerAuth } from '../rpc/auth.ts';
import { BigReads } from '../rpc/big-reads.ts';
import { callObserver } from '../rpc/call-observer.ts';
import { registerCluster } from '../rpc/cluster.ts';
import { registerHealth } from '../rpc/health.ts';
import type { Interceptor } from '../rpc/interceptor.ts';
import { registerKv } from '../rpc/kv.ts';
import { registerLease } from '../rpc/lease.ts';
import { registerMaintenance } from '../rpc/maintenance.ts';
import { RequestStats } from '../rpc/request-stats.ts';
import { registerWatch } from '../rpc/watch.ts';
import type { Member } from '../server/member.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Metrics } from '../telemetry/metrics.ts';

/** What grpc-go lets a message exceed --max-request-bytes by, as etcd sets it. */
const GRPC_OVERHEAD_BYTES: number = 512 * 1024;

/** Routes lead to services once registerServices() was called. */
export function newGrpcServer(
  config: ServerConfig,
  logger: Logger,
  router: Router,
  metrics: Metrics,
  interceptor: Interceptor,
  onHttpRequest: HttpHandler,
): GrpcServer {
  const stats = new RequestStats(logger, config.warningUnaryRequestDurationMs, evenWallMs);
  return new GrpcServer(
    grpcServerOptions({
      router,
      clock: systemClock,
      schedule: setImmediate,
      observer: callObserver(metrics, router, stats, lastReading),
      gate: interceptor,
      messageBytesMax: config.requestBytesMax + GRPC_OVERHEAD_BYTES,
      concurrentStreamsMax: config.concurrentStreamsMax,
      keepalive: {
        // grpc-go's own default where the flag is 0.
        minTimeMs: config.keepaliveMinTimeMs > 0 ? config.keepaliveMinTimeMs : 300_000,
        intervalMs: config.keepaliveIntervalMs,
        timeoutMs: config.keepaliveTimeoutMs,
        permitWithoutStream: false,
      },
      onHttpRequest,
    }),
  );
}

export function registerServices(router: Router, member: Member, config: ServerConfig, metrics: Metrics): void {
  const setTimer = (delayMs: number, callback: () => void): unknown => systemClock.setTimer(delayMs, callback);
  const { header, nowMs } = member.parts;
  const bigReads = new BigReads(bigReadLimits, header, { schedule: setImmediate, setTimer, nowMs });
  registerKv(router, member, {
    bigReads,
    txnOpsMax: config.txnOpsMax,
    requestBytesMax: config.requestBytesMax,
    afterCompaction: (revision, done) => member.afterCompaction(revision, done),
  });
  const watchStreams = { streams: 0 };
  metrics.onScrape(() => {
    metrics.mvcc.watchStreams = watchStreams.streams;
  });
  registerWatch(router, member, {
    fragmentBytes: config.requestBytesMax,
    progressIntervalMs: config.watchProgressNotifyIntervalMs,
    random: () => systemRandom.float(),
    setTimer,
    counters: watchStreams,
    metrics: metrics.watch,
  });
  registerHealth(router, member);
  registerLease(router, member, bigReads);
  registerCluster(router, member);
  registerAuth(router, member);
  registerMaintenance(router, member, { etcdVersion, quotaBytes: config.quotaBytes ?? -1, setTimer });
}
