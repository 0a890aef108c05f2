// Watches: hands each change to the watchers that want it, ordered, complete, once, all events of a revision together.
//
//   synced    has everything up to the current revision; gets new changes as they are applied, by its group
//   future    wants a revision that does not exist yet: waits until it does, then becomes unsynced
//   unsynced  behind (old start revision, or a client that did not read): catches up from the revision-ordered rows
//
// Changes of a turn are encoded into the groups' bodies at commit and handed out by flush() at the turn's end, so a burst costs
// a response a watcher and not a response a put. Behaviour is that of etcd's watchable store.

import { assert } from '../base/assert.ts';
import { ByteWriter } from '../base/byte-writer.ts';
import { watchCatchUpRows, watchCatchUpWatchersMax, watchGroupBodyBytesMax } from '../limits.ts';
import { KeyValueView, keyValueLength, writeKeyValueHead } from '../proto/mvccpb.ts';
import { varintLength } from '../proto/wire.ts';
import { IntervalTree } from './interval-tree.ts';
import type { RowRef, Storage } from './storage.ts';
import type { Store } from './store.ts';
import { groupName, Watcher, type WatcherOptions, WatcherState, WatchGroup, type WatchSink } from './watcher.ts';

const EMPTY = Buffer.alloc(0);

export class WatchHub {
  /** Events handed to streams, for etcd_debugging_mvcc_events_total. */
  eventsTotal = 0;
  watcherCount = 0;

  private readonly store: Store;
  private readonly storage: Storage;
  private readonly groups = new Map<string, WatchGroup>();
  /** Groups of one key, by the key; at most one for each set of options. */
  private readonly exact = new Map<string, WatchGroup[]>();
  /** Ranges; groups of the same range with different options share an entry. */
  private readonly ranges = new IntervalTree<RangeEntry>();
  private readonly rangeEntries = new Map<string, RangeEntry>();
  private readonly dirty: WatchGroup[] = [];
  private readonly future = new Set<Watcher>();
  private readonly unsynced = new Set<Watcher>();
  private futureMin = Infinity;
  private changesSinceSlice = 0;
  private bodyBytes = 0;
  private readonly row: RowRef = { buffer: EMPTY, start: 0, end: 0 };
  private readonly previous: RowRef = { buffer: EMPTY, start: 0, end: 0 };
  private readonly view = new KeyValueView();
  private readonly tombstoneKey = new ByteWriter(256);
  // Of the change being handed to groups: fields instead of a closure a change.
  private changeMain = 0;
  private changeIsDelete = false;

  constructor(store: Store, storage: Storage) {
    this.store = store;
    this.storage = storage;
  }

  get unsyncedCount(): number {
    return this.unsynced.size;
  }

  /** True when catchUp() has something to do. */
  get hasCatchUp(): boolean {
    for (const watcher of this.unsynced) if (!watcher.sink.isBlocked) return true;
    return false;
  }

  add(sink: WatchSink, options: WatcherOptions): Watcher {
    const current = this.store.currentRevision;
    const isSynced = options.startRevision === 0 || options.startRevision > current;
    const minRevision = isSynced ? Math.max(current + 1, options.startRevision) : options.startRevision;
    const watcher = new Watcher(sink, options, minRevision);
    this.watcherCount++;
    this.settle(watcher);
    return watcher;
  }

  remove(watcher: Watcher): void {
    if (watcher.state === WatcherState.gone) return;
    this.unsettle(watcher);
    watcher.state = WatcherState.gone;
    this.watcherCount--;
  }

  /** Whether the watcher has everything up to now, its start included: only then may progress be told. */
  isSynced(watcher: Watcher): boolean {
    return watcher.state === WatcherState.synced && this.store.currentRevision >= watcher.startRevision;
  }

