// Looks keys up in one table of an LMDB file, and walks it in key order, in the file's pages as the memory map has them
// (lmdb-map.ts): no native call, no copy. It only reads, and holds no snapshot of its own. What a page holds: lmdb-page.ts.
//
//   a table's record, in the table of tables:
//     offset  bytes
//          4      2  flags: 0
//          6      2  levels of the tree
//         32      8  entries
//         40      8  root page, all ones for none
//
// Example: 2 levels, root 7 = branch [- → 12][k5 → 9]; k7 is in leaf 9, k2 in leaf 12.
//
// Why a page stays what it is while it is read. The record comes from a call of LMDB in a read transaction, of snapshot S, and pages
// are read until that transaction is reset. LMDB changes no page that a snapshot reaches: a transaction copies it, and the old
// one may be used again once no reader is at or below the last snapshot that reached it. While the reader is in the table of
// readers with S, that is none of the pages of S; and all of those were written before S could be read. So every page that is
// reached from S's record was written by S or before: by the newest transaction that wrote any table, at the latest. That is checked
// at each page, and would show a view that was not held.
//
// A damaged file ends in FatalError, neither outside of the map nor in a loop: page numbers are held against the file's length,
// levels and entries are counted, and both have bounds. Nor is a page in another's place believed, though it has its number: a key that
// is found proves its page; for one that is not there, and for walks, each page's keys are held against those of the pages above it
// (2 compares a page). That adds 0.17 us to a key that is not there, and less than 0.01 us to an entry of a walk.
//
// Measured (lmdb-tree.bench.ts; Node 26, 2 shared cores), us a row of 330 B in random order with a copy of it, of 10,000 / 100,000 /
// 1 million: the package's get() 0.56 / 1.2 / 1.7, find() 0.29 / 0.54 / 1.0, findAll() 0.27 / 0.44 / 0.66; an entry of walk() 0.05,
// of the package's scan() 0.48. What is left is waiting for memory.

import { lmdbKeyBytesMax, lmdbLevelsMax, lmdbPageBytes } from '../storage-limits.ts';
import type { PageMap } from './lmdb-map.ts';
import { LmdbPage, NODE_HEAD_BYTES, PAGE_BODY_BYTES, PAGE_HEAD_BYTES, PAGE_NODES_MAX, PageKind } from './lmdb-page.ts';
import type { EntryVisitor, ValueRef, ValueRefs, WalkAhead } from './table.ts';

export const TABLE_RECORD_BYTES = 48;
const OWN_PAGES = 1;
const OWN_PAGES_BYTES = 24;
const TWO_32 = 4294967296;
const CACHE_LINE_BYTES = 64;
/** Of a node and its value, what findAll() touches; from there on the processor reads ahead itself. */
const TOUCHED_BYTES = 512;

const noBytes: Buffer = Buffer.alloc(0);

/** The way from the root to a leaf: of each level above the leaves the page, the node that was followed, and how many it has. */
class Path {
  readonly pages: number[] = [];
  readonly nodes: number[] = [];
  readonly counts: number[] = [];
}

export class LmdbTree {
  private readonly map: PageMap;
  private readonly page: LmdbPage;
  private readonly pageMask: number;
  private root = 0;
  private levels = 0;
  /** As its record says. */
  entryCount = 0;
  private newest = 0;
  /** The key of find(), so that a view of it is made once. */
  private readonly key: Buffer = Buffer.allocUnsafeSlow(lmdbKeyBytesMax);
  private readonly keyView: DataView = viewOf(this.key);
  // Of findAll(), for each key: its leaf, the hint for it, the node that is tried first.
  private readonly leaves: number[] = [];
  private readonly parts: number[] = [];
  private readonly wholes: number[] = [];
  private readonly commons: number[] = [];
  private readonly nodes: number[] = [];
  /** The nodes that leafOf() followed, by level. */
  private readonly way: Uint16Array = new Uint16Array(lmdbLevelsMax + 1);
  private readonly ref: ValueRef = { buffer: noBytes, start: 0, end: 0 };
  /** Of what findAll() touched, so that it is not optimized away. */
  touched = 0;

  constructor(map: PageMap, name: string) {
    this.map = map;
    this.page = new LmdbPage(map, name);
    this.pageMask = 2 ** map.windowShift - 1;
  }

  /**
   * Reads from now on the tree of this record, which is of a snapshot that is held. `newest`: low half of the number of the
   * newest transaction that wrote a table.
   */
  begin(record: Buffer, newest: number): void {
    const { page } = this;
    const levels = record.readUInt16LE(6);
    const entryCount = record.readUInt32LE(32) + record.readUInt32LE(36) * TWO_32;
    if (record.readUInt16LE(4) !== 0) page.damaged(0, 'a table of another kind');
    if (levels > lmdbLevelsMax) page.damaged(0, 'too many levels');
    // What bounds a walk has a bound itself.
    if (!this.map.has(Math.floor(entryCount / PAGE_NODES_MAX))) page.damaged(0, 'more entries than fit into the file');
    if (levels > 0 && record.readUInt32LE(44) !== 0) page.damaged(0, 'a root beyond the map');
    this.levels = levels;
    this.entryCount = entryCount;
    this.root = record.readUInt32LE(40);
    this.newest = newest;
  }

