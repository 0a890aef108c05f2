// etcd's log lines about changes of the membership, with etcd's keys (RaftCluster and EtcdServer): what was applied, and why a change
// was refused.

import { type Member as ClusterMember, hexId } from '../membership/cluster.ts';
import type { Readiness } from '../membership/readiness.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import { ConfChangeType } from '../raft/types.ts';
import type { LogFields } from '../telemetry/logger.ts';
import type { MemberParts } from './member-parts.ts';

const CALLER = 'server/membership-log.ts';

const TYPE_NAMES: Readonly<Record<ConfChangeType, string>> = {
  [ConfChangeType.addNode]: 'ConfChangeAddNode',
  [ConfChangeType.removeNode]: 'ConfChangeRemoveNode',
  [ConfChangeType.updateNode]: 'ConfChangeUpdateNode',
  [ConfChangeType.addLearnerNode]: 'ConfChangeAddLearnerNode',
};

/** As Go prints membership.Member with %+v. */
export function memberText({ id, peerUrls, isLearner, name, clientUrls }: ClusterMember): string {
  const raft = `{PeerURLs:[${peerUrls.join(' ')}] IsLearner:${isLearner}}`;
  return `{ID:${hexId(id)} RaftAttributes:${raft} Attributes:{Name:${name} ClientURLs:[${clientUrls.join(' ')}]}}`;
}

export class MembershipLog {
  private readonly logger: MemberParts['logger'];
  private readonly id: LogFields;
  private readonly ids: LogFields;

  constructor({ logger, id, cluster }: MemberParts) {
    this.logger = logger;
    this.id = { 'local-member-id': hexId(id) };
    this.ids = { 'cluster-id': hexId(cluster.id), ...this.id };
  }

  // --- What was applied ---

  added({ id, peerUrls, isLearner }: ClusterMember): void {
    this.logger.info(CALLER, 'added member', {
      ...this.ids,
      'added-peer-id': hexId(id),
      'added-peer-peer-urls': peerUrls,
      'added-peer-is-learner': isLearner,
    });
  }

  promoted(id: bigint): void {
    this.logger.info(CALLER, 'promote member', { ...this.ids, 'promoted-member-id': hexId(id) });
  }

  updated(id: bigint, peerUrls: readonly string[], isLearner: boolean): void {
    this.logger.info(CALLER, 'updated member', {
      ...this.ids,
      'updated-remote-peer-id': hexId(id),
      'updated-remote-peer-urls': peerUrls,
      'updated-remote-peer-is-learner': isLearner,
    });
  }

  removed({ id, peerUrls, isLearner }: ClusterMember): void {
    this.logger.info(CALLER, 'removed member', {
      ...this.ids,
      'removed-remote-peer-id': hexId(id),
      'removed-remote-peer-urls': peerUrls,
      'removed-remote-peer-is-learner': isLearner,
    });
  }

  /** `reason` in etcd's words. */
  refusedAtApply(reason: string): void {
    const fields = { shouldApplyV3: true, error: reason };
    this.logger.error(CALLER, 'Validation on configuration change failed', fields);
  }

  /** For whoever asked for it, be it refused or not. */
  answered(type: ConfChangeType, nodeId: bigint): void {
    this.logger.info(CALLER, 'applied a configuration change through raft', {
      ...this.id,
      'raft-conf-change': TYPE_NAMES[type],
      'raft-conf-change-node-id': hexId(nodeId),
    });
  }

  // --- Why nothing was proposed ---

  tooFewStarted(change: 'add' | 'remove' | 'promote', { startedCount, quorum }: Readiness): void {
    const fields = { 'number-of-started-member': startedCount, quorum, ...this.ids };
    this.logger.warn(CALLER, `rejecting member ${change}; started member will be less than quorum`, fields);
  }

  rejectedAdd(member: ClusterMember, reason: string, error: EtcdError): void {
    const fields = { ...this.id, 'requested-member-add': memberText(member), error: error.message };
    this.logger.warn(CALLER, `rejecting member add request; ${reason}`, fields);
  }

  rejectedRemove(id: bigint, error: EtcdError): void {
    const fields = { ...this.id, 'requested-member-remove-id': hexId(id), error: error.message };
    this.logger.warn(CALLER, 'rejecting member remove request; not enough healthy members', fields);
  }

  rejectedRemoveUnconnected(id: bigint, activeCount: number, error: EtcdError): void {
    const reason = 'local member has not been connected to all peers, reconfigure breaks active quorum';
    this.logger.warn(CALLER, `rejecting member remove request; ${reason}`, {
      ...this.id,
      'requested-member-remove': hexId(id),
      'active-peers': activeCount,
      error: error.message,
    });
  }

  /** The key is etcd's slip. */
  rejectedPromote(id: bigint, error: EtcdError): void {
    const fields = { ...this.id, 'requested-member-remove-id': hexId(id), error: error.message };
    this.logger.warn(CALLER, 'rejecting member promote request; not enough healthy members', fields);
  }

  learnerNotReady(share: number, threshold: number): void {
    const fields = { 'learner-ready-percent': share, 'ready-percent-threshold': threshold };
    this.logger.error(CALLER, 'rejecting promote learner: learner is not ready', fields);
  }
}
