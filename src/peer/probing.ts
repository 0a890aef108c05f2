// Probes of a peer: how long a request to it takes and how far its clock is off, told in the log (the protocol of xiang90/probing,
// over which etcd does it). Two a peer, as in etcd: one over kept connections, one over new ones. The first also says when raft's
// timeouts are too short for the way to the peer, which etcd does not.

import { durationText } from '../config/go-value.ts';
import type { Timer } from '../io/clock.ts';
import type { PeerClient } from '../io/peer-client.ts';
import type { PeerAnswer } from '../io/peer-request.ts';
import type { PeerMetrics } from '../telemetry/peer-metrics.ts';
import { statusText } from './post-answer.ts';
import type { TransportContext } from './transport-context.ts';

const CALLER = 'peer/probing.ts';
export const probePath = '/raft/probing';
/** Of a new round trip in the smoothed one: TCP's. */
const newShare = 0.125;
const clockDriftWarnMs = 1000;
/** etcd's guide to tuning: an election timeout is ten round trips at least. */
const roundTripsAnElection = 10;

/** What a probe is answered. */
export function probeAnswer(wallMs: number): string {
  return `{"OK":true,"Now":"${new Date(wallMs).toISOString()}"}\n`;
}

export class Probe {
  readonly #context: TransportContext;
  readonly #client: PeerClient;
  /** etcd's name of the way that it probes. */
  readonly #name: string;
  readonly #peerText: string;
  readonly #urls: readonly string[];
  readonly #metrics: PeerMetrics;
  #pinned = 0;
  #isUnderWay = false;
  #isHealthy = false;
  #error: string | null = null;
  #smoothedMs = 0;
  #clockDriftMs = 0;
  #probeTimer: Timer | null = null;
  #lookTimer: Timer | null = null;
  #isStopped = false;

  constructor(
    context: TransportContext,
    client: PeerClient,
    name: string,
    peerText: string,
    urls: readonly string[],
    metrics: PeerMetrics,
  ) {
    this.#context = context;
    this.#client = client;
    this.#name = name;
    this.#peerText = peerText;
    this.#urls = urls;
    this.#metrics = metrics;
    this.#probeLater();
    this.#lookLater(context.timings.probeErrorMs);
  }

  stop(): void {
    const { clock } = this.#context;
    this.#isStopped = true;
    if (this.#probeTimer !== null) clock.clearTimer(this.#probeTimer);
    if (this.#lookTimer !== null) clock.clearTimer(this.#lookTimer);
  }

  #probeLater(): void {
    const { clock, timings } = this.#context;
    this.#probeTimer = clock.setTimer(timings.probeMs, () => {
      this.#probeLater();
      if (!this.#isUnderWay) this.#probe();
    });
  }

  #probe(): void {
    const { clock } = this.#context;
    const startMs = clock.nowMs();
    const url = this.#urls[this.#pinned]!;
    this.#isUnderWay = true;
    this.#client.request(url, { method: 'GET', path: probePath }, (error, answer) => {
      this.#isUnderWay = false;
      if (this.#isStopped) return;
      const failure = answer === null ? error!.message : this.#read(url, answer, clock.nowMs() - startMs);
      this.#error = failure;
      this.#isHealthy = failure === null;
      if (failure !== null) this.#pinned = (this.#pinned + 1) % this.#urls.length;
    });
  }

  /** Null, or what is wrong with the answer. */
  #read(url: string, { status, body }: PeerAnswer, tookMs: number): string | null {
    if (status !== 200) {
      return `got unexpected HTTP status code ${status} ${statusText(status)} from ${url}${probePath}`;
    }
    const health = parseHealth(body);
    if (health === null) return 'no health in the answer';
    const last = this.#smoothedMs === 0 ? tookMs : this.#smoothedMs;
    this.#smoothedMs = (1 - newShare) * last + newShare * tookMs;
    this.#clockDriftMs = this.#context.clock.wallMs() - health - this.#smoothedMs / 2;
    return null;
  }

  #lookLater(delayMs: number): void {
    this.#lookTimer = this.#context.clock.setTimer(delayMs, () => this.#look());
  }

  #look(): void {
    const { logger, timings } = this.#context;
    const way = { 'round-tripper-name': this.#name, 'remote-peer-id': this.#peerText };
    const error = this.#error === null ? {} : { error: this.#error };
    const rtt = durationText(this.#smoothedMs);
    if (!this.#isHealthy) logger.warn(CALLER, 'prober detected unhealthy status', { ...way, rtt, ...error });
    if (this.#clockDriftMs > clockDriftWarnMs) {
      const drift = { 'clock-drift': durationText(this.#clockDriftMs), rtt };
      logger.warn(CALLER, 'prober found high clock drift', { ...way, ...drift, ...error });
    }
    if (this.#isHealthy) this.#holdAgainstTimeouts();
    this.#metrics.roundTrip(this.#smoothedMs / 1000);
    this.#lookLater(this.#isHealthy ? timings.probeLookMs : timings.probeErrorMs);
  }

  /** Heartbeats that are answered later than the next one goes out: followers are a step from an election. */
  #holdAgainstTimeouts(): void {
    const { logger, client, timings } = this.#context;
    // A new connection costs a round trip of its own.
    if (this.#client !== client || this.#smoothedMs <= timings.heartbeatMs) return;
    const roundTripMs = Math.ceil(this.#smoothedMs);
    const text =
      `the round trip to a peer is longer than --heartbeat-interval; on all members set --heartbeat-interval to ${roundTripMs} ` +
      `or more and --election-timeout to ${roundTripMs * roundTripsAnElection} or more`;
    logger.warn(CALLER, text, {
      'remote-peer-id': this.#peerText,
      rtt: durationText(this.#smoothedMs),
      'heartbeat-interval': durationText(timings.heartbeatMs),
      'election-timeout': durationText(timings.electionMs),
    });
  }
}

/** The peer's time in milliseconds, or null. */
function parseHealth(body: Buffer): number | null {
  const match = /^\{"OK":true,"Now":"([^"]+)"\}\s*$/.exec(body.toString('latin1'));
  const time = match === null ? Number.NaN : Date.parse(match[1]!);
  return Number.isNaN(time) ? null : time;
}