  /** Puts the watcher where its minRevision belongs. */
  private settle(watcher: Watcher): void {
    const current = this.store.currentRevision;
    if (watcher.minRevision <= current) {
      watcher.state = WatcherState.unsynced;
      this.unsynced.add(watcher);
    } else if (watcher.minRevision > current + 1) {
      watcher.state = WatcherState.future;
      this.future.add(watcher);
      this.futureMin = Math.min(this.futureMin, watcher.minRevision);
    } else {
      watcher.state = WatcherState.synced;
      this.join(watcher);
    }
  }

  private unsettle(watcher: Watcher): void {
    if (watcher.state === WatcherState.synced) this.leave(watcher);
    else if (watcher.state === WatcherState.future) this.future.delete(watcher);
    else this.unsynced.delete(watcher);
  }

  private join(watcher: Watcher): void {
    const name = groupName(watcher);
    let group = this.groups.get(name);
    // What the group holds from before belongs to the older watchers alone. Handing it out can end the group.
    if (group !== undefined && group.body !== null) {
      this.flush();
      group = this.groups.get(name);
    }
    if (group === undefined) {
      group = new WatchGroup(name, watcher);
      this.groups.set(name, group);
      this.indexGroup(group, watcher);
    }
    group.watchers.add(watcher);
    watcher.group = group;
  }

  private indexGroup(group: WatchGroup, watcher: Watcher): void {
    if (watcher.isExact) {
      const key = group.key.toString('latin1');
      const groups = this.exact.get(key);
      if (groups === undefined) this.exact.set(key, [group]);
      else groups.push(group);
      return;
    }
    const name = group.name.slice(1);
    let entry = this.rangeEntries.get(name);
    if (entry === undefined) {
      entry = { key: group.key, end: group.end, groups: [] };
      this.rangeEntries.set(name, entry);
      this.ranges.insert(entry);
    }
    entry.groups.push(group);
  }

  private leave(watcher: Watcher): void {
    const group = watcher.group;
    assert(group !== null, 'a synced watcher has no group');
    watcher.group = null;
    group.watchers.delete(watcher);
    if (group.watchers.size > 0) return;
    this.groups.delete(group.name);
    if (watcher.isExact) {
      const key = group.key.toString('latin1');
      const left = this.exact.get(key)!.filter((other) => other !== group);
      if (left.length === 0) this.exact.delete(key);
      else this.exact.set(key, left);
      return;
    }
    const name = group.name.slice(1);
    const entry = this.rangeEntries.get(name)!;
    entry.groups = entry.groups.filter((other) => other !== group);
    if (entry.groups.length > 0) return;
    this.rangeEntries.delete(name);
    this.ranges.remove(entry);
  }

  /** At the end of each write transaction: `changes` are the store's, by sub revision. */
  committed(main: number, changes: readonly number[]): void {
    if (this.unsynced.size > 0) this.changesSinceSlice += changes.length;
    if (this.groups.size > 0) {
      this.changeMain = main;
      for (let sub = 0; sub < changes.length; sub++) this.offer(main, sub, changes[sub]!);
      if (this.bodyBytes > watchGroupBodyBytesMax) this.flush();
    }
    if (main >= this.futureMin) this.wakeFuture();
  }

  private offer(main: number, sub: number, change: number): void {
    this.changeIsDelete = change < 0;
    const found = this.storage.readRow(main, sub, change < 0 ? -1 - change : change, this.row);
    assert(found, 'a change just made has no row');
    const view = this.view;
    assert(view.parse(this.row.buffer, this.row.start, this.row.end), 'a row is no KeyValue');
    if (this.exact.size > 0) {
      const groups = this.exact.get(view.buffer.toString('latin1', view.keyStart, view.keyEnd));
      if (groups !== undefined) for (const group of groups) this.give(group);
    }
    if (this.ranges.size > 0) this.ranges.stab(view.buffer, view.keyStart, view.keyEnd, this.giveEntry);
  }

  private readonly giveEntry = (entry: RangeEntry): void => {
    for (const group of entry.groups) this.give(group);
  };

