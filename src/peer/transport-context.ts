// What the parts of the transport share: who this member is, and what they are given to work with.

import type { Clock } from '../io/clock.ts';
import type { PeerClient } from '../io/peer-client.ts';
import type { PeerDialer } from '../io/peer-dialer.ts';
import type { NodeId } from '../raft/types.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { NetworkMetrics } from '../telemetry/member-metrics.ts';
import type { PeerEvents } from './peer-transport.ts';
import type { SenderLabels } from './sender-labels.ts';

export interface TransportTimings {
  /** A stream without a byte for so long is lost; link heartbeats go out three times in it. etcd: 5 s. */
  readonly readTimeoutMs: number;
  /** A stream whose bytes the other end has not taken for so long is closed. etcd: 5 s. */
  readonly writeTimeoutMs: number;
  /** Between the attempts to open a stream. etcd: 100 ms. */
  readonly retryMs: number;
  /** Between probes: shorter than the read timeout. etcd: 4 s. */
  readonly probeMs: number;
  /** When a probe's state is looked at: while it is bad, and else. etcd: 5 s and 30 s. */
  readonly probeErrorMs: number;
  readonly probeLookMs: number;
  /** Raft's, of --heartbeat-interval and --election-timeout: what a round trip is held against. */
  readonly heartbeatMs: number;
  readonly electionMs: number;
}

export const etcdTimings: TransportTimings = {
  readTimeoutMs: 5000,
  writeTimeoutMs: 5000,
  retryMs: 100,
  probeMs: 4000,
  probeErrorMs: 5000,
  probeLookMs: 30_000,
  heartbeatMs: 100,
  electionMs: 1000,
};

/** The ticks that both timeouts are counted in: nine are one. */
export const ticksPerTimeout = 9;
export const ticksPerHeartbeat = 3;

export interface TransportContext {
  readonly localId: NodeId;
  /** Hexadecimal. */
  readonly localText: string;
  readonly clusterText: string;
  /** major.minor.patch of etcd. */
  readonly serverVersion: string;
  /** Of every request to a peer. */
  readonly headers: Readonly<Record<string, string>>;
  readonly events: PeerEvents;
  readonly timings: TransportTimings;
  readonly dialer: PeerDialer;
  readonly client: PeerClient;
  /** Without kept connections: for the probes of the streams' way. */
  readonly freshClient: PeerClient;
  readonly clock: Clock;
  /** A later turn, for what may not be told inside of a call. */
  readonly schedule: (callback: () => void) => void;
  readonly logger: Logger;
  readonly network: NetworkMetrics;
  readonly labels: SenderLabels;
}

/** As etcd prints ids. */
export function idText(id: NodeId): string {
  return id.toString(16);
}

/** Null when it is none: at most 64 bits in hexadecimal. */
export function parseIdText(text: string): NodeId | null {
  return /^[0-9a-fA-F]{1,16}$/.test(text) ? BigInt(`0x${text}`) : null;
}
