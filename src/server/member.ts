// The member: what the services of rpc/ ask, and the loop that drives raft, the WAL and the state machine, once a turn for everything
// that the turn brought: propose → append → sync → apply → answer. The loop never waits for the disk longer than walWaitMs; beyond it
// goes on by the WAL's message. What it drives has files of its own: proposals.ts, read-queue.ts, state-machine.ts, compactions.ts,
// publication.ts, lease-upkeep.ts. Building all of it at start is bootstrap.ts.

import { alarmText } from '../apply/alarms.ts';
import { assert } from '../base/assert.ts';
import { failpoint } from '../base/failpoint.ts';
import { logCompactionSlack, overlapProposalsMin, readCatchUpMs, requestTimeoutBaseMs, walWaitMs } from '../limits.ts';
import { AlarmType } from '../proto/etcdserverpb.ts';
import type { RequestField } from '../proto/internal-request.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { Ready } from '../raft/raw-node.ts';
import { type ConfState, NONE, RaftState } from '../raft/types.ts';
import { Compactions } from './compactions.ts';
import { LeaseUpkeep } from './lease-upkeep.ts';
import { MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';
import type { PendingProposals, Waiter } from './pending.ts';
import { Proposals } from './proposals.ts';
import { Publication } from './publication.ts';
import { ReadQueue, type ReadWaiter } from './read-queue.ts';
import { StateMachine } from './state-machine.ts';

/** Stands beside the fields of InternalRaftRequest as the kind of a Txn that only reads, which is in no entry. */
export const readOnlyTxnKind = 0;

export class Member {
  readonly parts: MemberParts;
  readonly log: MemberLog;

  private readonly proposals: Proposals;
  private readonly reads: ReadQueue;
  private readonly machine: StateMachine;
  private readonly compactions: Compactions;
  private readonly publication: Publication;
  private readonly leases: LeaseUpkeep;
  private scheduled = false;
  private running = false;
  private stopping = false;
  /** Readies that were written: persisted up to `sequence` once `ticket` is durable. */
  private readonly unpersisted: { ticket: number; sequence: number }[] = [];
  private lastTicket = 0;
  /** True once an entry of this term is committed: a new leader doesn't know the commit index before. */
  private committedInTerm = false;
  /** The whole cluster is this member: what it has committed is what there is. */
  private isLoneVoter = false;

  constructor(parts: MemberParts) {
    this.parts = parts;
    this.log = new MemberLog(parts);
    const wake = (): void => this.wake();
    this.proposals = new Proposals(parts, this.log, wake);
    this.reads = new ReadQueue(parts.raft);
    this.machine = new StateMachine(parts, this.log, this.proposals, {
      termBegan: () => this.noteTerm(),
      confChanged: (confState) => this.noteConfState(confState),
      wake,
    });
    this.compactions = new Compactions(parts, this.log);
    this.publication = new Publication(parts, this.log, this.proposals);
    this.leases = new LeaseUpkeep(parts, this.proposals);
    parts.header.term = parts.raft.term;
    this.noteConfState(parts.raft.status().confState);
    parts.backend.onDurable = (index) => this.releaseLog(index);
  }

  /** Starts the loop; `onReady` is called once the member has published itself, that is, can serve. */
  start(onReady: () => void): void {
    this.publication.whenFirst(onReady);
    this.machine.startReplay();
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

  // --- Writes ---

  get pending(): PendingProposals {
    return this.proposals.pending;
  }

  /** A positive id for a lease that its client left unnamed. */
  newLeaseId(): bigint {
    return this.proposals.newLeaseId();
  }

  /** Proposes message[start, end) as `field`; `waiter` is called when it is applied, or fails. Returns why it can't be. */
  propose(field: RequestField, message: Buffer, start: number, end: number, waiter: Waiter): EtcdError | null {
    return this.proposals.propose(field, message, start, end, waiter);
  }

  /** True when a write of `costBytes` would cross the quota. */
  exceedsQuota(costBytes: number): boolean {
    return this.proposals.exceedsQuota(costBytes);
  }

  /** Raises the no-space alarm through raft, once. */
  raiseNoSpace(): void {
    this.proposals.raiseNoSpace();
  }

  /** Calls `done` when the deletes of the compaction to `revision`, which was applied, are done and durable. */
  afterCompaction(revision: number, done: () => void): void {
    this.compactions.after(revision, done);
  }

  isCompactingTo(revision: number): boolean {
    return this.compactions.has(revision);
  }

  /** For the applier: the deletes begin. */
  startCompaction(revision: number): void {
    this.compactions.start(revision);
  }

  // --- Reads ---

  /** Whether a linearizable read may be answered at once: a lone voter that has applied all that it committed. */
  get canReadNow(): boolean {
    const { raft } = this.parts;
    return this.committedInTerm && raft.isLeader && this.isLoneVoter && raft.appliedIndex === raft.committedIndex;
  }

  /** Calls `waiter` when a linearizable read may be answered. Reads of one turn share one ReadIndex round. */
  read(waiter: ReadWaiter, requestBytes = 0): void {
    if (this.stopping) {
      waiter.failed(etcdErrors.stopped);
      return;
    }
    this.reads.add(waiter, this.parts.nowMs(), requestBytes);
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
    // The flusher is behind: what it has not written would only grow. Clients wait, as they do for etcd's own backend.
    if (this.proposals.isEmpty || !this.machine.hasRoom()) return 0;
    return this.proposals.submit();
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
    this.machine.add(ready.committedEntries);
    this.applyWaiting();
  }

  private readonly onDurable = (ticket: number): void => {
    const { unpersisted } = this;
    let sequence = 0;
    while (unpersisted.length > 0 && unpersisted[0]!.ticket <= ticket) sequence = unpersisted.shift()!.sequence;
    if (sequence > 0) this.parts.raft.persisted(sequence);
    if (!this.running) this.wake();
  };

  private applyWaiting(): void {
    if (this.machine.isEmpty) return;
    this.machine.run(this.isCatchingUp);
    const { raft } = this.parts;
    // Now that nothing is left that could change the voters: a lone one needs no election timeout.
    const isDone = raft.appliedIndex === raft.committedIndex;
    if (isDone && this.isLoneVoter && raft.lead === NONE && raft.state === RaftState.follower) raft.campaign();
    this.compactLog();
  }

  private readonly isCatchingUp = (): boolean => !(this.parts.raft.isLeader && this.committedInTerm);

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

  private noteTerm(): void {
    const { raft, lessor, electionMs } = this.parts;
    this.committedInTerm = true;
    if (!raft.isLeader) return;
    lessor.promote(electionMs);
    this.publication.publish();
  }

  private noteConfState(confState: ConfState): void {
    const { voters, votersOutgoing } = confState;
    // A lone voter needs nobody's answer, and at start no election timeout.
    this.isLoneVoter = voters.length === 1 && voters[0] === this.parts.id && votersOutgoing.length === 0;
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
    const { raft, nowMs, counters, hub } = this.parts;
    raft.tick();
    if (raft.isLeader && this.committedInTerm) this.publication.retry();
    const now = nowMs();
    this.proposals.expire(now - this.requestTimeoutMs);
    if (this.reads.expire(now - readCatchUpMs - this.requestTimeoutMs) > 0) counters.slowReadIndexes++;
    this.leases.tick(now);
    if (raft.hasReady() || !this.proposals.isEmpty || this.reads.hasNew || hub.hasCatchUp) this.wake();
  }

  /** Refuses new requests, makes all that was acknowledged durable in the backend, closes the files. */
  stop(done: () => void): void {
    this.stopping = true;
    this.proposals.stop();
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
