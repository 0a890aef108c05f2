// A range of keys as of a revision, in key order, out of four ordered sources: active delta over frozen delta over `live`,
// and for older revisions `dead`. Not re-entrant: the visitor may read rows, but not the index.
//
// The scan of `live` drives; the others (the side) are stepped in between, their smallest key compared with each entry once.
// `dead` cannot be scanned beside it, so a page of it is read ahead, of which those stay that were live at the revision, and `live` is
// scanned up to where that page ends. Pages begin small and double: a visitor that stops soon pays for little, and deleted keys
// that were not live at the revision bring no more than their page to read.

import { ByteWriter } from '../base/byte-writer.ts';
import type { EntryVisitor, WalkAhead } from '../io/table.ts';
import type { IndexLimits } from '../storage-limits.ts';
import { clearNewest, type Delta, type KeyState, newKeyState } from './index-delta.ts';
import { EntryReader } from './index-entry.ts';
import { compareBytes, KeyReader } from './index-key.ts';
import { OrderCursor } from './index-order.ts';
import type { TableReader } from './index-tables.ts';
import type { RowAhead } from './row-ahead.ts';

/** The key is `key[start, end)`; key and state are valid inside the call only. Return false to stop. */
export type KeyVisitor = (key: Buffer, start: number, end: number, state: KeyState) => boolean;

const NO_BYTES: Buffer = Buffer.alloc(0);
const NO_VISITOR: KeyVisitor = () => false;

/** A delta's part of the range. */
class DeltaSource {
  delta: Delta | null = null;
  present = false;
  /** Set while this source holds the side's smallest key. */
  atSide = false;
  id = 0;
  private readonly at: OrderCursor = new OrderCursor();
  private readonly last: OrderCursor = new OrderCursor();

  open(delta: Delta | null, start: Buffer, end: Buffer | null): void {
    this.delta = delta;
    this.present = false;
    if (delta === null) return;
    delta.order.lowerBound(start, 0, start.length, this.at);
    if (end === null) delta.order.endCursor(this.last);
    else delta.order.lowerBound(end, 0, end.length, this.last);
    this.settle();
  }

  step(): void {
    this.delta!.order.step(this.at);
    this.settle();
  }

  private settle(): void {
    const { at, last } = this;
    this.present = at.block < last.block || (at.block === last.block && at.at < last.at);
    if (this.present) this.id = this.delta!.order.idAt(at);
  }
}

/** Deleted keys that were live at the revision, read ahead. */
class DeadPage {
  count = 0;
  next = 0;
  readonly bytes: ByteWriter = new ByteWriter(4096);
  /** Of each key: where it ends in `bytes`, and its change at the revision. */
  readonly ends: number[] = [];
  readonly mains: number[] = [];
  readonly subs: number[] = [];

  clear(): void {
    this.count = 0;
    this.next = 0;
    this.bytes.reset();
  }

  get start(): number {
    return this.next === 0 ? 0 : this.ends[this.next - 1]!;
  }

  get end(): number {
    return this.ends[this.next]!;
  }
}

/** Entries of the first page of deleted keys. */
const DEAD_PAGE_FIRST = 16;

export class IndexScan {
  /** Entries of tables and deltas that were looked at, since the start: what scans cost. */
  looked = 0;
  private readonly reader: TableReader;
  /** Hears of the changes that the scan comes to: rows are looked up ahead. */
  private readonly rowAhead: RowAhead | null;
  private readonly ahead: WalkAhead | undefined;
  private readonly aheadEntry: EntryReader = new EntryReader();
  private readonly pageEntriesMax: number;
  private pageEntries = 0;
  private pageLooked = 0;
  private readonly state: KeyState = newKeyState();
  private readonly entry: EntryReader = new EntryReader();
  private readonly deadEntry: EntryReader = new EntryReader();
  private readonly key: KeyReader = new KeyReader();
  private readonly active: DeltaSource = new DeltaSource();
  private readonly frozen: DeltaSource = new DeltaSource();
  private readonly dead: DeadPage = new DeadPage();
  private deadAtSide = false;
  private atRev = 0;
  private stopped = false;
  private visitor: KeyVisitor = NO_VISITOR;
  /** The smallest key of the side. */
  private sidePresent = false;
  private sideBuffer: Buffer = NO_BYTES;
  private sideStart = 0;
  private sideEnd = 0;
  /** Where the next page of deleted keys begins: after the last key that was read, if the page was full. */
  private deadFrom: Buffer | null = null;

  constructor(reader: TableReader, limits: IndexLimits, rowAhead: RowAhead | null) {
    this.reader = reader;
    this.rowAhead = rowAhead;
    if (rowAhead !== null) this.ahead = { lot: () => rowAhead.lot(), show: this.onAhead };
    this.pageEntriesMax = limits.deadPageEntries;
  }

  /** Hot: 0.15 us an entry of `live`. */
  run(
    active: Delta,
    frozen: Delta | null,
    start: Buffer,
    end: Buffer | null,
    atRev: number,
    visitor: KeyVisitor,
  ): void {
    const { live, dead } = this.reader.tables;
    this.atRev = atRev;
    this.visitor = visitor;
    this.stopped = false;
    this.active.open(active, start, end);
    this.frozen.open(frozen, start, end);
    this.dead.clear();
    const tableEnd = end === null ? undefined : this.reader.bound(live, end, 0, end.length);
    const historic = atRev !== Number.POSITIVE_INFINITY && dead.entryCount() > 0;
    this.pageEntries = Math.min(DEAD_PAGE_FIRST, this.pageEntriesMax);
    let from: Buffer | null = start;
    while (from !== null && !this.stopped) {
      const until: Buffer | null = historic ? this.readDead(from, end) : null;
      this.settleSide();
      const scanEnd = until === null ? tableEnd : this.reader.bound(live, until, 0, until.length);
      live.walk(this.reader.bound(live, from, 0, from.length), scanEnd, this.onLive, this.ahead);
      this.drainDead();
      from = until;
    }
    while (!this.stopped && this.sidePresent) this.emitSide(false);
    this.visitor = NO_VISITOR;
  }