  private give(group: WatchGroup): void {
    if (this.changeIsDelete ? group.noDelete : group.noPut) return;
    if (group.body === null) {
      group.body = new ByteWriter(1024);
      group.firstRevision = this.changeMain;
      group.eventCount = 0;
      this.dirty.push(group);
    }
    const before = group.body.length;
    this.writeEvent(group.body, this.changeMain, this.changeIsDelete, group.prevKv);
    group.eventCount++;
    this.bodyBytes += group.body.length - before;
  }

  /** Appends the change in `row` and `view` as a WatchResponse.events field. */
  private writeEvent(body: ByteWriter, main: number, isDelete: boolean, prevKv: boolean): void {
    const view = this.view;
    let kvBuffer = this.row.buffer;
    let kvStart = this.row.start;
    let kvEnd = this.row.end;
    if (isDelete) {
      // The stored tombstone is the key alone; the event's kv has the revision too.
      const scratch = this.tombstoneKey;
      scratch.reset();
      scratch.reserve(keyValueLength(view.keyEnd - view.keyStart, 0, main, 0, 0, 0, 0));
      kvEnd = writeKeyValueHead(scratch.bytes, 0, view.buffer, view.keyStart, view.keyEnd, 0, main, 0);
      kvBuffer = scratch.bytes;
      kvStart = 0;
    }
    const isCreate = !isDelete && view.createRevision === view.modRevision;
    let prevLength = -1;
    if (prevKv && !isCreate && this.store.at(view.buffer, view.keyStart, view.keyEnd, main - 1, this.previous)) {
      prevLength = this.previous.end - this.previous.start;
    }
    const kvLength = kvEnd - kvStart;
    let eventLength = (isDelete ? 2 : 0) + 1 + varintLength(kvLength) + kvLength;
    if (prevLength >= 0) eventLength += 1 + varintLength(prevLength) + prevLength;
    body.byte(0x5a);
    body.varint(eventLength);
    if (isDelete) {
      body.byte(0x08);
      body.byte(0x01);
    }
    body.bytesField(0x12, kvBuffer, kvStart, kvEnd);
    if (prevLength >= 0) body.bytesField(0x1a, this.previous.buffer, this.previous.start, this.previous.end);
  }

  /** Hands out what the turn gathered. */
  flush(): void {
    if (this.dirty.length === 0) return;
    const revision = this.store.currentRevision;
    for (let i = 0; i < this.dirty.length; i++) {
      const group = this.dirty[i]!;
      const body = group.body!;
      group.body = null;
      for (const watcher of group.watchers) {
        if (watcher.sink.isBlocked) {
          this.leave(watcher);
          watcher.minRevision = group.firstRevision;
          watcher.state = WatcherState.unsynced;
          this.unsynced.add(watcher);
        } else {
          watcher.minRevision = revision + 1;
          this.eventsTotal += group.eventCount;
          watcher.sink.sendEvents(watcher, revision, body.bytes, 0, body.length, group.eventCount);
        }
      }
    }
    this.dirty.length = 0;
    this.bodyBytes = 0;
  }

  private wakeFuture(): void {
    const current = this.store.currentRevision;
    this.futureMin = Infinity;
    for (const watcher of this.future) {
      if (watcher.minRevision <= current) {
        this.future.delete(watcher);
        this.settle(watcher);
      } else this.futureMin = Math.min(this.futureMin, watcher.minRevision);
    }
  }

  /**
   * One bounded slice of catching up: reads rows from the lowest revision that an unblocked unsynced watcher wants and gives
   * them to all watchers of the slice. Returns whether more is to be done now.
   */
  catchUp(): boolean {
    this.flush();
    const slice = this.chooseSlice();
    if (slice.length === 0) return false;
    let from = Infinity;
    for (const watcher of slice) from = Math.min(from, watcher.minRevision);
    const current = this.store.currentRevision;
    const reached = this.scanSlice(slice, from, current);
    for (const watcher of slice) {
      const body = watcher.catchUpBody;
      watcher.catchUpBody = null;
      // Sending to one may have closed its stream, which removes the others of that stream.
      if (watcher.state !== WatcherState.unsynced || watcher.minRevision > reached) continue;
      watcher.minRevision = reached + 1;
      if (reached >= current) {
        this.unsynced.delete(watcher);
        this.settle(watcher);
      }
      const eventCount = watcher.catchUpEventCount;
      watcher.catchUpEventCount = 0;
      if (body !== null) watcher.sink.sendEvents(watcher, current, body.bytes, 0, body.length, eventCount);
    }
    return this.hasCatchUp;
  }

