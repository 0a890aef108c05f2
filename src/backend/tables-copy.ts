// Writes the tables of one pinned commit into an empty database, in slices: each page of the new file is full, since its entries
// come in their order. LMDB's own copy leaves out free pages only; after deletes here and there most of the space to gain is inside
// of pages, of which LMDB joins two only when one is less than a quarter full.

import type { ReadEnvironment, WriteEnvironment } from '../io/table.ts';
import type { BackendLimits } from '../storage-limits.ts';

export class TablesCopy {
  private readonly from: ReadEnvironment;
  private readonly to: WriteEnvironment;
  private readonly limits: BackendLimits;
  private readonly now: () => number;
  private readonly names: string[];
  /** The first key of the current table that is not copied; undefined: from its beginning. */
  private next: Buffer | undefined;

  constructor(
    from: ReadEnvironment,
    to: WriteEnvironment,
    names: readonly string[],
    limits: BackendLimits,
    now: () => number,
  ) {
    this.from = from;
    this.to = to;
    this.limits = limits;
    this.now = now;
    this.names = [...names];
  }

  /** One synced commit of at most commitBytes, or of jobStepMs; true when all is copied. */
  step(): boolean {
    const deadlineMs = this.now() + this.limits.jobStepMs;
    let room = this.limits.commitBytes;
    this.to.transaction(() => {
      while (this.names.length > 0 && room > 0 && this.now() < deadlineMs) room = this.copySome(room, deadlineMs);
    });
    return this.names.length === 0;
  }

  /** Returns what is left of the room. */
  private copySome(roomBytes: number, deadlineMs: number): number {
    const name = this.names[0]!;
    const target = this.to.table(name);
    let room = roomBytes;
    let entries = 0;
    let last: Buffer | undefined;
    this.from.table(name).scan(this.next, undefined, (key, value) => {
      target.put(key, value);
      room -= key.length + value.length;
      entries++;
      if (room > 0 && (entries % ENTRIES_PER_CLOCK_READ !== 0 || this.now() < deadlineMs)) return true;
      last = Buffer.concat([key, ZERO]);
      return false;
    });
    this.next = last;
    if (last === undefined) this.names.shift();
    return room;
  }
}

/** Entries take 1-2 us each. */
const ENTRIES_PER_CLOCK_READ = 500;
const ZERO: Buffer = Buffer.alloc(1);
