// The databases that leaders send, as files beside the member's own: their names, which are etcd's, and when they may go. What is in them
// is backend/snapshot-conversion.ts's.
//
//   <data>/member/snap/000000000000002a.snap.db       whole and durable: the state as of entry 42
//   <data>/member/snap/000000000000002a.snap.db.tmp   arriving

import { dirname } from 'node:path';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { type Disk, errorCode, errorText } from '../io/file.ts';
import type { OpenStreamFile } from '../io/stream-file.ts';

/** What the files are written through. */
export interface SnapshotDisk {
  readonly disk: Disk;
  readonly openStreamFile: OpenStreamFile;
}

const finishedName = /^([0-9a-f]{16})\.snap\.db$/;
const arrivingName = /^[0-9a-f]{16}\.snap\.db\.tmp$/;

/** Where they are: beside the database. */
export function snapshotDirectory(databasePath: string): string {
  return dirname(databasePath);
}

export function snapshotPath(directory: string, index: number): string {
  return `${directory}/${index.toString(16).padStart(16, '0')}.snap.db`;
}

export function arrivingPath(directory: string, index: number): string {
  return `${snapshotPath(directory, index)}.tmp`;
}

/** The entries whose snapshots are there, whole. */
export function snapshotIndexes(disk: Disk, directory: string): number[] {
  const indexes: number[] = [];
  for (const name of namesIn(disk, directory)) {
    const match = finishedName.exec(name);
    if (match !== null) indexes.push(Number.parseInt(match[1]!, 16));
  }
  return indexes;
}

/** Those of entries up to `index`: the database holds them. A newer one may wait to be installed (etcd issue 18055). */
export function removeSnapshots(disk: Disk, directory: string, index: number): void {
  for (const found of snapshotIndexes(disk, directory)) {
    if (found <= index) removeFile(disk, snapshotPath(directory, found));
  }
}

/** Of transfers that a crash ended. Only while none is under way. */
export function removeArriving(disk: Disk, directory: string): void {
  for (const name of namesIn(disk, directory)) if (arrivingName.test(name)) removeFile(disk, `${directory}/${name}`);
}

/** Fine if it is not there. */
export function removeFile(disk: Disk, path: string): void {
  try {
    if (disk.exists(path)) disk.unlink(path);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw diskFailure(error, `${path} cannot be removed`);
  }
}

function namesIn(disk: Disk, directory: string): string[] {
  try {
    return disk.readdir(directory);
  } catch (error) {
    throw diskFailure(error, `${directory} cannot be read`);
  }
}

/** What the disk refuses beside the database, it is about to refuse the database. Not from the disk (a bug, a simulated crash): as it is. */
export function diskFailure(error: unknown, what: string): unknown {
  if (errorCode(error) === '') return error;
  return new FatalError(ExitCode.backendWrite, `a snapshot: ${what}: ${errorText(error)}`, { cause: error });
}
