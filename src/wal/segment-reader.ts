// Reads one segment record by record, and tells a torn tail from damage. Read-only, also on a segment that is being written.
// Knows one file; the order of segments and what the entries mean is in replay.ts and dump.ts.

import { type Disk, readFully } from '../io/file.ts';
import { walFlippedBitBytesMax, walReadBytes } from '../storage-limits.ts';
import { flippedBit } from './flipped-bit.ts';
import {
  alignRecord,
  decodeRecordHeader,
  decodeSegmentHeader,
  payloadMatches,
  type RecordHeader,
  recordAlignment,
  recordHeaderBytes,
  recordMagic,
  type SegmentHeader,
  segmentHeaderBytes,
  segmentSeed,
} from './format.ts';

/** What is behind the last good record of a segment that has no end. */
export const TailKind = {
  /** Nothing: zeros, the end of the file, or the stale bytes of a recycled one. */
  clean: 'clean',
  /** A write that did not finish. */
  torn: 'torn',
  /** Bytes that had been synced are no longer what they were. */
  damaged: 'damaged',
} as const;
export type TailKind = (typeof TailKind)[keyof typeof TailKind];

export interface Tail {
  readonly kind: TailKind;
  /** Why the bytes at `position` are no record. */
  readonly reason: string;
}

export class SegmentReader {
  readonly header: SegmentHeader;
  readonly seed: number;
  readonly #disk: Disk;
  readonly #fd: number;
  #size: number;
  #window: Buffer = Buffer.alloc(0);
  #windowAt = 0;
  /** Position behind the last good record: where next() looks, or found nothing. */
  position: number = segmentHeaderBytes;
  /** Good records so far. */
  count = 0;
  /** Header CRC of the last good record, the seed before the first. */
  lastCrc: number;
  /** The last good record is the segment's end. */
  ended = false;
  /** Payload of the record that next() found: never reused, so parts of it may be kept. */
  payload: Buffer = Buffer.alloc(0);
  #reason = '';
  #misplaced = false;

  private constructor(disk: Disk, fd: number, header: SegmentHeader, seed: number) {
    this.#disk = disk;
    this.#fd = fd;
    this.#size = disk.size(fd);
    this.header = header;
    this.seed = seed;
    this.lastCrc = seed;
  }

  /** The reader, or what is wrong with the header. Throws what the disk throws. */
  static open(disk: Disk, path: string): SegmentReader | string {
    const fd = disk.open(path, 'read');
    const buffer = Buffer.alloc(segmentHeaderBytes);
    const count = readFully(disk, fd, buffer, 0, segmentHeaderBytes, 0);
    const header = decodeSegmentHeader(buffer.subarray(0, count));
    if (typeof header !== 'string') return new SegmentReader(disk, fd, header, segmentSeed(buffer));
    disk.close(fd);
    return header;
  }

  close(): void {
    this.#disk.close(this.#fd);
  }

  get size(): number {
    return this.#size;
  }

  /** Moves to the next record; false at the segment's end or where no good record is (then see `ended` and tail()). */
  next(): boolean {
    if (this.ended) return false;
    // Twice: a record may have been completed since its part of the file was read, when the segment is being written.
    if (this.#parse()) return true;
    this.#window = Buffer.alloc(0);
    this.#size = this.#disk.size(this.#fd);
    return this.#parse();
  }

  #parse(): boolean {
    const position = this.position;
    const header = this.#headerAt(position);
    if (header === null) {
      this.#reason = 'no record header with a valid checksum';
      return false;
    }
    const bytes = alignRecord(header.payloadBytes);
    const payload = this.#bytes(position + recordHeaderBytes, bytes);
    if (payload === null) {
      this.#reason = `the record's ${header.payloadBytes} bytes run past the end of the file`;
      return false;
    }
    if (!payloadMatches(payload, header, this.seed)) {
      this.#reason = `the checksum of the record's ${header.payloadBytes} bytes differs`;
      return false;
    }
    if (header.previousCrc !== this.lastCrc || header.number !== this.count) {
      this.#reason = 'a good record that does not follow the one before it';
      this.#misplaced = true;
      return false;
    }
    this.payload = payload.subarray(0, header.payloadBytes);
    this.position = position + recordHeaderBytes + bytes;
    this.lastCrc = header.headerCrc;
    this.count++;
    this.ended = header.last;
    return true;
  }