  /** Up to a slice's number of watchers that can be written to; those behind the compaction are cancelled. */
  private chooseSlice(): Watcher[] {
    const slice: Watcher[] = [];
    for (const watcher of this.unsynced) {
      if (watcher.sink.isBlocked) continue;
      if (watcher.minRevision < this.store.compactRevision) {
        this.remove(watcher);
        watcher.sink.sendCompacted(watcher, this.store.compactRevision);
        continue;
      }
      slice.push(watcher);
      if (slice.length === watchCatchUpWatchersMax) break;
    }
    // Who had this slice goes to the end: those behind the bound have the next one.
    for (const watcher of slice) if (this.unsynced.delete(watcher)) this.unsynced.add(watcher);
    return slice;
  }

  /** Returns the last revision whose rows were all read. */
  private scanSlice(slice: readonly Watcher[], from: number, current: number): number {
    const exact = new Map<string, Watcher[]>();
    const ranged: Watcher[] = [];
    for (const watcher of slice) {
      if (!watcher.isExact) ranged.push(watcher);
      else {
        const key = watcher.key.toString('latin1');
        const others = exact.get(key);
        if (others === undefined) exact.set(key, [watcher]);
        else others.push(watcher);
      }
    }
    // Twice what was written since the last slice, so that catching up gains on the writers whatever their speed.
    const rowsMax = Math.max(watchCatchUpRows, 2 * this.changesSinceSlice);
    this.changesSinceSlice = 0;
    let rows = 0;
    let bytes = 0;
    let lastMain = from - 1;
    let isCut = false;
    this.storage.scanRows(from, current, (main, _sub, tombstone, buffer, start, end) => {
      // Cut only between revisions: a revision's events are never split.
      if (main !== lastMain && (rows >= rowsMax || bytes > watchGroupBodyBytesMax)) {
        isCut = true;
        return false;
      }
      lastMain = main;
      rows++;
      // The previous value is read while this row is in use, from the same tables: keep the row's bytes.
      const copy = Buffer.from(buffer.subarray(start, end));
      assert(this.view.parse(copy, 0, copy.length), 'a row is no KeyValue');
      this.row.buffer = copy;
      this.row.start = 0;
      this.row.end = copy.length;
      const { keyStart, keyEnd } = this.view;
      const hits = exact.size === 0 ? undefined : exact.get(copy.toString('latin1', keyStart, keyEnd));
      if (hits !== undefined) for (const watcher of hits) bytes += this.giveBehind(watcher, main, tombstone);
      for (const watcher of ranged) {
        if (watcher.matches(copy, keyStart, keyEnd)) bytes += this.giveBehind(watcher, main, tombstone);
      }
      return true;
    });
    return isCut ? lastMain : current;
  }

  private giveBehind(watcher: Watcher, main: number, isDelete: boolean): number {
    if (main < watcher.minRevision || (isDelete ? watcher.noDelete : watcher.noPut)) return 0;
    watcher.catchUpBody ??= new ByteWriter(1024);
    const before = watcher.catchUpBody.length;
    this.writeEvent(watcher.catchUpBody, main, isDelete, watcher.prevKv);
    watcher.catchUpEventCount++;
    this.eventsTotal++;
    return watcher.catchUpBody.length - before;
  }
}

interface RangeEntry {
  readonly key: Buffer;
  readonly end: Buffer | null;
  groups: WatchGroup[];
}
