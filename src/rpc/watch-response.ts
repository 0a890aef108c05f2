// WatchResponse, encoded: control answers whole, and the head that goes before a batch of events.
//
//   1 header  2 watch_id  3 created  4 canceled  5 compact_revision  6 cancel_reason  7 fragment  11 events (repeated)

import { assert } from '../base/assert.ts';
import { ByteWriter } from '../base/byte-writer.ts';
import { batchHeadBytes, type EventBatch } from '../mvcc/event-batch.ts';
import type { WatchId } from '../mvcc/watcher.ts';
import { bigVarintLength, varintLength, writeBigVarint, writeVarint } from '../proto/wire.ts';
import { type ResponseHeaderEncoder, responseHeaderBytesMax } from '../server/response-header.ts';

const watchIdFieldBytesMax = 11;
assert(responseHeaderBytesMax + watchIdFieldBytesMax <= batchHeadBytes, 'a head fits before the events');

/** The watch_id of answers that are about no watcher, or about all. */
export const noWatchId = -1n;

export class WatchResponseEncoder {
  private readonly header: ResponseHeaderEncoder;
  private readonly out = new ByteWriter(256);
  /** The header of answers with events: made once for a revision and term. */
  private readonly eventsHeader: Buffer = Buffer.alloc(responseHeaderBytesMax);
  private eventsHeaderBytes = 0;
  private eventsRevision = -1;
  private eventsTerm = -1;

  constructor(header: ResponseHeaderEncoder) {
    this.header = header;
  }

  /** An answer without events. The bytes are valid until the next call. */
  control(
    revision: number,
    watchId: WatchId,
    created: boolean,
    canceled: boolean,
    compactRevision: number,
    cancelReason: string,
  ): Buffer {
    const { out } = this;
    this.writeHead(revision, watchId);
    out.varintField(0x18, created ? 1 : 0);
    out.varintField(0x20, canceled ? 1 : 0);
    out.varintField(0x28, compactRevision);
    if (cancelReason !== '') {
      const reason = Buffer.from(cancelReason);
      out.bytesField(0x32, reason, 0, reason.length);
    }
    return out.bytes.subarray(0, out.length);
  }

  /** What comes before events that are sent from elsewhere: a buffer of its own, because it is kept until it is sent. */
  eventsHead(revision: number, watchId: WatchId, fragment: boolean): Buffer {
    const { out } = this;
    this.writeHead(revision, watchId);
    out.varintField(0x38, fragment ? 1 : 0);
    return Buffer.from(out.bytes.subarray(0, out.length));
  }

  private writeHead(revision: number, watchId: WatchId): void {
    const { out } = this;
    out.reset();
    out.reserve(batchHeadBytes);
    out.length = this.header.write(out.bytes, 0, revision);
    out.length = writeWatchId(out.bytes, out.length, watchId, watchIdBytes(watchId));
  }

  /**
   * Puts the head of a response before a batch's events and returns where it begins: the response ends where the batch does. Hot:
   * for all watchers of a batch but the first it is two bytes.
   */
  placeHead(batch: EventBatch, watchId: WatchId): number {
    const idBytes = watchIdBytes(watchId);
    const { bytes } = batch.body;
    if (batch.headIdBytes !== idBytes) {
      if (batch.revision !== this.eventsRevision || this.header.term !== this.eventsTerm) this.renewEventsHeader(batch);
      batch.headStart = batchHeadBytes - idBytes - this.eventsHeaderBytes;
      batch.headIdBytes = idBytes;
      this.eventsHeader.copy(bytes, batch.headStart, 0, this.eventsHeaderBytes);
    }
    writeWatchId(bytes, batchHeadBytes - idBytes, watchId, idBytes);
    return batch.headStart;
  }

  private renewEventsHeader(batch: EventBatch): void {
    this.eventsHeaderBytes = this.header.write(this.eventsHeader, 0, batch.revision);
    this.eventsRevision = batch.revision;
    this.eventsTerm = this.header.term;
  }
}

/** Of field 2, which is left out when 0. */
function watchIdBytes(watchId: WatchId): number {
  if (typeof watchId === 'bigint') return 1 + bigVarintLength(watchId);
  return watchId === 0 ? 0 : 1 + varintLength(watchId);
}

function writeWatchId(out: Buffer, offset: number, watchId: WatchId, idBytes: number): number {
  if (idBytes === 0) return offset;
  out[offset] = 0x10;
  if (typeof watchId === 'bigint') return writeBigVarint(out, offset + 1, watchId);
  return writeVarint(out, offset + 1, watchId);
}