  /** Hot: see the header. */
  find(key: Buffer, out: ValueRef): boolean {
    if (this.levels === 0) return false;
    const { length } = key;
    for (let i = 0; i < length; i++) this.key[i] = key[i]!;
    this.enterLeaf(this.leafOf(this.keyView, length));
    return this.findInLeaf(this.keyView, length, out) || this.checkWay();
  }

  private findInLeaf(key: DataView, length: number, out: ValueRef): boolean {
    const { page } = this;
    const at = page.search(0, key, length);
    if (!page.exact) return false;
    const node = page.node(at);
    if (!page.beginsAs(key, node)) page.damaged(page.number, 'a key that belongs elsewhere');
    this.refer(node, out);
    return true;
  }

  /**
   * Each key fills its view. What makes a look-up slow is to wait for memory three times in turn: for the leaf's head, for the node,
   * for the value. Here each of them is touched for all keys before the next, so that the processor waits for many at once. Hot.
   */
  findAll(keys: readonly DataView[], count: number, out: ValueRefs): void {
    const { page, leaves, parts, wholes, commons, ref } = this;
    if (this.levels === 0) {
      for (let i = 0; i < count; i++) out.found[i] = false;
      return;
    }
    for (let i = 0; i < count; i++) {
      const key = keys[i]!;
      leaves[i] = this.leafOf(key, key.byteLength);
      parts[i] = page.hintPart;
      wholes[i] = page.hintWhole;
      commons[i] = page.common;
    }
    this.touch(count);
    for (let i = 0; i < count; i++) {
      const key = keys[i]!;
      page.hintPart = parts[i]!;
      page.hintWhole = wholes[i]!;
      page.common = commons[i]!;
      this.enterLeaf(leaves[i]!);
      out.found[i] = this.findInLeaf(key, key.byteLength, ref) || this.checkWayOf(key);
      out.buffers[i] = ref.buffer;
      out.starts[i] = ref.start;
      out.ends[i] = ref.end;
    }
  }

