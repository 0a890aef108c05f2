// Stands before every access of LMDB's own code to a table inside of a write transaction: the pages that it will touch are checked
// first (lmdb-check.ts), as a damaged one ends the process with a signal there, or is spread. Reads outside of write transactions
// go past LMDB altogether (lmdb-tree.ts).
//
// Which pages those are. A transaction copies a page before it changes it, and its copies are its own. So whatever it still finds
// on the disk belongs to the commit that it began from, and is found there by the same key:
//   - get, put: the way from the root to the key's leaf;
//   - remove: that, and on each level both neighbours under the same parent (a page that became small is joined with one of them, or
//     gets a node of it), with the first way down from those that are branches (their first key is looked up in a leaf). A leaf that
//     has gone leaves its range to a neighbour, which was checked when its own entries went;
//   - a walk, a count: its leaf and the next one, before each step.
// Pages that value's have are checked with their leaf.
//
// What it costs: each page is checked once in the process' life (5 to 10 us, cold), pages that were written by this process never; and the
// way down is gone again only for a key outside of the last leaf.
//
//   the last leaf of a table:   low <= key < high: nothing to do
//                             ──┤leaf├────┤next├──

import { lmdbPageBytes } from '../storage-limits.ts';
import {
  checkTree,
  LmdbPageCheck,
  lowHalf,
  readRecord,
  readRecords,
  type TreeRecord,
  transactionOf,
} from './lmdb-check.ts';
import type { PageMap } from './lmdb-map.ts';
import { type LmdbPage, NODE_HEAD_BYTES, PageKind } from './lmdb-page.ts';

// Of a meta page: see lmdb-file.ts.
const META_MAIN_RECORD = 96;
const META_LAST_PAGE = 144;
const META_TRANSACTION = 152;

const FIRST_KEY: Buffer = Buffer.from([0]);

/** Page numbers of a file as long as it was when this process began. */
class PageSet {
  private readonly bits: Uint8Array;

  constructor(lastPage: number) {
    this.bits = new Uint8Array((lastPage >>> 3) + 1);
  }

  has(page: number): boolean {
    return ((this.bits[page >>> 3] ?? 0) & (1 << (page & 7))) !== 0;
  }

  add(page: number): void {
    if (page >>> 3 < this.bits.length) this.bits[page >>> 3]! |= 1 << (page & 7);
  }
}

/** Which leaf: the key's own, that of the keys just below it, or the last one (without a key). */
type Side = 'at' | 'before';

export class LmdbGuard {
  private readonly map: PageMap;
  /** The newest transaction when this process began: pages since are its own. */
  private readonly oldest: bigint;
  /** Pages that were found whole. */
  private readonly checked: PageSet;
  private readonly tables: Map<string, GuardedTable> = new Map();
  private records: Map<string, TreeRecord> = new Map();
  private newest = 0n;

  constructor(map: PageMap) {
    this.map = map;
    const { view } = map.window(0);
    const meta = newestMeta(view);
    this.oldest = view.getBigUint64(meta + META_TRANSACTION, true);
    this.checked = new PageSet(view.getUint32(meta + META_LAST_PAGE, true));
  }

  /** A write transaction is about to begin. */
  begin(): void {
    const { map } = this;
    const { view } = map.window(0);
    const meta = newestMeta(view);
    this.newest = view.getBigUint64(meta + META_TRANSACTION, true);
    const record = readRecord(map, 'of tables', view, meta + META_MAIN_RECORD);
    this.records = new Map();
    checkTree(map, 'of tables', 'tables', record, this.newest, (leaf) => readRecords(map, leaf, this.records));
    for (const [name, table] of this.tables) table.begin(this.records.get(name), this.newest);
  }

  /** For the named table in the transaction that has begun. */
  table(name: string): GuardedTable {
    let table = this.tables.get(name);
    if (table === undefined) {
      table = new GuardedTable(this, this.map, name, this.oldest, this.checked);
      table.begin(this.records.get(name), this.newest);
      this.tables.set(name, table);
    }
    return table;
  }
}

/** Where in the first window the meta page of the newest commit is. */
function newestMeta(view: DataView): number {
  const isFirst = view.getBigUint64(META_TRANSACTION, true) > view.getBigUint64(lmdbPageBytes + META_TRANSACTION, true);
  return isFirst ? 0 : lmdbPageBytes;
}

export class GuardedTable {
  readonly guard: LmdbGuard;
  private readonly check: LmdbPageCheck;
  private readonly oldest: bigint;
  private readonly checked: PageSet;
  private root = 0;
  private levels = 0;
  private newest = 0n;
  private newestLow = 0;
  // The last leaf: its bounds (null: none on that side), whether they are known, and whether its neighbours were checked too.
  private low: Buffer | null = null;
  private high: Buffer | null = null;
  private isKnown = false;
  private hasNeighbours = false;
  // The way to it: of each level above the leaves the page, the node that was followed, and how many it has.
  private readonly pages: number[] = [];
  private readonly nodes: number[] = [];
  private readonly counts: number[] = [];

  constructor(guard: LmdbGuard, map: PageMap, name: string, oldest: bigint, checked: PageSet) {
    this.guard = guard;
    this.check = new LmdbPageCheck(map, name, 'bytes');
    this.oldest = oldest;
    this.checked = checked;
  }

