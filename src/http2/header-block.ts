// A fixed list of response fields with its encoded bytes, for one connection. The bytes stay true as long as the encoder's
// dynamic table does not change, which after the first responses is for ever: `:status 200, content-type application/grpc`
// then costs two bytes to copy and `grpc-status 0` one.

import { fieldOverheadBytes } from './header-field.ts';
import type { HpackEncoder, OutputField } from './hpack-encoder.ts';
import { encodedBytesMax } from './hpack-encoder.ts';

export class HeaderBlock {
  readonly fields: readonly OutputField[];
  readonly bytesMax: number;
  /** Size by RFC 9113's count, for the peer's SETTINGS_MAX_HEADER_LIST_SIZE. */
  readonly listBytes: number;
  private bytes: Buffer = Buffer.alloc(0);
  private generation = -1;

  constructor(fields: readonly OutputField[]) {
    this.fields = fields;
    this.bytesMax = encodedBytesMax(fields);
    let listBytes = 0;
    for (const field of fields) listBytes += field.name.length + field.value.length + fieldOverheadBytes;
    this.listBytes = listBytes;
  }

  /** Writes the block at `offset` and returns the offset behind it. */
  write(encoder: HpackEncoder, out: Buffer, offset: number): number {
    const bytes = this.bytes;
    if (this.generation === encoder.table.generation && !encoder.updatePending) {
      for (let i = 0; i < bytes.length; i += 1) out[offset + i] = bytes[i]!;
      return offset + bytes.length;
    }
    const generation = encoder.table.generation;
    const settled = !encoder.updatePending;
    const end = encoder.encode(this.fields, out, offset);
    // Only a block that inserted nothing means the same when it is sent again.
    if (settled && generation === encoder.table.generation) {
      this.bytes = Buffer.from(out.subarray(offset, end));
      this.generation = generation;
    }
    return end;
  }
}
