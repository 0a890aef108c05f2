// Writes a bbolt database file (bolt-format.ts) as a stream of chunks in file order, from buckets whose entries come sorted.
// It is not a database: no updates, no transactions, no free pages; the result opens in real bbolt for reading and writing.
//
// Two passes. The metas stand first and name the root page, the page count and thereby the size (SnapshotResponse wants
// remaining_bytes from the first message on), all of which are known only at the end. So planBolt() runs the layout over
// lengths alone, and writeBolt() runs the very same code over the bytes. Both must see the same entries: hold one read
// snapshot over both passes. A difference is a bug and asserts. Spilling to a temporary file instead would cost the disk the
// whole database; a meta at the end would not be bbolt.
//
// Pages are numbered in the order in which they are finished (post-order): a leaf, the next leaf, ..., the branch above them.
// A branch page is therefore written as soon as its children are, and nothing is kept but the unfinished page of each level:
//
//     page  0     1     2         3     4     5       6 (branch)   7     8     9 (branch)  10 (root branch)  11 (root bucket)
//           meta  meta  freelist  leaf  leaf  leaf <- {3,4,5}      leaf  leaf <- {7,8}     {6, 9}            "key" -> 10
//
// Memory: one leaf page (with the largest value), one chunk and, for each branch level, one page and two elements more:
// under 300 KB beside the largest value, whatever the size of the database.
//
// What bbolt asks of a tree beyond its format: a branch page has two children or more (its rebalance asserts it when etcd
// deletes from the restored file), so a branch page is held back until two children for the next one are there.
// Buckets are never inline, the freelist is an empty page, sequences are 0.

import { createHash } from 'node:crypto';
import { assert } from '../base/assert.ts';
import { boltKeyBytesMax, boltValueBytesMax, snapshotChunkBytes, snapshotPlanSliceEntries } from '../storage-limits.ts';
import {
  type BoltMeta,
  BUCKET_HEADER_BYTES,
  compareBytes,
  ELEMENT_BYTES,
  encodeMetaPage,
  LEAF_BUCKET_FLAG,
  PAGE_HEADER_BYTES,
  PageFlag,
  writePageNumber,
} from './bolt-format.ts';

/** One bucket. Sources are given in ascending order of `name`. */
export interface BucketSource {
  readonly name: Buffer;
  /**
   * Ascending by key, without duplicates. The two buffers need to stay valid only until the next one is asked for. It is
   * pulled as slowly as the receiver reads, over many turns: a source over LMDB must go page by page within its read
   * snapshot instead of holding one iterator.
   */
  entries(): Iterable<readonly [Buffer, Buffer]>;
  /** The lengths of the same keys and values, when they can be had for less than the bytes. */
  sizes?(): Iterable<readonly [number, number]>;
}

/** What the first pass found. */
export interface BoltPlan {
  readonly pageCount: number;
  readonly rootPage: number;
  /** Of the whole file, without a trailing hash. */
  readonly fileBytes: number;
}

const PAGE_BYTES = 4096;
const FREELIST_PAGE = 2;
const FIRST_DATA_PAGE = 3;
/** The shortest element takes 17 bytes, and a page with overflow is filled up only within its last 4096 bytes. */
const LEAF_ELEMENTS_MAX = 256;
const EMPTY: Buffer = Buffer.alloc(0);

/** Numbers pages and, when it writes, lays them into chunks. */
class Pager {
  readonly writes: boolean;
  nextPage = FIRST_DATA_PAGE;
  /** Finished chunks, for the generator to yield. At most two pile up between two entries. */
  ready: Buffer[] = [];
  /** Where the page of the last begin() is to be written. */
  bytes: Buffer = EMPTY;
  at = 0;
  private used = 0;

  constructor(writes: boolean) {
    this.writes = writes;
  }

  /** Takes the next number for a page of `usedBytes`, writes its header, clears its slack. Returns the number. */
  begin(flags: number, count: number, usedBytes: number): number {
    const pages = Math.ceil(usedBytes / PAGE_BYTES);
    const id = this.nextPage;
    this.nextPage += pages;
    if (!this.writes) return id;
    const pageBytes = pages * PAGE_BYTES;
    if (this.used + pageBytes > this.bytes.length) {
      this.flush();
      this.bytes = Buffer.allocUnsafeSlow(Math.max(snapshotChunkBytes, pageBytes));
    }
    this.at = this.used;
    this.used += pageBytes;
    const bytes = this.bytes;
    writePageNumber(bytes, id, this.at);
    bytes.writeUInt16LE(flags, this.at + 8);
    bytes.writeUInt16LE(count, this.at + 10);
    bytes.writeUInt32LE(pages - 1, this.at + 12);
    // Unused bytes are zeroed: the file must not carry pieces of this process's memory, and equal content gives equal files.
    bytes.fill(0, this.at + usedBytes, this.at + pageBytes);
    return id;
  }