  begin(record: TreeRecord | undefined, newest: bigint): void {
    this.root = record?.root ?? 0;
    this.levels = record?.levels ?? 0;
    this.newest = newest;
    this.newestLow = lowHalf(newest);
    this.isKnown = false;
  }

  /** Before a get() or put() of the key. Hot. */
  reach(key: Buffer): void {
    if (this.levels > 0 && !this.isInside(key)) this.descend(key, 'at');
  }

  /** Before a remove() of the key. */
  reachWithNeighbours(key: Buffer): void {
    if (this.levels === 0) return;
    if (!this.isInside(key)) this.descend(key, 'at');
    if (!this.hasNeighbours) this.checkNeighbours();
  }

  /** Before entries with start <= key < end are counted: LMDB goes on to the first key that is not, which may be in the next leaf. */
  reachRange(start: Buffer | undefined, end: Buffer | undefined): void {
    if (this.levels === 0) return;
    this.reach(start ?? FIRST_KEY);
    while (this.high !== null) {
      const isLast = end !== undefined && this.high.compare(end) >= 0;
      this.descend(this.high, 'at');
      if (isLast) return;
    }
  }

  /**
   * Before a walk begins at a key, or steps on from it; `isBack`: downwards, from below the key (undefined: from the last on).
   * Returns the key at which to ask again (from it on, or below it): null when the walk cannot leave what was checked.
   */
  reachWalk(key: Buffer | undefined, isBack: boolean): Buffer | null {
    if (this.levels === 0) return null;
    if (!isBack) {
      this.reach(key ?? FIRST_KEY);
      const { high } = this;
      if (high !== null) this.descend(high, 'at');
      return high;
    }
    // LMDB looks for the first key that is not below it, and steps back from there.
    if (key !== undefined) this.reachWalk(key, false);
    this.descend(key, 'before');
    const { low } = this;
    if (low !== null) this.descend(low, 'before');
    return low;
  }

  private isInside(key: Buffer): boolean {
    if (!this.isKnown) return false;
    return (this.low === null || !isBelow(key, this.low)) && (this.high === null || isBelow(key, this.high));
  }

  private descend(key: Buffer | undefined, side: Side): void {
    const { page } = this.check;
    const view = key === undefined ? null : new DataView(key.buffer, key.byteOffset, key.length);
    this.low = this.high = null;
    this.pages.length = this.nodes.length = this.counts.length = 0;
    let next = this.root;
    for (let level = this.levels; level > 1; level--) {
      this.enter(next, PageKind.branch);
      page.forgetHint();
      let at = page.count - 1;
      if (view !== null) {
        at = page.search(1, view, key!.length);
        if (side === 'before' || !page.exact) at--;
      }
      this.pages.push(next);
      this.nodes.push(at);
      this.counts.push(page.count);
      if (at > 0) this.low = keyOf(page, at);
      if (at + 1 < page.count) this.high = keyOf(page, at + 1);
      next = page.child(at);
    }
    this.enter(next, PageKind.leaf);
    this.checkPlace();
    this.isKnown = true;
    this.hasNeighbours = false;
  }

  /** The leaf's keys lie between those of its parents: else a search would not find what a walk shows. */
  private checkPlace(): void {
    const { page } = this.check;
    const { low, high } = this;
    const isBeside =
      (low !== null && isBelow(keyOf(page, 0), low)) || (high !== null && !isBelow(keyOf(page, page.count - 1), high));
    if (isBeside) page.damaged(page.number, 'keys that belong to another page');
  }

  private checkNeighbours(): void {
    const { page } = this.check;
    const { pages, nodes, counts } = this;
    for (let depth = 0; depth < pages.length; depth++) {
      // Levels below this page's children.
      const below = this.levels - depth - 2;
      const at = nodes[depth]!;
      for (const beside of [at - 1, at, at + 1]) {
        if (beside < 0 || beside >= counts[depth]!) continue;
        this.enter(pages[depth]!, PageKind.branch);
        this.enterFirst(page.child(beside), below);
      }
    }
    this.hasNeighbours = true;
  }

  /** Down from the page along its first nodes. */
  private enterFirst(number: number, levelsBelow: number): void {
    let next = number;
    for (let level = levelsBelow; level > 0; level--) {
      this.enter(next, PageKind.branch);
      next = this.check.page.child(0);
    }
    this.enter(next, PageKind.leaf);
  }

  private enter(number: number, kind: PageKind): void {
    const { check, checked, newest } = this;
    check.page.enter(number, kind, this.newestLow);
    if (checked.has(number)) return;
    const transaction = transactionOf(check.page);
    if (transaction > this.oldest && transaction <= newest) return;
    check.check(number, kind, newest);
    checked.add(number);
  }
}

/** Buffer's own compare() costs more than such short keys take. */
function isBelow(left: Buffer, right: Buffer): boolean {
  const shared = Math.min(left.length, right.length);
  for (let i = 0; i < shared; i++) {
    const difference = left[i]! - right[i]!;
    if (difference !== 0) return difference < 0;
  }
  return left.length < right.length;
}

function keyOf(page: LmdbPage, at: number): Buffer {
  const node = page.node(at);
  const key = node + NODE_HEAD_BYTES;
  return Buffer.from(page.buffer.subarray(key, key + page.view.getUint16(node + 6, true)));
}
