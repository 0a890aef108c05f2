// Who carries the WAL's bytes to the disk, in order: the interface, the steps that every implementation takes on a Disk
// (WalFile), and the implementation that takes them on the calling thread. The one with a thread of its own is
// wal-thread.ts. Knows files and sync barriers, not records: the format is in src/wal/format.ts.
//
// A writer has two buffers. The caller fills `buffer` and hands it over by write(); it then gets the other one, which must be
// free: at most one write may be in flight. That rule is also what lets the reader tell a torn tail from damage.

import { assert } from '../base/assert.ts';
import { failpoint } from '../base/failpoint.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { walBufferBytes, walBufferBytesKeep, walRecordBytesMax } from '../storage-limits.ts';
import { type Disk, errorCode, writeFully } from './file.ts';

/** How the next segment comes into being, before the record that ends the current one is written. */
export interface WalRotation {
  /** A prepared file that becomes the segment; null: make one. */
  readonly from: string | null;
  /** Name for a file that has to be made, until its header is durable. */
  readonly temporary: string;
  readonly to: string;
  readonly directory: string;
  /** First bytes of the segment. */
  readonly header: Uint8Array;
  /** Size to extend a new file to. */
  readonly bytes: number;
}

/** A segment that is no longer needed: deleted, or kept under another name as the next one's file. */
export interface WalRemoval {
  readonly path: string;
  readonly recycleTo: string | null;
  readonly directory: string;
}

/** Receives the durations that etcd_disk_wal_{write,fsync}_duration_seconds show. */
export interface WalObserver {
  write(seconds: number, bytes: number): void;
  fsync(seconds: number): void;
}

export interface WalWriterConfig {
  /** The segment to append to; it exists. */
  readonly path: string;
  /** False: --unsafe-no-fsync. */
  readonly fsync: boolean;
  readonly observer: WalObserver;
  /** Something completed or failed that nobody was waiting for: look at completed(). Comes by message, on its own turn. */
  readonly onWake: () => void;
}

export type WalWriterFactory = (config: WalWriterConfig) => WalWriter;

export interface WalWriter {
  /** The buffer to fill. Replaced by reserve() and write(). */
  readonly buffer: Buffer;
  /** Makes room for `bytes` more after the first `used`, which are kept. */
  reserve(used: number, bytes: number): void;
  /** Hands the first `length` bytes over, to be written at `position` and synced. Returns a sequence number from 1. */
  write(length: number, position: number, rotation: WalRotation | null): number;
  remove(removal: WalRemoval): number;
  /** The last sequence number whose work is durable. Throws the FatalError that stopped the writer, every time. */
  completed(): number;
  /** Waits, at most `timeoutMs`. After false, onWake will be called when it is done. Throws as completed(). */
  wait(sequence: number, timeoutMs: number): boolean;
  /** Waits for what is in flight and closes the file. */
  close(): void;
}

/** An error of the disk under the WAL as what it means for the process. */
export function walFatal(error: unknown, doing: string): FatalError {
  if (error instanceof FatalError) return error;
  const code = errorCode(error);
  // Not from the disk, so a bug (or the simulated crash): it goes on as it is.
  if (code === '') throw error;
  const reason = error instanceof Error ? error.message : String(error);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new FatalError(
      ExitCode.diskFull,
      `wal: the disk is full while ${doing}: ${reason}; nothing acknowledged is lost: free space and start again`,
      { cause: error },
    );
  }
  return new FatalError(
    ExitCode.walWrite,
    `wal: failed ${doing}: ${reason}; what is acknowledged was synced before, the state of the rest is unknown: check the disk and start again`,
    { cause: error },
  );
}

/** The steps on the disk, and the file that is being appended to. Any error is final: it is not retried. */
export class WalFile {
  readonly #disk: Disk;
  readonly #fsync: boolean;
  #path: string;
  #fd: number;
  /** Of the last write(), for the observer. */
  writeSeconds = 0;
  fsyncSeconds = 0;

  constructor(disk: Disk, path: string, fsync: boolean) {
    this.#disk = disk;
    this.#fsync = fsync;
    this.#path = path;
    this.#fd = disk.open(path, 'write');
  }

