// Reads bbolt database files (bolt-format.ts) through an injected random-access file: finds the valid meta, iterates and
// searches buckets (nested and inline ones too), checks a whole file as bbolt's tx.Check() does. It never writes.
//
// The bytes are not trusted. Every page is checked whole when it is loaded, before anything on it is used: its own number, its
// type, its bounds, that elements lie behind one another within the page, that keys ascend and stay within what the parent
// promised. Errors are values (a reason and a byte offset); nothing is thrown on bad bytes. What the injected read() throws
// (a disk error) passes through.
//
// Nothing loops: keys of a child must lie in [its element's key, the next element's key), strictly ascending. So no page with
// two elements or more can be met twice in one bucket, chains of one-element branches end at boltTreeDepthMax, empty leaves
// are no more than the elements that name them, and buckets in buckets end at boltBucketDepthMax.
//
// Memory: the current leaf with its overflow, and the branch pages above it.

import { createHash } from 'node:crypto';
import {
  boltBranchBytesMax,
  boltBucketDepthMax,
  boltKeyBytesMax,
  boltPageBytesMax,
  boltReadBytes,
  boltTreeDepthMax,
  boltValueBytesMax,
} from '../storage-limits.ts';
import {
  type BoltMeta,
  BUCKET_HEADER_BYTES,
  compareBytes,
  decodeMetaPage,
  ELEMENT_BYTES,
  LEAF_BUCKET_FLAG,
  META_BYTES,
  PAGE_BYTES_MAX,
  PAGE_BYTES_MIN,
  PAGE_HEADER_BYTES,
  PageFlag,
  readPageNumber,
  SNAPSHOT_HASH_BYTES,
} from './bolt-format.ts';

/** What the reader asks of a file. read() returns a buffer of its own, shorter than asked only at the end of the file. */
export interface RandomAccessFile {
  readonly size: number;
  read(offset: number, length: number): Buffer;
}

/** Why a file is refused, and at which byte of it. */
export interface BoltError {
  readonly offset: number;
  readonly reason: string;
}

export type BoltResult<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: BoltError };

/** What BoltCursor.next() found. */
export const CursorStep = { entry: 0, end: 1, error: 2 } as const;
export type CursorStep = (typeof CursorStep)[keyof typeof CursorStep];

/** Told of each page that a cursor loads; answers a reason to stop or null. bolt-check.ts marks pages with it. */
export type PageVisitor = (page: number, pageCount: number) => string | null;

/** A checked page on the way from a root to a leaf. */
interface Frame {
  readonly bytes: Buffer;
  /** Of `bytes` in the file. */
  readonly fileOffset: number;
  readonly isLeaf: boolean;
  readonly count: number;
  /** Of the current element; -1 before the first. */
  index: number;
  /** No key of this page or below reaches this one; null: no bound. */
  readonly upper: Buffer | null;
}

const EMPTY: Buffer = Buffer.alloc(0);

export class BoltReader {
  readonly file: RandomAccessFile;
  readonly meta: BoltMeta;

  /** Use openBolt(). */
  constructor(file: RandomAccessFile, meta: BoltMeta) {
    this.file = file;
    this.meta = meta;
  }

  /** The bucket of the named buckets. */
  root(): BoltBucket {
    return new BoltBucket(this, this.meta.rootPage, null, 0, 0);
  }

  /** A named bucket, or null when there is none. */
  bucket(name: Buffer): BoltResult<BoltBucket | null> {
    return this.root().bucket(name);
  }
}

/** One bucket: a tree of pages, or an inline page inside its parent's leaf. */
export class BoltBucket {
  readonly reader: BoltReader;
  /** 0: inline. */
  readonly rootPage: number;
  /** The inline page, or null. */
  readonly inlinePage: Buffer | null;
  readonly inlineOffset: number;
  readonly depth: number;

  constructor(reader: BoltReader, rootPage: number, inlinePage: Buffer | null, inlineOffset: number, depth: number) {
    this.reader = reader;
    this.rootPage = rootPage;
    this.inlinePage = inlinePage;
    this.inlineOffset = inlineOffset;
    this.depth = depth;
  }

  /** Before the first entry. Keep none across changes of the file. */
  cursor(visitor: PageVisitor | null = null): BoltCursor {
    return new BoltCursor(this, visitor);
  }

  /** The value of a key, or null when there is none or it names a bucket. */
  get(key: Buffer): BoltResult<Buffer | null> {
    const cursor = this.cursor();
    const step = cursor.seek(key);
    if (step === CursorStep.error) return { ok: false, error: cursor.error! };
    const found = step === CursorStep.entry && !cursor.isBucket && cursor.key.equals(key);
    return { ok: true, value: found ? cursor.value : null };
  }

