// The ordered, transactional tables that the storage engine stands on, as an interface: io/lmdb.ts implements it over LMDB,
// testing/memory-tables.ts as an atomically committing map for tests and simulation. Keys compare as unsigned bytes and are
// never empty. Not for the WAL: that is io/file.ts.

/** Where a value lies: buffer[start, end). */
export interface ValueRef {
  buffer: Buffer;
  start: number;
  end: number;
}

/** Where several values lie, in the order in which they were asked for. */
export class ValueRefs {
  readonly found: boolean[] = [];
  readonly buffers: Buffer[] = [];
  readonly starts: number[] = [];
  readonly ends: number[] = [];
}

/** Told of a walk's entries before they are visited. A walk need not tell. */
export interface WalkAhead {
  /** How many of the next entries to show, before they are visited; those that were shown before were. */
  lot(): number;
  show(value: Buffer, start: number, end: number): void;
}

/** One named table as a reader sees it: the state of the last refresh() of its environment. */
export interface ReadTable {
  /** The value, or undefined. Valid only until the next call on any table of the environment: copy it or use it at once. */
  get(key: Buffer): Buffer | undefined;
  /** As get(), but tells where the value lies: nothing is copied that can be read in place. Never write there. Hot. */
  find(key: Buffer, out: ValueRef): boolean;
  /**
   * Visits start <= key < end in ascending order (undefined: from the first, to the last), descending when `reverse`, until
   * `visit` returns false. Key and value are valid only inside the call of `visit`; `visit` may call get() on other tables.
   */
  scan(start: Buffer | undefined, end: Buffer | undefined, visit: ScanVisitor, reverse?: boolean): void;
  /**
   * As find() for the first `count` keys, each of which fills its view, at two thirds of the cost when they lie far apart; what it
   * finds is valid until the environment is refreshed or the turn ends. False when the table has no such way: nothing was done. Hot.
   */
  findAll(keys: readonly DataView[], count: number, out: ValueRefs): boolean;
  /** As an ascending scan(), but tells where key and value lie, as find() does. `visit` may also call find() and walk(). Hot. */
  walk(start: Buffer | undefined, end: Buffer | undefined, visit: EntryVisitor, ahead?: WalkAhead): void;
  /** Number of entries with start <= key < end, counted natively. */
  count(start: Buffer | undefined, end: Buffer | undefined): number;
  /** Number of entries, O(1). */
  entryCount(): number;
}

export type ScanVisitor = (key: Buffer, value: Buffer) => boolean;
export type EntryVisitor = (
  key: Buffer,
  keyStart: number,
  keyEnd: number,
  value: Buffer,
  valueStart: number,
  valueEnd: number,
) => boolean;

/** One named table inside a write transaction: reads see the transaction's own writes. */
export interface WriteTable extends ReadTable {
  put(key: Buffer, value: Buffer): void;
  /** Returns whether the key was there. */
  remove(key: Buffer): boolean;
}

/** The sizes of an environment in bytes: allocated pages, and those of them that are free. */
export interface EnvironmentSizes {
  readonly allocatedBytes: number;
  readonly freeBytes: number;
}

export interface ReadEnvironment {
  table(name: string): ReadTable;
  /** Moves this thread's read view to the newest commit. Nothing read before stays valid. */
  refresh(): void;
  sizes(): EnvironmentSizes;
  close(): void;
}

export interface WriteEnvironment extends ReadEnvironment {
  table(name: string): WriteTable;
  /** Runs `body` in one write transaction and commits it durably (synced) before it returns. A throw in `body` aborts. */
  transaction(body: () => void): void;
}
