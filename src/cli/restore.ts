// `keelsonutl snapshot restore`: a snapshot of etcd or keelson becomes the data directory of a member of a new cluster. As in
// etcdutl the keyspace, leases, users and alarms stay, members are replaced by those of --initial-cluster, and the log begins
// with the entries that add them, already applied.
//
// The rows go through the engine's own front door, as if they were applied again, so that its index, its counts and its notes
// on what compaction may delete are right by construction. The database is complete and closed before the log is begun: a
// database without its log does not start, so neither does a restore that a crash cut short.
//
// A row without a key is what etcdutl's --bump-revision leaves behind. It is kept, for the members' hashes must agree, but no
// index holds it; it is written in the same apply as a row that is indexed, so that no start will meet it as new.

import { Backend } from '../backend/backend.ts';
import { newKeyState } from '../backend/index-delta.ts';
import type { FatalError } from '../base/fatal.ts';
import { systemClock } from '../io/clock.ts';
import { nodeDisk } from '../io/file.ts';
import { systemRandom } from '../io/random.ts';
import { syncWriter } from '../io/wal-writer.ts';
import { backendLimits } from '../limits.ts';
import { encode } from '../proto/message.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import { ConfChange } from '../proto/raftpb.ts';
import { type BoltReader, hasSnapshotHash, verifySnapshotHash } from '../snapshot/bolt-reader.ts';
import {
  BUCKET_NAMES,
  encodeConfState,
  encodeMember,
  encodeMemberKey,
  encodeRevisionKey,
  isTombstoneKey,
  MetaKey,
  revisionMain,
  revisionSub,
} from '../snapshot/schema.ts';
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
  const plan = planRestore(flags);
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
  const copier = new RowCopier(backend, plan);
  let rows = 0;
  for (const cursor of rowsOf(path, reader)) {
    if (!copier.add(cursor.key, cursor.value)) {
      throw damaged(path, { offset: cursor.entryOffset(), reason: 'the value is no KeyValue message' });
    }
    if (++rows % rowsPerTurn === 0) await settle(() => !backend.isOverloaded());
  }
  copyBuckets(path, reader, backend);
  copier.bump();
  writeMembership(backend, plan);
  backend.endApply(plan.members.length, bootTerm);
  await settle(() => backend.backlog() === 0 && backend.index.activeEntries === 0 && !backend.index.hasFrozen);
  await new Promise<void>((resolve) => backend.close(resolve));
  if (failure !== null) throw failure;
}

/** Applies stored rows again. An apply ends before the next row that will be indexed, so the last one is still open at the end. */
class RowCopier {
  readonly #backend: Backend;
  readonly #plan: RestorePlan;
  readonly #view = new KeyValueView();
  readonly #state = newKeyState();
  #lastMain = 0;
  #isIndexed = false;

  constructor(backend: Backend, plan: RestorePlan) {
    this.#backend = backend;
    this.#plan = plan;
  }

  /** False when the value is no KeyValue. */
  add(key: Buffer, value: Buffer): boolean {
    const view = this.#view;
    if (!view.parse(value, 0, value.length)) return false;
    const main = revisionMain(key);
    const sub = revisionSub(key);
    if (view.keyEnd === view.keyStart) {
      this.#addUnindexed(main, sub, value);
      return true;
    }
    if (main !== this.#lastMain && this.#isIndexed) this.#backend.endApply(this.#plan.members.length, bootTerm);
    this.#addIndexed(main, sub, isTombstoneKey(key), value);
    return true;
  }

  #addIndexed(main: number, sub: number, isTombstone: boolean, value: Buffer): void {
    const { index } = this.#backend;
    const view = this.#view;
    const state = this.#state;
    // The change before may have been compacted away: then nothing is superseded.
    const isLive = index.get(value, view.keyStart, view.keyEnd, state);
    const ordinal = this.#append(main, sub, isTombstone, value, isLive ? state.main : 0, isLive ? state.sub : 0);
    state.main = main;
    state.sub = sub;
    state.tombstone = isTombstone;
    state.createMain = view.createRevision;
    state.version = view.version;
    state.leaseHi = view.leaseHigh >>> 0;
    state.leaseLo = view.leaseLow >>> 0;
    state.ordinal = ordinal;
    index.restore(value, view.keyStart, view.keyEnd, state);
    this.#isIndexed = true;
  }

  #addUnindexed(main: number, sub: number, value: Buffer): void {
    if (this.#isIndexed) this.#append(main, sub, false, value, 0, 0);
    else logLine('warn', 'left out a row without a key: there is no other row', { revision: main });
  }

  #append(main: number, sub: number, isTombstone: boolean, value: Buffer, oldMain: number, oldSub: number): number {
    const ordinal = this.#backend.appendRow(main, sub, isTombstone, value.length, oldMain, oldSub);
    value.copy(this.#backend.rowBuffer, this.#backend.rowOffset);
    this.#lastMain = main;
    return ordinal;
  }

  /** As etcdutl: the newest revision becomes a higher one, so that no client sees revisions fall, and all before is compacted. */
  bump(): void {
    const { bumpRevision } = this.#plan;
    if (bumpRevision === 0) return;
    const revision = this.#lastMain + bumpRevision;
    logLine('info', 'bumping latest revision', { 'latest-revision': this.#lastMain, 'new-latest-revision': revision });
    if (this.#isIndexed) this.#append(revision, 0, false, Buffer.alloc(0), 0, 0);
    this.#backend.bucketPut('meta', MetaKey.scheduledCompactRev, encodeRevisionKey(revision, 0));
  }
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
