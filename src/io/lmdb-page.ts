// One page of a table's tree in an LMDB file, in place: what it holds, and where a key is in it. It follows no page number; that is
// lmdb-tree.ts. Follows LMDB's mdb.c of package lmdb 3.5.6 (data format 2) in what the bytes mean.
//
// A page, little-endian; page n of the map is at n * lmdbPageBytes:
//
//   offset  bytes
//        0      8  page number
//        8      8  number of the transaction that wrote it
//       18      2  kind: 1 branch, 2 leaf, 4 first of a value's own pages; others are of tables that we have not
//       20      2  branch, leaf: end of the nodes' offsets, from 24 on
//       22      2  branch, leaf: beginning of the nodes, from 24 on
//       20      4  value's own pages: their number; the value is from 24 on
//       24    2 n  offset of each node from 24 on, in key order
//
//   a node, at an even offset:
//        0      4  branch: page of the child; leaf: bytes of the value
//        4      2  branch: upper bits of the page, 0; leaf: 1 when the value has pages of its own, else 0
//        6      2  bytes of the key
//        8      k  key; the first of a branch is below all keys, whatever it says
//      8+k         leaf: the value, or the first of its own pages (8), a transaction (8), how many pages (8)
//
// Example, a leaf with k5 → "ab" and k7 → "c": offsets end at 4, nodes begin at 8144; at 24: 8156, 8144 (backwards, as they came);
// at 24 + 8144: [1 | 0 | 2 | k7 c, padded], at 24 + 8156: [2 | 0 | 2 | k5 ab].
//
// Nothing that a page says is believed: what it points to is held against its bounds before it is followed, so that a damaged
// page ends in FatalError or in a wrong answer, as with LMDB itself, but never outside of the page.
//
// A search begins where the key should be if keys were evenly spread between those that the parent has on both sides of the page.
// Revisions are: then a search touches one or two nodes, each of which is a wait for memory, instead of five to eight.

import { ExitCode, FatalError } from '../base/fatal.ts';
import { lmdbPageBytes } from '../storage-limits.ts';
import type { PageMap } from './lmdb-map.ts';

export const PageKind = { branch: 1, leaf: 2, value: 4 } as const;
export type PageKind = (typeof PageKind)[keyof typeof PageKind];

export const PAGE_HEAD_BYTES = 24;
export const PAGE_BODY_BYTES: number = lmdbPageBytes - PAGE_HEAD_BYTES;
export const NODE_HEAD_BYTES = 8;
/** A node takes its offset, its head, and a key of one byte, after which the next one is at an even offset. */
export const PAGE_NODES_MAX: number = Math.floor(PAGE_BODY_BYTES / (2 + NODE_HEAD_BYTES + 2));

/** All kinds of page; other bits are left over from a transaction's work. */
const KINDS = 0x6f;
/** Steps of one around the place where a key should be, before the search halves. */
const NEAR_STEPS = 2;
/** A branch with fewer nodes is searched by halving when no parent says where the key should be. */
const NODES_HALVED = 16;

const noView: DataView = new DataView(new ArrayBuffer(0));
const noBytes: Buffer = Buffer.alloc(0);

export class LmdbPage {
  private readonly map: PageMap;
  private readonly table: string;
  /** A page's place in its window. */
  private readonly pageMask: number;
  number = 0;
  /** The window that it is in. */
  view: DataView = noView;
  buffer: Buffer = noBytes;
  /** Where its body, which is what follows the head, begins in the window. */
  body = 0;
  /** Number of its nodes. */
  count = 0;
  /** Where they begin in the body. */
  private floor = 0;
  /** The last search() found the key itself. */
  exact = false;
  // Of a search: where the key should be, as this far of that much of the page's nodes, 0 when it is not known; and how many bytes
  // all keys of the page begin with, as does the key.
  hintPart = 0;
  hintWhole = 0;
  common = 0;
  // Of a way down that is checked: between which keys of the branches above it the keys of a page lie, low <= key < high; at 0: none.
  private lowView: DataView = noView;
  private lowAt = 0;
  private highView: DataView = noView;
  private highAt = 0;

