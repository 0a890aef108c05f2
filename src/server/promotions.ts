// Promotions of learners: only the leader knows how far a learner is, so that another member asks it, over its peer listener
// (POST /members/promote/<id>, PromoteMember and promoteMemberHTTP of etcd), and again while it does not answer, until etcd's request
// timeout. What the leader checks and proposes is membership.ts.

import { appliedWaitMs } from '../cluster-limits.ts';
import type { Member as ClusterMember } from '../membership/cluster.ts';
import type { PeerAnswer } from '../peer/peer-transport.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { decodeMemberList } from '../snapshot/schema.ts';
import type { MemberParts } from './member-parts.ts';
import type { MembersWaiter } from './membership.ts';
import { askPeer } from './peer-question.ts';

export const NO_MEMBERS: readonly ClusterMember[] = [];

interface Promotion {
  readonly id: bigint;
  readonly done: MembersWaiter;
  /** What was committed when it was asked for has to be applied first, within appliedWaitMs of then. */
  readonly waitsFor: number;
  readonly sinceMs: number;
  /** When the leader was first looked for; null while this member may still be it. */
  forwardedMs: number | null;
  /** A proposal or a request is on its way: it answers for itself. */
  isAsking: boolean;
}

/** How etcd's server calls the errors of a promotion, in its peers' answers and its metric. */
export function promotionErrorText(error: EtcdError): string {
  if (error === etcdErrors.memberNotFound) return 'membership: ID not found';
  if (error === etcdErrors.memberNotLearner) return 'membership: can only promote a learner member';
  return error.message;
}

export class Promotions {
  private readonly parts: MemberParts;
  private readonly requestTimeoutMs: number;
  private readonly promoteHere: (id: bigint, done: MembersWaiter) => void;
  /** Oldest first. */
  private waiting: Promotion[] = [];

  /** `promoteHere` is called while this member leads. */
  constructor(parts: MemberParts, requestTimeoutMs: number, promoteHere: (id: bigint, done: MembersWaiter) => void) {
    this.parts = parts;
    this.requestTimeoutMs = requestTimeoutMs;
    this.promoteHere = promoteHere;
  }

  get count(): number {
    return this.waiting.length;
  }

  add(id: bigint, done: MembersWaiter): void {
    const { raft, nowMs } = this.parts;
    const sinceMs = nowMs();
    const waitsFor = raft.committedIndex;
    const promotion = { id, done, waitsFor, sinceMs, forwardedMs: null, isAsking: false };
    this.waiting.push(promotion);
    this.advance(promotion, sinceMs);
  }

  /** Once a raft tick. */
  tick(nowMs: number): void {
    for (const promotion of [...this.waiting]) this.advance(promotion, nowMs);
  }

  stop(): void {
    for (const promotion of [...this.waiting]) this.end(promotion, etcdErrors.stopped, NO_MEMBERS);
  }

  private advance(promotion: Promotion, nowMs: number): void {
    const { raft } = this.parts;
    const { sinceMs, forwardedMs } = promotion;
    if (forwardedMs !== null && nowMs - forwardedMs > this.requestTimeoutMs) {
      const hasLeader = this.leader() !== undefined;
      this.end(promotion, hasLeader ? etcdErrors.timeout : etcdErrors.noLeader, NO_MEMBERS);
    } else if (promotion.isAsking) return;
    else if (raft.appliedIndex < promotion.waitsFor) {
      if (nowMs - sinceMs > appliedWaitMs) this.endHere(promotion, etcdErrors.timeoutWaitAppliedIndex, NO_MEMBERS);
    } else if (raft.isLeader) {
      promotion.isAsking = true;
      this.promoteHere(promotion.id, (error, members) => this.endHere(promotion, error, members));
    } else this.askLeader(promotion, nowMs);
  }

  private leader(): ClusterMember | undefined {
    return this.parts.cluster.member(this.parts.raft.lead);
  }

  private askLeader(promotion: Promotion, nowMs: number): void {
    promotion.forwardedMs ??= nowMs;
    const leader = this.leader();
    if (leader === undefined) return;
    if (leader.peerUrls.length === 0) {
      this.end(promotion, etcdErrors.noLeader, NO_MEMBERS);
      return;
    }
    promotion.isAsking = true;
    const timeoutMs = this.requestTimeoutMs;
    const request = { method: 'POST', path: `/members/promote/${promotion.id}`, timeoutMs } as const;
    askPeer<ClusterMember[] | EtcdError>(this.parts.peerRequests, leader.peerUrls, {
      request: () => request,
      read: (answer) => (typeof answer === 'string' ? null : readAnswer(answer)),
      done: (result) => {
        // The next tick begins anew: the leader may be another by then.
        if (result === null) promotion.isAsking = false;
        else if (Array.isArray(result)) this.end(promotion, null, result);
        else this.end(promotion, result, NO_MEMBERS);
      },
    });
  }

  /** As the leader's own: these are counted. */
  private endHere(promotion: Promotion, error: EtcdError | null, members: readonly ClusterMember[]): void {
    this.parts.counters.observePromotion(error === null ? null : promotionErrorText(error));
    this.end(promotion, error, members);
  }

  private end(promotion: Promotion, error: EtcdError | null, members: readonly ClusterMember[]): void {
    const at = this.waiting.indexOf(promotion);
    // Its time was up before the answer came.
    if (at < 0) return;
    this.waiting.splice(at, 1);
    promotion.done(error, members);
  }
}

/** The members, what refuses the promotion for good, or null: to be asked again. */
function readAnswer({ status, body }: PeerAnswer): ClusterMember[] | EtcdError | null {
  const text = body.toString();
  if (status === 404) return etcdErrors.memberNotFound;
  if (status === 412) {
    if (text.includes(etcdErrors.learnerNotReady.message)) return etcdErrors.learnerNotReady;
    return text.includes(promotionErrorText(etcdErrors.memberNotLearner)) ? etcdErrors.memberNotLearner : null;
  }
  return status === 200 ? decodeMemberList(body) : null;
}
