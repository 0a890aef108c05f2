// An answer that is a list of whatever length (a lease's keys, all leases), encoded slice by slice. The items are a copy: the answer
// is that of the moment it was asked for.

import type { ByteWriter } from '../base/byte-writer.ts';
import type { ReadSlice } from '../limits.ts';
import type { SlicedRead } from './big-reads.ts';

const REFERENCE_BYTES = 8;

export class ListRead<T> implements SlicedRead {
  readonly headerRevision: number;
  readonly heldBytes: number;
  private readonly items: readonly T[];
  private readonly write: (out: ByteWriter, item: T) => void;
  private readonly slice: ReadSlice;
  private next = 0;

  /** `write` appends one item. What stands before the list the caller has written. */
  constructor(
    headerRevision: number,
    items: readonly T[],
    write: (out: ByteWriter, item: T) => void,
    slice: ReadSlice,
  ) {
    this.headerRevision = headerRevision;
    this.items = items;
    this.heldBytes = items.length * REFERENCE_BYTES;
    this.write = write;
    this.slice = slice;
  }

  step(out: ByteWriter): boolean {
    const { items, slice } = this;
    const end = Math.min(items.length, this.next + slice.countKeys);
    const lengthMax = out.length + slice.bytes;
    while (this.next < end && out.length < lengthMax) this.write(out, items[this.next++]!);
    return this.next === items.length;
  }

  close(): void {
    this.next = this.items.length;
  }
}