  flush(): void {
    if (this.used > 0) this.ready.push(this.bytes.subarray(0, this.used));
    this.bytes = EMPTY;
    this.used = 0;
  }
}

/** The unfinished page of one branch level, plus up to two elements of the next one. */
class BranchLevel {
  private readonly pager: Pager;
  private parent: BranchLevel | null = null;
  private keys: Buffer[] = [];
  private keyBytes: number[] = [];
  private children: number[] = [];
  /** How many of the elements go on the first page, and whether that is settled. */
  private cut = 0;
  private cutBytes = PAGE_HEADER_BYTES;
  private cutSettled = false;

  constructor(pager: Pager) {
    this.pager = pager;
  }

  /** `key` must not be reused by the caller; it is EMPTY when planning. */
  add(key: Buffer, keyBytes: number, child: number): void {
    this.keys.push(key);
    this.keyBytes.push(keyBytes);
    this.children.push(child);
    const elementBytes = ELEMENT_BYTES + keyBytes;
    if (!this.cutSettled && (this.cut < 2 || this.cutBytes + elementBytes <= PAGE_BYTES)) {
      this.cut++;
      this.cutBytes += elementBytes;
    } else {
      this.cutSettled = true;
      if (this.keys.length === this.cut + 2) this.writeToParent(this.cut);
    }
  }

  /** Ends the level and those above it. Returns the number of the root page. */
  finish(): number {
    const count = this.keys.length;
    assert(
      count >= 2 && count <= this.cut + 1,
      'bolt writer: a branch level ends with an impossible number of elements',
    );
    if (count > this.cut && this.cut > 2) this.writeToParent(count - 2);
    // Either all fits, or two huge keys filled the page and the third, which must not stay alone, goes to its overflow.
    if (this.parent === null) return this.write(this.keys.length);
    this.writeToParent(this.keys.length);
    return this.parent.finish();
  }

  private writeToParent(count: number): void {
    const firstKey = this.keys[0]!;
    const firstKeyBytes = this.keyBytes[0]!;
    const id = this.write(count);
    this.parent ??= new BranchLevel(this.pager);
    this.parent.add(firstKey, firstKeyBytes, id);
    this.keys = this.keys.slice(count);
    this.keyBytes = this.keyBytes.slice(count);
    this.children = this.children.slice(count);
    this.cut = this.keys.length;
    this.cutSettled = false;
    this.cutBytes = PAGE_HEADER_BYTES;
    for (const keyBytes of this.keyBytes) this.cutBytes += ELEMENT_BYTES + keyBytes;
  }

  private write(count: number): number {
    let usedBytes = PAGE_HEADER_BYTES + count * ELEMENT_BYTES;
    for (let i = 0; i < count; i++) usedBytes += this.keyBytes[i]!;
    const id = this.pager.begin(PageFlag.branch, count, usedBytes);
    if (!this.pager.writes) return id;
    const { bytes, at } = this.pager;
    let element = at + PAGE_HEADER_BYTES;
    let data = element + count * ELEMENT_BYTES;
    for (let i = 0; i < count; i++) {
      const key = this.keys[i]!;
      assert(key.length === this.keyBytes[i]!, 'bolt writer: a branch key has lost its bytes');
      bytes.writeUInt32LE(data - element, element);
      bytes.writeUInt32LE(key.length, element + 4);
      writePageNumber(bytes, this.children[i]!, element + 8);
      bytes.set(key, data);
      element += ELEMENT_BYTES;
      data += key.length;
    }
    return id;
  }
}

/** The tree of one bucket: its unfinished leaf and the branch levels above. */
class Tree {
  private readonly pager: Pager;
  private readonly leafFlags: number;
  private branches: BranchLevel | null = null;
  private count = 0;
  private usedBytes = PAGE_HEADER_BYTES;
  private readonly keyBytes = new Uint32Array(LEAF_ELEMENTS_MAX);
  private readonly valueBytes = new Uint32Array(LEAF_ELEMENTS_MAX);
  /** Keys and values of the unfinished leaf as they will stand on it: the source may reuse its buffers. */
  private data: Buffer;
  private dataBytes = 0;
  /** The last key, within `data`; it is still there after its leaf was written. */
  private lastKeyStart = 0;
  private lastKeyEnd = 0;

