// The memory map of an open LMDB environment as buffers of this thread, for lmdb-tree.ts. It reads no page itself and keeps
// none: which pages may be looked at, and for how long, is told there. Linux only; elsewhere, and wherever anything looks
// unexpected, there is no map and tables are read through the package.
//
// The package knows the map's address but does not tell it. It does give out one value as a buffer over the map, and an address
// of that; the range that /proc/self/maps lists around it is the map.
//
// Windows: V8 keeps typed arrays of 4 GB and more, but indexes beyond 31 bits are slow, so the map is seen through windows,
// made when a page in them is first asked for. They overlap, so that a value seldom crosses the end of one:
//
//   map       0        256 MiB   272 MiB   512 MiB   528 MiB
//   window 0  [---------|----------)
//   window 1            [--------------------|----------)        and so on
//
// What keeps this from ending the process:
// - Beyond the end of the file the map raises SIGBUS: only pages of whole length below it are handed out (the file never shrinks).
// - The map is read only: a write through a window raises SIGSEGV. Nobody gets a window but to read.
// - When the environment is closed its map goes: close() detaches the windows first, which then have no bytes.
// - No two windows begin at the same address, for V8 does not take two memories at one address: a map belongs to one environment,
//   and an environment that is opened a second time in a thread gets no map.

import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { endianness } from 'node:os';
import { assert } from '../base/assert.ts';
import { type LmdbWindows, lmdbMapBytes, lmdbPageBytes } from '../storage-limits.ts';
import { addon, type NativeStore } from './lmdb-package.ts';

/** A part of the map. Offsets in it: lmdb-tree.ts. */
export interface PageWindow {
  readonly buffer: Buffer;
  readonly view: DataView;
}

/** Where lmdb-tree.ts reads pages: of the map, or of a file's content in a test. */
export interface PageMap {
  readonly path: string;
  /** A page's window is page >>> windowShift: pages of the map have 27 bits. */
  readonly windowShift: number;
  /** Whether the file has the whole page. */
  has(page: number): boolean;
  /** The window that has the page, at (page mod 2^windowShift) * lmdbPageBytes. */
  window(page: number): PageWindow;
}

/** Addresses of the maps that this thread has windows on. */
const mapped = new Set<number>();
const metaMagic = 0xbeefc0de;

export class LmdbMap implements PageMap {
  readonly path: string;
  readonly windowShift: number;
  private readonly address: number;
  private readonly limits: LmdbWindows;
  private readonly descriptor: number;
  private pageCount = 0;
  private windows: (PageWindow | undefined)[] = [];
  private closed = false;

  /** The map of the environment, which has an entry `key` in its table of tables. Null where it cannot be had. */
  static of(root: NativeStore, path: string, key: Buffer, limits: LmdbWindows): LmdbMap | null {
    if (endianness() !== 'LE') return null;
    const found = findMap(root, key);
    if (found === null || mapped.has(found.address)) return null;
    let descriptor: number;
    try {
      descriptor = openSync(path, 'r');
    } catch {
      return null; // It was renamed: see isOf().
    }
    const map = new LmdbMap(path, descriptor, found.address, limits);
    if (map.isOf(found.inode)) return map;
    map.close();
    return null;
  }

  private constructor(path: string, descriptor: number, address: number, limits: LmdbWindows) {
    this.path = path;
    this.address = address;
    this.limits = limits;
    this.windowShift = Math.log2(limits.bytes / lmdbPageBytes);
    assert(Number.isInteger(this.windowShift), 'lmdb windows are no power of two of pages');
    this.descriptor = descriptor;
    mapped.add(address);
  }

  /** The path may be another file's by now: its length would say nothing about the map. */
  private isOf(inode: number): boolean {
    if (fstatSync(this.descriptor).ino !== inode || !this.has(1)) return false;
    return this.window(0).view.getUint32(24, true) === metaMagic;
  }

  has(page: number): boolean {
    if (page < this.pageCount) return true;
    // The flusher has made the file longer since, or the page is none.
    this.pageCount = Math.floor(fstatSync(this.descriptor).size / lmdbPageBytes);
    return page < this.pageCount;
  }

  window(page: number): PageWindow {
    const number = page >>> this.windowShift;
    return this.windows[number] ?? this.open(number);
  }

  private open(number: number): PageWindow {
    assert(!this.closed, 'lmdb map used after its close');
    const offset = number * this.limits.bytes;
    const bytes = Math.min(this.limits.bytes + this.limits.overlapBytes, lmdbMapBytes - offset);
    assert(bytes > 0, 'lmdb page beyond the map');
    const buffer = addon.createBufferForAddress(this.address + offset, bytes);
    assert(buffer.length === bytes, 'lmdb window of another length');
    const window = { buffer, view: new DataView(buffer.buffer, buffer.byteOffset, bytes) };
    this.windows[number] = window;
    return window;
  }

  /** Before the environment is closed. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const window of this.windows) if (window !== undefined) addon.detachBuffer(window.buffer.buffer);
    this.windows = [];
    this.pageCount = 0;
    mapped.delete(this.address);
    closeSync(this.descriptor);
  }
}

/** Null when it is not known. */
function findMap(root: NativeStore, key: Buffer): { readonly address: number; readonly inode: number } | null {
  // Leaves the key where the next call looks for it.
  if (root.getBinaryFast(key) === undefined) return null;
  const value = addon.getSharedByBinary(root.dbAddress, key.length);
  if (value === undefined || value.length !== root.lastSize) return null;
  const inside = addon.getBufferAddress(value);
  addon.detachBuffer(value.buffer);
  let lines: string;
  try {
    lines = readFileSync('/proc/self/maps', 'latin1');
  } catch {
    return null; // No such file outside of Linux.
  }
  for (const line of lines.split('\n')) {
    // Of a file, from its beginning on: start-end permissions offset device inode.
    const found = /^([0-9a-f]+)-([0-9a-f]+) r\S+ 0+ \S+ (\d+)/.exec(line);
    if (found === null) continue;
    const address = Number.parseInt(found[1]!, 16);
    const end = Number.parseInt(found[2]!, 16);
    if (inside < address || inside >= end) continue;
    return end - address === lmdbMapBytes ? { address, inode: Number(found[3]) } : null;
  }
  return null;
}
