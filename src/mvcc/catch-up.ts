// One pass over the revision-ordered rows for watchers that are behind: from the lowest revision that one of them wants, up to a
// bound in rows and bytes, always to the end of a revision. Those that want the same events from the same revision on (a thousand
// that come back at once) share a batch.

import { assert } from '../base/assert.ts';
import { assertSound } from '../base/fatal.ts';
import { watchGroupBodyBytesMax } from '../limits.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import type { BatchPool, EventEncoder } from './event-batch.ts';
import type { RowRef, Storage } from './storage.ts';
import { EventFilter, Recipient, type Watcher } from './watcher.ts';

/** Watchers behind that are alike. */
export class Laggards extends Recipient {
  readonly minRevision: number;
  readonly watchers: Watcher[] = [];

  constructor(like: Watcher) {
    super(like.key, like.end, like.filter);
    this.minRevision = like.minRevision;
  }

  wants(main: number, isDelete: boolean): boolean {
    return main >= this.minRevision && (this.filter & (isDelete ? EventFilter.noDelete : EventFilter.noPut)) === 0;
  }

  isLike(watcher: Watcher): boolean {
    return this.end === watcher.end && this.filter === watcher.filter && this.minRevision === watcher.minRevision;
  }
}

export class CatchUpPass {
  /** Those who were behind, with their batches. A batch is null when there is nothing in it for them. */
  readonly laggards: Laggards[] = [];
  /** The last revision of which all rows were read. */
  reached = 0;
  rowCount = 0;
  private readonly storage: Storage;
  private readonly encoder: EventEncoder;
  private readonly batches: BatchPool;
  /** Of this pass, by their key; and those of a range once more. */
  private readonly byKey = new Map<string, Laggards[]>();
  private readonly ranged: Laggards[] = [];
  /** Of the row in hand. */
  private readonly hits: Laggards[] = [];
  private readonly view = new KeyValueView();
  private readonly row: RowRef = { buffer: Buffer.alloc(0), start: 0, end: 0 };
  private byteCount = 0;

  constructor(storage: Storage, encoder: EventEncoder, batches: BatchPool) {
    this.storage = storage;
    this.encoder = encoder;
    this.batches = batches;
  }

  /** Reads the rows of the revisions from `from` to `current` for `watchers`, as far as `rowsMax` and the bound in bytes allow. */
  run(watchers: readonly Watcher[], from: number, current: number, rowsMax: number): void {
    this.sort(watchers);
    this.rowCount = 0;
    this.byteCount = 0;
    let lastMain = from - 1;
    let isCut = false;
    this.storage.scanRows(from, current, (main, _sub, isDelete, buffer, start, end) => {
      // Cut only between revisions: a revision's events are never split.
      if (main !== lastMain && (this.rowCount >= rowsMax || this.byteCount > watchGroupBodyBytesMax)) {
        isCut = true;
        return false;
      }
      lastMain = main;
      this.rowCount++;
      this.offer(main, isDelete, buffer, start, end);
      return true;
    });
    this.reached = isCut ? lastMain : current;
  }

  private sort(watchers: readonly Watcher[]): void {
    this.laggards.length = 0;
    this.ranged.length = 0;
    this.byKey.clear();
    for (const watcher of watchers) {
      let sameKey = this.byKey.get(watcher.key);
      if (sameKey === undefined) {
        sameKey = [];
        this.byKey.set(watcher.key, sameKey);
      }
      let found = sameKey.find((laggards) => laggards.isLike(watcher));
      if (found === undefined) {
        found = new Laggards(watcher);
        sameKey.push(found);
        this.laggards.push(found);
        if (!found.isExact) this.ranged.push(found);
      }
      found.watchers.push(watcher);
    }
  }

  private offer(main: number, isDelete: boolean, buffer: Buffer, start: number, end: number): void {
    assertSound(this.view.parse(buffer, start, end), 'a row is no KeyValue');
    const key = buffer.toString('latin1', this.view.keyStart, this.view.keyEnd);
    const { hits } = this;
    hits.length = 0;
    for (const laggards of this.byKey.get(key) ?? none) {
      if (laggards.isExact && laggards.wants(main, isDelete)) hits.push(laggards);
    }
    for (const laggards of this.ranged) {
      if (laggards.wants(main, isDelete) && laggards.matches(key)) hits.push(laggards);
    }
    if (hits.length === 0) return;
    this.keepRow(buffer, start, end);
    for (const laggards of hits) this.give(laggards, main, isDelete);
  }

  /** The previous value is read while this row is in use, from the same tables: its bytes are copied. */
  private keepRow(buffer: Buffer, start: number, end: number): void {
    const copy = Buffer.from(buffer.subarray(start, end));
    assert(this.view.parse(copy, 0, copy.length), 'a row is no KeyValue');
    this.row.buffer = copy;
    this.row.start = 0;
    this.row.end = copy.length;
  }

  private give(laggards: Laggards, main: number, isDelete: boolean): void {
    const batch = laggards.batch ?? this.batches.take(main);
    laggards.batch = batch;
    const before = batch.byteCount;
    this.encoder.append(batch, this.row, this.view, main, isDelete, (laggards.filter & EventFilter.prevKv) !== 0);
    this.byteCount += batch.byteCount - before;
  }
}

const none: readonly Laggards[] = [];
