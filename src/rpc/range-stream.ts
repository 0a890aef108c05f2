// etcdserverpb.KV/RangeStream (etcd 3.7): a range as a stream of chunks at one revision, with flat memory: the next chunk is made
// when the one before has left. Chunks begin at 10 keys and double or halve towards a size; only the last one has header, more and
// count. Their size is smaller than etcd's (--max-request-bytes): what is copied on its way to the socket then stays in the
// processor's cache, and a stream holds half a megabyte instead of five. A count that costs a scan is made in slices, at a revision that
// is pinned meanwhile; the last chunk waits for it. A turn of the event loop makes one chunk or slice, of all streams (slice-turns.ts),
// but for the first of each, which is small.

import { ByteWriter } from '../base/byte-writer.ts';
import type { ServerCall } from '../grpc/call.ts';
import type { StreamHandler } from '../grpc/router.ts';
import { type ReadSlice, rangeStreamChunkBytesMax, rangeStreamChunkKeysFirst } from '../limits.ts';
import { hasRevisionFilters, isDefaultOrdering } from '../mvcc/kv-range.ts';
import { RangeRead } from '../mvcc/range-read.ts';
import { RangeRequest, SortTarget } from '../proto/kv-request.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import { Reader, varintLength, writeVarint } from '../proto/wire.ts';
import type { Member } from '../server/member.ts';
import { responseHeaderBytesMax } from '../server/response-header.ts';
import { failMalformed, failWith } from './answer.ts';
import type { BigReads } from './big-reads.ts';
import { checkRange } from './kv-check.ts';
import type { SliceLine, SliceTaker } from './slice-turns.ts';

const UNIMPLEMENTED = 12;
/** Before a chunk: tag and length of the message, and the header. */
const headRoomBytes: number = 16 + responseHeaderBytesMax;

export class RangeStreamHandler implements StreamHandler {
  private readonly member: Member;
  private readonly chunkBytes: number;
  /** Of a count. */
  private readonly slice: ReadSlice;
  private readonly line: SliceLine;

  /** Takes turns with `bigReads`, and with all of its streams. */
  constructor(member: Member, chunkBytes: number, bigReads: BigReads) {
    this.member = member;
    this.chunkBytes = Math.min(chunkBytes, rangeStreamChunkBytesMax);
    this.slice = bigReads.limits.slice;
    this.line = bigReads.turns.newLine();
  }

  open(): void {}

  halfClose(): void {}

  message(call: ServerCall, message: Buffer, start: number, end: number): void {
    const bytes = Buffer.from(message.subarray(start, end));
    const request = new RangeRequest();
    if (!request.parse(bytes, 0, bytes.length)) {
      failMalformed(call);
      return;
    }
    const error = checkRange(request);
    if (error !== null) failWith(call, error);
    else if (!isDefaultOrdering(request.sortTarget, request.sortOrder)) {
      call.fail({ code: UNIMPLEMENTED, message: 'RangeStream does not support custom sort orders' });
    } else if (hasRevisionFilters(request)) {
      call.fail({ code: UNIMPLEMENTED, message: 'RangeStream does not support revision filters' });
    } else {
      // Without an order a target means nothing here. etcd sorts each chunk by it, which loses and doubles keys.
      request.sortTarget = SortTarget.key;
      const stream = new RangeStream(this.member, call, request, this.chunkBytes, this.slice, this.line);
      if (request.serializable || this.member.canReadNow) stream.begin();
      else {
        const failed = (failure: EtcdError): void => failWith(call, failure);
        this.member.read({ ready: () => stream.begin(), failed }, bytes.length);
      }
    }
  }
}

class RangeStream implements SliceTaker {
  private readonly member: Member;
  private readonly call: ServerCall;
  private readonly request: RangeRequest;
  private readonly chunkBytes: number;
  private readonly slice: ReadSlice;
  private readonly line: SliceLine;
  /** The chunk that is made, and the one before, which may be on its way still. */
  private body = new ByteWriter();
  private other = new ByteWriter();
  /** Bytes of the message that was sent last; no message before it is on its way when no more than these are. */
  private lastBytes = 0;
  private readonly rangeEnd: Buffer;
  private readonly limitTotal: number;
  private chunkKeys: number;
  private sentCount = 0;
  private revision = 0;
  private counting: Counting | null = null;

