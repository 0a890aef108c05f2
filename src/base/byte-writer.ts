// A growing output buffer with protobuf's primitives, kept and reused by its owner: a response of unknown size is written once
// and handed on as (bytes, 0, length). Growth doubles; `release` returns to the small size after a big answer.
//
// A client decides how large an answer gets: whoever appends what it asks for asks for room() first. A writer without room is
// full and says so; it never throws for it, since what is written may be half of an apply.

import { assert } from './assert.ts';

export class ByteWriter {
  bytes: Buffer;
  length = 0;
  /** There was no room for something that was to be appended, or it is not wanted: the content is of no use. */
  full = false;
  /** What room() lets the content grow to. */
  readonly bytesMax: number;
  private readonly sizeInitial: number;

  constructor(sizeInitial = 65536, bytesMax: number = Infinity) {
    this.sizeInitial = sizeInitial;
    this.bytesMax = bytesMax;
    this.bytes = Buffer.allocUnsafeSlow(sizeInitial);
  }

  reset(): void {
    this.length = 0;
    this.full = false;
  }

  /** Drops a buffer that grew past `bytesKept`, so that one big answer does not keep its memory. */
  release(bytesKept: number): void {
    this.reset();
    if (this.bytes.length > bytesKept) this.bytes = Buffer.allocUnsafeSlow(this.sizeInitial);
  }

  /** Whether `byteCount` more bytes may be appended. Once they may not, nothing may until the reset. Hot. */
  room(byteCount: number): boolean {
    if (this.length + byteCount > this.bytesMax) this.full = true;
    return !this.full;
  }

  /** Makes room for `byteCount` more bytes. */
  reserve(byteCount: number): void {
    const needed = this.length + byteCount;
    if (needed <= this.bytes.length) return;
    let size = this.bytes.length * 2;
    while (size < needed) size *= 2;
    const grown = Buffer.allocUnsafeSlow(size);
    this.bytes.copy(grown, 0, 0, this.length);
    this.bytes = grown;
  }

  copy(source: Buffer, start: number, end: number): void {
    this.reserve(end - start);
    source.copy(this.bytes, this.length, start, end);
    this.length += end - start;
  }

  byte(value: number): void {
    this.reserve(1);
    this.bytes[this.length++] = value;
  }

  /** A non-negative safe integer. */
  varint(value: number): void {
    assert(value >= 0, 'ByteWriter.varint of a negative number');
    this.reserve(10);
    const bytes = this.bytes;
    let offset = this.length;
    while (value >= 4294967296) {
      bytes[offset++] = (value % 128) | 0x80;
      value = Math.floor(value / 128);
    }
    while (value >= 128) {
      bytes[offset++] = (value & 0x7f) | 0x80;
      value >>>= 7;
    }
    bytes[offset++] = value;
    this.length = offset;
  }

  /** Tag (field number < 16), then a varint; nothing when the value is zero. */
  varintField(tag: number, value: number): void {
    if (value === 0) return;
    this.byte(tag);
    this.varint(value);
  }

  /** Tag, length and bytes. */
  bytesField(tag: number, source: Buffer, start: number, end: number): void {
    this.byte(tag);
    this.varint(end - start);
    this.copy(source, start, end);
  }

  /**
   * Opens an embedded message whose size is not known: leaves five bytes for its length, which `closeMessage`
   * fills and closes up.
   */
  openMessage(tag: number): number {
    this.byte(tag);
    // As much as varint() asks for: if it grew the buffer in closeMessage, only the bytes before the mark would be kept.
    this.reserve(10);
    const mark = this.length;
    this.length += 5;
    return mark;
  }

  /** Moves the content back over the unused length bytes, so that the encoding is the canonical one. */
  closeMessage(mark: number): void {
    const contentStart = mark + 5;
    const contentLength = this.length - contentStart;
    this.length = mark;
    this.varint(contentLength);
    if (this.length !== contentStart) {
      this.bytes.copyWithin(this.length, contentStart, contentStart + contentLength);
    }
    this.length += contentLength;
  }
}
