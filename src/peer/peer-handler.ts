// Answers what other members ask under /raft, with etcd's checks in etcd's order: the method, the versions, the cluster, then what the
// path is about.

import type { PeerExchange } from '../io/peer-exchange.ts';
import { MessageType, type NodeId } from '../raft/types.ts';
import { refusalOf } from './inbox.ts';
import { readMessageBody, tooManyUnfinished } from './message-body.ts';
import type { Peer } from './peer.ts';
import { answerError, answerRefusal } from './peer-answer.ts';
import { checkVersions, minClusterVersion, parseVersion } from './peer-version.ts';
import { clusterIdMismatch, incompatibleVersion } from './post-answer.ts';
import { probeAnswer, probePath } from './probing.ts';
import { decodeMessage } from './raft-message.ts';
import { receiveSnapshot } from './snapshot-handler.ts';
import { appendStream, messageStream } from './stream-kind.ts';
import { idText, parseIdText, type TransportContext } from './transport-context.ts';
import { UnfinishedBodies } from './unfinished-bodies.ts';

const CALLER = 'peer/peer-handler.ts';
const streamPrefix = '/raft/stream/';
const streamKinds = [appendStream, messageStream];

/** Why a request is not served. */
interface Refusal {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
}

const notFound: Refusal = { status: 404, headers: {}, text: '404 page not found' };
const onlyGet: Refusal = { status: 405, headers: { Allow: 'GET' }, text: 'Method Not Allowed' };
const onlyPost: Refusal = { status: 405, headers: { Allow: 'POST' }, text: 'Method Not Allowed' };

export interface KnownPeers {
  peer(id: NodeId): Peer | undefined;
  addRemote(id: NodeId, urls: readonly string[]): void;
}

export class PeerHandler {
  readonly #context: TransportContext;
  readonly #peers: KnownPeers;
  readonly #clusterHeader: Record<string, string>;
  readonly #unfinished: UnfinishedBodies;

  /** Messages that come in parts take no more than `unfinishedBytesMax` together. */
  constructor(context: TransportContext, peers: KnownPeers, unfinishedBytesMax: number) {
    this.#context = context;
    this.#peers = peers;
    this.#unfinished = new UnfinishedBodies(unfinishedBytesMax);
    this.#clusterHeader = { 'X-Etcd-Cluster-Id': context.clusterText };
  }

  handle(exchange: PeerExchange): void {
    const refusal = this.#serve(exchange);
    if (refusal !== null) answerError(exchange, refusal.status, refusal.headers, refusal.text);
  }

  /** Null: it is answered, or will be. */
  #serve(exchange: PeerExchange): Refusal | null {
    const { path } = exchange;
    if (path === '/raft') return this.#message(exchange);
    if (path === '/raft/snapshot') return this.#snapshot(exchange);
    if (path.startsWith(streamPrefix)) return this.#stream(exchange);
    if (path !== probePath) return notFound;
    const type = { 'Content-Type': 'text/plain; charset=utf-8' };
    exchange.answer(200, type, probeAnswer(this.#context.clock.wallMs()));
    return null;
  }

  #message(exchange: PeerExchange): Refusal | null {
    if (exchange.method !== 'POST') return onlyPost;
    const error = this.#checkCompatibility(exchange);
    if (error !== null) return { status: 412, headers: this.#clusterHeader, text: error };
    this.#addSender(exchange);
    readMessageBody(exchange, this.#unfinished, (failure, body) => {
      if (body === null) this.#unread(exchange, 'failed to read', 'error reading raft message', failure ?? '');
      else this.#step(exchange, body);
    });
    return null;
  }