  constructor(pager: Pager, leafFlags: number) {
    this.pager = pager;
    this.leafFlags = leafFlags;
    this.data = pager.writes ? Buffer.allocUnsafeSlow(PAGE_BYTES) : EMPTY;
  }

  /** Hot in the first pass: one call an entry. */
  addSizes(keyBytes: number, valueBytes: number): void {
    assert(keyBytes > 0, 'bolt writer: empty key');
    assert(keyBytes <= boltKeyBytesMax, 'bolt writer: key too long for bbolt');
    assert(valueBytes >= 0 && valueBytes <= boltValueBytesMax, 'bolt writer: value too long for bbolt');
    const elementBytes = ELEMENT_BYTES + keyBytes + valueBytes;
    if (this.count > 0) {
      const room = Math.ceil(this.usedBytes / PAGE_BYTES) * PAGE_BYTES;
      if (this.usedBytes + elementBytes > room) this.writeToParent();
    }
    assert(this.count < LEAF_ELEMENTS_MAX, 'bolt writer: more elements on a leaf than fit one');
    this.keyBytes[this.count] = keyBytes;
    this.valueBytes[this.count] = valueBytes;
    this.count++;
    this.usedBytes += elementBytes;
  }

  /** Hot in the second pass: one call an entry, two copies of its bytes (onto the leaf's data, with the leaf to the chunk). */
  add(key: Buffer, value: Buffer): void {
    if (this.lastKeyEnd > 0) {
      const order = compareBytes(this.data, this.lastKeyStart, this.lastKeyEnd, key, 0, key.length);
      assert(order < 0, 'bolt writer: keys do not ascend');
    }
    this.addSizes(key.length, value.length);
    const start = this.dataBytes;
    const end = start + key.length + value.length;
    if (end > this.data.length) this.growData(end);
    this.data.set(key, start);
    this.data.set(value, start + key.length);
    this.dataBytes = end;
    this.lastKeyStart = start;
    this.lastKeyEnd = start + key.length;
  }

  /** Ends the tree. Returns the number of its root page; an empty bucket has an empty leaf. */
  finish(): number {
    if (this.branches === null) return this.write();
    this.writeToParent();
    return this.branches.finish();
  }

  private growData(neededBytes: number): void {
    const grown = Buffer.allocUnsafeSlow(Math.ceil(neededBytes / PAGE_BYTES) * PAGE_BYTES);
    grown.set(this.data.subarray(0, this.dataBytes));
    this.data = grown;
  }

  private writeToParent(): void {
    const keyBytes = this.keyBytes[0]!;
    const id = this.write();
    this.branches ??= new BranchLevel(this.pager);
    const key = this.pager.writes ? Buffer.from(this.data.subarray(0, keyBytes)) : EMPTY;
    this.branches.add(key, keyBytes, id);
    this.count = 0;
    this.usedBytes = PAGE_HEADER_BYTES;
    this.dataBytes = 0;
  }

  private write(): number {
    const count = this.count;
    const id = this.pager.begin(PageFlag.leaf, count, this.usedBytes);
    if (!this.pager.writes) return id;
    assert(
      this.usedBytes === PAGE_HEADER_BYTES + count * ELEMENT_BYTES + this.dataBytes,
      'bolt writer: leaf size is off',
    );
    const { bytes, at } = this.pager;
    let element = at + PAGE_HEADER_BYTES;
    let data = element + count * ELEMENT_BYTES;
    bytes.set(this.data.subarray(0, this.dataBytes), data);
    for (let i = 0; i < count; i++) {
      const keyBytes = this.keyBytes[i]!;
      const valueBytes = this.valueBytes[i]!;
      bytes.writeUInt32LE(this.leafFlags, element);
      bytes.writeUInt32LE(data - element, element + 4);
      bytes.writeUInt32LE(keyBytes, element + 8);
      bytes.writeUInt32LE(valueBytes, element + 12);
      element += ELEMENT_BYTES;
      data += keyBytes + valueBytes;
    }
    return id;
  }
}

/**
 * The first pass, in slices: yields every few thousand entries so that the caller can give way to other work between two
 * next(); returns the plan. One pass over `sizes()` (or `entries()`) of each source.
 */