  /** A bucket inside this one, or null when there is none. */
  bucket(name: Buffer): BoltResult<BoltBucket | null> {
    const cursor = this.cursor();
    const step = cursor.seek(name);
    if (step === CursorStep.error) return { ok: false, error: cursor.error! };
    if (step === CursorStep.end || !cursor.isBucket || !cursor.key.equals(name)) return { ok: true, value: null };
    return cursor.bucket();
  }
}

/**
 * Walks a bucket in key order. `key`, `value` and `isBucket` belong to the entry of the last next() or seek() that answered
 * CursorStep.entry; `error` is set after CursorStep.error, which is final. Both buffers are read-only views of a page.
 */
export class BoltCursor {
  key: Buffer = EMPTY;
  value: Buffer = EMPTY;
  isBucket = false;
  error: BoltError | null = null;

  private readonly owner: BoltBucket;
  private readonly visitor: PageVisitor | null;
  private readonly stack: Frame[] = [];
  private started = false;
  /** Of `value` in the file. */
  private valueOffset = 0;

  constructor(owner: BoltBucket, visitor: PageVisitor | null) {
    this.owner = owner;
    this.visitor = visitor;
  }

  /** Goes to the next entry in key order. */
  next(): CursorStep {
    if (this.error !== null) return CursorStep.error;
    if (!this.started && !this.pushRoot()) return CursorStep.error;
    for (;;) {
      const frame = this.stack[this.stack.length - 1];
      if (frame === undefined) return CursorStep.end;
      frame.index++;
      if (frame.index >= frame.count) {
        this.stack.pop();
      } else if (frame.isLeaf) {
        this.take(frame);
        return CursorStep.entry;
      } else if (!this.pushChild(frame)) {
        return CursorStep.error;
      }
    }
  }

  /** Goes to the first entry whose key is not below `target`. */
  seek(target: Buffer): CursorStep {
    if (this.error !== null) return CursorStep.error;
    this.stack.length = 0;
    if (!this.pushRoot()) return CursorStep.error;
    for (;;) {
      const frame = this.stack[this.stack.length - 1]!;
      const below = countBelow(frame, target);
      if (frame.isLeaf) {
        frame.index = below - 1;
        return this.next();
      }
      // The child that may hold the target is the last one whose key is not above it; next() would move on by one.
      const isExact = below < frame.count && compareElementKey(frame, below, target) === 0;
      frame.index = isExact ? below : Math.max(below - 1, 0);
      if (!this.pushChild(frame)) return CursorStep.error;
    }
  }

  /** Where the value of the current entry stands in the file: for messages about it. */
  entryOffset(): number {
    return this.valueOffset;
  }

  /** The bucket that the current entry names. */
  bucket(): BoltResult<BoltBucket> {
    const { reader, depth } = this.owner;
    const offset = this.valueOffset;
    if (!this.isBucket) return failure(offset, 'the entry is not a bucket');
    if (depth >= boltBucketDepthMax) return failure(offset, 'buckets are nested too deep');
    if (this.value.length < BUCKET_HEADER_BYTES) return failure(offset, 'bucket header is cut short');
    const rootPage = readPageNumber(this.value, 0);
    if (rootPage !== 0) return { ok: true, value: new BoltBucket(reader, rootPage, null, 0, depth + 1) };
    const inlinePage = this.value.subarray(BUCKET_HEADER_BYTES);
    return { ok: true, value: new BoltBucket(reader, 0, inlinePage, offset + BUCKET_HEADER_BYTES, depth + 1) };
  }

  private pushRoot(): boolean {
    this.started = true;
    const { inlinePage, inlineOffset, rootPage } = this.owner;
    if (inlinePage === null) return this.pushPage(rootPage, null, null);
    if (inlinePage.length < PAGE_HEADER_BYTES) return this.fail(inlineOffset, 'inline bucket page is cut short');
    if (inlinePage.readUInt16LE(8) !== PageFlag.leaf)
      return this.fail(inlineOffset, 'inline bucket page is not a leaf');
    return this.pushChecked(inlinePage, inlineOffset, null, null);
  }

  private pushChild(frame: Frame): boolean {
    const at = PAGE_HEADER_BYTES + frame.index * ELEMENT_BYTES;
    const lower = branchKey(frame, frame.index);
    const upper = frame.index + 1 < frame.count ? branchKey(frame, frame.index + 1) : frame.upper;
    return this.pushPage(readPageNumber(frame.bytes, at + 8), lower, upper);
  }

