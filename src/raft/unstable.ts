// The part of the log that is not known to be durable: new entries, and a snapshot that replaces the log. It shadows
// the storage: where both have an entry, this one counts.
//
//   storage   1 2 3 4 5 6          offset = 5: entry 5 is here, whatever the storage holds from 5 on
//   unstable          5'6'7'8'     inProgress = 7: 5' and 6' were handed to the driver, 7' and 8' wait for the next Ready

import { assert } from '../base/assert.ts';
import { NO_TERM } from './storage.ts';
import { countWithin, type Entry, type Snapshot } from './types.ts';

export class Unstable {
  snapshot: Snapshot | null = null;
  #snapshotInProgress = false;
  /** entries[i] has index offset + i. Appended in place; what leaves it is a copy of references. */
  #entries: Entry[] = [];
  /** The index of the first entry, whether there is one or not. */
  offset: number;
  /** Entries before this index were handed to the driver. Invariant: offset <= inProgress <= end. */
  inProgress: number;

  constructor(offset: number) {
    this.offset = offset;
    this.inProgress = offset;
  }

  /** The index after the last entry. */
  get end(): number {
    return this.offset + this.#entries.length;
  }

  get isEmpty(): boolean {
    return this.#entries.length === 0;
  }

  /** NO_TERM for what only the storage can know. */
  term(index: number): number {
    if (index >= this.offset) return index < this.end ? this.#entries[index - this.offset]!.term : NO_TERM;
    return this.snapshot !== null && this.snapshot.meta.index === index ? this.snapshot.meta.term : NO_TERM;
  }

  /** A leader's way in: the next entry. */
  push(entry: Entry): void {
    assert(entry.index === this.end, 'a gap in the unstable log');
    this.#entries.push(entry);
  }

  /** A follower's way in: entries[from...], replacing what is there at their indexes and after. */
  truncateAndAppend(entries: readonly Entry[], from: number): void {
    const first = entries[from]!.index;
    assert(first <= this.end, 'a gap in the unstable log');
    if (first <= this.offset) {
      this.#entries = [];
      this.offset = first;
      this.inProgress = first;
    } else if (first < this.end) {
      this.#entries.length = first - this.offset;
      this.inProgress = Math.min(this.inProgress, first);
    }
    for (let i = from; i < entries.length; i++) this.push(entries[i]!);
  }

  /** The log becomes the snapshot. */
  restore(snapshot: Snapshot): void {
    this.#entries = [];
    this.offset = snapshot.meta.index + 1;
    this.inProgress = this.offset;
    this.snapshot = snapshot;
    this.#snapshotInProgress = false;
  }

  get hasNextEntries(): boolean {
    return this.inProgress < this.end;
  }

  get hasNextSnapshot(): boolean {
    return this.snapshot !== null && !this.#snapshotInProgress;
  }

  /** What the driver has not got yet; it is in progress from now on. */
  takeEntries(): Entry[] {
    const start = this.inProgress - this.offset;
    this.inProgress = this.end;
    return this.#entries.slice(start);
  }

  takeSnapshot(): Snapshot | null {
    if (!this.hasNextSnapshot) return null;
    this.#snapshotInProgress = true;
    return this.snapshot;
  }

  /** Entries up to `index` are durable: the storage answers for them. Older news are ignored. */
  stableTo(index: number): void {
    if (index < this.offset) return;
    assert(index < this.inProgress, 'entries durable before they were handed out');
    if (index === this.end - 1) this.#entries.length = 0;
    else this.#entries.splice(0, index + 1 - this.offset);
    this.offset = index + 1;
  }

  stableSnapshotTo(index: number): void {
    if (this.snapshot === null || this.snapshot.meta.index !== index) return;
    this.snapshot = null;
    this.#snapshotInProgress = false;
  }

  /** [lo, hi), cut to `bytesMax` but at least one. */
  slice(lo: number, hi: number, bytesMax: number): Entry[] {
    assert(lo >= this.offset && hi <= this.end && lo < hi, 'a slice outside the unstable log');
    const start = lo - this.offset;
    return this.#entries.slice(start, start + countWithin(this.#entries, start, hi - this.offset, bytesMax));
  }

  checkInvariants(): void {
    assert(this.offset <= this.inProgress && this.inProgress <= this.end, 'unstable marks out of order');
    for (let i = 0; i < this.#entries.length; i++) {
      assert(this.#entries[i]!.index === this.offset + i, 'unstable entries must be contiguous');
    }
    if (this.snapshot !== null) assert(this.snapshot.meta.index < this.offset, 'a snapshot beyond its entries');
  }
}
