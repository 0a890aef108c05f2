// How many connections the process takes, by who connects, so that files can always be opened beside them: the log's next segment, a
// snapshot. Shares of the limit of open descriptors (RLIMIT_NOFILE), of which etcd too keeps 150 for itself; and the count against a share.

import { ExitCode, FatalError } from '../base/fatal.ts';
import {
  descriptorsReserved,
  monitorConnectionsMax,
  monitorConnectionsReserved,
  monitorConnectionsShare,
  peerConnectionsMax,
  peerConnectionsReserved,
  peerConnectionsShare,
  refusalLogPauseMs,
} from '../cluster-limits.ts';
import { grpcLimits } from '../connection-limits.ts';
import { processReader } from './process-info.ts';

/** Connections that may be open at once. */
export interface ConnectionShares {
  readonly clients: number;
  readonly peers: number;
  /** On addresses that answer health checks and metrics alone. */
  readonly monitors: number;
}

/** Throws FatalError where etcd ends itself, too: nothing is left for clients. */
export function connectionShares(descriptorLimit: number): ConnectionShares {
  const free = descriptorLimit - descriptorsReserved;
  if (free <= 0) {
    throw new FatalError(
      ExitCode.bug,
      `file descriptor limit of etcd process is too low; please set higher: it is ${descriptorLimit}, and ${descriptorsReserved} are not enough`,
    );
  }
  const forPeers = Math.floor(Math.min(free * peerConnectionsShare, peerConnectionsMax - peerConnectionsReserved));
  const forMonitors = Math.floor(
    Math.min(free * monitorConnectionsShare, monitorConnectionsMax - monitorConnectionsReserved),
  );
  return {
    clients: Math.min(free - forPeers - forMonitors, grpcLimits.connectionsMax),
    peers: peerConnectionsReserved + forPeers,
    monitors: monitorConnectionsReserved + forMonitors,
  };
}

/** The soft limit, which Node has raised to the hard one at its start. Infinity where the system does not tell it. */
export function descriptorLimit(): number {
  const match = /^Max open files\s+(\d+)/m.exec(processReader.readText('/proc/self/limits') ?? '');
  return match === null ? Number.POSITIVE_INFINITY : Number(match[1]);
}

/** A share and what is taken of it. Several listeners may draw on one. */
export class ConnectionQuota {
  readonly max: number;
  open = 0;
  readonly #onRefused: (open: number) => void;
  #quietUntilMs = 0;

  /** `onRefused` hears of connections for which there is no place: not of every one, once in a while. */
  constructor(max: number, onRefused: (open: number) => void = () => {}) {
    this.max = max;
    this.#onRefused = onRefused;
  }

  get isUsedUp(): boolean {
    return this.open >= this.max;
  }

  refused(): void {
    const nowMs = performance.now();
    if (nowMs < this.#quietUntilMs) return;
    this.#quietUntilMs = nowMs + refusalLogPauseMs;
    this.#onRefused(this.open);
  }
}
