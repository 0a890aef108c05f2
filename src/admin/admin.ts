// The HTTP endpoints that are not gRPC and not the JSON gateway: /version, /health, /livez, /readyz, /metrics and /debug/vars,
// with Go's answers for wrong methods and unknown paths. A pure function of the request and the source: any transport can
// carry it. Client listeners serve all, metrics listeners (--listen-metrics-urls) only metrics and health, peer listeners the version and
// what members ask each other; raft's own paths there never come here (io/http1.ts).

import type { Logger } from '../telemetry/logger.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { AccessController, type AccessOptions } from './access.ts';
import { HealthEndpoints, type HealthSource } from './health.ts';
import {
  type AdminRequest,
  type AdminResponse,
  methodNotAllowed,
  notFound,
  openRequest,
  type PeerListenerResponse,
  parseQuery,
  redirectToClean,
  type Target,
} from './http-message.ts';
import { MemberEndpoints, type MemberEndpointsSource } from './member-endpoints.ts';
import { type PeerCheckSource, PeerChecks } from './peer-checks.ts';

export interface AdminSource extends HealthSource, PeerCheckSource, MemberEndpointsSource {
  /** Server, cluster and storage version; null while not known yet. */
  versions(): { readonly server: string; readonly cluster: string | null; readonly storage: string | null };
  /** What members ask each other about leases; null: `path` is none of that. */
  lease(path: string, request: AdminRequest): Promise<PeerListenerResponse> | null;
  /** The exposition of the metrics. */
  metricsText(): Promise<string>;
  /** Values of /debug/vars by name, each as JSON text (raft.status, file_descriptor_limit …). */
  debugVariables(): Readonly<Record<string, string>>;
}

export interface AdminOptions {
  readonly source: AdminSource;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly access: AccessOptions;
  /** etcd's ReqTimeout: 5 s and two election timeouts. */
  readonly requestTimeoutMs: number;
}

/** What Go's promhttp answers to a client that asks for text. */
export const metricsContentType: string = 'text/plain; version=0.0.4; charset=utf-8; escaping=underscores';

export class Admin {
  /** For the JSON gateway too, which stands behind the same guard. */
  readonly access: AccessController;
  readonly #source: AdminSource;
  readonly #health: HealthEndpoints;
  readonly #members: MemberEndpoints;
  readonly #peerChecks: PeerChecks;

  constructor(options: AdminOptions) {
    this.access = new AccessController(options.access);
    this.#source = options.source;
    this.#health = new HealthEndpoints(options);
    this.#members = new MemberEndpoints(options.source, options.logger);
    this.#peerChecks = new PeerChecks(options.source, options.logger, options.requestTimeoutMs);
  }

  /** A request on a client listener: guard, CORS, every endpoint. */
  async handle(request: AdminRequest): Promise<AdminResponse> {
    const target = openRequest(request);
    if ('status' in target) return target;
    const ended = this.access.check(request);
    if (ended !== null) return ended;
    const response = await this.#route(request.method, target, true);
    const headers = { ...response.headers, ...this.access.corsHeaders(request.origin) };
    return { ...response, headers };
  }

  /** A request on a metrics listener: metrics and health only, no guard, no CORS. */
  async handleMetricsOnly(request: AdminRequest): Promise<AdminResponse> {
    const target = openRequest(request);
    return 'status' in target ? target : this.#route(request.method, target, false);
  }

  /** A request on a peer listener: the version, leases, hashes, a downgrade's state, the members and their promotion. */
  async handlePeer(request: AdminRequest): Promise<PeerListenerResponse> {
    const target = openRequest(request);
    if ('status' in target) return target;
    const { path, rawPath, query } = target;
    const redirect = redirectToClean(rawPath, query, request.method);
    if (redirect !== null) return redirect;
    if (path === '/version') return this.#version(request.method);
    const lease = this.#source.lease(path, request);
    if (lease !== null) return lease;
    const checked = this.#peerChecks.handle(path, request);
    if (checked !== null) return checked;
    return (await this.#members.handle(request.method, path)) ?? notFound();
  }

  async #route(method: string, { path, rawPath, query }: Target, isClient: boolean): Promise<AdminResponse> {
    const redirect = redirectToClean(rawPath, query, method);
    if (redirect !== null) return redirect;
    if (path === '/metrics') return this.#metrics();
    if (isClient && path === '/version') return this.#version(method);
    if (isClient && path === '/debug/vars') return this.#debugVariables(method);
    return (await this.#health.handle(method, path, parseQuery(query))) ?? notFound();
  }

  /** Any method, as promhttp's handler. */
  async #metrics(): Promise<AdminResponse> {
    return { status: 200, headers: { 'Content-Type': metricsContentType }, body: await this.#source.metricsText() };
  }

  #version(method: string): AdminResponse {
    if (method !== 'GET') return methodNotAllowed();
    const { server, cluster, storage } = this.#source.versions();
    const body = JSON.stringify({
      etcdserver: server,
      etcdcluster: cluster ?? 'not_decided',
      storage: storage ?? 'unknown',
    });
    return { status: 200, headers: { 'Content-Type': 'application/json' }, body };
  }

  #debugVariables(method: string): AdminResponse {
    if (method !== 'GET') return methodNotAllowed();
    const variables = this.#source.debugVariables();
    const lines = Object.keys(variables)
      .sort()
      .map((name) => `${JSON.stringify(name)}: ${variables[name]}`);
    const headers = { 'Content-Type': 'application/json; charset=utf-8' };
    return { status: 200, headers, body: `{\n${lines.join(',\n')}\n}\n` };
  }
}
