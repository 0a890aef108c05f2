// A WAL writer for simulation whose work is done when the test says so: the records in between are in flight as on a slow
// disk. Takes the same steps on the disk as the real ones (WalFile of io/wal-writer.ts).

import { assert } from '../base/assert.ts';
import { FatalError } from '../base/fatal.ts';
import type { Disk } from '../io/file.ts';
import { WalFile, type WalRemoval, type WalRotation, type WalWriter, type WalWriterConfig } from '../io/wal-writer.ts';

export class DeferredWalWriter implements WalWriter {
  readonly #file: WalFile;
  readonly #config: WalWriterConfig;
  readonly #queue: (() => void)[] = [];
  #buffer: Buffer = Buffer.alloc(4096);
  #requested = 0;
  #completed = 0;
  #failed: FatalError | null = null;
  #armed = false;

  constructor(disk: Disk, config: WalWriterConfig) {
    this.#file = new WalFile(disk, config.path, config.fsync);
    this.#config = config;
  }

  get buffer(): Buffer {
    return this.#buffer;
  }

  /** Requests that are not done yet. */
  get pending(): number {
    return this.#queue.length;
  }

  reserve(used: number, bytes: number): void {
    if (used + bytes <= this.#buffer.length) return;
    const grown = Buffer.alloc((used + bytes) * 2);
    this.#buffer.copy(grown, 0, 0, used);
    this.#buffer = grown;
  }

  write(length: number, position: number, rotation: WalRotation | null): number {
    const buffer = this.#buffer;
    this.#buffer = Buffer.alloc(4096);
    this.#queue.push(() => {
      this.#file.write(buffer, length, position, rotation);
      this.#config.observer.write(this.#file.writeSeconds, length);
      this.#config.observer.fsync(this.#file.fsyncSeconds);
    });
    return ++this.#requested;
  }

  remove(removal: WalRemoval): number {
    this.#queue.push(() => this.#file.remove(removal));
    return ++this.#requested;
  }

  /** Does the oldest request, then wakes the log if it waits by message. A SimCrash passes through. */
  step(): void {
    const work = this.#queue.shift();
    assert(work !== undefined, 'there is WAL work to do');
    try {
      work();
      this.#completed++;
    } catch (error) {
      if (!(error instanceof FatalError)) throw error;
      this.#failed = error;
    }
    if (!this.#armed) return;
    this.#armed = false;
    this.#config.onWake();
  }

  completed(): number {
    if (this.#failed !== null) throw this.#failed;
    return this.#completed;
  }

  wait(sequence: number): boolean {
    if (this.completed() >= sequence) return true;
    this.#armed = true;
    return false;
  }

  close(): void {
    this.#file.close();
  }
}
