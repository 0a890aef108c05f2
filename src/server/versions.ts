// The versions of a cluster, as etcd's monitor looks after them (server/etcdserver/version/monitor.go): the leader sets the
// cluster's to the lowest that a member has, lets it fall when a downgrade was asked for, and ends the downgrade when every
// member has arrived. Every member lets the version of its storage follow. Who asks for a downgrade is answered by downgrades.ts.

import { versionLookMs } from '../cluster-limits.ts';
import { requestTimeoutBaseMs } from '../limits.ts';
import { hexId } from '../membership/cluster.ts';
import {
  clusterVersionOf,
  isLess,
  isSame,
  isValidDowngrade,
  minClusterVersion,
  parseVersion,
  type SemanticVersion,
  versionText,
} from '../membership/semantic-version.ts';
import { ClusterVersionSetRequest, DowngradeInfoSetRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import type { MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';
import { type MemberVersions, memberVersions } from './member-versions.ts';
import type { Proposals } from './proposals.ts';
import type { StorageVersion } from './storage-version.ts';

const CALLER = 'server/versions.ts';

export class Versions {
  private readonly parts: MemberParts;
  private readonly log: MemberLog;
  private readonly proposals: Proposals;
  private readonly storage: StorageVersion;
  private isAsking = false;
  private isCancelling = false;
  private nextLookMs: number;
  private nextDowngradeLookMs: number;

  constructor(parts: MemberParts, log: MemberLog, proposals: Proposals, storage: StorageVersion) {
    this.parts = parts;
    this.log = log;
    this.proposals = proposals;
    this.storage = storage;
    this.nextLookMs = parts.nowMs() + versionLookMs;
    this.nextDowngradeLookMs = parts.nowMs() + parts.checks.downgradeMs;
  }

  /** This member leads, and has applied everything of the terms before. */
  leads(): void {
    this.updateClusterVersion();
  }

  /** Once a raft tick. */
  tick(nowMs: number): void {
    if (nowMs >= this.nextLookMs) {
      this.nextLookMs = nowMs + versionLookMs;
      this.storage.followBetweenApplies();
      this.updateClusterVersion();
    }
    const { downgradeMs } = this.parts.checks;
    if (downgradeMs === 0 || nowMs < this.nextDowngradeLookMs) return;
    this.nextDowngradeLookMs = nowMs + downgradeMs;
    this.cancelDowngradeIfDone();
  }

  private ask(done: (versions: MemberVersions) => void): void {
    memberVersions(this.parts, requestTimeoutBaseMs + 2 * this.parts.electionMs, done);
  }

  // --- The cluster's version ---

  private updateClusterVersion(): void {
    if (this.isAsking || !this.parts.raft.isLeader) return;
    this.isAsking = true;
    this.ask((versions) => {
      this.isAsking = false;
      if (this.proposals.isStopped) return;
      const version = this.decide(this.lowest(versions));
      if (version !== null) this.setClusterVersion(versionText(clusterVersionOf(version)));
    });
  }

  /** The version to set, or null: it stays. `lowest` null: not every member told its own. */
  private decide(lowest: SemanticVersion | null): SemanticVersion | null {
    const { cluster } = this.parts;
    const current = cluster.version === undefined ? null : parseVersion(cluster.version);
    if (current === null) return lowest ?? minClusterVersion;
    if (lowest === null) return null;
    if (cluster.downgrade.isEnabled) return this.decideDowngrade(current, lowest);
    const isNewer = current.major === lowest.major && isLess(current, clusterVersionOf(lowest));
    return isNewer ? lowest : null;
  }

  private decideDowngrade(current: SemanticVersion, lowest: SemanticVersion): SemanticVersion | null {
    const { logger, cluster } = this.parts;
    const { targetVersion } = cluster.downgrade;
    const target = parseVersion(targetVersion);
    if (target !== null && isSame(target, current)) return null;
    const isWrong = (from: SemanticVersion, name: string): boolean => {
      if (target !== null && isValidDowngrade(from, target)) return false;
      const fields = { 'downgrade-target': targetVersion, [name]: versionText(from) };
      logger.error(CALLER, `Cannot downgrade from ${name} to downgrade-target`, fields);
      logger.error(CALLER, 'Failed to monitor cluster version', { error: 'invalid downgrade target' });
      return true;
    };
    return isWrong(current, 'cluster-version') || isWrong(lowest, 'minimal-server-version') ? null : target;
  }

  /** Null when a member's is not known. */
  private lowest(versions: MemberVersions): SemanticVersion | null {
    const { logger, serverVersion } = this.parts;
    const own = parseVersion(serverVersion)!;
    let lowest: SemanticVersion | null = null;
    for (const [id, versionsOf] of versions) {
      if (versionsOf === null) return null;
      const version = this.parse(id, versionsOf.server);
      if (version === null) return null;
      if (isLess(own, version)) {
        logger.warn(CALLER, 'leader found higher-versioned member', {
          'local-member-version': serverVersion,
          'remote-member-id': hexId(id),
          'remote-member-version': versionsOf.server,
        });
      }
      if (lowest === null || isLess(version, lowest)) lowest = version;
    }
    return lowest;
  }

  private parse(id: bigint, server: string): SemanticVersion | null {
    const version = parseVersion(server);
    if (version !== null) return version;
    const fields = { 'remote-member-id': hexId(id), 'remote-member-version': server };
    this.parts.logger.warn(CALLER, 'failed to parse server version of remote member', fields);
    return null;
  }

  private setClusterVersion(version: string): void {
    const { logger, cluster } = this.parts;
    this.log.settingClusterVersion(cluster.version, version);
    const request = encode(ClusterVersionSetRequest, { ver: version });
    this.proposals.proposeOwn(RequestField.clusterVersionSet, request, (error) => {
      if (error === null) this.log.clusterVersionUpdated(version);
      else if (error === etcdErrors.stopped) {
        logger.warn(CALLER, 'aborting cluster version update; server is stopped', { error: error.message });
      } else logger.warn(CALLER, 'failed to update cluster version', { error: error.message });
    });
  }

  // --- The end of a downgrade ---

  private cancelDowngradeIfDone(): void {
    const { cluster, raft, logger } = this.parts;
    const target = parseVersion(cluster.downgrade.targetVersion);
    if (this.isCancelling || !raft.isLeader || !cluster.downgrade.isEnabled || target === null) return;
    this.isCancelling = true;
    this.ask((versions) => {
      const isDone = !this.proposals.isStopped && cluster.downgrade.isEnabled && this.haveArrived(versions, target);
      if (!isDone) {
        this.isCancelling = false;
        return;
      }
      logger.info(CALLER, 'the cluster has been downgraded', { 'cluster-version': cluster.downgrade.targetVersion });
      const request = encode(DowngradeInfoSetRequest, { enabled: false, ver: '' });
      this.proposals.proposeOwn(RequestField.downgradeInfoSet, request, (error) => {
        this.isCancelling = false;
        if (error !== null) logger.warn(CALLER, 'failed to cancel downgrade', { error: error.message });
      });
    });
  }

  private haveArrived(versions: MemberVersions, target: SemanticVersion): boolean {
    for (const [id, versionsOf] of versions) {
      const version = versionsOf === null ? null : this.parse(id, versionsOf.server);
      if (version === null) return false;
      const minor = clusterVersionOf(version);
      if (isSame(minor, clusterVersionOf(target))) continue;
      this.parts.logger.warn(CALLER, 'remotes server has mismatching etcd version', {
        'remote-member-id': hexId(id),
        'current-server-version': versionText(minor),
        'target-version': versionText(target),
      });
      return false;
    }
    return true;
  }
}
