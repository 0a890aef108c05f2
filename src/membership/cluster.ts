// The replicated membership: who is in the cluster, removed ids, the cluster version. Stored as etcd stores it (JSON under the
// member's hex id in `members`, `members_removed`, `clusterVersion` in `cluster`), so that snapshots carry it both ways.
// Changes only in apply. Not raft's configuration: that is raft's own ConfState, kept in step by the same entries.

import { assert } from '../base/assert.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';

export interface Member {
  readonly id: bigint;
  readonly peerUrls: readonly string[];
  readonly isLearner: boolean;
  readonly name: string;
  readonly clientUrls: readonly string[];
}

/** One of etcd's small buckets. */
export interface BucketStore {
  put(bucket: string, key: Buffer, value: Buffer): void;
  remove(bucket: string, key: Buffer): void;
  scan(bucket: string, visit: (key: Buffer, value: Buffer) => boolean): void;
}

const CLUSTER_VERSION_KEY = Buffer.from('clusterVersion');
const DOWNGRADE_KEY = Buffer.from('downgrade');

export function hexId(id: bigint): string {
  return id.toString(16);
}

/** Without leading zeros, as etcd writes it. */
function memberKey(id: bigint): Buffer {
  return Buffer.from(hexId(id));
}

/** JSON as Go's encoder writes it: the id is a number beyond 2^53, empty fields are left out, <, >, & and line ends escaped. */
export function memberToJson(member: Member): string {
  const parts = [`"id":${member.id}`, `"peerURLs":${JSON.stringify(member.peerUrls)}`];
  if (member.isLearner) parts.push('"isLearner":true');
  if (member.name !== '') parts.push(`"name":${JSON.stringify(member.name)}`);
  if (member.clientUrls.length > 0) parts.push(`"clientURLs":${JSON.stringify(member.clientUrls)}`);
  const escaped = (char: string): string => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return `{${parts.join(',')}}`.replace(/[<>&\u2028\u2029]/g, escaped);
}

/** Undefined when the text is no member; the id is taken from the text itself, whose digits JSON.parse would round. */
export function memberFromJson(text: string): Member | undefined {
  const idText = /"id":(\d+)/.exec(text)?.[1];
  if (idText === undefined) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  const fields = parsed as { peerURLs?: string[] | null; isLearner?: boolean; name?: string; clientURLs?: string[] };
  return {
    id: BigInt(idText),
    peerUrls: fields.peerURLs ?? [],
    isLearner: fields.isLearner ?? false,
    name: fields.name ?? '',
    clientUrls: fields.clientURLs ?? [],
  };
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
      const member = memberFromJson(value.toString());
      if (member === undefined) damaged = `members/${key.toString()}: ${value.toString()}`;
      else this.byId.set(member.id, member);
      return damaged === null;
    });
    this.buckets.scan('members_removed', (key) => {
      this.removedIds.add(BigInt(`0x${key.toString()}`));
      return true;
    });
    this.buckets.scan('cluster', (key, value) => {
      if (key.equals(CLUSTER_VERSION_KEY)) this.version = value.toString();
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
    this.buckets.remove('members', memberKey(id));
    this.buckets.put('members_removed', memberKey(id), Buffer.from('removed'));
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
    this.buckets.put('cluster', CLUSTER_VERSION_KEY, Buffer.from(version));
  }

  setDowngrade(enabled: boolean, targetVersion: string): void {
    const text = `{"target-version":${JSON.stringify(targetVersion)},"enabled":${enabled}}`;
    this.buckets.put('cluster', DOWNGRADE_KEY, Buffer.from(text));
  }

  private save(member: Member): void {
    this.byId.set(member.id, member);
    this.buckets.put('members', memberKey(member.id), Buffer.from(memberToJson(member)));
  }
}
