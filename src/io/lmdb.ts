// The tables of io/table.ts over LMDB (package lmdb 3.5.6, data format 2 with a chosen page size). It is not a cache and not a queue:
// every call is synchronous, writes exist only inside transaction(). Parts: lmdb-table.ts a table, lmdb-package.ts all that is used of
// the package, lmdb-map.ts, lmdb-tree.ts and lmdb-page.ts the reading in place, lmdb-file.ts the checks before a file is opened,
// lmdb-guard.ts and lmdb-check.ts those of pages before LMDB's own code gets them.
//
// Rules that keep the file small, whole and fast (DESIGN.md section 3):
// - `overlappingSync: false`, no writemap, no noMetaSync: a commit is synced when transaction() returns.
// - A large fixed map: growing it would need every thread to stop. It is address space only; the file grows by use.
// - No iterator outlives a turn: scan() runs to its end inside the call.
// - Any error of LMDB inside a transaction is fatal (a full disk shows as EIO there; statfs tells it apart), since after it
//   LMDB refuses to begin another transaction and the package does not check that.
//
// Threads: each opens its own LmdbEnvironment on the same path; inside a process they share one native environment, found
// by inode. A read view belongs to its thread and ends by refresh() or by a timer of the package at the end of the turn.
//
// A mapped environment reads in place (lmdb-tree.ts), in the same read view, but inside of a transaction, and checks a damaged page
// where LMDB would follow it to anywhere. Without a map, and inside of a transaction, get() and scan() copy values out of it (the
// package's global buffer). The package alone writes.
// Measured (Node 26, 300 B values, 2-core machine): put 0.8 us, get 0.36 us, scan 0.9 us an entry, count 0.05 us an entry.

import { closeSync, fsyncSync, openSync, renameSync, rmSync, statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import { assert } from '../base/assert.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import {
  type LmdbWindows,
  lmdbMapBytes,
  lmdbPageBytes,
  lmdbReadersMax,
  lmdbTablesMax,
  lmdbWindows,
} from '../storage-limits.ts';
import { freeLater } from './file.ts';
import { checkLmdbFile } from './lmdb-file.ts';
import { LmdbGuard } from './lmdb-guard.ts';
import { LmdbMap } from './lmdb-map.ts';
import {
  getLastTxnId,
  type NativeStat,
  type NativeStore,
  type NativeTransaction,
  openRoot,
  recordKey,
  ScanFrames,
  storeOptions,
} from './lmdb-package.ts';
import { LmdbTable } from './lmdb-table.ts';
import { LmdbTree, TABLE_RECORD_BYTES } from './lmdb-tree.ts';
import type { EnvironmentSizes, ReadEnvironment, ReadTable, WriteEnvironment } from './table.ts';

export interface LmdbOptions {
  /** The data file; its lock file is the same with `-lock`. Its folder exists. */
  readonly path: string;
  /** --unsafe-no-fsync: commits are not synced. */
  readonly noSync?: boolean;
  /**
   * Another environment of this process has checked the file already. Needed wherever somebody may be writing: the check looks at
   * the file's size and at its metas, which then need not be of the same moment.
   */
  readonly trusted?: boolean;
  /** Reads go to the memory map. For one environment a thread on a file: others read through the package. */
  readonly mapped?: boolean;
  readonly windows?: LmdbWindows;
}

const stagingBytes = 65536;

/** The buffer that values are put from: the package needs their address, which it cannot take of shared memory. */
type StagingBuffer = Buffer & { start: number; end: number };

export class LmdbEnvironment implements WriteEnvironment {
  private root: NativeStore;
  private readonly stores = new Map<string, NativeStore>();
  private readonly tables = new Map<string, LmdbTable>();
  /** Of the scans that run in its tables. */
  readonly frames: ScanFrames = new ScanFrames();
  private readonly staging: StagingBuffer;
  /** Changes whenever what reads see may have changed. */
  viewNumber = 0;
  private readonly countView = (): void => {
    this.viewNumber++;
  };
  private inTransaction = false;
  private failed = false;
  private closed = false;
  private filePath: string;
  readonly noSync: boolean;
  private readonly trusted: boolean;
  private readonly mapped: boolean;
  private readonly windows: LmdbWindows;
  /** Undefined until it is asked for; null when there is none. */
  private memoryMap: LmdbMap | null | undefined;
  /** Undefined until the first transaction; null when there is nothing to guard, or no map. */
  private pageGuard: LmdbGuard | null | undefined;

  constructor(options: LmdbOptions) {
    this.filePath = options.path;
    this.noSync = options.noSync === true;
    this.trusted = options.trusted === true;
    this.mapped = options.mapped === true;
    this.windows = options.windows ?? lmdbWindows;
    const staging = Buffer.allocUnsafeSlow(stagingBytes);
    assert(staging.byteOffset === 0, 'lmdb staging buffer does not start at its memory');
    this.staging = Object.assign(staging, { start: 0, end: 0 });
    this.root = this.openRoot();
  }

  get path(): string {
    return this.filePath;
  }

