// etcdserverpb.Maintenance: status, alarms, hashes, defragmentation, the snapshot stream (snapshot-stream.ts), leadership.

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
import type { EtcdError } from '../proto/rpctypes.ts';
import { hashByRevision } from '../server/key-hash.ts';
import type { Member } from '../server/member.ts';
import { durationText, sizeFields } from '../server/member-log.ts';
import { ApplyWaiter, acceptEmpty, failMalformed, failWith, respondWithMessage } from './answer.ts';
import { SnapshotHandler } from './snapshot-stream.ts';

const SERVICE = 'etcdserverpb.Maintenance';
const UNKNOWN = 2;
const UNAVAILABLE = 14;

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
    storageVersion: member.storageVersion.text ?? '',
    dbSizeQuota: options.quotaBytes,
    downgradeInfo: { enabled: cluster.downgrade.isEnabled, targetVersion: cluster.downgrade.targetVersion },
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
  backend.hash((value, error) => {
    if (error !== null) call.fail({ code: UNAVAILABLE, message: error.message });
    else respondWithMessage(call, HashResponse, { header: header.message(revision), hash: value });
  });
}

function hashKv(member: Member, call: ServerCall, message: Buffer, start: number, end: number): void {
  const request = decode(HashKVRequest, message, start, end);
  if (request === undefined) {
    failMalformed(call);
    return;
  }
  const { header } = member.parts;
  hashByRevision(member, request.revision, (error, hash, currentRevision) => {
    if (error !== null) failWith(call, error);
    else {
      respondWithMessage(call, HashKVResponse, {
        header: header.message(currentRevision),
        hash: hash!.hash,
        compactRevision: hash!.compactRevision,
        hashRevision: hash!.revision,
      });
    }
  });
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

/** etcd's answer has no header. */
function moveLeader(member: Member, call: ServerCall, message: Buffer, start: number, end: number): void {
  const request = decode(MoveLeaderRequest, message, start, end);
  if (request === undefined) {
    failMalformed(call);
    return;
  }
  // As long as the client waits, as in etcd, and no longer than any other request.
  const error = member.leadership.move(request.targetId, member.requestTimeoutMs, (failure) => {
    if (failure === null) call.respond(Buffer.alloc(0), 0, 0);
    else failWith(call, failure);
  });
  if (error !== null) failWith(call, error);
}

const UNKNOWN_METHOD: EtcdError = { code: UNKNOWN, message: 'etcdserver: unknown method' };

function downgrade(member: Member, call: ServerCall, message: Buffer, start: number, end: number): void {
  const request = decode(DowngradeRequest, message, start, end);
  if (request === undefined) {
    failMalformed(call);
    return;
  }
  const { downgrades } = member;
  const answer = (error: EtcdError | null, version: string): void => {
    const { header, store } = member.parts;
    if (error !== null) failWith(call, error);
    else respondWithMessage(call, DowngradeResponse, { header: header.message(store.currentRevision), version });
  };
  if (request.action === DowngradeAction.validate) downgrades.validate(request.version, answer);
  else if (request.action === DowngradeAction.enable) downgrades.enable(request.version, answer);
  else if (request.action === DowngradeAction.cancel) downgrades.cancel(answer);
  else failWith(call, UNKNOWN_METHOD);
}
