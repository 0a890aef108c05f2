// etcdserverpb.Maintenance/Snapshot: the database as a bbolt file in blobs of 32 KiB, then its SHA-256 as the last blob. The
// file is made off the core thread of one pinned state; its bytes are taken as fast as the client reads.

import type { ServerCall } from '../grpc/call.ts';
import type { StreamHandler } from '../grpc/router.ts';
import { snapshotBlobBytes, snapshotStreamsMax } from '../limits.ts';
import { SnapshotResponse } from '../proto/etcdserverpb.ts';
import { encode } from '../proto/message.ts';
import type { Member } from '../server/member.ts';
import { durationText, humanBytes } from '../server/member-log.ts';
import { acceptEmpty } from './answer.ts';

const HASH_BYTES = 32;
const UNKNOWN = 2;
const RESOURCE_EXHAUSTED = 8;

export class SnapshotHandler implements StreamHandler {
  private readonly member: Member;
  constructor(member: Member) {
    this.member = member;
  }

  open(): void {}

  halfClose(): void {}

  message(call: ServerCall, message: Buffer, start: number, end: number): void {
    if (!acceptEmpty(call, message, start, end)) return;
    const { backend, cluster, counters, logger, nowMs } = this.member.parts;
    const version = cluster.version ?? '';
    const startMs = nowMs();
    let sentBytes = 0;
    let totalBytes = 0;
    if (counters.snapshotsRunning >= snapshotStreamsMax) {
      const text = `keelson: ${snapshotStreamsMax} snapshots are being sent already`;
      call.fail({ code: RESOURCE_EXHAUSTED, message: text });
      return;
    }
    counters.snapshotsRunning++;
    const ended = (): void => {
      counters.snapshotsRunning--;
      counters.observeSnapshot((nowMs() - startMs) / 1000);
    };
    const reader = backend.snapshot({
      started: (fileBytes) => {
        totalBytes = fileBytes;
        logger.info('rpc/snapshot-stream.ts', 'sending database snapshot to client', {
          'total-bytes': fileBytes,
          size: humanBytes(fileBytes),
          'storage-version': version,
        });
      },
      /** Bytes of the file, then of its hash; false: call resume() for more. */
      chunk: (bytes) => {
        let wantsMore = true;
        for (let start = 0; start < bytes.length; ) {
          const isFile = sentBytes < totalBytes;
          const blobMax = isFile ? Math.min(snapshotBlobBytes, totalBytes - sentBytes) : HASH_BYTES;
          const blob = bytes.subarray(start, start + blobMax);
          start += blob.length;
          sentBytes += blob.length;
          const remainingBytes = Math.max(0, totalBytes - sentBytes);
          const message = encode(SnapshotResponse, { remainingBytes, blob, version });
          wantsMore = call.send(message, 0, message.length);
        }
        return wantsMore;
      },
      done: (error) => {
        ended();
        if (error !== null) {
          call.fail({ code: UNKNOWN, message: error.message });
          return;
        }
        logger.info('rpc/snapshot-stream.ts', 'sending database sha256 checksum to client', {
          'total-bytes': totalBytes,
          'checksum-size': HASH_BYTES,
        });
        logger.info('rpc/snapshot-stream.ts', 'successfully sent database snapshot to client', {
          'total-bytes': totalBytes,
          size: humanBytes(totalBytes),
          took: durationText(nowMs() - startMs),
          'storage-version': version,
        });
        call.end();
      },
    });
    call.onDrain = () => reader.resume();
    call.onCancel = () => {
      reader.cancel();
      ended();
    };
  }
}
