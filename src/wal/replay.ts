// What a WAL directory says: which segments it has, whether they are whole, and the log, hard state and marker that they add
// up to. Reads only; the cut of a torn tail and the removal of an unused successor are returned as work for wal.ts.
//
// The repair rule: a tail is torn only in the last segment, only if no record header follows it and no single flipped bit accounts for
// it (flipped-bit.ts: that record had been written whole); it is cut. Damage anywhere
// else stops the member (exit code walCorrupt): entries that were acknowledged are gone, and starting without them would
// let this member vote and count as if it had never promised them.
//
// A crash in a rotation leaves the new segment durable and the record that ends the old one missing or torn. Then the last
// segment has no record and the one before it has no end: the last one is dropped, the one before it is the last.

import { ExitCode, FatalError } from '../base/fatal.ts';
import { type Disk, errorCode, readFully } from '../io/file.ts';
import {
  decodeSections,
  emptyHardState,
  type SectionVisitor,
  type SegmentHeader,
  segmentMagic,
  segmentNamePattern,
  type WalEntry,
  type WalEntryType,
  type WalHardState,
  type WalMetadata,
  type WalSnapshotMarker,
} from './format.ts';
import { SegmentReader, type Tail, TailKind } from './segment-reader.ts';

export interface SegmentFile {
  readonly path: string;
  readonly sequence: number;
  readonly firstIndex: number;
}

/** A position in the log: the entry's index and its term. */
export interface LogPosition {
  readonly index: number;
  readonly term: number;
}

/** Where the next record goes. */
export interface AppendPoint {
  readonly header: SegmentHeader;
  readonly seed: number;
  readonly previousCrc: number;
  readonly number: number;
  readonly position: number;
}

export interface WalReplay {
  readonly metadata: WalMetadata;
  readonly hardState: WalHardState;
  /** The newest snapshot marker. */
  readonly marker: WalSnapshotMarker | null;
  /** The position before the first of `entries`. */
  readonly start: LogPosition;
  readonly entries: WalEntry[];
  /** The last entry's position, `start` without entries. */
  readonly last: LogPosition;
  readonly segments: SegmentFile[];
  readonly append: AppendPoint;
  /** A torn tail to overwrite with zeros, from `position` on. */
  readonly cut: { readonly path: string; readonly position: number; readonly reason: string } | null;
  /** A segment that a crash in a rotation left unused. */
  readonly drop: SegmentFile | null;
}

const advice =
  'Nothing was changed. Restore the file from a copy. Or, if the other members are healthy, remove this member, delete its data ' +
  'directory and add it again; with a single member, restore a snapshot (keelsonutl snapshot restore). ' +
  'keelsonutl dump-log prints what can still be read';

function corrupt(message: string): FatalError {
  return new FatalError(ExitCode.walCorrupt, `wal: ${message}. ${advice}`);
}

/** The segments of a directory in order; other files are not looked at. */
export function listSegments(disk: Disk, directory: string): SegmentFile[] {
  const segments: SegmentFile[] = [];
  for (const name of disk.readdir(directory)) {
    const match = segmentNamePattern.exec(name);
    if (match === null) continue;
    const sequence = Number.parseInt(match[1]!, 16);
    segments.push({ path: `${directory}/${name}`, sequence, firstIndex: Number.parseInt(match[2]!, 16) });
  }
  return segments;
}

/**
 * Whether there is a log with anything in it, of whatever kind: false for the one that a first start has only just made. Looks at its
 * first record alone; what is damaged is something. Throws FatalError when the disk does not read.
 */
export function walHoldsRecords(disk: Disk, directory: string): boolean {
  const segments = disk.exists(directory) ? listSegments(disk, directory) : [];
  if (segments.length !== 1) return segments.length > 0;
  const { path } = segments[0]!;
  let reader: SegmentReader | string | null = null;
  try {
    reader = SegmentReader.open(disk, path);
    if (typeof reader === 'string') return true;
    return reader.header.sequence > 1 || reader.next() || reader.tail().kind === TailKind.damaged;
  } catch (error) {
    throw unreadable(error, path);
  } finally {
    if (reader instanceof SegmentReader) reader.close();
  }
}

/** Opens a segment and checks that its header is what its name says. Throws FatalError. */
export function openSegment(disk: Disk, file: SegmentFile): SegmentReader {
  let reader: SegmentReader | string;
  try {
    reader = SegmentReader.open(disk, file.path);
  } catch (error) {
    throw unreadable(error, file.path);
  }
  if (typeof reader === 'string') throw corrupt(`${file.path} is damaged at offset 0: ${reader}`);
  const { sequence, firstIndex } = reader.header;
  if (sequence === file.sequence && firstIndex === file.firstIndex) return reader;
  reader.close();
  throw corrupt(
    `${file.path} is damaged or renamed: its header (offset 16) says segment ${sequence} from index ${firstIndex}, ` +
      `its name ${file.sequence} from ${file.firstIndex}`,
  );
}

