// The replicated log as the core sees it: the durable part (Storage) with the unstable part on top, and the marks that
// move over it. Not the WAL.
//
//   firstIndex          applied      applying       committed      stable          last
//       │ state machine    │ handed out  │ may be applied │            │ handed to the │
//       ▼    holds it      ▼ to apply    ▼                ▼            ▼ driver or new ▼
//
//   applied <= applying <= min(committed, stable) <= last
//
// Entries are handed out to be applied only once they are durable here too (etcd-io/raft with async storage writes): so
// a state machine is never ahead of its own WAL, and a single member never answers before its sync (etcd issue 14370).

import { assert } from '../base/assert.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import type { RaftLogger } from './config.ts';
import { NO_TERM, type Storage } from './storage.ts';
import { type Entry, entryBytes, payloadBytes, type Snapshot } from './types.ts';
import { Unstable } from './unstable.ts';
import { WriteQueue } from './write-queue.ts';

/** Committed entries handed out in one Ready, until they are applied. */
interface Applying {
  lastIndex: number;
  bytes: number;
  payloadBytes: number;
}

export class RaftLog {
  readonly #storage: Storage;
  readonly #unstable: Unstable;
  readonly writes: WriteQueue = new WriteQueue();
  readonly #applyingBytesMax: number;
  readonly #logger: RaftLogger;
  #applyingQueue: Applying[] = [];
  #applyingBytes = 0;
  /**
   * Nothing more is handed out until something was applied: the bound is reached, or the next entry would pass it. Without
   * the second every Ready would pass the bound by one entry, as it gives at least one.
   */
  #applyingPaused = false;

  /** The highest index known to be durable on a majority. */
  committed: number;
  /** The highest index handed out to be applied. */
  #applying: number;
  #applied: number;
  /** Kept here, as every proposal asks for it. */
  lastIndex: number;
  lastTerm: number;

  constructor(storage: Storage, applyingBytesMax: number, logger: RaftLogger) {
    this.#storage = storage;
    this.#applyingBytesMax = applyingBytesMax;
    this.#logger = logger;
    this.lastIndex = storage.lastIndex();
    this.lastTerm = storage.term(this.lastIndex);
    assert(this.lastTerm !== NO_TERM, 'the storage does not know its last term');
    this.#unstable = new Unstable(this.lastIndex + 1);
    const compacted = storage.firstIndex() - 1;
    this.committed = compacted;
    this.#applying = compacted;
    this.#applied = compacted;
  }

  /** At the start: what the state machine holds already. */
  restoreApplied(index: number): void {
    assert(
      index <= this.committed && index >= this.#applied,
      'applied must lie between the compaction point and commit',
    );
    this.#applied = index;
    this.#applying = index;
  }

  get applied(): number {
    return this.#applied;
  }

  get applying(): number {
    return this.#applying;
  }

  get firstIndex(): number {
    const snapshot = this.#unstable.snapshot;
    return snapshot === null ? this.#storage.firstIndex() : snapshot.meta.index + 1;
  }

  /** The last entry that is durable here. */
  get stableIndex(): number {
    return this.#unstable.offset - 1;
  }

  /** A received snapshot that is not installed yet. */
  get hasPendingSnapshot(): boolean {
    return this.#unstable.snapshot !== null;
  }

  /** NO_TERM when compacted or not there. */
  term(index: number): number {
    const term = this.#unstable.term(index);
    if (term !== NO_TERM) return term;
    if (index > this.lastIndex || index + 1 < this.firstIndex) return NO_TERM;
    return this.#storage.term(index);
  }

  matchTerm(index: number, term: number): boolean {
    return this.term(index) === term;
  }

  /**
   * Raft 5.4.1: a candidate's log is at least as complete when it ends in a later term, or in the same and no earlier.
   */
  isUpToDate(index: number, term: number): boolean {
    return term > this.lastTerm || (term === this.lastTerm && index >= this.lastIndex);
  }

