// A Txn that only reads and takes more than a turn: what is left of it, taken up slice by slice. All its ranges answer as of the moment
// at which it began: the oldest revision that they ask for is pinned, so that a compaction meanwhile deletes nothing of them. Its
// compares and checks were made then. Not the first slice, and not the small Txns that need no other: that is txn.ts, without an object.
//
//   read ── the range is complete ──▶ emit ── its response has left ──▶ read (the next) ── no more ──▶ done
//     └── it was small, and a whole slice is not used up: written at once, on to the next
//
// A response begins with its length, so a range of several slices is held until it is complete. Example, slices of two keys:
//
//   turn      1 (txn.ts)           2            3                    4
//   reads     a b                  c d          e; x y               -
//   answers   succeeded            -            [len a b c d e]..    .. [len x y]

import { assert } from '../base/assert.ts';
import { ByteWriter } from '../base/byte-writer.ts';
import type { ReadSlice } from '../limits.ts';
import { ownRange, type RangeRead } from '../mvcc/range-read.ts';
import type { Store } from '../mvcc/store.ts';
import type { RangeRequest } from '../proto/kv-request.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import { varintLength } from '../proto/wire.ts';

/** A count of blocks of keys takes 0.17 ms for a million: so many of them cost what a slice's keys do. */
const COUNTS_OF_SLICE = 8;
/** Of the ResponseOp and its range member: tag and length, which take as much as openMessage() leaves for them. */
const OPEN_BYTES = 12;

/** How much of a slice's keys a range has used that has looked at `visited` of them. */
export function rangeCost(range: RangeRequest, visited: number, slice: ReadSlice): number {
  if (range.rangeEndStart === range.rangeEndEnd) return 1;
  // Long ago a count may be a slice of its own, of keys that are not visited.
  if (range.countOnly && range.revision > 0) return slice.keys;
  const isCounted = range.countOnly || (range.limit > 0 && visited >= range.limit);
  return 1 + visited + (isCounted ? slice.keys / COUNTS_OF_SLICE : 0);
}

export class TxnRead {
  /** That of the answer's header, and of the headers in it. */
  readonly headerRevision: number;
  /** Of the answer without its header. */
  readonly answerBytesMax: number;
  /** KeyValues in each of the responses that are complete. */
  readonly answered: number[] = [];
  private readonly store: Store;
  private readonly slice: ReadSlice;
  /** Those that are not complete, the next one at `at`; in buffers of their own. */
  private readonly ranges: RangeRequest[];
  /** In their buffers. */
  private readonly requestBytes: number;
  private at = 0;
  private read: RangeRead | null = null;
  /** Of the range that is read: what it has answered, its header first. */
  private parts: Buffer[] = [];
  private partBytes = 0;
  /** The next of `parts` to leave, once the range is complete; -1 until then. */
  private emitted = -1;
  /** Bytes of the answer before the range that is read. */
  private bytesBefore: number;
  private readonly out: ByteWriter;
  /** -1: nothing is pinned any more. */
  private pinned: number;
  /** Why it ended before its answer was complete. */
  error: EtcdError | null = null;

  /** `out` holds the answer as far as it is complete. */
  constructor(store: Store, ranges: readonly RangeRequest[], slice: ReadSlice, out: ByteWriter) {
    this.store = store;
    this.slice = slice;
    this.headerRevision = store.currentRevision;
    this.answerBytesMax = out.bytesMax;
    this.bytesBefore = out.length;
    this.out = new ByteWriter(4096, out.bytesMax);
    this.ranges = ranges.map(ownRange);
    this.requestBytes = this.ranges.reduce((bytes, { buffer }) => bytes + buffer.length, 0);
    this.pinned = this.headerRevision;
    for (const range of this.ranges) this.pinned = Math.min(this.pinned, this.revisionOf(range));
    store.pin(this.pinned);
  }

  /** The first range has begun: `read` has answered the bytes from `start` on, its header first. */
  takeUp(read: RangeRead, bytes: Buffer, start: number, end: number): void {
    this.read = read;
    this.hold(bytes, start, end);
  }

