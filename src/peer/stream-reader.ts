// Reads one of the streams that a peer sends: dials it, hands its messages on, and dials again when it ends.
//
//   dialing --200--> reading --end, error, silence--> waiting --retry period--> dialing
//           --refused, error------------------------> waiting
//
// The first attempt after a loss comes at once, the following ones at most once a retry period.

import type { Timer } from '../io/clock.ts';
import { PeerStream } from '../io/peer-stream.ts';
import type { Message, NodeId } from '../raft/types.ts';
import type { PeerMetrics } from '../telemetry/peer-metrics.ts';
import { deliver } from './inbox.ts';
import type { StreamDecoder } from './part-decoder.ts';
import type { PeerStatus } from './peer-status.ts';
import { compareVersions, knowsStreams, parseVersion } from './peer-version.ts';
import { clusterIdMismatch, incompatibleVersion, memberRemoved } from './post-answer.ts';
import type { StreamKind } from './stream-kind.ts';
import { idText, type TransportContext, ticksPerTimeout } from './transport-context.ts';
import type { UrlPicker } from './url-picker.ts';

const CALLER = 'peer/stream-reader.ts';

export class StreamReader {
  readonly #context: TransportContext;
  readonly #kind: StreamKind;
  readonly #peerId: NodeId;
  readonly #picker: UrlPicker;
  readonly #status: PeerStatus;
  readonly #metrics: PeerMetrics;
  readonly #visit: (message: Message) => void;
  /** Dialed last. */
  #url = '';
  #stream: PeerStream | null = null;
  #decoder: StreamDecoder | null = null;
  #retryTimer: Timer | null = null;
  #nextDialMs = 0;
  #silentTicks = 0;
  #isStopped = false;

  constructor(
    context: TransportContext,
    kind: StreamKind,
    peerId: NodeId,
    picker: UrlPicker,
    status: PeerStatus,
    metrics: PeerMetrics,
  ) {
    this.#context = context;
    this.#kind = kind;
    this.#peerId = peerId;
    this.#picker = picker;
    this.#status = status;
    this.#metrics = metrics;
    this.#visit = (message): void => {
      // A message may be the last one that this member wants of the peer.
      if (!this.#isStopped) deliver(context, message);
    };
    context.logger.info(CALLER, 'started stream reader with remote peer', this.#fields());
    this.#dial();
  }

  /** Every readTimeout / ticksPerTimeout. */
  tick(): void {
    if (this.#stream === null) return;
    this.#silentTicks++;
    if (this.#silentTicks > ticksPerTimeout) this.#closed('i/o timeout');
  }

  stop(): void {
    this.#isStopped = true;
    this.#stream?.destroy();
    this.#stream = null;
    if (this.#retryTimer !== null) this.#context.clock.clearTimer(this.#retryTimer);
    this.#context.logger.info(CALLER, 'stopped stream reader with remote peer', this.#fields());
  }

  #dial(): void {
    const { logger, localText, headers, dialer } = this.#context;
    const url = this.#picker.pick();
    this.#url = url;
    const path = this.#kind.pathPrefix + localText;
    this.#silentTicks = 0;
    logger.debug(CALLER, 'dial stream reader', { from: localText, to: idText(this.#peerId), address: url + path });
    const allHeaders = { ...headers, 'X-Raft-To': idText(this.#peerId) };
    this.#stream = PeerStream.open(dialer, url, path, allHeaders, {
      opened: (answered) => this.#opened(url, answered),
      refused: (status, answered, body) => {
        this.#picker.unreachable(url);
        if (!this.#isOfKnownVersion(answered)) this.#retryLater();
        else this.#refused(status, answered, body);
      },
      data: (bytes) => this.#receive(bytes),
      closed: (error) => this.#closed(error === null ? null : error.message),
    });
  }

  /** etcd passes over a member without this stream without a word. */
  #isOfKnownVersion(headers: ReadonlyMap<string, string>): boolean {
    const remote = parseVersion(headers.get('x-server-version') ?? '');
    if (remote === null) return false;
    const local = parseVersion(this.#context.serverVersion)!;
    return compareVersions(remote, local) >= 0 || knowsStreams(remote);
  }

  #opened(url: string, headers: ReadonlyMap<string, string>): void {
    if (!this.#isOfKnownVersion(headers)) {
      this.#picker.unreachable(url);
      this.#stream?.destroy();
      this.#retryLater();
      return;
    }
    this.#decoder = this.#kind.decoder(this.#context.localId, this.#peerId);
    this.#silentTicks = 0;
    this.#status.activate();
    const message = 'established TCP streaming connection with remote peer';
    this.#context.logger.info(CALLER, message, this.#fields());
  }

  /** Hot. */
  #receive(bytes: Buffer): void {
    if (this.#decoder === null) return;
    this.#silentTicks = 0;
    this.#metrics.received(bytes.length);
    const error = this.#decoder.push(bytes, this.#visit);
    if (error !== null && !this.#isStopped) this.#closed(error);
  }

  /** Null: the peer ended it in order. */
  #closed(error: string | null): void {
    this.#stream?.destroy();
    if (this.#decoder === null) {
      this.#picker.unreachable(this.#url);
      this.#status.deactivate(this.#kind.name, 'dial', error ?? 'EOF');
    } else {
      const message = 'lost TCP streaming connection with remote peer';
      this.#context.logger.warn(CALLER, message, { ...this.#fields(), error: error ?? 'EOF' });
      if (error !== null) this.#status.deactivate(this.#kind.name, 'read', error);
    }
    this.#retryLater();
  }

  #refused(status: number, headers: ReadonlyMap<string, string>, body: string): void {
    const { logger, localText, clusterText, events } = this.#context;
    const remote = idText(this.#peerId);
    let error = `unhandled http status ${status}`;
    if (status === 410) error = memberRemoved;
    else if (status === 404) error = `peer ${remote} failed to find local node ${localText}`;
    else if (status === 412) {
      error = body.replace(/\n$/, '');
      const ignored = 'request sent was ignored by remote peer due to';
      const ids = { 'local-member-id': localText, 'remote-peer-id': remote };
      if (error === incompatibleVersion) {
        logger.warn(CALLER, `${ignored} server version incompatibility`, { ...ids, error });
      } else if (error === clusterIdMismatch) {
        logger.warn(CALLER, `${ignored} cluster ID mismatch`, {
          'remote-peer-id': remote,
          'remote-peer-cluster-id': headers.get('x-etcd-cluster-id') ?? '',
          'local-member-id': localText,
          'local-member-cluster-id': clusterText,
          error,
        });
      } else error = `unhandled error ${JSON.stringify(body)} when precondition failed`;
    }
    this.#status.deactivate(this.#kind.name, 'dial', error);
    this.#retryLater();
    if (status === 410) events.refused(error, this.#peerId);
  }

  #retryLater(): void {
    const { clock, timings } = this.#context;
    this.#stream = null;
    this.#decoder = null;
    if (this.#isStopped) return;
    const now = clock.nowMs();
    const dialAtMs = Math.max(now, this.#nextDialMs);
    this.#nextDialMs = dialAtMs + timings.retryMs;
    this.#retryTimer = clock.setTimer(dialAtMs - now, () => this.#dial());
  }

  #fields(): Record<string, string> {
    return {
      'stream-reader-type': this.#kind.name,
      'local-member-id': this.#context.localText,
      'remote-peer-id': idText(this.#peerId),
    };
  }
}