export function* planBoltSteps(sources: readonly BucketSource[]): Generator<undefined, BoltPlan, undefined> {
  assertOrderOfNames(sources);
  const pager = new Pager(false);
  const root = new Tree(pager, LEAF_BUCKET_FLAG);
  let untilYield = snapshotPlanSliceEntries;
  for (const source of sources) {
    const tree = new Tree(pager, 0);
    if (source.sizes !== undefined) {
      for (const pair of source.sizes()) {
        tree.addSizes(pair[0], pair[1]);
        if (--untilYield === 0) {
          untilYield = snapshotPlanSliceEntries;
          yield undefined;
        }
      }
    } else {
      for (const pair of source.entries()) {
        tree.addSizes(pair[0].length, pair[1].length);
        if (--untilYield === 0) {
          untilYield = snapshotPlanSliceEntries;
          yield undefined;
        }
      }
    }
    tree.finish();
    root.addSizes(source.name.length, BUCKET_HEADER_BYTES);
  }
  const rootPage = root.finish();
  return { pageCount: pager.nextPage, rootPage, fileBytes: pager.nextPage * PAGE_BYTES };
}

/** The first pass at one go. */
export function planBolt(sources: readonly BucketSource[]): BoltPlan {
  const steps = planBoltSteps(sources);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

/**
 * The second pass: the file in chunks of whole pages (64 KiB, more for one page with a large value), `plan.fileBytes` in all.
 * A chunk is the receiver's to keep. Asserts when the sources give anything else than they gave to the plan.
 */
export function* writeBolt(sources: readonly BucketSource[], plan: BoltPlan): Generator<Buffer, void, undefined> {
  assertOrderOfNames(sources);
  yield encodeHead(plan);
  const pager = new Pager(true);
  const root = new Tree(pager, LEAF_BUCKET_FLAG);
  for (const source of sources) {
    const tree = new Tree(pager, 0);
    for (const pair of source.entries()) {
      tree.add(pair[0], pair[1]);
      if (pager.ready.length > 0) yield* takeReady(pager, plan);
    }
    const header = Buffer.alloc(BUCKET_HEADER_BYTES);
    writePageNumber(header, tree.finish(), 0);
    root.add(source.name, header);
    if (pager.ready.length > 0) yield* takeReady(pager, plan);
  }
  const rootPage = root.finish();
  pager.flush();
  assert(rootPage === plan.rootPage, 'bolt writer: the sources changed between the two passes');
  assert(pager.nextPage === plan.pageCount, 'bolt writer: the sources changed between the two passes');
  yield* takeReady(pager, plan);
}

/** What etcd's Snapshot RPC sends and etcdctl saves: the file, then the SHA-256 of all its bytes as a last chunk of 32 bytes. */
export function* snapshotWithHash(
  sources: readonly BucketSource[],
  plan: BoltPlan,
): Generator<Buffer, void, undefined> {
  const hash = createHash('sha256');
  for (const chunk of writeBolt(sources, plan)) {
    hash.update(chunk);
    yield chunk;
  }
  yield hash.digest();
}

function* takeReady(pager: Pager, plan: BoltPlan): Generator<Buffer, void, undefined> {
  assert(pager.nextPage <= plan.pageCount, 'bolt writer: more pages than planned');
  const chunks = pager.ready;
  pager.ready = [];
  for (const chunk of chunks) yield chunk;
}

function assertOrderOfNames(sources: readonly BucketSource[]): void {
  for (let i = 1; i < sources.length; i++) {
    assert(Buffer.compare(sources[i - 1]!.name, sources[i]!.name) < 0, 'bolt writer: bucket names do not ascend');
  }
}

/** Two metas and an empty freelist. The second meta is one transaction older, as in a copy that bbolt makes. */
function encodeHead(plan: BoltPlan): Buffer {
  const meta: BoltMeta = {
    pageBytes: PAGE_BYTES,
    rootPage: plan.rootPage,
    freelistPage: FREELIST_PAGE,
    pageCount: plan.pageCount,
    txid: 2n,
  };
  const freelist = Buffer.alloc(PAGE_BYTES);
  writePageNumber(freelist, FREELIST_PAGE, 0);
  freelist.writeUInt16LE(PageFlag.freelist, 8);
  return Buffer.concat([encodeMetaPage(0, meta), encodeMetaPage(1, { ...meta, txid: 1n }), freelist]);
}
