// The structural check of a whole bbolt file, as bbolt's tx.Check() does it before `etcdutl snapshot status` answers: every
// page below the page count is a meta, the freelist, reachable exactly once, or free, and never two of these. What a single
// page and its place in the tree must satisfy is bolt-reader.ts's part. The first fault found is returned, not all.
//
// Memory: two bits a page (640 KB for 10 GB), and a cursor for each level of nested buckets.

import { boltReadBytes } from '../storage-limits.ts';
import { FREELIST_COUNT_IN_SLOT, PAGE_HEADER_BYTES, PageFlag, readPageNumber } from './bolt-format.ts';
import {
  type BoltCursor,
  type BoltError,
  type BoltReader,
  type BoltResult,
  CursorStep,
  failure,
  type PageVisitor,
} from './bolt-reader.ts';

/** What a sound file contains. */
export interface BoltCensus {
  readonly buckets: number;
  readonly entries: number;
  readonly freePages: number;
}

class PageSet {
  private readonly bits: Uint8Array;
  constructor(pageCount: number) {
    this.bits = new Uint8Array(Math.ceil(pageCount / 8));
  }
  has(page: number): boolean {
    return (this.bits[Math.floor(page / 8)]! & (1 << (page % 8))) !== 0;
  }
  add(page: number): void {
    const at = Math.floor(page / 8);
    this.bits[at] = this.bits[at]! | (1 << (page % 8));
  }
}

/** Reads every page in use. */
export function checkBolt(reader: BoltReader): BoltResult<BoltCensus> {
  const { pageBytes, pageCount, freelistPage } = reader.meta;
  const free = new PageSet(pageCount);
  const reachable = new PageSet(pageCount);
  reachable.add(0);
  reachable.add(1);
  let freePages = 0;
  if (freelistPage !== -1) {
    const read = readFreelist(reader, free, reachable);
    if (typeof read !== 'number') return { ok: false, error: read };
    freePages = read;
  }
  const visit: PageVisitor = (page, span) => {
    for (let i = page; i < page + span; i++) {
      if (reachable.has(i)) return 'page is referenced more than once';
      if (free.has(i)) return 'page is referenced and free';
      reachable.add(i);
    }
    return null;
  };
  const census = countEntries(reader.root().cursor(visit), visit);
  if (!census.ok) return census;
  // Without a stored freelist bbolt takes as free what nothing reaches.
  for (let page = 0; page < pageCount; page++) {
    if (reachable.has(page) || free.has(page)) continue;
    if (freelistPage !== -1) return failure(page * pageBytes, 'page is neither reachable nor free');
    freePages++;
  }
  return { ok: true, value: { ...census.value, freePages } };
}

/** Depth first; the visitor ends any cycle, the bucket depth bounds the stack. */
function countEntries(root: BoltCursor, visit: PageVisitor): BoltResult<{ buckets: number; entries: number }> {
  const cursors = [root];
  let buckets = 0;
  let entries = 0;
  for (;;) {
    const cursor = cursors[cursors.length - 1];
    if (cursor === undefined) return { ok: true, value: { buckets, entries } };
    const step = cursor.next();
    if (step === CursorStep.error) return { ok: false, error: cursor.error! };
    if (step === CursorStep.end) {
      cursors.pop();
    } else if (cursor.isBucket) {
      const bucket = cursor.bucket();
      if (!bucket.ok) return bucket;
      buckets++;
      cursors.push(bucket.value.cursor(visit));
    } else {
      entries++;
    }
  }
}

/** Marks the freelist's own pages as reachable and the listed ones as free. Returns how many are listed. */
function readFreelist(reader: BoltReader, free: PageSet, reachable: PageSet): number | BoltError {
  const { file, meta } = reader;
  const { pageBytes, pageCount, freelistPage } = meta;
  const offset = freelistPage * pageBytes;
  const header = file.read(offset, PAGE_HEADER_BYTES + 8);
  if (header.length !== PAGE_HEADER_BYTES + 8) return { offset, reason: 'freelist page is cut short' };
  if (readPageNumber(header, 0) !== freelistPage) return { offset, reason: 'page does not carry its own number' };
  if (header.readUInt16LE(8) !== PageFlag.freelist) return { offset, reason: 'page is not a freelist' };
  const span = header.readUInt32LE(12) + 1;
  if (freelistPage + span > pageCount) return { offset, reason: 'overflow goes past the last page' };
  for (let page = freelistPage; page < freelistPage + span; page++) reachable.add(page);

  const isLong = header.readUInt16LE(10) === FREELIST_COUNT_IN_SLOT;
  const count = isLong ? readPageNumber(header, PAGE_HEADER_BYTES) : header.readUInt16LE(10);
  const start = offset + PAGE_HEADER_BYTES + (isLong ? 8 : 0);
  const end = start + count * 8;
  if (end > offset + span * pageBytes) return { offset, reason: 'freelist goes past its pages' };
  for (let at = start; at < end; at += boltReadBytes) {
    const bytes = file.read(at, Math.min(boltReadBytes, end - at));
    for (let i = 0; i + 8 <= bytes.length; i += 8) {
      const page = readPageNumber(bytes, i);
      if (page < 2 || page >= pageCount) return { offset: at + i, reason: 'free page is out of range' };
      if (free.has(page)) return { offset: at + i, reason: 'page is free twice' };
      if (reachable.has(page)) return { offset: at + i, reason: 'page is referenced and free' };
      free.add(page);
    }
  }
  return count;
}
