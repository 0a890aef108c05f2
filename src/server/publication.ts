// A member's word to its cluster: its name and its client URLs, through raft, and the first time the cluster's version too. A member
// serves when that has come through; until then it is tried again.

import { ClusterMemberAttrSetRequest, ClusterVersionSetRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import type { MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';
import type { Proposals } from './proposals.ts';

export class Publication {
  private readonly parts: MemberParts;
  private readonly log: MemberLog;
  private readonly proposals: Proposals;
  private onFirst: (() => void) | null = null;
  private hasFailed = false;

  constructor(parts: MemberParts, log: MemberLog, proposals: Proposals) {
    this.parts = parts;
    this.log = log;
    this.proposals = proposals;
  }

  /** Calls `done` when it has come through for the first time. */
  whenFirst(done: () => void): void {
    this.onFirst = done;
  }

  /** Once more, if the last time failed. Not from the failure itself: what refuses at once would call itself without end. */
  retry(): void {
    if (!this.hasFailed) return;
    this.hasFailed = false;
    this.publish();
  }

  publish(): void {
    const { id, name, clientUrls, cluster, clusterVersion, logger } = this.parts;
    const attributes = encode(ClusterMemberAttrSetRequest, { memberId: id, memberAttributes: { name, clientUrls } });
    this.proposals.proposeOwn(RequestField.clusterMemberAttrSet, attributes, (error) => {
      if (error !== null) {
        this.log.publishFailed(error);
        this.hasFailed = true;
        return;
      }
      this.log.published(name, clientUrls);
      const { onFirst } = this;
      this.onFirst = null;
      onFirst?.();
    });
    if (cluster.version !== undefined) return;
    this.log.settingClusterVersion(clusterVersion);
    const version = encode(ClusterVersionSetRequest, { ver: clusterVersion });
    this.proposals.proposeOwn(RequestField.clusterVersionSet, version, (error) => {
      if (error === null) return;
      logger.warn('server/publication.ts', 'failed to set the cluster version', { error: error.message });
    });
  }
}
