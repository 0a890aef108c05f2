// A large file that is written from its beginning to its end as bytes come, beside the calling thread: node's pool writes and syncs it.
// Synced now and then, so that the end need not write gigabytes at once, for which the log's own syncs would wait. For a database that
// another member sends (server/snapshot-receipt.ts). Not for the log and not for LMDB.

import fs from 'node:fs';
import { streamFileBufferBytes, streamFileSyncBytes } from '../cluster-limits.ts';

export interface StreamFile {
  /** The bytes are the file's until they are written. False: enough is on its way, wait for `drained`. */
  write(bytes: Buffer): boolean;
  /** Set by the writer. */
  drained: (() => void) | null;
  /** After the last write. Everything is written and synced, the file is closed; or the first error there was. */
  end(done: (error: Error | null) => void): void;
  /** Nothing more is written, and nobody is told. Once it is closed `closed` is called. */
  abort(closed: () => void): void;
}

/** Creates the file, or empties it. */
export type OpenStreamFile = (path: string) => StreamFile;

export const openStreamFile: OpenStreamFile = (path) => new NodeStreamFile(path);

class NodeStreamFile implements StreamFile {
  drained: (() => void) | null = null;
  /** Null until it is open, and once it is closed. */
  #fd: number | null = null;
  #queue: Buffer[] = [];
  /** Of the queue. */
  #queuedBytes = 0;
  #position = 0;
  #unsyncedBytes = 0;
  /** A call of the pool is under way. */
  #isBusy = true;
  #isFull = false;
  #error: Error | null = null;
  #ended: ((error: Error | null) => void) | null = null;
  #aborted: (() => void) | null = null;

  constructor(path: string) {
    fs.open(path, 'w', 0o600, (error, fd) => {
      if (error === null) this.#fd = fd;
      this.#step(error);
    });
  }

  write(bytes: Buffer): boolean {
    // There is no use in the rest; end() tells why.
    if (this.#error !== null) return true;
    this.#queue.push(bytes);
    this.#queuedBytes += bytes.length;
    this.#isFull = this.#queuedBytes > streamFileBufferBytes;
    if (!this.#isBusy) this.#next();
    return !this.#isFull;
  }

  end(done: (error: Error | null) => void): void {
    this.#ended = done;
    if (!this.#isBusy) this.#next();
  }

  abort(closed: () => void): void {
    this.#aborted = closed;
    this.#queue = [];
    if (!this.#isBusy) this.#next();
  }

  /** The pool has done something. */
  #step(error: Error | null): void {
    this.#isBusy = false;
    if (error !== null) {
      this.#error ??= error;
      this.#queue = [];
      this.#queuedBytes = 0;
    }
    this.#next();
    if (this.#isFull && this.#queuedBytes <= streamFileBufferBytes / 2 && this.#aborted === null) {
      this.#isFull = false;
      this.drained?.();
    }
  }

  #next(): void {
    const fd = this.#fd;
    if (this.#aborted !== null || this.#error !== null || fd === null) this.#finish();
    else if (this.#queue.length > 0) this.#writeAll(fd);
    else if (this.#unsyncedBytes >= streamFileSyncBytes || (this.#ended !== null && this.#unsyncedBytes > 0)) {
      this.#isBusy = true;
      this.#unsyncedBytes = 0;
      fs.fdatasync(fd, (error) => this.#step(error));
    } else if (this.#ended !== null) this.#finish();
  }

  #writeAll(fd: number): void {
    const parts = this.#queue;
    const bytes = this.#queuedBytes;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#isBusy = true;
    fs.writev(fd, parts, this.#position, (error, written) => {
      this.#position += written;
      this.#unsyncedBytes += written;
      if (error === null && written < bytes) this.#putBack(parts, written);
      this.#step(error);
    });
  }

  /** The disk took a part: the rest comes first. */
  #putBack(parts: readonly Buffer[], written: number): void {
    let left = written;
    const rest: Buffer[] = [];
    for (const part of parts) {
      if (left < part.length) rest.push(part.subarray(left));
      left = Math.max(0, left - part.length);
    }
    this.#queue = [...rest, ...this.#queue];
    for (const part of rest) this.#queuedBytes += part.length;
  }

  /** Closes it and tells who waits for that. */
  #finish(): void {
    const tell = (): void => {
      const aborted = this.#aborted;
      const ended = this.#ended;
      this.#aborted = this.#ended = null;
      if (aborted !== null) aborted();
      else ended?.(this.#error);
    };
    const fd = this.#fd;
    if (fd === null) {
      tell();
      return;
    }
    // An error waits for somebody to tell it to.
    if (this.#aborted === null && this.#ended === null) return;
    this.#fd = null;
    this.#isBusy = true;
    fs.close(fd, (error) => {
      this.#error ??= error;
      this.#isBusy = false;
      tell();
    });
  }
}
