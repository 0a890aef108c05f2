// Which single bit of some bytes has to flip for them to have their checksum again. What a write leaves that did not finish lacks whole
// sectors: but for chance (one in 2^32 a bit) no single bit mends it, so that one that does is rot, of bytes that had been written.
//
// CRC-32 is linear: a flip changes the checksum by a value of its own, whatever the other bytes are. That of a bit in the last byte is the
// table's entry; one byte further from the end is one more step of the register over a zero byte.

import zlib from 'node:zlib';

const polynomial = 0xedb88320;
const table: Uint32Array = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value & 1) === 0 ? value >>> 1 : (value >>> 1) ^ polynomial;
  return value;
});

/** The bit, counted from the lowest of the first byte; -1: none. `seed` is where the CRC begins. */
export function flippedBit(bytes: Buffer, seed: number, expected: number): number {
  const difference = (zlib.crc32(bytes, seed) ^ expected) >>> 0;
  const changes = Uint32Array.from({ length: 8 }, (_, bit) => table[1 << bit]!);
  for (let at = bytes.length - 1; at >= 0; at--) {
    for (let bit = 0; bit < 8; bit++) {
      const change = changes[bit]!;
      if (change === difference) return at * 8 + bit;
      changes[bit] = (change >>> 8) ^ table[change & 0xff]!;
    }
  }
  return -1;
}
