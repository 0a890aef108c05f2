// What etcd asks of every call before its handler (v3rpc/interceptor.go): a client that wants a leader (metadata `hasleader: true`,
// clientv3's WithRequireLeader) is refused while this member knows none, and its open streams end when that lasts; a version of the
// client's interface must be text. A learner serves the calls alone that read its own state: its status, a snapshot, and a serializable
// Range (rpc/kv.ts looks at that).

import { isUtf8 } from 'node:buffer';
import type { CallGate } from '../grpc/call-plan.ts';
import type { Status } from '../grpc/status.ts';
import { leaderlessChecksMax } from '../limits.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';

const WANTS_LEADER = 1;
const BAD_VERSION = 2;

/** The metadata of a client's version, and what it is counted as without it. */
export const CLIENT_VERSION = 'client-api-version';

/** Header values are bytes, one a character (http2/hpack-decoder.ts). */
export function isVersionText(version: string): boolean {
  return isUtf8(Buffer.from(version, 'latin1'));
}

const LEARNER_METHODS: ReadonlySet<string> = new Set([
  '/etcdserverpb.KV/Range',
  '/etcdserverpb.Maintenance/Snapshot',
  '/etcdserverpb.Maintenance/Status',
]);

export class Interceptor implements CallGate {
  private readonly hasLeader: () => boolean;
  private readonly isLearner: () => boolean;
  private leaderlessChecks = 0;

  constructor(hasLeader: () => boolean, isLearner: () => boolean) {
    this.hasLeader = hasLeader;
    this.isLearner = isLearner;
  }

  methodRefusal(path: string): Status | null {
    if (!this.isLearner() || LEARNER_METHODS.has(path)) return null;
    return etcdErrors.notSupportedForLearner as Status;
  }

  demandsOf(metadata: (name: string) => string | undefined): number {
    const wantsLeader = metadata('hasleader') === 'true' ? WANTS_LEADER : 0;
    return wantsLeader | (isVersionText(metadata(CLIENT_VERSION) ?? '') ? 0 : BAD_VERSION);
  }

  refusal(demands: number): Status | null {
    let error: EtcdError | null = null;
    if ((demands & BAD_VERSION) !== 0) error = etcdErrors.invalidClientAPIVersion;
    else if (!this.hasLeader()) error = etcdErrors.noLeader;
    return error as Status | null;
  }

  /**
   * To be called once an election timeout. True when streams that want a leader have to end: opening them again costs more than a
   * refused call, so they may wait for three elections, as in etcd.
   */
  isLeaderless(): boolean {
    this.leaderlessChecks = this.hasLeader() ? 0 : this.leaderlessChecks + 1;
    return this.leaderlessChecks >= leaderlessChecksMax;
  }
}
