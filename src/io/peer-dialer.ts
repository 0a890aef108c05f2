// Connections to other members: the one place that opens them, so that TLS (issue 5) has one place to come to. Also the words
// that Go's net package has for what goes wrong, which operators look for in logs.

import { Agent, type ClientRequestArgs } from 'node:http';
import { connect, type Socket } from 'node:net';
import { peerSocketsMax } from '../cluster-limits.ts';
import type { PeerAddress } from './peer-address.ts';

/** etcd's dialers probe an idle connection after this: what ends a connection whose other end is gone without a word. */
const keepAliveProbeMs = 30_000;

export class PeerDialer {
  readonly #dialTimeoutMs: number;
  readonly #localAddress: { readonly localAddress?: string };

  /** etcd's time is a second and an election timeout. `localAddress`: where connections come from; null: the system's choice. */
  constructor(dialTimeoutMs: number, localAddress: string | null = null) {
    this.#dialTimeoutMs = dialTimeoutMs;
    this.#localAddress = localAddress === null ? {} : { localAddress };
  }

  /** A socket that connects, or an error at once. It is destroyed with an error when it does not get there in time. */
  connect(address: PeerAddress): Socket | Error {
    if (address.isSecure) return new Error(`https is not supported for peers yet: ${address.authority}`);
    const socket =
      address.socketPath !== ''
        ? connect({ path: address.socketPath })
        : connect({
            host: address.host,
            port: address.port,
            ...this.#localAddress,
            noDelay: true,
            keepAlive: true,
            keepAliveInitialDelay: keepAliveProbeMs,
          });
    const timer = setTimeout(() => {
      socket.destroy(new Error(`dial ${nameOf(address)}: i/o timeout`));
    }, this.#dialTimeoutMs);
    const settled = (): void => clearTimeout(timer);
    socket.once('connect', settled);
    socket.once('close', settled);
    return socket;
  }

  /** For node:http's requests to `address`; connections that are idle are kept and used again. */
  agent(address: PeerAddress, keepsConnections: boolean): Agent {
    return new PeerAgent(this, address, keepsConnections);
  }
}

class PeerAgent extends Agent {
  readonly #dialer: PeerDialer;
  readonly #address: PeerAddress;

  constructor(dialer: PeerDialer, address: PeerAddress, keepsConnections: boolean) {
    super({ keepAlive: keepsConnections, maxSockets: peerSocketsMax });
    this.#dialer = dialer;
    this.#address = address;
  }

  override createConnection(
    _options: ClientRequestArgs,
    callback?: (error: Error | null, socket: Socket) => void,
  ): Socket {
    const socket = this.#dialer.connect(this.#address);
    if (!(socket instanceof Error)) return socket;
    // An error alone, as node's agent expects it.
    (callback as (error: Error) => void)(socket);
    return undefined as unknown as Socket;
  }
}

function nameOf({ socketPath, authority }: PeerAddress): string {
  return socketPath !== '' ? `unix ${socketPath}` : `tcp ${authority}`;
}

const dialErrors: ReadonlyMap<string, string> = new Map([
  ['ECONNREFUSED', 'connect: connection refused'],
  ['EHOSTUNREACH', 'connect: no route to host'],
  ['ENETUNREACH', 'connect: network is unreachable'],
  ['ETIMEDOUT', 'connect: connection timed out'],
  ['ENOENT', 'connect: no such file or directory'],
  ['EACCES', 'connect: permission denied'],
]);

/** The error in Go's words where it has some. */
export function goNetError(error: Error, address: PeerAddress): Error {
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (code === 'ENOTFOUND') return new Error(`dial tcp: lookup ${address.host}: no such host`);
  if (code === 'EAI_AGAIN') return new Error(`dial tcp: lookup ${address.host}: server misbehaving`);
  const words = code === undefined ? undefined : dialErrors.get(code);
  // Several addresses of a name, none of which answered, come as one error with a code and no syscall.
  if (words !== undefined && (syscall === undefined || syscall === 'connect'))
    return new Error(`dial ${nameOf(address)}: ${words}`);
  if (code === 'ECONNRESET' && syscall === undefined) return new Error('unexpected EOF');
  if (code === 'ECONNRESET') return new Error(`read ${nameOf(address)}: connection reset by peer`);
  if (code === 'EPIPE') return new Error(`write ${nameOf(address)}: broken pipe`);
  return error;
}
