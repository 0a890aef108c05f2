// The bytes of a delta's distinct keys, by id, in shared slabs: written by the core thread, read by the flusher once the
// delta is frozen. No heap object for a key. Not an order and not a hash table: those hold ids (index-order, index-delta).

import { compareBytes } from './index-key.ts';

/** What is posted to the flusher: typed arrays over shared memory and the slabs themselves. */
export interface SharedKeys {
  readonly slabs: readonly SharedArrayBuffer[];
  /** Three numbers an id: slab, offset in it, length. */
  readonly places: Uint32Array;
}

const PLACE_FIELDS = 3;

export class KeySlabs {
  slabs: Buffer[] = [];
  places: Uint32Array;
  count = 0;
  private readonly slabBytes: number;
  /** The slab being filled (-1: none) and how far; longer keys have slabs of their own. */
  private current = -1;
  private used = 0;

  constructor(capacity: number, slabBytes: number) {
    this.slabBytes = slabBytes;
    this.places = new Uint32Array(new SharedArrayBuffer(4 * PLACE_FIELDS * capacity));
  }

  /** Over what another thread posted. */
  static shared(keys: SharedKeys): KeySlabs {
    const view = new KeySlabs(0, 0);
    view.slabs = keys.slabs.map((slab) => Buffer.from(slab));
    view.places = keys.places;
    return view;
  }

  share(): SharedKeys {
    return { slabs: this.slabs.map((slab) => slab.buffer as SharedArrayBuffer), places: this.places };
  }

  /** Forgets the keys; slabs of the usual size are dropped too, all but the first. */
  reset(): void {
    const first = this.slabs.find((slab) => slab.length === this.slabBytes);
    this.slabs = first === undefined ? [] : [first];
    this.current = this.slabs.length - 1;
    this.used = 0;
    this.count = 0;
  }

  append(key: Uint8Array, start: number, end: number): number {
    const length = end - start;
    let slab = this.current;
    let offset = this.used;
    if (length > this.slabBytes) {
      slab = this.newSlab(length);
      offset = 0;
    } else {
      if (slab === -1 || offset + length > this.slabBytes) {
        slab = this.newSlab(this.slabBytes);
        offset = 0;
        this.current = slab;
      }
      this.used = offset + length;
    }
    const target = this.slabs[slab]!;
    for (let i = 0; i < length; i++) target[offset + i] = key[start + i]!;
    const id = this.count++;
    const at = PLACE_FIELDS * id;
    if (at >= this.places.length) this.places = grownShared(this.places, Uint32Array);
    this.places[at] = slab;
    this.places[at + 1] = offset;
    this.places[at + 2] = length;
    return id;
  }

  private newSlab(bytes: number): number {
    return this.slabs.push(Buffer.from(new SharedArrayBuffer(bytes))) - 1;
  }

  slab(id: number): Buffer {
    return this.slabs[this.places[PLACE_FIELDS * id]!]!;
  }

  start(id: number): number {
    return this.places[PLACE_FIELDS * id + 1]!;
  }

  end(id: number): number {
    const at = PLACE_FIELDS * id;
    return this.places[at + 1]! + this.places[at + 2]!;
  }

  length(id: number): number {
    return this.places[PLACE_FIELDS * id + 2]!;
  }

  compare(id: number, key: Uint8Array, start: number, end: number): number {
    const at = PLACE_FIELDS * id;
    const from = this.places[at + 1]!;
    return compareBytes(this.slabs[this.places[at]!]!, from, from + this.places[at + 2]!, key, start, end);
  }
}

/** A copy of twice the length, over shared memory. */
export function grownShared<T extends Uint32Array | Int32Array | Float64Array>(
  old: T,
  type: new (buffer: SharedArrayBuffer) => T,
): T {
  const grown = new type(new SharedArrayBuffer(2 * old.byteLength));
  grown.set(old);
  return grown;
}
