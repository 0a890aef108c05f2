// The member: takes proposals and reads, drives raft, the WAL and the state machine, and answers. One loop, run once a turn for
// everything that the turn brought: propose → append → sync → apply → answer. The loop never waits for the disk longer than
// walWaitMs; beyond it goes on by the WAL's message. Building all of this at start is bootstrap.ts.

import { alarmText } from '../apply/alarms.ts';
import { assert } from '../base/assert.ts';
import { failpoint } from '../base/failpoint.ts';
import type { Lease } from '../lease/lessor.ts';
import {
  applyGapMax,
  leaseCheckpointsMax,
  leaseTickMs,
  logCompactionSlack,
  overlapProposalsMin,
  readCatchUpMs,
  requestTimeoutBaseMs,
  unsyncedBytesMax,
  walWaitMs,
} from '../limits.ts';
import {
  AlarmAction,
  AlarmRequest,
  AlarmType,
  ClusterMemberAttrSetRequest,
  ClusterVersionSetRequest,
  LeaseCheckpointRequest,
  LeaseRevokeRequest,
} from '../proto/etcdserverpb.ts';
import { encodeInternalRequest, InternalRequest, RequestField, requestOffset } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { type EtcdError, etcdErrors, messageTooLarge } from '../proto/rpctypes.ts';
import { ProposeStatus } from '../raft/propose.ts';
import type { Ready } from '../raft/raw-node.ts';
import { type ConfState, type Entry, EntryType, NONE, RaftState } from '../raft/types.ts';
import { encodeConfState, MetaKey } from '../snapshot/schema.ts';
import { ApplyQueue } from './apply-queue.ts';
import { MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';
import { applyMembershipChange } from './membership-change.ts';
import { PendingProposals, type Waiter } from './pending.ts';
import { ReadQueue, type ReadWaiter } from './read-queue.ts';

/** Stands beside the fields of InternalRaftRequest as the kind of a Txn that only reads, which is in no entry. */
export const readOnlyTxnKind = 0;

/** etcd's ErrProposalDropped reaches the client without a status of its own. */
const DROPPED: EtcdError = { code: 2, message: 'raft proposal dropped' };

export class Member {
  readonly parts: MemberParts;
  readonly log: MemberLog;
  readonly pending: PendingProposals = new PendingProposals();

  private readonly request = new InternalRequest();
  private proposals: Buffer[] = [];
  /** Their ids' counters, and their bytes together. */
  private proposalCounters: number[] = [];
  private proposalBytes = 0;
  /** Publishing failed and is tried again with the next tick. */
  private mustPublish = false;
  private scheduled = false;
  private running = false;
  private stopping = false;
  private idCounter: number;
  private readonly idPrefix: number;
  /** Readies that were written: persisted up to `sequence` once `ticket` is durable. */
  private readonly unpersisted: { ticket: number; sequence: number }[] = [];
  private lastTicket = 0;
  private readonly reads: ReadQueue;
  /** True once an entry of this term is committed: a new leader doesn't know the commit index before. */
  private committedInTerm = false;
  private readonly revoking = new Set<bigint>();
  private lastLeaseTickMs = 0;
  private readonly unapplied: ApplyQueue = new ApplyQueue((entry) => this.applyOne(entry));
  private applyClockMs = 0;
  private waitsForRoom = false;
  /** Until the log of the time before the start is applied: since when, and from where on. */
  private replay: { readonly sinceMs: number; readonly index: number } | null = null;
  /** Compactions whose deletes go on, by revision, and who waits for them. */
  private readonly compactions = new Map<number, (() => void)[]>();
  private alarmProposed = false;
  /** As last logged. */
  private clusterVersion: string | undefined;
  /** The whole cluster is this member: what it has committed is what there is. */
  private isLoneVoter = false;
  private onReady: (() => void) | null = null;

  constructor(parts: MemberParts) {
    this.parts = parts;
    this.log = new MemberLog(parts);
    this.clusterVersion = parts.cluster.version;
    this.reads = new ReadQueue(parts.raft);
    this.idPrefix = Number(parts.id & 0xffffn);
    // 40 bits of milliseconds above 8 of counting, so that ids of a restarted member are new ones.
    this.idCounter = (Math.floor(parts.wallMs()) % 2 ** 40) * 256;
    parts.header.term = parts.raft.term;
    this.noteConfState(parts.raft.status().confState);
    parts.backend.onDurable = (index) => this.releaseLog(index);
  }

  /** Starts the loop; `onReady` is called once the member has published itself, that is, can serve. */
  start(onReady: () => void): void {
    this.onReady = onReady;
    this.replay = { sinceMs: this.parts.nowMs(), index: this.appliedIndex };
    // A lone voter needs no election timeout; while a change of the voters may be among what is to be applied, applyWaiting() asks.
    const { raft } = this.parts;
    if (this.isLoneVoter && raft.appliedIndex === raft.committedIndex) raft.campaign();
    this.wake();
  }

  get isLeader(): boolean {
    return this.parts.raft.isLeader;
  }

  get leader(): bigint {
    return this.parts.raft.lead;
  }

  get appliedIndex(): number {
    return this.parts.raft.appliedIndex;
  }

  get term(): number {
    return this.parts.raft.term;
  }

  /** etcd's ReqTimeout. */
  get requestTimeoutMs(): number {
    return requestTimeoutBaseMs + 2 * this.parts.electionMs;
  }

  /** Status.errors. */
  errors(): string[] {
    const errors = this.parts.alarms.get(AlarmType.none).map(alarmText);
    return this.leader === NONE ? [etcdErrors.noLeader.message, ...errors] : errors;
  }

  // --- Proposals ---

  nextId(): number {
    this.idCounter = (this.idCounter + 1) % 2 ** 48;
    return this.idCounter;
  }

  /** A positive id for a lease that its client left unnamed. */
  newLeaseId(): bigint {
    const id = (BigInt(this.idPrefix) << 48n) | BigInt(this.nextId());
    return BigInt.asUintN(63, id);
  }

  /** Proposes message[start, end) as `field`; `waiter` is called when it is applied, or fails. Returns why it can't be. */
  propose(field: RequestField, message: Buffer, start: number, end: number, waiter: Waiter): EtcdError | null {
    if (this.stopping) return etcdErrors.stopped;
    return this.isBusy ? etcdErrors.requestTooManyRequests : this.enqueue(field, message, start, end, waiter);
  }

  /** What waits for the state machine, the flusher or the disk has reached its bound. */
  private get isBusy(): boolean {
    const { raft, wal } = this.parts;
    if (raft.committedIndex - raft.appliedIndex > applyGapMax) return true;
    return wal.pendingBytes + this.proposalBytes > unsyncedBytesMax;
  }

  private enqueue(field: RequestField, message: Buffer, start: number, end: number, waiter: Waiter): EtcdError | null {
    const { requestBytesMax } = this.parts;
    const counter = this.nextId();
    const entry = encodeInternalRequest(field, message, start, end, this.idPrefix, counter);
    if (entry.length > requestBytesMax) {
      // Refused, but a success in etcd's metric: only what raft did not take is a failure there.
      this.parts.counters.observeRequest(field, true, 0);
      return etcdErrors.requestTooLarge;
    }
    this.proposals.push(entry);
    this.proposalBytes += entry.length;
    this.proposalCounters.push(counter);
    this.pending.add(counter, field, waiter, this.parts.nowMs());
    const offset = requestOffset(field, end - start);
    waiter.proposed?.(entry, offset, offset + end - start);
    this.wake();
    return null;
  }

  /** A request of the server's own: few, and needed most when clients are refused. */
  private proposeOwn(field: RequestField, message: Buffer, then: (error: EtcdError | null) => void): void {
    const waiter: Waiter = { applied: (applier) => then(applier.error), failed: (error) => then(error) };
    const error = this.stopping ? etcdErrors.stopped : this.enqueue(field, message, 0, message.length, waiter);
    if (error !== null) then(error);
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

  /** True when a write of `costBytes` would cross the quota. */
  exceedsQuota(costBytes: number): boolean {
    return costBytes > 0 && this.parts.backend.sizes().totalBytes + costBytes >= this.parts.quotaBytes;
  }

  /** Calls `done` when the deletes of the compaction to `revision`, which was applied, are done and durable. */
  afterCompaction(revision: number, done: () => void): void {
    const running = this.compactions.get(revision);
    if (running === undefined) done();
    else running.push(done);
  }

  isCompactingTo(revision: number): boolean {
    return this.compactions.has(revision);
  }

  /** For the applier: the deletes begin. */
  startCompaction(revision: number): void {
    const waiters: (() => void)[] = [];
    this.compactions.set(revision, waiters);
    const { backend, nowMs } = this.parts;
    const startMs = nowMs();
    const rowsBefore = backend.compactedRows;
    backend.compact(revision, (hash) => {
      this.compactions.delete(revision);
      this.log.compacted(revision, nowMs() - startMs, backend.compactedRows - rowsBefore, hash);
      for (const done of waiters) done();
      this.parts.flushConnections();
    });
  }

  // --- Reads ---

  /** Whether a linearizable read may be answered at once: a lone voter that has applied all that it committed. */
  get canReadNow(): boolean {
    const { raft } = this.parts;
    return this.committedInTerm && raft.isLeader && this.isLoneVoter && raft.appliedIndex === raft.committedIndex;
  }

  /** Calls `waiter` when a linearizable read may be answered. Reads of one turn share one ReadIndex round. */
  read(waiter: ReadWaiter): void {
    if (this.stopping) {
      waiter.failed(etcdErrors.stopped);
      return;
    }
    this.reads.add(waiter, this.parts.nowMs());
    this.wake();
  }

  // --- The loop ---

  /** Has the loop run at the end of this turn. */
  wake(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    this.parts.schedule(this.run);
  }

  private readonly run = (): void => {
    this.scheduled = false;
    // What the log still gets is applied at the next start: the backend is closing.
    if (this.running || this.stopping) return;
    this.running = true;
    const { raft, wal } = this.parts;
    this.applyWaiting();
    const submitted = this.submit();
    this.reads.startRound();
    // A turn that brought much lets the sockets have the next one while the disk syncs: it will bring more. Otherwise nothing is
    // likely to come before the sync is done, and waiting for it here costs least. Not for long: a stalled disk must not stop
    // the loop, after walWaitMs the rest comes by the WAL's message.
    const overlaps = submitted >= overlapProposalsMin;
    do {
      while (raft.hasReady()) this.handle(raft.ready());
      if (this.unpersisted.length > 0 && !wal.waitDurable(this.lastTicket, overlaps ? 0 : walWaitMs)) {
        while (raft.hasReady()) this.handle(raft.ready());
        if (overlaps) this.wake();
        break;
      }
    } while (raft.hasReady());
    this.reads.answer(raft.appliedIndex);
    this.parts.hub.flush();
    if (this.parts.hub.hasCatchUp && this.parts.hub.catchUp()) this.wake();
    this.parts.flushConnections();
    this.running = false;
  };

  /** Returns how many proposals the turn brought. */
  private submit(): number {
    const count = this.proposals.length;
    // The flusher is behind: what it has not written would only grow. Clients wait, as they do for etcd's own backend.
    if (count === 0 || !this.hasRoom()) return 0;
    const result = this.parts.raft.proposeBatch(this.proposals);
    // They wait for a leader, each until its time-out, as in etcd.
    if (result.status === ProposeStatus.dropped && result.reason === 'no leader') return 0;
    if (result.status === ProposeStatus.dropped) this.failDropped();
    this.proposals = [];
    this.proposalCounters = [];
    this.proposalBytes = 0;
    return count;
  }

  private failDropped(): void {
    this.parts.counters.proposalsFailed += this.proposals.length;
    for (const counter of this.proposalCounters) this.pending.take(counter)?.failed(DROPPED);
  }

  private handle(ready: Ready): void {
    const { raft, wal, storage } = this.parts;
    if (ready.softState !== null) this.noteLeader(ready.softState.lead, ready.softState.state);
    assert(ready.snapshot === null, 'a snapshot from a peer without peers');
    if (ready.hardState !== null || ready.entries.length > 0) {
      failpoint('raftBeforeSave');
      storage.append(ready.entries);
      wal.append(ready.hardState, ready.entries);
      if (ready.mustSync) this.lastTicket = wal.sync(this.onDurable);
      failpoint('raftAfterSave');
    }
    if (ready.sequence > 0) {
      if (wal.durableTicket >= this.lastTicket && this.unpersisted.length === 0) raft.persisted(ready.sequence);
      else this.unpersisted.push({ ticket: this.lastTicket, sequence: ready.sequence });
    }
    this.reads.confirm(ready.readStates);
    this.unapplied.add(ready.committedEntries);
    this.applyWaiting();
  }

  private readonly onDurable = (ticket: number): void => {
    const { unpersisted } = this;
    let sequence = 0;
    while (unpersisted.length > 0 && unpersisted[0]!.ticket <= ticket) sequence = unpersisted.shift()!.sequence;
    if (sequence > 0) this.parts.raft.persisted(sequence);
    if (!this.running) this.wake();
  };

  private noteLeader(lead: bigint, state: RaftState): void {
    const { header, raft, lessor, counters } = this.parts;
    header.term = raft.term;
    this.committedInTerm = false;
    if (lead !== NONE) {
      counters.leaderChanges++;
      this.log.elected(lead, raft.term);
    }
    this.reads.restart();
    if (state !== RaftState.leader) lessor.demote();
  }

  // --- Apply ---

  /** Applies what was committed, all of it or what there is room for. */
  private applyWaiting(): void {
    if (this.unapplied.isEmpty) return;
    const { raft } = this.parts;
    this.applyClockMs = this.parts.nowMs();
    const last = this.unapplied.run(this.isCatchingUp, this.hasRoom);
    if (last > 0) raft.applied(last);
    if (!this.unapplied.isEmpty && !this.waitsForRoom) this.wake();
    // Now that nothing is left that could change the voters: a lone one needs no election timeout.
    const isDone = raft.appliedIndex === raft.committedIndex;
    if (isDone && this.replay !== null) {
      this.log.replayed(raft.appliedIndex - this.replay.index, this.parts.nowMs() - this.replay.sinceMs);
      this.replay = null;
    }
    if (isDone && this.isLoneVoter && raft.lead === NONE && raft.state === RaftState.follower) raft.campaign();
    this.compactLog();
  }

  private readonly isCatchingUp = (): boolean => !(this.parts.raft.isLeader && this.committedInTerm);

  /** Whether the flusher keeps up; if not, the loop runs again when it does. */
  private readonly hasRoom = (): boolean => {
    const { backend } = this.parts;
    if (!backend.isOverloaded()) return true;
    if (this.waitsForRoom) return false;
    this.waitsForRoom = true;
    backend.whenRoom(() => {
      this.waitsForRoom = false;
      this.wake();
    });
    return false;
  };

  private applyOne(entry: Entry): void {
    const { backend } = this.parts;
    assert(entry.index === backend.consistentIndex + 1, 'entries are applied in order, each once');
    if (entry.type === EntryType.normal) {
      if (entry.data.length === 0) this.applyEmpty(entry);
      else this.applyRequest(entry);
    } else this.applyConfChange(entry);
    backend.endApply(entry.index, entry.term);
  }

  /** The entry that a new leader appends: everything of older terms is applied now. */
  private applyEmpty(entry: Entry): void {
    const { raft, lessor, electionMs } = this.parts;
    if (entry.term !== raft.term) return;
    this.committedInTerm = true;
    if (!raft.isLeader) return;
    lessor.promote(electionMs);
    this.publish();
  }

  private applyRequest(entry: Entry): void {
    const { applier, counters, nowMs } = this.parts;
    const { request } = this;
    assert(request.parse(entry.data, 0, entry.data.length), 'a committed entry does not parse');
    // One look at the clock an entry: the end of one is the start of the next.
    const startMs = this.applyClockMs;
    const isAwaited = request.idPrefix === this.idPrefix && this.pending.has(request.idCounter);
    applier.apply(request, entry.data, isAwaited);
    const endMs = nowMs();
    this.applyClockMs = endMs;
    // What is compacted already needs no compaction: etcd counts that as success.
    const isGood = applier.error === null || applier.error === etcdErrors.compacted;
    counters.observeApply(request.field, isGood, (endMs - startMs) / 1000);
    if (endMs - startMs > this.parts.warningApplyMs) this.log.slowApply(request, entry.data, endMs - startMs);
    if (!isGood) this.log.failedApply(request, entry.data, endMs - startMs);
    if (request.field === RequestField.clusterVersionSet) this.noteClusterVersion();
    if (applier.crossedQuota) this.raiseNoSpace();
    const waiter = isAwaited ? this.pending.take(request.idCounter) : undefined;
    if (waiter === undefined) return;
    // etcd's request succeeded when it was applied, whatever the answer.
    const requestMs = endMs - this.pending.takenSinceMs;
    counters.observeRequest(request.field, true, requestMs / 1000);
    // etcd applies the write that crosses the quota and answers it with the error all the same.
    if (applier.crossedQuota && applier.error === null) applier.error = etcdErrors.noSpace;
    if (applier.body.full && applier.error === null) applier.error = messageTooLarge(applier.body.bytesMax);
    waiter.applied(applier);
  }

  private noteClusterVersion(): void {
    const { backend, cluster } = this.parts;
    const version = cluster.version!;
    backend.bucketPut('meta', MetaKey.storageVersion, Buffer.from(version));
    this.log.clusterVersion(this.clusterVersion, version);
    this.clusterVersion = version;
  }

  private applyConfChange(entry: Entry): void {
    const { backend, raft, cluster } = this.parts;
    const change = applyMembershipChange(cluster, entry, (member) => this.log.addedMember(member));
    const confState = raft.applyConfChange(change);
    backend.bucketPut('meta', MetaKey.confState, encodeConfState(confState));
    this.noteConfState(confState);
  }

  private noteConfState(confState: ConfState): void {
    const { voters, votersOutgoing } = confState;
    // A lone voter needs nobody's answer, and at start no election timeout.
    this.isLoneVoter = voters.length === 1 && voters[0] === this.parts.id && votersOutgoing.length === 0;
  }

  /** Makes name and client URLs known to the cluster; the first time, its version too. */
  private publish(): void {
    const { id, name, clientUrls, cluster, clusterVersion, logger } = this.parts;
    const attributes = { memberId: id, memberAttributes: { name, clientUrls } };
    this.proposeOwn(RequestField.clusterMemberAttrSet, encode(ClusterMemberAttrSetRequest, attributes), (error) => {
      if (error !== null) {
        this.log.publishFailed(error);
        this.mustPublish = true;
        return;
      }
      this.log.published(name, clientUrls);
      const onReady = this.onReady;
      this.onReady = null;
      onReady?.();
    });
    if (cluster.version !== undefined) return;
    this.log.settingClusterVersion(clusterVersion);
    this.proposeOwn(
      RequestField.clusterVersionSet,
      encode(ClusterVersionSetRequest, { ver: clusterVersion }),
      (error) => {
        if (error !== null)
          logger.warn('server/member.ts', 'failed to set the cluster version', { error: error.message });
      },
    );
  }

  /** Entries behind the applied ones stay for followers that lag; what is older leaves memory now and then. */
  private compactLog(): void {
    const { storage, raft, catchUpEntries } = this.parts;
    const keepFrom = raft.appliedIndex - catchUpEntries;
    if (keepFrom - storage.firstIndex() <= logCompactionSlack) return;
    storage.compact(keepFrom);
    this.log.compactedLog(keepFrom);
  }

  private releaseLog(durableIndex: number): void {
    const { wal, catchUpEntries } = this.parts;
    if (!this.stopping) wal.release(Math.max(0, durableIndex - catchUpEntries));
  }

  // --- Time ---

  /** One raft tick. */
  tick(): void {
    if (this.stopping) return;
    const { raft, nowMs } = this.parts;
    raft.tick();
    if (this.mustPublish && raft.isLeader && this.committedInTerm) {
      this.mustPublish = false;
      this.publish();
    }
    const now = nowMs();
    const { counters } = this.parts;
    counters.proposalsFailed += this.pending.expire(now - this.requestTimeoutMs, etcdErrors.timeout, this.countExpired);
    if (this.reads.expire(now - readCatchUpMs - this.requestTimeoutMs) > 0) counters.slowReadIndexes++;
    if (now - this.lastLeaseTickMs >= leaseTickMs) {
      this.lastLeaseTickMs = now;
      this.tickLeases();
    }
    if (raft.hasReady() || this.proposals.length > 0 || this.reads.hasNew || this.parts.hub.hasCatchUp) this.wake();
  }

  private readonly countExpired = (kind: number, sinceMs: number): void => {
    this.parts.counters.observeRequest(kind, false, (this.parts.nowMs() - sinceMs) / 1000);
  };

  private tickLeases(): void {
    const { lessor } = this.parts;
    for (const lease of lessor.takeExpired()) this.revokeExpired(lease);
    const checkpoints = lessor.takeCheckpoints(leaseCheckpointsMax);
    if (checkpoints.length === 0) return;
    this.proposeOwn(RequestField.leaseCheckpoint, encode(LeaseCheckpointRequest, { checkpoints }), () => {});
  }

  private revokeExpired(lease: Lease): void {
    if (this.revoking.has(lease.id)) return;
    this.revoking.add(lease.id);
    this.proposeOwn(RequestField.leaseRevoke, encode(LeaseRevokeRequest, { id: lease.id }), (error) => {
      this.revoking.delete(lease.id);
      if (error !== null && error !== etcdErrors.leaseNotFound) this.parts.lessor.retry(lease);
    });
  }

  /** Refuses new requests, makes all that was acknowledged durable in the backend, closes the files. */
  stop(done: () => void): void {
    this.stopping = true;
    this.pending.expire(Infinity, etcdErrors.stopped, this.countExpired);
    this.reads.fail(etcdErrors.stopped);
    this.parts.flushConnections();
    const { backend, wal, lock } = this.parts;
    backend.close(() => {
      wal.close();
      lock.release();
      done();
    });
  }
}