  /** A leader appends. */
  push(entry: Entry): void {
    this.#unstable.push(entry);
    this.lastIndex = entry.index;
    this.lastTerm = entry.term;
  }

  /**
   * A follower appends what follows (prevIndex, prevTerm) at its leader, and takes over its commit index. Returns the
   * last index that now agrees with the leader, or -1 when the logs do not agree at prevIndex.
   */
  maybeAppend(prevIndex: number, prevTerm: number, entries: readonly Entry[], commit: number): number {
    if (!this.matchTerm(prevIndex, prevTerm)) return -1;
    let from = 0;
    while (from < entries.length && this.matchTerm(entries[from]!.index, entries[from]!.term)) from++;
    if (from < entries.length) {
      const { index, term } = entries[from]!;
      if (index <= this.lastIndex) {
        const terms = `existing term: ${this.term(index)}, conflicting term: ${term}`;
        this.#logger.info(`found conflict at index ${index} [${terms}]`);
      }
      this.append(entries, from);
    }
    const lastNew = prevIndex + entries.length;
    this.commitTo(Math.min(commit, lastNew));
    return lastNew;
  }

  /** entries[from...] go into the log, over what was there. */
  append(entries: readonly Entry[], from: number): void {
    const first = entries[from]!.index;
    assert(first > this.committed, 'a committed entry would be overwritten');
    if (first <= this.lastIndex) this.writes.truncate(first);
    this.#unstable.truncateAndAppend(entries, from);
    const last = entries[entries.length - 1]!;
    this.lastIndex = last.index;
    this.lastTerm = last.term;
  }

  /**
   * The best guess of where this log ends agreeing with one that has (index, term): the highest index at or below
   * `index` whose term is at most `term` or not known. One step a term, not one an entry, over a diverged tail.
   */
  findConflictByTerm(index: number, term: number): { index: number; term: number } {
    for (let guess = index; guess > 0; guess--) {
      const ours = this.term(guess);
      if (ours === NO_TERM) return { index: guess, term: 0 };
      if (ours <= term) return { index: guess, term: ours };
    }
    return { index: 0, term: 0 };
  }

  commitTo(index: number): void {
    if (index <= this.committed) return;
    if (index > this.lastIndex) {
      // The leader counts on entries that this member once confirmed: its log lost them.
      throw new FatalError(
        ExitCode.walCorrupt,
        `the leader's commit index ${index} is beyond the last index ${this.lastIndex}: the raft log was truncated or lost. ` +
          'If this member’s data was removed: remove the member from its cluster, then add it again',
      );
    }
    this.committed = index;
  }

  /** A leader commits by counting only entries of its own term (Raft 5.4.2). */
  maybeCommit(index: number, term: number): boolean {
    if (index <= this.committed || !this.matchTerm(index, term)) return false;
    this.commitTo(index);
    return true;
  }

  /** From `lo` to the end, cut to `bytesMax` but at least one; null when compacted. */
  entriesFrom(lo: number, bytesMax: number): Entry[] | null {
    if (lo > this.lastIndex) return [];
    return this.slice(lo, this.lastIndex + 1, bytesMax);
  }

  slice(lo: number, hi: number, bytesMax: number): Entry[] | null {
    assert(lo < hi && hi <= this.lastIndex + 1, 'a slice outside the log');
    if (lo < this.firstIndex) return null;
    const offset = this.#unstable.offset;
    if (lo >= offset) return this.#unstable.slice(lo, hi, bytesMax);
    const cut = Math.min(hi, offset);
    const entries = this.#storage.entries(lo, cut, bytesMax);
    if (entries === null || entries.length < cut - lo || hi <= offset) return entries;
    let bytesLeft = bytesMax;
    for (const entry of entries) bytesLeft -= entryBytes(entry);
    if (bytesLeft <= 0) return entries;
    const more = this.#unstable.slice(offset, hi, bytesLeft);
    // slice() gives one entry even if it does not fit; here it is not the first one.
    if (more.length === 1 && entryBytes(more[0]!) > bytesLeft) return entries;
    for (const entry of more) entries.push(entry);
    return entries;
  }