  constructor(map: PageMap, table: string) {
    this.map = map;
    this.table = table;
    this.pageMask = 2 ** map.windowShift - 1;
  }

  /** Moves to a page of this kind. `newest`: low half of the number of the newest transaction that it may be of. */
  enter(page: number, kind: PageKind, newest: number): void {
    if (page < 2 || !this.map.has(page)) this.damaged(page, 'outside of the file');
    const { view, buffer } = this.map.window(page);
    const at = (page & this.pageMask) * lmdbPageBytes;
    if (view.getUint32(at, true) !== page || view.getUint32(at + 4, true) !== 0) this.damaged(page, 'another number');
    if (((newest - view.getUint32(at + 8, true)) | 0) < 0) this.damaged(page, 'newer than what is read');
    if ((view.getUint16(at + 18, true) & KINDS) !== kind) this.damaged(page, 'of another kind');
    const offsetsEnd = view.getUint16(at + 20, true);
    const floor = view.getUint16(at + 22, true);
    // A branch has two children at least.
    const least = kind === PageKind.branch ? 4 : 2;
    if (offsetsEnd < least || offsetsEnd > floor || floor > PAGE_BODY_BYTES) this.damaged(page, 'impossible bounds');
    this.number = page;
    this.view = view;
    this.buffer = buffer;
    this.body = at + PAGE_HEAD_BYTES;
    this.count = offsetsEnd >>> 1;
    this.floor = floor;
  }

  /** Where node `at` is in the window; it and its key are inside of the page. */
  node(at: number): number {
    const { view, body } = this;
    const offset = view.getUint16(body + 2 * at, true);
    if (offset < this.floor || offset > PAGE_BODY_BYTES - NODE_HEAD_BYTES) this.nodeDamaged();
    const node = body + offset;
    if (offset + NODE_HEAD_BYTES + view.getUint16(node + 6, true) > PAGE_BODY_BYTES) this.nodeDamaged();
    return node;
  }

  child(at: number): number {
    const node = this.node(at);
    if (this.view.getUint16(node + 4, true) !== 0) this.damaged(this.number, 'a child beyond the map');
    return this.view.getUint32(node, true);
  }

  // --- search ---

  /** The child of a branch that has the key, or would. Leaves the hint for it. */
  childOf(key: DataView, length: number): number {
    if (this.hintWhole === 0 && this.count > NODES_HALVED) this.takeHint(1, this.count - 1, key, length);
    let at = this.search(1, key, length);
    if (!this.exact) at--;
    if (at > 0 && at + 1 < this.count) this.takeHint(at, at + 1, key, length);
    else this.forgetHint();
    return at;
  }

  /**
   * The first node from `first` on whose key is not below the key; the count when there is none. Sets `exact`. Hot, and in one piece
   * with its checks written out: what V8 inlines here changes from run to run, and with it the time by a half.
   */
  search(first: number, key: DataView, length: number): number {
    const { view, body, floor, common, hintWhole } = this;
    let low = first;
    let high = this.count;
    let near = 0;
    let probe = (low + high) >>> 1;
    if (hintWhole > 0) {
      near = NEAR_STEPS;
      probe = Math.min(high - 1, low + Math.floor((this.hintPart * (high - low)) / hintWhole));
    }
    this.exact = false;
    while (low < high) {
      const offset = view.getUint16(body + 2 * probe, true);
      if (offset < floor || offset > PAGE_BODY_BYTES - NODE_HEAD_BYTES) this.nodeDamaged();
      const start = body + offset + NODE_HEAD_BYTES;
      const nodeLength = view.getUint16(start - 2, true);
      if (offset + NODE_HEAD_BYTES + nodeLength > PAGE_BODY_BYTES) this.nodeDamaged();
      const shared = Math.min(nodeLength, length);
      let order = length - nodeLength;
      for (let i = common; i < shared; i += 4) {
        if (i + 4 > shared) {
          order = this.orderOfRest(key, length, start, nodeLength, i);
          break;
        }
        const difference = key.getUint32(i) - view.getUint32(start + i);
        if (difference === 0) continue;
        order = difference;
        break;
      }
      if (order === 0) {
        this.exact = true;
        return probe;
      }
      if (order > 0) low = probe + 1;
      else high = probe;
      if (near > 0) {
        near--;
        probe = order > 0 ? low : high - 1;
      } else probe = (low + high) >>> 1;
    }
    return low;
  }

