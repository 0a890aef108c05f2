// What the HTTP endpoints ask, answered by the member: alarms, leader, reads through the quorum and of the local store, versions.

import { ByteWriter } from '../base/byte-writer.ts';
import { AlarmType } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { RangeRequest } from '../proto/kv-request.ts';
import { encode } from '../proto/message.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import { hashByRevision } from '../server/key-hash.ts';
import type { Member } from '../server/member.ts';
import { encodeMembers } from '../server/membership.ts';
import { promotionErrorText } from '../server/promotions.ts';
import { raftStatusJson } from '../server/raft-status-text.ts';
import { rangeText } from '../server/request-text.ts';
import { rangeResponseText } from '../server/response-text.ts';
import type { AdminSource } from './admin.ts';
import type { AlarmName } from './health.ts';
import { LeaseEndpoints } from './lease-endpoints.ts';

const ALARM_NAMES: ReadonlyMap<number, AlarmName> = new Map([
  [AlarmType.noSpace, 'NOSPACE'],
  [AlarmType.corrupt, 'CORRUPT'],
]);

/** What etcd's health checks read: one key of none, which is nothing. */
const HealthRange = {
  limit: { no: 3, kind: 'int' },
  serializable: { no: 7, kind: 'bool' },
  keysOnly: { no: 8, kind: 'bool' },
} as const;

export interface MemberSourceOptions {
  readonly member: Member;
  readonly etcdVersion: string;
  readonly metricsText: () => Promise<string>;
  readonly setTimer: (delayMs: number, callback: () => void) => unknown;
}

export function memberSource(options: MemberSourceOptions): AdminSource {
  const { member, etcdVersion, metricsText, setTimer } = options;
  const { alarms, cluster, counters, nowMs, raft, store, warningApplyMs } = member.parts;
  const healthRead = (serializable: boolean): RangeRequest => {
    const request = new RangeRequest();
    const bytes = encode(HealthRange, { limit: 1, serializable, keysOnly: true });
    request.parse(bytes, 0, bytes.length);
    return request;
  };
  const leases = new LeaseEndpoints(member);
  const reads = { local: healthRead(true), linearizable: healthRead(false) };
  const body = new ByteWriter(1024);
  const read = (request: RangeRequest): string | null => {
    const startMs = nowMs();
    body.reset();
    const error = store.range(request, body);
    const tookMs = nowMs() - startMs;
    const seconds = tookMs / 1000;
    counters.observeRange(error === null, seconds);
    counters.observeRequest(RequestField.range, error === null, seconds);
    if (tookMs > warningApplyMs) {
      const response = error === null ? rangeResponseText(body, store.rangeRevision) : '';
      member.log.slowRead('read-only range ', rangeText(request), response, tookMs, error);
    }
    return error?.message ?? null;
  };
  return {
    alarms: () =>
      alarms.get(AlarmType.none).map(({ memberId, alarm }) => ({
        memberId,
        alarm: ALARM_NAMES.get(alarm) ?? 'UNKNOWN',
      })),
    leader: () => member.leader,
    isLearner: () => raft.isLearner,
    serializableRead: (_timeoutMs, done) => done(read(reads.local)),
    linearizableRead: (timeoutMs, done) => {
      let isAnswered = false;
      const answer = (error: string | null): void => {
        if (isAnswered) return;
        isAnswered = true;
        done(error);
      };
      member.read({
        ready: () => answer(read(reads.linearizable)),
        failed: (error: EtcdError) => answer(error.message),
      });
      if (timeoutMs !== null) setTimer(timeoutMs, () => answer('context deadline exceeded'));
    },
    versions: () => ({
      server: etcdVersion,
      cluster: cluster.version ?? null,
      storage: member.storageVersion.text,
    }),
    clusterId: () => cluster.id.toString(16),
    hashByRevision: (revision, done) => hashByRevision(member, revision, done),
    isDowngrading: () => cluster.downgrade.isEnabled,
    members: () => ({ clusterId: cluster.id.toString(16), json: encodeMembers(cluster.members()) }),
    promote: (id) =>
      new Promise((resolve) =>
        member.membership.promote(id, (error, members) =>
          resolve(error === null ? encodeMembers(members) : { status: error, reason: promotionErrorText(error) }),
        ),
      ),
    lease: (path, request) => leases.handle(path, request),
    metricsText,
    debugVariables: () => ({ 'raft.status': raftStatusJson(raft.status()) }),
  };
}
