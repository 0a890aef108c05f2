// Messages that other members are posting and that have not come whole: their bytes, bounded over the whole peer port. Each is bounded by
// itself, but whoever knows the cluster's id may begin any number. When there are too many bytes the oldest message is given up: a member's
// comes whole in milliseconds, and one that is sent to take room does not. etcd has no such bound.
//
//   open ──append()──> takes room ──take()──> the message
//                          └──close(), or dropped for others──> nothing

import { assert } from '../base/assert.ts';
import { peerUnfinishedBytesInitial } from '../cluster-limits.ts';

const noBytes: Buffer = Buffer.alloc(0);

export class UnfinishedBodies {
  readonly #bytesMax: number;
  /** Those that have bytes, the oldest first. */
  readonly #bodies: Set<UnfinishedBody> = new Set();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Taken by all. */
  get bytes(): number {
    return this.#bytes;
  }

  /** `onDropped`: it was given up for others; called inside of the call that brought their bytes, or its own. */
  open(onDropped: () => void): UnfinishedBody {
    return new UnfinishedBody(this, onDropped);
  }

  /** Whether `body` may take so many bytes more: not when it is the oldest of too many, or too large by itself. */
  grow(body: UnfinishedBody, growth: number): boolean {
    for (const oldest of this.#bodies) {
      if (this.#bytes + growth <= this.#bytesMax) break;
      oldest.drop();
      if (oldest === body) return false;
    }
    if (this.#bytes + growth > this.#bytesMax) {
      body.drop();
      return false;
    }
    this.#bodies.add(body);
    this.#bytes += growth;
    return true;
  }

  shrink(body: UnfinishedBody, bytes: number): void {
    if (this.#bodies.delete(body)) this.#bytes -= bytes;
    assert(
      this.#bytes >= 0 && (this.#bytes === 0) === (this.#bodies.size === 0),
      'bodies are counted while they are there',
    );
  }
}

export class UnfinishedBody {
  readonly #all: UnfinishedBodies;
  readonly #onDropped: () => void;
  #buffer: Buffer = noBytes;
  #length = 0;
  #isOver = false;

  constructor(all: UnfinishedBodies, onDropped: () => void) {
    this.#all = all;
    this.#onDropped = onDropped;
  }

  get length(): number {
    return this.#length;
  }

  /** What has come so far, until the next call. */
  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  /** Of `expected` bytes in all, as far as is known. False: it is over, because there is no room. Memory is taken as bytes come. */
  append(chunk: Buffer, expected: number): boolean {
    if (this.#isOver) return false;
    if (chunk.length === 0) return true;
    const needed = this.#length + chunk.length;
    if (needed > this.#buffer.length && !this.#grow(needed, expected)) return false;
    chunk.copy(this.#buffer, this.#length);
    this.#length = needed;
    return true;
  }

  /** All of it, in memory of its size: entries live as long as the log has them. */
  take(): Buffer {
    const { bytes } = this;
    const whole = bytes.length === this.#buffer.length ? bytes : Buffer.from(bytes);
    this.close();
    return whole;
  }

  close(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#buffer.length > 0) this.#all.shrink(this, this.#buffer.length);
    this.#buffer = noBytes;
    this.#length = 0;
  }

  drop(): void {
    if (this.#isOver) return;
    this.close();
    this.#onDropped();
  }

  #grow(needed: number, expected: number): boolean {
    const doubled = Math.max(2 * this.#buffer.length, peerUnfinishedBytesInitial);
    const bytes = Math.max(needed, Math.min(doubled, expected));
    if (!this.#all.grow(this, bytes - this.#buffer.length)) return false;
    const grown = Buffer.allocUnsafeSlow(bytes);
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#buffer = grown;
    return true;
  }
}
