// The write-ahead log of raft: entries, hard states and snapshot markers, durable by one sync for everything that a turn of
// the core has appended. Format in format.ts, reading and the repair rule in replay.ts, opening in directory.ts, the bytes' way to the disk in
// src/io/wal-writer.ts (same thread) and src/io/wal-thread.ts (own thread). Not a storage for reading at run time: raft keeps
// its recent entries in memory, this file is read at start only.
//
//   append()* ── sync() ──> record sealed and handed to the writer ──> written, synced ──> onDurable
//                 │ a write is in flight: the appends gather in the other buffer and go as one record when it is done
//
// Group commit therefore needs no timer, and one write is in flight at a time, which the repair rule rests on.

import { assert } from '../base/assert.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import type { Disk, DiskJob, DiskLock } from '../io/file.ts';
import { type WalRotation, type WalWriter, walFatal } from '../io/wal-writer.ts';
import { walRemovalsMax, walSegmentBytes, walSpareFreeSegmentsMin, walSpareTriesMax } from '../storage-limits.ts';
import { prepareDirectory, type WalOptions } from './directory.ts';
import {
  alignRecord,
  encodeEntries,
  encodeHardState,
  encodeMarker,
  encodeSegmentHeader,
  entriesBytesMax,
  hardStateBytes,
  markerBytes,
  recordAlignment,
  recordHeaderBytes,
  sealRecord,
  segmentHeaderBytes,
  segmentName,
  segmentSeed,
  type WalEntry,
  type WalHardState,
  type WalMetadata,
  type WalSnapshotMarker,
} from './format.ts';
import { listSegments, type SegmentFile, type WalReplay } from './replay.ts';

/** Called with the newest ticket of sync() that is durable, once for several at times, in order. */
export type OnDurable = (ticket: number) => void;

/** True if the directory holds a log, keelson's or not. */
export function walExists(disk: Disk, directory: string): boolean {
  return disk.exists(directory) && listSegments(disk, directory).length > 0;
}

/**
 * Opens the log, creating it if the directory has none, and repairs a torn tail. Throws FatalError: dataDir (held by another
 * process, not ours, no metadata), walCorrupt, walWrite, diskFull, backendCorrupt.
 */
export function openWal(options: WalOptions): { wal: Wal; replay: WalReplay } {
  const { lock, replay } = prepareDirectory(options);
  try {
    return { wal: new Wal(options, replay, lock), replay };
  } catch (error) {
    lock.release();
    throw error;
  }
}

type Spare = 'none' | 'preparing' | 'zeros' | 'stale';

export class Wal {
  readonly #options: WalOptions;
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #segmentBytes: number;
  readonly #lock: DiskLock;
  readonly #writer: WalWriter;
  readonly metadata: WalMetadata;

  // The log as appended, durable or not.
  #hardState: WalHardState;
  #marker: WalSnapshotMarker | null;
  #lastIndex: number;
  #lastTerm: number;

  // The segment in use: where the next record goes. Oldest segment first.
  readonly #segments: SegmentFile[];
  #sequence: number;
  #seed: number;
  #previousCrc: number;
  #number: number;
  #position: number;

  /** Bytes in the writer's buffer, 0 or the gap for a record header and what was appended since the last record. */
  #used = 0;
  /** Ticket of the newest sync(). */
  #ticket = 0;
  /** Invariant: durable <= inFlight <= ticket; the record in flight, if any, makes `inFlight` durable. */
  #inFlightTicket = 0;
  #durableTicket = 0;
  /** Writer's sequence of the record in flight, 0 for none. */
  #inFlight = 0;
  #lastRemoval = 0;
  readonly #waiting: { ticket: number; readonly onDurable: OnDurable }[] = [];

  #spare: Spare;
  #spareJob: DiskJob | null = null;
  /** Where in the segment in use the next one's file is thought of: its middle, later when that could not be made. */
  #spareFrom: number;
  #failed: FatalError | null = null;
  #closed = false;

