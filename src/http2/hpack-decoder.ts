// HPACK decoding (RFC 7541): a header block in, header fields out to a sink. Holds the connection's dynamic table.
// Not a validator of requests, and it bounds no list: the sink counts, the connection bounds the block's bytes. What it does
// bound is integers (below 2^28: no length or index of a block can be larger) and the table (the size that we announced).
//
//   first byte   representation (6)
//   1xxxxxxx     indexed field
//   01xxxxxx     literal with incremental indexing
//   001xxxxx     dynamic table size update, only in front of the first field
//   0001xxxx     literal never indexed
//   0000xxxx     literal without indexing

import { HeaderField } from './header-field.ts';
import { DynamicTable, staticCount, staticTable } from './hpack-table.ts';
import { huffmanDecode } from './huffman.ts';

export interface FieldSink {
  field(field: HeaderField): void;
}

// Shared by all connections: decoding a string never yields.
let scratch: Buffer = Buffer.allocUnsafeSlow(4096);

export class HpackDecoder {
  readonly table: DynamicTable;
  /** What SETTINGS_HEADER_TABLE_SIZE allows the peer to use. */
  private readonly tableBytesMax: number;
  private at = 0;

  constructor(tableBytesMax: number) {
    this.tableBytesMax = tableBytesMax;
    this.table = new DynamicTable(tableBytesMax);
  }

  /** Decodes one whole header block. False is a COMPRESSION_ERROR: the table can no longer be trusted. */
  decode(block: Buffer, start: number, end: number, sink: FieldSink): boolean {
    this.at = start;
    let first = true;
    while (this.at < end) {
      const byte = block[this.at]!;
      if (byte >= 0x80) {
        const field = this.lookup(this.integer(block, end, 0x7f));
        if (field === null) return false;
        sink.field(field);
      } else if ((byte & 0xe0) === 0x20) {
        const bytes = this.integer(block, end, 0x1f);
        if (!first || bytes < 0 || bytes > this.tableBytesMax) return false;
        this.table.resize(bytes);
        continue;
      } else {
        const indexed = byte >= 0x40;
        const field = this.literal(block, end, indexed ? 0x3f : 0x0f);
        if (field === null) return false;
        if (indexed) this.table.insert(field);
        sink.field(field);
      }
      first = false;
    }
    return true;
  }

  private lookup(index: number): HeaderField | null {
    if (index <= 0) return null;
    return index <= staticCount ? staticTable[index]! : this.table.get(index);
  }

  private literal(block: Buffer, end: number, prefix: number): HeaderField | null {
    const index = this.integer(block, end, prefix);
    if (index < 0) return null;
    const named = index === 0 ? null : this.lookup(index);
    if (index > 0 && named === null) return null;
    const name = named === null ? this.string(block, end) : named.name;
    if (name === null) return null;
    const value = this.string(block, end);
    return value === null ? null : new HeaderField(name, value, named);
  }

  /** An integer with the given prefix mask at `this.at` (5.1), or -1 when it runs out of the block or of bounds. */
  private integer(block: Buffer, end: number, mask: number): number {
    let value = block[this.at]! & mask;
    this.at += 1;
    if (value < mask) return value;
    for (let shift = 0; shift <= 21; shift += 7) {
      if (this.at >= end) return -1;
      const byte = block[this.at]!;
      this.at += 1;
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return -1;
  }

  private string(block: Buffer, end: number): string | null {
    if (this.at >= end) return null;
    const huffman = block[this.at]! >= 0x80;
    const length = this.integer(block, end, 0x7f);
    if (length < 0 || length > end - this.at) return null;
    const start = this.at;
    this.at += length;
    if (!huffman) return block.toString('latin1', start, this.at);
    const room = ((length * 8) / 5 + 1) >>> 0;
    if (scratch.length < room) scratch = Buffer.allocUnsafeSlow(room * 2);
    const bytes = huffmanDecode(block, start, this.at, scratch);
    return bytes < 0 ? null : scratch.toString('latin1', 0, bytes);
  }
}
