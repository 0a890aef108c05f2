// etcdserverpb.Maintenance/Snapshot: the database as a bbolt file in blobs of 32 KiB, then its SHA-256 as the last blob. The
// file is made off the core thread of one pinned state; its bytes are taken as fast as the client reads, who has to read all the time.

import type { SnapshotReader, SnapshotSink } from '../backend/snapshot-source.ts';
import type { ServerCall } from '../grpc/call.ts';
import type { StreamHandler } from '../grpc/router.ts';
import { snapshotBlobBytes, snapshotStallMs, snapshotStreamsMax } from '../limits.ts';
import { SnapshotResponse } from '../proto/etcdserverpb.ts';
import { encode } from '../proto/message.ts';
import type { Member } from '../server/member.ts';
import { durationText, humanBytes } from '../server/member-log.ts';
import { acceptEmpty } from './answer.ts';

const CALLER = 'rpc/snapshot-stream.ts';
const HASH_BYTES = 32;
const UNKNOWN = 2;
const RESOURCE_EXHAUSTED = 8;
const ABORTED = 10;

type SetTimer = (delayMs: number, callback: () => void) => unknown;

export class SnapshotHandler implements StreamHandler {
  private readonly member: Member;
  private readonly setTimer: SetTimer;
  constructor(member: Member, setTimer: SetTimer) {
    this.member = member;
    this.setTimer = setTimer;
  }

  open(): void {}

  halfClose(): void {}

  message(call: ServerCall, message: Buffer, start: number, end: number): void {
    if (!acceptEmpty(call, message, start, end)) return;
    if (this.member.parts.counters.snapshotsRunning >= snapshotStreamsMax) {
      const text = `keelson: ${snapshotStreamsMax} snapshots are being sent already`;
      call.fail({ code: RESOURCE_EXHAUSTED, message: text });
      return;
    }
    new SnapshotStream(this.member, call, this.setTimer).start();
  }
}

/** One snapshot on its way to a client. */
class SnapshotStream implements SnapshotSink {
  private readonly member: Member;
  private readonly call: ServerCall;
  private readonly setTimer: SetTimer;
  private readonly version: string;
  private readonly startMs: number;
  private reader: SnapshotReader | null = null;
  private totalBytes = 0;
  private sentBytes = 0;
  /** How often the client has begun to read again: unchanged for long, it does not. */
  private drains = 0;

  constructor(member: Member, call: ServerCall, setTimer: SetTimer) {
    this.member = member;
    this.call = call;
    this.setTimer = setTimer;
    this.version = member.parts.cluster.version ?? '';
    this.startMs = member.parts.nowMs();
  }

  start(): void {
    const { call } = this;
    const { backend, counters } = this.member.parts;
    counters.snapshotsRunning++;
    this.reader = backend.snapshot(this);
    call.onDrain = () => {
      this.drains++;
      this.reader!.resume();
    };
    call.onEnd = () => this.ended();
  }

  private ended(): void {
    this.reader!.cancel();
    const { counters, nowMs } = this.member.parts;
    counters.snapshotsRunning--;
    counters.observeSnapshot((nowMs() - this.startMs) / 1000);
  }

  // --- for the reader ---

  started(fileBytes: number): void {
    this.totalBytes = fileBytes;
    this.member.parts.logger.info(CALLER, 'sending database snapshot to client', {
      'total-bytes': fileBytes,
      size: humanBytes(fileBytes),
      'storage-version': this.version,
    });
  }

  /** Bytes of the file, then of its hash; false: resume() is called for more. */
  chunk(bytes: Buffer): boolean {
    let wantsMore = true;
    for (let start = 0; start < bytes.length; ) {
      const isFile = this.sentBytes < this.totalBytes;
      const blobMax = isFile ? Math.min(snapshotBlobBytes, this.totalBytes - this.sentBytes) : HASH_BYTES;
      const blob = bytes.subarray(start, start + blobMax);
      start += blob.length;
      this.sentBytes += blob.length;
      const remainingBytes = Math.max(0, this.totalBytes - this.sentBytes);
      const message = encode(SnapshotResponse, { remainingBytes, blob, version: this.version });
      wantsMore = this.call.send(message, 0, message.length);
    }
    if (!wantsMore) this.watchStall();
    return wantsMore;
  }

  done(error: Error | null): void {
    const { call, totalBytes } = this;
    if (error !== null) {
      call.fail({ code: UNKNOWN, message: error.message });
      return;
    }
    const { logger, nowMs } = this.member.parts;
    logger.info(CALLER, 'sending database sha256 checksum to client', {
      'total-bytes': totalBytes,
      'checksum-size': HASH_BYTES,
    });
    logger.info(CALLER, 'successfully sent database snapshot to client', {
      'total-bytes': totalBytes,
      size: humanBytes(totalBytes),
      took: durationText(nowMs() - this.startMs),
      'storage-version': this.version,
    });
    call.end();
  }

  /** What waits for the client must be read in time: the pages of the snapshot's state are kept for it meanwhile. */
  private watchStall(): void {
    const { drains } = this;
    this.setTimer(snapshotStallMs, () => {
      if (this.call.ended || this.drains !== drains) return;
      const text = `keelson: the snapshot was not read for ${snapshotStallMs / 1000} seconds`;
      this.member.parts.logger.warn(CALLER, 'a client stopped reading its snapshot', {
        remote: this.call.connection.remoteAddress,
        'sent-bytes': this.sentBytes,
        'total-bytes': this.totalBytes,
      });
      this.call.fail({ code: ABORTED, message: text });
    });
  }
}
