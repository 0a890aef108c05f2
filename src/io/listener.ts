// Listening sockets, TCP and unix, and who gets a connection: its first bytes tell TLS, HTTP/2 and HTTP/1.1 apart, so one
// port serves them all as etcd's does. Reads and writes of HTTP/2 connections are here; what the bytes mean is not.
//
//   first byte 0x16                     a TLS handshake           → options.tls
//   "PRI * HTTP/2.0" (its first 14)     HTTP/2's preface          → options.http2
//   "... HTTP/1." in the first line     HTTP/1.1                  → options.http1
//   anything else, or no line by 4 KiB  nonsense: the connection is closed (as etcd's cmux does)
//
// Binding and serving are two steps: the sockets of a member are bound before anything else is touched, and connections that come
// while it starts wait, unread, until it serves (as in etcd, where they wait in the kernel).
//
// Connections beyond the quota are closed at once (etcd leaves them in the kernel's queue, which Node cannot), but for one that has shown
// no protocol yet: the oldest such one makes way first, so that silent ones do not keep others out.
//
// Back-pressure: a connection whose output the kernel does not take is not read from beyond a bound (`inputPaused`).

import { once } from 'node:events';
import { lstat, unlink } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { assert } from '../base/assert.ts';
import { grpcLimits } from '../connection-limits.ts';
import { ConnectionQuota, settleConnection } from './connection-quota.ts';

export type ListenAddress =
  | { readonly host: string; readonly port: number; readonly path?: undefined }
  | { readonly path: string; readonly host?: undefined; readonly port?: undefined };

/** What serves an HTTP/2 connection: grpc/connection.ts's GrpcConnection. */
export interface Http2Sink {
  /** The chunk may be used during the call and kept after it. */
  receive(chunk: Buffer): void;
  flush(): void;
  transportDrained(): void;
  closed(): void;
  readonly inputPaused: boolean;
}

export interface PeerAddress {
  /** `host:port`, `[v6]:port`, or `@` for a unix socket, as Go writes them. */
  readonly remote: string;
  readonly local: string;
}

export interface ConnectionTakers {
  /** Null closes such connections. */
  readonly http2: ((transport: SocketTransport, peer: PeerAddress) => Http2Sink) | null;
  /** Takes over the socket with the bytes that were read from it. Null closes such connections. */
  readonly http1: ((socket: Socket, firstBytes: Buffer) => void) | null;
  /** Takes over a socket that opens with a TLS handshake; it hands the plain side back by `serveHttp2`. */
  readonly tls: ((socket: Socket, firstBytes: Buffer) => void) | null;
}

export interface ListenerOptions extends ConnectionTakers {
  readonly addresses: readonly ListenAddress[];
}

type Protocol = 'http1' | 'http2' | 'tls' | 'none' | 'undecided';

const requestLineBytesMax = 4096;
const prefaceStart: Buffer = Buffer.from('PRI * HTTP/2.0', 'latin1');

/** `host:port`, `[v6]:port`, `:port`, `unix:path` or `unix://path`; null when it is none of them. */
export function parseListenAddress(text: string): ListenAddress | null {
  if (text.startsWith('unix:')) {
    const path = text.slice(text.startsWith('unix://') ? 7 : 5);
    return path === '' ? null : { path };
  }
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([^:[\]]*)):([0-9]{1,5})$/.exec(text);
  if (match === null) return null;
  const port = Number(match[3]);
  return port > 65_535 ? null : { host: match[1] ?? match[2] ?? '', port };
}

/** The list of addresses in `a,b,c`, or null when one of them is none. */
export function parseListenAddresses(text: string): ListenAddress[] | null {
  const addresses: ListenAddress[] = [];
  for (const item of text.split(',')) {
    const address = parseListenAddress(item.trim());
    if (address === null) return null;
    addresses.push(address);
  }
  return addresses;
}

/** A socket as the transport of an HTTP/2 connection. */
export class SocketTransport {
  private readonly socket: Socket;
  private sink: Http2Sink | null = null;
  private waiting = false;
  private readonly written: () => void;

