// One peer: its streams in both directions, its pipeline, its snapshots and its probes; and which of them a message takes.

import type { OutgoingStream } from '../io/outgoing-stream.ts';
import { type Message, MessageType, type NodeId } from '../raft/types.ts';
import { PeerMetrics } from '../telemetry/peer-metrics.ts';
import { DroppedMessages } from './dropped-messages.ts';
import { PeerStatus } from './peer-status.ts';
import type { SnapshotBody } from './peer-transport.ts';
import { Pipeline } from './pipeline.ts';
import { Probe } from './probing.ts';
import { SnapshotSender } from './snapshot-sender.ts';
import { appendStream, messageStream, type StreamKind } from './stream-kind.ts';
import { StreamReader } from './stream-reader.ts';
import { StreamWriter } from './stream-writer.ts';
import { idText, type TransportContext } from './transport-context.ts';
import { UrlPicker } from './url-picker.ts';

const CALLER = 'peer/peer.ts';

export class Peer {
  readonly id: NodeId;
  readonly status: PeerStatus;
  readonly #context: TransportContext;
  readonly #text: string;
  readonly #metrics: PeerMetrics;
  readonly #picker: UrlPicker;
  readonly #pipeline: Pipeline;
  readonly #snapshots: SnapshotSender;
  readonly #appendWriter: StreamWriter;
  readonly #messageWriter: StreamWriter;
  readonly #readers: readonly StreamReader[];
  readonly #dropped: DroppedMessages;
  #probes: readonly Probe[] = [];

  constructor(context: TransportContext, id: NodeId, urls: readonly string[]) {
    const text = idText(id);
    const { logger } = context;
    logger.info(CALLER, 'starting remote peer', { 'remote-peer-id': text });
    this.#context = context;
    this.id = id;
    this.#text = text;
    const metrics = new PeerMetrics(context.network, context.localText, text);
    const status = new PeerStatus(context, text, metrics);
    const picker = new UrlPicker(urls);
    this.#metrics = metrics;
    this.status = status;
    this.#picker = picker;
    this.#pipeline = new Pipeline(context, id, picker, status, metrics);
    this.#snapshots = new SnapshotSender(context, id, picker, status, metrics);
    this.#appendWriter = new StreamWriter(context, appendStream, id, status, metrics);
    this.#messageWriter = new StreamWriter(context, messageStream, id, status, metrics);
    this.#readers = [appendStream, messageStream].map(
      (kind) => new StreamReader(context, kind, id, picker, status, metrics),
    );
    this.#dropped = new DroppedMessages(context, id, status, metrics);
    this.#startProbes(urls);
    logger.info(CALLER, 'started remote peer', { 'remote-peer-id': text });
  }

  /** Takes a message of this turn. Hot. */
  send(message: Message): void {
    const isAppend = message.type === MessageType.app;
    if (isAppend && this.#appendWriter.isWorking) {
      if (!this.#appendWriter.send(message)) this.#dropped.note(message, this.#appendWriter.kind.writerName);
    } else if (this.#messageWriter.isWorking) {
      if (!this.#messageWriter.send(message)) this.#dropped.note(message, this.#messageWriter.kind.writerName);
    } else if (!this.#pipeline.send(message)) this.#dropped.note(message, 'pipeline');
  }

  flush(): void {
    this.#appendWriter.flush();
    this.#messageWriter.flush();
  }

  sendSnapshot(message: Message, body: SnapshotBody): void {
    this.#snapshots.send(message, body);
  }

  attach(kind: StreamKind, stream: OutgoingStream): void {
    (kind === appendStream ? this.#appendWriter : this.#messageWriter).attach(stream);
  }

  update(urls: readonly string[]): void {
    this.#picker.update(urls);
    for (const probe of this.#probes) probe.stop();
    this.#startProbes(urls);
  }

  tick(): void {
    this.#appendWriter.tick();
    this.#messageWriter.tick();
    for (const reader of this.#readers) reader.tick();
  }

  stop(): void {
    const { logger } = this.#context;
    logger.info(CALLER, 'stopping remote peer', { 'remote-peer-id': this.#text });
    for (const probe of this.#probes) probe.stop();
    this.#appendWriter.stop();
    this.#messageWriter.stop();
    this.#pipeline.stop();
    this.#snapshots.stop();
    for (const reader of this.#readers) reader.stop();
    // Whoever was removed is not active in the metrics for ever.
    if (this.status.isActive) this.status.deactivate(appendStream.name, 'dial', 'context canceled');
    logger.info(CALLER, 'stopped remote peer', { 'remote-peer-id': this.#text });
  }

  #startProbes(urls: readonly string[]): void {
    const { client, freshClient } = this.#context;
    this.#probes = [
      new Probe(this.#context, client, 'ROUND_TRIPPER_SNAPSHOT', this.#text, urls, this.#metrics),
      new Probe(this.#context, freshClient, 'ROUND_TRIPPER_RAFT_MESSAGE', this.#text, urls, this.#metrics),
    ];
  }
}