  private openRoot(): NativeStore {
    if (!this.trusted) checkLmdbFile(this.filePath, lmdbMapBytes);
    const root = openRoot({
      path: this.filePath,
      noSubdir: true,
      pageSize: lmdbPageBytes,
      mapSize: lmdbMapBytes,
      maxDbs: lmdbTablesMax,
      maxReaders: lmdbReadersMax,
      overlappingSync: false,
      noSync: this.noSync,
      cache: false,
      permissionsMode: 0o600,
    });
    root.emit = this.countView;
    return root;
  }

  /** Opens or creates the named table. Creating commits: call it for all tables before readers of other threads start. */
  table(name: string): LmdbTable {
    let table = this.tables.get(name);
    if (table === undefined) {
      this.store(name);
      table = new LmdbTable(this, name, undefined);
      this.tables.set(name, table);
    }
    return table;
  }

  store(name: string): NativeStore {
    let store = this.stores.get(name);
    if (store === undefined) {
      assert(!this.inTransaction, 'lmdb table opened inside a transaction');
      try {
        store = this.root.openDB(name, { ...storeOptions });
      } catch (error) {
        throw this.fatal('open a table', error);
      }
      store.emit = this.countView;
      this.stores.set(name, store);
    }
    return store;
  }

  refresh(): void {
    this.root.resetReadTxn();
  }

  transaction(body: () => void): void {
    assert(!this.failed, 'lmdb transaction after a failed one');
    assert(!this.inTransaction, 'lmdb transaction inside a transaction');
    this.beginGuard();
    this.inTransaction = true;
    try {
      this.root.transactionSync(body);
    } catch (error) {
      if (!isLmdbError(error)) throw error;
      this.failed = true;
      throw this.fatal('write', error);
    } finally {
      this.inTransaction = false;
    }
  }

  private beginGuard(): void {
    const [name] = this.stores.keys();
    if (this.pageGuard === undefined && name !== undefined) {
      const map = this.mapFor(name);
      // It may have been made before this process wrote anything else: then all pages are its own.
      this.pageGuard = map === null ? null : new LmdbGuard(map);
    }
    this.pageGuard?.begin();
  }

  /** Of the transaction that runs; null outside of one. */
  get guard(): LmdbGuard | null {
    return this.inTransaction ? (this.pageGuard ?? null) : null;
  }

  /** Allocated pages of the file, and those that no table, nor the list of free pages itself, uses. */
  sizes(): EnvironmentSizes {
    const [used, allocated] = this.readNative(() => {
      this.root.ensureReadTxn();
      const env = this.root.env;
      let pages = 2 + pagesOf(env.stat()) + pagesOf(env.freeStat());
      for (const store of this.stores.values()) pages += pagesOf(store.db.stat());
      return [pages, env.info().lastPageNumber + 1] as const;
    });
    const free = Math.max(0, allocated - used);
    return { allocatedBytes: allocated * lmdbPageBytes, freeBytes: free * lmdbPageBytes };
  }

  /** A read view that stays at the present commit across turns, until its close(). Pages freed since cannot be reused
   * meanwhile: keep it short. */
  pin(): PinnedView {
    assert(!this.inTransaction, 'lmdb view pinned inside a transaction');
    this.refresh();
    return new PinnedView(this, this.root.useReadTransaction());
  }

  /** What the disk has left. */
  diskFreeBytes(): number {
    const stat = statfsSync(dirname(this.filePath));
    return stat.bavail * stat.bsize;
  }

  /** Moves this thread, with all its tables, to the file at `path`. Nothing read before stays valid. */
  reopen(path: string): void {
    assert(!this.inTransaction, 'lmdb reopened inside a transaction');
    const old = this.root;
    this.closeMap();
    // A copy that this process has written, entry by entry.
    this.pageGuard = null;
    this.filePath = path;
    this.root = this.openRoot();
    const names = [...this.stores.keys()];
    this.stores.clear();
    for (const name of names) this.store(name);
    for (const table of this.tables.values()) table.rebind();
    void old.close();
  }

  /** Renames the open file, and its lock file, over `path`, durably: the threads that have it open go on with it. */
  renameTo(path: string): void {
    renameSync(this.filePath, path);
    syncFolder(dirname(path));
    renameSync(`${this.filePath}-lock`, `${path}-lock`);
    this.filePath = path;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.closeMap();
    void this.root.close();
  }

  private closeMap(): void {
    this.memoryMap?.close();
    this.memoryMap = undefined;
  }

  // --- used by the tables ---

  stage(value: Buffer): Buffer {
    const length = value.length;
    if (length > stagingBytes) {
      if (!(value.buffer instanceof SharedArrayBuffer)) return value;
      const copy = Buffer.allocUnsafeSlow(length);
      value.copy(copy, 0, 0, length);
      return copy;
    }
    value.copy(this.staging, 0, 0, length);
    this.staging.end = length;
    return this.staging;
  }

  get writing(): boolean {
    return this.inTransaction;
  }

