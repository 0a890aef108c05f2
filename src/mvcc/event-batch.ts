// The events of one response, encoded once for all watchers that get it, and how they are encoded.
//
//   bytes   [ room for a response's head | events: each a WatchResponse.events field | free ]
//           0                            batchHeadBytes                              length
//
// The head (header and watch_id) differs from watcher to watcher. Its sender writes it into the room, so that it ends where the
// events begin, and has the whole response in one piece: one copy a watcher, into the connection's output.

import { ByteWriter } from '../base/byte-writer.ts';
import { watchBatchesKept, watchCopyBytesMax } from '../limits.ts';
import { type KeyValueView, keyValueLength, writeKeyValueHead } from '../proto/mvccpb.ts';
import { varintLength } from '../proto/wire.ts';
import type { RowRef } from './storage.ts';
import type { Store } from './store.ts';

/** A response header and a watch_id of ten bytes fit. */
export const batchHeadBytes = 64;

const EMPTY: Buffer = Buffer.alloc(0);

export class EventBatch {
  readonly body: ByteWriter = new ByteWriter(1024);
  /** Revision of the first event, and how many there are. */
  firstRevision = 0;
  eventCount = 0;
  /** The store's when it is handed out. */
  revision = 0;
  /** For the sender: where the head in the room begins, and how long its watch_id is; -1 while there is none. */
  headStart = 0;
  headIdBytes = -1;

  /** Of the events alone. */
  get byteCount(): number {
    return this.body.length - batchHeadBytes;
  }

  /** Copied into each response; what is larger is shared: it is sent by reference and never written again. */
  get isCopied(): boolean {
    return this.byteCount <= watchCopyBytesMax;
  }
}

/** Batches for reuse. Those that grew, or that may still be on their way to a client, are left to the collector. */
export class BatchPool {
  private readonly spare: EventBatch[] = [];

  take(firstRevision: number): EventBatch {
    const batch = this.spare.pop() ?? new EventBatch();
    batch.body.length = batchHeadBytes;
    batch.firstRevision = firstRevision;
    batch.eventCount = 0;
    batch.headIdBytes = -1;
    return batch;
  }

  give(batch: EventBatch): void {
    if (batch.body.bytes.length <= 2 * watchCopyBytesMax && batch.isCopied && this.spare.length < watchBatchesKept) {
      this.spare.push(batch);
    }
  }
}

/** Appends events to batches: of the change whose row is in `row`, parsed into `view`. */
export class EventEncoder {
  private readonly store: Store;
  private readonly previous: RowRef = { buffer: EMPTY, start: 0, end: 0 };
  private readonly tombstoneKey = new ByteWriter(256);

  constructor(store: Store) {
    this.store = store;
  }

  append(batch: EventBatch, row: RowRef, view: KeyValueView, main: number, isDelete: boolean, prevKv: boolean): void {
    const { body } = batch;
    let kvBuffer = row.buffer;
    let kvStart = row.start;
    let kvEnd = row.end;
    if (isDelete) {
      // The stored tombstone is the key alone; the event's kv has the revision too.
      const scratch = this.tombstoneKey;
      scratch.reset();
      scratch.reserve(keyValueLength(view.keyEnd - view.keyStart, 0, main, 0, 0, 0, 0));
      kvEnd = writeKeyValueHead(scratch.bytes, 0, view.buffer, view.keyStart, view.keyEnd, 0, main, 0);
      kvBuffer = scratch.bytes;
      kvStart = 0;
    }
    const { previous } = this;
    const isCreate = !isDelete && view.createRevision === view.modRevision;
    let prevLength = -1;
    if (prevKv && !isCreate && this.store.at(view.buffer, view.keyStart, view.keyEnd, main - 1, previous)) {
      prevLength = previous.end - previous.start;
    }
    const kvLength = kvEnd - kvStart;
    let eventLength = (isDelete ? 2 : 0) + 1 + varintLength(kvLength) + kvLength;
    if (prevLength >= 0) eventLength += 1 + varintLength(prevLength) + prevLength;
    body.byte(0x5a);
    body.varint(eventLength);
    if (isDelete) {
      body.byte(0x08);
      body.byte(0x01);
    }
    body.bytesField(0x12, kvBuffer, kvStart, kvEnd);
    if (prevLength >= 0) body.bytesField(0x1a, previous.buffer, previous.start, previous.end);
    batch.eventCount++;
  }
}
