// The storage engine's interface (mvcc/storage.ts) in plain maps and arrays, as simple as its meaning: every row by revision,
// every key with the list of its changes. For tests of the store and the watches; nothing here is fast. It is strict where the
// engine is allowed to be nasty: what an out-object does not promise is garbage, and bytes that live only until the next read
// are overwritten by it. Not the engine itself: src/backend has its own tests.

import { assert } from '../base/assert.ts';
import type { KeyIndexView, KeyState, KeyVisitor, RowRef, RowVisitor, Storage } from '../mvcc/storage.ts';

interface Change {
  readonly main: number;
  readonly sub: number;
  readonly tombstone: boolean;
  readonly createMain: number;
  readonly version: number;
  readonly leaseHi: number;
  readonly leaseLo: number;
  readonly ordinal: number;
}

interface Row {
  readonly main: number;
  readonly sub: number;
  readonly tombstone: boolean;
  /** The bytes with guards around them. */
  readonly memory: Buffer;
}

const GUARD_BYTES = 4;
const GUARD = 0xee;
const GARBAGE = -99;

export class ModelStorage implements Storage {
  readonly index: ModelIndex = new ModelIndex(this);
  rowBuffer: Buffer = Buffer.alloc(0);
  readonly rowOffset: number = GUARD_BYTES;
  /** The row that appendRow() announced and record() has not claimed yet: [main, sub, supersededMain, supersededSub]. */
  announced: readonly [number, number, number, number] | null = null;
  /** Rows whose ordinal is below are "in the tables": the index gives -1 for them, and their bytes live until the next read. */
  flushedBelow = 0;

  /** Rows that scanRows() has visited. */
  rowsScanned = 0;
  /** Revisions that reads hold, and compactions that wait for them. */
  private readonly pins: number[] = [];
  private readonly held: number[] = [];
  private rows: Row[] = [];
  private nextOrdinal = 0;
  private readonly byOrdinal = new Map<number, Row>();
  private readonly tableScratch = Buffer.alloc(1 << 20);

  get rowCount(): number {
    return this.rows.length;
  }

  appendRow(
    main: number,
    sub: number,
    tombstone: boolean,
    byteCount: number,
    supersededMain: number,
    supersededSub: number,
  ): number {
    assert(this.announced === null, 'a row is appended before the last one was recorded');
    const last = this.rows.at(-1);
    assert(last === undefined || last.main < main || (last.main === main && last.sub < sub), 'rows ascend');
    const row = { main, sub, tombstone, memory: Buffer.alloc(byteCount + 2 * GUARD_BYTES, GUARD) };
    this.rows.push(row);
    this.byOrdinal.set(this.nextOrdinal, row);
    this.rowBuffer = row.memory;
    this.announced = [main, sub, supersededMain, supersededSub];
    return this.nextOrdinal++;
  }

  readRow(main: number, sub: number, ordinal: number, out: RowRef): boolean {
    const row =
      ordinal >= 0 ? this.byOrdinal.get(ordinal) : this.rows.find((other) => other.main === main && other.sub === sub);
    if (row === undefined) return false;
    assert(row.main === main && row.sub === sub, 'an ordinal belongs to another revision');
    if (ordinal < 0) this.readIntoScratch(row, out);
    else {
      assert(ordinal >= this.flushedBelow, 'an ordinal of a row that was flushed');
      out.buffer = row.memory;
      out.start = GUARD_BYTES;
      out.end = row.memory.length - GUARD_BYTES;
      checkGuards(row);
    }
    return true;
  }

  /** Ends the views on table rows that were given out: any look into a table may do that, the index's too. */
  clobber(): void {
    this.tableScratch.fill(GUARD, 0, 4096);
  }

  private readIntoScratch(row: Row, out: RowRef): void {
    checkGuards(row);
    this.clobber();
    const byteCount = row.memory.copy(this.tableScratch, 7, GUARD_BYTES, row.memory.length - GUARD_BYTES);
    out.buffer = this.tableScratch;
    out.start = 7;
    out.end = 7 + byteCount;
  }

  scanRows(fromMain: number, toMain: number, visit: RowVisitor): void {
    const out: RowRef = { buffer: this.tableScratch, start: 0, end: 0 };
    for (const row of [...this.rows]) {
      if (row.main < fromMain || row.main > toMain) continue;
      this.rowsScanned++;
      this.readIntoScratch(row, out);
      if (!visit(row.main, row.sub, row.tombstone, out.buffer, out.start, out.end)) return;
    }
  }

  /** All rows go to the tables, as after the engine's flush and merge. */
  flush(): void {
    this.flushedBelow = this.nextOrdinal;
  }

  get pinned(): number {
    return this.pins.length;
  }

  pin(revision: number): void {
    this.pins.push(revision);
  }

  unpin(revision: number): void {
    const at = this.pins.indexOf(revision);
    assert(at !== -1, 'a revision is let go that was not pinned');
    this.pins.splice(at, 1);
    while (this.held.length > 0 && this.pins.every((pin) => pin >= this.held[0]!)) this.compact(this.held.shift()!);
  }

