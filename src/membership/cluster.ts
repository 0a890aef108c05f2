// The replicated membership: who is in the cluster, removed ids, the cluster version. Stored as etcd stores it (JSON under the
// member's hex id in `members`, `members_removed`, `clusterVersion` in `cluster`), so that snapshots carry it both ways.
// Changes only in apply. Not raft's configuration: that is raft's own ConfState, kept in step by the same entries.

import { assert } from '../base/assert.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import {
  ClusterKey,
  decodeDowngrade,
  decodeMember,
  decodeMemberKey,
  encodeDowngrade,
  encodeMember,
  encodeMemberKey,
  REMOVED_MEMBER,
  type StoredDowngrade,
  type StoredMember,
} from '../snapshot/schema.ts';

/** A member as it is stored; ids are unsigned 64-bit numbers. */
export type Member = StoredMember;

/** Why the membership may not change so: what clients hear, and what etcd's logs and peers call it. */
export interface Refusal {
  readonly status: EtcdError;
  readonly reason: string;
}

type RefusalName =
  | 'idRemoved'
  | 'idExists'
  | 'idNotFound'
  | 'peerUrlExists'
  | 'notLearner'
  | 'tooManyLearners'
  | 'lastVoter';

export const refusals: Readonly<Record<RefusalName, Refusal>> = {
  idRemoved: { status: etcdErrors.memberNotFound, reason: 'membership: ID removed' },
  idExists: { status: etcdErrors.memberExist, reason: 'membership: ID exists' },
  idNotFound: { status: etcdErrors.memberNotFound, reason: 'membership: ID not found' },
  peerUrlExists: { status: etcdErrors.peerUrlExist, reason: 'membership: peerURL exists' },
  notLearner: { status: etcdErrors.memberNotLearner, reason: 'membership: can only promote a learner member' },
  tooManyLearners: {
    status: etcdErrors.tooManyLearners,
    reason: 'membership: too many learner members in cluster',
  },
  lastVoter: {
    status: etcdErrors.memberNotEnoughStarted,
    reason: 'membership: the last voting member cannot be removed',
  },
};

/** One of etcd's small buckets. */
export interface BucketStore {
  put(bucket: string, key: Buffer, value: Buffer): void;
  remove(bucket: string, key: Buffer): void;
  scan(bucket: string, visit: (key: Buffer, value: Buffer) => boolean): void;
}

export function hexId(id: bigint): string {
  return id.toString(16);
}

const noDowngrade: StoredDowngrade = { isEnabled: false, targetVersion: '' };

export class Cluster {
  readonly id: bigint;
  private readonly buckets: BucketStore;
  private readonly byId = new Map<bigint, Member>();
  private readonly removedIds = new Set<bigint>();
  /** major.minor.0, or undefined before it was decided. */
  version: string | undefined;
  /** Where the cluster is going down to, if it is. */
  downgrade: StoredDowngrade = noDowngrade;

  constructor(id: bigint, buckets: BucketStore) {
    this.id = id;
    this.buckets = buckets;
  }

  /**
   * From the buckets, at start and when another state has taken the place of this one. Returns the text of the first entry that is no
   * member, as an error.
   */
  recover(): string | null {
    let damaged: string | null = null;
    this.byId.clear();
    this.removedIds.clear();
    this.version = undefined;
    this.downgrade = noDowngrade;
    this.buckets.scan('members', (key, value) => {
      const member = decodeMember(value);
      if (member === null) damaged = `members/${key.toString()}: ${value.toString()}`;
      else this.byId.set(member.id, member);
      return damaged === null;
    });
    this.buckets.scan('members_removed', (key) => {
      const id = decodeMemberKey(key);
      if (id === null) damaged = `members_removed/${key.toString()}`;
      else this.removedIds.add(id);
      return true;
    });
    this.buckets.scan('cluster', (key, value) => {
      if (key.equals(ClusterKey.version)) this.version = value.toString();
      if (key.equals(ClusterKey.downgrade)) this.downgrade = decodeDowngrade(value) ?? noDowngrade;
      return true;
    });
    return damaged;
  }