  constructor(
    member: Member,
    call: ServerCall,
    request: RangeRequest,
    chunkBytes: number,
    slice: ReadSlice,
    line: SliceLine,
  ) {
    this.member = member;
    this.call = call;
    this.request = request;
    this.slice = slice;
    this.line = line;
    this.chunkBytes = chunkBytes;
    this.rangeEnd = Buffer.from(request.buffer.subarray(request.rangeEndStart, request.rangeEndEnd));
    this.limitTotal = request.limit === 0 ? Infinity : request.limit;
    this.chunkKeys = Math.min(rangeStreamChunkKeysFirst, this.limitTotal);
  }

  /** The first chunk is small, and made at once; the first slice of a count is not, and waits if others do. */
  begin(): void {
    if (this.request.countOnly && this.line.length > 0) this.line.enter(this);
    else this.takeTurn();
  }

  /** Sends a chunk, or counts a slice. Waits for its next turn, or, when the client is behind, until it has read. */
  takeTurn(): boolean {
    const { call, counting } = this;
    if (call.ended) return false;
    if (counting !== null) this.goOn(counting);
    else if (this.request.countOnly) this.count(false);
    else {
      call.onDrain ??= () => this.line.enter(this);
      if (this.sendChunk() === 'drained') this.line.enter(this);
    }
    return true;
  }

  /** Ends the stream with the count of the request's range, behind the chunk that is made if there is `more`. */
  private count(more: boolean): void {
    const { call, request } = this;
    const { store } = this.member.parts;
    const body = more ? this.body : this.beginChunk();
    const kvsEnd = body.length;
    const read = store.rangeSliced(request, body, this.slice);
    if (this.revision === 0) this.revision = store.rangeRevision;
    if (read instanceof RangeRead) {
      call.onDrain = null;
      call.onEnd = () => read.close();
      this.counting = { read, more, kvsEnd };
      this.line.enter(this);
    } else if (read !== null) failWith(call, read);
    else this.sendLast(more, kvsEnd);
  }

  /** The next slice of a count. */
  private goOn({ read, more, kvsEnd }: Counting): void {
    const isDone = read.step(this.body);
    if (read.error !== null) failWith(this.call, read.error);
    else if (isDone) this.sendLast(more, kvsEnd);
    else this.line.enter(this);
  }

  /** Sends the chunk that is made: its count lies at `kvsEnd`, and is that of what no chunk held. */
  private sendLast(more: boolean, kvsEnd: number): void {
    const { body, call } = this;
    const count = this.sentCount + readChunk(body, kvsEnd).answeredCount;
    body.length = kvsEnd;
    body.varintField(0x18, more ? 1 : 0);
    body.varintField(0x20, count);
    this.send(this.revision);
    call.onEnd = null;
    call.end();
  }

  private sendChunk(): 'done' | 'blocked' | 'drained' {
    const { request, call } = this;
    const { store } = this.member.parts;
    request.limit = this.chunkKeys;
    const body = this.beginChunk();
    // Values may be far larger than those before: etcd's chunk then is as many keys all the same.
    const error = store.rangeChunk(request, body, 2 * this.chunkBytes);
    if (error !== null) {
      failWith(call, error);
      return 'done';
    }
    if (this.revision === 0) {
      this.revision = store.rangeRevision;
      if (request.revision === 0) request.revision = this.revision;
    }
    const chunk = readChunk(body, headRoomBytes);
    this.sentCount += chunk.count;
    const isDone = !chunk.more || this.sentCount === this.limitTotal;
    body.length = chunk.kvsEnd;
    if (isDone && chunk.more) {
      this.continueAfter(chunk.lastKey);
      request.countOnly = true;
      this.count(true);
      return 'done';
    }
    if (isDone) {
      body.varintField(0x20, this.sentCount);
      this.send(this.revision);
      call.end();
      return 'done';
    }
    const isDrained = this.send(0);
    this.continueAfter(chunk.lastKey);
    this.adjust(chunk.kvsEnd - headRoomBytes);
    return isDrained ? 'drained' : 'blocked';
  }

