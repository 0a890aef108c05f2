// The protobuf wire format (encoding spec of protobuf.dev): tags, varints, length-delimited fields, over Buffers with offsets.
// Readers answer false / -1 on malformed input instead of throwing: input comes from the network. Writers trust their caller.
// Not a schema: message.ts has that, the hot messages have their own files.

import { assert } from '../base/assert.ts';
import { wireGroupsNestedMax } from '../limits.ts';

export const WireType = { varint: 0, fixed64: 1, bytes: 2, groupStart: 3, groupEnd: 4, fixed32: 5 } as const;

const TWO_32 = 4294967296;

/**
 * A cursor over one message. Every read leaves `ok` false and the cursor at the end when the bytes are malformed, so a parse
 * loop needs one check at its end. Reused: a parse costs no object.
 */
export class Reader {
  buffer: Buffer = Buffer.alloc(0);
  position = 0;
  end = 0;
  ok = true;
  /** Of the last readTag(). */
  fieldNumber = 0;
  wireType = 0;
  /** u32 halves of the last readVarint64(). */
  low = 0;
  high = 0;
  /** Bounds of the last readBytes(). */
  bytesStart = 0;
  bytesEnd = 0;

  reset(buffer: Buffer, start: number, end: number): void {
    this.buffer = buffer;
    this.position = start;
    this.end = end;
    this.ok = true;
  }

  fail(): void {
    this.ok = false;
    this.position = this.end;
  }

  /** True when a field follows; its number and wire type are set. */
  readTag(): boolean {
    if (this.position >= this.end) return false;
    const tag = this.readUint32();
    this.fieldNumber = tag >>> 3;
    this.wireType = tag & 7;
    if (this.fieldNumber === 0) this.fail();
    return this.ok;
  }

  /** A tag or a length: a varint whose value fits 32 bits, padded or not (Go's decoder takes padding); above, malformed. */
  readUint32(): number {
    const buffer = this.buffer;
    const position = this.position;
    if (position < this.end) {
      const first = buffer[position]!;
      if (first < 0x80) {
        this.position = position + 1;
        return first;
      }
      if (position + 1 < this.end) {
        const second = buffer[position + 1]!;
        if (second < 0x80) {
          this.position = position + 2;
          return (first & 0x7f) | (second << 7);
        }
      }
    }
    if (!this.readVarint64()) return 0;
    if (this.high !== 0) this.fail();
    return this.ok ? this.low : 0;
  }

  /** Any varint of up to ten bytes into `low` and `high`. */
  readVarint64(): boolean {
    const buffer = this.buffer;
    let position = this.position;
    let low = 0;
    let high = 0;
    for (let index = 0; index < 10; index++) {
      if (position >= this.end) {
        this.fail();
        return false;
      }
      const byte = buffer[position++]!;
      const bits = byte & 0x7f;
      if (index < 4) low |= bits << (index * 7);
      else if (index === 4) {
        low |= bits << 28;
        high = bits >>> 4;
      } else if (index < 9) high |= bits << (index * 7 - 32);
      else {
        if (byte > 1) break;
        high |= bits << 31;
      }
      if (byte < 0x80) {
        this.position = position;
        this.low = low >>> 0;
        this.high = high >>> 0;
        return true;
      }
    }
    this.fail();
    return false;
  }

  /** An int64 as a number: exact within ±2^53, monotone beyond. */
  readInt(): number {
    if (this.position < this.end) {
      const first = this.buffer[this.position]!;
      if (first < 0x80) {
        this.position++;
        return first;
      }
    }
    if (!this.readVarint64()) return 0;
    return (this.high | 0) * TWO_32 + this.low;
  }

  /** A uint64 as a number: exact up to 2^53. */
  readUint(): number {
    if (!this.readVarint64()) return 0;
    return this.high * TWO_32 + this.low;
  }

  /** An enum: int32, cut off to its low bits as protobuf does with a wider varint. */
  readEnum(): number {
    if (!this.readVarint64()) return 0;
    return this.low | 0;
  }

  readInt64(): bigint {
    if (!this.readVarint64()) return 0n;
    return BigInt.asIntN(64, (BigInt(this.high) << 32n) | BigInt(this.low));
  }