  member(id: bigint): Member | undefined {
    return this.byId.get(id);
  }

  isRemoved(id: bigint): boolean {
    return this.removedIds.has(id);
  }

  /** By id. */
  members(): Member[] {
    return [...this.byId.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** Those that vote, by id. */
  votingMembers(): Member[] {
    return this.members().filter(({ isLearner }) => !isLearner);
  }

  // --- What may change: asked when the change is applied, so that all members decide alike ---

  /** Null, or why this member can't be added. */
  checkAdd(member: Member, learnersMax: number): Refusal | null {
    if (this.removedIds.has(member.id)) return refusals.idRemoved;
    if (this.byId.has(member.id)) return refusals.idExists;
    if (this.isUrlTaken(member.peerUrls, null)) return refusals.peerUrlExists;
    if (member.isLearner) {
      let learners = 0;
      for (const known of this.byId.values()) if (known.isLearner) learners++;
      if (learners >= learnersMax) return refusals.tooManyLearners;
    }
    return null;
  }

  checkPromote(id: bigint): Refusal | null {
    return this.checkKnown(id) ?? (this.byId.get(id)!.isLearner ? null : refusals.notLearner);
  }

  checkUpdate(id: bigint, peerUrls: readonly string[]): Refusal | null {
    return this.checkKnown(id) ?? (this.isUrlTaken(peerUrls, id) ? refusals.peerUrlExists : null);
  }

  /**
   * Not the last voter: raft has no configuration without one, and at such an entry all of etcd's members panic, at every start again. Two
   * removals may each have been right when they were asked for.
   */
  checkRemove(id: bigint): Refusal | null {
    const refusal = this.checkKnown(id);
    if (refusal !== null || this.byId.get(id)!.isLearner) return refusal;
    return this.votingMembers().length === 1 ? refusals.lastVoter : null;
  }

  private checkKnown(id: bigint): Refusal | null {
    if (this.removedIds.has(id)) return refusals.idRemoved;
    return this.byId.has(id) ? null : refusals.idNotFound;
  }

  /** Whether a member other than `self` has one of them. */
  private isUrlTaken(peerUrls: readonly string[], self: bigint | null): boolean {
    for (const known of this.byId.values()) {
      if (known.id !== self && known.peerUrls.some((url) => peerUrls.includes(url))) return true;
    }
    return false;
  }

  // --- Changes ---

  add(member: Member): void {
    assert(!this.byId.has(member.id), 'a member is added twice');
    this.save(member);
  }

  remove(id: bigint): void {
    this.byId.delete(id);
    this.removedIds.add(id);
    this.buckets.remove('members', encodeMemberKey(id));
    this.buckets.put('members_removed', encodeMemberKey(id), REMOVED_MEMBER);
  }

  /** The learner votes from now on. */
  promote(id: bigint): void {
    const member = this.byId.get(id);
    assert(member?.isLearner === true, 'a promotion of what is no learner');
    this.save({ ...member, isLearner: false });
  }

  /** Name and client URLs, published by the member itself; ignored for one that is gone. */
  updateAttributes(id: bigint, name: string, clientUrls: readonly string[]): void {
    const member = this.byId.get(id);
    if (member !== undefined) this.save({ ...member, name, clientUrls });
  }

  updatePeerUrls(id: bigint, peerUrls: readonly string[]): void {
    const member = this.byId.get(id);
    assert(member !== undefined, 'update of a member that is not there');
    this.save({ ...member, peerUrls });
  }

  setVersion(version: string): void {
    this.version = version;
    this.buckets.put('cluster', ClusterKey.version, Buffer.from(version));
  }

  setDowngrade(enabled: boolean, targetVersion: string): void {
    this.downgrade = { isEnabled: enabled, targetVersion };
    this.buckets.put('cluster', ClusterKey.downgrade, encodeDowngrade(this.downgrade));
  }

  private save(member: Member): void {
    this.byId.set(member.id, member);
    this.buckets.put('members', encodeMemberKey(member.id), encodeMember(member));
  }
}
