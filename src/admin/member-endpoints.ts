// What members ask of each other about their cluster, over the peer listener (etcdhttp/peer.go): who is in it, and the promotion of a
// learner, which only the leader can judge. Answers, texts and log lines are etcd's.
//
//   GET  /members               the members, as JSON, with the cluster's id in X-Etcd-Cluster-Id
//   POST /members/promote/<id>  the id in decimal; the members as of the promotion, or 404, 412, 500

import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { Logger } from '../telemetry/logger.ts';
import { type AdminResponse, errorResponse, methodNotAllowed } from './http-message.ts';

const CALLER = 'admin/member-endpoints.ts';
const PROMOTE = '/members/promote/';
const U64_MAX = 0xffffffffffffffffn;

export interface MemberEndpointsSource {
  /** Id of the cluster, in hex, and its members as etcd's JSON has them. */
  members(): { readonly clusterId: string; readonly json: string };
  /** The members as etcd's JSON has them, or why not: the status, and what etcd's server calls it. */
  promote(id: bigint): Promise<string | { readonly status: EtcdError; readonly reason: string }>;
}

export class MemberEndpoints {
  readonly #source: MemberEndpointsSource;
  readonly #logger: Logger;

  constructor(source: MemberEndpointsSource, logger: Logger) {
    this.#source = source;
    this.#logger = logger;
  }

  /** Null: the path is none of these. */
  async handle(method: string, path: string): Promise<AdminResponse | null> {
    if (path === '/members') return this.#list(method);
    return path.startsWith(PROMOTE) ? this.#promote(method, path.slice(PROMOTE.length)) : null;
  }

  #list(method: string): AdminResponse {
    if (method !== 'GET') return methodNotAllowed();
    const { clusterId, json } = this.#source.members();
    return answer(200, clusterId, `${json}\n`);
  }

  async #promote(method: string, idText: string): Promise<AdminResponse> {
    if (method !== 'POST') return errorResponse(405, 'Method Not Allowed', { Allow: 'POST' });
    const { clusterId } = this.#source.members();
    const identity = { 'X-Etcd-Cluster-Id': clusterId };
    const id = /^[0-9]+$/.test(idText) ? BigInt(idText) : null;
    if (id === null || id > U64_MAX) return errorResponse(404, `member ${idText} not found in cluster`, identity);
    const result = await this.#source.promote(id);
    if (typeof result === 'string') return answer(200, clusterId, `${result}\n`);
    const { status, reason } = result;
    const code = codeOf(status);
    if (code === 500) this.#logger.warn(CALLER, 'v2 response error', { 'internal-server-error': reason });
    this.#logger.warn(CALLER, 'failed to promote a member', { 'member-id': id.toString(16), error: reason });
    if (code === 500) return answer(500, clusterId, '{"message":"Internal Server Error"}');
    return errorResponse(code, reason, identity);
  }
}

function codeOf(error: EtcdError): number {
  if (error === etcdErrors.memberNotFound) return 404;
  return error === etcdErrors.memberNotLearner || error === etcdErrors.learnerNotReady ? 412 : 500;
}

function answer(status: number, clusterId: string, body: string): AdminResponse {
  return { status, headers: { 'X-Etcd-Cluster-Id': clusterId, 'Content-Type': 'application/json' }, body };
}