  readUint64(): bigint {
    if (!this.readVarint64()) return 0n;
    return (BigInt(this.high) << 32n) | BigInt(this.low);
  }

  readBool(): boolean {
    if (!this.readVarint64()) return false;
    return (this.low | this.high) !== 0;
  }

  /** A length-delimited field into bytesStart..bytesEnd. */
  readBytes(): boolean {
    const length = this.readUint32();
    if (!this.ok || length > this.end - this.position) {
      this.fail();
      this.bytesStart = this.bytesEnd = this.end;
      return false;
    }
    this.bytesStart = this.position;
    this.position += length;
    this.bytesEnd = this.position;
    return true;
  }

  /**
   * Steps over a field of a number that the message does not know (or knows with another type). Also over a group, which proto3
   * does not have, but Go's decoder skips: what it takes from the log or a client, we must take.
   */
  skip(): void {
    switch (this.wireType) {
      case WireType.varint:
        this.readVarint64();
        return;
      case WireType.fixed64:
        this.advance(8);
        return;
      case WireType.bytes:
        this.readBytes();
        return;
      case WireType.fixed32:
        this.advance(4);
        return;
      case WireType.groupStart:
        this.skipGroup();
        return;
      default:
        this.fail();
    }
  }

  /** The start was read. Groups nest: their numbers are kept, innermost last, until their ends. Leaves the tag as it was. */
  private skipGroup(): void {
    const { fieldNumber, wireType } = this;
    const open = [fieldNumber];
    while (open.length > 0 && this.readGroupTag()) {
      if (this.wireType === WireType.groupEnd) {
        if (open.pop() !== this.fieldNumber) this.fail();
      } else if (this.wireType !== WireType.groupStart) this.skip();
      else if (open.push(this.fieldNumber) > wireGroupsNestedMax) this.fail();
    }
    if (open.length > 0) this.fail();
    this.fieldNumber = fieldNumber;
    this.wireType = wireType;
  }

  /** As readTag(), but for Go's looser bound inside of groups: a number of 31 bits. */
  private readGroupTag(): boolean {
    if (!this.readVarint64() || this.high > 3) return false;
    this.fieldNumber = this.high * (TWO_32 / 8) + (this.low >>> 3);
    this.wireType = this.low & 7;
    return this.fieldNumber > 0;
  }

  private advance(byteCount: number): void {
    if (byteCount > this.end - this.position) this.fail();
    else this.position += byteCount;
  }
}

/** Bytes that `value` (a non-negative safe integer) takes as a varint. */
export function varintLength(value: number): number {
  let length = 1;
  while (value >= 128) {
    value = value < TWO_32 ? value >>> 7 : Math.floor(value / 128);
    length++;
  }
  return length;
}

/** Writes a non-negative safe integer; returns the next offset. */
export function writeVarint(out: Buffer, offset: number, value: number): number {
  assert(value >= 0, 'writeVarint of a negative number');
  while (value >= TWO_32) {
    out[offset++] = (value % 128) | 0x80;
    value = Math.floor(value / 128);
  }
  while (value >= 128) {
    out[offset++] = (value & 0x7f) | 0x80;
    value >>>= 7;
  }
  out[offset++] = value;
  return offset;
}

/** Bytes that the 64-bit value of the halves takes as a varint. */
export function varint64Length(high: number, low: number): number {
  if (high === 0) return varintLength(low);
  return high >= 0x80000000 ? 10 : 4 + varintLength((high >>> 0) * 16 + (low >>> 28));
}

/** Writes the 64-bit value of the halves. */
export function writeVarint64(out: Buffer, offset: number, high: number, low: number): number {
  high >>>= 0;
  low >>>= 0;
  while (high !== 0) {
    out[offset++] = (low & 0x7f) | 0x80;
    low = ((low >>> 7) | (high << 25)) >>> 0;
    high >>>= 7;
  }
  return writeVarint(out, offset, low);
}

export function writeBigVarint(out: Buffer, offset: number, value: bigint): number {
  const bits = BigInt.asUintN(64, value);
  return writeVarint64(out, offset, Number(bits >> 32n), Number(bits & 0xffffffffn));
}

export function bigVarintLength(value: bigint): number {
  const bits = BigInt.asUintN(64, value);
  return varint64Length(Number(bits >> 32n), Number(bits & 0xffffffffn));
}