  private readonly onAhead = (value: Buffer, start: number, end: number): void => {
    const { aheadEntry } = this;
    aheadEntry.readNewest(value, start, end);
    if (aheadEntry.newestMain <= this.atRev) this.rowAhead?.show(aheadEntry.newestMain, aheadEntry.newestSub);
  };

  private readonly onLive: EntryVisitor = (tableKey, tableKeyStart, tableKeyEnd, value, valueStart, valueEnd) => {
    const { entry, key } = this;
    this.looked++;
    entry.read(value, valueStart, valueEnd);
    if (entry.long) key.set(value, entry.keyStart, entry.keyEnd);
    else key.read(tableKey, tableKeyStart, tableKeyEnd);
    while (this.sidePresent) {
      const order = compareBytes(this.sideBuffer, this.sideStart, this.sideEnd, key.buffer, key.start, key.end);
      if (order > 0) break;
      this.emitSide(order === 0);
      if (this.stopped) return false;
      if (order === 0) return true;
    }
    if (!this.reader.resolve(entry, this.atRev, this.state) || this.state.tombstone) return true;
    this.stopped = !this.visitor(key.buffer, key.start, key.end, this.state);
    return !this.stopped;
  };

  /** Emits what is left of the page: its keys lie before those of the next one. */
  private drainDead(): void {
    while (!this.stopped && this.dead.next < this.dead.count) this.emitSide(false);
  }

  /** Visits the side's smallest key, if it was live, and steps over it. `onEntry`: `live` stands at the same key. */
  private emitSide(onEntry: boolean): void {
    const { active, frozen, state, atRev } = this;
    this.looked++;
    let found = active.atSide && active.delta!.at(active.id, atRev, state);
    if (!found) found = frozen.atSide && frozen.delta!.at(frozen.id, atRev, state);
    if (!found && onEntry) found = this.reader.resolve(this.entry, atRev, state);
    if (!found && this.deadAtSide) {
      found = true;
      state.main = this.dead.mains[this.dead.next]!;
      state.sub = this.dead.subs[this.dead.next]!;
      state.tombstone = false;
      state.ordinal = -1;
      clearNewest(state);
    }
    if (found && !state.tombstone) {
      this.stopped = !this.visitor(this.sideBuffer, this.sideStart, this.sideEnd, state);
    }
    if (active.atSide) active.step();
    if (frozen.atSide) frozen.step();
    if (this.deadAtSide) this.dead.next++;
    this.settleSide();
  }

  /** Finds the smallest key of the side and which sources stand at it. */
  private settleSide(): void {
    const { active, frozen, dead } = this;
    active.atSide = false;
    frozen.atSide = false;
    this.deadAtSide = false;
    this.sidePresent = false;
    if (active.present) this.offerDelta(active);
    if (frozen.present) this.offerDelta(frozen);
    if (dead.next < dead.count && this.offer(dead.bytes.bytes, dead.start, dead.end)) this.deadAtSide = true;
  }

  private offerDelta(source: DeltaSource): void {
    const keys = source.delta!.keys;
    const { id } = source;
    if (this.offer(keys.slab(id), keys.start(id), keys.end(id))) source.atSide = true;
  }

  /** True when the key is the smallest so far or equals it. */
  private offer(buffer: Buffer, start: number, end: number): boolean {
    if (this.sidePresent) {
      const order = compareBytes(buffer, start, end, this.sideBuffer, this.sideStart, this.sideEnd);
      if (order > 0) return false;
      if (order < 0) {
        this.active.atSide = false;
        this.frozen.atSide = false;
      }
    }
    this.sidePresent = true;
    this.sideBuffer = buffer;
    this.sideStart = start;
    this.sideEnd = end;
    return true;
  }

  /** Reads a page of the deleted keys of [from, end) and keeps those that were live at the revision; returns where the next begins. */
  private readDead(from: Buffer, end: Buffer | null): Buffer | null {
    const { reader } = this;
    const table = reader.tables.dead;
    this.dead.clear();
    this.deadFrom = null;
    this.pageLooked = 0;
    const tableEnd = end === null ? undefined : reader.bound(table, end, 0, end.length);
    table.scan(reader.bound(table, from, 0, from.length), tableEnd, this.onDead);
    this.looked += this.pageLooked;
    this.pageEntries = Math.min(2 * this.pageEntries, this.pageEntriesMax);
    return this.takeDeadFrom();
  }

  private takeDeadFrom(): Buffer | null {
    return this.deadFrom;
  }

  private readonly onDead = (tableKey: Buffer, value: Buffer): boolean => {
    const { dead, deadEntry, key, state } = this;
    deadEntry.read(value);
    if (deadEntry.long) key.set(value, deadEntry.keyStart, deadEntry.keyEnd);
    else key.read(tableKey, 0);
    if (this.pageLooked++ === this.pageEntries) {
      this.deadFrom = Buffer.from(key.buffer.subarray(key.start, key.end));
      return false;
    }
    if (deadEntry.newestMain <= this.atRev) return true;
    if (!this.reader.resolve(deadEntry, this.atRev, state) || state.tombstone) return true;
    dead.bytes.copy(key.buffer, key.start, key.end);
    dead.ends[dead.count] = dead.bytes.length;
    dead.mains[dead.count] = state.main;
    dead.subs[dead.count] = state.sub;
    dead.count++;
    return true;
  };
}
