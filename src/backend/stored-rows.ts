// The rows of a database of etcd on their way into an empty one of ours: through the engine's own front door, as if they were applied
// again, so that its index, its counts and its notes on what compaction may delete are right by construction. For a snapshot that is
// restored by hand (cli/restore.ts) or that a leader has sent (snapshot-conversion.ts). Not its small buckets: those are copied.
//
// A row without a key is what etcdutl's --bump-revision leaves behind. It is kept, for the members' hashes must agree, but no
// index holds it; it is written in the same apply as a row that is indexed, so that no start will meet it as new: the one before it, or the
// one behind it where a compaction has taken all that were before.
//
// The file may be damaged or anybody's: what the engine's own changes cannot be is refused here, and not by its assertions.

import { assert } from '../base/assert.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import { isTombstoneKey, revisionMain, revisionSub } from '../snapshot/schema.ts';
import type { Backend } from './backend.ts';
import { newKeyState } from './index-delta.ts';
import { isOfRevision } from './index-row.ts';

/** Changes of one revision: the row log holds their numbers in 32 bits with a sign. */
const subMax: number = 2 ** 31 - 1;

/** Rows without a key before all others, which wait in memory: one for each --bump-revision in the life of a cluster. */
const unindexedMax = 1000;

/** Applies stored rows again. An apply ends before the next row that will be indexed, so the last one is still open at the end. */
export class StoredRows {
  readonly #backend: Backend;
  readonly #index: number;
  readonly #term: number;
  readonly #leftOut: (revision: number) => void;
  readonly #view = new KeyValueView();
  readonly #state = newKeyState();
  #lastMain = 0;
  /** Of the row before. */
  #main = 0;
  #sub = -1;
  #isIndexed = false;
  /** Without a key, before the first that has one. */
  #leading: { readonly main: number; readonly sub: number; readonly value: Buffer }[] = [];

  /** `index`, `term`: of every apply. `leftOut` hears of the rows without a key where there are no others. */
  constructor(backend: Backend, index: number, term: number, leftOut: (revision: number) => void) {
    this.#backend = backend;
    this.#index = index;
    this.#term = term;
    this.#leftOut = leftOut;
  }

  get lastRevision(): number {
    return this.#lastMain;
  }

  /** Behind the last row. */
  end(): void {
    for (const { main } of this.#leading) this.#leftOut(main);
  }

  /** False when the value is not the KeyValue of its revision, or the revision is not one behind that of the row before. */
  add(key: Buffer, value: Buffer): boolean {
    const view = this.#view;
    if (!view.parse(value, 0, value.length)) return false;
    const main = revisionMain(key);
    const sub = revisionSub(key);
    if (!this.#isNext(main, sub)) return false;
    const isTombstone = isTombstoneKey(key);
    if (view.keyEnd === view.keyStart) return !isTombstone && this.#addOrHoldUnindexed(main, sub, value);
    // A revision changes a key once, so there are no more versions than revisions.
    const isPut = isOfRevision(view, main) && view.version > 0 && view.version <= main;
    if (!isTombstone && !isPut) return false;
    if (main !== this.#lastMain && this.#isIndexed) this.#backend.endApply(this.#index, this.#term);
    this.#addIndexed(main, sub, isTombstone, value);
    return true;
  }

  /** Notes it. Behind the largest revision there would have to be room for another one. */
  #isNext(main: number, sub: number): boolean {
    if (main === 0 || main >= Number.MAX_SAFE_INTEGER || sub > subMax) return false;
    if (main < this.#main || (main === this.#main && sub <= this.#sub)) return false;
    this.#main = main;
    this.#sub = sub;
    return true;
  }

  #addIndexed(main: number, sub: number, isTombstone: boolean, value: Buffer): void {
    const { index } = this.#backend;
    const view = this.#view;
    const state = this.#state;
    // The change before may have been compacted away: then nothing is superseded.
    const isLive = index.get(value, view.keyStart, view.keyEnd, state);
    if (!this.#isIndexed) {
      for (const row of this.#leading) this.#append(row.main, row.sub, false, row.value, 0, 0);
      this.#leading = [];
    }
    const ordinal = this.#append(main, sub, isTombstone, value, isLive ? state.main : 0, isLive ? state.sub : 0);
    state.main = main;
    state.sub = sub;
    state.tombstone = isTombstone;
    state.createMain = view.createRevision;
    state.version = view.version;
    state.leaseHi = view.leaseHigh >>> 0;
    state.leaseLo = view.leaseLow >>> 0;
    state.ordinal = ordinal;
    index.restore(value, view.keyStart, view.keyEnd, state);
    this.#isIndexed = true;
  }

  #addOrHoldUnindexed(main: number, sub: number, value: Buffer): boolean {
    if (!this.#isIndexed && this.#leading.length === unindexedMax) return false;
    if (this.#isIndexed) this.addUnindexed(main, sub, value);
    else this.#leading.push({ main, sub, value: Buffer.from(value) });
    return true;
  }

  /** Behind a row that has a key. */
  addUnindexed(main: number, sub: number, value: Buffer): void {
    assert(this.#isIndexed, 'a row without a key, and no other one');
    this.#append(main, sub, false, value, 0, 0);
  }

  #append(main: number, sub: number, isTombstone: boolean, value: Buffer, oldMain: number, oldSub: number): number {
    const ordinal = this.#backend.appendRow(main, sub, isTombstone, value.length, oldMain, oldSub);
    value.copy(this.#backend.rowBuffer, this.#backend.rowOffset);
    this.#lastMain = main;
    return ordinal;
  }
}
