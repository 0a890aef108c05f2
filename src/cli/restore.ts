// `keelsonutl snapshot restore`: a snapshot of etcd or keelson becomes the data directory of a member of a new cluster. As in
// etcdutl the keyspace, leases, users and alarms stay, members are replaced by those of --initial-cluster, and the log begins
// with the entries that add them, already applied.
//
// The rows go through the engine's own front door (backend/stored-rows.ts). The database is complete and closed before the log is
// begun: a database without its log does not start, so neither does a restore that a crash cut short.

import { Backend } from '../backend/backend.ts';
import { StoredRows } from '../backend/stored-rows.ts';
import type { FatalError } from '../base/fatal.ts';
import { systemClock } from '../io/clock.ts';
import { nodeDisk } from '../io/file.ts';
import { systemRandom } from '../io/random.ts';
import { syncWriter } from '../io/wal-writer.ts';
import { encode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import { type BoltReader, hasSnapshotHash, verifySnapshotHash } from '../snapshot/bolt-reader.ts';
import {
  BUCKET_NAMES,
  encodeConfState,
  encodeMember,
  encodeMemberKey,
  encodeRevisionKey,
  MetaKey,
} from '../snapshot/schema.ts';
import { backendLimits } from '../storage-limits.ts';
import type { WalEntry } from '../wal/format.ts';
import { openWal } from '../wal/wal.ts';
import { ExitCode, ExitError } from './exit.ts';
import { logLine } from './log-line.ts';
import { planRestore, type RestoreFlags, type RestorePlan } from './restore-plan.ts';
import {
  damaged,
  entriesOf,
  openDatabase,
  openSnapshotFile,
  orDamaged,
  rowsOf,
  type SnapshotFile,
} from './snapshot-file.ts';

/** raftpb.EntryType. */
const confChangeEntry = 1;
/** Of the entries that add the members. */
const bootTerm = 1;
/** Rows between two looks at how far the flusher is. */
const rowsPerTurn = 10_000;

export async function restore(snapshotPath: string, flags: RestoreFlags): Promise<void> {
  const plan = await planRestore(flags);
  const file = openSnapshotFile(snapshotPath, 'open');
  try {
    if (plan.checksHash) checkHash(file);
    const reader = openDatabase(file);
    const fields = { path: file.path, 'data-dir': plan.dataDir, 'wal-dir': plan.walDir };
    logLine('info', 'restoring snapshot', fields);
    nodeDisk.mkdir(`${plan.dataDir}/member/snap`);
    await writeDatabase(file.path, reader, plan);
    writeLog(plan);
    logLine('info', 'restored snapshot', fields);
  } finally {
    file.close();
  }
}

function checkHash(file: SnapshotFile): void {
  if (!hasSnapshotHash(file.size)) {
    throw new ExitError(ExitCode.error, 'snapshot missing hash but --skip-hash-check=false');
  }
  const verified = verifySnapshotHash(file);
  if (!verified.ok) throw new ExitError(ExitCode.error, `${file.path}: ${verified.error.reason}`);
}

async function writeDatabase(path: string, reader: BoltReader, plan: RestorePlan): Promise<void> {
  let failure: FatalError | null = null;
  const backend = Backend.open({
    path: `${plan.dataDir}/member/snap/keelson.mdb`,
    clock: systemClock,
    onFatal: (error) => {
      failure = error;
    },
    batchIntervalMs: 5,
    // What is left in memory at the end is merged at once, so that the first start scans nothing.
    limits: { ...backendLimits, mergeIdleTicks: 1 },
  });
  const settle = async (isSettled: () => boolean): Promise<void> => {
    while (failure === null && !isSettled()) await new Promise((resolve) => setTimeout(resolve, 2));
    if (failure !== null) throw failure;
  };
  const copier = new StoredRows(backend, plan.members.length, bootTerm, (revision) => {
    logLine('warn', 'left out a row without a key: there is no other row', { revision });
  });
  let rows = 0;
  for (const cursor of rowsOf(path, reader)) {
    if (!copier.add(cursor.key, cursor.value)) {
      throw damaged(path, { offset: cursor.entryOffset(), reason: 'the value is not the KeyValue of its revision' });
    }
    if (++rows % rowsPerTurn === 0) await settle(() => !backend.isOverloaded());
  }
  copier.end();
  copyBuckets(path, reader, backend);
  bump(copier, backend, plan);
  writeMembership(backend, plan);
  backend.endApply(plan.members.length, bootTerm);
  await settle(() => backend.isSettled);
  await new Promise<void>((resolve) => backend.close(resolve));
  if (failure !== null) throw failure;
}

/** As etcdutl: the newest revision becomes a higher one, so that no client sees revisions fall, and all before is compacted. */
function bump(rows: StoredRows, backend: Backend, { bumpRevision }: RestorePlan): void {
  if (bumpRevision === 0) return;
  const revision = rows.lastRevision + bumpRevision;
  logLine('info', 'bumping latest revision', { 'latest-revision': rows.lastRevision, 'new-latest-revision': revision });
  if (rows.lastRevision > 0) rows.addUnindexed(revision, 0, Buffer.alloc(0));
  backend.bucketPut('meta', MetaKey.scheduledCompactRev, encodeRevisionKey(revision, 0));
}

/** Everything but the rows and what belongs to the old cluster. */
function copyBuckets(path: string, reader: BoltReader, backend: Backend): void {
  const left: ReadonlySet<string> = new Set(['key', 'members', 'members_removed']);
  const leftInMeta = [MetaKey.confState, MetaKey.consistentIndex, MetaKey.term];
  for (const name of BUCKET_NAMES) {
    if (left.has(name)) continue;
    const bucket = orDamaged(path, reader.bucket(Buffer.from(name)));
    if (bucket === null) continue;
    for (const cursor of entriesOf(path, bucket)) {
      if (name === 'meta' && leftInMeta.some((key) => key.equals(cursor.key))) continue;
      backend.bucketPut(name, Buffer.from(cursor.key), Buffer.from(cursor.value));
    }
  }
}

function writeMembership(backend: Backend, { members }: RestorePlan): void {
  for (const member of members) backend.bucketPut('members', encodeMemberKey(member.id), encodeMember(member));
  const confState = {
    voters: members.map((member) => member.id),
    learners: [],
    votersOutgoing: [],
    learnersNext: [],
    autoLeave: false,
  };
  backend.bucketPut('meta', MetaKey.confState, encodeConfState(confState));
}

/** The entries that add the members, committed: where the database's consistent index stands. */
function writeLog(plan: RestorePlan): void {
  const { members } = plan;
  const { wal } = openWal({
    disk: nodeDisk,
    directory: plan.walDir,
    writer: syncWriter(nodeDisk),
    random: systemRandom,
    metadata: { clusterId: plan.clusterId, memberId: plan.memberId },
    startIndex: 0,
    fsync: true,
    segmentsMax: 0,
    observer: { write: () => {}, fsync: () => {} },
    log: logLine,
    onFatal: (error) => {
      throw error;
    },
  });
  const entries = members.map((member, position): WalEntry => {
    const data = encode(ConfChange, { type: 0, nodeId: member.id, context: encodeMember(member) });
    return { term: bootTerm, index: position + 1, type: confChangeEntry, data };
  });
  wal.append({ term: bootTerm, vote: members[0]!.id, commit: entries.length }, entries);
  wal.waitDurable(
    wal.sync(() => {}),
    60_000,
  );
  wal.close();
}
