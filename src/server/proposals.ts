// What this member proposes: the ids of its requests, which of them are admitted, the batch of a turn, and who waits for each
// (pending.ts). When the batch goes to raft is the member's loop's to say; who answers a request is whoever applies its entry.

import { applyGapMax, raftMessageBytesMax, unsyncedBytesMax } from '../limits.ts';
import { AlarmAction, AlarmRequest, AlarmType } from '../proto/etcdserverpb.ts';
import { encodeInternalRequest, RequestField, requestOffset } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { ProposeStatus } from '../raft/propose.ts';
import type { MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';
import { PendingProposals, type Waiter } from './pending.ts';

/** etcd's ErrProposalDropped reaches the client without a status of its own. */
const DROPPED: EtcdError = { code: 2, message: 'raft proposal dropped' };
/** What no leader has taken in time: as grpc-go words it, since raft, and so etcd, has no error of its own for it. */
const NOT_PROPOSED: EtcdError = { code: 4, message: 'context deadline exceeded' };

export class Proposals {
  readonly pending: PendingProposals = new PendingProposals();
  /** The upper 16 bits of a request's id: whose it is. */
  readonly idPrefix: number;

  private readonly parts: MemberParts;
  private readonly log: MemberLog;
  private readonly wake: () => void;
  private idCounter: number;
  /** Not given to raft yet. */
  private batch: Buffer[] = [];
  /** Their ids' counters, and their bytes together. */
  private batchCounters: number[] = [];
  private batchBytes = 0;
  private alarmProposed = false;
  /** Nothing is taken any more. */
  isStopped = false;

  constructor(parts: MemberParts, log: MemberLog, wake: () => void) {
    this.parts = parts;
    this.log = log;
    this.wake = wake;
    this.idPrefix = Number(parts.id & 0xffffn);
    // 40 bits of milliseconds above 8 of counting, so that ids of a restarted member are new ones.
    this.idCounter = (Math.floor(parts.wallMs()) % 2 ** 40) * 256;
  }

  /** Whether there is nothing for submit(). */
  get isEmpty(): boolean {
    return this.batch.length === 0;
  }

  /** The lower 48 bits of an id. */
  nextCounter(): number {
    this.idCounter = (this.idCounter + 1) % 2 ** 48;
    return this.idCounter;
  }

  /** A positive id for a lease that its client left unnamed. */
  newLeaseId(): bigint {
    return BigInt.asUintN(63, this.newId());
  }

  /** For what is no InternalRaftRequest: a change of the membership. Off the hot path. */
  newId(): bigint {
    return (BigInt(this.idPrefix) << 48n) | BigInt(this.nextCounter());
  }

  // --- Admission ---

  /** A client's request: message[start, end) as `field`. `waiter` is called when it is applied, or fails. Returns why it can't be. */
  propose(field: RequestField, message: Buffer, start: number, end: number, waiter: Waiter): EtcdError | null {
    if (this.isStopped) return etcdErrors.stopped;
    return this.isBusy ? etcdErrors.requestTooManyRequests : this.enqueue(field, message, start, end, waiter);
  }

  /** What waits for the state machine, the flusher or the disk has reached its bound. */
  private get isBusy(): boolean {
    const { raft, wal } = this.parts;
    if (raft.committedIndex - raft.appliedIndex > applyGapMax) return true;
    return wal.pendingBytes + this.batchBytes > unsyncedBytesMax;
  }

  private enqueue(field: RequestField, message: Buffer, start: number, end: number, waiter: Waiter): EtcdError | null {
    const { requestBytesMax } = this.parts;
    const counter = this.nextCounter();
    const entry = encodeInternalRequest(field, message, start, end, this.idPrefix, counter);
    if (entry.length > requestBytesMax) {
      // Refused, but a success in etcd's metric: only what raft did not take is a failure there.
      this.parts.counters.observeRequest(field, true, 0);
      return etcdErrors.requestTooLarge;
    }
    this.batch.push(entry);
    this.batchBytes += entry.length;
    this.batchCounters.push(counter);
    this.pending.add(counter, field, entry, waiter, this.parts.nowMs());
    const offset = requestOffset(field, end - start);
    waiter.proposed?.(entry, offset, offset + end - start);
    this.wake();
    return null;
  }

  /** A request of the server's own: few, and needed most when clients are refused. */
  proposeOwn(field: RequestField, message: Buffer, then: (error: EtcdError | null) => void): void {
    const waiter: Waiter = { applied: (applier) => then(applier.error), failed: (error) => then(error) };
    const error = this.isStopped ? etcdErrors.stopped : this.enqueue(field, message, 0, message.length, waiter);
    if (error !== null) then(error);
  }

  /** True when a write of `costBytes` would cross the quota. */
  exceedsQuota(costBytes: number): boolean {
    return costBytes > 0 && this.parts.backend.sizes().totalBytes + costBytes >= this.parts.quotaBytes;
  }

  /** Raises the no-space alarm through raft, once. */
  raiseNoSpace(): void {
    if (this.alarmProposed || this.parts.alarms.has(AlarmType.noSpace)) return;
    this.alarmProposed = true;
    this.log.quotaExceeded();
    const message = encode(AlarmRequest, {
      action: AlarmAction.activate,
      memberId: this.parts.id,
      alarm: AlarmType.noSpace,
    });
    this.proposeOwn(RequestField.alarm, message, () => {
      this.alarmProposed = false;
    });
  }

  // --- The loop's ---

  /** Gives raft what the turn brought, unless that has to wait. */
  submit(): void {
    const { raft } = this.parts;
    // A follower passes a batch on as one message: one of many megabytes would hold up what raft has to say meanwhile.
    let count = raft.isLeader ? this.batch.length : leadingWithin(this.batch, raftMessageBytesMax);
    while (count > 0) {
      const result = raft.proposeBatch(count === this.batch.length ? this.batch : this.batch.slice(0, count));
      if (result.status === ProposeStatus.dropped) {
        // They wait for a leader, each until its time-out, as in etcd; and for a new one, where etcd drops them.
        if (result.reason === 'no leader' || result.reason === 'leadership transfer in progress') return;
        this.failDropped(count);
      }
      this.letGo(count);
      count = leadingWithin(this.batch, raftMessageBytesMax);
    }
  }

  private letGo(count: number): void {
    const isAll = count === this.batch.length;
    if (!isAll) for (let i = 0; i < count; i++) this.batchBytes -= this.batch[i]!.length;
    else this.batchBytes = 0;
    this.batch = isAll ? [] : this.batch.slice(count);
    this.batchCounters = isAll ? [] : this.batchCounters.slice(count);
  }

  private failDropped(count: number): void {
    this.parts.counters.proposalsFailed += count;
    for (let i = 0; i < count; i++) this.pending.take(this.batchCounters[i]!)?.failed(DROPPED);
  }

  /** Fails what was proposed before `beforeMs` and is not applied yet, with what `errorOf` says to when it was proposed. */
  expire(beforeMs: number, errorOf: (sinceMs: number) => EtcdError): void {
    const { pending } = this;
    const unsentMs = this.isEmpty ? Infinity : pending.sinceMs(this.batchCounters[0]!);
    const error = (sinceMs: number): EtcdError => (sinceMs >= unsentMs ? NOT_PROPOSED : errorOf(sinceMs));
    this.parts.counters.proposalsFailed += pending.expire(beforeMs, error, this.countFailed);
    if (unsentMs < beforeMs) this.forgetExpired();
  }

  /** Whoever was told so must not find it applied later, by a leader that came after all. */
  private forgetExpired(): void {
    const isAwaited = this.batchCounters.map((counter) => this.pending.has(counter));
    this.batch = this.batch.filter((_, i) => isAwaited[i]);
    this.batchCounters = this.batchCounters.filter((_, i) => isAwaited[i]);
    this.batchBytes = this.batch.reduce((bytes, entry) => bytes + entry.length, 0);
  }

  /** Fails what waits, and refuses what comes. */
  stop(): void {
    this.isStopped = true;
    this.pending.expire(Infinity, () => etcdErrors.stopped, this.countFailed);
  }

  private readonly countFailed = (kind: number, sinceMs: number): void => {
    this.parts.counters.observeRequest(kind, false, (this.parts.nowMs() - sinceMs) / 1000);
  };
}

/** How many of the first entries have so many bytes together; one at least. */
function leadingWithin(entries: readonly Buffer[], bytesMax: number): number {
  let bytes = 0;
  for (let i = 0; i < entries.length; i++) {
    bytes += entries[i]!.length;
    if (bytes > bytesMax) return Math.max(1, i);
  }
  return entries.length;
}
