// Numbers of live keys for blocks of the table `live`, kept in the table `counts` by every merge: so that a count of a
// range costs two edges, whatever lies between, and a start reads them instead of the keys. CountWriter is the flusher's
// side, BlockCounts the core's. What the deltas add is not here.
//
// A block begins at its separator, a table key (of a short key: those of long keys may be renumbered), and ends at the next
// one; the first begins at 00, which is below every table key. The sum of all counts is the number of entries of `live`.

import { assertSound } from '../base/fatal.ts';
import type { WriteTable } from '../io/table.ts';
import { type IndexLimits, indexLimits } from '../storage-limits.ts';
import { EntryFlag } from './index-entry.ts';
import type { IndexReadTables, IndexTables } from './index-tables.ts';

const firstSeparator: Buffer = Buffer.from([0]);

/** The core's copy of the counts, of the read view at the last load() or reload(). */
export class BlockCounts {
  private separators: Buffer[] = [];
  private counts: number[] = [];
  private readonly tables: IndexReadTables;

  constructor(tables: IndexReadTables) {
    this.tables = tables;
  }

  load(): void {
    this.separators = [];
    this.counts = [];
    this.readBlocks(undefined, undefined, this.separators, this.counts);
    this.checkTotal();
  }

  /** Reads again what a merge of keys in [from, to) (table keys; undefined: from the first, to the last) may have changed. */
  reload(from: Buffer | undefined, to: Buffer | undefined): void {
    // One block before: a block that became too small is joined with it.
    const low = from === undefined ? 0 : Math.max(0, this.blockOf(from) - 1);
    const high = to === undefined ? this.separators.length : this.blockOf(to) + 1;
    const separators: Buffer[] = [];
    const counts: number[] = [];
    this.readBlocks(low === 0 ? undefined : this.separators[low], this.separators[high], separators, counts);
    this.separators.splice(low, high - low, ...separators);
    this.counts.splice(low, high - low, ...counts);
    this.checkTotal();
  }

  private readBlocks(from: Buffer | undefined, to: Buffer | undefined, separators: Buffer[], counts: number[]): void {
    this.tables.counts.scan(from, to, (key, value) => {
      assertSound(value.length === 4, 'a count of live keys is cut');
      separators.push(Buffer.from(key));
      counts.push(value.readUInt32BE(0));
      return true;
    });
  }

  private checkTotal(): void {
    let total = 0;
    for (const count of this.counts) total += count;
    assertSound(total === this.tables.live.entryCount(), 'the counts of the key index do not add up to its entries');
  }

  /** The last block that begins at or before the table key; 0 when there is none. */
  private blockOf(tableKey: Buffer): number {
    let low = 0;
    let high = this.separators.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (this.separators[middle]!.compare(tableKey) <= 0) low = middle;
      else high = middle;
    }
    return low;
  }

  /** Entries of `live` with start <= table key < end (undefined: to the last). */
  count(start: Buffer, end: Buffer | undefined): number {
    const blocks = this.separators.length;
    if (blocks === 0 || (end !== undefined && start.compare(end) >= 0)) return 0;
    const live = this.tables.live;
    const first = this.blockOf(start);
    const last = end === undefined ? blocks - 1 : this.blockOf(end);
    if (first === last) return live.count(start, end);
    let sum = live.count(start, this.separators[first + 1]!);
    for (let block = first + 1; block < last; block++) sum += this.counts[block]!;
    return sum + (end === undefined ? this.counts[last]! : live.count(this.separators[last]!, end));
  }
}

/** Keeps the counts while a slice changes `live` in ascending order. Call flush() before the transaction ends. */
export class CountWriter {
  private readonly live: WriteTable;
  private readonly counts: WriteTable;
  private readonly blockKeys: number;
  private readonly blockKeysMin: number;
  private loaded = false;
  private start: Buffer = firstSeparator;
  /** The next block's separator; null: this one is the last. */
  private end: Buffer | null = null;
  private count = 0;
  private countBefore = 0;
  private created = 0;
  /** Keys put into the block by this slice that could begin a block of their own. */
  private candidates: Buffer[] = [];
  private readonly value: Buffer = Buffer.alloc(4);
  private foundKey: Buffer | null = null;
  private foundCount = 0;

