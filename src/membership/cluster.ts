// The replicated membership: who is in the cluster, removed ids, the cluster version. Stored as etcd stores it (JSON under the
// member's hex id in `members`, `members_removed`, `clusterVersion` in `cluster`), so that snapshots carry it both ways.
// Changes only in apply. Not raft's configuration: that is raft's own ConfState, kept in step by the same entries.

import { assert } from '../base/assert.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import {
  ClusterKey,
  decodeMember,
  decodeMemberKey,
  encodeDowngrade,
  encodeMember,
  encodeMemberKey,
  REMOVED_MEMBER,
  type StoredMember,
} from '../snapshot/schema.ts';

/** A member as it is stored; ids are unsigned 64-bit numbers. */
export type Member = StoredMember;

/** One of etcd's small buckets. */
export interface BucketStore {
  put(bucket: string, key: Buffer, value: Buffer): void;
  remove(bucket: string, key: Buffer): void;
  scan(bucket: string, visit: (key: Buffer, value: Buffer) => boolean): void;
}

export function hexId(id: bigint): string {
  return id.toString(16);
}

export class Cluster {
  readonly id: bigint;
  private readonly buckets: BucketStore;
  private readonly byId = new Map<bigint, Member>();
  private readonly removedIds = new Set<bigint>();
  /** major.minor.0, or undefined before it was decided. */
  version: string | undefined;

  constructor(id: bigint, buckets: BucketStore) {
    this.id = id;
    this.buckets = buckets;
  }

  /** At start: from the buckets. Returns the text of the first entry that is no member, as an error. */
  recover(): string | null {
    let damaged: string | null = null;
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

  /** Null, or why this member can't be added. */
  checkAdd(member: Member, learnersMax: number): EtcdError | null {
    if (this.removedIds.has(member.id)) return etcdErrors.memberNotFound;
    if (this.byId.has(member.id)) return etcdErrors.memberExist;
    for (const known of this.byId.values()) {
      if (known.peerUrls.some((url) => member.peerUrls.includes(url))) return etcdErrors.peerUrlExist;
    }
    if (member.isLearner) {
      let learners = 0;
      for (const known of this.byId.values()) if (known.isLearner) learners++;
      if (learners >= learnersMax) return etcdErrors.tooManyLearners;
    }
    return null;
  }

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
    this.buckets.put('cluster', ClusterKey.downgrade, encodeDowngrade({ isEnabled: enabled, targetVersion }));
  }

  private save(member: Member): void {
    this.byId.set(member.id, member);
    this.buckets.put('members', encodeMemberKey(member.id), encodeMember(member));
  }
}
