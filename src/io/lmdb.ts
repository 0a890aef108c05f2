// The tables of io/table.ts over LMDB (package lmdb 3.5.6, data format 2 with a chosen page size). The only user of that
// package. It is not a cache and not a queue: every call is synchronous, writes exist only inside transaction().
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
// Values are copied out of the map (the package's global buffer), so a value that is overwritten later cannot be torn.
// Measured (Node 26, 300 B values, 2-core machine): put 0.8 us, get 0.36 us, scan 0.9 us an entry, count 0.05 us an entry.

import { closeSync, fsyncSync, openSync, renameSync, rmSync, statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import { open } from 'lmdb';
import { assert } from '../base/assert.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { lmdbKeyBytesMax, lmdbMapBytes, lmdbPageBytes, lmdbReadersMax, lmdbTablesMax } from '../limits.ts';
import { checkLmdbFile } from './lmdb-file.ts';
import type {
  EnvironmentSizes,
  ReadEnvironment,
  ReadTable,
  ScanVisitor,
  WriteEnvironment,
  WriteTable,
} from './table.ts';

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
}

/** The parts of the package's store that are used here; its own types do not show all of them. */
interface NativeStat {
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
  readonly entryCount: number;
}
interface NativeTransaction {
  done(): void;
}
interface NativeIterator {
  next(): { done?: boolean; value?: unknown };
  return(): unknown;
}
interface NativeStore {
  /** The package calls it when a read view or a write transaction begins. */
  emit: (event: string) => void;
  readonly lastSize: number;
  readonly env: {
    stat(): NativeStat;
    freeStat(): NativeStat;
    info(): { lastPageNumber: number };
    readerCheck(): number;
  };
  readonly db: { stat(): NativeStat };
  openDB(name: string, options: object): NativeStore;
  getBinaryFast(key: Buffer, options?: object): Buffer | undefined;
  getRange(options: object): { iterate(): NativeIterator };
  getKeysCount(options: object): number;
  put(key: Buffer, value: Buffer): unknown;
  removeSync(key: Buffer): boolean;
  clearSync(): void;
  transactionSync(body: () => void): void;
  ensureReadTxn(): void;
  resetReadTxn(): void;
  useReadTransaction(): NativeTransaction;
  backup(path: string, compact: boolean): Promise<void>;
  close(): Promise<void>;
}

/** Where a running scan puts an entry: one for each depth of nesting, since visitors may scan and get themselves. */
interface ScanFrame {
  key: Buffer;
  keyLength: number;
  value: Buffer;
  valueLength: number;
}

const stagingBytes = 65536;
const FIRST_KEY: Buffer = Buffer.from([0]);

/** The buffer that values are put from: the package needs their address, which it cannot take of shared memory. */
type StagingBuffer = Buffer & { start: number; end: number };

let frameNow: ScanFrame = newFrame();

function newFrame(): ScanFrame {
  return { key: Buffer.allocUnsafeSlow(4096), keyLength: 0, value: Buffer.allocUnsafeSlow(4096), valueLength: 0 };
}

const keyEncoder = {
  writeKey(key: Buffer, target: Buffer, start: number): number {
    target.set(key, start);
    return start + key.length;
  },
  readKey(source: Buffer, start: number, end: number): undefined {
    frameNow.keyLength = source.copy(frameNow.key, 0, start, end);
    return undefined;
  },
};

const valueEncoder = {
  encode(value: Buffer): Buffer {
    return value;
  },
  decode(bytes: Buffer, length: number): undefined {
    if (frameNow.value.length < length) frameNow.value = Buffer.allocUnsafeSlow(length * 2);
    bytes.copy(frameNow.value, 0, 0, length);
    frameNow.valueLength = length;
    return undefined;
  },
};

const storeOptions = { encoding: 'binary', keyEncoder, encoder: valueEncoder } as const;

export class LmdbEnvironment implements WriteEnvironment {
  private root: NativeStore;
  private readonly stores = new Map<string, NativeStore>();
  private readonly tables = new Map<string, LmdbTable>();
  private readonly frames: ScanFrame[] = [];
  private readonly staging: StagingBuffer;
  private depth = 0;
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

