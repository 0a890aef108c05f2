// Requests about leases that do not go through the log: renewals and remaining times, which only the leader's clock knows. A member
// that does not lead asks the leader at its peer listener (/leases, /leases/internal of admin/lease-endpoints.ts) until it gets an
// answer or its time is over. Follows etcd's LeaseRenew and LeaseTimeToLive (v3_server.go) and lessor.Renew; grants and revocations are
// proposals like others. What the leader does by itself is lease-upkeep.ts.
//
//   renew ── leads? ──yes──> certain of it? (leader-check.ts) ──> applied what is committed? ──> lessor
//               └─no──> the leader, again every now and then <────────── not primary ──────────────┘

import { leaseApplyWaitMs, leaseForwardPauseMs } from '../cluster-limits.ts';
import { type Lease, notPrimary } from '../lease/lessor.ts';
import { LeaseCheckpointRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { LeaderCheck } from './leader-check.ts';
import { keepAliveMessages, type LeaseMessages, type RemoteLease, timeToLiveMessages } from './lease-messages.ts';
import { LeaseUpkeep } from './lease-upkeep.ts';
import type { MemberParts } from './member-parts.ts';
import { askPeer } from './peer-question.ts';
import type { Proposals } from './proposals.ts';
import type { ReadWaiter } from './read-queue.ts';

export type { Lease } from '../lease/lessor.ts';

/** Whoever asks; one that is gone needs no answer. */
export interface LeaseCaller {
  readonly ended: boolean;
}

/** The TTL, or why not. */
export type Renewed = (result: number | EtcdError) => void;
/** The lease itself on the leader, what the leader said of it elsewhere. */
export type Found = (result: Lease | RemoteLease | EtcdError) => void;

interface WaitsForApply {
  readonly index: number;
  readonly untilMs: number;
  readonly then: (inTime: boolean) => void;
}

/** On its way to the leader. As many as there are callers that wait: a stream of renewals has one at a time. */
interface Forward {
  readonly id: bigint;
  readonly keys: boolean;
  readonly messages: LeaseMessages;
  readonly pauseMs: number;
  readonly caller: LeaseCaller;
  readonly untilMs: number;
  readonly done: (result: number | RemoteLease | Lease | EtcdError) => void;
  /** A try is under way; else the next one begins after `retryMs`. */
  isAsking: boolean;
  /** What an older one brings is not listened to. */
  tries: number;
  retryMs: number;
  isOver: boolean;
}

export class Leases {
  private readonly parts: MemberParts;
  private readonly proposals: Proposals;
  private readonly check: LeaderCheck;
  private readonly upkeep: LeaseUpkeep;
  private readonly requestTimeoutMs: number;
  private unapplied: WaitsForApply[] = [];
  private readonly forwards: Set<Forward> = new Set();

  constructor(
    parts: MemberParts,
    proposals: Proposals,
    loop: { readonly read: (waiter: ReadWaiter) => void; readonly wake: () => void; readonly requestTimeoutMs: number },
  ) {
    this.parts = parts;
    this.proposals = proposals;
    this.check = new LeaderCheck(parts, loop.read);
    this.upkeep = new LeaseUpkeep(parts, proposals, this.check, loop.wake);
    this.requestTimeoutMs = loop.requestTimeoutMs;
  }

  // --- For clients ---

  renew(id: bigint, caller: LeaseCaller, done: Renewed): void {
    if (!this.parts.raft.isLeader) this.forwardRenewal(id, caller, done);
    else this.check.ensure((leads) => (leads ? this.renewAsLeader(id, caller, done) : done(notPrimary)));
  }

  private renewAsLeader(id: bigint, caller: LeaseCaller, done: Renewed): void {
    const { lessor, fastLeaseKeepAlive } = this.parts;
    const renew = (): void =>
      this.renewHere(id, (result) => {
        if (result === notPrimary) this.forwardRenewal(id, caller, done);
        else done(result);
      });
    // One that is not there may be granted by an entry that is committed and not applied.
    if (fastLeaseKeepAlive && lessor.lookup(id) !== undefined) renew();
    else this.afterApply((inTime) => (inTime ? renew() : done(etcdErrors.timeoutWaitAppliedIndex)));
  }

  private forwardRenewal(id: bigint, caller: LeaseCaller, done: Renewed): void {
    const then = (result: number | RemoteLease | Lease | EtcdError): void => done(result as number | EtcdError);
    this.forward(keepAliveMessages, id, false, leaseForwardPauseMs, caller, then);
  }

  timeToLive(id: bigint, keys: boolean, caller: LeaseCaller, done: Found): void {
    if (this.parts.raft.isLeader) this.lookUp(id, etcdErrors.leaderChanged, done);
    else this.forward(timeToLiveMessages, id, keys, 0, caller, (result) => done(result as RemoteLease | EtcdError));
  }

  // --- For peers, and for a leader that is not primary yet ---

  /** etcd's /leases: notPrimary, leaseNotFound, timeoutWaitAppliedIndex or a TTL. */
  renewForPeer(id: bigint, done: Renewed): void {
    this.afterApply((inTime) => (inTime ? this.renewHere(id, done) : done(etcdErrors.timeoutWaitAppliedIndex)));
  }

  /** etcd's /leases/internal, with the same errors. */
  lookUpForPeer(id: bigint, done: (result: Lease | EtcdError) => void): void {
    this.lookUp(id, notPrimary, done);
  }

  private lookUp(id: bigint, demoted: EtcdError, done: (result: Lease | EtcdError) => void): void {
    this.afterApply((inTime) => {
      const { lessor } = this.parts;
      const lease = lessor.lookup(id);
      if (!inTime) done(etcdErrors.timeoutWaitAppliedIndex);
      else if (lease === undefined) done(etcdErrors.leaseNotFound);
      else done(lessor.isDemoted(lease) ? demoted : lease);
    });
  }

  /** etcd's lessor.Renew. */
  private renewHere(id: bigint, done: Renewed): void {
    const { lessor } = this.parts;
    const lease = lessor.lookup(id);
    if (!lessor.isPrimary || lease === undefined) {
      done(lessor.renew(id));
      return;
    }
    // Revoked: gone. Still there: leadership went away before the revocation was applied.
    const waits = lessor.renewalMustWait(lease, () =>
      done(lessor.lookup(id) === lease ? notPrimary : etcdErrors.leaseNotFound),
    );
    if (waits) return;
    if (lessor.renewalMustClear(lease)) this.clearThenRenew(id, done);
    else done(lessor.renew(id));
  }

  /** The remaining TTL of the last checkpoint goes first, through raft. What comes of it etcd does not look at either. */
  private clearThenRenew(id: bigint, done: Renewed): void {
    this.check.ensure((leads) => {
      if (!leads) {
        done(notPrimary);
        return;
      }
      const message = encode(LeaseCheckpointRequest, { checkpoints: [{ id, remainingTtl: 0n }] });
      const renew = (): void => done(this.parts.lessor.renew(id));
      const waiter = { applied: renew, failed: renew };
      const error = this.proposals.propose(RequestField.leaseCheckpoint, message, 0, message.length, waiter);
      if (error !== null) renew();
    });
  }

  // --- Waiting for the state machine ---

  private afterApply(then: (inTime: boolean) => void): void {
    const { raft, nowMs } = this.parts;
    if (raft.appliedIndex >= raft.committedIndex) then(true);
    else this.unapplied.push({ index: raft.committedIndex, untilMs: nowMs() + leaseApplyWaitMs, then });
  }

  /** Once a turn of the member's loop. */
  applied(index: number): void {
    // In the order of their indexes: the commit index does not go back.
    while (this.unapplied.length > 0 && this.unapplied[0]!.index <= index) this.unapplied.shift()!.then(true);
  }

  // --- Asking the leader ---

  private forward(
    messages: LeaseMessages,
    id: bigint,
    keys: boolean,
    pauseMs: number,
    caller: LeaseCaller,
    done: Forward['done'],
  ): void {
    const nowMs = this.parts.nowMs();
    const untilMs = nowMs + this.requestTimeoutMs;
    const state = { isAsking: false, tries: 0, retryMs: nowMs, isOver: false };
    const forward: Forward = { id, keys, messages, pauseMs, caller, untilMs, done, ...state };
    this.forwards.add(forward);
    this.attempt(forward);
  }

  private attempt(forward: Forward): void {
    const { cluster, raft, id } = this.parts;
    forward.isAsking = false;
    const attempt = ++forward.tries;
    const leader = cluster.member(raft.lead);
    // Without one the next tick looks again.
    if (leader === undefined) return;
    if (leader.peerUrls.length === 0) {
      this.end(forward, etcdErrors.noLeader);
      return;
    }
    forward.isAsking = true;
    const isOver = (): boolean => forward.isOver || forward.tries !== attempt;
    if (leader.id === id) this.askMyself(forward, isOver);
    else this.askAt(leader.peerUrls, forward, isOver);
  }

  private askAt(urls: readonly string[], forward: Forward, isOver: () => boolean): void {
    const { messages, id, keys, untilMs } = forward;
    askPeer<number | RemoteLease | EtcdError>(this.parts.peerRequests, urls, {
      request: () => messages.request(id, keys, untilMs - this.parts.nowMs()),
      read: (answer) => {
        if (typeof answer === 'string') return null;
        if (answer.status === 404) return etcdErrors.leaseNotFound;
        return answer.status === 200 ? messages.result(answer.body, id) : null;
      },
      done: (result) => (result === null ? this.retryLater(forward) : this.end(forward, result)),
      isOver,
    });
  }

  /** This member leads and is not primary before it has applied its first entry; etcd asks its own listener then. */
  private askMyself(forward: Forward, isOver: () => boolean): void {
    const heard = (result: number | Lease | EtcdError): void => {
      if (isOver()) return;
      const isError = typeof result === 'object' && 'code' in result;
      if (isError && result !== etcdErrors.leaseNotFound) this.retryLater(forward);
      else this.end(forward, result);
    };
    if (forward.messages === keepAliveMessages) this.renewForPeer(forward.id, heard);
    else this.lookUpForPeer(forward.id, heard);
  }

  private retryLater(forward: Forward): void {
    forward.isAsking = false;
    forward.retryMs = this.parts.nowMs() + forward.pauseMs;
  }

  private end(forward: Forward, result: number | RemoteLease | Lease | EtcdError): void {
    forward.isOver = true;
    this.forwards.delete(forward);
    if (!forward.caller.ended) forward.done(result);
  }

  // --- Time, and what the member's loop tells ---

  get hasDue(): boolean {
    return this.upkeep.hasDue;
  }

  /** Right before the turn's batch goes to raft. */
  submit(): void {
    this.upkeep.submit();
  }

  /**
   * What waits for the former leader, which may hold its connection and say nothing, turns to the one that there is now. etcd waits
   * until the time of the request is over; many leases would be, too.
   */
  leaderChanged(): void {
    this.check.leaderChanged();
    for (const forward of this.forwards) this.attempt(forward);
  }

  /** Once a raft tick. */
  tick(nowMs: number): void {
    this.check.tick(nowMs);
    this.upkeep.tick(nowMs);
    while (this.unapplied.length > 0 && this.unapplied[0]!.untilMs <= nowMs) this.unapplied.shift()!.then(false);
    for (const forward of this.forwards) this.tickForward(forward, nowMs);
  }

  private tickForward(forward: Forward, nowMs: number): void {
    if (forward.caller.ended) {
      forward.isOver = true;
      this.forwards.delete(forward);
    } else if (forward.untilMs <= nowMs) {
      // Whoever knows no leader says so.
      const isLeaderless = this.parts.cluster.member(this.parts.raft.lead) === undefined;
      this.end(forward, isLeaderless && !forward.isAsking ? etcdErrors.noLeader : etcdErrors.timeout);
    } else if (!forward.isAsking && forward.retryMs <= nowMs) this.attempt(forward);
  }

  stop(): void {
    for (const { then } of this.unapplied.splice(0)) then(false);
    for (const forward of this.forwards) this.end(forward, etcdErrors.stopped);
  }
}
