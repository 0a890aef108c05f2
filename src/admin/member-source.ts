// What the HTTP endpoints ask, answered by the member: alarms, leader, reads through the quorum and of the local store, versions.

import { ByteWriter } from '../base/byte-writer.ts';
import { AlarmType } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { RangeRequest } from '../proto/kv-request.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import type { Member } from '../server/member.ts';
import { rangeText } from '../server/request-text.ts';
import type { AdminSource } from './admin.ts';
import type { AlarmName } from './health.ts';

const ALARM_NAMES: ReadonlyMap<number, AlarmName> = new Map([
  [AlarmType.noSpace, 'NOSPACE'],
  [AlarmType.corrupt, 'CORRUPT'],
]);

export interface MemberSourceOptions {
  readonly member: Member;
  readonly etcdVersion: string;
  readonly metricsText: () => Promise<string>;
  readonly setTimer: (delayMs: number, callback: () => void) => unknown;
}

export function memberSource(options: MemberSourceOptions): AdminSource {
  const { member, etcdVersion, metricsText, setTimer } = options;
  const { alarms, cluster, counters, nowMs, raft, store, warningApplyMs } = member.parts;
  // /health/ reads one key, as etcd does; what it holds does not matter.
  const request = new RangeRequest();
  const key = Buffer.from([0x0a, 0x01, 0x61]);
  request.parse(key, 0, key.length);
  const body = new ByteWriter(1024);
  const readLocally = (): string | null => {
    const startMs = nowMs();
    body.reset();
    const error = store.range(request, body);
    const tookMs = nowMs() - startMs;
    const seconds = tookMs / 1000;
    counters.observeRange(error === null, seconds);
    counters.observeRequest(RequestField.range, error === null, seconds);
    if (tookMs > warningApplyMs) {
      member.log.slowRead('read-only range ', rangeText(request), `size:${body.length}`, tookMs);
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
    serializableRead: (_timeoutMs, done) => done(readLocally()),
    linearizableRead: (timeoutMs, done) => {
      let isAnswered = false;
      const answer = (error: string | null): void => {
        if (isAnswered) return;
        isAnswered = true;
        done(error);
      };
      member.read({
        ready: () => answer(readLocally()),
        failed: (error: EtcdError) => answer(error.message),
      });
      if (timeoutMs !== null) setTimer(timeoutMs, () => answer('context deadline exceeded'));
    },
    versions: () => ({
      server: etcdVersion,
      cluster: cluster.version ?? null,
      storage: cluster.version ?? null,
    }),
    metricsText,
    debugVariables: () => ({
      'raft.status': JSON.stringify(raft.status(), (_name, value: unknown) =>
        typeof value === 'bigint' ? value.toString(16) : value,
      ),
    }),
  };
}
