// A member that is nothing but its transport, on a real socket: what tests of the peer protocol put together. It keeps what the
// transport tells it, and stores the databases of snapshots in memory.

import type { Socket } from 'node:net';
import { systemClock } from '../io/clock.ts';
import { Http1Server } from '../io/http1.ts';
import { Listener } from '../io/listener.ts';
import { PeerDialer } from '../io/peer-dialer.ts';
import { HttpTransport } from '../peer/http-transport.ts';
import type { PeerEvents, SnapshotReceipt } from '../peer/peer-transport.ts';
import type { TransportTimings } from '../peer/transport-context.ts';
import type { Message, NodeId } from '../raft/types.ts';
import { Logger } from '../telemetry/logger.ts';
import { NetworkMetrics } from '../telemetry/member-metrics.ts';
import { Builder } from '../telemetry/metric-builder.ts';

export interface TransportMemberOptions {
  readonly id: NodeId;
  readonly clusterId?: NodeId;
  /** 0, or left out: the system chooses. */
  readonly port?: number;
  readonly version?: string;
  readonly timings?: Partial<TransportTimings>;
  readonly unfinishedBytesMax?: number;
  /** Takes what arrives of a snapshot; by default it is kept. */
  readonly receipt?: (message: Message) => SnapshotReceipt | null;
}

/** Timeouts a tenth of etcd's. */
export const quickTimings: Partial<TransportTimings> = {
  readTimeoutMs: 500,
  writeTimeoutMs: 500,
  retryMs: 20,
  probeMs: 50,
  probeErrorMs: 80,
  probeLookMs: 300,
};

export class TransportMember implements PeerEvents {
  readonly id: NodeId;
  readonly transport: HttpTransport;
  readonly network: NetworkMetrics;
  readonly builder: Builder = new Builder();
  readonly messages: Message[] = [];
  readonly logLines: string[] = [];
  readonly removed: Set<NodeId> = new Set();
  readonly refusals: string[] = [];
  /** Who refused, in the same order. */
  readonly refusedBy: NodeId[] = [];
  readonly unreachableIds: NodeId[] = [];
  readonly snapshotResults: boolean[] = [];
  /** Of snapshots that came whole. */
  readonly databases: Buffer[] = [];
  abortedSnapshots = 0;
  /** Looks at each message as it comes. */
  onMessage: ((message: Message) => void) | null = null;
  url = '';
  /** Connections that others opened. */
  readonly sockets: Set<Socket> = new Set();
  readonly #options: TransportMemberOptions;
  #listener: Listener | null = null;
  #http: Http1Server | null = null;

  private constructor(options: TransportMemberOptions, listener: Listener) {
    this.#options = options;
    this.id = options.id;
    this.#listener = listener;
    this.url = `http://${listener.addresses()[0]!}`;
    this.network = new NetworkMetrics(this.builder);
    this.transport = new HttpTransport({
      localId: options.id,
      clusterId: options.clusterId ?? 0xc1n,
      localUrls: [this.url],
      serverVersion: options.version ?? '3.7.1',
      dialer: new PeerDialer(1000),
      clock: systemClock,
      schedule: setImmediate,
      logger: new Logger({
        level: 'debug',
        format: 'json',
        sink: { write: (line) => this.logLines.push(line), flush: () => {} },
        now: () => systemClock.wallMs(),
      }),
      network: this.network,
      timings: options.timings ?? quickTimings,
      ...(options.unfinishedBytesMax === undefined ? {} : { unfinishedBytesMax: options.unfinishedBytesMax }),
    });
    this.transport.start(this);
    this.#serve();
  }

  static async start(options: TransportMemberOptions): Promise<TransportMember> {
    const listener = await Listener.bind([{ host: '127.0.0.1', port: options.port ?? 0 }]);
    return new TransportMember(options, listener);
  }

  get port(): number {
    return Number(this.url.slice(this.url.lastIndexOf(':') + 1));
  }

  /** Nobody can connect any more, and who is connected is cut off. */
  async disconnect(): Promise<void> {
    await this.#listener?.close();
    this.#listener = null;
    for (const socket of this.sockets) socket.destroy();
  }

  async reconnect(): Promise<void> {
    this.#listener = await Listener.bind([{ host: '127.0.0.1', port: this.port }]);
    this.#serve();
  }

  async stop(): Promise<void> {
    this.transport.stop();
    await this.disconnect();
    await this.#http?.close(10);
  }

  #serve(): void {
    this.#http ??= new Http1Server({
      handler: (request) => ({ status: 200, headers: { 'X-Method': request.method }, body: request.body }),
      bodyBytesMax: 1000,
      onError: (error) => {
        throw error;
      },
      onPeerExchange: (exchange) => this.transport.handle(exchange),
    });
    const http1 = (socket: Socket, bytes: Buffer): void => {
      this.sockets.add(socket);
      socket.once('close', () => this.sockets.delete(socket));
      this.#http!.accept(socket, bytes);
    };
    this.#listener!.serve({ http2: null, tls: null, http1 });
  }

  // PeerEvents

  message(message: Message): void {
    this.messages.push(message);
    this.onMessage?.(message);
  }
  unreachable(id: NodeId): void {
    this.unreachableIds.push(id);
  }
  snapshotSent(_id: NodeId, succeeded: boolean): void {
    this.snapshotResults.push(succeeded);
  }
  snapshotArrives(message: Message): SnapshotReceipt | null {
    if (this.#options.receipt !== undefined) return this.#options.receipt(message);
    const chunks: Buffer[] = [];
    return {
      write: (bytes) => chunks.push(bytes) > 0,
      drained: null,
      end: (done) => {
        this.databases.push(Buffer.concat(chunks));
        setImmediate(() => done(null));
      },
      abort: () => {
        this.abortedSnapshots++;
      },
    };
  }
  isRemoved(id: NodeId): boolean {
    return this.removed.has(id);
  }
  refused(reason: string, by: NodeId): void {
    this.refusals.push(reason);
    this.refusedBy.push(by);
  }
}

/** Waits until `condition` holds; a test's own time limit ends a wait that is in vain. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}
