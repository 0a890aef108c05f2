// Checks a page of an LMDB file whole, before LMDB's own code gets it: that follows what a page says into memory that may be
// anything (2 of 3 damaged pages end it with a signal or an assertion, sooner or later, and a write may spread the damage). What
// the bytes mean: lmdb-page.ts, which checks only what it reads itself.
//
// What a page must be, beside what lmdb-page.ts asks for: its nodes lie behind each other from where they begin to the page's end,
// with nothing between or over; keys ascend; children, and the pages of values, are pages of the file; and nothing is newer than
// the snapshot, in all 64 bits: to LMDB that is a page of its own transaction, which it writes to, in the read-only map.
//
// Not seen: bytes of a key or a value that were changed in place, as long as keys still ascend. LMDB has no checksums.

import { lmdbKeyBytesMax, lmdbLevelsMax, lmdbPageBytes } from '../storage-limits.ts';
import type { PageMap } from './lmdb-map.ts';
import { LmdbPage, NODE_HEAD_BYTES, PAGE_BODY_BYTES, PAGE_HEAD_BYTES, PageKind } from './lmdb-page.ts';

/** Of a leaf's node: the value has pages of its own; it is a table's record. */
const NodeFlag = { ownPages: 1, table: 2 } as const;
const TABLE_RECORD_BYTES = 48;
/** First of its own pages, a transaction, how many. */
const OWN_PAGES_BYTES = 24;

/** How the keys of a table are: bytes; names of tables, with records as values; the list of free pages, by transaction. */
export type TableKind = 'bytes' | 'tables' | 'free';

export class LmdbPageCheck {
  private readonly map: PageMap;
  readonly page: LmdbPage;
  private readonly kind: TableKind;
  /** By a node's place, half of it: its bytes. All zeros between two checks. */
  private readonly sizes: Uint16Array = new Uint16Array(PAGE_BODY_BYTES / 2);
  private newest = 0n;

  constructor(map: PageMap, table: string, kind: TableKind) {
    this.map = map;
    this.page = new LmdbPage(map, table);
    this.kind = kind;
  }

  /** Enters the page and throws FatalError unless it is whole. `newest`: the newest transaction that it may be of. */
  check(number: number, kind: PageKind, newest: bigint): void {
    const { page, sizes } = this;
    this.newest = newest;
    page.enter(number, kind, lowHalf(newest));
    const { view, body, count } = page;
    if (transactionOf(page) > newest) this.bad('newer than what is read');
    const floor = view.getUint16(body - 2, true);
    let bytes = 0;
    for (let at = 0; at < count; at++) {
      const node = page.node(at);
      const size = (this.nodeBytes(node, at, kind) + 1) & ~1;
      bytes += size;
      const place = (node - body) >>> 1;
      if (((node - body) & 1) !== 0 || node + size > body + PAGE_BODY_BYTES || sizes[place] !== 0) this.tangled();
      sizes[place] = size;
    }
    if (bytes !== PAGE_BODY_BYTES - floor) this.tangled();
    for (let at = floor; at < PAGE_BODY_BYTES; ) {
      const size = sizes[at >>> 1]!;
      if (size === 0) this.tangled();
      at += size;
    }
    for (let at = 0; at < count; at++) sizes[view.getUint16(body + 2 * at, true) >>> 1] = 0;
    this.checkOrder(kind);
  }

  private tangled(): never {
    this.sizes.fill(0);
    this.page.damaged(this.page.number, 'nodes over each other');
  }

  private nodeBytes(node: number, at: number, kind: PageKind): number {
    const { page } = this;
    const { view } = page;
    const keyBytes = view.getUint16(node + 6, true);
    if (keyBytes > lmdbKeyBytesMax || (keyBytes === 0 && (kind === PageKind.leaf || at > 0)))
      this.bad('a key of an impossible length');
    if (this.kind === 'free' && keyBytes !== 8 && keyBytes !== 0) this.bad('a free list without a transaction');
    const head = NODE_HEAD_BYTES + keyBytes;
    if (kind === PageKind.branch) {
      const child = page.child(at);
      if (child < 2 || !this.map.has(child)) this.bad('a child outside of the file');
      return head;
    }
    const flags = view.getUint16(node + 4, true);
    const valueBytes = view.getUint32(node, true);
    if (flags === NodeFlag.ownPages && this.kind !== 'tables') {
      if (node + head + OWN_PAGES_BYTES > page.body + PAGE_BODY_BYTES) this.tangled();
      this.checkOwnPages(node + head, valueBytes);
      return head + OWN_PAGES_BYTES;
    }
    const expected = this.kind === 'tables' ? NodeFlag.table : 0;
    if (flags !== expected) this.bad('a node of another kind');
    if (valueBytes > PAGE_BODY_BYTES) this.tangled();
    return head + valueBytes;
  }

