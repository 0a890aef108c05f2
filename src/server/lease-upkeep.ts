// What a leader does for leases as time goes by: it proposes the revocation of the expired ones and, where that is on, checkpoints
// of the remaining time of the others. lease/lessor.ts knows which are due, leader-check.ts whether this member may.
//
//   expired ──tick, still the leader──> due ──submit, by the leader alone──> proposed ──applied──> gone
//      └──────────────────────── failed, or not the leader any more ──────────────┘

import type { Lease } from '../lease/lessor.ts';
import { leaseCheckpointsMax, leaseTickMs } from '../limits.ts';
import { type Cluster, hexId } from '../membership/cluster.ts';
import { isLess, parseVersion } from '../membership/semantic-version.ts';
import { LeaseCheckpointRequest, LeaseRevokeRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { NONE } from '../raft/types.ts';
import type { LeaderCheck } from './leader-check.ts';
import type { MemberParts } from './member-parts.ts';
import type { Proposals } from './proposals.ts';

const CALLER = 'server/lease-upkeep.ts';

/** From this version of a cluster on all its members store checkpoints, whatever their flags say. */
const storedFrom = { major: 3, minor: 6, patch: 0 } as const;

export function storesCheckpoints({ version }: Cluster): boolean {
  const parsed = version === undefined ? null : parseVersion(version);
  return parsed !== null && !isLess(parsed, storedFrom);
}

export class LeaseUpkeep {
  private readonly parts: MemberParts;
  private readonly proposals: Proposals;
  private readonly check: LeaderCheck;
  private readonly wake: () => void;
  /** Expired, to be proposed with the next batch. No more than there are leases: the lessor hands each out once. */
  private due: Lease[] = [];
  /** A LeaseCheckpointRequest for the next batch. */
  private dueCheckpoint: Buffer | null = null;
  private lastMs = 0;
  private isChecking = false;

  constructor(parts: MemberParts, proposals: Proposals, check: LeaderCheck, wake: () => void) {
    this.parts = parts;
    this.proposals = proposals;
    this.check = check;
    this.wake = wake;
  }

  tick(nowMs: number): void {
    const { lessor } = this.parts;
    if (nowMs - this.lastMs < leaseTickMs) return;
    this.lastMs = nowMs;
    // One check at a time: the next tick finds again what this one did not get to do.
    if (!lessor.isPrimary || lessor.count === 0 || this.isChecking) return;
    this.isChecking = true;
    this.check.ensure((leads) => {
      this.isChecking = false;
      if (leads) this.collect();
      else this.leave();
    });
  }

  private leave(): void {
    const { lessor, logger, id } = this.parts;
    if (!lessor.hasExpired) return;
    const fields = { 'local-member-id': hexId(id) };
    logger.warn(CALLER, "Ignore the lease revoking request because current member isn't a leader", fields);
  }

  private collect(): void {
    const { lessor } = this.parts;
    for (const lease of lessor.takeExpired()) this.due.push(lease);
    const checkpoints = lessor.takeCheckpoints(leaseCheckpointsMax);
    if (checkpoints.length > 0) this.dueCheckpoint = encode(LeaseCheckpointRequest, { checkpoints });
    if (this.hasDue) this.wake();
  }

  get hasDue(): boolean {
    return this.due.length > 0 || this.dueCheckpoint !== null;
  }

  /**
   * Right before the turn's batch goes to raft: what is not appended by this member as leader is not proposed at all. A revocation
   * that waited for the next leader would end a lease to which that one has just given its whole TTL again. While leadership is given
   * away proposals do wait for the next leader: it stays due, until it is known who that is.
   */
  submit(): void {
    const { lessor, raft } = this.parts;
    if (!this.hasDue || raft.leadTransferee !== NONE) return;
    const { due, dueCheckpoint } = this;
    this.due = [];
    this.dueCheckpoint = null;
    if (!raft.isLeader) return;
    for (const lease of due) if (lessor.lookup(lease.id) === lease && lessor.isExpired(lease)) this.revoke(lease);
    // One that is lost lets its leases live longer, never shorter.
    if (dueCheckpoint !== null) this.proposals.proposeOwn(RequestField.leaseCheckpoint, dueCheckpoint, () => {});
  }

  private revoke(lease: Lease): void {
    const { lessor, logger } = this.parts;
    this.proposals.proposeOwn(RequestField.leaseRevoke, encode(LeaseRevokeRequest, { id: lease.id }), (error) => {
      if (error === null) return;
      const id = BigInt.asUintN(64, lease.id).toString(16).padStart(16, '0');
      logger.warn(CALLER, 'failed to revoke lease', { 'lease-id': id, error: error.message });
      if (error !== etcdErrors.leaseNotFound) lessor.retry(lease);
    });
  }
}
