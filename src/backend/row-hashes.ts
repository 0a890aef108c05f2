// The CRC-32C and length of every row of the `key` table, in revision order, so that hashes of the keyspace cost 10 ns a row
// instead of reading all of them (1 us). etcd hashes at each compaction: with a million keys and a compaction every 100,000
// puts that reading alone would cost more than the puts. Built by the first hash or compaction of the process (hash.ts);
// from then on the flusher adds what it flushes and removes what it compacts. Kept in memory only, 20 bytes a row.
//
// The hash of a concatenation follows from the parts (Adler's crc32_combine):
//
//   crc(A ++ B) = crc(A) * x^(8 * |B|) mod P   xor   crc(B)
//
// so a row that is left out costs nothing but its absence. The product is four table look-ups for each byte of the length
// that is not zero; a table of 1,024 words for each value of each byte is made when it is first needed.

import { assert } from '../base/assert.ts';
import { crc32c } from '../base/crc32c.ts';
import { TOMBSTONE_KEY_BYTES } from '../snapshot/schema.ts';

/** The CRC polynomial without its top bit, reflected; a polynomial's coefficient of x^0 is bit 31. */
const POLYNOMIAL = 0x82f63b78;
const CHUNK_ROWS = 65536;
const TOMBSTONE_BIT = 0x80000000;
const SEED: number = crc32c(0, Buffer.from('key'));

/** a * b mod P. */
function multiply(a: number, b: number): number {
  let product = 0;
  for (let bit = 0; bit < 32; bit++) {
    if ((a & (0x80000000 >>> bit)) !== 0) product ^= b;
    b = (b & 1) !== 0 ? (b >>> 1) ^ POLYNOMIAL : b >>> 1;
  }
  return product;
}

/** x^(8 * byteCount) mod P. */
function power(byteCount: number): number {
  let result = 0x80000000;
  // x^8: one byte.
  let square = 0x00800000;
  for (let rest = byteCount; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) result = multiply(result, square);
    square = multiply(square, square);
  }
  return result;
}

/** Multiplication by x^(8 * byteCount) as look-ups by the four bytes of the other factor. */
function shiftTable(byteCount: number): Int32Array {
  const factor = power(byteCount);
  const table = new Int32Array(1024);
  for (let byte = 0; byte < 4; byte++) {
    for (let bit = 0; bit < 8; bit++) {
      const product = multiply(factor, (1 << bit) << (8 * byte));
      const base = byte * 256;
      const step = 1 << bit;
      // Linear: the entries below `step` are there already.
      for (let low = 0; low < step; low++) table[base + step + low] = table[base + low]! ^ product;
    }
  }
  return table;
}

/** Tables for each value of each byte of a length, lowest byte first. */
const shifts: (Int32Array | undefined)[] = new Array<Int32Array | undefined>(4 * 256).fill(undefined);

/** The CRC of A ++ B out of crc(A), crc(B) and |B|. */
export function combine(crcA: number, crcB: number, bytesB: number): number {
  let crc = crcA;
  for (let place = 0, rest = bytesB; rest > 0; place++, rest = Math.floor(rest / 256)) {
    const value = rest & 255;
    if (value === 0) continue;
    const slot = place * 256 + value;
    let table = shifts[slot];
    if (table === undefined) {
      table = shiftTable(value * 256 ** place);
      shifts[slot] = table;
    }
    crc =
      table[crc & 255]! ^
      table[256 + ((crc >>> 8) & 255)]! ^
      table[512 + ((crc >>> 16) & 255)]! ^
      table[768 + (crc >>> 24)]!;
  }
  return (crc ^ crcB) >>> 0;
}

interface Chunk {
  readonly mains: Float64Array;
  readonly subs: Uint32Array;
  readonly crcs: Uint32Array;
  /** Bytes of key and value; the top bit: a tombstone. */
  readonly lengths: Uint32Array;
}

function newChunk(): Chunk {
  return {
    mains: new Float64Array(CHUNK_ROWS),
    subs: new Uint32Array(CHUNK_ROWS),
    crcs: new Uint32Array(CHUNK_ROWS),
    lengths: new Uint32Array(CHUNK_ROWS),
  };
}

/** Revisions in ascending order, to be gone through beside the rows. */
export interface SortedRevisions {
  /** Ascending; may repeat. */
  readonly mains: Float64Array;
  has(main: number, sub: number): boolean;
}

export class RowHashes {
  rowCount = 0;
  private chunks: Chunk[] = [];

