// Watches: hands each change to the watchers that want it, ordered, complete, once, all events of a revision together.
//
//   synced    has everything up to the current revision; gets new changes as they are applied
//   future    wants a revision that does not exist yet: waits until it does, then becomes unsynced
//   unsynced  behind (old start revision, or a client that did not read): catches up from the revision-ordered rows
//             (catch-up.ts). While its stream is blocked it is parked, where nobody looks at it.
//
// Changes of a turn are encoded into batches at commit and handed out by flush() at the turn's end, so a burst costs a response a
// watcher and not a response a put. Behaviour is that of etcd's watchable store.
//
// Hot path: flush(), a response for each of a thousand watchers. Budget: 0.2 us a response down to the connection's output, and
// nothing allocated; benchmark: bench/run.ts watch.

import { assert } from '../base/assert.ts';
import {
  watchCatchUpRows,
  watchCatchUpRowsMax,
  watchCatchUpSeenMax,
  watchCatchUpWatchersMax,
  watchGroupBodyBytesMax,
} from '../limits.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import { CatchUpPass, type Laggards } from './catch-up.ts';
import { BatchPool, type EventBatch, EventEncoder } from './event-batch.ts';
import type { RowRef, Storage } from './storage.ts';
import type { Store } from './store.ts';
import { WatchIndex } from './watch-index.ts';
import { EventFilter, type Recipient, type Watcher, WatcherState, WatchGroup, type WatchSink } from './watcher.ts';

/** Is told what is handed out: once for all that get the same, so that timing costs no clock reading a response. */
export interface HandOutObserver {
  /** Responses are going to be sent. */
  begin(): void;
  /** So many were sent since the last call, each with so many events. */
  sent(responseCount: number, eventCount: number): void;
}

const nobody: HandOutObserver = { begin: (): void => {}, sent: (): void => {} };

export class WatchHub {
  /** Events handed to streams, for etcd_debugging_mvcc_events_total. */
  eventsTotal = 0;
  watcherCount = 0;
  observer: HandOutObserver = nobody;

  private readonly store: Store;
  private readonly storage: Storage;
  private readonly encoder: EventEncoder;
  private readonly batches = new BatchPool();
  private readonly pass: CatchUpPass;
  /** The synced ones. */
  private readonly index: WatchIndex = new WatchIndex((recipient) => this.give(recipient));
  /** Those of the index that have a batch. */
  private readonly dirty: Recipient[] = [];
  private bodyBytes = 0;
  /** Synced, but in the index only when the events before it are handed out: which can end its stream. */
  private joining: Watcher | null = null;
  private readonly future = new Set<Watcher>();
  private futureMin = Infinity;
  /** The unsynced ones that are not parked, longest unserved first, and `changeCount` of when each was served. */
  private readonly unsynced = new Map<Watcher, number>();
  /** The unsynced ones of blocked streams, longest unserved first. */
  private readonly parked = new Map<WatchSink, Set<Watcher>>();
  private parkedCount = 0;
  /** Changes committed so far. */
  private changeCount = 0;
  // Of the change being handed to the index: fields instead of a closure a change.
  private readonly row: RowRef = { buffer: Buffer.alloc(0), start: 0, end: 0 };
  private readonly view = new KeyValueView();
  private changeMain = 0;
  private changeIsDelete = false;

  constructor(store: Store, storage: Storage) {
    this.store = store;
    this.storage = storage;
    this.encoder = new EventEncoder(store);
    this.pass = new CatchUpPass(storage, this.encoder, this.batches);
  }

  get unsyncedCount(): number {
    return this.unsynced.size + this.parkedCount;
  }

  /** True when catchUp() may have something to do. */
  get hasCatchUp(): boolean {
    return this.unsynced.size > 0;
  }

  add(watcher: Watcher): void {
    assert(watcher.state === WatcherState.gone, 'a watcher is added once');
    const current = this.store.currentRevision;
    const isSynced = watcher.startRevision === 0 || watcher.startRevision > current;
    watcher.minRevision = isSynced ? Math.max(current + 1, watcher.startRevision) : watcher.startRevision;
    this.watcherCount++;
    this.settle(watcher);
  }

