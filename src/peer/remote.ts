// A member that is not a peer yet, known by the address that its requests carry: it gets answers, so that it can catch up.

import { PeerClient } from '../io/peer-client.ts';
import { messageTypeName } from '../raft/message-type-name.ts';
import type { Message, NodeId } from '../raft/types.ts';
import { PeerMetrics } from '../telemetry/peer-metrics.ts';
import { PeerStatus } from './peer-status.ts';
import { Pipeline } from './pipeline.ts';
import { idText, type TransportContext } from './transport-context.ts';
import { UrlPicker } from './url-picker.ts';

const CALLER = 'peer/remote.ts';

type Reach = 'never answered' | 'does not answer' | 'answers';

export class Remote {
  readonly id: NodeId;
  readonly urls: readonly string[];
  readonly #context: TransportContext;
  readonly #text: string;
  readonly #metrics: PeerMetrics;
  readonly #status: PeerStatus;
  /** Its own, so that what is under way can be cut with it. A connection a post: it is soon a peer, or nobody. */
  readonly #client: PeerClient;
  readonly #pipeline: Pipeline;

  constructor(context: TransportContext, id: NodeId, urls: readonly string[]) {
    this.id = id;
    this.urls = urls;
    this.#context = context;
    this.#text = idText(id);
    this.#metrics = new PeerMetrics(context.network, context.localText, context.labels.ofId(id));
    this.#status = new PeerStatus(context, this.#text, this.#metrics);
    this.#client = new PeerClient({ dialer: context.dialer, keepsConnections: false });
    const itsOwn = { ...context, client: this.#client };
    this.#pipeline = new Pipeline(itsOwn, id, new UrlPicker(urls), this.#status, this.#metrics);
  }

  get reach(): Reach {
    if (this.#status.isActive) return 'answers';
    return this.#status.wasActive ? 'does not answer' : 'never answered';
  }

  send(message: Message): void {
    if (this.#pipeline.send(message)) return;
    const what = this.#status.isActive ? 'internal Raft message' : 'Raft message';
    const text = `dropped ${what} since sending buffer is full (overloaded network)`;
    this.#context.logger.warn(CALLER, text, {
      'message-type': messageTypeName(message.type),
      'local-member-id': this.#context.localText,
      from: idText(message.from),
      'remote-peer-id': this.#text,
      'remote-peer-active': this.#status.isActive,
    });
    this.#metrics.sendFailed();
  }

  /** What is under way ends as it will, unheard. */
  stop(): void {
    this.#pipeline.stop();
    this.#status.handOver();
  }

  /** Nothing is under way any more. */
  cut(): void {
    this.stop();
    this.#client.stop();
  }
}
