// How many connections the process takes, by who connects, so that files can always be opened beside them: the log's next segment, a
// snapshot. Shares of the limit of open descriptors (RLIMIT_NOFILE), of which etcd too keeps 150 for itself; and the count against a share.

import type { Socket } from 'node:net';
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

/** What a connection has to show so that it does not make way for newer ones: what it speaks, or that a member of the cluster is behind it. */
export type Credential = 'protocol' | 'membership';

/** Of connections that have not shown it yet. */
const unsettled = new WeakMap<Socket, Set<Socket>>();

/** The connection has shown what its quota asks for. */
export function settleConnection(socket: Socket): void {
  unsettled.get(socket)?.delete(socket);
}

/** A share and what is taken of it. Several listeners may draw on one. */
export class ConnectionQuota {
  readonly max: number;
  readonly credential: Credential;
  open = 0;
  readonly #onRefused: (open: number) => void;
  /** Those that make way for others, the oldest first. */
  readonly #newcomers = new Set<Socket>();
  #quietUntilMs = 0;

  /** `onRefused` hears of connections for which there was no place: not of every one, once in a while. */
  constructor(max: number, onRefused: (open: number) => void = () => {}, credential: Credential = 'protocol') {
    this.max = max;
    this.credential = credential;
    this.#onRefused = onRefused;
  }

  /** Whether a connection that has come is kept. It is closed otherwise, or the oldest newcomer is. */
  admits(socket: Socket): boolean {
    if (this.open >= this.max) {
      this.#refused();
      const [oldest] = this.#newcomers;
      if (oldest === undefined) {
        socket.destroy();
        return false;
      }
      this.#newcomers.delete(oldest);
      oldest.destroy();
    }
    this.open++;
    this.#newcomers.add(socket);
    unsettled.set(socket, this.#newcomers);
    socket.once('close', () => {
      this.open--;
      this.#newcomers.delete(socket);
    });
    return true;
  }

  #refused(): void {
    const nowMs = performance.now();
    if (nowMs < this.#quietUntilMs) return;
    this.#quietUntilMs = nowMs + refusalLogPauseMs;
    this.#onRefused(this.open);
  }
}