  constructor(options: LmdbOptions) {
    this.filePath = options.path;
    this.noSync = options.noSync === true;
    this.trusted = options.trusted === true;
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
    const root = open({
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
      ...storeOptions,
    } as never) as unknown as NativeStore;
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

  /** Allocated pages of the file, and those that no table, nor the list of free pages itself, uses. */
  sizes(): EnvironmentSizes {
    this.root.ensureReadTxn();
    const env = this.root.env;
    let used = 2 + pagesOf(env.stat()) + pagesOf(env.freeStat());
    for (const store of this.stores.values()) used += pagesOf(store.db.stat());
    const allocated = env.info().lastPageNumber + 1;
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

  /** Copies the live pages of the newest commit to a new file, off this thread. The file is not synced. */
  copyCompact(path: string): Promise<void> {
    return this.root.backup(path, true);
  }

  /** Moves this thread, with all its tables, to the file at `path`. Nothing read before stays valid. */
  reopen(path: string): void {
    assert(!this.inTransaction, 'lmdb reopened inside a transaction');
    const old = this.root;
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
    void this.root.close();
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

  enterScan(): ScanFrame {
    let frame = this.frames[this.depth];
    if (frame === undefined) {
      frame = newFrame();
      this.frames.push(frame);
    }
    this.depth++;
    return frame;
  }

  leaveScan(): void {
    this.depth--;
  }

  get writing(): boolean {
    return this.inTransaction;
  }

  private fatal(what: string, error: unknown): FatalError {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof FatalError) return error;
    if (message.includes('MDB_CORRUPTED') || message.includes('MDB_PAGE_NOTFOUND')) {
      return new FatalError(ExitCode.backendCorrupt, `the database ${this.filePath} is damaged: ${message}`, {
        cause: error,
      });
    }
    if (message.includes('MDB_MAP_FULL') || this.diskIsFull()) {
      return new FatalError(ExitCode.diskFull, `the disk of ${this.filePath} is full: cannot ${what}: ${message}`, {
        cause: error,
      });
    }
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

/** A rename is durable when its folder is synced. */
function syncFolder(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Removes a database file and its lock file, if they exist. */
export function removeLmdb(path: string): void {
  rmSync(path, { force: true });
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

export class LmdbTable implements WriteTable {
  private readonly environment: LmdbEnvironment;
  private readonly name: string;
  private readonly options: { transaction: NativeTransaction } | undefined;
  private store: NativeStore;
  /** entryCount() in the view of that number; -1: not known. */
  private counted = 0;
  private countedView = -1;

  constructor(environment: LmdbEnvironment, name: string, transaction: NativeTransaction | undefined) {
    this.environment = environment;
    this.name = name;
    this.options = transaction === undefined ? undefined : { transaction };
    this.store = environment.store(name);
  }

  rebind(): void {
    this.store = this.environment.store(this.name);
    this.countedView = -1;
  }

  get(key: Buffer): Buffer | undefined {
    assert(key.length > 0 && key.length <= lmdbKeyBytesMax, 'lmdb key length');
    const bytes = this.store.getBinaryFast(key, this.options);
    if (bytes === undefined) return undefined;
    // The package's buffer is larger than its `length` says: everything but `length` would see the rest.
    return bytes.subarray(0, this.store.lastSize);
  }

  scan(start: Buffer | undefined, end: Buffer | undefined, visit: ScanVisitor, reverse = false): void {
    const environment = this.environment;
    const frame = environment.enterScan();
    const iterator = this.store.getRange(this.rangeOptions(start, end, reverse)).iterate();
    let ended = false;
    try {
      for (;;) {
        frameNow = frame;
        if (iterator.next().done === true) {
          ended = true;
          return;
        }
        if (!visit(frame.key.subarray(0, frame.keyLength), frame.value.subarray(0, frame.valueLength))) return;
      }
    } finally {
      if (!ended) iterator.return();
      environment.leaveScan();
    }
  }

  private rangeOptions(start: Buffer | undefined, end: Buffer | undefined, reverse: boolean): object {
    const options: Record<string, unknown> = { ...this.options };
    if (!reverse) {
      // Without it the package begins at a key of its own choice.
      options['start'] = start !== undefined && start.length > 0 ? start : FIRST_KEY;
      if (end !== undefined) options['end'] = end;
      return options;
    }
    // The package counts a reverse range from its upper bound: that one is exclusive here, the lower one inclusive.
    options['reverse'] = true;
    if (end !== undefined) {
      options['start'] = end;
      options['exclusiveStart'] = true;
    }
    if (start !== undefined && start.length > 0) {
      options['end'] = start;
      options['inclusiveEnd'] = true;
    } else {
      options['end'] = undefined;
    }
    return options;
  }

  count(start: Buffer | undefined, end: Buffer | undefined): number {
    if (start === undefined && end === undefined) return this.entryCount();
    return this.store.getKeysCount(this.rangeOptions(start, end, false));
  }

  entryCount(): number {
    if (this.options !== undefined) return this.store.getKeysCount(this.rangeOptions(undefined, undefined, false));
    this.store.ensureReadTxn();
    // The package builds an object for its answer: 2 us, on the path of every new key of the index.
    if (this.countedView !== this.environment.viewNumber) {
      this.counted = this.store.db.stat().entryCount;
      this.countedView = this.environment.viewNumber;
    }
    return this.counted;
  }

  put(key: Buffer, value: Buffer): void {
    assert(this.environment.writing, 'lmdb put outside of a transaction');
    assert(key.length > 0 && key.length <= lmdbKeyBytesMax, 'lmdb key length');
    this.countedView = -1;
    this.store.put(key, this.environment.stage(value));
  }

  remove(key: Buffer): boolean {
    assert(this.environment.writing, 'lmdb remove outside of a transaction');
    this.countedView = -1;
    return this.store.removeSync(key);
  }

  /** Removes all entries; used when a table is replaced whole. */
  clear(): void {
    assert(this.environment.writing, 'lmdb clear outside of a transaction');
    this.countedView = -1;
    this.store.clearSync();
  }
}

function pagesOf(stat: NativeStat): number {
  return stat.treeBranchPageCount + stat.treeLeafPageCount + stat.overflowPages;
}

/** Errors of the package carry LMDB's or the system's number as `code`; assertions and bugs of ours do not. */
function isLmdbError(error: unknown): boolean {
  return error instanceof Error && typeof (error as Error & { code?: unknown }).code === 'number';
}
