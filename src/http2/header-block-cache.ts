// Remembers what recent header blocks decoded to. A gRPC client sends the same few bytes for each call of a method, all of
// them indexes: comparing them is ten times cheaper than decoding. An entry holds only as long as the dynamic table's
// generation, and only blocks that leave the table alone are entered, so a hit equals a decoding.

import type { RequestHead } from './request-head.ts';

const slotCount = 8;

interface Slot {
  readonly bytes: Buffer;
  readonly head: RequestHead;
}

export class HeaderBlockCache {
  private readonly slots: (Slot | null)[] = new Array<Slot | null>(slotCount).fill(null);
  private generation = -1;

  /** The head that these bytes decode to, or null when it is not known. */
  get(generation: number, buffer: Buffer, start: number, end: number): RequestHead | null {
    if (generation !== this.generation) return null;
    const slot = this.slots[slotOf(buffer, start, end)]!;
    if (slot === null) return null;
    const bytes = slot.bytes;
    if (bytes.length !== end - start) return null;
    for (let i = 0; i < bytes.length; i += 1) if (bytes[i] !== buffer[start + i]) return null;
    return slot.head;
  }

  /** `generation` is the table's, before and after the decoding. */
  put(generation: number, buffer: Buffer, start: number, end: number, head: RequestHead): void {
    if (generation !== this.generation) {
      this.slots.fill(null);
      this.generation = generation;
    }
    this.slots[slotOf(buffer, start, end)] = { bytes: Buffer.from(buffer.subarray(start, end)), head };
  }
}

/** Methods of a client differ in the index of :path, near the block's beginning. */
function slotOf(buffer: Buffer, start: number, end: number): number {
  const length = end - start;
  return (
    (length * 5 + buffer[end - 1]! + buffer[start + (length >> 1)]! * 3 + buffer[start + (length >> 2)]!) &
    (slotCount - 1)
  );
}
