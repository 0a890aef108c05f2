// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), incremental. etcd's WAL records, HashKV and snapshot status use it.
// It is not zlib's CRC-32 (another polynomial, native in Node): our own formats use that one.
//
// Slicing by 16: table k holds the CRC of a byte followed by k zero bytes, so that 16 bytes cost 16 independent look-ups
// instead of 16 dependent ones. All tables sit in one Int32Array (16 KiB: half of a usual L1 data cache).
//
// Measured (Node 26, a shared 2-core machine, MB/s at 17 / 320 / 4096 bytes a call): slicing by 8: 410 / 810 / 860;
// by 16: 455 / 1110 / 1210. Sixteen separate arrays instead of one gain nothing.

import { assert } from './assert.ts';

const POLYNOMIAL = 0x82f63b78;
const SLICES = 16;

const table: Int32Array = buildTable();

function buildTable(): Int32Array {
  const built = new Int32Array(256 * SLICES);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    built[byte] = crc;
  }
  for (let slice = 1; slice < SLICES; slice++) {
    for (let byte = 0; byte < 256; byte++) {
      const previous = built[(slice - 1) * 256 + byte]!;
      built[slice * 256 + byte] = (previous >>> 8) ^ built[previous & 255]!;
    }
  }
  return built;
}

/**
 * The CRC-32C of what `crc` was computed over followed by `bytes[start, end)`. Begin with 0. The result is an unsigned
 * 32-bit number, as Go's crc32.Update(crc, castagnoli, bytes) returns it. Hot: 1 ns a byte.
 */
export function crc32c(crc: number, bytes: Uint8Array, start = 0, end: number = bytes.length): number {
  assert(start >= 0 && start <= end && end <= bytes.length, 'crc32c: range outside of the bytes');
  const t = table;
  let c = ~crc;
  let i = start;
  for (const last = end - 16; i <= last; i += 16) {
    c =
      t[3840 + ((c ^ bytes[i]!) & 255)]! ^
      t[3584 + (((c >>> 8) ^ bytes[i + 1]!) & 255)]! ^
      t[3328 + (((c >>> 16) ^ bytes[i + 2]!) & 255)]! ^
      t[3072 + ((c >>> 24) ^ bytes[i + 3]!)]! ^
      t[2816 + bytes[i + 4]!]! ^
      t[2560 + bytes[i + 5]!]! ^
      t[2304 + bytes[i + 6]!]! ^
      t[2048 + bytes[i + 7]!]! ^
      t[1792 + bytes[i + 8]!]! ^
      t[1536 + bytes[i + 9]!]! ^
      t[1280 + bytes[i + 10]!]! ^
      t[1024 + bytes[i + 11]!]! ^
      t[768 + bytes[i + 12]!]! ^
      t[512 + bytes[i + 13]!]! ^
      t[256 + bytes[i + 14]!]! ^
      t[bytes[i + 15]!]!;
  }
  for (; i < end; i++) c = t[(c ^ bytes[i]!) & 255]! ^ (c >>> 8);
  return ~c >>> 0;
}
