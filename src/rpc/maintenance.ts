// etcdserverpb.Maintenance: status, alarms, hashes, defragmentation, the snapshot stream (snapshot-stream.ts), leadership.

import type { CompactionHash } from '../backend/backend.ts';
import type { ServerCall } from '../grpc/call.ts';
import type { Router } from '../grpc/router.ts';
import {
  AlarmRequest,
  DowngradeAction,
  DowngradeRequest,
  DowngradeResponse,
  HashKVRequest,
  HashKVResponse,
  HashResponse,
  MoveLeaderRequest,
  StatusResponse,
} from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { decode } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { Member } from '../server/member.ts';
import { durationText, sizeFields } from '../server/member-log.ts';
import { KvHasher } from '../snapshot/hashkv.ts';
import { ApplyWaiter, acceptEmpty, failMalformed, failWith, respondWithMessage } from './answer.ts';
import { SnapshotHandler } from './snapshot-stream.ts';

const SERVICE = 'etcdserverpb.Maintenance';
const UNKNOWN = 2;
const UNIMPLEMENTED = 12;

export interface MaintenanceOptions {
  /** The version that Status tells: kube-apiserver turns features on by it. */
  readonly etcdVersion: string;
  /** --quota-backend-bytes, or its default. */
  readonly quotaBytes: number;
  readonly setTimer: (delayMs: number, callback: () => void) => unknown;
}

export function registerMaintenance(router: Router, member: Member, options: MaintenanceOptions): void {
  router.unary(SERVICE, 'Status', (call, message, start, end) => {
    if (acceptEmpty(call, message, start, end)) answerStatus(member, options, call);
  });
  router.unary(SERVICE, 'Alarm', (call, message, start, end) => alarm(member, call, message, start, end));
  router.unary(SERVICE, 'Hash', (call, message, start, end) => {
    if (acceptEmpty(call, message, start, end)) hash(member, call);
  });
  router.unary(SERVICE, 'HashKV', (call, message, start, end) => hashKv(member, call, message, start, end));
  router.unary(SERVICE, 'Defragment', (call, message, start, end) => {
    if (acceptEmpty(call, message, start, end)) defragment(member, call);
  });
  router.unary(SERVICE, 'MoveLeader', (call, message, start, end) => moveLeader(member, call, message, start, end));
  router.unary(SERVICE, 'Downgrade', (call, message, start, end) => downgrade(member, call, message, start, end));
  router.stream(SERVICE, 'Snapshot', 'server', new SnapshotHandler(member, options.setTimer));
}

function answerStatus(member: Member, options: MaintenanceOptions, call: ServerCall): void {
  const { header, store, raft, backend, cluster } = member.parts;
  const sizes = backend.sizes();
  respondWithMessage(call, StatusResponse, {
    header: header.message(store.currentRevision),
    version: options.etcdVersion,
    dbSize: sizes.totalBytes,
    leader: member.leader,
    raftIndex: raft.committedIndex,
    raftTerm: raft.term,
    raftAppliedIndex: raft.appliedIndex,
    errors: member.errors(),
    dbSizeInUse: sizes.inUseBytes,
    isLearner: raft.isLearner,
    storageVersion: cluster.version ?? '',
    dbSizeQuota: options.quotaBytes,
    downgradeInfo: { enabled: false },
  });
}

function alarm(member: Member, call: ServerCall, message: Buffer, start: number, end: number): void {
  const request = decode(AlarmRequest, message, start, end);
  if (request === undefined) {
    failMalformed(call);
    return;
  }
  // Asking goes through the log too, as in etcd: the answer is then no older than the question.
  const waiter = new ApplyWaiter(call, member.parts.header);
  const error = member.propose(RequestField.alarm, message, start, end, waiter);
  if (error !== null) failWith(call, error);
}

function hash(member: Member, call: ServerCall): void {
  const { backend, header, store } = member.parts;
  const revision = store.currentRevision;
  backend.hash((value) => {
    respondWithMessage(call, HashResponse, { header: header.message(revision), hash: value });
  });
}