  /** For a table that reads the map; null when it has to read through the package. */
  tree(name: string): LmdbTree | null {
    const map = this.mapFor(name);
    return map === null ? null : new LmdbTree(map, name);
  }

  /** The same in a view that was pinned, in which it stays. */
  pinnedTree(name: string, key: Buffer, options: { readonly transaction: NativeTransaction }): LmdbTree | null {
    const tree = this.tree(name);
    if (tree !== null) this.beginTree(tree, key, options);
    return tree;
  }

  /** `name`: of any table that there is. */
  private mapFor(name: string): LmdbMap | null {
    if (!this.mapped || this.closed) return null;
    if (this.memoryMap === undefined) {
      this.memoryMap = LmdbMap.of(this.root, this.filePath, recordKey(name), this.windows);
    }
    return this.memoryMap;
  }

  /** Brings the tree to the read view. The call of LMDB that this is also makes the view one: the package is lazy there. */
  beginTree(tree: LmdbTree, key: Buffer, options?: { readonly transaction: NativeTransaction }): void {
    const record = this.readNative(() => this.root.getBinaryFast(key, options));
    if (record === undefined || this.root.lastSize !== TABLE_RECORD_BYTES) {
      throw this.damaged(`no record of the table ${key.toString('latin1', 0, key.length - 1)}`);
    }
    tree.begin(record, getLastTxnId());
  }

  /** What LMDB's own code still reads outside of transactions. */
  readNative<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      throw isLmdbError(error) ? this.fatal('read', error) : error;
    }
  }

  private damaged(what: string, cause?: unknown): FatalError {
    const message = `the database ${this.filePath} is damaged: ${what}; restore it from a snapshot`;
    return new FatalError(ExitCode.backendCorrupt, message, { cause });
  }

  private fatal(what: string, error: unknown): FatalError {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof FatalError) return error;
    if (damages.some((name) => message.includes(name))) return this.damaged(message, error);
    if (message.includes('MDB_MAP_FULL') || this.diskIsFull()) {
      return new FatalError(ExitCode.diskFull, `the disk of ${this.filePath} is full: cannot ${what}: ${message}`, {
        cause: error,
      });
    }
    // After another error of the transaction, or of the environment: of the disk, which is looked at first, or of its pages.
    if (/MDB_(BAD_TXN|PANIC|PROBLEM)/.test(message)) return this.damaged(message, error);
    return new FatalError(ExitCode.backendWrite, `cannot ${what} in the database ${this.filePath}: ${message}`, {
      cause: error,
    });
  }

  /** Fewer free blocks than a commit of ours may take: LMDB reports EIO for a short write. */
  private diskIsFull(): boolean {
    try {
      const stat = statfsSync(this.filePath);
      return stat.bavail * stat.bsize < 1024 * 1024;
    } catch {
      // The file system itself is gone: then it is not "full" but unwritable, which the caller reports.
      return false;
    }
  }
}

/** What LMDB says of pages that contradict themselves or each other. */
const damages: readonly string[] = [
  'MDB_CORRUPTED',
  'MDB_PAGE_NOTFOUND',
  'MDB_INVALID',
  'MDB_CURSOR_FULL',
  'MDB_PAGE_FULL',
  'MDB_INCOMPATIBLE',
  'MDB_VERSION_MISMATCH',
];

/** A rename is durable when its folder is synced. */
function syncFolder(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Renames a database that nobody has open, and its lock file, over another one that nobody has open, durably. */
export function replaceLmdb(from: string, to: string): void {
  freeLater(to, () => renameSync(from, to));
  syncFolder(dirname(to));
  // Of the old one: LMDB makes a new one where there is none.
  rmSync(`${to}-lock`, { force: true });
  rmSync(`${from}-lock`, { force: true });
}

/** Removes a database file and its lock file, if they exist. */
export function removeLmdb(path: string): void {
  freeLater(path, () => rmSync(path, { force: true }));
  rmSync(`${path}-lock`, { force: true });
}

export class PinnedView implements ReadEnvironment {
  private readonly environment: LmdbEnvironment;
  private transaction: NativeTransaction | null;

  constructor(environment: LmdbEnvironment, transaction: NativeTransaction) {
    this.environment = environment;
    this.transaction = transaction;
  }

  table(name: string): ReadTable {
    assert(this.transaction !== null, 'lmdb pinned view used after its close');
    return new LmdbTable(this.environment, name, this.transaction);
  }

  refresh(): void {
    assert(false, 'lmdb pinned view cannot be refreshed');
  }

  sizes(): EnvironmentSizes {
    return this.environment.sizes();
  }

  close(): void {
    this.transaction?.done();
    this.transaction = null;
  }
}

function pagesOf(stat: NativeStat): number {
  return stat.treeBranchPageCount + stat.treeLeafPageCount + stat.overflowPages;
}

/** Errors of the package carry LMDB's or the system's number as `code`; assertions and bugs of ours do not. */
function isLmdbError(error: unknown): boolean {
  return error instanceof Error && typeof (error as Error & { code?: unknown }).code === 'number';
}
