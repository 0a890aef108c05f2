// HPACK encoding (RFC 7541) of response fields. A field says itself whether it should enter the dynamic table: only fields
// that come back in each response do (content-type, grpc-status 0), so their indexes settle after the first response and a
// whole block becomes a few constant bytes (header-block.ts keeps them).

import { assert } from '../base/assert.ts';
import { HeaderField } from './header-field.ts';
import { DynamicTable, staticCount, staticNames, staticTable } from './hpack-table.ts';
import { huffmanEncode, huffmanLength } from './huffman.ts';

export interface OutputField {
  readonly name: string;
  /** latin1. */
  readonly value: string;
  /** Insert into the dynamic table when it is not there. Only for fields that many responses share. */
  readonly indexed?: boolean;
  /** Must never enter a table, here or at a proxy (RFC 7541, 7.1.3). */
  readonly sensitive?: boolean;
}

/** Bytes that any encoding of these fields fits in, table size updates included. */
export function encodedBytesMax(fields: readonly OutputField[]): number {
  let bytes = 12;
  for (const field of fields) bytes += field.name.length + field.value.length + 12;
  return bytes;
}

export class HpackEncoder {
  readonly table: DynamicTable;
  private readonly tableBytesMax: number;
  /** Sizes to announce in front of the next block: the smallest since the last block, then the final one (4.2). */
  private smallestSize = -1;
  private finalSize = -1;

  constructor(tableBytesMax: number) {
    this.tableBytesMax = tableBytesMax;
    this.table = new DynamicTable(Math.min(tableBytesMax, 4096));
  }

  /** True when the next block has to open with a table size update. */
  get updatePending(): boolean {
    return this.finalSize >= 0;
  }

  /** The peer's SETTINGS_HEADER_TABLE_SIZE. We use no more than our own bound of it. */
  peerTableSize(bytes: number): void {
    const size = Math.min(bytes, this.tableBytesMax);
    if (size === this.table.capacity && this.finalSize < 0) return;
    this.smallestSize = this.finalSize < 0 ? size : Math.min(this.smallestSize, size);
    this.finalSize = size;
    this.table.resize(size);
  }

  /** Writes the block of `fields` at `offset` and returns the offset behind it. The caller made room (encodedBytesMax). */
  encode(fields: readonly OutputField[], out: Buffer, offset: number): number {
    let at = offset;
    if (this.finalSize >= 0) {
      if (this.smallestSize < this.finalSize) at = writeInteger(out, at, 0x20, 0x1f, this.smallestSize);
      at = writeInteger(out, at, 0x20, 0x1f, this.finalSize);
      this.smallestSize = -1;
      this.finalSize = -1;
    }
    for (const field of fields) at = this.field(field, out, at);
    assert(at <= out.length, 'the caller made room for the block');
    return at;
  }

  private field(field: OutputField, out: Buffer, offset: number): number {
    const { name, value } = field;
    let nameIndex = staticNames.get(name) ?? 0;
    if (field.sensitive !== true) {
      for (let i = nameIndex; i > 0 && i <= staticCount && staticTable[i]!.name === name; i += 1) {
        if (staticTable[i]!.value === value) return writeInteger(out, offset, 0x80, 0x7f, i);
      }
      const whole = this.table.find(name, value);
      if (whole > 0) return writeInteger(out, offset, 0x80, 0x7f, whole);
    }
    let at = offset;
    const entry = field.indexed === true ? new HeaderField(name, value) : null;
    // A field that does not fit would only empty the table.
    const insert = entry !== null && entry.bytes <= this.table.capacity;
    if (nameIndex === 0 && !insert) nameIndex = this.nameOf(name);
    if (insert) at = writeInteger(out, at, 0x40, 0x3f, nameIndex);
    else at = writeInteger(out, at, field.sensitive === true ? 0x10 : 0, 0x0f, nameIndex);
    if (nameIndex === 0) at = writeString(out, at, name);
    at = writeString(out, at, value);
    if (insert) this.table.insert(entry);
    return at;
  }

  private nameOf(name: string): number {
    for (let age = 0; age < this.table.count; age += 1) {
      if (this.table.get(staticCount + 1 + age)!.name === name) return staticCount + 1 + age;
    }
    return 0;
  }
}

/** An integer behind a prefix (5.1): `pattern` holds the bits in front of it, `mask` is the prefix's largest value. */
export function writeInteger(out: Buffer, offset: number, pattern: number, mask: number, value: number): number {
  let at = offset;
  if (value < mask) {
    out[at] = pattern | value;
    return at + 1;
  }
  out[at++] = pattern | mask;
  let rest = value - mask;
  while (rest >= 0x80) {
    out[at++] = (rest & 0x7f) | 0x80;
    rest = Math.floor(rest / 128);
  }
  out[at++] = rest;
  return at;
}

/** A string literal (5.2), by Huffman unless that is longer (as appendix C does). */
function writeString(out: Buffer, offset: number, text: string): number {
  const coded = huffmanLength(text);
  if (coded <= text.length) return huffmanEncode(text, out, writeInteger(out, offset, 0x80, 0x7f, coded));
  const at = writeInteger(out, offset, 0, 0x7f, text.length);
  return at + out.write(text, at, 'latin1');
}
