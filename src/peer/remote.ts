// A member that is not a peer yet, known by the address that its requests carry: it gets answers, so that it can catch up.

import type { Message, NodeId } from '../raft/types.ts';
import { PeerMetrics } from '../telemetry/peer-metrics.ts';
import { messageTypeName } from './message-type-name.ts';
import { PeerStatus } from './peer-status.ts';
import { Pipeline } from './pipeline.ts';
import { idText, type TransportContext } from './transport-context.ts';
import { UrlPicker } from './url-picker.ts';

const CALLER = 'peer/remote.ts';

export class Remote {
  readonly #context: TransportContext;
  readonly #text: string;
  readonly #metrics: PeerMetrics;
  readonly #status: PeerStatus;
  readonly #pipeline: Pipeline;

  constructor(context: TransportContext, id: NodeId, urls: readonly string[]) {
    this.#context = context;
    this.#text = idText(id);
    this.#metrics = new PeerMetrics(context.network, context.localText, this.#text);
    this.#status = new PeerStatus(context, this.#text, this.#metrics);
    this.#pipeline = new Pipeline(context, id, new UrlPicker(urls), this.#status, this.#metrics);
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

  stop(): void {
    this.#pipeline.stop();
    this.#status.handOver();
  }
}
