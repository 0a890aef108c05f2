// The endpoints of a peer listener by which members check each other, with etcd's answers: /members/hashkv (corrupt.go) and
// /downgrade/enabled (server.go).

import type { KeyHashDone } from '../server/key-hash.ts';
import {
  clusterIdMismatchText,
  hashAnswer,
  peerHashPath,
  requestedRevision,
  storeErrorText,
} from '../server/peer-hash.ts';
import type { Logger } from '../telemetry/logger.ts';
import { type AdminRequest, type AdminResponse, errorResponse, methodNotAllowed } from './http-message.ts';

const CALLER = 'admin/peer-checks.ts';
const downgradePath = '/downgrade/enabled';

export interface PeerCheckSource {
  /** In hex. */
  clusterId(): string;
  hashByRevision(revision: number, done: KeyHashDone): void;
  /** A read through the quorum, as of HealthSource. */
  linearizableRead(timeoutMs: number | null, done: (error: string | null) => void): void;
  isDowngrading(): boolean;
}

export class PeerChecks {
  readonly #source: PeerCheckSource;
  readonly #logger: Logger;
  readonly #requestTimeoutMs: number;

  constructor(source: PeerCheckSource, logger: Logger, requestTimeoutMs: number) {
    this.#source = source;
    this.#logger = logger;
    this.#requestTimeoutMs = requestTimeoutMs;
  }

  /** Null: another path. */
  handle(path: string, request: AdminRequest): Promise<AdminResponse> | AdminResponse | null {
    if (path !== peerHashPath && path !== downgradePath) return null;
    if (request.method !== 'GET') return methodNotAllowed();
    return path === peerHashPath ? this.#hash(request) : this.#downgradeEnabled();
  }

  #hash(request: AdminRequest): Promise<AdminResponse> | AdminResponse {
    const clusterId = request.headers?.['x-etcd-cluster-id'] ?? '';
    if (clusterId !== '' && clusterId !== this.#source.clusterId()) return errorResponse(412, clusterIdMismatchText);
    const revision = requestedRevision(request.body ?? Buffer.alloc(0));
    if (revision === null) {
      this.#logger.warn(CALLER, 'failed to unmarshal request', {});
      return errorResponse(400, 'error unmarshalling request');
    }
    return new Promise((resolve) => {
      this.#source.hashByRevision(revision, (error, hash, currentRevision) => {
        if (error !== null) {
          const text = storeErrorText(error);
          this.#logger.warn(CALLER, 'failed to get hashKV', { 'requested-revision': revision, error: text });
          resolve(errorResponse(400, text));
          return;
        }
        const headers = { 'X-Etcd-Cluster-Id': this.#source.clusterId(), 'Content-Type': 'application/json' };
        resolve({ status: 200, headers, body: hashAnswer(hash!, currentRevision) });
      });
    });
  }

  #downgradeEnabled(): Promise<AdminResponse> {
    const headers = { 'X-Etcd-Cluster-Id': this.#source.clusterId() };
    return new Promise((resolve) => {
      this.#source.linearizableRead(this.#requestTimeoutMs, (error) => {
        if (error !== null) resolve(errorResponse(500, `failed linearized read: ${error}`, headers));
        else {
          const body = String(this.#source.isDowngrading());
          resolve({ status: 200, headers: { ...headers, 'Content-Type': 'text/plain' }, body });
        }
      });
    });
  }
}
