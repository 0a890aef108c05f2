// The tables of io/table.ts in memory, for tests and simulation: sorted, with atomic commits and a read view for each reader
// that moves only by refresh(). Not a cache and not for production: every entry is two heap objects.
//
// A table is a list of blocks of at most 256 entries. A block belongs to the transaction that made it; a later transaction
// copies it before its first change, so that readers keep theirs (copy on write, as LMDB's pages).
//
// What a reader may not keep is poisoned: the bytes that get() returned are overwritten at the next call on any table of the
// environment, those of scan() when `visit` has returned. Code that keeps them fails here instead of now and then on LMDB.

import { assert } from '../base/assert.ts';
import type {
  EntryVisitor,
  EnvironmentSizes,
  ReadEnvironment,
  ScanVisitor,
  ValueRef,
  WriteEnvironment,
  WriteTable,
} from '../io/table.ts';

const BLOCK_ENTRIES_MAX = 256;
const POISON = 0xa5;
/** LMDB's bound at a page size of 8192. */
const KEY_BYTES_MAX = 4026;

interface Block {
  readonly owner: number;
  readonly keys: Buffer[];
  readonly values: Buffer[];
}

interface Tree {
  readonly owner: number;
  readonly blocks: Block[];
  entryCount: number;
  bytes: number;
}

type Trees = Map<string, Tree>;

const EMPTY_TREE: Tree = { owner: -1, blocks: [], entryCount: 0, bytes: 0 };

/** What a disk is to LMDB: environments come and go over it, committed transactions stay. */
export class MemoryStore {
  committed: Trees = new Map();
  allocatedBytes = 0;
  transactionCount = 0;
  /** Called before each commit; a throw loses the transaction as a crash does. */
  beforeCommit: (() => void) | null = null;

  openWriter(): WriteEnvironment {
    return new MemoryWriteEnvironment(this);
  }

  openReader(): ReadEnvironment {
    return new MemoryEnvironment(this);
  }
}

function blockBytes(trees: Trees): number {
  let bytes = 0;
  for (const tree of trees.values()) bytes += tree.bytes;
  return bytes;
}

class MemoryEnvironment implements ReadEnvironment {
  readonly store: MemoryStore;
  trees: Trees;
  closed = false;
  scanDepth = 0;
  private handedOut: Buffer | null = null;
  private readonly tables = new Map<string, MemoryTable>();

  constructor(store: MemoryStore) {
    this.store = store;
    this.trees = store.committed;
  }

  table(name: string): WriteTable {
    assert(!this.closed, 'memory tables: environment is closed');
    let table = this.tables.get(name);
    if (table === undefined) {
      table = new MemoryTable(this, name);
      this.tables.set(name, table);
    }
    return table;
  }

  refresh(): void {
    assert(!this.closed, 'memory tables: environment is closed');
    assert(this.scanDepth === 0, 'memory tables: refresh inside a scan');
    this.poisonLast();
    this.trees = this.store.committed;
  }

  sizes(): EnvironmentSizes {
    const allocatedBytes = this.store.allocatedBytes;
    return { allocatedBytes, freeBytes: allocatedBytes - blockBytes(this.store.committed) };
  }

  close(): void {
    assert(!this.closed, 'memory tables: closed twice');
    this.poisonLast();
    this.closed = true;
  }

  poisonLast(): void {
    if (this.handedOut !== null) this.handedOut.fill(POISON);
    this.handedOut = null;
  }

  handOut(value: Buffer): Buffer {
    this.handedOut = Buffer.from(value);
    return this.handedOut;
  }

  /** The tree to change, which belongs to the running transaction. */
  writableTree(_name: string): Tree {
    assert(false, 'memory tables: a reader cannot write');
  }
}

class MemoryWriteEnvironment extends MemoryEnvironment implements WriteEnvironment {
  private owner = -1;

