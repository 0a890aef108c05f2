// What clients may ask about a downgrade of the cluster, as etcd's Manager answers it: each question reads through the quorum first, so
// that an older state decides nothing. What then happens is the monitor's (versions.ts).

import {
  isValidDowngrade,
  majorMinor,
  parseTarget,
  parseVersion,
  versionText,
} from '../membership/semantic-version.ts';
import { DowngradeInfoSetRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { MemberParts } from './member-parts.ts';
import type { Proposals } from './proposals.ts';
import type { ReadWaiter } from './read-queue.ts';

const CALLER = 'server/downgrades.ts';

/** `version` is the cluster's, e.g. 3.7. */
type Done = (error: EtcdError | null, version: string) => void;

export class Downgrades {
  private readonly parts: MemberParts;
  private readonly proposals: Proposals;
  private readonly read: (waiter: ReadWaiter) => void;

  constructor(parts: MemberParts, proposals: Proposals, read: (waiter: ReadWaiter) => void) {
    this.parts = parts;
    this.proposals = proposals;
    this.read = read;
  }

  /** Whether a downgrade to `version` may be enabled now. */
  validate(version: string, done: Done): void {
    const clusterVersion = this.clusterVersion;
    this.check(version, (error) => done(error, clusterVersion));
  }

  enable(version: string, done: Done): void {
    const reject = (error: EtcdError): void => {
      const fields = { error: error.message, 'cluster-version': this.clusterVersion, 'target-version': version };
      this.parts.logger.warn(CALLER, 'reject downgrade request', fields);
      done(error, '');
    };
    this.check(version, (error) => {
      if (error !== null) reject(error);
      else {
        const request = { enabled: true, ver: versionText(parseTarget(version)!) };
        this.propose(request, (failure) => (failure === null ? done(null, this.clusterVersion) : reject(failure)));
      }
    });
  }

  /** A success even when there was nothing to cancel, as in etcd. */
  cancel(done: Done): void {
    const end = (error: EtcdError | null): void => {
      if (error !== null) this.parts.logger.warn(CALLER, 'failed to cancel downgrade', { error: error.message });
      done(null, this.clusterVersion);
    };
    this.read({
      ready: () => {
        if (this.parts.cluster.downgrade.isEnabled) this.propose({ enabled: false, ver: '' }, end);
        else end(etcdErrors.noInflightDowngrade);
      },
      failed: end,
    });
  }

  private get clusterVersion(): string {
    return majorMinor(this.parts.cluster.version ?? '');
  }

  private check(version: string, done: (error: EtcdError | null) => void): void {
    const target = parseTarget(version);
    if (target === null) {
      done(etcdErrors.wrongDowngradeVersionFormat);
      return;
    }
    const { cluster } = this.parts;
    if (cluster.version === undefined) {
      done(etcdErrors.clusterVersionUnavailable);
      return;
    }
    this.read({
      ready: () => {
        const current = parseVersion(cluster.version!)!;
        if (!isValidDowngrade(current, target)) done(etcdErrors.invalidDowngradeTargetVersion);
        else done(cluster.downgrade.isEnabled ? etcdErrors.downgradeInProcess : null);
      },
      failed: done,
    });
  }

  private propose(request: { enabled: boolean; ver: string }, done: (error: EtcdError | null) => void): void {
    const message = encode(DowngradeInfoSetRequest, request);
    const error = this.proposals.propose(RequestField.downgradeInfoSet, message, 0, message.length, {
      applied: (applier) => done(applier.error),
      failed: done,
    });
    if (error !== null) done(error);
  }
}