  /** Reads what the look-ups of findAll() will read, and believes none of it. */
  private touch(count: number): void {
    const { leaves, parts, wholes, nodes, map, pageMask } = this;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      const leaf = leaves[i]!;
      nodes[i] = 0;
      if (leaf < 2 || !map.has(leaf)) continue;
      const { view } = map.window(leaf);
      const body = (leaf & pageMask) * lmdbPageBytes + PAGE_HEAD_BYTES;
      const nodeCount = view.getUint16(body - 4, true) >>> 1;
      const probe = wholes[i]! > 0 ? Math.floor((parts[i]! * nodeCount) / wholes[i]!) : nodeCount >>> 1;
      if (2 * probe < PAGE_BODY_BYTES) nodes[i] = body + view.getUint16(body + 2 * probe, true);
    }
    for (let i = 0; i < count; i++) {
      const node = nodes[i]!;
      if (node === 0) continue;
      const leaf = leaves[i]!;
      const { view } = map.window(leaf);
      const end = Math.min(node + TOUCHED_BYTES, ((leaf & pageMask) + 1) * lmdbPageBytes);
      for (let at = node; at < end; at += CACHE_LINE_BYTES) sum += view.getUint8(at);
    }
    this.touched = sum;
  }

  /** start <= key < end, ascending. The visitor may call anything of this table and of others. Hot. */
  walk(start: Buffer | undefined, end: Buffer | undefined, visit: EntryVisitor, ahead?: WalkAhead): void {
    if (this.levels === 0) return;
    const { page } = this;
    const value: ValueRef = { buffer: noBytes, start: 0, end: 0 };
    const startView = start === undefined ? null : viewOf(start);
    const endView = end === undefined ? null : viewOf(end);
    const path = new Path();
    this.enterPlaced(this.placeOf(startView, start?.length ?? 0, path));
    let at = startView === null ? 0 : page.search(0, startView, start!.length);
    let left = this.entryCount;
    for (;;) {
      const leaf = page.number;
      const { count } = page;
      const stop = endView === null ? count : this.countBelow(endView, end!.length);
      let shown = at;
      for (; at < stop; at++) {
        if (left-- === 0) page.damaged(leaf, 'more entries than the table has');
        if (at === shown && ahead !== undefined) shown = this.show(ahead, at, stop, value);
        const node = page.node(at);
        const keyStart = node + NODE_HEAD_BYTES;
        const keyEnd = keyStart + page.view.getUint16(node + 6, true);
        this.refer(node, value);
        if (!visit(page.buffer, keyStart, keyEnd, value.buffer, value.start, value.end)) return;
        // The visitor may have looked something up here.
        if (page.number !== leaf) this.enterLeaf(leaf);
      }
      if (stop < count || !this.nextLeaf(path)) return;
      at = 0;
    }
  }

  /** As walk(), but descending. */
  walkBack(start: Buffer | undefined, end: Buffer | undefined, visit: EntryVisitor): void {
    if (this.levels === 0) return;
    const { page } = this;
    const value: ValueRef = { buffer: noBytes, start: 0, end: 0 };
    const startView = start === undefined ? null : viewOf(start);
    const endView = end === undefined ? null : viewOf(end);
    const path = new Path();
    this.enterPlaced(this.placeOf(endView, end?.length ?? 0, path, endView === null));
    let at = endView === null ? page.count : page.search(0, endView, end!.length);
    let left = this.entryCount;
    for (;;) {
      const leaf = page.number;
      const stop = startView === null ? 0 : this.countBelow(startView, start!.length);
      while (at-- > stop) {
        if (left-- === 0) page.damaged(leaf, 'more entries than the table has');
        const node = page.node(at);
        const keyStart = node + NODE_HEAD_BYTES;
        const keyEnd = keyStart + page.view.getUint16(node + 6, true);
        this.refer(node, value);
        if (!visit(page.buffer, keyStart, keyEnd, value.buffer, value.start, value.end)) return;
        if (page.number !== leaf) this.enterLeaf(leaf);
      }
      if (stop > 0 || !this.previousLeaf(path)) return;
      at = page.count;
    }
  }

  /** Number of entries with start <= key < end: two searches, and a look at each leaf between. */
  count(start: Buffer | undefined, end: Buffer | undefined): number {
    if (this.levels === 0) return 0;
    const { page } = this;
    const startView = start === undefined ? null : viewOf(start);
    const endView = end === undefined ? null : viewOf(end);
    const path = new Path();
    this.enterPlaced(this.placeOf(startView, start?.length ?? 0, path));
    let sum = startView === null ? 0 : -page.search(0, startView, start!.length);
    for (;;) {
      const { count } = page;
      const stop = endView === null ? count : this.countBelow(endView, end!.length);
      sum += stop;
      if (sum > this.entryCount) page.damaged(page.number, 'more entries than the table has');
      if (stop < count || !this.nextLeaf(path)) return Math.max(0, sum);
    }
  }

  /** Shows the next entries from node `at` on; returns the node at which to ask again. */
  private show(ahead: WalkAhead, at: number, stop: number, value: ValueRef): number {
    const end = Math.min(stop, at + ahead.lot());
    for (let i = at; i < end; i++) {
      this.refer(this.page.node(i), value);
      ahead.show(value.buffer, value.start, value.end);
    }
    return Math.max(at + 1, end);
  }

  /** How many of the leaf's keys are below `end`. */
  private countBelow(end: DataView, length: number): number {
    this.page.forgetHint();
    return this.page.search(0, end, length);
  }

  // --- the way down ---

  /** The page of the leaf that has the key, or would. Leaves the hint for it. */
  private leafOf(key: DataView, length: number): number {
    const { page, way } = this;
    let next = this.root;
    page.forgetHint();
    for (let level = this.levels; level > 1; level--) {
      page.enter(next, PageKind.branch, this.newest);
      const at = page.childOf(key, length);
      way[level] = at;
      next = page.child(at);
    }
    return next;
  }

  /** Goes the way of leafOf() again, to see that each page is the one that belongs there. False: the key is really not there. */
  private checkWay(): false {
    const { page, way } = this;
    let next = this.root;
    page.forgetBounds();
    for (let level = this.levels; level > 1; level--) {
      page.enter(next, PageKind.branch, this.newest);
      page.checkPlace(1);
      const at = way[level]!;
      page.bound(at);
      next = page.child(at);
    }
    this.enterPlaced(next);
    return false;
  }

  private checkWayOf(key: DataView): false {
    this.leafOf(key, key.byteLength);
    return this.checkWay();
  }

  /** As leafOf(), or without a key for the first leaf or the last; each page is seen to be the one that belongs there. */
  private placeOf(key: DataView | null, length: number, path: Path, isLast = false): number {
    const { page } = this;
    let next = this.root;
    page.forgetHint();
    page.forgetBounds();
    for (let level = this.levels; level > 1; level--) {
      page.enter(next, PageKind.branch, this.newest);
      page.checkPlace(1);
      const at = key === null ? this.edge(isLast) : page.childOf(key, length);
      page.bound(at);
      path.pages.push(next);
      path.nodes.push(at);
      path.counts.push(page.count);
      next = page.child(at);
    }
    return next;
  }

  private enterLeaf(leaf: number): void {
    this.page.enter(leaf, PageKind.leaf, this.newest);
  }

  /** The first node of the branch that was entered, or the last one. */
  private edge(isLast: boolean): number {
    return isLast ? this.page.count - 1 : 0;
  }

  /** The leaf of a walk. */
  private enterPlaced(leaf: number): void {
    this.enterLeaf(leaf);
    this.page.checkPlace(0);
  }

  /** False when the path was at the last leaf. */
  private nextLeaf(path: Path): boolean {
    const { nodes, counts } = path;
    let level = nodes.length - 1;
    while (level >= 0 && nodes[level]! + 1 >= counts[level]!) level--;
    if (level < 0) return false;
    nodes[level]!++;
    this.descend(path, level, false);
    return true;
  }

  /** False when the path was at the first leaf. */
  private previousLeaf(path: Path): boolean {
    const { nodes } = path;
    let level = nodes.length - 1;
    while (level >= 0 && nodes[level] === 0) level--;
    if (level < 0) return false;
    nodes[level]!--;
    this.descend(path, level, true);
    return true;
  }

  /** Enters the leaf below the node at `level` of the path, along the first nodes or the last ones. */
  private descend({ pages, nodes, counts }: Path, from: number, isLast: boolean): void {
    const { page } = this;
    // What bounds the first and the last child of a branch is above it.
    const node = nodes[from]!;
    const isInner = from === pages.length - 1 && node > 0 && node + 1 < counts[from]!;
    page.forgetBounds();
    for (let level = isInner ? from : 0; ; ) {
      page.enter(pages[level]!, PageKind.branch, this.newest);
      if (level > from) {
        page.checkPlace(1);
        nodes[level] = this.edge(isLast);
        counts[level] = page.count;
      }
      page.bound(nodes[level]!);
      const child = page.child(nodes[level]!);
      level++;
      if (level === pages.length) {
        this.enterPlaced(child);
        return;
      }
      if (level > from) pages[level] = child;
    }
  }

  // --- values ---

  /** The value of a leaf's node. */
  private refer(node: number, out: ValueRef): void {
    const { page } = this;
    const { view } = page;
    const length = view.getUint32(node, true);
    const flags = view.getUint16(node + 4, true);
    const start = node + NODE_HEAD_BYTES + view.getUint16(node + 6, true);
    const end = page.body + PAGE_BODY_BYTES;
    if (flags === OWN_PAGES) {
      if (start + OWN_PAGES_BYTES > end) page.damaged(page.number, 'a value that is cut');
      if (view.getUint32(start + 4, true) !== 0) page.damaged(page.number, 'a value beyond the map');
      this.referOwnPages(view.getUint32(start, true), length, out);
      return;
    }
    if (flags !== 0) page.damaged(page.number, 'a node of another kind');
    if (start + length > end) page.damaged(page.number, 'a value that is cut');
    out.buffer = page.buffer;
    out.start = start;
    out.end = start + length;
  }

  private referOwnPages(first: number, length: number, out: ValueRef): void {
    const { page, map } = this;
    const pageCount = Math.ceil((PAGE_HEAD_BYTES + length) / lmdbPageBytes);
    if (first < 2 || !map.has(first + pageCount - 1)) page.damaged(first, 'outside of the file');
    const { buffer, view } = map.window(first);
    const at = (first & this.pageMask) * lmdbPageBytes;
    if (view.getUint32(at, true) !== first || view.getUint32(at + 4, true) !== 0) page.damaged(first, 'another number');
    if ((view.getUint16(at + 18, true) & PageKind.value) === 0) page.damaged(first, 'of another kind');
    if (view.getUint32(at + 20, true) < pageCount) page.damaged(first, 'a value that is cut');
    const start = at + PAGE_HEAD_BYTES;
    const isWhole = start + length <= buffer.length;
    out.buffer = isWhole ? buffer : this.gather(first, length);
    out.start = isWhole ? start : 0;
    out.end = out.start + length;
  }

  /** A copy of a value that crosses the end of a window. */
  private gather(first: number, length: number): Buffer {
    const { map } = this;
    const windowBytes = (this.pageMask + 1) * lmdbPageBytes;
    const bytes = Buffer.allocUnsafe(length);
    let page = first;
    let start = (first & this.pageMask) * lmdbPageBytes + PAGE_HEAD_BYTES;
    for (let at = 0; at < length; ) {
      const take = Math.min(length - at, windowBytes - start);
      map.window(page).buffer.copy(bytes, at, start, start + take);
      at += take;
      page = ((page >>> map.windowShift) + 1) << map.windowShift;
      start = 0;
    }
    return bytes;
  }
}

function viewOf(key: Buffer): DataView {
  return new DataView(key.buffer, key.byteOffset, key.length);
}
