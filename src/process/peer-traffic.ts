// What the process speaks to other members by: connections of one dialer, for raft's own traffic and for requests beside it.

import { peerDialBaseMs } from '../cluster-limits.ts';
import { urlTexts } from '../config/member-url.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { etcdVersion } from '../config/version.ts';
import { systemClock } from '../io/clock.ts';
import { PeerClient } from '../io/peer-client.ts';
import { PeerDialer } from '../io/peer-dialer.ts';
import type { PeerExchange } from '../io/peer-exchange.ts';
import { HttpTransport } from '../peer/http-transport.ts';
import type { PeerEvents } from '../peer/peer-transport.ts';
import { memberLocalAddress } from '../server/local-address.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Metrics } from '../telemetry/metrics.ts';

export class PeerTraffic {
  /** Requests beside raft's traffic: members, versions, leases, hashes. */
  readonly requests: PeerClient;
  private readonly config: ServerConfig;
  private readonly logger: Logger;
  private readonly metrics: Metrics;
  private readonly dialer: PeerDialer;
  /** Null until the member knows its ids. */
  private transport: HttpTransport | null = null;

  constructor(config: ServerConfig, logger: Logger, metrics: Metrics) {
    this.config = config;
    this.logger = logger;
    this.metrics = metrics;
    this.dialer = new PeerDialer(peerDialBaseMs + config.electionTimeoutMs, memberLocalAddress(config, logger));
    this.requests = new PeerClient({ dialer: this.dialer });
  }

  startTransport(events: PeerEvents, ids: { readonly id: bigint; readonly clusterId: bigint }): HttpTransport {
    const { config, logger, metrics, dialer } = this;
    const transport = new HttpTransport({
      localId: ids.id,
      clusterId: ids.clusterId,
      localUrls: urlTexts(config.advertisePeerUrls),
      serverVersion: etcdVersion,
      dialer,
      clock: systemClock,
      schedule: setImmediate,
      logger,
      network: metrics.network,
      timings: {
        readTimeoutMs: config.raftReadTimeoutMs,
        writeTimeoutMs: config.raftWriteTimeoutMs,
        heartbeatMs: config.heartbeatIntervalMs,
        electionMs: config.electionTimeoutMs,
      },
    });
    transport.start(events);
    this.transport = transport;
    return transport;
  }

  /** A request of another member for raft's traffic. */
  handle(exchange: PeerExchange): void {
    this.transport?.handle(exchange);
  }
}
