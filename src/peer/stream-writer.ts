// Writes raft messages to a stream that the peer has opened (the receiver dials). Without one it takes none. A message is encoded when
// it is given and goes out with the others of its turn.
//
//   no stream --attach--> working --closed, broken, stalled--> no stream
//                         working --attach--> working, on the newer one
//
// A peer that takes nothing costs bounded memory: beyond the bound messages are dropped, and after the write timeout the stream is.

import type { OutgoingStream } from '../io/outgoing-stream.ts';
import type { Message, NodeId } from '../raft/types.ts';
import type { PeerMetrics } from '../telemetry/peer-metrics.ts';
import type { StreamEncoder } from './message-stream.ts';
import type { PeerStatus } from './peer-status.ts';
import type { StreamKind } from './stream-kind.ts';
import { idText, type TransportContext, ticksPerHeartbeat, ticksPerTimeout } from './transport-context.ts';

const CALLER = 'peer/stream-writer.ts';

export class StreamWriter {
  readonly kind: StreamKind;
  readonly #context: TransportContext;
  readonly #peerId: NodeId;
  readonly #status: PeerStatus;
  readonly #metrics: PeerMetrics;
  #stream: OutgoingStream | null = null;
  #encoder: StreamEncoder | null = null;
  #ticks = 0;
  readonly #stalledTicksMax: number;

  constructor(context: TransportContext, kind: StreamKind, peerId: NodeId, status: PeerStatus, metrics: PeerMetrics) {
    this.kind = kind;
    this.#context = context;
    this.#peerId = peerId;
    this.#status = status;
    this.#metrics = metrics;
    const { readTimeoutMs, writeTimeoutMs } = context.timings;
    this.#stalledTicksMax = Math.ceil((writeTimeoutMs * ticksPerTimeout) / readTimeoutMs);
    context.logger.info(CALLER, 'started stream writer with remote peer', this.#fields());
  }

  get isWorking(): boolean {
    return this.#stream !== null;
  }

  /** False: too much waits already, and the message is dropped. Hot. */
  send(message: Message): boolean {
    const stream = this.#stream!;
    if (stream.isFull) return false;
    this.#encoder!.encode(message, stream.output);
    return true;
  }

  /** Hot. */
  flush(): void {
    const stream = this.#stream;
    if (stream === null) return;
    const bytes = stream.unflushedBytes;
    if (bytes === 0) return;
    this.#metrics.sent(bytes);
    stream.flush();
  }

  /** The peer opened a stream; one that it has opened before is given up. */
  attach(stream: OutgoingStream): void {
    const { logger } = this.#context;
    const older = this.#stream;
    older?.close();
    this.#stream = stream;
    this.#encoder = this.kind.encoder();
    // As in etcd a message has failed when its write has, not when the peer goes away.
    stream.onClosed = (error) => {
      if (error !== null) this.#metrics.sendFailed();
      this.#lost('write', error?.message ?? 'the peer closed the stream');
    };
    const { localText } = this.#context;
    const from = { from: localText, to: idText(this.#peerId), 'stream-type': this.kind.name };
    logger.info(CALLER, 'set message encoder', from);
    this.#status.activate();
    const fields = this.#fields();
    if (older !== null) {
      logger.warn(CALLER, 'closed TCP streaming connection with remote peer', fields);
    }
    logger.info(CALLER, 'established TCP streaming connection with remote peer', fields);
  }

  /** Every readTimeout / ticksPerTimeout. */
  tick(): void {
    const stream = this.#stream;
    if (stream === null) return;
    if (stream.tick() >= this.#stalledTicksMax) {
      stream.close();
      this.#metrics.sendFailed();
      this.#lost('write', 'i/o timeout');
      return;
    }
    this.#ticks++;
    // A peer that takes nothing does not read heartbeats either.
    if (this.#ticks % ticksPerHeartbeat !== 0 || stream.isFull) return;
    this.#encoder!.heartbeat(stream.output);
    this.flush();
  }

  stop(): void {
    const { logger } = this.#context;
    const fields = { 'stream-writer-type': this.kind.name, 'remote-peer-id': idText(this.#peerId) };
    if (this.#stream !== null) {
      this.#stream.close();
      this.#stream = null;
      logger.warn(CALLER, 'closed TCP streaming connection with remote peer', fields);
    }
    logger.info(CALLER, 'stopped TCP streaming connection with remote peer', fields);
  }

  /** Never inside of a call of the transport: from a socket's event or a tick. */
  #lost(action: string, reason: string): void {
    this.#stream = null;
    this.#encoder = null;
    this.#status.deactivate(this.kind.name, action, reason);
    const message = 'lost TCP streaming connection with remote peer';
    this.#context.logger.warn(CALLER, message, this.#fields());
    // What was on its way may not have arrived.
    this.#context.events.unreachable(this.#peerId);
  }

  #fields(): Record<string, string> {
    return {
      'stream-writer-type': this.kind.name,
      'local-member-id': this.#context.localText,
      'remote-peer-id': idText(this.#peerId),
    };
  }
}
