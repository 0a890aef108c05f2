// Whether messages get through to a peer, as the last stream, post or dial has shown. Logged and counted at every change.

import type { PeerMetrics } from '../telemetry/peer-metrics.ts';
import type { TransportContext } from './transport-context.ts';

const CALLER = 'peer/peer-status.ts';

export class PeerStatus {
  readonly #context: TransportContext;
  readonly #peerText: string;
  readonly #metrics: PeerMetrics;
  #sinceMs: number | null = null;
  #wasActive = false;

  constructor(context: TransportContext, peerText: string, metrics: PeerMetrics) {
    this.#context = context;
    this.#peerText = peerText;
    this.#metrics = metrics;
  }

  /** Monotonic; null while inactive. */
  get activeSinceMs(): number | null {
    return this.#sinceMs;
  }

  get isActive(): boolean {
    return this.#sinceMs !== null;
  }

  /** Now or before. */
  get wasActive(): boolean {
    return this.#wasActive;
  }

  activate(): void {
    if (this.#sinceMs !== null) return;
    this.#context.logger.info(CALLER, 'peer became active', { 'peer-id': this.#peerText });
    this.#sinceMs = this.#context.clock.nowMs();
    this.#wasActive = true;
    this.#metrics.activated();
  }

  deactivate(source: string, action: string, reason: string): void {
    const { logger } = this.#context;
    const error = `failed to ${action} ${this.#peerText} on ${source} (${reason})`;
    const fields = { 'peer-id': this.#peerText, error };
    if (this.#sinceMs === null) {
      logger.debug(CALLER, 'peer deactivated again', fields);
      return;
    }
    logger.warn(CALLER, 'peer became inactive (message send to peer failed)', fields);
    this.#sinceMs = null;
    this.#metrics.deactivated();
  }

  /** Whoever knows the peer from now on has a status of its own: nothing was lost. */
  handOver(): void {
    if (this.#sinceMs === null) return;
    this.#sinceMs = null;
    this.#metrics.handedOver();
  }
}