  /** A row newer than all before. Costs the CRC: 1 ns a byte. */
  append(main: number, sub: number, key: Buffer, value: Buffer): void {
    const at = this.rowCount % CHUNK_ROWS;
    if (at === 0) this.chunks.push(newChunk());
    const chunk = this.chunks[this.chunks.length - 1]!;
    chunk.mains[at] = main;
    chunk.subs[at] = sub;
    chunk.crcs[at] = crc32c(crc32c(0, key), value);
    const bytes = key.length + value.length;
    chunk.lengths[at] = key.length === TOMBSTONE_KEY_BYTES ? bytes + TOMBSTONE_BIT : bytes;
    this.rowCount++;
  }

  /** The rows of another list, all newer. */
  appendAll(newer: RowHashes): void {
    for (let row = 0; row < newer.rowCount; row++) {
      const source = newer.chunks[Math.floor(row / CHUNK_ROWS)]!;
      const from = row % CHUNK_ROWS;
      const at = this.rowCount % CHUNK_ROWS;
      if (at === 0) this.chunks.push(newChunk());
      const chunk = this.chunks[this.chunks.length - 1]!;
      chunk.mains[at] = source.mains[from]!;
      chunk.subs[at] = source.subs[from]!;
      chunk.crcs[at] = source.crcs[from]!;
      chunk.lengths[at] = source.lengths[from]!;
      this.rowCount++;
    }
  }

  /** Removes those of `gone`. 5 ns a row. */
  remove(gone: SortedRevisions): void {
    const { mains } = gone;
    let next = 0;
    let to = 0;
    for (let from = 0; from < this.rowCount; from++) {
      const source = this.chunks[Math.floor(from / CHUNK_ROWS)]!;
      const at = from % CHUNK_ROWS;
      const main = source.mains[at]!;
      while (next < mains.length && mains[next]! < main) next++;
      if (next < mains.length && mains[next] === main && gone.has(main, source.subs[at]!)) continue;
      if (to !== from) {
        const target = this.chunks[Math.floor(to / CHUNK_ROWS)]!;
        const out = to % CHUNK_ROWS;
        target.mains[out] = main;
        target.subs[out] = source.subs[at]!;
        target.crcs[out] = source.crcs[at]!;
        target.lengths[out] = source.lengths[at]!;
      }
      to++;
    }
    this.rowCount = to;
    this.chunks.length = Math.ceil(to / CHUNK_ROWS);
  }

  /** A fold over the rows as they are now, in slices. */
  fold(revision: number, compactRevision: number, dropped: SortedRevisions | null): HashFold {
    return new HashFold(this.chunks, this.rowCount, revision, compactRevision, dropped);
  }
}

/** HashKV's rules (src/snapshot/hashkv.ts) over the rows' CRCs. Rows may be appended meanwhile, none removed. */
export class HashFold {
  hash: number = SEED;
  private readonly chunks: readonly Chunk[];
  private readonly rowCount: number;
  private readonly revision: number;
  private readonly compactRevision: number;
  private readonly dropped: SortedRevisions | null;
  private row = 0;
  private next = 0;

  constructor(
    chunks: readonly Chunk[],
    rowCount: number,
    revision: number,
    compactRevision: number,
    dropped: SortedRevisions | null,
  ) {
    this.chunks = chunks;
    this.rowCount = rowCount;
    this.revision = revision;
    this.compactRevision = compactRevision;
    this.dropped = dropped;
  }

  /** Takes up to `rowsMax` rows; true when `hash` is the answer. */
  step(rowsMax: number): boolean {
    assert(rowsMax > 0, 'hash fold without progress');
    const to = Math.min(this.row + rowsMax, this.rowCount);
    let hash = this.hash;
    for (; this.row < to; this.row++) {
      const chunk = this.chunks[Math.floor(this.row / CHUNK_ROWS)]!;
      const at = this.row % CHUNK_ROWS;
      const main = chunk.mains[at]!;
      if (main > this.revision) {
        this.row = this.rowCount;
        break;
      }
      const length = chunk.lengths[at]!;
      if (main <= this.compactRevision && this.skips(main, chunk.subs[at]!, length >= TOMBSTONE_BIT)) continue;
      hash = combine(hash, chunk.crcs[at]!, length & 0x7fffffff);
    }
    this.hash = hash;
    return this.row >= this.rowCount;
  }

  private skips(main: number, sub: number, tombstone: boolean): boolean {
    if (main === this.compactRevision && tombstone) return true;
    const dropped = this.dropped;
    if (dropped === null) return false;
    const { mains } = dropped;
    while (this.next < mains.length && mains[this.next]! < main) this.next++;
    return mains[this.next] === main && dropped.has(main, sub);
  }
}