  write(buffer: Buffer, length: number, position: number, rotation: WalRotation | null): void {
    let nextFd = -1;
    try {
      // The next segment is durable before the record that announces it, so a segment that ends with that record and has
      // no successor proves that a file was lost.
      if (rotation !== null) nextFd = this.#createNext(rotation);
      const started = performance.now();
      writeFully(this.#disk, this.#fd, buffer, 0, length, position);
      const written = performance.now();
      failpoint('walBeforeSync');
      if (this.#fsync) this.#disk.fdatasync(this.#fd);
      this.fsyncSeconds = (performance.now() - written) / 1000;
      this.writeSeconds = (written - started) / 1000;
    } catch (error) {
      throw walFatal(error, `writing ${length} bytes at offset ${position} of ${this.#path}`);
    }
    if (rotation !== null) {
      this.#disk.close(this.#fd);
      this.#fd = nextFd;
      this.#path = rotation.to;
    }
  }

  #createNext(rotation: WalRotation): number {
    const disk = this.#disk;
    const from = rotation.from ?? rotation.temporary;
    const fd = disk.open(from, rotation.from === null ? 'create' : 'write');
    if (rotation.from === null) disk.truncate(fd, rotation.bytes);
    writeFully(disk, fd, Buffer.from(rotation.header), 0, rotation.header.length, 0);
    if (this.#fsync) disk.fdatasync(fd);
    disk.rename(from, rotation.to);
    if (this.#fsync) disk.syncDirectory(rotation.directory);
    return fd;
  }

  remove(removal: WalRemoval): void {
    try {
      if (removal.recycleTo !== null) this.#disk.rename(removal.path, removal.recycleTo);
      else this.#disk.unlink(removal.path);
      // Each removal is durable before the next: two that reached the disk in the wrong order would look like a lost segment.
      if (this.#fsync) this.#disk.syncDirectory(removal.directory);
    } catch (error) {
      throw walFatal(error, `removing ${removal.path}`);
    }
  }

  close(): void {
    this.#disk.close(this.#fd);
  }
}

/** Bytes of a buffer that takes `bytes`: doubled, so that growing is rare. */
export function grownBufferBytes(current: number, bytes: number): number {
  assert(bytes <= walRecordBytesMax, 'a WAL record fits its bound');
  let grown = current;
  while (grown < bytes) grown *= 2;
  return grown;
}

/** Writes and syncs within write(): one durable write costs least, but a stalled disk stalls the caller. */
export class SyncWalWriter implements WalWriter {
  readonly #file: WalFile;
  readonly #observer: WalObserver;
  #buffer: Buffer = Buffer.allocUnsafeSlow(walBufferBytes);
  #sequence = 0;
  #failed: FatalError | null = null;

  constructor(disk: Disk, config: WalWriterConfig) {
    this.#file = new WalFile(disk, config.path, config.fsync);
    this.#observer = config.observer;
  }

  get buffer(): Buffer {
    return this.#buffer;
  }

  reserve(used: number, bytes: number): void {
    if (used + bytes <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafeSlow(grownBufferBytes(this.#buffer.length, used + bytes));
    this.#buffer.copy(grown, 0, 0, used);
    this.#buffer = grown;
  }

  write(length: number, position: number, rotation: WalRotation | null): number {
    if (this.#failed !== null) throw this.#failed;
    try {
      this.#file.write(this.#buffer, length, position, rotation);
    } catch (error) {
      throw this.#fail(error);
    }
    this.#observer.write(this.#file.writeSeconds, length);
    this.#observer.fsync(this.#file.fsyncSeconds);
    if (this.#buffer.length > walBufferBytesKeep) this.#buffer = Buffer.allocUnsafeSlow(walBufferBytes);
    return ++this.#sequence;
  }

  remove(removal: WalRemoval): number {
    if (this.#failed !== null) throw this.#failed;
    try {
      this.#file.remove(removal);
    } catch (error) {
      throw this.#fail(error);
    }
    return ++this.#sequence;
  }

  #fail(error: unknown): unknown {
    // Anything else than a FatalError is a bug or the simulated crash: it passes through as it is.
    if (error instanceof FatalError) this.#failed = error;
    return error;
  }

  completed(): number {
    if (this.#failed !== null) throw this.#failed;
    return this.#sequence;
  }

  wait(sequence: number): boolean {
    return this.completed() >= sequence;
  }

  close(): void {
    this.#file.close();
  }
}

/** A factory of writers that work on the calling thread, on any Disk. */
export function syncWriter(disk: Disk): WalWriterFactory {
  return (config) => new SyncWalWriter(disk, config);
}
