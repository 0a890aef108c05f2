// Sends snapshots to one peer: POST /raft/snapshot, the message behind its length, then the database as it is read.

import { ByteWriter } from '../base/byte-writer.ts';
import { humanBytes } from '../config/go-value.ts';
import { PeerUpload } from '../io/peer-upload.ts';
import type { Message, NodeId } from '../raft/types.ts';
import type { PeerMetrics } from '../telemetry/peer-metrics.ts';
import { appendMessage } from './message-stream.ts';
import type { PeerStatus } from './peer-status.ts';
import type { SnapshotBody } from './peer-transport.ts';
import { errorOfPost, memberRemoved } from './post-answer.ts';
import { idText, type TransportContext } from './transport-context.ts';
import type { UrlPicker } from './url-picker.ts';

const CALLER = 'peer/snapshot-sender.ts';
const path = '/raft/snapshot';

export class SnapshotSender {
  readonly #context: TransportContext;
  readonly #peerId: NodeId;
  readonly #picker: UrlPicker;
  readonly #status: PeerStatus;
  readonly #metrics: PeerMetrics;
  readonly #uploads: Set<PeerUpload> = new Set();

  constructor(context: TransportContext, peerId: NodeId, picker: UrlPicker, status: PeerStatus, metrics: PeerMetrics) {
    this.#context = context;
    this.#peerId = peerId;
    this.#picker = picker;
    this.#status = status;
    this.#metrics = metrics;
  }

  send(message: Message, body: SnapshotBody): void {
    const { clock, dialer, headers, logger } = this.#context;
    const startMs = clock.nowMs();
    const url = this.#picker.pick();
    const head = new ByteWriter(4096);
    appendMessage(message, head);
    const bytes = head.length + body.fileBytes;
    const fields = {
      'snapshot-index': message.snapshot?.meta.index ?? 0,
      'remote-peer-id': idText(this.#peerId),
      bytes,
      size: humanBytes(bytes),
    };
    logger.info(CALLER, 'sending database snapshot', fields);
    this.#metrics.snapshotSendBegan();
    let isBodyOver = false;
    const upload = PeerUpload.open(
      dialer,
      url,
      path,
      { 'Content-Type': 'application/octet-stream', ...headers },
      {
        drained: () => {
          if (!isBodyOver) body.resume();
        },
        done: (error, status, answered, text) => {
          this.#uploads.delete(upload);
          if (!isBodyOver) body.cancel();
          isBodyOver = true;
          const cluster = String(answered['x-etcd-cluster-id'] ?? '');
          const reason = error?.message ?? errorOfPost(this.#context, this.#peerId, url + path, status, cluster, text);
          if (reason === null) this.#succeeded(fields, (clock.nowMs() - startMs) / 1000);
          else this.#failed(url, reason, fields);
        },
      },
    );
    this.#uploads.add(upload);
    let bytesLeft = body.fileBytes;
    body.sink = {
      chunk: (chunk) => {
        bytesLeft -= chunk.length;
        return isBodyOver || upload.write(chunk);
      },
      done: (error) => {
        if (isBodyOver) return;
        isBodyOver = true;
        if (error !== null) upload.fail(error);
        else if (bytesLeft !== 0) upload.fail(new Error(`the database is ${-bytesLeft} bytes longer than announced`));
        else upload.end();
      },
    };
    if (upload.write(head.bytes.subarray(0, head.length))) body.resume();
  }

  stop(): void {
    for (const upload of [...this.#uploads]) upload.fail(new Error('stopped'));
  }

  #succeeded(fields: { readonly bytes: number; readonly [key: string]: string | number }, seconds: number): void {
    this.#status.activate();
    this.#context.logger.info(CALLER, 'sent database snapshot', fields);
    this.#metrics.sent(fields.bytes);
    this.#metrics.snapshotSendEnded(seconds);
    this.#context.events.snapshotSent(this.#peerId, true);
  }

  #failed(url: string, error: string, fields: Readonly<Record<string, string | number>>): void {
    this.#context.logger.warn(CALLER, 'failed to send database snapshot', { ...fields, error });
    this.#picker.unreachable(url);
    this.#status.deactivate('sendMsgSnap', 'post', error);
    this.#metrics.sendFailed();
    this.#metrics.snapshotSendEnded(null);
    // The body may break off inside of the call that started it.
    this.#context.schedule(() => {
      this.#context.events.unreachable(this.#peerId);
      this.#context.events.snapshotSent(this.#peerId, false);
      if (error === memberRemoved) this.#context.events.refused(error, this.#peerId);
    });
  }
}
