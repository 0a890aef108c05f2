// The HTTP endpoints of the process (/health, /metrics, /version, ...), and how an HTTP/2 request that is no gRPC comes to them.

import { Admin } from '../admin/admin.ts';
import { memberSource } from '../admin/member-source.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { etcdVersion } from '../config/version.ts';
import type { HttpHandler } from '../grpc/http-exchange.ts';
import { systemClock } from '../io/clock.ts';
import type { Member } from '../server/member.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Metrics } from '../telemetry/metrics.ts';

export function newAdmin(config: ServerConfig, logger: Logger, metrics: Metrics, member: Member): Admin {
  return new Admin({
    source: memberSource({
      member,
      etcdVersion,
      metricsText: () => metrics.text(),
      setTimer: (delayMs, callback) => systemClock.setTimer(delayMs, callback),
    }),
    metrics,
    logger,
    access: { cors: config.cors, hostWhitelist: config.hostWhitelist },
    requestTimeoutMs: member.requestTimeoutMs,
  });
}

/** For HTTP/2 requests that are no gRPC: the same endpoints as HTTP/1.1's. */
export function http2Endpoints(admin: Admin): HttpHandler {
  return (request, _body, respond) => {
    const { method, path, headers } = request;
    const fields = { host: headers['host'] ?? '', origin: headers['origin'] ?? '', secure: false };
    void admin.handle({ method, target: path, ...fields }).then((answer) => {
      respond(answer.status, answer.headers, Buffer.from(answer.body));
    });
  };
}