  constructor(tables: IndexTables, limits: IndexLimits = indexLimits) {
    this.live = tables.live;
    this.counts = tables.counts;
    this.blockKeys = limits.countBlockKeys;
    this.blockKeysMin = limits.countBlockKeysMin;
  }

  /** A key came to `live` (1) or left it (-1). */
  change(tableKey: Buffer, by: 1 | -1, long: boolean): void {
    if (!this.loaded || (this.end !== null && tableKey.compare(this.end) >= 0) || tableKey.compare(this.start) < 0) {
      this.flush();
      this.loadBlock(tableKey);
    }
    this.count += by;
    if (by === 1 && this.created++ % (this.blockKeys >>> 2) === 0 && !long) this.candidates.push(Buffer.from(tableKey));
  }

  private loadBlock(tableKey: Buffer): void {
    this.loaded = true;
    this.start = firstSeparator;
    this.count = 0;
    this.end = null;
    this.created = 0;
    this.candidates = [];
    const after = Buffer.concat([tableKey, firstSeparator]);
    this.findBefore(after);
    if (this.foundKey !== null) this.start = this.foundKey;
    this.count = this.foundCount;
    this.counts.scan(after, undefined, (key) => {
      this.end = Buffer.from(key);
      return false;
    });
    this.countBefore = this.count;
  }

  flush(): void {
    if (!this.loaded) return;
    this.loaded = false;
    if (this.count === this.countBefore && this.created === 0) return;
    if (this.count > this.blockKeys) this.split();
    else if (this.count < this.blockKeysMin && this.joinPrevious()) return;
    else this.put(this.start, this.count);
  }

  private put(separator: Buffer, count: number): void {
    assertSound(count >= 0, 'a count of live keys below zero');
    this.value.writeUInt32BE(count, 0);
    this.counts.put(separator, this.value);
  }

  /** Joins a small block with the one before it, if there is one and it has room. */
  private joinPrevious(): boolean {
    if (this.start.equals(firstSeparator)) return false;
    this.findBefore(this.start);
    const previous = this.foundKey;
    assertSound(previous !== null, 'counts of live keys without a first block');
    if (this.foundCount + this.count > this.blockKeys) return false;
    this.counts.remove(this.start);
    this.put(previous, this.foundCount + this.count);
    return true;
  }

  /** The last block that begins before the table key. */
  private findBefore(tableKey: Buffer): void {
    this.foundKey = null;
    this.foundCount = 0;
    const visit = (key: Buffer, value: Buffer): boolean => {
      assertSound(value.length === 4, 'a count of live keys is cut');
      this.foundKey = Buffer.from(key);
      this.foundCount = value.readUInt32BE(0);
      return false;
    };
    this.counts.scan(undefined, tableKey, visit, true);
  }

  private split(): void {
    let rest = this.count;
    for (const candidate of this.candidates) {
      if (rest <= this.blockKeys) break;
      // A candidate may be the block's own start, or have been deleted again: neither harms a separator.
      if (candidate.compare(this.start) <= 0) continue;
      rest = this.splitAt(candidate, rest);
    }
    while (rest > 2 * this.blockKeys) {
      const middle = this.shortKeyNear(this.start, this.end, rest >>> 1);
      const before = rest;
      if (middle !== null) rest = this.splitAt(middle, rest);
      if (rest === before) break;
    }
    this.put(this.start, rest);
  }

  /** Cuts the block there if both parts are large enough; answers what is left of it, from `this.start` on. */
  private splitAt(separator: Buffer, rest: number): number {
    const left = this.live.count(this.start, separator);
    if (left < this.blockKeys >>> 1 || rest - left < this.blockKeysMin) return rest;
    this.put(this.start, left);
    this.start = separator;
    return rest - left;
  }

  private shortKeyNear(start: Buffer, end: Buffer | null, position: number): Buffer | null {
    let at = 0;
    let found: Buffer | null = null;
    this.live.scan(start, end ?? undefined, (key, value) => {
      if (at++ < position || (value[0]! & EntryFlag.long) !== 0) return true;
      found = Buffer.from(key);
      return false;
    });
    return found;
  }
}