  /** Compares what is left from `from` on, fewer than four bytes in one of the keys: negative, 0, positive. */
  private orderOfRest(key: DataView, length: number, start: number, nodeLength: number, from: number): number {
    const shared = Math.min(length, nodeLength);
    for (let i = from; i < shared; i++) {
      const difference = key.getUint8(i) - this.view.getUint8(start + i);
      if (difference !== 0) return difference;
    }
    return length - nodeLength;
  }

  forgetHint(): void {
    this.hintWhole = 0;
    this.common = 0;
  }

  /** Says where the key should be between the keys of two nodes, `low` and `high`, if it lies there. */
  private takeHint(low: number, high: number, key: DataView, length: number): void {
    this.forgetHint();
    const { view } = this;
    const lowAt = this.keyAt(low);
    const highAt = this.keyAt(high);
    const last = Math.min(view.getUint16(lowAt - 2, true), view.getUint16(highAt - 2, true), length) - 4;
    for (let from = 0; from <= last; from += 4) {
      const lowWord = view.getUint32(lowAt + from);
      const highWord = view.getUint32(highAt + from);
      const wanted = key.getUint32(from);
      if (wanted < lowWord || wanted > highWord) return;
      if (lowWord === highWord) continue;
      this.common = from;
      this.hintPart = wanted - lowWord;
      this.hintWhole = highWord - lowWord;
      return;
    }
  }

  /** Whether the node's key begins as search() took it to. */
  beginsAs(key: DataView, node: number): boolean {
    for (let i = 0; i < this.common; i += 4) {
      if (key.getUint32(i) !== this.view.getUint32(node + NODE_HEAD_BYTES + i)) return false;
    }
    return true;
  }

  // --- bounds ---

  forgetBounds(): void {
    this.lowAt = 0;
    this.highAt = 0;
  }

  /** What is below node `at` of a branch lies between the node's key and the next one's, or where the branch itself does. */
  bound(at: number): void {
    if (at > 0) {
      this.lowView = this.view;
      this.lowAt = this.keyAt(at);
    }
    if (at + 1 < this.count) {
      this.highView = this.view;
      this.highAt = this.keyAt(at + 1);
    }
  }

  /**
   * That the page's keys lie within the bounds. One of them stands for all, as those of two pages of a tree do not overlap: not the
   * first one of a branch.
   */
  checkPlace(at: number): void {
    const keyAt = this.keyAt(at);
    const { view } = this;
    if (this.lowAt > 0 && isBelow(view, keyAt, this.lowView, this.lowAt)) this.misplaced();
    if (this.highAt > 0 && !isBelow(view, keyAt, this.highView, this.highAt)) this.misplaced();
  }

  private keyAt(at: number): number {
    return this.node(at) + NODE_HEAD_BYTES;
  }

  private misplaced(): never {
    this.damaged(this.number, 'keys that belong to another page');
  }

  // --- damage ---

  private nodeDamaged(): never {
    this.damaged(this.number, 'a node outside of it');
  }

  damaged(page: number, what: string): never {
    const where = `table ${this.table}, page ${page}: ${what}`;
    throw new FatalError(
      ExitCode.backendCorrupt,
      `the database ${this.map.path} is damaged: ${where}; restore it from a snapshot`,
    );
  }
}

/** Of two keys of nodes, by where they are. */
function isBelow(left: DataView, leftAt: number, right: DataView, rightAt: number): boolean {
  const leftLength = left.getUint16(leftAt - 2, true);
  const rightLength = right.getUint16(rightAt - 2, true);
  const shared = Math.min(leftLength, rightLength);
  let at = 0;
  for (; at + 4 <= shared; at += 4) {
    const difference = left.getUint32(leftAt + at) - right.getUint32(rightAt + at);
    if (difference !== 0) return difference < 0;
  }
  for (; at < shared; at++) {
    const difference = left.getUint8(leftAt + at) - right.getUint8(rightAt + at);
    if (difference !== 0) return difference < 0;
  }
  return leftLength < rightLength;
}
