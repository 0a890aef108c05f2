// One table of an LmdbEnvironment: see lmdb.ts. A table of the thread's own view reads in place what find() and walk() ask for, where
// the environment has a map; everything else goes through the package, which copies values out of its map.

import { assert } from '../base/assert.ts';
import { lmdbKeyBytesMax } from '../storage-limits.ts';
import type { LmdbEnvironment } from './lmdb.ts';
import type { GuardedTable } from './lmdb-guard.ts';
import { type NativeStore, type NativeTransaction, recordKey } from './lmdb-package.ts';
import type { LmdbTree } from './lmdb-tree.ts';
import type { EntryVisitor, ScanVisitor, ValueRef, ValueRefs, WalkAhead, WriteTable } from './table.ts';

const FIRST_KEY: Buffer = Buffer.from([0]);

export class LmdbTable implements WriteTable {
  private readonly environment: LmdbEnvironment;
  private readonly name: string;
  private readonly options: { transaction: NativeTransaction } | undefined;
  private store: NativeStore;
  /** entryCount() in the view of that number; -1: not known. */
  private counted = 0;
  private countedView = -1;
  /** Undefined until it is asked for; null when there is none. It shows the view of that number. */
  private mapTree: LmdbTree | null | undefined;
  private treeView = -1;
  private readonly recordKey: Buffer;
  private guarded: GuardedTable | null = null;
  /** Of get(). */
  private readonly ref: ValueRef = { buffer: FIRST_KEY, start: 0, end: 0 };

  constructor(environment: LmdbEnvironment, name: string, transaction: NativeTransaction | undefined) {
    this.environment = environment;
    this.name = name;
    this.options = transaction === undefined ? undefined : { transaction };
    this.store = environment.store(name);
    this.recordKey = recordKey(name);
  }

  rebind(): void {
    this.store = this.environment.store(this.name);
    this.countedView = -1;
    this.mapTree = undefined;
    this.treeView = -1;
  }

  /** The table in the memory map, in the thread's read view; null when it has to be read through the package. */
  private tree(): LmdbTree | null {
    const { environment, options } = this;
    if (this.mapTree === null) return null;
    if (options !== undefined) {
      if (this.mapTree === undefined) this.mapTree = environment.pinnedTree(this.name, this.recordKey, options);
      return this.mapTree;
    }
    if (environment.writing) return null;
    // A view that ended is only begun again by this: pages of it may be written to since.
    this.store.ensureReadTxn();
    if (this.treeView === environment.viewNumber && this.mapTree !== undefined) return this.mapTree;
    this.mapTree ??= environment.tree(this.name);
    if (this.mapTree === null) return null;
    environment.beginTree(this.mapTree, this.recordKey);
    this.treeView = environment.viewNumber;
    return this.mapTree;
  }

  /** What has to be asked before LMDB's own code gets a key of a transaction; null: nothing. */
  private guard(): GuardedTable | null {
    const { guard } = this.environment;
    if (guard === null) return null;
    // Of another file, after a move: it has another guard, or none.
    if (this.guarded?.guard !== guard) this.guarded = guard.table(this.name);
    return this.guarded;
  }

  get(key: Buffer): Buffer | undefined {
    assert(key.length > 0 && key.length <= lmdbKeyBytesMax, 'lmdb key length');
    const tree = this.tree();
    if (tree !== null) return tree.find(key, this.ref) ? bytesOf(this.ref) : undefined;
    this.guard()?.reach(key);
    const bytes = this.store.getBinaryFast(key, this.options);
    if (bytes === undefined) return undefined;
    // The package's buffer is larger than its `length` says: everything but `length` would see the rest.
    return bytes.subarray(0, this.store.lastSize);
  }

  find(key: Buffer, out: ValueRef): boolean {
    assert(key.length > 0 && key.length <= lmdbKeyBytesMax, 'lmdb key length');
    const tree = this.tree();
    if (tree !== null) return tree.find(key, out);
    const value = this.get(key);
    if (value === undefined) return false;
    out.buffer = value;
    out.start = 0;
    out.end = value.length;
    return true;
  }

  findAll(keys: readonly DataView[], count: number, out: ValueRefs): boolean {
    const tree = this.tree();
    if (tree === null) return false;
    tree.findAll(keys, count, out);
    return true;
  }