  #step(exchange: PeerExchange, body: Buffer): void {
    const message = decodeMessage(body, 0, body.length);
    // A snapshot without the database behind it is of no use; members send none.
    if (message === null || message.type === MessageType.snap) {
      const reason = message === null ? 'proto: cannot parse' : 'a snapshot without a database';
      this.#unread(exchange, 'failed to unmarshal', 'error unmarshalling raft message', reason);
      return;
    }
    this.#context.network.peerReceivedBytes.with(this.#context.labels.ofId(message.from)).value += body.length;
    const refusal = refusalOf(this.#context, message);
    if (refusal !== null) {
      answerRefusal(exchange, this.#clusterHeader, refusal);
      return;
    }
    if (this.#peers.peer(message.from) !== undefined) exchange.settle();
    this.#context.events.message(message);
    exchange.answer(204, this.#clusterHeader, '');
  }

  #unread(exchange: PeerExchange, what: string, text: string, error: string): void {
    const { logger, localText, network, labels } = this.#context;
    logger.warn(CALLER, `${what} Raft message`, { 'local-member-id': localText, error });
    network.peerReceivedFailures.with(labels.ofHost(exchange.remoteHost)).value++;
    answerError(exchange, error === tooManyUnfinished ? 503 : 400, this.#clusterHeader, text);
  }

  #snapshot(exchange: PeerExchange): Refusal | null {
    const isPost = exchange.method === 'POST';
    const error = isPost ? this.#checkCompatibility(exchange) : null;
    if (!isPost || error !== null) {
      this.#context.network.snapshotReceiveFailures.with('UNKNOWN_SNAPSHOT_SENDER').value++;
      return error === null ? onlyPost : { status: 412, headers: this.#clusterHeader, text: error };
    }
    this.#addSender(exchange);
    receiveSnapshot(this.#context, exchange, this.#clusterHeader, this.#unfinished);
    return null;
  }

  #stream(exchange: PeerExchange): Refusal | null {
    if (exchange.method !== 'GET') return onlyGet;
    const headers = { ...this.#clusterHeader, 'X-Server-Version': this.#context.serverVersion };
    const refuse = (status: number, text: string): Refusal => ({ status, headers, text });
    const error = this.#checkCompatibility(exchange);
    if (error !== null) return refuse(412, error);
    const { path } = exchange;
    const kind = streamKinds.find(({ pathPrefix }) => path.startsWith(pathPrefix));
    if (kind === undefined) return refuse(404, 'invalid path');
    const { logger, localText, clusterText, events } = this.#context;
    const local = { 'local-member-id': localText, 'remote-peer-id-stream-handler': localText };
    const fromText = path.slice(kind.pathPrefix.length);
    const from = parseIdText(fromText);
    if (from === null) {
      const invalid = `strconv.ParseUint: parsing ${JSON.stringify(fromText)}: invalid syntax`;
      logger.warn(CALLER, 'failed to parse path into ID', { ...local, path: fromText, error: invalid });
      return refuse(404, 'invalid from');
    }
    const remote = { ...local, 'remote-peer-id-from': idText(from) };
    if (events.isRemoved(from)) {
      logger.warn(CALLER, 'rejected stream from remote peer because it was removed', remote);
      return refuse(410, 'removed member');
    }
    const peer = this.#peers.peer(from);
    if (peer === undefined) {
      this.#addRemote(from, exchange);
      logger.warn(CALLER, 'failed to find remote peer in cluster', { ...remote, 'cluster-id': clusterText });
      return refuse(404, 'error sender not found');
    }
    const to = exchange.header('X-Raft-To');
    if (to !== localText) {
      const fields = { ...local, 'remote-peer-id-header': to, 'remote-peer-id-from': idText(from) };
      logger.warn(CALLER, 'ignored streaming request; ID mismatch', { ...fields, 'cluster-id': clusterText });
      return refuse(412, 'to field mismatch');
    }
    exchange.settle();
    peer.attach(kind, exchange.openStream(headers));
    return null;
  }

  #addSender(exchange: PeerExchange): void {
    const from = parseIdText(exchange.header('X-Server-From'));
    if (from !== null) this.#addRemote(from, exchange);
  }

  #addRemote(from: NodeId, exchange: PeerExchange): void {
    const urls = exchange.header('X-PeerURLs');
    if (urls !== '') this.#peers.addRemote(from, urls.split(','));
  }

  /** Null, or what the other member is told. */
  #checkCompatibility(exchange: PeerExchange): string | null {
    const { serverVersion, clusterText, localText, logger } = this.#context;
    const name = exchange.header('X-Server-From');
    const serverText = exchange.header('X-Server-Version');
    const minClusterText = exchange.header('X-Min-Cluster-Version');
    const fields = {
      'local-member-id': localText,
      'local-member-cluster-id': clusterText,
      'local-member-server-version': serverVersion,
      'local-member-server-minimum-cluster-version': minClusterVersion,
      'remote-peer-server-name': name,
      'remote-peer-server-version': serverText || '2.0.0',
      'remote-peer-server-minimum-cluster-version': minClusterText || '2.0.0',
    };
    const server = parseVersion(serverText);
    const minCluster = parseVersion(minClusterText);
    // What is no version makes etcd's handler panic, which cuts the connection.
    const error =
      server === null || minCluster === null
        ? 'not a version'
        : checkVersions(parseVersion(serverVersion)!, name, server, minCluster);
    if (error !== null) {
      logger.warn(CALLER, 'failed version compatibility check', { ...fields, error });
      return incompatibleVersion;
    }
    const cluster = exchange.header('X-Etcd-Cluster-ID');
    if (cluster === clusterText) return null;
    logger.warn(CALLER, 'request cluster ID mismatch', { ...fields, 'remote-peer-cluster-id': cluster });
    return clusterIdMismatch;
  }
}
