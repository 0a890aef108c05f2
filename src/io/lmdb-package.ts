// All that is used of the package lmdb 3.5.6, whose own types do not show all of it: the root store of an environment, the stores
// of its tables, and how keys and values go in and out of them. Nothing here knows what a table is for: that is lmdb.ts.

import * as lmdb from 'lmdb';

export interface NativeStat {
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
  readonly entryCount: number;
}
export interface NativeTransaction {
  done(): void;
}
export interface NativeIterator {
  next(): { done?: boolean; value?: unknown };
  return(): unknown;
}
export interface NativeStore {
  /** The package calls it when a read view or a write transaction begins. */
  emit: (event: string) => void;
  readonly lastSize: number;
  readonly dbAddress: number;
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
  close(): Promise<void>;
}

/** Where a running scan puts an entry: one for each depth of nesting, since visitors may scan and get themselves. */
export interface ScanFrame {
  key: Buffer;
  keyLength: number;
  value: Buffer;
  valueLength: number;
}

/** Of the package's native part. Addresses are numbers: they have 47 bits. */
export interface NativeAddon {
  /** The value of the key that getBinaryFast() was last called with, as a buffer over the map. */
  getSharedByBinary(storeAddress: number, keyBytes: number): Buffer | undefined;
  getBufferAddress(buffer: Buffer): number;
  createBufferForAddress(address: number, bytes: number): Buffer;
  detachBuffer(memory: ArrayBufferLike): void;
}

interface Package {
  open(options: object): NativeStore;
  readonly nativeAddon: NativeAddon;
  getLastTxnId(): number;
}

const all: Package = lmdb as unknown as Package;

export const addon: NativeAddon = all.nativeAddon;

/** Low half of the number of the transaction that wrote the page in which getBinaryFast() has just found its entry. */
export const getLastTxnId: () => number = all.getLastTxnId;

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

export const storeOptions: object = { encoding: 'binary', keyEncoder, encoder: valueEncoder };

/** Throws the package's error. */
export function openRoot(options: object): NativeStore {
  return all.open({ ...options, ...storeOptions });
}

/** The key of a named table in the table of tables, as the package writes it. */
export function recordKey(name: string): Buffer {
  return Buffer.from(`${name}\0`);
}

/** The frames of the scans that run, one inside the other. */
export class ScanFrames {
  private readonly frames: ScanFrame[] = [];
  private depth = 0;

  enter(): ScanFrame {
    let frame = this.frames[this.depth];
    if (frame === undefined) {
      frame = newFrame();
      this.frames.push(frame);
    }
    this.depth++;
    return frame;
  }

  leave(): void {
    this.depth--;
  }

  /** What the package reads next goes into this frame. */
  use(frame: ScanFrame): void {
    frameNow = frame;
  }
}
