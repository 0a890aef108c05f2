// The bbolt file format (go.etcd.io/bbolt 1.3 to 1.5, data file version 2): constants, the meta page, byte order of keys.
// Shared by bolt-writer.ts and bolt-reader.ts; it does no I/O and knows nothing of trees. All integers are little-endian.
//
// A file is an array of pages of one size (2^10 to 2^16 bytes here, the operating system's page size by default). Pages 0 and
// 1 are metas; the valid one with the higher transaction id counts. Every page starts with:
//
//   page header   0  u64  id            its own number; a page with overflow k also owns the numbers id+1 ... id+k
//                 8  u16  flags         1 branch, 2 leaf, 4 meta, 16 freelist
//                10  u16  count         elements
//                12  u32  overflow      further pages that continue this one
//                16       content
//
//   meta          0  u32  magic         0xED0CDAED
//   (after the    4  u32  version       2
//   header)       8  u32  page size
//                12  u32  flags         0
//                16  u64  root          page of the root bucket, whose elements are the named buckets
//                24  u64  sequence      of the root bucket: 0
//                32  u64  freelist      page of the freelist, or 2^64-1: not stored
//                40  u64  page count    pages in use: the first number never allocated (the "high water mark")
//                48  u64  txid
//                56  u64  checksum      FNV-64a of the 56 bytes before it
//
//   branch        16 bytes an element, then the keys in the same order
//   element       0  u32  pos           of the key, counted from the element itself
//                 4  u32  ksize
//                 8  u64  child page    its keys are >= this key and < the next element's
//
//   leaf          16 bytes an element, then key, value, key, value ... in the same order
//   element       0  u32  flags         1: the value is a bucket header
//                 4  u32  pos           of the key, counted from the element itself
//                 8  u32  ksize         1 to 32768
//                12  u32  vsize         the value follows its key
//
//   bucket header 0  u64  root          page of the bucket's tree, or 0: inline, a leaf page (header included) follows at 16
//                 8  u64  sequence
//
//   freelist      count ids, u64 each, ascending; when count is 0xFFFF the first u64 is the real count

import { assert } from '../base/assert.ts';

export const BOLT_MAGIC = 0xed0cdaed;
export const BOLT_VERSION = 2;
export const PAGE_HEADER_BYTES = 16;
export const ELEMENT_BYTES = 16;
export const BUCKET_HEADER_BYTES = 16;
export const META_BYTES = 64;
export const META_CHECKSUM_OFFSET = 56;
/** `count` of a freelist page that says: the real count is in the first slot. */
export const FREELIST_COUNT_IN_SLOT = 0xffff;

export const PageFlag = { branch: 0x01, leaf: 0x02, meta: 0x04, freelist: 0x10 } as const;
export const LEAF_BUCKET_FLAG = 0x01;

export const PAGE_BYTES_MIN = 1024;
export const PAGE_BYTES_MAX = 65536;
/** The SHA-256 that etcd puts behind the file. */
export const SNAPSHOT_HASH_BYTES = 32;

const TWO_32 = 4294967296;

/** The fields of a meta page that anybody needs. Page numbers are exact: open refuses files that are too large for that. */
export interface BoltMeta {
  readonly pageBytes: number;
  readonly rootPage: number;
  /** -1: the freelist is not stored. */
  readonly freelistPage: number;
  readonly pageCount: number;
  readonly txid: bigint;
}

/** A u64 as a number; above 2^53 it is rounded, yet never down to a number that a page check would accept. */
export function readPageNumber(bytes: Buffer, offset: number): number {
  return bytes.readUInt32LE(offset + 4) * TWO_32 + bytes.readUInt32LE(offset);
}

export function writePageNumber(bytes: Buffer, page: number, offset: number): void {
  bytes.writeUInt32LE(page % TWO_32, offset);
  bytes.writeUInt32LE(Math.floor(page / TWO_32), offset + 4);
}