function hashKv(member: Member, call: ServerCall, message: Buffer, start: number, end: number): void {
  const request = decode(HashKVRequest, message, start, end);
  if (request === undefined) {
    failMalformed(call);
    return;
  }
  const { backend, header, store, compactionHashes } = member.parts;
  const current = store.currentRevision;
  const revision = request.revision === 0 ? current : request.revision;
  const answer = (hash: CompactionHash): void => {
    respondWithMessage(call, HashKVResponse, {
      header: header.message(current),
      hash: hash.hash,
      compactRevision: hash.compactRevision,
      hashRevision: hash.revision,
    });
  };
  if (member.isCompactingTo(request.revision)) {
    // etcd's compactions are done in an instant when they are small, and their hash is what HashKV then answers: wait for ours.
    const retry = Buffer.from(message.subarray(start, end));
    member.afterCompaction(request.revision, () => hashKv(member, call, retry, 0, retry.length));
    return;
  }
  const stored = compactionHashes.at(request.revision);
  let error: EtcdError | null = null;
  if (revision > current) error = etcdErrors.futureRev;
  else if (revision < store.compactRevision && revision > 0) error = etcdErrors.compacted;
  if (stored !== undefined) answer(stored);
  else if (error !== null) failWith(call, error);
  else if (revision < 0) {
    // etcd lets a negative revision through: nothing is at or below it, so the hash is that of no row.
    const compactRevision = store.compactRevision;
    answer({ hash: new KvHasher(compactRevision, 0, null).hash(), revision, compactRevision });
  } else {
    const compactRevision = store.compactRevision;
    backend.hashKv(revision, compactRevision, (hash) => answer({ hash, revision, compactRevision }));
  }
}

function defragment(member: Member, call: ServerCall): void {
  const { backend, logger, nowMs } = member.parts;
  const startMs = nowMs();
  const before = backend.sizes();
  logger.info('rpc/maintenance.ts', 'starting defragment', {});
  logger.info('rpc/maintenance.ts', 'defragmenting', { path: backend.path, ...sizeFields(before) });
  backend.defrag((error) => {
    if (error !== null) {
      logger.warn('rpc/maintenance.ts', 'failed to defragment', { error: error.message });
      call.fail({ code: UNKNOWN, message: error.message });
      return;
    }
    const after = backend.sizes();
    logger.info('rpc/maintenance.ts', 'finished defragmenting directory', {
      path: backend.path,
      'current-db-size-bytes-diff': after.totalBytes - before.totalBytes,
      'current-db-size-in-use-bytes-diff': after.inUseBytes - before.inUseBytes,
      ...sizeFields(after),
      took: durationText(nowMs() - startMs),
    });
    logger.info('rpc/maintenance.ts', 'finished defragment', {});
    // DefragmentResponse carries no header.
    call.respond(Buffer.alloc(0), 0, 0);
  });
}

function moveLeader(member: Member, call: ServerCall, message: Buffer, start: number, end: number): void {
  const request = decode(MoveLeaderRequest, message, start, end);
  if (request === undefined) failMalformed(call);
  else if (!member.isLeader) failWith(call, etcdErrors.notLeader);
  else if (request.targetId === member.parts.id) call.respond(Buffer.alloc(0), 0, 0);
  else failWith(call, etcdErrors.badLeaderTransferee);
}

/** A downgrade has nowhere to go yet: only its refusals are there (the cluster version's job comes with #4). */
function downgrade(member: Member, call: ServerCall, message: Buffer, start: number, end: number): void {
  const request = decode(DowngradeRequest, message, start, end);
  if (request === undefined) failMalformed(call);
  else if (request.action === DowngradeAction.cancel) {
    // etcd answers so even when there is nothing to cancel.
    const { header, store, cluster } = member.parts;
    const version = (cluster.version ?? '').split('.').slice(0, 2).join('.');
    respondWithMessage(call, DowngradeResponse, { header: header.message(store.currentRevision), version });
  } else if (!/^\d+\.\d+(\.\d+)?$/.test(request.version)) failWith(call, etcdErrors.wrongDowngradeVersionFormat);
  else if (request.version.startsWith('3.6')) {
    call.fail({ code: UNIMPLEMENTED, message: 'keelson: downgrade is not supported by this version yet' });
  } else failWith(call, etcdErrors.invalidDowngradeTargetVersion);
}