  transaction(body: () => void): void {
    assert(this.owner === -1, 'memory tables: nested transaction');
    this.owner = ++this.store.transactionCount;
    this.trees = new Map(this.store.committed);
    try {
      body();
      this.store.beforeCommit?.();
      this.store.committed = this.trees;
      this.store.allocatedBytes = Math.max(this.store.allocatedBytes, blockBytes(this.trees));
    } finally {
      this.owner = -1;
      this.trees = this.store.committed;
      this.poisonLast();
    }
  }

  override writableTree(name: string): Tree {
    assert(this.owner !== -1, 'memory tables: write outside of a transaction');
    assert(this.scanDepth === 0, 'memory tables: write inside a scan');
    const tree = this.trees.get(name) ?? EMPTY_TREE;
    if (tree.owner === this.owner) return tree;
    const copy: Tree = { ...tree, owner: this.owner, blocks: tree.blocks.slice() };
    this.trees.set(name, copy);
    return copy;
  }
}

class MemoryTable implements WriteTable {
  private readonly environment: MemoryEnvironment;
  private readonly name: string;

  constructor(environment: MemoryEnvironment, name: string) {
    this.environment = environment;
    this.name = name;
  }

  private tree(): Tree {
    assert(!this.environment.closed, 'memory tables: environment is closed');
    this.environment.poisonLast();
    return this.environment.trees.get(this.name) ?? EMPTY_TREE;
  }

  get(key: Buffer): Buffer | undefined {
    checkKey(key);
    const tree = this.tree();
    const block = tree.blocks[findBlock(tree, key)];
    if (block === undefined) return undefined;
    const at = lowerBound(block.keys, key);
    const found = block.keys[at];
    if (found === undefined || found.compare(key) !== 0) return undefined;
    return this.environment.handOut(block.values[at]!);
  }

  find(key: Buffer, out: ValueRef): boolean {
    const value = this.get(key);
    if (value === undefined) return false;
    out.buffer = value;
    out.start = 0;
    out.end = value.length;
    return true;
  }

  findAll(): boolean {
    return false;
  }

  walk(start: Buffer | undefined, end: Buffer | undefined, visit: EntryVisitor): void {
    this.scan(start, end, (key, value) => visit(key, 0, key.length, value, 0, value.length));
  }

  scan(start: Buffer | undefined, end: Buffer | undefined, visit: ScanVisitor, reverse = false): void {
    const tree = this.tree();
    this.environment.scanDepth++;
    try {
      if (reverse) scanDescending(tree, start, end, visit);
      else scanAscending(tree, start, end, visit);
    } finally {
      this.environment.scanDepth--;
    }
  }

  count(start: Buffer | undefined, end: Buffer | undefined): number {
    const tree = this.tree();
    const from = start === undefined ? 0 : rank(tree, start);
    const to = end === undefined ? tree.entryCount : rank(tree, end);
    return Math.max(0, to - from);
  }

  entryCount(): number {
    return this.tree().entryCount;
  }

  put(key: Buffer, value: Buffer): void {
    checkKey(key);
    this.environment.poisonLast();
    const tree = this.environment.writableTree(this.name);
    if (tree.blocks.length === 0) tree.blocks.push({ owner: tree.owner, keys: [], values: [] });
    const blockIndex = findBlock(tree, key);
    const block = writableBlock(tree, blockIndex);
    const at = lowerBound(block.keys, key);
    const found = block.keys[at];
    const copy = Buffer.from(value);
    if (found !== undefined && found.compare(key) === 0) {
      tree.bytes += copy.length - block.values[at]!.length;
      block.values[at] = copy;
      return;
    }
    block.keys.splice(at, 0, Buffer.from(key));
    block.values.splice(at, 0, copy);
    tree.entryCount++;
    tree.bytes += key.length + copy.length;
    if (block.keys.length <= BLOCK_ENTRIES_MAX) return;
    const half = BLOCK_ENTRIES_MAX / 2;
    const right = { owner: tree.owner, keys: block.keys.splice(half), values: block.values.splice(half) };
    tree.blocks.splice(blockIndex + 1, 0, right);
  }