  constructor(options: WalOptions, replay: WalReplay, lock: DiskLock) {
    this.#options = options;
    this.#disk = options.disk;
    this.#directory = options.directory;
    this.#segmentBytes = options.segmentBytes ?? walSegmentBytes;
    this.#lock = lock;
    this.metadata = replay.metadata;
    this.#hardState = replay.hardState;
    this.#marker = replay.marker;
    this.#lastIndex = replay.last.index;
    this.#lastTerm = replay.last.term;
    this.#segments = [...replay.segments];
    const { append } = replay;
    this.#sequence = append.header.sequence;
    this.#seed = append.seed;
    this.#previousCrc = append.previousCrc;
    this.#number = append.number;
    this.#position = append.position;
    assert(this.#position % recordAlignment === 0, 'the log continues at an aligned position');
    this.#spareFrom = this.#segmentBytes / 2;
    this.#spare = this.#findSpare();
    const current = this.#segments.at(-1)!;
    assert(current.sequence === this.#sequence, 'the log continues in its last segment');
    try {
      this.#writer = options.writer({
        path: current.path,
        fsync: options.fsync,
        observer: options.observer,
        onWake: () => this.#wake(),
      });
    } catch (error) {
      throw walFatal(error, `opening ${current.path}`);
    }
    this.#prepareSpare();
  }

  get lastIndex(): number {
    return this.#lastIndex;
  }

  get hardState(): WalHardState {
    return this.#hardState;
  }

  /** Segments that exist, the one in use included. */
  get segmentCount(): number {
    return this.#segments.length;
  }

  /** Bytes appended and not yet handed to the writer: what a stalled disk makes grow. */
  get pendingBytes(): number {
    return this.#used;
  }

  /** The newest durable ticket. */
  get durableTicket(): number {
    return this.#durableTicket;
  }

