// Leases: grants, renewals, attached keys, expiry, checkpoints. What is replicated (which leases exist, their TTL, their keys)
// changes only in apply; deadlines are the primary's (the raft leader's) own and are rebuilt on promotion. Follows etcd's lessor
// in TTL arithmetic and rates. Not here: deleting the keys (apply/) and proposing revokes (server/).

import { assert } from '../base/assert.ts';
import {
  leaseCheckpointIntervalMs,
  leaseRevokesPerTickMax,
  leasesPerSecondMax,
  leaseTtlMaxSeconds,
} from '../limits.ts';
import { decode, encode, type Message } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { type Deadline, DeadlineHeap } from './deadline-heap.ts';

/** leasepb.Lease, the value of the `lease` bucket under the id in 8 big-endian bytes. */
const LeaseRecord = {
  id: { no: 1, kind: 'int64' },
  ttl: { no: 2, kind: 'int64' },
  remainingTtl: { no: 3, kind: 'int64' },
} as const;

export interface Lease extends Deadline {
  readonly id: bigint;
  /** Granted seconds, raised to the minimum. */
  readonly ttlSeconds: number;
  /** Of the last checkpoint; 0 when there is none. */
  remainingSeconds: number;
  /** Attached keys, one latin1 character a byte. */
  readonly keys: Set<string>;
  /** Called with the lease's end: renewals that wait for a revoke under way. */
  revokeWaiters: (() => void)[] | null;
  /** Next checkpoint on the primary's clock; Infinity when none is planned. */
  checkpointMs: number;
  /** Handed out by takeExpired(): its revoke counts as an expiry. */
  isExpiring: boolean;
}

export interface LeaseBucket {
  put(key: Buffer, value: Buffer): void;
  remove(key: Buffer): void;
}

export interface LeaseCounters {
  granted: number;
  renewed: number;
  revoked: number;
  expired: number;
  observeTtl(seconds: number): void;
}

export interface LessorOptions {
  readonly nowMs: () => number;
  readonly minTtlSeconds: number;
  readonly bucket: LeaseBucket;
  readonly counters: LeaseCounters;
  /** Whether remaining TTLs are checkpointed through raft (feature gate LeaseCheckpoint). */
  readonly checkpoints: boolean;
  /** Whether an applied checkpoint is stored: LeaseCheckpointPersist, or a cluster of 3.6 on. */
  readonly persistsCheckpoints: () => boolean;
}

/** Only the raft leader's lessor renews. Reaches a client without a status of its own, as in etcd. */
export const notPrimary: EtcdError = { code: 2, message: 'not a primary lessor' };

const FOREVER_MS = Infinity;

export function leaseIdOf(high: number, low: number): bigint {
  return BigInt.asIntN(64, (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0));
}

export function leaseKey(id: bigint): Buffer {
  const key = Buffer.allocUnsafe(8);
  key.writeBigInt64BE(id);
  return key;
}

export class Lessor {
  private readonly options: LessorOptions;
  private leases = new Map<bigint, Lease>();
  /** What recover() fills: these leases, or those that will take their place. */
  private recovered: Map<bigint, Lease> = this.leases;
  private readonly deadlines = new DeadlineHeap<Lease>();
  private primary = false;

  constructor(options: LessorOptions) {
    this.options = options;
  }

  get count(): number {
    return this.leases.size;
  }

  get isPrimary(): boolean {
    return this.primary;
  }

  /** recover() is of other leases from here on: a snapshot takes the place of the state. Nothing is seen of them before replace(). */
  beginReplacement(): void {
    this.recovered = new Map();
  }

  /** All that was recovered since is what there is. Only a follower's state can be replaced. */
  replace(): void {
    assert(!this.primary, 'a primary has no leases but its own');
    assert(this.deadlines.size === 0, 'only a primary has deadlines');
    this.leases = this.recovered;
  }

  /** At start, or for a replacement: a row of the lease bucket. */
  recover(value: Buffer): boolean {
    const record = decode(LeaseRecord, value);
    if (record === undefined || record.id === 0n) return false;
    this.recovered.set(record.id, this.newLease(record));
    return true;
  }

  private newLease(record: Message<typeof LeaseRecord>): Lease {
    const ttlSeconds = Math.max(Number(record.ttl), this.options.minTtlSeconds);
    return {
      id: record.id,
      ttlSeconds,
      remainingSeconds: Number(record.remainingTtl),
      keys: new Set(),
      revokeWaiters: null,
      deadlineMs: FOREVER_MS,
      heapIndex: -1,
      checkpointMs: FOREVER_MS,
      isExpiring: false,
    };
  }