  remove(key: Buffer): boolean {
    checkKey(key);
    this.environment.poisonLast();
    const tree = this.environment.writableTree(this.name);
    const blockIndex = findBlock(tree, key);
    const candidate = tree.blocks[blockIndex];
    if (candidate === undefined) return false;
    const at = lowerBound(candidate.keys, key);
    const found = candidate.keys[at];
    if (found === undefined || found.compare(key) !== 0) return false;
    const block = writableBlock(tree, blockIndex);
    tree.bytes -= found.length + block.values[at]!.length;
    tree.entryCount--;
    block.keys.splice(at, 1);
    block.values.splice(at, 1);
    if (block.keys.length === 0) tree.blocks.splice(blockIndex, 1);
    return true;
  }
}

function checkKey(key: Buffer): void {
  assert(key.length > 0, 'memory tables: empty key');
  assert(key.length <= KEY_BYTES_MAX, 'memory tables: key longer than LMDB takes');
}

function writableBlock(tree: Tree, blockIndex: number): Block {
  const block = tree.blocks[blockIndex]!;
  if (block.owner === tree.owner) return block;
  const copy = { owner: tree.owner, keys: block.keys.slice(), values: block.values.slice() };
  tree.blocks[blockIndex] = copy;
  return copy;
}

/** The last block whose first key is <= key, else 0. */
function findBlock(tree: Tree, key: Buffer): number {
  let low = 0;
  let high = tree.blocks.length;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (tree.blocks[middle]!.keys[0]!.compare(key) <= 0) low = middle;
    else high = middle;
  }
  return low;
}

function lowerBound(keys: Buffer[], key: Buffer): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (keys[middle]!.compare(key) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

function rank(tree: Tree, key: Buffer): number {
  const blockIndex = findBlock(tree, key);
  let before = 0;
  for (let i = 0; i < blockIndex; i++) before += tree.blocks[i]!.keys.length;
  const block = tree.blocks[blockIndex];
  return block === undefined ? 0 : before + lowerBound(block.keys, key);
}

function scanAscending(tree: Tree, start: Buffer | undefined, end: Buffer | undefined, visit: ScanVisitor): void {
  // Bounds are copied: a caller may reuse its key scratch inside of visit.
  const last = end === undefined ? undefined : Buffer.from(end);
  let blockIndex = start === undefined ? 0 : findBlock(tree, start);
  let at = start === undefined || tree.blocks.length === 0 ? 0 : lowerBound(tree.blocks[blockIndex]!.keys, start);
  for (; blockIndex < tree.blocks.length; blockIndex++, at = 0) {
    const block = tree.blocks[blockIndex]!;
    for (; at < block.keys.length; at++) {
      const key = block.keys[at]!;
      if (last !== undefined && key.compare(last) >= 0) return;
      if (!visitCopy(key, block.values[at]!, visit)) return;
    }
  }
}

function scanDescending(tree: Tree, start: Buffer | undefined, end: Buffer | undefined, visit: ScanVisitor): void {
  const first = start === undefined ? undefined : Buffer.from(start);
  let blockIndex = end === undefined ? tree.blocks.length - 1 : findBlock(tree, end);
  if (tree.blocks.length === 0) return;
  let at =
    (end === undefined ? tree.blocks[blockIndex]!.keys.length : lowerBound(tree.blocks[blockIndex]!.keys, end)) - 1;
  while (blockIndex >= 0) {
    const block = tree.blocks[blockIndex]!;
    for (; at >= 0; at--) {
      const key = block.keys[at]!;
      if (first !== undefined && key.compare(first) < 0) return;
      if (!visitCopy(key, block.values[at]!, visit)) return;
    }
    blockIndex--;
    at = (tree.blocks[blockIndex]?.keys.length ?? 0) - 1;
  }
}

function visitCopy(key: Buffer, value: Buffer, visit: ScanVisitor): boolean {
  const keyCopy = Buffer.from(key);
  const valueCopy = Buffer.from(value);
  const goOn = visit(keyCopy, valueCopy);
  keyCopy.fill(POISON);
  valueCopy.fill(POISON);
  return goOn;
}
