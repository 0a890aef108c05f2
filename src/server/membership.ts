// Changes of the membership that this member is asked for: what etcd refuses before it proposes (--strict-reconfig-check), the proposal,
// and who waits for its apply. What a change does is membership-change.ts, which refuses once more: only the order of the log decides.
// A promotion is the leader's alone (promotions.ts). Like etcd's, a change that a follower passed on and the leader dropped, because
// another one was not applied there yet, ends with its time-out; what this member itself could not propose is tried again.

import { assert } from '../base/assert.ts';
import { connectedMs, learnerReadyShare, membershipChangesMax } from '../cluster-limits.ts';
import { memberId } from '../config/cluster-id.ts';
import { parseMemberUrl } from '../config/member-url.ts';
import type { Member as ClusterMember } from '../membership/cluster.ts';
import { quorumOf, readinessToAddVoter, readinessToPromote, readinessToRemoveVoter } from '../membership/readiness.ts';
import { encode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { ProposeStatus } from '../raft/propose.ts';
import { ConfChangeType, EntryType } from '../raft/types.ts';
import { encodeMember } from '../snapshot/schema.ts';
import type { MemberParts } from './member-parts.ts';
import { type AppliedChange, promotionOf } from './membership-change.ts';
import { MembershipLog } from './membership-log.ts';
import { NO_MEMBERS, Promotions } from './promotions.ts';
import type { Proposals } from './proposals.ts';

/** Called once: with an error, or with the members as of the change. */
export type MembersWaiter = (error: EtcdError | null, members: readonly ClusterMember[]) => void;

interface Change {
  readonly type: ConfChangeType;
  readonly nodeId: bigint;
  /** raftpb.ConfChange. */
  readonly data: Buffer;
  readonly sinceMs: number;
  readonly done: MembersWaiter;
  /** Given to raft: it is applied, or its time runs out. */
  isProposed: boolean;
}

interface MembershipOptions {
  readonly requestTimeoutMs: number;
  /** Why what was proposed at `sinceMs` was not applied in time. */
  readonly timeoutError: (sinceMs: number) => EtcdError;
  readonly wake: () => void;
}

export class MembershipChanges {
  private readonly parts: MemberParts;
  private readonly log: MembershipLog;
  private readonly proposals: Proposals;
  private readonly options: MembershipOptions;
  private readonly promotions: Promotions;
  /** By the change's id, oldest first. At most membershipChangesMax. */
  private readonly changes = new Map<bigint, Change>();
  private isStopped = false;

  constructor(parts: MemberParts, proposals: Proposals, options: MembershipOptions) {
    this.parts = parts;
    this.log = new MembershipLog(parts);
    this.proposals = proposals;
    this.options = options;
    this.promotions = new Promotions(parts, options.requestTimeoutMs, (id, done) => this.promoteHere(id, done));
  }

  // --- What is asked for ---

  /** The id that the new member gets follows from its URLs and this second, as in etcd. `added` is called before `done`. */
  add(
    peerUrls: readonly string[],
    isLearner: boolean,
    done: MembersWaiter,
    added: (member: ClusterMember) => void,
  ): void {
    const urls = readPeerUrls(peerUrls);
    if (urls === null) {
      done(etcdErrors.memberBadUrls, NO_MEMBERS);
      return;
    }
    const id = memberId(urls, '', Math.floor(this.parts.wallMs() / 1000));
    const member: ClusterMember = { id, peerUrls: urls, isLearner, name: '', clientUrls: [] };
    const error = this.refusalToAdd(member);
    if (error !== null) {
      done(error, NO_MEMBERS);
      return;
    }
    added(member);
    const type = isLearner ? ConfChangeType.addLearnerNode : ConfChangeType.addNode;
    this.propose(type, id, encodeMember(member), done);
  }

  remove(id: bigint, done: MembersWaiter): void {
    const error = this.refusalToRemove(id);
    if (error === null) this.propose(ConfChangeType.removeNode, id, undefined, done);
    else done(error, NO_MEMBERS);
  }

  /** Unlike etcd, which takes any text and whose members then panic at it, refuses what are no peer URLs. */
  update(id: bigint, peerUrls: readonly string[], done: MembersWaiter): void {
    if (readPeerUrls(peerUrls) === null) {
      done(etcdErrors.memberBadUrls, NO_MEMBERS);
      return;
    }
    const member: ClusterMember = { id, peerUrls, isLearner: false, name: '', clientUrls: [] };
    this.propose(ConfChangeType.updateNode, id, encodeMember(member), done);
  }

  promote(id: bigint, done: MembersWaiter): void {
    if (this.isStopped) done(etcdErrors.stopped, NO_MEMBERS);
    else if (this.promotions.count >= membershipChangesMax) done(etcdErrors.requestTooManyRequests, NO_MEMBERS);
    else this.promotions.add(id, done);
  }

  // --- What is refused before it is proposed ---

  private refusalToAdd(member: ClusterMember): EtcdError | null {
    const { cluster, strictReconfigCheck } = this.parts;
    if (!strictReconfigCheck) return null;
    const voters = cluster.votingMembers();
    const readiness = readinessToAddVoter(voters);
    if (!member.isLearner && !readiness.isReady) {
      this.log.tooFewStarted('add', readiness);
      this.log.rejectedAdd(member, 'not enough healthy members', etcdErrors.memberNotEnoughStarted);
      return etcdErrors.memberNotEnoughStarted;
    }
    // The new one counts as one that is not there. A cluster of one must be able to grow.
    if (voters.length === 1 || this.connectedCount(voters) >= quorumOf(voters.length + 1)) return null;
    const reason = 'local member has not been connected to majority peers, reconfigure breaks active quorum';
    this.log.rejectedAdd(member, reason, etcdErrors.unhealthy);
    return etcdErrors.unhealthy;
  }

  private refusalToRemove(id: bigint): EtcdError | null {
    const { cluster, strictReconfigCheck, transport, id: self } = this.parts;
    if (!strictReconfigCheck || cluster.member(id)?.isLearner === true) return null;
    const voters = cluster.votingMembers();
    const readiness = readinessToRemoveVoter(voters, id);
    if (!readiness.isReady) {
      this.log.tooFewStarted('remove', readiness);
      this.log.rejectedRemove(id, etcdErrors.memberNotEnoughStarted);
      return etcdErrors.memberNotEnoughStarted;
    }
    // Who is down already is in no quorum that could break.
    if (id !== self && transport.activeSinceMs(id) === null) return null;
    const connected = this.connectedCount(voters);
    if (connected - 1 >= quorumOf(voters.length - 1)) return null;
    this.log.rejectedRemoveUnconnected(id, connected, etcdErrors.unhealthy);
    return etcdErrors.unhealthy;
  }

  /** Of these members, how many have been connected for a while, this one included. */
  private connectedCount(members: readonly ClusterMember[]): number {
    const { id: self, nowMs, transport } = this.parts;
    const beforeMs = nowMs() - connectedMs;
    return members.filter(({ id }) => id === self || (transport.activeSinceMs(id) ?? Infinity) < beforeMs).length;
  }

  /** This member leads, and has applied what was committed when it was asked. */
  private promoteHere(id: bigint, done: MembersWaiter): void {
    const error = this.refusalToPromote(id);
    if (error !== null) {
      done(error, NO_MEMBERS);
      return;
    }
    this.propose(ConfChangeType.addNode, id, promotionOf(id), done);
  }

  private refusalToPromote(id: bigint): EtcdError | null {
    const { raft, cluster, id: self, strictReconfigCheck } = this.parts;
    const { progress } = raft.status();
    const learner = progress.find((one) => one.id === id);
    if (learner === undefined) return etcdErrors.memberNotFound;
    const leaderMatch = progress.find((one) => one.id === self)?.match ?? 0;
    const share = learner.match / leaderMatch;
    if (share < learnerReadyShare) {
      this.log.learnerNotReady(share, learnerReadyShare);
      return etcdErrors.learnerNotReady;
    }
    if (!strictReconfigCheck) return null;
    const readiness = readinessToPromote(cluster.votingMembers());
    if (readiness.isReady) return null;
    this.log.tooFewStarted('promote', readiness);
    this.log.rejectedPromote(id, etcdErrors.memberNotEnoughStarted);
    return etcdErrors.memberNotEnoughStarted;
  }

  // --- Proposals ---

  private propose(type: ConfChangeType, nodeId: bigint, context: Buffer | undefined, done: MembersWaiter): void {
    if (this.isStopped) {
      done(etcdErrors.stopped, NO_MEMBERS);
      return;
    }
    if (this.changes.size >= membershipChangesMax) {
      done(etcdErrors.requestTooManyRequests, NO_MEMBERS);
      return;
    }
    const id = this.proposals.newId();
    const data = encode(ConfChange, { id, type, nodeId, ...(context === undefined ? {} : { context }) });
    const change = { type, nodeId, data, sinceMs: this.parts.nowMs(), done, isProposed: false };
    this.changes.set(id, change);
    this.submit(change);
  }

  /** There may be no leader, or one that goes, or a change that is not applied yet: then it stays to be tried again. */
  private submit(change: Change): void {
    const { status } = this.parts.raft.proposeConfChange(EntryType.confChange, change.data);
    change.isProposed = status !== ProposeStatus.dropped;
    if (change.isProposed) this.options.wake();
  }

  /** The state machine has applied a change, perhaps one of this member's: an id may be another member's, too (pending.ts). */
  applied({ id, data, refusal }: AppliedChange): void {
    const change = this.changes.get(id);
    if (change === undefined || !change.data.equals(data)) return;
    this.changes.delete(id);
    this.log.answered(change.type, change.nodeId);
    if (refusal === null) change.done(null, this.parts.cluster.members());
    else change.done(refusal.status, NO_MEMBERS);
  }

  /** Once a raft tick. */
  tick(nowMs: number): void {
    const beforeMs = nowMs - this.options.requestTimeoutMs;
    for (const [id, change] of this.changes) {
      if (change.sinceMs < beforeMs) {
        this.changes.delete(id);
        change.done(this.options.timeoutError(change.sinceMs), NO_MEMBERS);
      } else if (!change.isProposed) this.submit(change);
    }
    this.promotions.tick(nowMs);
  }

  /** Fails what waits, and refuses what comes. */
  stop(): void {
    this.isStopped = true;
    const waiting = [...this.changes.values()];
    this.changes.clear();
    for (const { done } of waiting) done(etcdErrors.stopped, NO_MEMBERS);
    this.promotions.stop();
  }
}

/** A list of members as they tell it to each other: JSON as Go writes it. */
export function encodeMembers(members: readonly ClusterMember[]): string {
  return `[${members.map((member) => encodeMember(member).toString()).join(',')}]`;
}

/** In etcd's order (types.NewURLs); null when there are none, or one is no peer URL. */
function readPeerUrls(peerUrls: readonly string[]): string[] | null {
  const texts: string[] = [];
  for (const url of peerUrls) {
    const parsed = parseMemberUrl(url);
    if (!parsed.ok) return null;
    texts.push(parsed.value.text);
  }
  assert(texts.length === peerUrls.length, 'a URL a text');
  return texts.length === 0 ? null : texts.sort();
}
