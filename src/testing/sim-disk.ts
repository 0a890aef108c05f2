// A disk in memory that is as treacherous as a real one is allowed to be: what was not synced may be lost or torn at a crash,
// names are durable only after syncDirectory, calls fail on request. Implements io/file.ts's Disk; used by tests of the
// durable parts and by the simulated cluster. Seeded: the same calls and the same seed give the same outcome.
//
// The model
//   - A write lands in the file's volatile content and in its list of unsynced writes. fdatasync moves the list into the
//     durable content. crash() applies of each unsynced write a random set of its 512-byte sectors, the last of them
//     possibly in part (bytes outside a write's range never change: "powersafe overwrite"); a size change is applied or not.
//   - A name's creation, removal or rename is pending until syncDirectory. crash() applies each pending change or not, on its
//     own, a rename whole.
//   - Directories are durable once mkdir returns.
//   - A failed fdatasync forgets the unsynced writes as a kernel may: a later successful one does not make them durable.
//   - `crashAfter` throws SimCrash out of the n-th changing call, before or in the middle of it; then call crash().

import { assert } from '../base/assert.ts';
import { type Disk, type DiskJob, type DiskLock, type DiskMode, diskError } from '../io/file.ts';
import type { Random } from '../io/random.ts';

const sectorBytes = 512;

interface Inode {
  volatile: Buffer;
  volatileSize: number;
  durable: Buffer;
  durableSize: number;
  /** In order. A truncation has no data. */
  unsynced: ({ position: number; data: Buffer } | { size: number })[];
}

/** A change of names that the directory's sync makes durable. */
interface NameChange {
  readonly remove: string | null;
  readonly add: { readonly path: string; readonly inode: Inode } | null;
}

/** Thrown where the simulated machine stops. */
export class SimCrash extends Error {
  override readonly name: string = 'SimCrash';
}

export type DiskCall = 'write' | 'fdatasync' | 'open' | 'read' | 'rename' | 'unlink' | 'truncate' | 'syncDirectory';

/** What a call is to do instead of succeeding; `short`: write so many bytes at most. */
export type DiskFault = { readonly error: string } | { readonly short: number } | null;

export class SimDisk implements Disk {
  readonly #random: Random;
  #names = new Map<string, Inode>();
  #durableNames = new Map<string, Inode>();
  #pendingNames: NameChange[] = [];
  #directories = new Set<string>(['', '/', '.']);
  #files = new Map<number, { path: string; inode: Inode; mode: DiskMode }>();
  #nextFd = 3;
  #locks = new Set<string>();
  /** Decides on each call; the default lets all succeed. */
  fault: (call: DiskCall, path: string, position: number, length: number) => DiskFault = () => null;
  /** Bytes that all files together may have before ENOSPC. */
  capacityBytes: number = Number.POSITIVE_INFINITY;
  /** Changing calls until SimCrash; infinite: never. */
  crashAfter: number = Number.POSITIVE_INFINITY;
  /** Changing calls so far. */
  changes = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  open(path: string, mode: DiskMode): number {
    this.#check('open', path, 0, 0);
    let inode = this.#names.get(path);
    if (mode === 'create') {
      this.#change();
      if (inode === undefined) {
        inode = { volatile: Buffer.alloc(0), volatileSize: 0, durable: Buffer.alloc(0), durableSize: 0, unsynced: [] };
        this.#names.set(path, inode);
        this.#pendingNames.push({ remove: null, add: { path, inode } });
      } else this.#truncate(inode, 0);
    }
    if (inode === undefined) throw diskError('ENOENT', `no such file, open '${path}'`);
    const fd = this.#nextFd++;
    this.#files.set(fd, { path, inode, mode });
    return fd;
  }

  close(fd: number): void {
    assert(this.#files.delete(fd), 'closes an open file');
  }

  read(fd: number, buffer: Buffer, offset: number, length: number, position: number): number {
    const { inode, path } = this.#file(fd);
    const fault = this.#check('read', path, position, length);
    const limit = fault === null ? length : Math.min(length, fault.short);
    const count = Math.max(0, Math.min(limit, inode.volatileSize - position));
    inode.volatile.copy(buffer, offset, position, position + count);
    return count;
  }

  write(fd: number, buffer: Buffer, offset: number, length: number, position: number): number {
    const { inode, path, mode } = this.#file(fd);
    assert(mode !== 'read', 'writes to a file opened for writing');
    const fault = this.#check('write', path, position, length);
    let count = fault === null ? length : Math.min(length, fault.short);
    const growth = Math.max(0, position + count - inode.volatileSize);
    const room = growth === 0 || this.capacityBytes === Infinity ? Infinity : this.capacityBytes - this.#usedBytes();
    if (growth > room) {
      count -= growth - room;
      if (count <= 0) throw diskError('ENOSPC', `no space left on device, write '${path}'`);
    }
    this.#change(() => this.#put(inode, Buffer.from(buffer.subarray(offset, offset + count)), position));
    this.#put(inode, Buffer.from(buffer.subarray(offset, offset + count)), position);
    return count;
  }

  #put(inode: Inode, data: Buffer, position: number): void {
    inode.volatile = grown(inode.volatile, position + data.length);
    data.copy(inode.volatile, position);
    inode.volatileSize = Math.max(inode.volatileSize, position + data.length);
    inode.unsynced.push({ position, data });
  }