  snapshot(): Snapshot | null {
    return this.#unstable.snapshot ?? this.#storage.snapshot();
  }

  /** A received snapshot replaces the whole log. */
  restore(snapshot: Snapshot): void {
    this.writes.truncate(0);
    this.#unstable.restore(snapshot);
    this.committed = snapshot.meta.index;
    this.lastIndex = snapshot.meta.index;
    this.lastTerm = snapshot.meta.term;
  }

  // --- What a Ready takes ---

  get hasNextEntries(): boolean {
    return this.#unstable.hasNextEntries;
  }

  takeEntries(): Entry[] {
    return this.#unstable.takeEntries();
  }

  get hasNextSnapshot(): boolean {
    return this.#unstable.hasNextSnapshot;
  }

  /** It counts as handed out to be applied: entries that follow it come in later Readies. */
  takeSnapshot(): Snapshot | null {
    const snapshot = this.#unstable.takeSnapshot();
    if (snapshot !== null) this.#applying = Math.max(this.#applying, snapshot.meta.index);
    return snapshot;
  }

  /** The last entry handed to the driver. */
  get handedOutIndex(): number {
    return this.#unstable.inProgress - 1;
  }

  get hasNextCommitted(): boolean {
    return this.#applying < this.#appliableIndex && !this.#applyingPaused && !this.hasPendingSnapshot;
  }

  get #appliableIndex(): number {
    return Math.min(this.committed, this.stableIndex);
  }

  takeCommitted(): Entry[] {
    if (!this.hasNextCommitted) return [];
    const room = this.#applyingBytesMax - this.#applyingBytes;
    const entries = this.slice(this.#applying + 1, this.#appliableIndex + 1, room);
    assert(entries !== null, 'entries were compacted before they were applied');
    let bytes = 0;
    for (let i = 0; i < entries.length; i++) bytes += entryBytes(entries[i]!);
    this.#applying = entries[entries.length - 1]!.index;
    this.#applyingBytes += bytes;
    this.#applyingQueue.push({ lastIndex: this.#applying, bytes, payloadBytes: payloadBytes(entries) });
    this.#applyingPaused = this.#applyingBytes >= this.#applyingBytesMax || this.#applying < this.#appliableIndex;
    return entries;
  }

  /**
   * The state machine holds everything up to `index`. Returns the bytes of requests of the Readies that this completes.
   */
  appliedTo(index: number): number {
    assert(index >= this.#applied && index <= this.#applying, 'applied must move forward, up to what was handed out');
    this.#applied = index;
    let payload = 0;
    while (this.#applyingQueue.length > 0 && this.#applyingQueue[0]!.lastIndex <= index) {
      const done = this.#applyingQueue.shift()!;
      this.#applyingBytes -= done.bytes;
      this.#applyingPaused = this.#applyingBytes >= this.#applyingBytesMax;
      payload += done.payloadBytes;
    }
    return payload;
  }

  stableTo(index: number): void {
    this.#unstable.stableTo(index);
  }

  stableSnapshotTo(index: number): void {
    this.#unstable.stableSnapshotTo(index);
  }

  checkInvariants(): void {
    this.#unstable.checkInvariants();
    assert(this.#applied <= this.#applying, 'applied beyond what was handed out');
    assert(this.#applying <= this.committed, 'handed out beyond commit');
    assert(this.committed <= this.lastIndex, 'commit beyond the log');
    assert(this.lastIndex === this.#unstable.end - 1, 'lastIndex disagrees with the unstable log');
    assert(this.term(this.lastIndex) === this.lastTerm, 'lastTerm disagrees with the log');
    if (!this.hasPendingSnapshot) {
      assert(this.#storage.lastIndex() >= this.stableIndex, 'a durable entry is missing in the storage');
    }
    let bytes = 0;
    for (const one of this.#applyingQueue) bytes += one.bytes;
    assert(bytes === this.#applyingBytes, 'bytes being applied disagree');
  }
}