  /** Deletes what etcd's compaction to `revision` deletes, once no read needs it. */
  compact(revision: number): void {
    if (this.pins.some((pin) => pin < revision)) {
      this.held.push(revision);
      return;
    }
    const kept = this.index.compact(revision);
    this.rows = this.rows.filter((row) => row.main > revision || kept.has(`${row.main}_${row.sub}`));
  }
}

function checkGuards(row: Row): void {
  const { memory } = row;
  const tail = memory.subarray(memory.length - GUARD_BYTES);
  assert(
    [...memory.subarray(0, GUARD_BYTES), ...tail].every((byte) => byte === GUARD),
    'a row was written beyond its bounds',
  );
}

class ModelIndex implements KeyIndexView {
  private readonly storage: ModelStorage;
  /** Changes of each key (latin1), oldest first. */
  private readonly keys = new Map<string, Change[]>();

  constructor(storage: ModelStorage) {
    this.storage = storage;
  }

  get(key: Buffer, start: number, end: number, out: KeyState): boolean {
    return this.fill(this.keys.get(key.toString('latin1', start, end)), Infinity, out);
  }

  getAt(key: Buffer, start: number, end: number, atRevision: number, out: KeyState): boolean {
    return this.fill(this.keys.get(key.toString('latin1', start, end)), atRevision, out);
  }

  /** Into `out` the newest change up to the revision; what the interface does not promise for an older one is garbage. */
  private fill(changes: readonly Change[] | undefined, atRevision: number, out: KeyState): boolean {
    this.storage.clobber();
    const change = changes?.findLast(({ main }) => main <= atRevision);
    const isNewest = change !== undefined && change === changes!.at(-1);
    out.main = change?.main ?? 0;
    out.sub = change?.sub ?? GARBAGE;
    out.ordinal = change === undefined || change.ordinal < this.storage.flushedBelow ? -1 : change.ordinal;
    out.tombstone = change?.tombstone ?? false;
    const isLive = change !== undefined && !change.tombstone;
    out.createMain = isNewest && isLive ? change.createMain : GARBAGE;
    out.version = isNewest && isLive ? change.version : GARBAGE;
    out.leaseHi = isNewest && isLive ? change.leaseHi : GARBAGE;
    out.leaseLo = isNewest && isLive ? change.leaseLo : GARBAGE;
    return isLive;
  }

  record(key: Buffer, start: number, end: number, state: KeyState): void {
    const name = key.toString('latin1', start, end);
    let changes = this.keys.get(name);
    if (changes === undefined) {
      changes = [];
      this.keys.set(name, changes);
    }
    const before = changes.at(-1);
    const isLive = before !== undefined && !before.tombstone;
    const { announced } = this.storage;
    assert(announced !== null, 'a change is recorded without its row');
    const [main, sub, supersededMain, supersededSub] = announced;
    assert(main === state.main && sub === state.sub, 'a change and its row have different revisions');
    assert(supersededMain === (isLive ? before.main : 0), 'a row names the wrong superseded revision');
    assert(!isLive || supersededSub === before.sub, 'a row names the wrong superseded sub revision');
    assert(isLive || !state.tombstone, 'a key that is not live gets a tombstone');
    this.storage.announced = null;
    changes.push({ ...state });
  }

  scan(start: Buffer, end: Buffer | null, atRevision: number, visit: KeyVisitor): void {
    const from = start.toString('latin1');
    const to = end?.toString('latin1');
    const state: KeyState = { ...emptyState };
    const scratch = Buffer.alloc(1 << 16, GUARD);
    for (const name of [...this.keys.keys()].sort()) {
      if (name < from || (to !== undefined && name >= to)) continue;
      if (!this.fill(this.keys.get(name), atRevision, state)) continue;
      // At an older revision only where the row is: see the interface.
      if (atRevision !== Infinity) state.createMain = state.version = state.leaseHi = state.leaseLo = GARBAGE;
      this.keysScanned++;
      const keyEnd = 3 + scratch.write(name, 3, 'latin1');
      if (!visit(scratch, 3, keyEnd, state)) return;
    }
  }

  count(start: Buffer, end: Buffer | null, atRevision: number): number {
    let count = 0;
    this.scan(start, end, atRevision, () => {
      count++;
      return true;
    });
    return count;
  }

  /** As the engine after a restart: what is older takes a scan. */
  countFloor = 0;
  /** Keys that scan() has visited, for a count() too. */
  keysScanned = 0;

  liveKeyCount(): number {
    return this.count(Buffer.alloc(0), null, Infinity);
  }

  /** Each key keeps its newest change up to the revision, unless that is an older tombstone. Answers the revisions kept. */
  compact(revision: number): Set<string> {
    const kept = new Set<string>();
    for (const [name, changes] of this.keys) {
      const at = changes.findLastIndex(({ main }) => main <= revision);
      const newest = changes[at];
      const isGone = newest?.tombstone === true && newest.main < revision;
      const left = newest === undefined ? changes : changes.slice(isGone ? at + 1 : at);
      if (left.length === 0) this.keys.delete(name);
      else this.keys.set(name, left);
      for (const change of left) if (change.main <= revision) kept.add(`${change.main}_${change.sub}`);
    }
    return kept;
  }
}

const emptyState: KeyState = {
  main: 0,
  sub: 0,
  createMain: 0,
  version: 0,
  leaseHi: 0,
  leaseLo: 0,
  tombstone: false,
  ordinal: -1,
};
