// Messages to a peer that were dropped since too much waits for it: raft hears of them once a turn, however many there were, and the log
// once in a while, with their number. What floods a slow peer must not flood the log and raft, too.

import { peerRefusalLogPauseMs } from '../cluster-limits.ts';
import { messageTypeName } from '../raft/message-type-name.ts';
import type { Message, NodeId } from '../raft/types.ts';
import type { PeerMetrics } from '../telemetry/peer-metrics.ts';
import type { PeerStatus } from './peer-status.ts';
import { idText, type TransportContext } from './transport-context.ts';

const CALLER = 'peer/dropped-messages.ts';

export class DroppedMessages {
  readonly #context: TransportContext;
  readonly #peerId: NodeId;
  readonly #status: PeerStatus;
  readonly #metrics: PeerMetrics;
  /** Of this turn: the first, and through what it would have gone. */
  #first: Message | null = null;
  #writerName = '';
  /** Since the last line. */
  #count = 0;
  #loggedMs = -Infinity;

  constructor(context: TransportContext, peerId: NodeId, status: PeerStatus, metrics: PeerMetrics) {
    this.#context = context;
    this.#peerId = peerId;
    this.#status = status;
    this.#metrics = metrics;
  }

  /** Called inside of the transport's send(); whoever called that hears of it later. */
  note(message: Message, writerName: string): void {
    this.#metrics.sendFailed();
    this.#count++;
    if (this.#first !== null) return;
    this.#first = message;
    this.#writerName = writerName;
    this.#context.schedule(() => this.#tell());
  }

  #tell(): void {
    const { events, clock } = this.#context;
    const message = this.#first!;
    this.#first = null;
    const now = clock.nowMs();
    if (now - this.#loggedMs >= peerRefusalLogPauseMs) {
      this.#log(message);
      this.#loggedMs = now;
      this.#count = 0;
    }
    events.unreachable(this.#peerId);
  }

  #log(message: Message): void {
    this.#context.logger.warn(CALLER, 'dropped internal Raft message since sending buffer is full', {
      'message-type': messageTypeName(message.type),
      'local-member-id': this.#context.localText,
      from: idText(message.from),
      'remote-peer-id': idText(this.#peerId),
      'remote-peer-name': this.#writerName,
      'remote-peer-active': this.#status.isActive,
      'dropped-since-last-line': this.#count,
    });
  }
}
