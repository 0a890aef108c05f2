// etcd's well-known log lines about a member, with etcd's keys: dashboards and scripts match them. Written when the member or
// its cluster changed, or something was slow, failed or ended, so their cost does not count.

import type { BackendSizes, CompactionHash } from '../backend/backend-options.ts';
import { durationText, humanBytes } from '../config/go-value.ts';
import { requestTimeoutBaseMs } from '../limits.ts';
import { type Cluster, hexId } from '../membership/cluster.ts';
import { majorMinor } from '../membership/semantic-version.ts';
import { type InternalRequest, RequestField } from '../proto/internal-request.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { LogFields, Logger } from '../telemetry/logger.ts';
import type { MemberParts } from './member-parts.ts';
import { RAFT_LOGGER_NAME } from './raft-log.ts';
import { entryText } from './request-text.ts';
import { sizeWithRevision } from './response-text.ts';

const CALLER = 'server/member-log.ts';

/** How its lines show times and bytes, for those of rpc/, too, which does not look at src/config. */
export { durationText, humanBytes };

export function sizeFields(sizes: BackendSizes): LogFields {
  return {
    'current-db-size-bytes': sizes.totalBytes,
    'current-db-size': humanBytes(sizes.totalBytes),
    'current-db-size-in-use-bytes': sizes.inUseBytes,
    'current-db-size-in-use': humanBytes(sizes.inUseBytes),
  };
}

/** Errors that the parts of etcd's server call otherwise than its clients hear them. */
const innerErrors: ReadonlyMap<EtcdError, string> = new Map<EtcdError, string>([
  [etcdErrors.compacted, 'mvcc: required revision has been compacted'],
  [etcdErrors.futureRev, 'mvcc: required revision is a future revision'],
  [etcdErrors.leaseNotFound, 'lease not found'],
  [etcdErrors.leaseExist, 'lease already exists'],
  [etcdErrors.leaseTTLTooLarge, 'too large lease TTL'],
  [etcdErrors.noSpace, 'etcdserver: no space'],
]);

/** `known`: the cluster's version before, undefined at a start. */
function capabilitiesEnabled(logger: Logger, version: string | undefined, known: string | undefined): void {
  if (version === undefined || version === known) return;
  logger.info(CALLER, 'enabled capabilities for version', { 'cluster-version': majorMinor(version) });
}

/** What the database says of the cluster, at a start and when a leader's has taken its place. */
export function recoveredCluster(logger: Logger, cluster: Cluster, id: bigint, knownVersion?: string): void {
  capabilitiesEnabled(logger, cluster.version, knownVersion);
  const ids = { 'cluster-id': hexId(cluster.id), 'local-member-id': hexId(id) };
  for (const member of cluster.members()) {
    logger.info(CALLER, 'recovered/added member from store', {
      ...ids,
      'recovered-remote-peer-id': hexId(member.id),
      'recovered-remote-peer-urls': member.peerUrls,
      'recovered-remote-peer-is-learner': member.isLearner,
    });
  }
  if (cluster.version === undefined) return;
  logger.info(CALLER, 'set cluster version from store', { 'cluster-version': majorMinor(cluster.version) });
}

export class MemberLog {
  private readonly parts: MemberParts;
  private readonly ids: LogFields;
  private readonly id: string;
  private readonly raftNode: Logger;
  /** When readsTimedOut() was told last. */
  private readsTimedOutMs = -Infinity;

  constructor(parts: MemberParts) {
    this.parts = parts;
    this.raftNode = parts.logger.named(RAFT_LOGGER_NAME);
    this.id = hexId(parts.id);
    this.ids = { 'cluster-id': hexId(parts.cluster.id), 'local-member-id': this.id };
  }

  /** In the words of raft's node. */
  leaderIs(before: bigint, leader: bigint, term: number): void {
    const node = `raft.node: ${this.id}`;
    let line = `${node} elected leader ${hexId(leader)} at term ${term}`;
    if (leader === 0n) line = `${node} lost leader ${hexId(before)} at term ${term}`;
    else if (before !== 0n) line = `${node} changed leader from ${hexId(before)} to ${hexId(leader)} at term ${term}`;
    this.raftNode.info(CALLER, line);
  }

  transferred(from: bigint, to: bigint, tookMs: number): void {
    this.parts.logger.info(CALLER, 'leadership transfer finished', {
      'local-member-id': this.id,
      'old-leader-member-id': hexId(from),
      'new-leader-member-id': hexId(to),
      took: durationText(tookMs),
    });
  }

  published(): void {
    const { cluster, logger } = this.parts;
    const fields = { ...this.publication(), 'cluster-id': hexId(cluster.id) };
    logger.info(CALLER, 'published local member to cluster through raft', fields);
  }

  publishFailed(error: EtcdError): void {
    const fields = { ...this.publication(), error: error.message };
    this.parts.logger.warn(CALLER, 'failed to publish local member to cluster through raft', fields);
  }

  private publication(): LogFields {
    const { name, clientUrls, electionMs } = this.parts;
    return {
      'local-member-id': this.id,
      'local-member-attributes': `{Name:${name} ClientURLs:[${clientUrls.join(' ')}]}`,
      'publish-timeout': durationText(requestTimeoutBaseMs + 2 * electionMs),
    };
  }

