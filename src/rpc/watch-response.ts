// WatchResponse, encoded: control answers whole, and the head that goes before a group's shared events.
//
//   1 header  2 watch_id  3 created  4 canceled  5 compact_revision  6 cancel_reason  7 fragment  11 events (repeated)

import { ByteWriter } from '../base/byte-writer.ts';
import { bigVarintLength, writeBigVarint } from '../proto/wire.ts';
import { type ResponseHeaderEncoder, responseHeaderBytesMax } from '../server/response-header.ts';

export class WatchResponseEncoder {
  private readonly header: ResponseHeaderEncoder;
  private readonly out = new ByteWriter(256);

  constructor(header: ResponseHeaderEncoder) {
    this.header = header;
  }

  /** An answer without events. The bytes are valid until the next call. */
  control(
    revision: number,
    watchId: bigint,
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

  /** What comes before the events: a buffer of its own, because it is kept until it is sent. */
  eventsHead(revision: number, idField: Buffer, fragment: boolean): Buffer {
    this.writeEventsHead(revision, idField, fragment);
    return Buffer.from(this.out.bytes.subarray(0, this.out.length));
  }

  /** A whole answer with the events body[start, end); valid until the next call. Hot: one copy, no object. */
  events(revision: number, idField: Buffer, body: Buffer, start: number, end: number): ByteWriter {
    this.writeEventsHead(revision, idField, false);
    this.out.copy(body, start, end);
    return this.out;
  }

  private writeEventsHead(revision: number, idField: Buffer, fragment: boolean): void {
    const { out } = this;
    out.reset();
    out.reserve(responseHeaderBytesMax);
    out.length = this.header.write(out.bytes, 0, revision);
    out.copy(idField, 0, idField.length);
    out.varintField(0x38, fragment ? 1 : 0);
  }

  private writeHead(revision: number, watchId: bigint): void {
    const { out } = this;
    out.reset();
    out.reserve(responseHeaderBytesMax);
    out.length = this.header.write(out.bytes, 0, revision);
    const idField = watchIdField(watchId);
    out.copy(idField, 0, idField.length);
  }
}

/** Field 2, encoded once for each watcher: any int64, left out when 0. */
export function watchIdField(watchId: bigint): Buffer {
  if (watchId === 0n) return NO_FIELD;
  const out = Buffer.allocUnsafe(1 + bigVarintLength(watchId));
  out[0] = 0x10;
  writeBigVarint(out, 1, watchId);
  return out;
}

const NO_FIELD: Buffer = Buffer.alloc(0);