  #headerAt(position: number): RecordHeader | null {
    const bytes = this.#bytes(position, recordHeaderBytes);
    return bytes === null ? null : decodeRecordHeader(bytes, 0, this.seed, this.header.sequence, position);
  }

  /** `length` bytes at `position`, null when the file has fewer. */
  #bytes(position: number, length: number): Buffer | null {
    const at = position - this.#windowAt;
    if (at >= 0 && at + length <= this.#window.length) return this.#window.subarray(at, at + length);
    if (position + length > this.#size) return null;
    // A new buffer each time: the entries that replay keeps are parts of it.
    const window = Buffer.allocUnsafeSlow(Math.min(Math.max(walReadBytes, length), this.#size - position));
    const count = readFully(this.#disk, this.#fd, window, 0, window.length, position);
    this.#window = window.subarray(0, count);
    this.#windowAt = position;
    return count < length ? null : this.#window.subarray(0, length);
  }

  /** Judges what follows the last good record of a segment without end. Reads the rest of the file. */
  tail(): Tail {
    if (this.#misplaced) return { kind: TailKind.damaged, reason: this.#reason };
    const rest = this.#scan(this.position, this.position + recordAlignment);
    if (rest.record !== null) {
      return {
        kind: TailKind.damaged,
        reason: `${this.#reason}, but there is a later record at offset ${rest.record}`,
      };
    }
    if (this.#hasFlippedBit()) {
      return { kind: TailKind.damaged, reason: `${this.#reason}, for a single bit that has flipped` };
    }
    if (this.#headerAt(this.position) !== null) return { kind: TailKind.torn, reason: this.#reason };
    const clean = this.header.recycled || rest.zeros;
    return { kind: clean ? TailKind.clean : TailKind.torn, reason: this.#reason };
  }

  /** Whether the bytes at `position` are the next record but for one bit: it had been written, and may have been acknowledged. */
  #hasFlippedBit(): boolean {
    const { position } = this;
    const header = this.#headerAt(position);
    const mended = header ?? this.#mendedHeader();
    if (mended === null || mended.previousCrc !== this.lastCrc || mended.number !== this.count) return false;
    const bytes = alignRecord(mended.payloadBytes);
    if (bytes > walFlippedBitBytesMax) return false;
    const payload = this.#bytes(position + recordHeaderBytes, bytes);
    if (payload === null) return false;
    if (header === null) return payloadMatches(payload, mended, this.seed);
    const bit = flippedBit(payload, this.seed, header.payloadCrc);
    if (bit < 0) return false;
    // The last bit that the record has, and nothing behind it: the end of the write may be what is missing.
    const rest = payload.subarray(bit >>> 3);
    return !rest.equals(zeroBytes.subarray(0, rest.length));
  }

  /** What the record header at `position` was, if one bit of it has flipped. */
  #mendedHeader(): RecordHeader | null {
    const bytes = this.#bytes(this.position, recordHeaderBytes);
    if (bytes === null) return null;
    const copy = Buffer.from(bytes);
    for (let bit = 0; bit < 8 * recordHeaderBytes; bit++) {
      copy[bit >>> 3]! ^= 1 << (bit & 7);
      const header = decodeRecordHeader(copy, 0, this.seed, this.header.sequence, this.position);
      if (header !== null) return header;
      copy[bit >>> 3]! ^= 1 << (bit & 7);
    }
    return null;
  }

  /** Whether the segment holds no record, good or bad. */
  isUnused(): boolean {
    return this.#scan(segmentHeaderBytes, segmentHeaderBytes).record === null;
  }

  /**
   * Looks from `from` to the end of the file for the first record header at or after `earliest`, and whether all is zero. A
   * header is enough: with one write in flight, it can only have been written after what is before it was synced.
   */
  #scan(from: number, earliest: number): { record: number | null; zeros: boolean } {
    const buffer = Buffer.allocUnsafeSlow(walReadBytes);
    const overlap = recordHeaderBytes - 1;
    let zeros = true;
    for (let at = from; at < this.#size; at += walReadBytes - overlap) {
      const count = readFully(this.#disk, this.#fd, buffer, 0, Math.min(walReadBytes, this.#size - at), at);
      const window = buffer.subarray(0, count);
      if (window.equals(zeroBytes.subarray(0, count))) continue;
      zeros = false;
      for (let i = window.indexOf(recordMagic); i >= 0; i = window.indexOf(recordMagic, i + 1)) {
        const position = at + i;
        if (position % recordAlignment !== 0 || position < earliest) continue;
        const header = decodeRecordHeader(window, i, this.seed, this.header.sequence, position);
        if (header !== null) return { record: position, zeros };
      }
    }
    return { record: null, zeros };
  }
}

const zeroBytes = Buffer.alloc(walReadBytes);
