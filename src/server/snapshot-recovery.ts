// The start of a member that was stopped while a leader's snapshot arrived or was installed. The log decides: its newest marker names the
// snapshot that the state must be at least as new as. If the database is older, the snapshot's file is there, and the database is made of
// it once more, before anybody opens it. Everything that only stood in the way is removed.
//
//   stopped while                       found                              done
//   it arrived                          *.snap.db.tmp                      removed: the leader sends it again
//   before the marker was durable       snap.db, no marker beyond          removed: the leader sends it again
//   the database was made               marker, snap.db, *.install         made once more, from the beginning
//   before or after the rename          marker, snap.db, old or new one    made once more; removed

import { convertSnapshot, type DatabaseFiles } from '../backend/snapshot-conversion.ts';
import type { Disk } from '../io/file.ts';
import type { Logger } from '../telemetry/logger.ts';
import { syncSegments } from '../wal/directory.ts';
import type { WalSnapshotMarker } from '../wal/format.ts';
import { listSegments, replayWal } from '../wal/replay.ts';
import { walExists } from '../wal/wal.ts';
import { removeArriving, removeSnapshots, snapshotDirectory, snapshotIndexes, snapshotPath } from './snapshot-files.ts';
import { missingSnapshot } from './snapshot-transfer.ts';

const CALLER = 'server/snapshot-recovery.ts';

export interface SnapshotRecovery {
  readonly disk: Disk;
  readonly logger: Logger;
  readonly databases: DatabaseFiles;
  readonly databasePath: string;
  readonly walDirectory: string;
}

/** Before database and log are opened, in a directory that nobody else uses. Throws FatalError. */
export function recoverSnapshot(options: SnapshotRecovery): void {
  const { disk, logger, databases, databasePath, walDirectory } = options;
  const directory = snapshotDirectory(databasePath);
  removeArriving(disk, directory);
  if (snapshotIndexes(disk, directory).length === 0) return;
  const applied = databases.consistentIndex(databasePath);
  const marker = walExists(disk, walDirectory) ? replayWal(disk, walDirectory, null).marker : null;
  if (isBeyond(marker, applied)) {
    const { index, term } = marker;
    const path = snapshotPath(directory, index);
    if (!disk.exists(path)) throw missingSnapshot(path, index);
    const fields = { 'consistent-index': applied, 'snapshot-index': index };
    logger.info(CALLER, 'Recovering from snapshot backend', fields);
    convertSnapshot(disk, { path, index, term }, databases.openNext(databasePath));
    // The marker may be in the page cache alone, of a process that was killed before its sync: no database may outlive the log it goes with.
    syncSegments(disk, walDirectory, listSegments(disk, walDirectory));
    databases.putInPlace(databasePath);
    logger.info(CALLER, 'recovered from snapshot backend', fields);
  }
  // The database holds them, or the log does not know of them.
  removeSnapshots(disk, directory, Infinity);
}

/** When all is open: the state that the log goes on from is in the database. Throws FatalError. */
export function checkSnapshotHeld(marker: WalSnapshotMarker | null, databasePath: string, applied: number): void {
  if (isBeyond(marker, applied)) {
    throw missingSnapshot(snapshotPath(snapshotDirectory(databasePath), marker.index), marker.index);
  }
}

function isBeyond(marker: WalSnapshotMarker | null, applied: number): marker is WalSnapshotMarker {
  return marker?.reset === true && marker.index > applied;
}
