// /health, /livez and /readyz by etcd 3.7 (server/etcdserver/api/etcdhttp/health.go): which checks, in which order, the texts
// and reasons that probes and operators match, and the metrics. Not the reads themselves: an AdminSource does them.
//
//   /health   alarms (without excluded ones), then a leader, then a read; serializable=true skips the leader
//   /livez    serializable_read
//   /readyz   data_corruption, serializable_read, linearizable_read, non_learner
//
// etcd prints the checks of a verbose answer in the random order of a Go map; here in the order above.

import type { Logger } from '../telemetry/logger.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { type AdminResponse, errorResponse, methodNotAllowed } from './http-message.ts';

export type AlarmName = 'NOSPACE' | 'CORRUPT' | 'UNKNOWN';

/** What the endpoints ask of the member. */
export interface HealthSource {
  alarms(): readonly { readonly memberId: bigint; readonly alarm: AlarmName }[];
  /** Id of the leader, 0n for none. */
  leader(): bigint;
  isLearner(): boolean;
  /** A read through the quorum. `done` gets the error's text, or null; after `timeoutMs` it gets a timeout's (null: never). */
  linearizableRead(timeoutMs: number | null, done: (error: string | null) => void): void;
  /** A read of the local store. */
  serializableRead(timeoutMs: number | null, done: (error: string | null) => void): void;
}

export interface HealthOptions {
  readonly source: HealthSource;
  readonly metrics: Metrics;
  readonly logger: Logger;
  /** etcd's ReqTimeout: 5 s and two election timeouts. */
  readonly requestTimeoutMs: number;
}

type Query = ReadonlyMap<string, readonly string[]>;
type Check = (source: HealthSource) => Promise<string | null>;

const serializableRead: Check = (source) => new Promise((resolve) => source.serializableRead(null, resolve));
const linearizableRead: Check = (source) => new Promise((resolve) => source.linearizableRead(null, resolve));

const checks: Readonly<Record<'livez' | 'readyz', readonly (readonly [name: string, check: Check])[]>> = {
  livez: [['serializable_read', serializableRead]],
  readyz: [
    [
      'data_corruption',
      async (source): Promise<string | null> =>
        source.alarms().some(({ alarm }) => alarm === 'CORRUPT') ? 'alarm activated: CORRUPT' : null,
    ],
    ['serializable_read', serializableRead],
    ['linearizable_read', linearizableRead],
    [
      'non_learner',
      async (source): Promise<string | null> => (source.isLearner() ? 'not supported for learner' : null),
    ],
  ],
};

export class HealthEndpoints {
  readonly #options: HealthOptions;

  constructor(options: HealthOptions) {
    this.#options = options;
  }

  /** The answer of a health path, or null when the path is none. */
  handle(method: string, path: string, query: Query): Promise<AdminResponse> | AdminResponse | null {
    const [, kind = '', name, ...rest] = path.split('/');
    if (path === '/health') return this.#health(method, query);
    if ((kind !== 'livez' && kind !== 'readyz') || rest.length > 0) return null;
    if (name === undefined) return this.#checks(method, path, kind, query);
    if (!checks[kind].some(([known]) => known === name)) return null;
    return this.#checks(method, path, kind, query, name);
  }

  async #health(method: string, query: Query): Promise<AdminResponse> {
    const { logger, metrics } = this.#options;
    if (method !== 'GET') {
      logger.warn('admin/health.ts:79', '/health error', { 'status-code': 405 });
      return methodNotAllowed();
    }
    const excluded = new Set(query.get('exclude'));
    const reason = await this.#unhealthyReason(excluded, query.get('serializable')?.[0] === 'true');
    const output = JSON.stringify({ health: reason === null ? 'true' : 'false', reason: reason ?? '' });
    if (reason === null) {
      metrics.health.successes++;
      logger.debug('admin/health.ts:87', '/health OK', { 'status-code': 200 });
      return { status: 200, headers: { 'Content-Type': 'text/plain; charset=utf-8' }, body: output };
    }
    metrics.health.failures++;
    logger.warn('admin/health.ts:91', '/health error', { output, 'status-code': 503 });
    return errorResponse(503, output);
  }

  async #unhealthyReason(excluded: ReadonlySet<string>, serializable: boolean): Promise<string | null> {
    const { source, logger, requestTimeoutMs } = this.#options;
    for (const { memberId, alarm } of source.alarms()) {
      const shown = { alarm: `memberID:${memberId} alarm:${alarm} ` };
      if (excluded.has(alarm)) {
        logger.debug('admin/health.ts:100', '/health excluded alarm', shown);
        continue;
      }
      logger.warn('admin/health.ts:103', 'serving /health false due to an alarm', shown);
      return `ALARM ${alarm}`;
    }
    if (!serializable && source.leader() === 0n) {
      logger.warn('admin/health.ts:107', 'serving /health false; no leader');
      return 'RAFT NO LEADER';
    }
    const error = await new Promise<string | null>((resolve) => {
      if (serializable) source.serializableRead(requestTimeoutMs, resolve);
      else source.linearizableRead(requestTimeoutMs, resolve);
    });
    if (error === null) return null;
    logger.warn('admin/health.ts:115', 'serving /health false; Range fails', { error });
    return `RANGE ERROR:${error}`;
  }

  async #checks(
    method: string,
    path: string,
    kind: 'livez' | 'readyz',
    query: Query,
    only?: string,
  ): Promise<AdminResponse> {
    const { logger } = this.#options;
    if (method !== 'GET') {
      logger.warn('admin/health.ts:128', 'Health request error', { path, 'status-code': 405 });
      return methodNotAllowed();
    }
    // A path of one check excludes nothing, as in etcd.
    const excluded = new Set(only === undefined ? query.get('exclude')?.filter((name) => name !== '') : []);
    let output = '';
    let failed = false;
    for (const [name, check] of checks[kind]) {
      if ((only !== undefined && name !== only) || excluded.delete(name)) continue;
      const error = await check(this.#options.source);
      output += error === null ? `[+]${name} ok\n` : `[-]${name} failed: ${error}\n`;
      failed ||= error !== null;
      this.#record(kind, name, error === null);
    }
    if (excluded.size > 0) {
      const missing = [...excluded].map((name) => JSON.stringify(name)).join(',');
      logger.warn('admin/health.ts:144', 'some health checks cannot be excluded', { 'missing-health-checks': missing });
    }
    if (failed) {
      logger.error('admin/health.ts:147', 'Health check error', { path, reason: output, 'status-code': 503 });
      return errorResponse(503, output);
    }
    logger.debug('admin/health.ts:150', 'Health check OK', { path, reason: output, 'status-code': 200 });
    const headers = { 'Content-Type': 'text/plain; charset=utf-8', 'X-Content-Type-Options': 'nosniff' };
    return { status: 200, headers, body: `${query.has('verbose') ? output : ''}ok\n` };
  }

  #record(kind: string, name: string, ok: boolean): void {
    const { health } = this.#options.metrics;
    health.last.with(kind, name).value = ok ? 1 : 0;
    health.checks.with(kind, name, ok ? 'success' : 'error').value++;
  }
}
