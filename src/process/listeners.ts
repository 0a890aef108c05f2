// The addresses that the process listens on: bound in etcd's order before anything else, and served in two steps, since other members
// and monitors are answered while this member still looks for a leader, and clients only when it has one. Who answers is given
// (process/http-endpoints.ts, process/grpc-services.ts).

import type { Admin } from '../admin/admin.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { peerBodyBytesMax } from '../cluster-limits.ts';
import { type MemberUrl, urlTexts } from '../config/member-url.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { http1IgnoredBodyBytesMax } from '../connection-limits.ts';
import type { GrpcServer } from '../grpc/server.ts';
import { ConnectionQuota, connectionShares, descriptorLimit } from '../io/connection-quota.ts';
import { type Http1Handler, type Http1Options, Http1Server } from '../io/http1.ts';
import { type ConnectionTakers, type ListenAddress, Listener } from '../io/listener.ts';
import type { PeerExchange } from '../io/peer-exchange.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { FatalExit } from './fatal-exit.ts';

const CALLER = 'process/listeners.ts';

interface BoundListeners {
  readonly peer: Listener;
  readonly client: Listener;
  /** Of --listen-client-http-urls; null without them: HTTP is served with gRPC. */
  readonly clientHttp: Listener | null;
  readonly metrics: Listener;
}

export class Listeners {
  private readonly config: ServerConfig;
  private readonly logger: Logger;
  private readonly fatalExit: FatalExit;
  private readonly bound: BoundListeners;
  private connectionId = 0;

  private constructor(config: ServerConfig, logger: Logger, fatalExit: FatalExit, bound: BoundListeners) {
    this.config = config;
    this.logger = logger;
    this.fatalExit = fatalExit;
    this.bound = bound;
  }

  /** All of them or none. */
  static async bind(config: ServerConfig, logger: Logger, fatalExit: FatalExit): Promise<Listeners> {
    const bound: Listener[] = [];
    const limit = descriptorLimit();
    const shares = connectionShares(limit);
    const quotaOf = (traffic: keyof typeof shares): ConnectionQuota => {
      const onRefused = (open: number): void => {
        const fields = { traffic, open, 'descriptor-limit': limit };
        logger.warn(CALLER, 'too many open connections; closing some', fields);
      };
      return new ConnectionQuota(shares[traffic], onRefused, traffic === 'peers' ? 'membership' : 'protocol');
    };
    const bind = async (urls: readonly MemberUrl[], quota: ConnectionQuota): Promise<Listener> => {
      try {
        // etcd takes an address that is named twice for one.
        const addresses = new Map(urls.map((url) => [JSON.stringify(addressOf(url)), addressOf(url)]));
        const listener = await Listener.bind([...addresses.values()], quota);
        bound.push(listener);
        return listener;
      } catch (error) {
        for (const listener of bound) void listener.close();
        throw listenFailure(error);
      }
    };
    logger.info(CALLER, 'configuring peer listeners', { 'listen-peer-urls': urlTexts(config.listenPeerUrls) });
    const peer = await bind(config.listenPeerUrls, quotaOf('peers'));
    logger.info(CALLER, 'configuring client listeners', { 'listen-client-urls': urlTexts(config.listenClientUrls) });
    const clients = quotaOf('clients');
    const client = await bind(config.listenClientUrls, clients);
    const hasOwnHttp = config.listenClientHttpUrls.length > 0;
    const clientHttp = hasOwnHttp ? await bind(config.listenClientHttpUrls, clients) : null;
    const metrics = await bind(config.listenMetricsUrls, quotaOf('monitors'));
    return new Listeners(config, logger, fatalExit, { peer, client, clientHttp, metrics });
  }

  servePeersAndMetrics(admin: Admin, onPeerExchange: (exchange: PeerExchange) => void): void {
    const { config, logger } = this;
    const { peer, metrics } = this.bound;
    const silenceMs = config.raftReadTimeoutMs;
    const handlePeer = this.http1Taker((request) => admin.handlePeer(request), {
      onPeerExchange,
      bodyBytesMax: peerBodyBytesMax,
      silenceMs,
    });
    peer.serve({ http2: null, http1: handlePeer, tls: null }, silenceMs);
    for (const address of peer.addresses()) logger.info(CALLER, 'serving peer traffic', { address });
    const handleMetrics = this.http1Taker((request) => admin.handleMetricsOnly(request));
    metrics.serve({ http2: null, http1: handleMetrics, tls: null });
    for (const address of urlTexts(config.listenMetricsUrls)) logger.info(CALLER, 'serving metrics', { address });
  }

  serveClients(grpc: GrpcServer, admin: Admin): void {
    const { client, clientHttp } = this.bound;
    const http1 = this.http1Taker((request) => admin.handle(request));
    const http2: ConnectionTakers['http2'] = (transport, { remote, local }) =>
      grpc.accept(transport, { id: ++this.connectionId, remoteAddress: remote, localAddress: local, tls: null });
    client.serve({ http2, http1: clientHttp === null ? http1 : null, tls: null });
    clientHttp?.serve({ http2: null, http1, tls: null });
    this.logger.info(CALLER, 'ready to serve client requests', { addresses: client.addresses() });
    this.tellInsecure(client.addresses(), clientHttp === null ? 'grpc+http' : 'grpc');
    this.tellInsecure(clientHttp?.addresses() ?? [], 'http');
  }

  /** No new connection from now on; those that there are go on. */
  close(): void {
    const { client, clientHttp, metrics, peer } = this.bound;
    const addresses = peer.addresses();
    for (const address of addresses) this.logger.info(CALLER, 'stopping serving peer traffic', { address });
    for (const listener of [client, clientHttp, metrics, peer]) void listener?.close();
    for (const address of addresses) this.logger.info(CALLER, 'stopped serving peer traffic', { address });
  }

  private http1Taker(handler: Http1Handler, peers: Partial<Http1Options> = {}): ConnectionTakers['http1'] {
    const server = new Http1Server({
      handler,
      bodyBytesMax: http1IgnoredBodyBytesMax,
      onError: (error) => this.fatalExit.end(error),
      ...peers,
    });
    return (socket, firstBytes) => server.accept(socket, firstBytes);
  }

  private tellInsecure(addresses: readonly string[], traffic: string): void {
    for (const address of addresses) {
      const fields = { traffic, address };
      this.logger.info(CALLER, 'serving client traffic insecurely; this is strongly discouraged!', fields);
    }
  }
}

/** What the system refuses of an address, in the words that Go has for it and scripts look for. */
function listenFailure(error: unknown): unknown {
  const { code, address, port } = error as { code?: string; address?: string; port?: number };
  const reason = code === undefined ? undefined : bindErrors.get(code);
  if (reason === undefined) return error;
  const where = port === undefined ? `listen unix ${address}` : `listen tcp ${address}:${port}`;
  return new FatalError(ExitCode.bug, `${where}: bind: ${reason}`);
}

const bindErrors: ReadonlyMap<string, string> = new Map([
  ['EADDRINUSE', 'address already in use'],
  ['EACCES', 'permission denied'],
  ['EADDRNOTAVAIL', 'cannot assign requested address'],
  ['ENOENT', 'no such file or directory'],
]);

function addressOf(url: MemberUrl): ListenAddress {
  if (url.socketPath !== '') return { path: url.socketPath };
  return { host: url.host === 'localhost' ? '127.0.0.1' : url.host, port: url.port };
}