function unreadable(error: unknown, path: string): unknown {
  const code = errorCode(error);
  if (code === '') return error;
  return new FatalError(ExitCode.walCorrupt, `wal: ${path} cannot be read: ${(error as Error).message}. ${advice}`, {
    cause: error,
  });
}

/** Throws when the directory holds another program's WAL (etcd's names look the same). */
function refuseForeign(disk: Disk, segments: readonly SegmentFile[]): void {
  for (const segment of segments) {
    if (readMagic(disk, segment).equals(segmentMagic)) return;
  }
  throw new FatalError(
    ExitCode.dataDir,
    `wal: ${segments[0]!.path} and the other segments beside it are not keelson's (etcd's?): choose another --data-dir or ` +
      '--wal-dir, and bring etcd data over by a snapshot or as a member of its cluster',
  );
}

function readMagic(disk: Disk, { path }: SegmentFile): Buffer {
  const magic = Buffer.alloc(segmentMagic.length);
  try {
    const fd = disk.open(path, 'read');
    try {
      readFully(disk, fd, magic, 0, magic.length, 0);
    } finally {
      disk.close(fd);
    }
  } catch (error) {
    throw unreadable(error, path);
  }
  return magic;
}

/** Builds the log out of the sections in order. */
class LogBuilder implements SectionVisitor {
  start: LogPosition;
  readonly entries: WalEntry[] = [];
  state: WalHardState = emptyHardState;
  newestMarker: WalSnapshotMarker | null = null;
  problem: string | null = null;

  /** A start whose term is not known yet has term -1. */
  constructor(start: LogPosition) {
    this.start = start;
  }

  get lastIndex(): number {
    return this.start.index + this.entries.length;
  }

  begin(header: SegmentHeader): void {
    this.state = header.hardState;
    this.newestMarker = header.marker;
  }

  hardState(state: WalHardState): void {
    this.state = state;
  }

  marker(marker: WalSnapshotMarker): void {
    this.newestMarker = marker;
    if (marker.index === this.start.index) this.start = { index: marker.index, term: marker.term };
    if (!marker.reset) return;
    this.entries.length = 0;
    if (marker.index > this.start.index) this.start = { index: marker.index, term: marker.term };
  }

  entry(index: number, term: number, type: WalEntryType, payload: Buffer, start: number, end: number): void {
    const at = index - this.start.index - 1;
    if (at > this.entries.length) {
      this.problem ??= `entry ${index} follows entry ${this.lastIndex}: entries between them are missing`;
      return;
    }
    // An entry that is not above the last one replaces it and all after it.
    if (at < this.entries.length) this.entries.length = Math.max(at, 0);
    if (at >= 0) this.entries.push({ term, index, type, data: payload.subarray(start, end) });
    else if (at === -1) this.start = { index, term };
  }
}

/**
 * Reads the log after `startIndex` (the backend's consistent index; null: after the newest marker). Segments that hold
 * only older entries are not read. Throws FatalError: walCorrupt, dataDir, or backendCorrupt when the log ends before
 * `startIndex`.
 */
export function replayWal(disk: Disk, directory: string, startIndex: number | null): WalReplay {
  const all = listSegments(disk, directory);
  refuseForeign(disk, all);
  const segments = all.slice(firstNeeded(disk, all, startIndex));
  const oldest = segments[0]!;
  if (startIndex !== null && oldest.firstIndex > startIndex + 1) {
    throw corrupt(
      `${directory} begins with index ${oldest.firstIndex} (${oldest.path}), but ${startIndex + 1} is needed`,
    );
  }
  let log: LogBuilder | null = null;
  let previous: SegmentReader | null = null;
  for (let i = 0; i < segments.length; i++) {
    const file = segments[i]!;
    if (previous !== null && file.sequence !== previous.header.sequence + 1) {
      throw corrupt(`segment ${previous.header.sequence + 1} is missing in ${directory}, before ${file.path}`);
    }
    const reader = openSegment(disk, file);
    try {
      log ??= beginLog(reader.header, startIndex);
      if (previous !== null) checkLink(previous, reader, file, log.lastIndex);
      readSegment(reader, file, log);
      if (!reader.ended) return finish(disk, reader, log, { all, segments, at: i, startIndex });
    } finally {
      reader.close();
    }
    previous = reader;
  }
  const end = segments.at(-1)!;
  throw corrupt(
    `segment ${end.sequence + 1} is missing in ${directory}: ${end.path} ends with the note that it exists`,
  );
}

/** Index in `all` of the oldest segment that has to be read. */
function firstNeeded(disk: Disk, all: readonly SegmentFile[], startIndex: number | null): number {
  if (startIndex === null) return 0;
  let needed = 0;
  for (let i = 0; i < all.length; i++) if (all[i]!.firstIndex <= startIndex + 1) needed = i;
  // An unused successor gives no information on the tail of the one before it.
  if (needed > 0 && needed === all.length - 1 && isUnused(disk, all[needed]!)) needed--;
  return needed;
}

