// What both stream decoders are: bytes that come in chunks, cut into parts (a kind, a length, a message, an entry) whose size is known
// when they begin. A part that lies whole in a chunk is read there; one that doesn't is assembled first, in memory that is taken as
// the bytes come, so that a length alone costs none.

import { assert } from '../base/assert.ts';
import { peerAssemblyBytes } from '../cluster-limits.ts';
import { type Message, NO_BYTES } from '../raft/types.ts';

/** Reads the bytes of one connection. */
export interface StreamDecoder {
  /** No message is begun: the stream may end here. */
  readonly atBoundary: boolean;
  /**
   * Takes the next bytes and calls `visit` for each message that they complete; link heartbeats are passed over. Null, or why the
   * stream is of no use any more: then nothing may follow. The chunk must stay as it is, since messages refer to it.
   */
  push(chunk: Buffer, visit: (message: Message) => void): string | null;
}

/**
 * Entries refer to the chunk that they came in for as long as they are in the log. A socket's chunk is as large as what was read
 * (node cuts it to size), and the streams carry little but entries: nothing is wasted, and a copy for each batch would cost as much
 * again as the decoding. A small part of a large buffer (a slab, a read with many HTTP chunks) would keep the whole of it: beyond
 * this many times the chunk it is copied, once for all that is in it, 0.7 us for a single entry (append-stream.bench.ts).
 */
const CHUNK_WASTE_FACTOR = 2;

/** `chunk`, or a copy in memory of its own. */
function keepableChunk(chunk: Buffer): Buffer {
  if (chunk.buffer.byteLength <= chunk.length * CHUNK_WASTE_FACTOR) return chunk;
  const copy = Buffer.allocUnsafeSlow(chunk.length);
  chunk.copy(copy);
  return copy;
}

export abstract class PartDecoder implements StreamDecoder {
  /** Size of the part that comes next. */
  #partBytes: number;
  /** The beginning of it, when it does not lie whole in a chunk. */
  #assembly: Buffer = NO_BYTES;
  #filled = 0;
  #error: string | null = null;
  #pushing = false;

  protected constructor(firstPartBytes: number) {
    this.#partBytes = firstPartBytes;
  }

  /** Reads a part and says by expect() what follows, or by fail() that nothing does. */
  protected abstract takePart(bytes: Buffer, start: number, end: number, visit: (message: Message) => void): void;
  /** The next part begins a message. */
  protected abstract isFirstPart(): boolean;

  protected expect(partBytes: number): void {
    this.#partBytes = partBytes;
  }

  protected fail(error: string): void {
    this.#error = error;
  }

  get atBoundary(): boolean {
    return this.#filled === 0 && this.#error === null && this.isFirstPart();
  }

  push(chunk: Buffer, visit: (message: Message) => void): string | null {
    assert(this.#error === null, 'a stream goes on after its error');
    assert(!this.#pushing, 'a visitor pushes into its own stream');
    this.#pushing = true;
    const bytes = keepableChunk(chunk);
    let position = 0;
    while (this.#error === null) {
      if (this.#filled > 0) {
        position += this.#assemble(bytes, position);
        if (this.#filled < this.#partBytes) break;
        const whole = this.#assembly;
        this.#assembly = NO_BYTES;
        this.#filled = 0;
        this.takePart(whole, 0, whole.length, visit);
      } else if (this.#partBytes <= bytes.length - position) {
        const start = position;
        position += this.#partBytes;
        this.takePart(bytes, start, position, visit);
      } else if (position === bytes.length) break;
      else position += this.#assemble(bytes, position);
    }
    this.#pushing = false;
    return this.#error;
  }

  /** Adds to the part what there is of it; returns how many bytes that were. */
  #assemble(bytes: Buffer, position: number): number {
    const count = Math.min(this.#partBytes - this.#filled, bytes.length - position);
    const filled = this.#filled + count;
    if (filled > this.#assembly.length) {
      // Ends at the part's size: no memory is kept beside its bytes.
      const size = Math.min(this.#partBytes, Math.max(filled, this.#assembly.length * 2, peerAssemblyBytes));
      const grown = Buffer.allocUnsafeSlow(size);
      this.#assembly.copy(grown, 0, 0, this.#filled);
      this.#assembly = grown;
    }
    bytes.copy(this.#assembly, this.#filled, position, position + count);
    this.#filled = filled;
    return count;
  }
}