/** FNV-64a over `bytes[start, end)`: bbolt's meta checksum. 56 bytes, twice a file: a bigint does. */
export function fnv64a(bytes: Buffer, start: number, end: number): bigint {
  let hash = 0xcbf29ce484222325n;
  for (let i = start; i < end; i++) hash = BigInt.asUintN(64, (hash ^ BigInt(bytes[i]!)) * 0x100000001b3n);
  return hash;
}

/** A whole meta page with number `page`. */
export function encodeMetaPage(page: 0 | 1, meta: BoltMeta): Buffer {
  assert(meta.rootPage >= 2 && meta.rootPage < meta.pageCount, 'bolt meta: root page out of range');
  const bytes = Buffer.alloc(meta.pageBytes);
  writePageNumber(bytes, page, 0);
  bytes.writeUInt16LE(PageFlag.meta, 8);
  const at = PAGE_HEADER_BYTES;
  bytes.writeUInt32LE(BOLT_MAGIC, at);
  bytes.writeUInt32LE(BOLT_VERSION, at + 4);
  bytes.writeUInt32LE(meta.pageBytes, at + 8);
  writePageNumber(bytes, meta.rootPage, at + 16);
  if (meta.freelistPage === -1) bytes.fill(0xff, at + 32, at + 40);
  else writePageNumber(bytes, meta.freelistPage, at + 32);
  writePageNumber(bytes, meta.pageCount, at + 40);
  bytes.writeBigUInt64LE(meta.txid, at + 48);
  bytes.writeBigUInt64LE(fnv64a(bytes, at, at + META_CHECKSUM_OFFSET), at + META_CHECKSUM_OFFSET);
  return bytes;
}

/** The meta in `bytes` (a page header and at least 64 bytes), or the reason why it is none. Ranges are the caller's to check. */
export function decodeMetaPage(bytes: Buffer): BoltMeta | string {
  if (bytes.length < PAGE_HEADER_BYTES + META_BYTES) return 'meta page is cut short';
  const at = PAGE_HEADER_BYTES;
  if (bytes.readUInt32LE(at) !== BOLT_MAGIC) return 'meta page: bad magic';
  if (bytes.readUInt32LE(at + 4) !== BOLT_VERSION) return 'meta page: unknown version';
  const checksum = bytes.readBigUInt64LE(at + META_CHECKSUM_OFFSET);
  if (checksum !== fnv64a(bytes, at, at + META_CHECKSUM_OFFSET)) return 'meta page: checksum mismatch';
  if (bytes.readUInt16LE(8) !== PageFlag.meta) return 'meta page: not flagged as a meta page';
  const pageBytes = bytes.readUInt32LE(at + 8);
  const isPowerOfTwo = (pageBytes & (pageBytes - 1)) === 0;
  if (!isPowerOfTwo || pageBytes < PAGE_BYTES_MIN || pageBytes > PAGE_BYTES_MAX)
    return 'meta page: unsupported page size';
  const noFreelist = bytes.readUInt32LE(at + 32) === 0xffffffff && bytes.readUInt32LE(at + 36) === 0xffffffff;
  return {
    pageBytes,
    rootPage: readPageNumber(bytes, at + 16),
    freelistPage: noFreelist ? -1 : readPageNumber(bytes, at + 32),
    pageCount: readPageNumber(bytes, at + 40),
    txid: bytes.readBigUInt64LE(at + 48),
  };
}

/** Byte order of `a[aStart, aEnd)` and `b[bStart, bEnd)`: negative, 0 or positive. Hot: a loop beats the native call on short keys. */
export function compareBytes(a: Buffer, aStart: number, aEnd: number, b: Buffer, bStart: number, bEnd: number): number {
  const aLength = aEnd - aStart;
  const bLength = bEnd - bStart;
  const shared = Math.min(aLength, bLength);
  if (shared > 64) return a.compare(b, bStart, bEnd, aStart, aEnd);
  for (let i = 0; i < shared; i++) {
    const difference = a[aStart + i]! - b[bStart + i]!;
    if (difference !== 0) return difference;
  }
  return aLength - bLength;
}