  /** A writer whose bytes nobody needs any more, with room for what stands before the chunk. */
  private beginChunk(): ByteWriter {
    const body = this.call.bufferedBytes <= this.lastBytes ? this.other : new ByteWriter();
    this.other = this.body;
    this.body = body;
    body.reset();
    body.reserve(headRoomBytes);
    body.length = headRoomBytes;
    return body;
  }

  /**
   * Sends RangeStreamResponse{1: RangeResponse} of the chunk, with a header when it has a revision. Where it lies: what comes
   * before is written backwards into the room before it. False when the client is behind.
   */
  private send(headerRevision: number): boolean {
    const { body } = this;
    const { bytes } = body;
    let start = headRoomBytes;
    if (headerRevision !== 0) {
      const { header } = this.member.parts;
      start -= header.bytes(headerRevision);
      header.write(bytes, start, headerRevision);
    }
    const length = body.length - start;
    start -= 1 + varintLength(length);
    bytes[start] = 0x0a;
    writeVarint(bytes, start + 1, length);
    this.lastBytes = body.length - start;
    return this.call.sendParts([bytes.subarray(start, body.length)]);
  }

  /** The next chunk begins at the key just after `lastKey`. */
  private continueAfter(lastKey: Buffer): void {
    const { request, rangeEnd } = this;
    const buffer = Buffer.allocUnsafe(lastKey.length + 1 + rangeEnd.length);
    lastKey.copy(buffer);
    buffer[lastKey.length] = 0;
    rangeEnd.copy(buffer, lastKey.length + 1);
    request.buffer = buffer;
    request.keyStart = 0;
    request.keyEnd = lastKey.length + 1;
    request.rangeEndStart = request.keyEnd;
    request.rangeEndEnd = buffer.length;
  }

  private adjust(chunkBytes: number): void {
    if (chunkBytes < this.chunkBytes / 2) this.chunkKeys *= 2;
    else if (chunkBytes > this.chunkBytes * 2) this.chunkKeys = Math.max(1, Math.floor(this.chunkKeys / 2));
    this.chunkKeys = Math.min(this.chunkKeys, this.limitTotal - this.sentCount);
  }
}

/** A count that a turn did not finish, behind the chunk that is made if there is `more`. */
interface Counting {
  readonly read: RangeRead;
  readonly more: boolean;
  /** Where the chunk's kvs end. */
  readonly kvsEnd: number;
}

interface Chunk {
  readonly count: number;
  readonly more: boolean;
  readonly answeredCount: number;
  /** Where kvs end and more and count begin. */
  readonly kvsEnd: number;
  readonly lastKey: Buffer;
}

const reader = new Reader();
const view = new KeyValueView();

/** Reads back a RangeResponse body from `start`: its kvs (2), more (3), count (4). */
function readChunk(body: ByteWriter, start: number): Chunk {
  reader.reset(body.bytes, start, body.length);
  let count = 0;
  let more = false;
  let answeredCount = 0;
  let kvsEnd = start;
  let lastStart = 0;
  let lastEnd = 0;
  while (reader.readTag()) {
    if (reader.fieldNumber === 2) {
      reader.readBytes();
      lastStart = reader.bytesStart;
      lastEnd = reader.bytesEnd;
      kvsEnd = reader.position;
      count++;
    } else if (reader.fieldNumber === 3) more = reader.readBool();
    else if (reader.fieldNumber === 4) answeredCount = reader.readInt();
    else reader.skip();
  }
  view.parse(body.bytes, lastStart, lastEnd);
  const lastKey = Buffer.from(body.bytes.subarray(view.keyStart, view.keyEnd));
  return { count, more, answeredCount, kvsEnd, lastKey };
}
