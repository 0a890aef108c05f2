// The HTTP endpoints that are not gRPC and not the JSON gateway: /version, /health, /livez, /readyz, /metrics and /debug/vars,
// with Go's answers for wrong methods and unknown paths. A pure function of the request and the source: any transport can
// carry it. Client listeners serve all, metrics listeners (--listen-metrics-urls) only metrics and health.

import type { Logger } from '../telemetry/logger.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { AccessController, type AccessOptions } from './access.ts';
import { HealthEndpoints, type HealthSource } from './health.ts';
import {
  type AdminRequest,
  type AdminResponse,
  errorResponse,
  methodNotAllowed,
  notFound,
  parseQuery,
  redirectToClean,
  splitTarget,
} from './http-message.ts';

export interface AdminSource extends HealthSource {
  /** Server, cluster and storage version; null while not known yet. */
  versions(): { readonly server: string; readonly cluster: string | null; readonly storage: string | null };
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

  constructor(options: AdminOptions) {
    this.access = new AccessController(options.access);
    this.#source = options.source;
    this.#health = new HealthEndpoints(options);
  }

  /** A request on a client listener: guard, CORS, every endpoint. */
  async handle(request: AdminRequest): Promise<AdminResponse> {
    const ended = this.access.check(request);
    if (ended !== null) return ended;
    const response = await this.#route(request, true);
    const headers = { ...response.headers, ...this.access.corsHeaders(request.origin) };
    return { ...response, headers };
  }

  /** A request on a metrics listener: metrics and health only, no guard, no CORS. */
  handleMetricsOnly(request: AdminRequest): Promise<AdminResponse> {
    return this.#route(request, false);
  }

  async #route(request: AdminRequest, isClient: boolean): Promise<AdminResponse> {
    const target = splitTarget(request.target);
    if (target === null) return errorResponse(400, '400 Bad Request');
    const redirect = redirectToClean(target.path, target.query, request.method);
    if (redirect !== null) return redirect;
    if (target.path === '/metrics') return this.#metrics();
    if (isClient && target.path === '/version') return this.#version(request.method);
    if (isClient && target.path === '/debug/vars') return this.#debugVariables(request.method);
    return (await this.#health.handle(request.method, target.path, parseQuery(target.query))) ?? notFound();
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
