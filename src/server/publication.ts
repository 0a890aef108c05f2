// A member's word to its cluster: its name and its client URLs, through raft. It serves when that has come through; until then it is
// tried again whenever there is a leader.

import { ClusterMemberAttrSetRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { NONE } from '../raft/types.ts';
import type { MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';
import type { Proposals } from './proposals.ts';

export class Publication {
  private readonly parts: MemberParts;
  private readonly log: MemberLog;
  private readonly proposals: Proposals;
  private onFirst: (() => void) | null = null;
  private isWanted = true;

  constructor(parts: MemberParts, log: MemberLog, proposals: Proposals) {
    this.parts = parts;
    this.log = log;
    this.proposals = proposals;
  }

  /** Calls `done` when it has come through for the first time. */
  whenFirst(done: () => void): void {
    this.onFirst = done;
  }

  /** There is a leader, or none. */
  leaderChanged(): void {
    this.tick();
  }

  /** Once more, if the last time failed. Not from the failure itself: what refuses at once would call itself without end. */
  tick(): void {
    const { raft, transport, id } = this.parts;
    if (!this.isWanted || raft.lead === NONE) return;
    // What is sent before there is a way would be lost, and waited for until its time-out.
    if (raft.lead === id || transport.activeSinceMs(raft.lead) !== null) this.publish();
  }

  private publish(): void {
    this.isWanted = false;
    const { id, name, clientUrls } = this.parts;
    const attributes = encode(ClusterMemberAttrSetRequest, { memberId: id, memberAttributes: { name, clientUrls } });
    this.proposals.proposeOwn(RequestField.clusterMemberAttrSet, attributes, (error) => {
      if (error !== null) {
        this.log.publishFailed(error);
        this.isWanted = true;
        return;
      }
      this.log.published();
      const { onFirst } = this;
      this.onFirst = null;
      onFirst?.();
    });
  }
}
