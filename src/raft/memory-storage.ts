// The Storage that a member runs on: the log's tail in memory (the WAL holds the same durably). Entries and payloads
// are never copied; entries() makes one array of references, a memcpy. The log is bounded by the driver, who calls
// compact().
//
//   compacted        #entries
//   ... 4  5 | 6  7  8  9         #compactedIndex 5, its term known; firstIndex 6, lastIndex 9

import { assert } from '../base/assert.ts';
import { NO_TERM, type Storage } from './storage.ts';
import {
  type ConfState,
  countWithin,
  EMPTY_CONF_STATE,
  EMPTY_HARD_STATE,
  type Entry,
  type HardState,
  NO_BYTES,
  payloadBytes,
  type Snapshot,
} from './types.ts';

export class MemoryStorage implements Storage {
  #hardState: HardState = EMPTY_HARD_STATE;
  #confState: ConfState | null = null;
  #snapshot: Snapshot;
  #compactedIndex = 0;
  #compactedTerm = 0;
  /** entries[i] has index compactedIndex + 1 + i. */
  #entries: Entry[] = [];
  /** Of their payloads. */
  #bytes = 0;

  constructor(confState: ConfState = EMPTY_CONF_STATE) {
    this.#snapshot = { meta: { confState, index: 0, term: 0 }, data: NO_BYTES };
  }

  initialState(): { hardState: HardState; confState: ConfState } {
    return { hardState: this.#hardState, confState: this.#confState ?? this.#snapshot.meta.confState };
  }

  /** Before a start with Config.applied beyond the snapshot: the configuration as of that index. */
  setConfState(confState: ConfState): void {
    this.#confState = confState;
  }

  setHardState(hardState: HardState): void {
    this.#hardState = hardState;
  }

  entries(lo: number, hi: number, bytesMax: number): Entry[] | null {
    if (lo <= this.#compactedIndex) return null;
    const start = lo - this.#compactedIndex - 1;
    const end = hi - this.#compactedIndex - 1;
    assert(start < end && end <= this.#entries.length, 'entries asked for beyond the log');
    return this.#entries.slice(start, start + countWithin(this.#entries, start, end, bytesMax));
  }

  term(index: number): number {
    if (index === this.#compactedIndex) return this.#compactedTerm;
    if (index < this.#compactedIndex || index > this.lastIndex()) return NO_TERM;
    return this.#entries[index - this.#compactedIndex - 1]!.term;
  }

  firstIndex(): number {
    return this.#compactedIndex + 1;
  }

  lastIndex(): number {
    return this.#compactedIndex + this.#entries.length;
  }

  /** Bytes of the entries' payloads. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Up to which index, and not beyond `last`, entries have to go so that the payloads of the rest have at most `bytesMax`. */
  dropFor(bytesMax: number, last: number): number {
    let bytes = this.#bytes;
    let index = this.#compactedIndex;
    while (bytes > bytesMax && index < last) {
      bytes -= this.#entries[index - this.#compactedIndex]!.data.length;
      index++;
    }
    return index;
  }

  snapshot(): Snapshot | null {
    return this.#snapshot;
  }

  /**
   * Appends what a Ready gave; an entry at or before lastIndex() replaces it and all after it (raft overwrote its
   * tail).
   */
  append(entries: readonly Entry[]): void {
    if (entries.length === 0) return;
    const first = entries[0]!.index;
    assert(first <= this.lastIndex() + 1, 'a gap between the log and what is appended');
    // Entries at or before the compaction point are already in the snapshot.
    const skip = Math.max(0, this.firstIndex() - first);
    if (skip >= entries.length) return;
    const keep = first + skip - this.firstIndex();
    if (keep < this.#entries.length) this.#bytes -= payloadBytes(this.#entries.splice(keep));
    for (let i = skip; i < entries.length; i++) {
      const entry = entries[i]!;
      this.#entries.push(entry);
      this.#bytes += entry.data.length;
    }
  }

  /** The log becomes the received snapshot. */
  applySnapshot(snapshot: Snapshot): void {
    assert(snapshot.meta.index > this.#snapshot.meta.index, 'a snapshot older than the one there is');
    this.#snapshot = snapshot;
    this.#compactedIndex = snapshot.meta.index;
    this.#compactedTerm = snapshot.meta.term;
    this.#entries = [];
    this.#bytes = 0;
  }

  /** Remembers that the state machine's snapshot at `index` exists; the log stays as it is until compact(). */
  createSnapshot(index: number, confState: ConfState, data: Buffer): Snapshot {
    assert(index > this.#snapshot.meta.index, 'a snapshot older than the one there is');
    const term = this.term(index);
    assert(term !== NO_TERM, 'a snapshot outside the log');
    this.#snapshot = { meta: { confState, index, term }, data };
    return this.#snapshot;
  }

  /** Drops entries up to and with `index`, which the state machine must have applied. */
  compact(index: number): void {
    if (index <= this.#compactedIndex) return;
    const term = this.term(index);
    assert(term !== NO_TERM, 'compaction beyond the log');
    const count = index - this.#compactedIndex;
    for (let i = 0; i < count; i++) this.#bytes -= this.#entries[i]!.data.length;
    this.#entries = this.#entries.slice(count);
    this.#compactedIndex = index;
    this.#compactedTerm = term;
  }
}