  /** Applies a grant. `ttl` is what the client asked, any int64. */
  grant(id: bigint, ttl: bigint): Lease | EtcdError {
    if (id === 0n) return etcdErrors.leaseNotFound;
    if (ttl > BigInt(leaseTtlMaxSeconds)) return etcdErrors.leaseTTLTooLarge;
    if (this.leases.has(id)) return etcdErrors.leaseExist;
    const lease = this.newLease({ id, ttl, remainingTtl: 0n });
    this.leases.set(id, lease);
    this.persist(lease);
    this.options.counters.granted++;
    this.options.counters.observeTtl(lease.ttlSeconds);
    if (this.primary) this.refresh(lease, 0);
    return lease;
  }

  private persist(lease: Lease): void {
    const value = encode(LeaseRecord, {
      id: lease.id,
      ttl: BigInt(lease.ttlSeconds),
      remainingTtl: BigInt(lease.remainingSeconds),
    });
    this.options.bucket.put(leaseKey(lease.id), value);
  }

  lookup(id: bigint): Lease | undefined {
    return this.leases.get(id);
  }

  has(leaseHi: number, leaseLo: number): boolean {
    return this.leases.has(leaseIdOf(leaseHi, leaseLo));
  }

  /** Its keys in byte order: every member deletes them in the same order, so that all give them the same revisions. */
  sortedKeys(lease: Lease): Buffer[] {
    return [...lease.keys].sort().map((key) => Buffer.from(key, 'latin1'));
  }

  /** Applies a revoke after the keys were deleted (which detached them). */
  revoked(lease: Lease): void {
    assert(this.leases.delete(lease.id), 'revoke of a lease that is gone');
    this.deadlines.remove(lease);
    this.options.bucket.remove(leaseKey(lease.id));
    this.options.counters.revoked++;
    if (lease.isExpiring) this.options.counters.expired++;
    const waiters = lease.revokeWaiters;
    lease.revokeWaiters = null;
    if (waiters !== null) for (const waiter of waiters) waiter();
  }

  /** After the leases: a key with a lease; again is fine. False when there is no such lease; etcd goes on without it. */
  recoverKey(leaseHi: number, leaseLo: number, key: Buffer, start: number, end: number): boolean {
    const lease = this.recovered.get(leaseIdOf(leaseHi, leaseLo));
    lease?.keys.add(key.toString('latin1', start, end));
    return lease !== undefined;
  }

  attach(leaseHi: number, leaseLo: number, key: Buffer, start: number, end: number): void {
    const lease = this.leases.get(leaseIdOf(leaseHi, leaseLo));
    assert(lease !== undefined, 'attach to a lease that does not exist');
    lease.keys.add(key.toString('latin1', start, end));
  }

  detach(leaseHi: number, leaseLo: number, key: Buffer, start: number, end: number): void {
    // The lease may be gone where etcd's log of a mixed cluster revoked it in the same entry: nothing to detach from then.
    this.leases.get(leaseIdOf(leaseHi, leaseLo))?.keys.delete(key.toString('latin1', start, end));
  }

  /** Applies a checkpoint: effective at the next promotion. */
  checkpoint(id: bigint, remainingSeconds: number): void {
    const lease = this.leases.get(id);
    if (lease === undefined) return;
    lease.remainingSeconds = remainingSeconds;
    if (this.options.persistsCheckpoints()) this.persist(lease);
    if (this.primary) this.planCheckpoint(lease);
  }

  /** Whether it has no deadline, which a primary's leases have. */
  isDemoted(lease: Lease): boolean {
    return lease.deadlineMs === FOREVER_MS;
  }

  /** Whole seconds until the deadline, on the primary, cut off as etcd does; negative once it has passed. */
  remainingSecondsOf(lease: Lease): number {
    assert(!this.isDemoted(lease), "the deadline of a lease is the primary's");
    return Math.trunc((lease.deadlineMs - this.options.nowMs()) / 1000);
  }

  isExpired(lease: Lease): boolean {
    return lease.deadlineMs <= this.options.nowMs();
  }

  /**
   * Whether a checkpoint of 0 must be applied before the lease is renewed: otherwise the renewal, and the deadline after a change
   * of leader, would be of the TTL that was left at the last checkpoint.
   */
  renewalMustClear(lease: Lease): boolean {
    return this.options.checkpoints && lease.remainingSeconds > 0;
  }

  /**
   * Renews on the primary: the TTL granted. An expired lease is being revoked: its renewal waits in `revokeWaiters` (see
   * renewalMustWait).
   */
  renew(id: bigint): number | EtcdError {
    if (!this.primary) return notPrimary;
    const lease = this.leases.get(id);
    if (lease === undefined) return etcdErrors.leaseNotFound;
    this.refresh(lease, 0);
    this.options.counters.renewed++;
    return lease.ttlSeconds;
  }

  /** True when the lease has expired and `then` will be called once its revoke is applied. */
  renewalMustWait(lease: Lease, then: () => void): boolean {
    if (!this.isExpired(lease)) return false;
    lease.revokeWaiters ??= [];
    lease.revokeWaiters.push(then);
    return true;
  }

