// Posts raft messages one by one: what is used while a peer has not opened its streams, and for a member that joins.

import { assert } from '../base/assert.ts';
import { peerPostsInFlightMax, peerPostsWaitingMax, peerPostTimeoutMs } from '../cluster-limits.ts';
import { type Message, MessageType, NO_BYTES, type NodeId } from '../raft/types.ts';
import type { PeerMetrics } from '../telemetry/peer-metrics.ts';
import type { PeerStatus } from './peer-status.ts';
import { errorOfPost, memberRemoved } from './post-answer.ts';
import { encodedMessageBytes, writeMessage } from './raft-message.ts';
import { idText, type TransportContext } from './transport-context.ts';
import type { UrlPicker } from './url-picker.ts';

const CALLER = 'peer/pipeline.ts';

export class Pipeline {
  readonly #context: TransportContext;
  readonly #peerId: NodeId;
  readonly #picker: UrlPicker;
  readonly #status: PeerStatus;
  readonly #metrics: PeerMetrics;
  #waiting: Message[] = [];
  #inFlight = 0;
  #isStopped = false;

  constructor(context: TransportContext, peerId: NodeId, picker: UrlPicker, status: PeerStatus, metrics: PeerMetrics) {
    this.#context = context;
    this.#peerId = peerId;
    this.#picker = picker;
    this.#status = status;
    this.#metrics = metrics;
    context.logger.info(CALLER, 'started HTTP pipelining with remote peer', this.#fields());
  }

  /** False: too many wait already. */
  send(message: Message): boolean {
    if (this.#inFlight < peerPostsInFlightMax) this.#post(message);
    else if (this.#waiting.length < peerPostsWaitingMax) this.#waiting.push(message);
    else return false;
    return true;
  }

  /** What is under way ends as it will, unheard. */
  stop(): void {
    this.#isStopped = true;
    this.#waiting = [];
    this.#context.logger.info(CALLER, 'stopped HTTP pipelining with remote peer', this.#fields());
  }

  #post(message: Message): void {
    const { client, headers } = this.#context;
    this.#inFlight++;
    const url = this.#picker.pick();
    const body = encoded(message);
    const request = {
      method: 'POST',
      path: '/raft',
      headers: { 'Content-Type': 'application/protobuf', ...headers },
      body,
      timeoutMs: peerPostTimeoutMs,
      // Proposals would be applied twice, the second time over what others wrote since.
      onlyOnce: message.type === MessageType.prop,
    } as const;
    client.request(url, request, (error, answer) => {
      this.#inFlight--;
      if (this.#isStopped) return;
      let reason = error?.message ?? null;
      if (answer !== null) {
        const cluster = String(answer.headers['x-etcd-cluster-id'] ?? '');
        const text = answer.body.toString('latin1');
        reason = errorOfPost(this.#context, this.#peerId, `${url}/raft`, answer.status, cluster, text);
      }
      this.#ended(url, reason, body.length);
      this.#next();
    });
  }

  #ended(url: string, error: string | null, bytes: number): void {
    if (error === null) {
      this.#status.activate();
      this.#metrics.sent(bytes);
      return;
    }
    this.#picker.unreachable(url);
    this.#status.deactivate('pipeline', 'write', error);
    this.#metrics.sendFailed();
    this.#context.events.unreachable(this.#peerId);
    if (error === memberRemoved) this.#context.events.refused(error, this.#peerId);
  }

  #next(): void {
    const message = this.#isStopped ? undefined : this.#waiting.shift();
    if (message !== undefined) this.#post(message);
  }

  #fields(): Record<string, string> {
    return { 'local-member-id': this.#context.localText, 'remote-peer-id': idText(this.#peerId) };
  }
}

function encoded(message: Message): Buffer {
  const bytes = encodedMessageBytes(message);
  if (bytes === 0) return NO_BYTES;
  const body = Buffer.allocUnsafeSlow(bytes);
  const end = writeMessage(message, body, 0);
  assert(end === bytes, 'a message is as long as announced');
  return body;
}