  size(fd: number): number {
    return this.#file(fd).inode.volatileSize;
  }

  truncate(fd: number, bytes: number): void {
    const { inode, path } = this.#file(fd);
    this.#check('truncate', path, 0, bytes);
    this.#change();
    this.#truncate(inode, bytes);
  }

  #truncate(inode: Inode, bytes: number): void {
    inode.volatile = grown(inode.volatile, bytes);
    if (bytes < inode.volatileSize) inode.volatile.fill(0, bytes);
    inode.volatileSize = bytes;
    inode.unsynced.push({ size: bytes });
  }

  fdatasync(fd: number): void {
    const { inode, path } = this.#file(fd);
    try {
      this.#check('fdatasync', path, 0, 0);
    } catch (error) {
      inode.unsynced = [];
      throw error;
    }
    this.#change();
    for (const change of inode.unsynced) persist(inode, change);
    inode.unsynced = [];
  }

  rename(from: string, to: string): void {
    this.#check('rename', from, 0, 0);
    const inode = this.#names.get(from);
    if (inode === undefined) throw diskError('ENOENT', `no such file, rename '${from}'`);
    this.#change();
    this.#names.delete(from);
    this.#names.set(to, inode);
    this.#pendingNames.push({ remove: from, add: { path: to, inode } });
  }

  unlink(path: string): void {
    this.#check('unlink', path, 0, 0);
    if (!this.#names.has(path)) throw diskError('ENOENT', `no such file, unlink '${path}'`);
    this.#change();
    this.#names.delete(path);
    this.#pendingNames.push({ remove: path, add: null });
  }

  exists(path: string): boolean {
    return this.#names.has(path) || this.#directories.has(path);
  }

  readdir(directory: string): string[] {
    if (!this.#directories.has(directory)) throw diskError('ENOENT', `no such directory '${directory}'`);
    const names: string[] = [];
    for (const path of this.#names.keys()) {
      if (parent(path) === directory) names.push(path.slice(directory.length + 1));
    }
    return names.sort();
  }

  mkdir(directory: string): void {
    // Each level is durable before the next, as nodeDisk makes them; the one that a crash comes in is there or not.
    const missing: string[] = [];
    for (let level = directory; !this.#directories.has(level); level = parent(level)) missing.unshift(level);
    for (const level of missing) {
      this.#change(() => this.#directories.add(level));
      this.#directories.add(level);
    }
  }

  permissions(): number {
    return 0o700;
  }

  syncDirectory(directory: string): void {
    this.#check('syncDirectory', directory, 0, 0);
    this.#change();
    const left: NameChange[] = [];
    for (const change of this.#pendingNames) {
      if (parent(change.remove ?? change.add!.path) === directory) applyName(this.#durableNames, change);
      else left.push(change);
    }
    this.#pendingNames = left;
  }

  freeBytes(): number {
    return Math.max(0, this.capacityBytes - this.#usedBytes());
  }

  /** Done within the call; the callback too. */
  preallocate(path: string, bytes: number, done: (error: Error | null) => void): DiskJob {
    try {
      const fd = this.open(path, 'create');
      if (this.write(fd, Buffer.alloc(bytes), 0, bytes, 0) < bytes)
        throw diskError('ENOSPC', `no space, write '${path}'`);
      this.fdatasync(fd);
      this.close(fd);
      done(null);
    } catch (error) {
      if (error instanceof SimCrash) throw error;
      done(error instanceof Error ? error : new Error(String(error)));
    }
    return { cancel: () => {} };
  }

  lock(path: string): DiskLock | null {
    if (this.#locks.has(path)) return null;
    this.#change();
    this.#locks.add(path);
    const locks = this.#locks;
    return { release: () => locks.delete(path) };
  }

  /** The process dies: its files and locks are gone, the page cache is not. */
  kill(): void {
    this.#files = new Map();
    this.#locks = new Set();
  }

  /** The machine dies: see the model above. */
  crash(): void {
    this.kill();
    const random = this.#random;
    for (const change of this.#pendingNames) if (random.below(2) === 0) applyName(this.#durableNames, change);
    this.#pendingNames = [];
    this.#names = new Map(this.#durableNames);
    const inodes = new Set(this.#names.values());
    for (const inode of inodes) {
      for (const change of inode.unsynced) {
        if ('size' in change) {
          if (random.below(2) === 0) persist(inode, change);
        } else this.#tear(inode, change.position, change.data);
      }
      inode.unsynced = [];
      inode.volatile = Buffer.from(inode.durable);
      inode.volatileSize = inode.durableSize;
    }
  }

  /** Persists some of the sectors of a write: often all, a prefix or none, sometimes any set of them. */
  #tear(inode: Inode, position: number, data: Buffer): void {
    const random = this.#random;
    const mode = random.below(4);
    const prefix = mode === 0 ? data.length : mode === 1 ? random.below(data.length + 1) : mode === 2 ? 0 : -1;
    if (prefix >= 0) {
      if (prefix > 0) persist(inode, { position, data: data.subarray(0, prefix) });
      return;
    }
    let at = 0;
    while (at < data.length) {
      const end = Math.min(data.length, at + sectorBytes - ((position + at) % sectorBytes));
      if (random.below(2) === 0) persist(inode, { position: position + at, data: data.subarray(at, end) });
      at = end;
    }
  }

  /** Flips bits of a file, durably. */
  rot(path: string, position: number, mask: number): void {
    const inode = this.#names.get(path);
    assert(inode !== undefined && position < inode.volatileSize, 'rot is of bytes that exist');
    inode.volatile[position]! ^= mask;
    if (position < inode.durableSize) inode.durable[position]! ^= mask;
  }

  /** A file's whole content, as a process sees it. */
  content(path: string): Buffer {
    const inode = this.#names.get(path);
    if (inode === undefined) throw diskError('ENOENT', `no such file '${path}'`);
    return Buffer.from(inode.volatile.subarray(0, inode.volatileSize));
  }

  /** A new disk in the place of this one. */
  erase(): void {
    this.kill();
    this.#names = new Map();
    this.#durableNames = new Map();
    this.#pendingNames = [];
    this.#directories = new Set(['', '/', '.']);
  }

  /** Puts a file there, durably. */
  place(path: string, content: Buffer): void {
    const copy = (): Buffer => Buffer.from(content);
    const inode: Inode = {
      volatile: copy(),
      volatileSize: content.length,
      durable: copy(),
      durableSize: content.length,
      unsynced: [],
    };
    this.#directories.add(parent(path));
    this.#names.set(path, inode);
    this.#durableNames.set(path, inode);
  }

  #file(fd: number): { path: string; inode: Inode; mode: DiskMode } {
    const file = this.#files.get(fd);
    if (file === undefined) throw diskError('EBADF', `bad file descriptor ${fd}`);
    return file;
  }

  #usedBytes(): number {
    let bytes = 0;
    for (const inode of this.#names.values()) bytes += inode.volatileSize;
    return bytes;
  }

  #check(call: DiskCall, path: string, position: number, length: number): { readonly short: number } | null {
    const fault = this.fault(call, path, position, length);
    if (fault === null) return null;
    if ('error' in fault) throw diskError(fault.error, `injected, ${call} '${path}'`);
    return fault;
  }

  /** Counts a changing call; at the one that is to crash, `half` may still happen. */
  #change(half: () => void = () => {}): void {
    this.changes++;
    if (this.changes <= this.crashAfter) return;
    if (this.#random.below(2) === 0) half();
    throw new SimCrash('simulated crash of the machine');
  }
}

function parent(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}

function grown(buffer: Buffer, bytes: number): Buffer {
  if (bytes <= buffer.length) return buffer;
  const larger = Buffer.alloc(Math.max(bytes, buffer.length * 2));
  buffer.copy(larger);
  return larger;
}

function persist(inode: Inode, change: { position: number; data: Buffer } | { size: number }): void {
  if ('size' in change) {
    inode.durable = grown(inode.durable, change.size);
    if (change.size < inode.durableSize) inode.durable.fill(0, change.size);
    inode.durableSize = change.size;
    return;
  }
  const end = change.position + change.data.length;
  inode.durable = grown(inode.durable, end);
  change.data.copy(inode.durable, change.position);
  inode.durableSize = Math.max(inode.durableSize, end);
}

function applyName(names: Map<string, Inode>, change: NameChange): void {
  if (change.remove !== null) names.delete(change.remove);
  if (change.add !== null) names.set(change.add.path, change.add.inode);
}
