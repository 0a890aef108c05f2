// What a leader does for leases as time goes by: it proposes the revocation of the expired ones and, where that is on, checkpoints
// of the remaining time of the others. lease/lessor.ts knows which are due.

import type { Lease } from '../lease/lessor.ts';
import { leaseCheckpointsMax, leaseTickMs } from '../limits.ts';
import { LeaseCheckpointRequest, LeaseRevokeRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import type { MemberParts } from './member-parts.ts';
import type { Proposals } from './proposals.ts';

export class LeaseUpkeep {
  private readonly parts: MemberParts;
  private readonly proposals: Proposals;
  /** Proposed and not answered. */
  private readonly revoking = new Set<bigint>();
  private lastMs = 0;

  constructor(parts: MemberParts, proposals: Proposals) {
    this.parts = parts;
    this.proposals = proposals;
  }

  tick(nowMs: number): void {
    if (nowMs - this.lastMs < leaseTickMs) return;
    this.lastMs = nowMs;
    const { lessor } = this.parts;
    for (const lease of lessor.takeExpired()) this.revoke(lease);
    const checkpoints = lessor.takeCheckpoints(leaseCheckpointsMax);
    if (checkpoints.length === 0) return;
    // One that is lost lets its leases live longer, never shorter.
    this.proposals.proposeOwn(RequestField.leaseCheckpoint, encode(LeaseCheckpointRequest, { checkpoints }), () => {});
  }

  private revoke(lease: Lease): void {
    if (this.revoking.has(lease.id)) return;
    this.revoking.add(lease.id);
    this.proposals.proposeOwn(RequestField.leaseRevoke, encode(LeaseRevokeRequest, { id: lease.id }), (error) => {
      this.revoking.delete(lease.id);
      if (error !== null && error !== etcdErrors.leaseNotFound) this.parts.lessor.retry(lease);
    });
  }
}
