// What this member proposes: the ids of its requests, which of them are admitted, the batch of a turn, and who waits for each
// (pending.ts). When the batch goes to raft is the member's loop's to say; who answers a request is whoever applies its entry.

import { applyGapMax, unsyncedBytesMax } from '../limits.ts';
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
  private isStopped = false;

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

  private nextCounter(): number {
    this.idCounter = (this.idCounter + 1) % 2 ** 48;
    return this.idCounter;
  }

  /** A positive id for a lease that its client left unnamed. */
  newLeaseId(): bigint {
    const id = (BigInt(this.idPrefix) << 48n) | BigInt(this.nextCounter());
    return BigInt.asUintN(63, id);
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
    this.pending.add(counter, field, waiter, this.parts.nowMs());
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

  /** Gives raft what the turn brought, and returns how many; 0 when it has to wait. */
  submit(): number {
    const count = this.batch.length;
    const result = this.parts.raft.proposeBatch(this.batch);
    // They wait for a leader, each until its time-out, as in etcd.
    if (result.status === ProposeStatus.dropped && result.reason === 'no leader') return 0;
    if (result.status === ProposeStatus.dropped) this.failDropped();
    this.batch = [];
    this.batchCounters = [];
    this.batchBytes = 0;
    return count;
  }

  private failDropped(): void {
    this.parts.counters.proposalsFailed += this.batch.length;
    for (const counter of this.batchCounters) this.pending.take(counter)?.failed(DROPPED);
  }

  /** Fails what was proposed before `beforeMs` and is not applied yet. */
  expire(beforeMs: number): void {
    this.parts.counters.proposalsFailed += this.pending.expire(beforeMs, etcdErrors.timeout, this.countFailed);
  }

  /** Fails what waits, and refuses what comes. */
  stop(): void {
    this.isStopped = true;
    this.pending.expire(Infinity, etcdErrors.stopped, this.countFailed);
  }

  private readonly countFailed = (kind: number, sinceMs: number): void => {
    this.parts.counters.observeRequest(kind, false, (this.parts.nowMs() - sinceMs) / 1000);
  };
}