  private pushPage(page: number, lower: Buffer | null, upper: Buffer | null): boolean {
    const { file, meta } = this.owner.reader;
    const { pageBytes, pageCount } = meta;
    const parent = this.stack[this.stack.length - 1];
    if (page < 2 || page >= pageCount) return this.fail(parent?.fileOffset ?? 0, 'page number is out of range');
    const offset = page * pageBytes;
    if (this.stack.length >= boltTreeDepthMax) return this.fail(offset, 'tree is too deep: pages form a cycle');
    let bytes = file.read(offset, pageBytes);
    if (bytes.length !== pageBytes) return this.fail(offset, 'page is cut short');
    if (readPageNumber(bytes, 0) !== page) return this.fail(offset, 'page does not carry its own number');
    const flags = bytes.readUInt16LE(8);
    if (flags !== PageFlag.branch && flags !== PageFlag.leaf)
      return this.fail(offset, 'page is neither branch nor leaf');
    const span = bytes.readUInt32LE(12) + 1;
    if (page + span > pageCount) return this.fail(offset, 'overflow goes past the last page');
    const bytesMax = flags === PageFlag.branch ? boltBranchBytesMax : boltPageBytesMax;
    if (span * pageBytes > bytesMax) return this.fail(offset, 'page with its overflow is too large');
    const complaint = this.visitor === null ? null : this.visitor(page, span);
    if (complaint !== null) return this.fail(offset, complaint);
    if (span > 1) {
      if (bytes.readUInt16LE(10) === 0) return this.fail(offset, 'overflow without elements');
      bytes = file.read(offset, span * pageBytes);
      if (bytes.length !== span * pageBytes) return this.fail(offset, 'page is cut short');
    }
    return this.pushChecked(bytes, offset, lower, upper);
  }

  /** Checks all elements of a page and puts it on the stack. */
  private pushChecked(bytes: Buffer, offset: number, lower: Buffer | null, upper: Buffer | null): boolean {
    const isLeaf = bytes.readUInt16LE(8) === PageFlag.leaf;
    const count = bytes.readUInt16LE(10);
    if (!isLeaf && count === 0) return this.fail(offset, 'branch page without elements');
    let dataEnd = PAGE_HEADER_BYTES + count * ELEMENT_BYTES;
    if (dataEnd > bytes.length) return this.fail(offset, 'element table goes past the page');
    let previousStart = 0;
    let previousEnd = 0;
    for (let i = 0; i < count; i++) {
      const at = PAGE_HEADER_BYTES + i * ELEMENT_BYTES;
      const keyStart = at + bytes.readUInt32LE(isLeaf ? at + 4 : at);
      const keyBytes = bytes.readUInt32LE(isLeaf ? at + 8 : at + 4);
      const valueBytes = isLeaf ? bytes.readUInt32LE(at + 12) : 0;
      const keyEnd = keyStart + keyBytes;
      if (isLeaf && bytes.readUInt32LE(at) > LEAF_BUCKET_FLAG) return this.fail(offset + at, 'unknown element flags');
      if (keyBytes === 0) return this.fail(offset + at, 'empty key');
      if (keyBytes > boltKeyBytesMax) return this.fail(offset + at, 'key is too long');
      if (valueBytes > boltValueBytesMax) return this.fail(offset + at, 'value is too long');
      if (keyStart < dataEnd) return this.fail(offset + at, 'elements overlap');
      if (keyEnd + valueBytes > bytes.length) return this.fail(offset + at, 'element goes past the page');
      if (i > 0) {
        const order = compareBytes(bytes, previousStart, previousEnd, bytes, keyStart, keyEnd);
        if (order >= 0) return this.fail(offset + at, 'keys do not ascend');
      } else if (lower !== null && compareBytes(lower, 0, lower.length, bytes, keyStart, keyEnd) > 0) {
        return this.fail(offset + at, "key is below its parent's key");
      }
      dataEnd = keyEnd + valueBytes;
      previousStart = keyStart;
      previousEnd = keyEnd;
    }
    if (count > 0 && upper !== null && compareBytes(bytes, previousStart, previousEnd, upper, 0, upper.length) >= 0) {
      return this.fail(offset, "key reaches the parent's next key");
    }
    this.stack.push({ bytes, fileOffset: offset, isLeaf, count, index: -1, upper });
    return true;
  }

