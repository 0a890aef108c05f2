// Raft's traffic between members over HTTP/1.1, as etcd's rafthttp has it on the wire.
//
//   GET  /raft/stream/message/<id>  a stream of messages to the member <id> that asks      message-stream.ts
//   GET  /raft/stream/msgapp/<id>   the same, of appends in their short form               append-stream.ts
//   POST /raft                      one message, while there is no stream                  pipeline.ts
//   POST /raft/snapshot             MsgSnap and behind it the database                     snapshot-sender.ts, snapshot-handler.ts
//   GET  /raft/probing              how long a request takes and what the time is          probing.ts
//
// Whoever wants to receive dials. Messages are encoded as they are given and go out at flush(): one socket write a stream and turn.

import { assert } from '../base/assert.ts';
import { peerUnfinishedBytesMax } from '../cluster-limits.ts';
import type { Clock, Timer } from '../io/clock.ts';
import { parsePeerUrl } from '../io/peer-address.ts';
import { PeerClient } from '../io/peer-client.ts';
import type { PeerDialer } from '../io/peer-dialer.ts';
import type { PeerExchange } from '../io/peer-exchange.ts';
import { type Message, MessageType, type NodeId } from '../raft/types.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { NetworkMetrics } from '../telemetry/member-metrics.ts';
import { Peer } from './peer.ts';
import { answerError } from './peer-answer.ts';
import { PeerHandler } from './peer-handler.ts';
import type { PeerEvents, PeerTransport, SnapshotBody } from './peer-transport.ts';
import { minClusterVersion } from './peer-version.ts';
import { RemoteTable } from './remote-table.ts';
import { SenderLabels } from './sender-labels.ts';
import {
  etcdTimings,
  idText,
  type TransportContext,
  type TransportTimings,
  ticksPerTimeout,
} from './transport-context.ts';

const CALLER = 'peer/http-transport.ts';

export interface HttpTransportOptions {
  readonly localId: NodeId;
  readonly clusterId: NodeId;
  /** What this member advertises: peers hear of them with every request. */
  readonly localUrls: readonly string[];
  /** major.minor.patch of etcd. */
  readonly serverVersion: string;
  readonly dialer: PeerDialer;
  readonly clock: Clock;
  /** setImmediate: for what may not be told inside of a call. */
  readonly schedule: (callback: () => void) => void;
  readonly logger: Logger;
  readonly network: NetworkMetrics;
  /** etcd's where left out. */
  readonly timings?: Partial<TransportTimings>;
  /** Tests shrink it. */
  readonly unfinishedBytesMax?: number;
}

export class HttpTransport implements PeerTransport {
  readonly #options: HttpTransportOptions;
  readonly #peers: Map<NodeId, Peer> = new Map();
  readonly #remotes: RemoteTable = new RemoteTable();
  readonly #client: PeerClient;
  readonly #freshClient: PeerClient;
  /** Peers that send() gave something to since the last flush(). */
  readonly #dirty: Peer[] = [];
  #context: TransportContext | null = null;
  #handler: PeerHandler | null = null;
  #tickTimer: Timer | null = null;
  #isStopped = false;

  constructor(options: HttpTransportOptions) {
    this.#options = options;
    this.#client = new PeerClient({ dialer: options.dialer });
    this.#freshClient = new PeerClient({ dialer: options.dialer, keepsConnections: false });
  }