  private refresh(lease: Lease, extendMs: number): void {
    lease.deadlineMs = this.options.nowMs() + extendMs + secondsLeft(lease) * 1000;
    lease.isExpiring = false;
    this.deadlines.place(lease);
    this.planCheckpoint(lease);
  }

  private planCheckpoint(lease: Lease): void {
    const isLong = secondsLeft(lease) * 1000 > leaseCheckpointIntervalMs;
    lease.checkpointMs =
      this.options.checkpoints && isLong ? this.options.nowMs() + leaseCheckpointIntervalMs : FOREVER_MS;
  }

  /** By deadline, then id: the order of LeaseLeases. */
  sorted(): Lease[] {
    return [...this.leases.values()].sort((a, b) => {
      if (a.deadlineMs !== b.deadlineMs) return a.deadlineMs < b.deadlineMs ? -1 : 1;
      return a.id < b.id ? -1 : 1;
    });
  }

  /**
   * Becomes primary: every deadline starts anew, extended by the election timeout that the old primary may still have counted.
   * Leases that would end together are spread so that at most three quarters of the revoke rate end in a second.
   */
  promote(extendMs: number): void {
    this.primary = true;
    for (const lease of this.leases.values()) this.refresh(lease, extendMs);
    if (this.leases.size >= leasesPerSecondMax) this.spread(extendMs);
    // Of a term of this member's before, in which it was not demoted between.
    this.wakeWaiters();
  }

  private spread(extendMs: number): void {
    const sorted = this.sorted();
    const perSecond = Math.floor((3 * leasesPerSecondMax) / 4);
    let baseMs = sorted[0]!.deadlineMs;
    let nextMs = baseMs + 1000;
    let expiring = 0;
    for (const lease of sorted) {
      if (lease.deadlineMs > nextMs) {
        baseMs = lease.deadlineMs;
        nextMs = baseMs + 1000;
        expiring = 1;
        continue;
      }
      expiring++;
      if (expiring <= perSecond) continue;
      const delayMs = 1000 * (expiring / perSecond) - (lease.deadlineMs - baseMs);
      nextMs = baseMs + delayMs;
      this.refresh(lease, delayMs + extendMs);
    }
  }

  demote(): void {
    this.primary = false;
    this.deadlines.clear();
    for (const lease of this.leases.values()) {
      lease.deadlineMs = FOREVER_MS;
      lease.checkpointMs = FOREVER_MS;
    }
    this.wakeWaiters();
  }

  /** Renewals of leases that were expired and have their time again, or none: they ask anew. */
  private wakeWaiters(): void {
    for (const lease of this.leases.values()) {
      const waiters = lease.revokeWaiters;
      lease.revokeWaiters = null;
      if (waiters !== null) for (const waiter of waiters) waiter();
    }
  }

  /** Whether takeExpired() would give any. */
  get hasExpired(): boolean {
    const first = this.deadlines.first();
    return first !== undefined && first.deadlineMs <= this.options.nowMs();
  }

  /**
   * Leases that ended, at most a tick's share. The caller revokes each, or hands it back by retry().
   * Called every half second on the primary.
   */
  takeExpired(): Lease[] {
    const expired: Lease[] = [];
    if (!this.primary) return expired;
    const nowMs = this.options.nowMs();
    while (expired.length < leaseRevokesPerTickMax) {
      const lease = this.deadlines.first();
      if (lease === undefined || lease.deadlineMs > nowMs) break;
      this.deadlines.remove(lease);
      lease.isExpiring = true;
      expired.push(lease);
    }
    return expired;
  }

  /** After a revoke failed: the next tick takes the lease again. */
  retry(lease: Lease): void {
    // Not one that was revoked and granted anew under its id meanwhile.
    if (this.primary && this.leases.get(lease.id) === lease) this.deadlines.place(lease);
  }

  /** Leases whose remaining TTL is due for a checkpoint, with it. */
  takeCheckpoints(countMax: number): { id: bigint; remainingTtl: bigint }[] {
    const due: { id: bigint; remainingTtl: bigint }[] = [];
    if (!this.primary || !this.options.checkpoints) return due;
    const nowMs = this.options.nowMs();
    for (const lease of this.leases.values()) {
      if (due.length >= countMax) break;
      if (lease.checkpointMs > nowMs || lease.deadlineMs <= nowMs) continue;
      lease.checkpointMs = FOREVER_MS;
      const remainingSeconds = Math.ceil((lease.deadlineMs - nowMs) / 1000);
      // A promotion may have extended it beyond its TTL: nothing to remember.
      if (remainingSeconds < lease.ttlSeconds) due.push({ id: lease.id, remainingTtl: BigInt(remainingSeconds) });
    }
    return due;
  }
}

/** As of its last checkpoint. */
function secondsLeft({ remainingSeconds, ttlSeconds }: Lease): number {
  return remainingSeconds > 0 ? remainingSeconds : ttlSeconds;
}