  constructor(socket: Socket) {
    this.socket = socket;
    this.written = (): void => this.onWritten();
  }

  attach(sink: Http2Sink): void {
    this.sink = sink;
  }

  get pendingBytes(): number {
    return this.socket.writableLength;
  }

  write(chunks: Buffer[]): boolean {
    const { socket } = this;
    if (!socket.writable) return true;
    const last = chunks.length - 1;
    if (last > 0) socket.cork();
    for (let i = 0; i < last; i += 1) socket.write(chunks[i]!);
    // libuv tries to write at once: in most turns nothing is pending when this returns.
    socket.write(chunks[last]!, this.written);
    if (last > 0) socket.uncork();
    this.waiting = socket.writableLength > 0;
    return !this.waiting;
  }

  end(): void {
    this.socket.end();
  }

  destroy(): void {
    this.socket.destroy();
  }

  private onWritten(): void {
    if (!this.waiting || this.socket.writableLength > 0) return;
    this.waiting = false;
    this.sink?.transportDrained();
    if (this.sink?.inputPaused === false && this.socket.isPaused()) this.socket.resume();
  }
}

/** Serves HTTP/2 on a socket whose first bytes were read already. For plain sockets and for the inner side of TLS. */
export function serveHttp2(socket: Socket, firstBytes: Buffer, open: NonNullable<ConnectionTakers['http2']>): void {
  socket.setNoDelay(true);
  const transport = new SocketTransport(socket);
  const sink = open(transport, peerOf(socket));
  transport.attach(sink);
  const receive = (chunk: Buffer): void => {
    sink.receive(chunk);
    sink.flush();
    if (sink.inputPaused) socket.pause();
  };
  socket.on('data', receive);
  // The peer's FIN ends its calls; what we still have to say goes out first.
  socket.on('end', () => {
    sink.closed();
    socket.end();
  });
  socket.on('close', () => sink.closed());
  receive(firstBytes);
}

function peerOf(socket: Socket): PeerAddress {
  return {
    remote: joinAddress(socket.remoteAddress, socket.remotePort),
    local: joinAddress(socket.localAddress, socket.localPort),
  };
}

