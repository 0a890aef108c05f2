// The database that a leader sends, on its way into a file: a temporary one that is synced, renamed and made durable in its folder before
// raft hears of the snapshot (etcd issue 22340: a crash must not leave a log that tells of a file which is not there). Nothing of it waits
// for the disk on this thread but the rename.

import { DiskBytes, readSnapshotFacts, snapshotMismatch } from '../backend/snapshot-conversion.ts';
import { snapshotSpaceCheckBytes, snapshotSpareBytes } from '../cluster-limits.ts';
import type { Disk } from '../io/file.ts';
import type { StreamFile } from '../io/stream-file.ts';
import type { SnapshotReceipt } from '../peer/peer-transport.ts';
import { arrivingPath, diskFailure, removeFile, type SnapshotDisk, snapshotPath } from './snapshot-files.ts';

interface ReceiptOptions {
  readonly files: SnapshotDisk;
  readonly directory: string;
  /** Of the last entry that it holds. */
  readonly index: number;
  readonly nowMs: () => number;
  /** It is whole and durable, or gone (null): the next one may come. */
  readonly ended: (saved: SavedSnapshot | null) => void;
}

/** What was saved, and how long that took: all of it, and its last sync. */
export interface SavedSnapshot {
  readonly bytes: number;
  readonly durationMs: number;
  readonly syncMs: number;
}

export class FileReceipt implements SnapshotReceipt {
  drained: (() => void) | null = null;
  private readonly options: ReceiptOptions;
  private readonly file: StreamFile;
  private readonly path: string;
  private bytes = 0;
  private checkedBytes = 0;
  /** Why the rest is not written. */
  private refusal: Error | null = null;
  private isOver = false;
  private readonly startMs: number;

  constructor(options: ReceiptOptions) {
    const { files, directory, index } = options;
    this.options = options;
    this.startMs = options.nowMs();
    this.path = arrivingPath(directory, index);
    this.checkSpace();
    this.file = files.openStreamFile(this.path);
    this.file.drained = () => this.drained?.();
  }

  write(bytes: Buffer): boolean {
    if (this.isOver || this.refusal !== null) return true;
    this.bytes += bytes.length;
    if (this.bytes - this.checkedBytes >= snapshotSpaceCheckBytes) this.checkSpace();
    return this.refusal !== null || this.file.write(bytes);
  }

  /** The database that is made of it is about as large as it is, and the old one is still there. */
  private checkSpace(): void {
    const { files, directory } = this.options;
    this.checkedBytes = this.bytes;
    const freeBytes = freeBytesOf(files.disk, directory);
    const neededBytes = this.bytes + snapshotSpareBytes;
    if (freeBytes >= neededBytes) return;
    this.refusal = new Error(
      `the disk has ${freeBytes} bytes left, a snapshot of ${this.bytes} or more needs ${neededBytes}`,
    );
  }

  end(done: (error: Error | null) => void): void {
    const { refusal } = this;
    if (refusal !== null) {
      this.abort();
      done(refusal);
      return;
    }
    const { nowMs } = this.options;
    const endMs = nowMs();
    this.file.end((error) => {
      if (this.isOver) return;
      let failure = error;
      try {
        if (failure === null) this.finish();
      } catch (thrown) {
        if (!(thrown instanceof Error)) throw thrown;
        failure = thrown;
      }
      this.isOver = true;
      if (failure !== null) removeFile(this.options.files.disk, this.path);
      const now = nowMs();
      const saved = { bytes: this.bytes, durationMs: now - this.startMs, syncMs: now - endMs };
      this.options.ended(failure === null ? saved : null);
      done(failure);
    });
  }

  /** It is written and synced. Throws what makes it useless. */
  private finish(): void {
    const { files, directory, index } = this.options;
    const { disk } = files;
    const file = new DiskBytes(disk, this.path);
    try {
      const facts = readSnapshotFacts(file);
      const reason = facts.ok ? snapshotMismatch(facts.value, index) : facts.error.reason;
      if (reason !== null) throw new Error(`the snapshot cannot be used: ${reason}`);
    } finally {
      file.close();
    }
    disk.rename(this.path, snapshotPath(directory, index));
    disk.syncDirectory(directory);
  }

  abort(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.file.abort(() => {
      removeFile(this.options.files.disk, this.path);
      this.options.ended(null);
    });
  }
}

function freeBytesOf(disk: Disk, directory: string): number {
  try {
    return disk.freeBytes(directory);
  } catch (error) {
    throw diskFailure(error, `the free space of ${directory} is not told`);
  }
}

/** Of a state that this member has already: its message tells the leader so, the bytes are nobody's. */
export class UnwantedReceipt implements SnapshotReceipt {
  drained: (() => void) | null = null;

  write(): boolean {
    return true;
  }

  end(done: (error: Error | null) => void): void {
    done(null);
  }

  abort(): void {}
}