  /** Once, before anything else: from now on `events` are told. */
  start(events: PeerEvents): void {
    assert(this.#context === null, 'a transport starts once');
    const { localId, clusterId, localUrls, serverVersion, timings, unfinishedBytesMax, schedule, ...given } =
      this.#options;
    const localText = idText(localId);
    const clusterText = idText(clusterId);
    const context: TransportContext = {
      ...given,
      localId,
      localText,
      clusterText,
      serverVersion,
      headers: {
        'X-Server-From': localText,
        'X-Server-Version': serverVersion,
        'X-Min-Cluster-Version': minClusterVersion,
        'X-Etcd-Cluster-ID': clusterText,
        'X-PeerURLs': localUrls.join(','),
      },
      events,
      schedule: (callback) =>
        schedule(() => {
          if (!this.#isStopped) callback();
        }),
      timings: { ...etcdTimings, ...timings },
      client: this.#client,
      freshClient: this.#freshClient,
      labels: new SenderLabels((id) => this.#peers.has(id)),
    };
    this.#context = context;
    const known = {
      peer: (id: NodeId): Peer | undefined => this.#peers.get(id),
      addRemote: (id: NodeId, urls: readonly string[]): void => this.addRemote(id, urls),
    };
    this.#handler = new PeerHandler(context, known, unfinishedBytesMax ?? peerUnfinishedBytesMax);
    this.#tickLater();
  }

  /** Answers a request under /raft; io/http1.ts hands it on. */
  handle(exchange: PeerExchange): void {
    if (this.#handler === null || this.#isStopped) answerError(exchange, 503, {}, 'Service Unavailable');
    else this.#handler.handle(exchange);
  }

  /** Hot. */
  send(messages: readonly Message[]): void {
    for (let i = 0; i < messages.length; i++) {
      const message = messages[i]!;
      assert(message.type !== MessageType.snap, 'snapshots go by sendSnapshot');
      const peer = this.#peers.get(message.to);
      if (peer !== undefined) {
        peer.send(message);
        if (!this.#dirty.includes(peer)) this.#dirty.push(peer);
      } else this.#remotes.get(message.to)?.send(message);
    }
  }

  /** Hot. */
  flush(): void {
    const dirty = this.#dirty;
    for (let i = 0; i < dirty.length; i++) dirty[i]!.flush();
    dirty.length = 0;
  }

  sendSnapshot(message: Message, body: SnapshotBody): void {
    assert(message.type === MessageType.snap, 'only snapshots go by sendSnapshot');
    const peer = this.#peers.get(message.to);
    if (peer !== undefined) {
      peer.sendSnapshot(message, body);
      return;
    }
    this.#started().schedule(() => {
      body.cancel();
      this.#started().events.snapshotSent(message.to, false);
    });
  }

  addRemote(id: NodeId, urls: readonly string[]): void {
    const { logger, localText, localId } = this.#started();
    if (this.#isStopped || id === localId || this.#peers.has(id) || !this.#remotes.isNews(id, urls)) return;
    const fields = {
      'local-member-id': localText,
      'remote-peer-id': idText(id),
      'remote-peer-urls': urls,
    };
    // They come with requests of whoever sends some: etcd ends itself when they are no URLs.
    if (urls.some((url) => parsePeerUrl(url) === null)) {
      logger.warn(CALLER, 'ignored a remote peer: no URLs', fields);
      return;
    }
    this.#remotes.add(this.#started(), id, urls);
    logger.info(CALLER, 'added new remote peer', fields);
  }

  addPeer(id: NodeId, urls: readonly string[]): void {
    const context = this.#started();
    assert(!this.#isStopped, 'transport stopped');
    assert(id !== context.localId, 'a member is not its own peer');
    if (this.#peers.has(id)) return;
    this.#remotes.release(id);
    this.#peers.set(id, new Peer(context, id, urls));
    context.logger.info(CALLER, 'added remote peer', {
      'local-member-id': context.localText,
      'remote-peer-id': idText(id),
      'remote-peer-urls': urls,
    });
  }

  updatePeer(id: NodeId, urls: readonly string[]): void {
    const peer = this.#peers.get(id);
    if (peer === undefined) return;
    peer.update(urls);
    const { logger, localText } = this.#started();
    logger.info(CALLER, 'updated remote peer', {
      'local-member-id': localText,
      'updated-remote-peer-id': idText(id),
      'updated-remote-peer-urls': urls,
    });
  }

  removePeer(id: NodeId): void {
    const { logger, localText } = this.#started();
    const fields = { 'local-member-id': localText, 'removed-remote-peer-id': idText(id) };
    const peer = this.#peers.get(id);
    if (peer === undefined) {
      logger.warn(CALLER, 'skipped removing already removed peer', fields);
      return;
    }
    // What raft has sent it goes out first: that it was removed may be among it.
    peer.flush();
    peer.stop();
    this.#peers.delete(id);
    logger.info(CALLER, 'removed remote peer', fields);
  }

  activeSinceMs(id: NodeId): number | null {
    return this.#peers.get(id)?.status.activeSinceMs ?? null;
  }

  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    if (this.#tickTimer !== null) this.#options.clock.clearTimer(this.#tickTimer);
    this.#remotes.stop();
    for (const peer of this.#peers.values()) peer.stop();
    this.#peers.clear();
    this.#dirty.length = 0;
    this.#client.stop();
    this.#freshClient.stop();
  }

  #started(): TransportContext {
    assert(this.#context !== null, 'a transport is started first');
    return this.#context;
  }

  #tickLater(): void {
    const { clock, timings } = this.#started();
    this.#tickTimer = clock.setTimer(timings.readTimeoutMs / ticksPerTimeout, () => {
      this.#tickLater();
      for (const peer of this.#peers.values()) peer.tick();
    });
  }
}
