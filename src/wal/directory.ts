// A WAL directory on its way to being appended to: locked, created if new, read, repaired and made durable. What is in it says
// replay.ts; what is appended to it then is wal.ts.

import { ExitCode, FatalError } from '../base/fatal.ts';
import { type Disk, type DiskLock, errorCode, writeFully } from '../io/file.ts';
import type { Random } from '../io/random.ts';
import { type WalObserver, type WalWriterFactory, walFatal } from '../io/wal-writer.ts';
import { walSegmentBytes } from '../storage-limits.ts';
import { emptyHardState, encodeSegmentHeader, segmentHeaderBytes, segmentName, type WalMetadata } from './format.ts';
import { listSegments, replayWal, type SegmentFile, type WalReplay } from './replay.ts';

export interface WalOptions {
  readonly disk: Disk;
  /** <data-dir>/member/wal or --wal-dir, without a slash at the end. */
  readonly directory: string;
  readonly writer: WalWriterFactory;
  readonly random: Random;
  /** Needed for a new log; for an existing one, it must be the same if given. */
  readonly metadata: WalMetadata | null;
  /** Entries up to here are not wanted (the backend's consistent index); null: from the newest marker on. */
  readonly startIndex: number | null;
  /** False: --unsafe-no-fsync. */
  readonly fsync: boolean;
  /** --max-wals: more segments than these are removed once released; 0 keeps all. */
  readonly segmentsMax: number;
  readonly observer: WalObserver;
  readonly log: (level: 'info' | 'warn', message: string, fields: Readonly<Record<string, string | number>>) => void;
  /** A failure that came while nobody was in a call of this object. The process must end. */
  readonly onFatal: (error: FatalError) => void;
  /** Tests shrink it. */
  readonly segmentBytes?: number;
}

/** Locks, creates, reads and repairs. Throws FatalError: dataDir, walCorrupt, walWrite, diskFull, backendCorrupt. */
export function prepareDirectory(options: WalOptions): { lock: DiskLock; replay: WalReplay } {
  const { disk, directory } = options;
  const lock = lockDirectory(disk, directory);
  try {
    for (const name of ['spare.tmp', 'next.tmp']) {
      if (disk.exists(`${directory}/${name}`)) disk.unlink(`${directory}/${name}`);
    }
    if (listSegments(disk, directory).length === 0) createLog(options);
    const replay = replayWal(disk, directory, options.startIndex);
    checkMetadata(options, replay.metadata);
    repair(options, replay);
    if (options.fsync) syncSegments(options.disk, options.directory, replay.segments);
    return { lock, replay };
  } catch (error) {
    lock.release();
    throw error;
  }
}

function lockDirectory(disk: Disk, directory: string): DiskLock {
  let lock: DiskLock | null;
  try {
    disk.mkdir(directory);
    lock = disk.lock(`${directory}/lock`);
  } catch (error) {
    // Not from the disk, so a bug (or the simulated crash): it goes on as it is.
    if (errorCode(error) === '') throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new FatalError(ExitCode.dataDir, `wal: ${directory} cannot be used: ${reason}`, { cause: error });
  }
  if (lock !== null) return lock;
  throw new FatalError(ExitCode.dataDir, `wal: ${directory} is in use by another process (it holds ${directory}/lock)`);
}

function createLog(options: WalOptions): void {
  const { disk, directory, metadata } = options;
  if (metadata === null) throw new FatalError(ExitCode.dataDir, `wal: ${directory} holds no log`);
  const header = encodeSegmentHeader({
    sequence: 1,
    firstIndex: 1,
    metadata,
    previousCrc: 0,
    salt: options.random.uint32(),
    recycled: false,
    hardState: emptyHardState,
    marker: null,
    previousTerm: 0,
  });
  const temporary = `${directory}/next.tmp`;
  try {
    const fd = disk.open(temporary, 'create');
    writeZeros(disk, fd, segmentHeaderBytes, options.segmentBytes ?? walSegmentBytes);
    writeFully(disk, fd, header, 0, header.length, 0);
    if (options.fsync) disk.fdatasync(fd);
    disk.close(fd);
    disk.rename(temporary, `${directory}/${segmentName(1, 1)}`);
    if (options.fsync) disk.syncDirectory(directory);
  } catch (error) {
    throw walFatal(error, `creating the log in ${directory}`);
  }
}

function writeZeros(disk: Disk, fd: number, from: number, to: number): void {
  const zeros = Buffer.alloc(Math.min(1 << 20, Math.max(0, to - from)));
  for (let at = from; at < to; at += zeros.length) writeFully(disk, fd, zeros, 0, Math.min(zeros.length, to - at), at);
}

function checkMetadata(options: WalOptions, found: WalMetadata): void {
  const wanted = options.metadata;
  if (wanted === null) return;
  if (wanted.clusterId === found.clusterId && wanted.memberId === found.memberId) return;
  throw new FatalError(
    ExitCode.dataDir,
    `wal: ${options.directory} is of member ${found.memberId.toString(16)} in cluster ${found.clusterId.toString(16)}, ` +
      `not of ${wanted.memberId.toString(16)} in ${wanted.clusterId.toString(16)}`,
  );
}

function repair(options: WalOptions, replay: WalReplay): void {
  const { disk, directory, log } = options;
  try {
    if (replay.drop !== null) {
      log('info', 'dropped a WAL segment that a crash in a rotation left unused', { path: replay.drop.path });
      disk.unlink(replay.drop.path);
      if (options.fsync) disk.syncDirectory(directory);
    }
    if (replay.cut === null) return;
    const { path, position, reason } = replay.cut;
    log('warn', 'cut a torn tail of the WAL', { path, offset: position, reason });
    const fd = disk.open(path, 'write');
    // Zeros, so that no header of the torn record is left to be mistaken for a later one after the next crash.
    writeZeros(disk, fd, position, disk.size(fd));
    if (options.fsync) disk.fdatasync(fd);
    disk.close(fd);
  } catch (error) {
    throw walFatal(error, `repairing the log in ${directory}`);
  }
}

/**
 * What was read may be in the page cache only, written by a process that was killed before its sync (or that ran without).
 * It is about to be taken as promised, and later syncs are of the last segment alone: so it is made durable first.
 */
export function syncSegments(disk: Disk, directory: string, segments: readonly SegmentFile[]): void {
  try {
    for (const { path } of segments) {
      const fd = disk.open(path, 'write');
      disk.fdatasync(fd);
      disk.close(fd);
    }
    disk.syncDirectory(directory);
  } catch (error) {
    throw walFatal(error, `syncing the log in ${directory}`);
  }
}