  private take(frame: Frame): void {
    const { bytes } = frame;
    const at = PAGE_HEADER_BYTES + frame.index * ELEMENT_BYTES;
    const keyStart = at + bytes.readUInt32LE(at + 4);
    const keyEnd = keyStart + bytes.readUInt32LE(at + 8);
    this.key = bytes.subarray(keyStart, keyEnd);
    this.value = bytes.subarray(keyEnd, keyEnd + bytes.readUInt32LE(at + 12));
    this.isBucket = bytes.readUInt32LE(at) === LEAF_BUCKET_FLAG;
    this.valueOffset = frame.fileOffset + keyEnd;
  }

  private fail(offset: number, reason: string): false {
    this.error = { offset, reason };
    this.stack.length = 0;
    return false;
  }
}

/** Key of an element of a checked branch. */
function branchKey(frame: Frame, index: number): Buffer {
  const at = PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
  const start = at + frame.bytes.readUInt32LE(at);
  return frame.bytes.subarray(start, start + frame.bytes.readUInt32LE(at + 4));
}

function compareElementKey(frame: Frame, index: number, target: Buffer): number {
  const { bytes, isLeaf } = frame;
  const at = PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
  const start = at + bytes.readUInt32LE(isLeaf ? at + 4 : at);
  const end = start + bytes.readUInt32LE(isLeaf ? at + 8 : at + 4);
  return compareBytes(bytes, start, end, target, 0, target.length);
}

/** How many elements of a checked page have a key below `target`. */
function countBelow(frame: Frame, target: Buffer): number {
  let low = 0;
  let high = frame.count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareElementKey(frame, middle, target) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function failure(offset: number, reason: string): { readonly ok: false; readonly error: BoltError } {
  return { ok: false, error: { offset, reason } };
}

/**
 * Reads the metas and picks the valid one with the higher transaction id. The second meta's place depends on the page size,
 * which a damaged first one cannot tell: all sizes are tried then. A trailing snapshot hash does not disturb.
 */
export function openBolt(file: RandomAccessFile): BoltResult<BoltReader> {
  const headBytes = PAGE_HEADER_BYTES + META_BYTES;
  const first = decodeMetaPage(file.read(0, headBytes));
  let best: BoltMeta | null = null;
  let bestOffset = 0;
  if (typeof first !== 'string') best = first;
  const smallest = best === null ? PAGE_BYTES_MIN : best.pageBytes;
  const largest = best === null ? PAGE_BYTES_MAX : best.pageBytes;
  for (let pageBytes = smallest; pageBytes <= largest; pageBytes *= 2) {
    if (pageBytes + headBytes > file.size) break;
    const second = decodeMetaPage(file.read(pageBytes, headBytes));
    if (typeof second === 'string' || second.pageBytes !== pageBytes) continue;
    if (best === null || second.txid > best.txid) {
      best = second;
      bestOffset = pageBytes;
    }
  }
  if (best === null) return failure(0, typeof first === 'string' ? first : 'no valid meta page');
  const { pageCount, pageBytes, rootPage, freelistPage } = best;
  if (pageCount * pageBytes > file.size) return failure(bestOffset, 'file is shorter than its meta page says');
  if (rootPage < 2 || rootPage >= pageCount) return failure(bestOffset, 'root page is out of range');
  if (freelistPage !== -1 && (freelistPage < 2 || freelistPage >= pageCount)) {
    return failure(bestOffset, 'freelist page is out of range');
  }
  return { ok: true, value: new BoltReader(file, best) };
}

/** etcd's rule: pages are multiples of 512 bytes, so a remainder of 32 is a trailing SHA-256. */
export function hasSnapshotHash(fileBytes: number): boolean {
  return fileBytes % 512 === SNAPSHOT_HASH_BYTES;
}

/** Checks the trailing SHA-256 of a saved snapshot. Returns the length of the database before it. Reads the whole file. */
export function verifySnapshotHash(file: RandomAccessFile): BoltResult<number> {
  if (!hasSnapshotHash(file.size)) return failure(file.size, 'snapshot has no trailing hash');
  const databaseBytes = file.size - SNAPSHOT_HASH_BYTES;
  const hash = createHash('sha256');
  for (let offset = 0; offset < databaseBytes; offset += boltReadBytes) {
    const wanted = Math.min(boltReadBytes, databaseBytes - offset);
    const bytes = file.read(offset, wanted);
    if (bytes.length !== wanted) return failure(offset, 'file is cut short');
    hash.update(bytes);
  }
  const stored = file.read(databaseBytes, SNAPSHOT_HASH_BYTES);
  if (!hash.digest().equals(stored)) return failure(databaseBytes, 'snapshot hash does not match the file');
  return { ok: true, value: databaseBytes };
}
