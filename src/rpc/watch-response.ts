// WatchResponse, encoded: control answers whole, and the head that goes before a group's shared events.
//
//   1 header  2 watch_id  3 created  4 canceled  5 compact_revision  6 cancel_reason  7 fragment  11 events (repeated)

import { ByteWriter } from '../base/byte-writer.ts';
import { writeBigVarint, writeVarint } from '../proto/wire.ts';
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
  eventsHead(revision: number, watchId: bigint, fragment: boolean): Buffer {
    this.writeHead(revision, watchId);
    this.out.varintField(0x38, fragment ? 1 : 0);
    return Buffer.from(this.out.bytes.subarray(0, this.out.length));
  }

  private writeHead(revision: number, watchId: bigint): void {
    const { out } = this;
    out.reset();
    out.reserve(responseHeaderBytesMax);
    out.length = this.header.write(out.bytes, 0, revision);
    if (watchId === 0n) return;
    out.byte(0x10);
    out.reserve(10);
    out.length =
      watchId > 0n && watchId < 0x80000000n
        ? writeVarint(out.bytes, out.length, Number(watchId))
        : writeBigVarint(out.bytes, out.length, watchId);
  }
}