  walk(start: Buffer | undefined, end: Buffer | undefined, visit: EntryVisitor, ahead?: WalkAhead): void {
    const tree = this.tree();
    if (tree !== null) tree.walk(start, end, visit, ahead);
    else this.scan(start, end, (key, value) => visit(key, 0, key.length, value, 0, value.length));
  }

  scan(start: Buffer | undefined, end: Buffer | undefined, visit: ScanVisitor, reverse = false): void {
    const tree = this.tree();
    if (tree === null) {
      this.scanNative(start, end, visit, reverse);
      return;
    }
    const show: EntryVisitor = (key, keyStart, keyEnd, value, valueStart, valueEnd) =>
      visit(key.subarray(keyStart, keyEnd), value.subarray(valueStart, valueEnd));
    if (reverse) tree.walkBack(start, end, show);
    else tree.walk(start, end, show);
  }

  /** Through the package, which copies. */
  private scanNative(start: Buffer | undefined, end: Buffer | undefined, visit: ScanVisitor, reverse: boolean): void {
    const guard = this.guard();
    /** The key at which the guard must be asked again. */
    let limit = guard?.reachWalk(reverse ? end : start, reverse) ?? null;
    const { frames } = this.environment;
    const frame = frames.enter();
    const iterator = this.store.getRange(this.rangeOptions(start, end, reverse)).iterate();
    let ended = false;
    try {
      for (;;) {
        frames.use(frame);
        if (iterator.next().done === true) {
          ended = true;
          return;
        }
        const key = frame.key.subarray(0, frame.keyLength);
        if (limit !== null && (reverse ? key.compare(limit) < 0 : key.compare(limit) >= 0)) {
          limit = guard!.reachWalk(key, reverse);
        }
        if (!visit(key, frame.value.subarray(0, frame.valueLength))) return;
      }
    } finally {
      if (!ended) iterator.return();
      frames.leave();
    }
  }

  private rangeOptions(start: Buffer | undefined, end: Buffer | undefined, reverse: boolean): object {
    const options: Record<string, unknown> = { ...this.options };
    if (!reverse) {
      // Without it the package begins at a key of its own choice.
      options['start'] = start !== undefined && start.length > 0 ? start : FIRST_KEY;
      if (end !== undefined) options['end'] = end;
      return options;
    }
    // The package counts a reverse range from its upper bound: that one is exclusive here, the lower one inclusive.
    options['reverse'] = true;
    if (end !== undefined) {
      options['start'] = end;
      options['exclusiveStart'] = true;
    }
    if (start !== undefined && start.length > 0) {
      options['end'] = start;
      options['inclusiveEnd'] = true;
    } else {
      options['end'] = undefined;
    }
    return options;
  }

  count(start: Buffer | undefined, end: Buffer | undefined): number {
    if (start === undefined && end === undefined) return this.entryCount();
    const tree = this.tree();
    if (tree !== null) return tree.count(start, end);
    this.guard()?.reachRange(start, end);
    return this.store.getKeysCount(this.rangeOptions(start, end, false));
  }

  entryCount(): number {
    if (this.options !== undefined) {
      const tree = this.tree();
      if (tree !== null) return tree.entryCount;
      return this.store.getKeysCount(this.rangeOptions(undefined, undefined, false));
    }
    this.store.ensureReadTxn();
    // The package builds an object for its answer: 2 us, on the path of every new key of the index.
    if (this.countedView !== this.environment.viewNumber) {
      this.counted = this.environment.readNative(() => this.store.db.stat()).entryCount;
      this.countedView = this.environment.viewNumber;
    }
    return this.counted;
  }

  put(key: Buffer, value: Buffer): void {
    assert(this.environment.writing, 'lmdb put outside of a transaction');
    assert(key.length > 0 && key.length <= lmdbKeyBytesMax, 'lmdb key length');
    this.countedView = -1;
    this.guard()?.reach(key);
    this.store.put(key, this.environment.stage(value));
  }

  remove(key: Buffer): boolean {
    assert(this.environment.writing, 'lmdb remove outside of a transaction');
    this.countedView = -1;
    this.guard()?.reachWithNeighbours(key);
    return this.store.removeSync(key);
  }

  /** Removes all entries; used when a table is replaced whole. */
  clear(): void {
    assert(this.environment.writing, 'lmdb clear outside of a transaction');
    this.countedView = -1;
    this.store.clearSync();
  }
}

function bytesOf({ buffer, start, end }: ValueRef): Buffer {
  return buffer.subarray(start, end);
}