  /** `from` undefined: the cluster has none. */
  settingClusterVersion(from: string | undefined, to: string): void {
    const { logger } = this.parts;
    if (from === undefined) {
      const fields = { 'cluster-version': majorMinor(to) };
      logger.info(CALLER, 'setting up initial cluster version using v3 API', fields);
    } else {
      logger.info(CALLER, 'updating cluster version using v3 API', { from: majorMinor(from), to: majorMinor(to) });
    }
  }

  clusterVersionUpdated(version: string): void {
    this.parts.logger.info(CALLER, 'cluster version is updated', { 'cluster-version': majorMinor(version) });
  }

  /** `from` undefined: the cluster had none. */
  clusterVersion(from: string | undefined, to: string): void {
    const { logger } = this.parts;
    if (from === undefined) {
      logger.info(CALLER, 'set initial cluster version', { ...this.ids, 'cluster-version': majorMinor(to) });
    } else {
      const change = { from: majorMinor(from), to: majorMinor(to) };
      logger.info(CALLER, 'updated cluster version', { ...this.ids, ...change });
    }
    capabilitiesEnabled(logger, to, from);
  }

  quotaExceeded(): void {
    const fields = { 'quota-size-bytes': this.parts.quotaBytes, 'quota-size': humanBytes(this.parts.quotaBytes) };
    this.parts.logger.warn(CALLER, 'message exceeded backend quota; raising alarm', fields);
  }

  /** What a start found in the log and not in the database. */
  replayed(entryCount: number, tookMs: number): void {
    const fields = { 'entry-count': entryCount, took: durationText(tookMs) };
    this.parts.logger.info(CALLER, 'applied what the log had beyond the database', fields);
  }

  readsRetried(round: number, afterMs: number): void {
    const fields = { 'sent-request-id': round, 'retry-timeout': durationText(afterMs) };
    this.parts.logger.warn(CALLER, 'waiting for ReadIndex response took too long, retrying', fields);
  }

  /** Once in that time: reads go on to come, and to time out. */
  readsTimedOut(nowMs: number, afterMs: number): void {
    if (nowMs - this.readsTimedOutMs < afterMs) return;
    this.readsTimedOutMs = nowMs;
    const message = 'timed out waiting for read index response (local node might have slow network)';
    this.parts.logger.warn(CALLER, message, { timeout: durationText(afterMs) });
  }

  /** In the memory of raft; the files of the WAL are released by themselves. */
  compactedLog(index: number): void {
    this.parts.logger.debug(CALLER, 'compacted Raft logs', { 'compact-index': index });
  }

  /** Of the request that the applier has just applied. */
  slowApply(request: InternalRequest, entry: Buffer, tookMs: number): void {
    this.slow(tookMs, '', entryLine(request, entry), this.responseText(request.field), this.parts.applier.error);
  }

  /** A read of the local store. `prefix` is "read-only range " or "read-only txn "; `response` '' when there is an error. */
  slowRead(prefix: string, request: string, response: string, tookMs: number, error: EtcdError | null): void {
    this.slow(tookMs, prefix, request, response, error);
  }

  private slow(tookMs: number, prefix: string, request: string, response: string, error: EtcdError | null): void {
    const { counters, logger, warningApplyMs } = this.parts;
    counters.slowApplies++;
    logger.warn(CALLER, 'apply request took too long', {
      took: durationText(tookMs),
      'expected-duration': durationText(warningApplyMs),
      prefix,
      request,
      response,
      ...(error === null ? {} : { error: innerErrors.get(error) ?? error.message }),
    });
  }

  failedApply(request: InternalRequest, entry: Buffer, tookMs: number): void {
    const { logger, applier } = this.parts;
    const error = applier.error!;
    logger.warn(CALLER, 'failed to apply request', {
      took: durationText(tookMs),
      request: entryLine(request, entry),
      response: this.responseText(request.field),
      error: innerErrors.get(error) ?? error.message,
    });
  }

  /** The size of what the applier answered, as etcd's applier would have made it: '' when that makes nothing. */
  private responseText(field: number): string {
    const { applier, header, store } = this.parts;
    const bytes = applier.body.length;
    switch (field) {
      case RequestField.put:
      case RequestField.deleteRange:
      case RequestField.txn:
      case RequestField.compaction:
        return applier.error === null ? `size:${sizeWithRevision(bytes, applier.revision)}` : '';
      case RequestField.leaseGrant:
        return applier.error === null ? `size:${bytes + header.bytes(store.currentRevision)}` : 'size:0';
      case RequestField.leaseRevoke:
      case RequestField.leaseCheckpoint:
        return `size:${header.bytes(store.currentRevision)}`;
      case RequestField.alarm:
        return `size:${bytes}`;
      default:
        return '';
    }
  }

  /** `hash` null: a later compaction did this one's work. */
  compacted(revision: number, tookMs: number, rowCount: number, hash: CompactionHash | null): void {
    const { logger, backend } = this.parts;
    logger.info(CALLER, 'finished scheduled compaction', {
      'compact-revision': revision,
      took: durationText(tookMs),
      'number-of-keys-compacted': rowCount,
      ...(hash === null ? {} : { hash: hash.hash }),
      ...sizeFields(backend.sizes()),
    });
    if (hash === null) return;
    const fields = { hash: hash.hash, revision, 'compact-revision': hash.compactRevision };
    logger.info(CALLER, 'storing new hash', fields);
  }
}

function entryLine(request: InternalRequest, entry: Buffer): string {
  const id = (BigInt(request.idPrefix) << 48n) | BigInt(request.idCounter);
  return entryText(id, request.field, entry, request.start, request.end);
}