  /** Bytes held beside those that were answered. */
  get heldBytes(): number {
    const { requestBytes, partBytes, out, read } = this;
    return requestBytes + partBytes + out.bytes.length + (read === null ? 0 : read.heldBytes);
  }

  /** Appends what is complete of one slice; true: that was the last, or `out` is full: the answer has no room, or there is an error. */
  step(out: ByteWriter): boolean {
    if (this.emitted >= 0) this.emit(out);
    else this.readOn(out);
    if (out.full) this.close();
    return this.at === this.ranges.length;
  }

  /** Reads a slice, of several ranges if they are small; ends with the first that is not complete. */
  private readOn(target: ByteWriter): void {
    const { slice, out } = this;
    let keysLeft = slice.keys;
    let bytesLeft = slice.bytes;
    while (this.at < this.ranges.length && keysLeft > 0 && bytesLeft > 0) {
      const range = this.ranges[this.at]!;
      out.reset();
      const read = this.read ?? this.begin(range);
      const visitedBefore = read.visited;
      const isComplete = read.step(out);
      if (read.error !== null) {
        this.error = read.error;
        this.close();
        return;
      }
      if (out.full || this.bytesBefore + OPEN_BYTES + this.partBytes + out.length > this.answerBytesMax) {
        target.full = true;
        return;
      }
      this.hold(out.bytes, 0, out.length);
      if (!isComplete) return;
      keysLeft -= rangeCost(range, read.visited - visitedBefore, slice);
      bytesLeft -= out.length;
      this.answered.push(read.answered);
      this.read = null;
      this.emit(target);
      if (this.emitted >= 0) return;
    }
  }

  private begin(range: RangeRequest): RangeRead {
    const { out } = this;
    writeRevisionHeader(out, this.headerRevision);
    this.read = this.store.rangeAt(range, this.revisionOf(range), out, this.slice);
    return this.read;
  }

  private revisionOf(range: RangeRequest): number {
    return range.revision <= 0 ? this.headerRevision : range.revision;
  }

  /** Keeps what a slice has brought, as large as it is. */
  private hold(bytes: Buffer, start: number, end: number): void {
    if (start === end) return;
    const part = Buffer.allocUnsafeSlow(end - start);
    bytes.copy(part, 0, start, end);
    this.parts.push(part);
    this.partBytes += part.length;
  }

  /** Appends a slice of the response that is complete. */
  private emit(out: ByteWriter): void {
    const { parts } = this;
    const lengthMax = out.length + this.slice.bytes;
    if (this.emitted < 0) {
      this.emitted = 0;
      const memberBytes = 1 + varintLength(this.partBytes) + this.partBytes;
      this.bytesBefore += 1 + varintLength(memberBytes) + memberBytes;
      out.byte(0x1a);
      out.varint(memberBytes);
      out.byte(0x0a);
      out.varint(this.partBytes);
    }
    while (this.emitted < parts.length && out.length < lengthMax) {
      const part = parts[this.emitted]!;
      out.copy(part, 0, part.length);
      this.partBytes -= part.length;
      parts[this.emitted++] = NONE;
    }
    if (this.emitted < parts.length) return;
    assert(this.partBytes === 0, 'a response is not as long as announced');
    this.parts = [];
    this.emitted = -1;
    this.at++;
    if (this.at === this.ranges.length) this.close();
  }

  /** Lets go of the revision; once the read is done, or not wanted any more. */
  close(): void {
    this.read?.close();
    this.read = null;
    this.at = this.ranges.length;
    if (this.pinned >= 0) this.store.unpin(this.pinned);
    this.pinned = -1;
  }
}

const NONE = Buffer.alloc(0);

/** Inside a Txn's answer a header carries the revision alone. */
export function writeRevisionHeader(out: ByteWriter, revision: number): void {
  const header = out.openMessage(0x0a);
  out.varintField(0x18, revision);
  out.closeMessage(header);
}
