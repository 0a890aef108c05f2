// Rows of a scan of the key index, looked up a lot at a time before its visitor asks for them: they lie in revision order, so one
// after the other each would wait for memory (io/lmdb-tree.ts, findAll). Only a hint: a row that is not here is found without it.
// Not a cache: it holds places in the read view of one scan and forgets them at its end.
//
// A scan shows the changes that it comes to next; whether the visitor wants their rows shows by its asking, and lots begin small
// and double, so that a scan without values pays nothing and one that stops soon little.
//
//   scan    lot() 0 . . lot() 2: show 7.0, 3.0 . . lot() 6: show ...
//   visitor       take 9.0          take 7.0, take 3.0            a key that changed since is not shown, its change is not here

import { assert } from '../base/assert.ts';
import { type ReadTable, type ValueRef, ValueRefs } from '../io/table.ts';
import { REVISION_KEY_BYTES, writeRevisionKey } from '../snapshot/schema.ts';
import { rowsAheadMax } from '../storage-limits.ts';

export class RowAhead {
  private readonly table: ReadTable;
  private scanning = false;
  /** Changes of the next lot. */
  private wanted = 0;
  // The lot: its changes, how many of them, how many were taken or passed over, and how many were looked up.
  private readonly mains: number[] = [];
  private readonly subs: number[] = [];
  private readonly keys: Buffer[] = [];
  private readonly keyViews: DataView[] = [];
  private count = 0;
  private next = 0;
  private found = 0;
  private readonly refs: ValueRefs = new ValueRefs();

  /** `table`: that of the rows. */
  constructor(table: ReadTable) {
    this.table = table;
    for (let i = 0; i < rowsAheadMax; i++) {
      const key = Buffer.alloc(REVISION_KEY_BYTES);
      this.keys.push(key);
      this.keyViews.push(new DataView(key.buffer, key.byteOffset, key.length));
    }
  }

  begin(): void {
    this.end();
    this.scanning = true;
  }

  end(): void {
    this.scanning = false;
    this.wanted = 0;
    this.clear();
  }

  private clear(): void {
    this.count = 0;
    this.next = 0;
    this.found = 0;
  }

  /** The scan asks how many changes to show; those shown before were visited. */
  lot(): number {
    this.clear();
    return this.wanted;
  }

  show(main: number, sub: number): void {
    const at = this.count++;
    assert(at < rowsAheadMax, 'more changes shown than asked for');
    this.mains[at] = main;
    this.subs[at] = sub;
  }

  /** The row of a change, as a scan's visitor reads them: false when it was not shown, or the table has none. Hot. */
  take(main: number, sub: number, out: ValueRef): boolean {
    if (!this.scanning) return false;
    if (this.wanted < rowsAheadMax) this.wanted = Math.min(rowsAheadMax, 2 * this.wanted + 2);
    // What comes before it was shown and not asked for. A change that was not shown passes nothing over.
    for (let at = this.next; at < this.count; at++) {
      if (this.mains[at] !== main || this.subs[at] !== sub) continue;
      if (at >= this.found && !this.findAll()) return false;
      this.next = at + 1;
      const { refs } = this;
      if (refs.found[at] !== true) return false;
      out.buffer = refs.buffers[at]!;
      out.start = refs.starts[at]!;
      out.end = refs.ends[at]!;
      return true;
    }
    return false;
  }

  private findAll(): boolean {
    const { count, mains, subs, keys } = this;
    for (let i = 0; i < count; i++) writeRevisionKey(keys[i]!, 0, mains[i]!, subs[i]!, false);
    if (!this.table.findAll(this.keyViews, count, this.refs)) {
      // It never will: nothing more is to be shown in this scan.
      this.scanning = false;
      this.wanted = 0;
      this.clear();
      return false;
    }
    this.found = count;
    return true;
  }
}
