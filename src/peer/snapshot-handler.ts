// Takes a snapshot that a peer posts: the message, then the database, which goes to where the member says as it comes. The message is
// handed on when the database is durable, and only then is the post answered.
//
//   head --message--> database --end, durable--> 204
//     \--malformed, refused--> 4xx/500   \--broken off, not stored--> 500

import { snapshotMessageBytesMax, snapshotSilenceTimeoutMs } from '../cluster-limits.ts';
import { durationText, humanBytes } from '../config/go-value.ts';
import type { PeerExchange } from '../io/peer-exchange.ts';
import { messageTypeName } from '../raft/message-type-name.ts';
import { type Message, MessageType } from '../raft/types.ts';
import { PeerMetrics } from '../telemetry/peer-metrics.ts';
import { refusalOf } from './inbox.ts';
import { tooManyUnfinished } from './message-body.ts';
import { frameNumberBytes, readFrameNumber } from './message-stream.ts';
import { answerError, answerRefusal } from './peer-answer.ts';
import type { SnapshotReceipt } from './peer-transport.ts';
import { decodeMessage } from './raft-message.ts';
import { idText, type TransportContext } from './transport-context.ts';
import type { UnfinishedBodies, UnfinishedBody } from './unfinished-bodies.ts';

const CALLER = 'peer/snapshot-handler.ts';

export function receiveSnapshot(
  context: TransportContext,
  exchange: PeerExchange,
  headers: Record<string, string>,
  bodies: UnfinishedBodies,
): void {
  const arrival = new SnapshotArrival(context, exchange, headers, bodies);
  exchange.receiveBody(snapshotSilenceTimeoutMs, arrival);
}

class SnapshotArrival {
  readonly #context: TransportContext;
  readonly #exchange: PeerExchange;
  readonly #headers: Record<string, string>;
  readonly #startMs: number;
  /** What came before the database, and how much of it there must be to go on. */
  readonly #head: UnfinishedBody;
  #headNeeded = frameNumberBytes;
  #message: Message | null = null;
  #receipt: SnapshotReceipt | null = null;
  #metrics: PeerMetrics | null = null;
  #databaseBytes = 0;
  #isOver = false;

  constructor(
    context: TransportContext,
    exchange: PeerExchange,
    headers: Record<string, string>,
    bodies: UnfinishedBodies,
  ) {
    this.#context = context;
    this.#exchange = exchange;
    this.#headers = headers;
    this.#startMs = context.clock.nowMs();
    this.#head = bodies.open(() => this.#malformed(tooManyUnfinished, 503));
  }

  chunk(bytes: Buffer): boolean {
    if (this.#isOver) return true;
    if (this.#receipt !== null) return this.#write(bytes);
    if (!this.#head.append(bytes, this.#headNeeded) || this.#head.length < this.#headNeeded) return true;
    const length = readFrameNumber(this.#head.bytes, 0);
    if (length > snapshotMessageBytesMax) {
      this.#malformed('rafthttp: error limit exceeded');
      return true;
    }
    const end = frameNumberBytes + length;
    if (this.#head.length < end) {
      this.#headNeeded = end;
      return true;
    }
    const head = this.#head.take();
    const message = decodeMessage(head, frameNumberBytes, end);
    const rest = head.subarray(end);
    if (message === null) {
      this.#malformed('proto: cannot parse');
      return true;
    }
    if (!this.#begin(message, length)) return true;
    return rest.length === 0 || this.#write(rest);
  }

  end(): void {
    if (this.#isOver) return;
    if (this.#receipt === null) {
      this.#malformed('unexpected EOF');
      return;
    }
    this.#receipt.end((error) => {
      if (this.#isOver) return;
      if (error === null) this.#stored();
      else this.#failed(error.message);
    });
  }

  broken(error: Error): void {
    if (this.#isOver) return;
    if (this.#receipt === null) {
      this.#malformed(error.message);
      return;
    }
    this.#receipt.abort();
    this.#failed(error.message);
  }

  #write(bytes: Buffer): boolean {
    this.#databaseBytes += bytes.length;
    return this.#receipt!.write(bytes);
  }

  /** Whether the database may follow. */
  #begin(message: Message, length: number): boolean {
    const { logger, network, labels, localText, events } = this.#context;
    const from = labels.ofId(message.from);
    const metrics = new PeerMetrics(network, localText, from);
    this.#message = message;
    metrics.received(length);
    if (message.type !== MessageType.snap || message.snapshot === null) {
      const type = messageTypeName(message.type);
      logger.warn(CALLER, 'unexpected Raft message type', { ...this.#who(), 'message-type': type });
      network.snapshotReceiveFailures.with(from).value++;
      this.#isOver = true;
      answerError(this.#exchange, 400, this.#headers, 'wrong raft message type');
      return false;
    }
    // etcd looks after the database has come; here it does not come for nothing.
    const refusal = refusalOf(this.#context, message);
    if (refusal !== null) {
      this.#isOver = true;
      answerRefusal(this.#exchange, this.#headers, refusal);
      return false;
    }
    this.#metrics = metrics;
    metrics.snapshotReceiveBegan();
    logger.info(CALLER, 'receiving database snapshot', {
      ...this.#who(),
      'incoming-snapshot-index': message.snapshot.meta.index,
      'incoming-snapshot-message-size-bytes': length,
      'incoming-snapshot-message-size': humanBytes(length),
    });
    this.#receipt = events.snapshotArrives(message);
    if (this.#receipt === null) {
      this.#failed('it cannot be taken now');
      return false;
    }
    this.#exchange.settle();
    this.#receipt.drained = (): void => this.#exchange.resumeBody();
    return true;
  }

  #stored(): void {
    const { logger, clock, events } = this.#context;
    const message = this.#message!;
    const tookMs = clock.nowMs() - this.#startMs;
    this.#isOver = true;
    this.#metrics!.received(this.#databaseBytes);
    logger.info(CALLER, 'received and saved database snapshot', {
      ...this.#who(),
      'incoming-snapshot-index': message.snapshot!.meta.index,
      'incoming-snapshot-size-bytes': this.#databaseBytes,
      'incoming-snapshot-size': humanBytes(this.#databaseBytes),
      'download-took': durationText(tookMs),
    });
    this.#metrics!.snapshotReceiveEnded(tookMs / 1000);
    events.message(message);
    this.#exchange.answer(204, this.#headers, '');
  }

  #failed(error: string): void {
    this.#isOver = true;
    this.#context.logger.warn(CALLER, 'failed to save incoming database snapshot', {
      ...this.#who(),
      'incoming-snapshot-index': this.#message!.snapshot!.meta.index,
      error,
    });
    this.#metrics!.snapshotReceiveEnded(null);
    answerError(this.#exchange, 500, this.#headers, `failed to save KV snapshot (${error})`);
  }

  #malformed(error: string, status = 400): void {
    const { logger, network, labels } = this.#context;
    this.#isOver = true;
    this.#head.close();
    logger.warn(CALLER, 'failed to decode Raft message', { ...this.#who(), error });
    network.peerReceivedFailures.with(labels.ofHost(this.#exchange.remoteHost)).value++;
    network.snapshotReceiveFailures.with('0').value++;
    answerError(this.#exchange, status, this.#headers, `failed to decode raft message (${error})`);
  }

  #who(): Record<string, string> {
    const from = this.#message?.from ?? 0n;
    return { 'local-member-id': this.#context.localText, 'remote-snapshot-sender-id': idText(from) };
  }
}