  private checkOwnPages(at: number, valueBytes: number): void {
    const { view } = this.page;
    const first = view.getUint32(at, true);
    const pageCount = view.getUint32(at + 16, true);
    const isNear = view.getUint32(at + 4, true) === 0 && view.getUint32(at + 20, true) === 0;
    // A shorter value may have been written over a longer one.
    const needed = Math.ceil((PAGE_HEAD_BYTES + valueBytes) / lmdbPageBytes);
    if (!isNear || first < 2 || pageCount < needed) this.bad('a value with impossible pages');
    if (!this.map.has(first + pageCount - 1)) this.bad('a value outside of the file');
    const window = this.map.window(first);
    const head = (first & (2 ** this.map.windowShift - 1)) * lmdbPageBytes;
    const isValue = (window.view.getUint16(head + 18, true) & PageKind.value) !== 0;
    const isNumbered = window.view.getUint32(head, true) === first && window.view.getUint32(head + 4, true) === 0;
    const isOld = window.view.getBigUint64(head + 8, true) <= this.newest;
    if (!isValue || !isNumbered || !isOld || window.view.getUint32(head + 20, true) !== pageCount) {
      this.page.damaged(first, 'not the pages of a value');
    }
  }

  private checkOrder(kind: PageKind): void {
    const { page } = this;
    const { view, body, count } = page;
    for (let at = kind === PageKind.branch ? 2 : 1; at < count; at++) {
      // Every node was looked at: no bounds are asked again.
      const low = body + view.getUint16(body + 2 * at - 2, true) + NODE_HEAD_BYTES;
      const high = body + view.getUint16(body + 2 * at, true) + NODE_HEAD_BYTES;
      const isAscending =
        this.kind === 'free' ? view.getBigUint64(low, true) < view.getBigUint64(high, true) : isBelow(view, low, high);
      if (!isAscending) this.bad('keys that do not ascend');
    }
  }

  private bad(what: string): never {
    this.sizes.fill(0);
    this.page.damaged(this.page.number, what);
  }
}

/** Of the page that was entered: the transaction that wrote it. */
export function transactionOf({ view, body }: LmdbPage): bigint {
  return view.getBigUint64(body - PAGE_HEAD_BYTES + 8, true);
}

export function lowHalf(transaction: bigint): number {
  return Number(BigInt.asUintN(32, transaction));
}

/** Whether the key at `low` is below the one at `high`; their lengths stand before them. */
function isBelow(view: DataView, low: number, high: number): boolean {
  const lowBytes = view.getUint16(low - 2, true);
  const highBytes = view.getUint16(high - 2, true);
  const shared = Math.min(lowBytes, highBytes);
  let i = 0;
  for (; i + 4 <= shared; i += 4) {
    const difference = view.getUint32(high + i) - view.getUint32(low + i);
    if (difference !== 0) return difference > 0;
  }
  for (; i < shared; i++) {
    const difference = view.getUint8(high + i) - view.getUint8(low + i);
    if (difference !== 0) return difference > 0;
  }
  return lowBytes < highBytes;
}

/** What a table's record says of its tree: see lmdb-tree.ts. */
export interface TreeRecord {
  readonly root: number;
  readonly levels: number;
}

const NO_PAGE = 0xffffffffffffffffn;

/** Throws FatalError unless the record can be one of this file. The flags of the two tables in a meta page are looked at there. */
export function readRecord(map: PageMap, table: string, view: DataView, at: number): TreeRecord {
  const levels = view.getUint16(at + 6, true);
  const root = view.getUint32(at + 40, true);
  const isEmpty = view.getBigUint64(at + 40, true) === NO_PAGE;
  if (isEmpty && levels === 0) return { root: 0, levels };
  if (levels < 1 || levels > lmdbLevelsMax || view.getUint32(at + 44, true) !== 0 || root < 2 || !map.has(root)) {
    new LmdbPage(map, table).damaged(root, 'a root that cannot be');
  }
  return { root, levels };
}