  remove(watcher: Watcher): void {
    if (watcher.state === WatcherState.gone) return;
    if (watcher.state === WatcherState.synced) this.leave(watcher);
    else if (watcher.state === WatcherState.future) this.future.delete(watcher);
    else if (!this.unsynced.delete(watcher)) this.unpark(watcher);
    watcher.state = WatcherState.gone;
    this.watcherCount--;
  }

  /** Whether the watcher has everything up to now, its start included: only then may progress be told. */
  isSynced(watcher: Watcher): boolean {
    return watcher.state === WatcherState.synced && this.store.currentRevision >= watcher.startRevision;
  }

  /** The stream is not blocked any more: those of its watchers that are behind catch up. */
  resume(sink: WatchSink): void {
    const watchers = this.parked.get(sink);
    if (watchers === undefined) return;
    this.parked.delete(sink);
    this.parkedCount -= watchers.size;
    for (const watcher of watchers) this.unsynced.set(watcher, this.changeCount);
  }

  /** Puts the watcher where its minRevision belongs. */
  private settle(watcher: Watcher): void {
    const current = this.store.currentRevision;
    if (watcher.minRevision <= current) this.fallBehind(watcher);
    else if (watcher.minRevision > current + 1) {
      watcher.state = WatcherState.future;
      this.future.add(watcher);
      this.futureMin = Math.min(this.futureMin, watcher.minRevision);
    } else {
      watcher.state = WatcherState.synced;
      this.join(watcher);
    }
  }

  private fallBehind(watcher: Watcher): void {
    watcher.state = WatcherState.unsynced;
    if (watcher.sink.isBlocked) this.park(watcher);
    else this.unsynced.set(watcher, this.changeCount);
  }

  private park(watcher: Watcher): void {
    let watchers = this.parked.get(watcher.sink);
    if (watchers === undefined) {
      watchers = new Set();
      this.parked.set(watcher.sink, watchers);
    }
    watchers.add(watcher);
    this.parkedCount++;
  }

  private unpark(watcher: Watcher): void {
    const watchers = this.parked.get(watcher.sink);
    assert(watchers?.delete(watcher) === true, 'an unsynced watcher is in no list');
    this.parkedCount--;
    if (watchers.size === 0) this.parked.delete(watcher.sink);
  }

  private join(watcher: Watcher): void {
    let found = this.index.find(watcher);
    // What it holds from before belongs to the older watchers alone. Handing it out can end it.
    if (found !== null && found.batch !== null) {
      const { joining } = this;
      this.joining = watcher;
      this.flush();
      this.joining = joining;
      if (watcher.state !== WatcherState.synced) return;
      found = this.index.find(watcher);
    }
    if (found === null) {
      this.index.add(watcher);
    } else if (found instanceof WatchGroup) {
      enter(found, watcher);
    } else {
      const group = new WatchGroup(found);
      this.index.replace(found, group);
      enter(group, found as Watcher);
      enter(group, watcher);
    }
  }

  private leave(watcher: Watcher): void {
    const { group } = watcher;
    if (watcher === this.joining) return;
    if (group === null) {
      this.index.remove(watcher);
      return;
    }
    watcher.group = null;
    group.watchers.delete(watcher);
    if (group.watchers.size === 0) this.index.remove(group);
  }

  // --- New changes ---