  /**
   * Adds to the record being built; durable after the next sync(). Entries must be consecutive; if the first is not above
   * lastIndex, the log from it on is overwritten. A marker comes before the entries; one that resets must have a hard state
   * with it or before it whose commit it covers. Hot path: no allocation.
   */
  append(hardState: WalHardState | null, entries: readonly WalEntry[], marker: WalSnapshotMarker | null = null): void {
    if (this.#failed !== null) throw this.#failed;
    assert(!this.#closed, 'append to an open WAL');
    if (this.#used === 0) this.#used = recordHeaderBytes;
    const bytes = hardStateBytes + markerBytes + entriesBytesMax(entries) + recordAlignment;
    this.#writer.reserve(this.#used, bytes);
    const { buffer } = this.#writer;
    if (marker !== null) this.#appendMarker(buffer, marker);
    if (entries.length > 0) {
      const first = entries[0]!.index;
      assert(first > 0 && first <= this.#lastIndex + 1, 'an append leaves no gap in the log');
      assert(first > this.#hardState.commit, 'a committed entry is not overwritten');
      this.#used = encodeEntries(buffer, this.#used, entries);
      const last = entries[entries.length - 1]!;
      this.#lastIndex = last.index;
      this.#lastTerm = last.term;
    }
    if (hardState !== null) {
      assert(hardState.commit <= this.#lastIndex, 'the commit index is in the log');
      assert(hardState.term >= this.#hardState.term, 'the term does not go back');
      this.#used = encodeHardState(buffer, this.#used, hardState);
      this.#hardState = hardState;
    }
  }

  #appendMarker(buffer: Buffer, marker: WalSnapshotMarker): void {
    this.#used = encodeMarker(buffer, this.#used, marker);
    this.#marker = marker;
    if (!marker.reset) {
      assert(marker.index <= this.#lastIndex, 'a snapshot is of entries in the log');
      return;
    }
    this.#lastIndex = marker.index;
    this.#lastTerm = marker.term;
  }

  /**
   * Makes everything appended so far durable. Returns the ticket that `onDurable` will be called with (or with a newer one),
   * never within this call: from waitDurable(), poll() or a message of the WAL thread, so one of the first two has to be
   * called in this turn. Throws FatalError.
   */
  sync(onDurable: OnDurable): number {
    if (this.#failed !== null) throw this.#failed;
    const ticket = ++this.#ticket;
    const newest = this.#waiting.at(-1);
    if (newest !== undefined && newest.onDurable === onDurable && newest.ticket > this.#inFlightTicket) {
      newest.ticket = ticket;
    } else this.#waiting.push({ ticket, onDurable });
    if (this.#inFlight === 0) this.#dispatch();
    return ticket;
  }

  /** Hands the record over, or, with nothing appended, completes the tickets with what is durable already. */
  #dispatch(): void {
    assert(this.#inFlight === 0, 'one WAL record in flight');
    this.#inFlightTicket = this.#ticket;
    if (this.#used === 0) return;
    const length = alignRecord(this.#used);
    const last = this.#position + length >= this.#segmentBytes;
    const place = {
      seed: this.#seed,
      previousCrc: this.#previousCrc,
      sequence: this.#sequence,
      number: this.#number,
      position: this.#position,
    };
    this.#previousCrc = sealRecord(this.#writer.buffer, this.#used, place, last);
    const position = this.#position;
    this.#position += length;
    this.#number++;
    this.#used = 0;
    const rotation = last ? this.#beginSegment() : null;
    try {
      this.#inFlight = this.#writer.write(length, position, rotation);
    } catch (error) {
      throw this.#fail(error);
    }
  }

  /** The next segment becomes the one in use, as of the record behind the one that is about to be written. */
  #beginSegment(): WalRotation {
    const from = this.#spare === 'zeros' || this.#spare === 'stale' ? `${this.#directory}/spare.wal` : null;
    const header = encodeSegmentHeader({
      sequence: this.#sequence + 1,
      firstIndex: this.#lastIndex + 1,
      metadata: this.metadata,
      previousCrc: this.#previousCrc,
      salt: this.#options.random.uint32(),
      recycled: this.#spare === 'stale',
      hardState: this.#hardState,
      marker: this.#marker,
      previousTerm: this.#lastTerm,
    });
    if (from !== null) this.#spare = 'none';
    this.#sequence++;
    this.#seed = segmentSeed(header);
    this.#previousCrc = this.#seed;
    this.#number = 0;
    this.#position = segmentHeaderBytes;
    this.#spareFrom = this.#segmentBytes / 2;
    const to = `${this.#directory}/${segmentName(this.#sequence, this.#lastIndex + 1)}`;
    this.#segments.push({ path: to, sequence: this.#sequence, firstIndex: this.#lastIndex + 1 });
    const temporary = `${this.#directory}/next.tmp`;
    return { from, temporary, to, directory: this.#directory, header, bytes: this.#segmentBytes };
  }

  /**
   * Waits until `ticket` is durable, for each record that it needs at most `timeoutMs`; runs the callbacks that are due. After
   * false they run by message. Throws FatalError.
   */
  waitDurable(ticket: number, timeoutMs: number): boolean {
    assert(ticket <= this.#ticket, 'waits for a ticket that was given');
    while (this.#durableTicket < ticket) {
      try {
        if (this.#inFlight !== 0 && !this.#writer.wait(this.#inFlight, timeoutMs)) return false;
      } catch (error) {
        throw this.#fail(error);
      }
      this.poll();
    }
    return true;
  }

  /** Takes note of what has become durable, sends the next record if one has gathered, runs callbacks. Throws FatalError. */
  poll(): void {
    if (this.#failed !== null) throw this.#failed;
    try {
      if (this.#inFlight !== 0 && this.#writer.completed() < this.#inFlight) {
        // Arms the message: the caller may not come back by itself.
        if (!this.#writer.wait(this.#inFlight, 0)) return;
      }
    } catch (error) {
      throw this.#fail(error);
    }
    this.#inFlight = 0;
    this.#durableTicket = this.#inFlightTicket;
    // Between two writes: a rotation that takes the spare's name is then either done or not yet planned.
    this.#prepareSpare();
    if (this.#ticket > this.#inFlightTicket) {
      this.#dispatch();
      if (this.#inFlight === 0) this.#durableTicket = this.#inFlightTicket;
    }
    while (this.#waiting.length > 0 && this.#waiting[0]!.ticket <= this.#durableTicket) {
      const { ticket, onDurable } = this.#waiting.shift()!;
      onDurable(ticket);
    }
    if (this.#inFlight !== 0) this.#armMessage();
  }

  #armMessage(): void {
    try {
      if (this.#writer.wait(this.#inFlight, 0)) this.poll();
    } catch (error) {
      throw this.#fail(error);
    }
  }

  /** A message of the WAL thread. */
  #wake(): void {
    if (this.#closed) return;
    try {
      this.poll();
    } catch (error) {
      if (!(error instanceof FatalError)) throw error;
      this.#options.onFatal(error);
    }
  }

  #fail(error: unknown): unknown {
    if (error instanceof FatalError) this.#failed = error;
    return error;
  }

  /**
   * Entries up to `index` are durable elsewhere (a synced commit of the backend). Removes the oldest segments that hold only
   * such entries while there are more than segmentsMax; the first becomes the next segment's file.
   */
  release(index: number): void {
    if (this.#failed !== null) throw this.#failed;
    const { segmentsMax } = this.#options;
    if (segmentsMax === 0) return;
    try {
      if (this.#lastRemoval > this.#writer.completed()) return;
      for (let count = 0; count < walRemovalsMax && this.#segments.length > segmentsMax; count++) {
        const [oldest, second] = this.#segments;
        // Entries of the oldest at or above the second's first index were overwritten, or are in it no more.
        if (oldest === undefined || second === undefined || second.firstIndex > index + 1) return;
        const recycle = this.#spare === 'none';
        this.#lastRemoval = this.#writer.remove({
          path: oldest.path,
          recycleTo: recycle ? `${this.#directory}/spare.wal` : null,
          directory: this.#directory,
        });
        if (recycle) this.#spare = 'stale';
        this.#segments.shift();
      }
    } catch (error) {
      throw this.#fail(error);
    }
  }

  #findSpare(): Spare {
    const path = `${this.#directory}/spare.wal`;
    if (!this.#disk.exists(path)) return 'none';
    const fd = this.#disk.open(path, 'read');
    const bytes = this.#disk.size(fd);
    this.#disk.close(fd);
    // Its content is not known any more: treated as recycled.
    if (bytes >= this.#segmentBytes) return 'stale';
    this.#disk.unlink(path);
    return 'none';
  }

  /**
   * From the middle of a segment on, the next one's file is made ready beside the log, unless a released one takes its place. Without
   * it the next segment is a hole that fills as it is written, which is slower and takes no room before its time.
   */
  #prepareSpare(): void {
    if (this.#spare !== 'none' || this.#position < this.#spareFrom) return;
    // If not now, then not before the log has grown by some more.
    this.#spareFrom = this.#position + this.#segmentBytes / walSpareTriesMax;
    if (!this.#hasRoomForSpare()) return;
    this.#spare = 'preparing';
    const temporary = `${this.#directory}/spare.tmp`;
    this.#spareJob = this.#disk.preallocate(temporary, this.#segmentBytes, (error) => {
      this.#spareJob = null;
      this.#spare = 'none';
      try {
        if (error === null) {
          this.#disk.rename(temporary, `${this.#directory}/spare.wal`);
          this.#spare = 'zeros';
          return;
        }
        this.#options.log('warn', 'could not prepare the next WAL segment', { path: temporary, error: error.message });
        // What there is of it takes room that others need.
        if (this.#disk.exists(temporary)) this.#disk.unlink(temporary);
      } catch (fileError) {
        this.#fail(walFatal(fileError, `preparing ${temporary}`));
      }
    });
  }

  /** Whether the file system has room for a spare and for as much of other things. */
  #hasRoomForSpare(): boolean {
    let freeBytes: number;
    try {
      freeBytes = this.#disk.freeBytes(this.#directory);
    } catch (error) {
      throw this.#fail(walFatal(error, `looking for free space in ${this.#directory}`));
    }
    if (freeBytes >= walSpareFreeSegmentsMin * this.#segmentBytes) return true;
    this.#options.log('warn', 'too little free space to prepare the next WAL segment', {
      path: this.#directory,
      'free-bytes': freeBytes,
      'segment-bytes': this.#segmentBytes,
    });
    return false;
  }

  /** Makes what was appended durable, waits for it, gives the directory back. */
  close(): void {
    if (this.#closed) return;
    this.#spareJob?.cancel();
    try {
      if (this.#failed === null && (this.#used > 0 || this.#durableTicket < this.#ticket)) {
        const closeTimeoutMs = 30_000;
        const ticket = this.sync(() => {});
        if (!this.waitDurable(ticket, closeTimeoutMs)) {
          throw new FatalError(ExitCode.walWrite, 'wal: the disk did not take the last writes in 30 s');
        }
      }
    } finally {
      this.#closed = true;
      this.#writer.close();
      this.#lock.release();
    }
  }
}