/** The records in a leaf of the table of tables, by name. */
export function readRecords(map: PageMap, leaf: LmdbPage, records: Map<string, TreeRecord>): void {
  for (let at = 0; at < leaf.count; at++) {
    const node = leaf.node(at);
    const key = node + NODE_HEAD_BYTES;
    const record = key + leaf.view.getUint16(node + 6, true);
    // Names end with a zero byte.
    const name = leaf.buffer.toString('latin1', key, record - 1);
    const isRecord =
      leaf.view.getUint32(node, true) === TABLE_RECORD_BYTES && leaf.view.getUint16(record + 4, true) === 0;
    if (!isRecord) leaf.damaged(leaf.number, `the record of the table ${name}`);
    records.set(name, readRecord(map, name, leaf.view, record));
  }
}

/** Checks every page of a tree; `visit` is shown each leaf. For the small trees that LMDB itself needs to begin anything. */
export function checkTree(
  map: PageMap,
  table: string,
  kind: TableKind,
  { root, levels }: TreeRecord,
  newest: bigint,
  visit: (leaf: LmdbPage) => void,
): void {
  const check = new LmdbPageCheck(map, table, kind);
  const { page } = check;
  /** Pages to look at, with their levels; a page that comes twice would make a ring. */
  const pages = levels === 0 ? [] : [root];
  const depths = [levels];
  const seen = new Set<number>();
  while (pages.length > 0) {
    const number = pages.pop()!;
    const level = depths.pop()!;
    if (seen.has(number)) page.damaged(number, 'in the tree twice');
    seen.add(number);
    check.check(number, level > 1 ? PageKind.branch : PageKind.leaf, newest);
    if (level === 1) visit(page);
    for (let at = 0; level > 1 && at < page.count; at++) {
      pages.push(page.child(at));
      depths.push(level - 1);
    }
  }
}

/**
 * Checks the lists of free pages: from them LMDB takes pages to write to. A leaf's value: how many numbers (8 bytes), then the
 * numbers: a page, or 0 for none, or -n and the first of n pages. None may be free twice.
 */
export class FreePages {
  private readonly map: PageMap;
  private readonly lastPage: number;
  private readonly free: Uint8Array;

  constructor(map: PageMap, lastPage: number) {
    this.map = map;
    this.lastPage = lastPage;
    this.free = new Uint8Array((lastPage >>> 3) + 1);
  }

  addLeaf(leaf: LmdbPage): void {
    for (let at = 0; at < leaf.count; at++) {
      const node = leaf.node(at);
      const valueBytes = leaf.view.getUint32(node, true);
      const value = node + NODE_HEAD_BYTES + leaf.view.getUint16(node + 6, true);
      const isOwn = leaf.view.getUint16(node + 4, true) === NodeFlag.ownPages;
      const bytes = isOwn
        ? pagesBytes(this.map, leaf.view.getUint32(value, true), valueBytes)
        : leaf.buffer.subarray(value, value + valueBytes);
      if (!this.add(bytes)) leaf.damaged(leaf.number, 'a list of free pages that cannot be');
    }
  }

  private add(list: Buffer): boolean {
    if (list.length < 8 || list.length % 8 !== 0) return false;
    const count = Number(list.readBigUInt64LE(0));
    if (count > list.length / 8 - 1) return false;
    for (let i = 1; i <= count; i++) {
      const entry = Number(list.readBigInt64LE(8 * i));
      if (entry === 0) continue;
      const isRun = entry < 0;
      if (isRun && ++i > count) return false;
      const first = isRun ? Number(list.readBigInt64LE(8 * i)) : entry;
      const pageCount = isRun ? -entry : 1;
      if (first < 2 || pageCount > this.lastPage || first + pageCount - 1 > this.lastPage) return false;
      for (let page = first; page < first + pageCount; page++) {
        const bit = 1 << (page & 7);
        if ((this.free[page >>> 3]! & bit) !== 0) return false;
        this.free[page >>> 3]! |= bit;
      }
    }
    return true;
  }
}

/** A copy of a value that has pages of its own. */
function pagesBytes(map: PageMap, first: number, byteCount: number): Buffer {
  const bytes = Buffer.alloc(byteCount);
  const mask = 2 ** map.windowShift - 1;
  let from = PAGE_HEAD_BYTES;
  for (let page = first, done = 0; done < byteCount; page++) {
    const at = (page & mask) * lmdbPageBytes;
    done += map.window(page).buffer.copy(bytes, done, at + from, at + lmdbPageBytes);
    from = 0;
  }
  return bytes;
}