function isUnused(disk: Disk, file: SegmentFile): boolean {
  const reader = openSegment(disk, file);
  try {
    return reader.isUnused();
  } catch (error) {
    throw unreadable(error, file.path);
  } finally {
    reader.close();
  }
}

function beginLog(header: SegmentHeader, startIndex: number | null): LogBuilder {
  const before: LogPosition = { index: header.firstIndex - 1, term: header.previousTerm };
  let start: LogPosition = before;
  if (startIndex !== null && startIndex !== before.index) {
    const { marker } = header;
    start = { index: startIndex, term: marker !== null && marker.index === startIndex ? marker.term : -1 };
  }
  const log = new LogBuilder(start);
  log.begin(header);
  return log;
}

function checkLink(previous: SegmentReader, reader: SegmentReader, file: SegmentFile, lastIndex: number): void {
  const { header } = reader;
  const before = previous.header;
  if (header.previousCrc !== previous.lastCrc) {
    throw corrupt(`${file.path} does not continue the segment before it: the checksum at offset 48 differs`);
  }
  if (
    header.metadata.clusterId !== before.metadata.clusterId ||
    header.metadata.memberId !== before.metadata.memberId
  ) {
    throw corrupt(`${file.path} is another member's: the ids at offset 32 differ from those of the segment before it`);
  }
  // Not the other way round: a log that starts above this segment's first index has not got there yet.
  if (header.firstIndex > lastIndex + 1) {
    throw corrupt(`${file.path} begins with index ${header.firstIndex}, the segment before it ends with ${lastIndex}`);
  }
}

function readSegment(reader: SegmentReader, file: SegmentFile, log: LogBuilder): void {
  for (;;) {
    const position = reader.position;
    try {
      if (!reader.next()) return;
    } catch (error) {
      throw unreadable(error, file.path);
    }
    const problem = decodeSections(reader.payload, log) ?? log.problem;
    if (problem !== null) throw corrupt(`the record at offset ${position} of ${file.path} makes no sense: ${problem}`);
  }
}

interface ReadPlan {
  readonly all: readonly SegmentFile[];
  readonly segments: readonly SegmentFile[];
  readonly at: number;
  readonly startIndex: number | null;
}

/** `reader` has come to a place without a good record and without the segment's end. */
function finish(disk: Disk, reader: SegmentReader, log: LogBuilder, plan: ReadPlan): WalReplay {
  const { segments, at } = plan;
  const file = segments[at]!;
  const tail = judgeTail(reader, file);
  let drop: SegmentFile | null = null;
  if (tail.kind === TailKind.damaged)
    throw corrupt(`${file.path} is damaged at offset ${reader.position}: ${tail.reason}`);
  if (at < segments.length - 1) {
    drop = segments[at + 1]!;
    if (at < segments.length - 2 || drop.sequence !== file.sequence + 1 || !isUnused(disk, drop)) {
      throw corrupt(
        `${file.path} is damaged at offset ${reader.position}: ${tail.reason}, but a later segment exists (${drop.path})`,
      );
    }
  }
  if (plan.startIndex === null && log.newestMarker !== null) skipTo(log, log.newestMarker);
  checkLog(log, file, reader.position);
  const { header, seed, lastCrc, count, position } = reader;
  const lastEntry = log.entries.at(-1);
  return {
    metadata: header.metadata,
    hardState: log.state,
    marker: log.newestMarker,
    start: log.start,
    entries: log.entries,
    last: lastEntry === undefined ? log.start : { index: lastEntry.index, term: lastEntry.term },
    segments: plan.all.filter((segment) => segment !== drop),
    append: { header, seed, previousCrc: lastCrc, number: count, position },
    cut: tail.kind === TailKind.torn ? { path: file.path, position, reason: tail.reason } : null,
    drop,
  };
}

function judgeTail(reader: SegmentReader, file: SegmentFile): Tail {
  try {
    return reader.tail();
  } catch (error) {
    throw unreadable(error, file.path);
  }
}

/** Drops what the newest marker covers. */
function skipTo(log: LogBuilder, marker: WalSnapshotMarker): void {
  if (marker.index <= log.start.index) return;
  log.entries.splice(0, marker.index - log.start.index);
  log.start = { index: marker.index, term: marker.term };
}

function checkLog(log: LogBuilder, file: SegmentFile, position: number): void {
  if (log.start.term < 0) {
    // The log never reached the start, so what the backend has applied is not in it.
    throw new FatalError(
      ExitCode.backendCorrupt,
      `wal: the database has applied entry ${log.start.index}, but the log ends before it (${file.path}, offset ${position}): ` +
        'the WAL directory is older than the database or not its own, or it ran with --unsafe-no-fsync. Restore both ' +
        'from one copy, or restore a snapshot',
    );
  }
  if (log.state.commit > log.lastIndex) {
    throw corrupt(
      `${file.path} ends at offset ${position} with entry ${log.lastIndex}, but entry ${log.state.commit} was committed`,
    );
  }
}
