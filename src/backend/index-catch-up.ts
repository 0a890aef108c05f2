// Brings the index tables of a defragmented copy up to its rows: rows above the copy's indexed revision become a delta, which is merged,
// and again until the revision that is asked for. The same as a start's recovery and the merges after it, in bounded slices of
// the flusher and without a core. A merge that the copy holds a part of comes again as a whole: merges are idempotent.
//
//   read rows into a delta (up to mergeRows) ──▶ sort ──▶ merge slices ──▶ indexedRevision moves

import { assert } from '../base/assert.ts';
import type { WriteEnvironment, WriteTable } from '../io/table.ts';
import { encodeRevisionKey, revisionMain } from '../snapshot/schema.ts';
import { type BackendLimits, indexLimits } from '../storage-limits.ts';
import { Delta, type FrozenDelta } from './index-delta.ts';
import { mergeSlice } from './index-merge.ts';
import { IndexRow } from './index-row.ts';
import { type IndexTables, indexTables } from './index-tables.ts';

export class IndexCatchUp {
  /** All changes up to it are in the index tables. */
  indexedRevision: number;
  private readonly environment: WriteEnvironment;
  private readonly limits: BackendLimits;
  private readonly tables: IndexTables;
  private readonly rows: WriteTable;
  private readonly row: IndexRow = new IndexRow();
  private readonly delta: Delta;
  /** All rows up to it are in the tables or in the delta. */
  private readRevision: number;
  private merging: FrozenDelta | null = null;
  private mergeFrom = 0;

  constructor(environment: WriteEnvironment, indexedRevision: number, limits: BackendLimits) {
    this.environment = environment;
    this.limits = limits;
    this.indexedRevision = indexedRevision;
    this.readRevision = indexedRevision;
    this.tables = indexTables(environment);
    this.rows = environment.table('key');
    this.delta = new Delta(indexLimits, 0);
  }

  /** One slice on the way to `revision`, up to which all rows are there; true when it is reached. */
  step(revision: number, compactRevision: number): boolean {
    if (this.merging !== null) this.merge(this.merging, compactRevision);
    else if (this.readRevision >= revision && this.delta.changeCount === 0) this.indexedRevision = this.readRevision;
    else if (this.readRevision >= revision || this.delta.changeCount >= this.limits.indexLagEntriesMax) this.freeze();
    else this.read(revision);
    return this.merging === null && this.indexedRevision >= revision;
  }

  private read(revision: number): void {
    const { row, delta } = this;
    const { mergeSliceKeys, indexLagEntriesMax } = this.limits;
    if (delta.changeCount === 0) delta.order.defer();
    const end = Math.min(indexLagEntriesMax, delta.changeCount + mergeSliceKeys);
    let last = this.readRevision;
    let stopped = false;
    this.environment.refresh();
    const from = encodeRevisionKey(this.readRevision + 1, 0);
    this.rows.scan(from, encodeRevisionKey(revision + 1, 0), (key, value) => {
      const main = revisionMain(key);
      // A revision is in the delta whole or not at all.
      if (main !== last && delta.changeCount >= end) {
        stopped = true;
        return false;
      }
      row.read(key, value, 0, value.length);
      // What was live beneath matters to counts of a core, not to a merge.
      delta.record(value, row.keyStart, row.keyEnd, row.state, false);
      last = main;
      return true;
    });
    this.readRevision = stopped ? last : revision;
  }

  private freeze(): void {
    const { delta } = this;
    delta.order.settle();
    this.merging = delta.share(0);
    this.mergeFrom = 0;
  }

  private merge(delta: FrozenDelta, compactRevision: number): void {
    const { mergeSliceKeys } = this.limits;
    this.environment.transaction(() => {
      this.mergeFrom = mergeSlice(delta, this.mergeFrom, mergeSliceKeys, this.tables, compactRevision);
    });
    if (this.mergeFrom >= 0) return;
    this.merging = null;
    this.delta.reset();
    assert(this.readRevision >= this.indexedRevision, 'index catches up backwards');
    this.indexedRevision = this.readRevision;
  }
}