  /** At the end of each write transaction: `changes` are the store's, by sub revision. */
  committed(main: number, changes: readonly number[]): void {
    this.changeCount += changes.length;
    if (!this.index.isEmpty) {
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
    this.index.visit(view.buffer.toString('latin1', view.keyStart, view.keyEnd));
  }

  private give(recipient: Recipient): void {
    const { filter } = recipient;
    if ((filter & (this.changeIsDelete ? EventFilter.noDelete : EventFilter.noPut)) !== 0) return;
    let { batch } = recipient;
    if (batch === null) {
      batch = this.batches.take(this.changeMain);
      recipient.batch = batch;
      this.dirty.push(recipient);
    }
    const before = batch.byteCount;
    const withPrevious = (filter & EventFilter.prevKv) !== 0;
    this.encoder.append(batch, this.row, this.view, this.changeMain, this.changeIsDelete, withPrevious);
    this.bodyBytes += batch.byteCount - before;
  }

  /** Hands out what the turn gathered. */
  flush(): void {
    const { dirty } = this;
    if (dirty.length === 0) return;
    const revision = this.store.currentRevision;
    this.observer.begin();
    for (let i = 0; i < dirty.length; i++) {
      const recipient = dirty[i]!;
      const batch = recipient.batch!;
      recipient.batch = null;
      batch.revision = revision;
      this.count(this.handOut(recipient, batch), batch);
      this.batches.give(batch);
    }
    dirty.length = 0;
    this.bodyBytes = 0;
  }

  /** Returns to how many. */
  private handOut(recipient: Recipient, batch: EventBatch): number {
    if (!(recipient instanceof WatchGroup)) return this.handTo(recipient as Watcher, batch) ? 1 : 0;
    let count = 0;
    for (const watcher of recipient.watchers) if (this.handTo(watcher, batch)) count++;
    return count;
  }

  private handTo(watcher: Watcher, batch: EventBatch): boolean {
    // Alone, it may have been removed since it got the batch.
    if (watcher.state !== WatcherState.synced) return false;
    if (watcher.sink.isBlocked) {
      this.leave(watcher);
      watcher.minRevision = batch.firstRevision;
      this.fallBehind(watcher);
      return false;
    }
    watcher.sink.sendEvents(watcher, batch);
    return true;
  }

  private count(responseCount: number, batch: EventBatch): void {
    if (responseCount === 0) return;
    this.eventsTotal += responseCount * batch.eventCount;
    this.observer.sent(responseCount, batch.eventCount);
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

  // --- Another state ---

  /**
   * The store's state was replaced by a later one, of which no change was committed here: those that had everything up to
   * `previousRevision` catch up from there. Before it, what was gathered must have been handed out. Nobody's lowest revision moves back.
   */
  restored(previousRevision: number): void {
    assert(this.dirty.length === 0, 'events of the state before were not handed out');
    this.changeCount += this.store.currentRevision - previousRevision;
    const synced: Watcher[] = [];
    for (const recipient of this.index.list()) {
      if (recipient instanceof WatchGroup) synced.push(...recipient.watchers);
      else synced.push(recipient as Watcher);
    }
    for (const watcher of synced) this.leave(watcher);
    for (const watcher of synced) {
      watcher.minRevision = Math.max(watcher.minRevision, previousRevision + 1);
      this.settle(watcher);
    }
    this.wakeFuture();
  }

  // --- Catching up ---

  /**
   * One bounded slice of catching up, for the watcher that has waited longest and for those that are about where it is. Returns
   * whether more is to be done now.
   */
  catchUp(): boolean {
    this.flush();
    const slice: Watcher[] = [];
    const servedAt = this.chooseSlice(slice);
    if (slice.length > 0) this.serve(slice, servedAt);
    return this.hasCatchUp;
  }

  /** Twice what was written since the watcher was last served, so that it gains on the writers, as far as a turn may take. */
  private rowsFor(servedAt: number): number {
    return Math.min(watchCatchUpRowsMax, Math.max(watchCatchUpRows, 2 * (this.changeCount - servedAt)));
  }

  /** Parks those of blocked streams, and cancels those behind the compaction. Returns when the slice's first was served. */
  private chooseSlice(slice: Watcher[]): number {
    let first: Watcher | null = null;
    let firstServedAt = 0;
    let revisionMax = 0;
    let seen = 0;
    for (const [watcher, servedAt] of this.unsynced) {
      if (watcher.sink.isBlocked) {
        this.unsynced.delete(watcher);
        this.park(watcher);
        continue;
      }
      if (watcher.minRevision < this.store.compactRevision) {
        this.remove(watcher);
        watcher.sink.sendCompacted(watcher, this.store.compactRevision);
        continue;
      }
      if (first === null) {
        first = watcher;
        firstServedAt = servedAt;
        revisionMax = watcher.minRevision + this.rowsFor(servedAt);
      }
      // One that is far behind must not hold up one that is nearly there: each is first in its turn.
      if (watcher.minRevision >= first.minRevision && watcher.minRevision <= revisionMax) slice.push(watcher);
      if (slice.length === watchCatchUpWatchersMax || ++seen === watchCatchUpSeenMax) break;
    }
    return firstServedAt;
  }

  private serve(slice: readonly Watcher[], servedAt: number): void {
    const { pass } = this;
    const current = this.store.currentRevision;
    let rowsLeft = this.rowsFor(servedAt);
    let behind = slice;
    // A pass ends at a bound in bytes; the next goes on for those whose client reads.
    while (behind.length > 0 && rowsLeft > 0) {
      const from = behind.reduce((least, watcher) => Math.min(least, watcher.minRevision), Infinity);
      pass.run(behind, from, current, rowsLeft);
      rowsLeft -= Math.max(1, pass.rowCount);
      this.observer.begin();
      for (const laggards of pass.laggards) this.advance(laggards, pass.reached, current);
      behind = behind.filter((watcher) => this.unsynced.has(watcher) && !watcher.sink.isBlocked);
    }
  }

  private advance(laggards: Laggards, reached: number, current: number): void {
    if (laggards.minRevision > reached) return;
    const { batch } = laggards;
    let responseCount = 0;
    if (batch !== null) batch.revision = current;
    for (const watcher of laggards.watchers) {
      // Sending to one may have closed its stream, which removes the others of that stream.
      if (watcher.state !== WatcherState.unsynced) continue;
      // It stays where it is, in front of those that were served.
      if (batch !== null && watcher.sink.isBlocked) continue;
      watcher.minRevision = reached + 1;
      this.unsynced.delete(watcher);
      this.settle(watcher);
      if (batch === null) continue;
      responseCount++;
      watcher.sink.sendEvents(watcher, batch);
    }
    if (batch === null) return;
    this.count(responseCount, batch);
    this.batches.give(batch);
  }

  // --- Invariants ---

  /** Costly: for tests. */
  checkInvariants(): void {
    let count = this.future.size + this.unsynced.size;
    for (const recipient of this.index.list()) {
      const watchers = recipient instanceof WatchGroup ? [...recipient.watchers] : [recipient as Watcher];
      assert(watchers.length > 0, 'an empty group is in the index');
      for (const { state, group } of watchers) {
        assert(state === WatcherState.synced, 'one in the index is not synced');
        assert(group === (recipient instanceof WatchGroup ? recipient : null), 'a watcher knows another group');
      }
      assert((recipient.batch !== null) === this.dirty.includes(recipient), 'a batch that flush() does not know');
      count += watchers.length;
    }
    let parkedCount = 0;
    for (const [sink, watchers] of this.parked) {
      assert(sink.isBlocked && watchers.size > 0, 'one that could be served is parked');
      for (const { state } of watchers) assert(state === WatcherState.unsynced, 'a parked one is not unsynced');
      parkedCount += watchers.size;
    }
    for (const { state } of this.unsynced.keys()) assert(state === WatcherState.unsynced, 'one behind is not unsynced');
    for (const { state, minRevision } of this.future) {
      assert(state === WatcherState.future && minRevision >= this.futureMin, 'a future one would not be woken');
    }
    assert(parkedCount === this.parkedCount, 'the parked ones are miscounted');
    assert(count + parkedCount === this.watcherCount, 'a watcher is nowhere, or in two places');
  }
}

function enter(group: WatchGroup, watcher: Watcher): void {
  group.watchers.add(watcher);
  watcher.group = group;
}