/** As Go writes an address; '@' where there is none. */
export function joinAddress(host: string | undefined, port: number | undefined): string {
  if (host === undefined || port === undefined) return '@';
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

export class Listener {
  private takers: ConnectionTakers | null = null;
  private sniffTimeoutMs = 0;
  private readonly quota: ConnectionQuota;
  private readonly servers: Server[] = [];
  /** Connections that came before serve(), unread. */
  private readonly early: Set<Socket> = new Set();
  /** Connections that have not shown their protocol yet. */
  private readonly unknown: Set<Socket> = new Set();

  private constructor(quota: ConnectionQuota) {
    this.quota = quota;
  }

  /** Binds all addresses, or none: rejects with the system's error. */
  static async bind(
    addresses: readonly ListenAddress[],
    quota: ConnectionQuota = new ConnectionQuota(grpcLimits.connectionsMax),
  ): Promise<Listener> {
    const listener = new Listener(quota);
    try {
      for (const address of addresses) listener.servers.push(await listener.bindOne(address));
    } catch (error) {
      await listener.close();
      throw error;
    }
    return listener;
  }

  /** Binds and serves. */
  static async listen(options: ListenerOptions): Promise<Listener> {
    const listener = await Listener.bind(options.addresses);
    listener.serve(options);
    return listener;
  }

  /** Hands on the connections that wait, and from now on all that come. */
  serve(takers: ConnectionTakers, sniffTimeoutMs: number = grpcLimits.sniffTimeoutMs): void {
    assert(this.takers === null, 'a listener serves once');
    this.takers = takers;
    this.sniffTimeoutMs = sniffTimeoutMs;
    const waiting = [...this.early];
    this.early.clear();
    for (const socket of waiting) this.sniff(socket, takers);
  }

  /** Where it listens: `host:port` or a path, in the order of the options, with the ports that the system chose. */
  addresses(): string[] {
    return this.servers.map((server) => {
      const address = server.address();
      if (address === null || typeof address === 'string') return address ?? '';
      return joinAddress(address.address, address.port);
    });
  }

  /** Accepts no more. Connections that were handed on stay with their owners. */
  async close(): Promise<void> {
    for (const socket of [...this.unknown, ...this.early]) socket.destroy();
    // A server's close event waits for its connections, which live on: closing is what counts.
    for (const server of this.servers) server.close();
    this.servers.length = 0;
  }

  private async bindOne(address: ListenAddress): Promise<Server> {
    try {
      return await this.open(address);
    } catch (error) {
      const inUse = (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
      if (!inUse || address.path === undefined || !(await isLeftover(address.path))) throw error;
      await unlink(address.path);
      return await this.open(address);
    }
  }

  private async open(address: ListenAddress): Promise<Server> {
    // Paused: bytes are read only once somebody is there to take them.
    const options = { allowHalfOpen: true, noDelay: true, pauseOnConnect: true };
    const server = createServer(options, (socket) => this.accepted(socket));
    const { listenBacklog: backlog } = grpcLimits;
    if (address.path !== undefined) server.listen({ path: address.path, backlog });
    else if (address.host === '') server.listen({ port: address.port, backlog });
    else server.listen({ port: address.port, host: address.host, backlog });
    await once(server, 'listening');
    return server;
  }

  private accepted(socket: Socket): void {
    // Errors end in 'close', where everything is cleaned up; without a listener they would end the process.
    socket.on('error', () => {});
    if (!this.quota.admits(socket)) return;
    if (this.takers !== null) {
      this.sniff(socket, this.takers);
      return;
    }
    this.early.add(socket);
    socket.once('close', () => this.early.delete(socket));
  }

  private sniff(socket: Socket, takers: ConnectionTakers): void {
    this.unknown.add(socket);
    const timer = setTimeout(() => socket.destroy(), this.sniffTimeoutMs);
    timer.unref();
    let held: Buffer = Buffer.alloc(0);
    const done = (): void => {
      clearTimeout(timer);
      this.unknown.delete(socket);
      socket.off('data', onData);
      socket.off('close', done);
      socket.off('end', onEnd);
    };
    const onEnd = (): void => {
      done();
      socket.destroy();
    };
    const onData = (chunk: Buffer): void => {
      held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
      const protocol = protocolOf(held);
      if (protocol === 'undecided') return;
      done();
      if (this.quota.credential === 'protocol') settleConnection(socket);
      hand(socket, held, protocol, takers);
    };
    socket.on('data', onData);
    socket.on('close', done);
    socket.on('end', onEnd);
    socket.resume();
  }
}

function hand(socket: Socket, bytes: Buffer, protocol: Protocol, { http2, http1, tls }: ConnectionTakers): void {
  if (protocol === 'http2' && http2 !== null) {
    serveHttp2(socket, bytes, http2);
    return;
  }
  const taker = protocol === 'tls' ? tls : protocol === 'http1' ? http1 : null;
  if (taker === null) {
    socket.destroy();
    return;
  }
  socket.pause();
  taker(socket, bytes);
}

/** What a connection speaks by its first bytes. */
function protocolOf(bytes: Buffer): Protocol {
  if (bytes[0] === 0x16) return 'tls';
  const compared = Math.min(bytes.length, prefaceStart.length);
  if (prefaceStart.compare(bytes, 0, compared, 0, compared) === 0) {
    return bytes.length < prefaceStart.length ? 'undecided' : 'http2';
  }
  const line = bytes.indexOf(10);
  if (line >= requestLineBytesMax) return 'none';
  if (line < 0) return bytes.length < requestLineBytesMax ? 'undecided' : 'none';
  return /^[^ ]+ [^ ]+ HTTP\/1\.[0-9]\r?$/.test(bytes.toString('latin1', 0, line)) ? 'http1' : 'none';
}

/** Whether a path is a socket on which nobody accepts: a process that was killed left it. */
async function isLeftover(path: string): Promise<boolean> {
  if (!(await lstat(path)).isSocket()) return false;
  const probe = connect(path);
  try {
    await once(probe, 'connect');
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED';
  } finally {
    probe.destroy();
  }
}
