// The member: what the services of rpc/ ask, and the loop that drives raft, the WAL and the state machine, once a turn for everything
// that the turn brought: propose → append → sync → apply → answer. The loop never waits for the disk longer than walWaitMs; beyond it
// goes on by the WAL's message. What it drives has files of its own: proposals.ts, read-queue.ts, state-machine.ts, compactions.ts,
// publication.ts, leases.ts, leadership.ts, snapshot-transfer.ts. Building all of it at start is bootstrap.ts.

import { alarmText } from '../apply/alarms.ts';
import { assert } from '../base/assert.ts';
import { failpoint } from '../base/failpoint.ts';
import { overlapBytesMin, readRoundRetryMs } from '../cluster-limits.ts';
import { overlapProposalsMin, readCatchUpMs, requestTimeoutBaseMs, walWaitMs } from '../limits.ts';
import { AlarmType } from '../proto/etcdserverpb.ts';
import type { RequestField } from '../proto/internal-request.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { Ready } from '../raft/raw-node.ts';
import {
  ConfChangeType,
  type ConfState,
  type Message,
  MessageType,
  NONE,
  type NodeId,
  RaftState,
  type Snapshot,
} from '../raft/types.ts';
import type { WalSnapshotMarker } from '../wal/format.ts';
import { Compactions } from './compactions.ts';
import { Corruption } from './corruption.ts';
import { CorruptionPeers } from './corruption-peers.ts';
import { Downgrades } from './downgrades.ts';
import { HeartbeatWatch } from './heartbeat-watch.ts';
import { HeldProposals } from './held-proposals.ts';
import { Leadership } from './leadership.ts';
import { Leases } from './leases.ts';
import { LogRetention } from './log-retention.ts';
import { MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';
import { MembershipChanges } from './membership.ts';
import type { AppliedChange } from './membership-change.ts';
import { MessageCheck } from './message-check.ts';
import type { PendingProposals, Waiter } from './pending.ts';
import { Proposals } from './proposals.ts';
import { Publication } from './publication.ts';
import { ReadQueue, type ReadWaiter } from './read-queue.ts';
import { Removal } from './removal.ts';
import { SnapshotTransfers } from './snapshot-transfer.ts';
import { StateMachine } from './state-machine.ts';
import { StorageVersion } from './storage-version.ts';
import { Versions } from './versions.ts';

/** Stands beside the fields of InternalRaftRequest as the kind of a Txn that only reads, which is in no entry. */
export const readOnlyTxnKind = 0;

/** A Ready whose writes are on their way to the disk, and what waits for them. */
interface Unpersisted {
  readonly ticket: number;
  readonly sequence: number;
  readonly messages: readonly Message[];
  readonly snapshot: Snapshot | null;
}

export class Member {
  readonly parts: MemberParts;
  readonly log: MemberLog;
  readonly leadership: Leadership;
  readonly leases: Leases;
  readonly storageVersion: StorageVersion;
  readonly downgrades: Downgrades;
  readonly corruption: Corruption;
  readonly snapshots: SnapshotTransfers;
  readonly membership: MembershipChanges;
  readonly removal: Removal;

  private readonly proposals: Proposals;
  private readonly reads: ReadQueue;
  private readonly machine: StateMachine;
  private readonly compactions: Compactions;
  private readonly publication: Publication;
  private readonly check: MessageCheck;
  private readonly held: HeldProposals;
  private readonly heartbeats: HeartbeatWatch;
  private readonly retention: LogRetention;
  private readonly versions: Versions;
  private scheduled = false;
  private running = false;
  private stopping = false;
  /** Oldest first. */
  private readonly unpersisted: Unpersisted[] = [];
  private lastTicket = 0;
  /** Of the last turn whose bytes the disk takes milliseconds for: until it is durable nothing is waited for. */
  private largeTicket = 0;
  /** Entries that this turn has given to the log. */
  private appended = 0;
  private appendedBytes = 0;
  /** True once an entry of this term is committed: a new leader doesn't know the commit index before. */
  private committedInTerm = false;
  private lastLead: NodeId = NONE;
  /** The whole cluster is this member: what it has committed is what there is. */
  private isLoneVoter = false;

  constructor(parts: MemberParts) {
    this.parts = parts;
    this.log = new MemberLog(parts);
    const wake = (): void => this.wake();
    this.proposals = new Proposals(parts, this.log, wake);
    this.reads = new ReadQueue(parts.raft, this.proposals);
    this.machine = new StateMachine(parts, this.log, this.proposals, {
      termBegan: () => this.noteTerm(),
      confChanged: (confState) => this.noteConfState(confState),
      membershipChanged: (change) => this.noteMembership(change),
      versionChanged: () => this.storageVersion.follow(),
      wake,
    });
    this.compactions = new Compactions(parts, this.log);
    this.publication = new Publication(parts, this.log, this.proposals);
    const read = (waiter: ReadWaiter): void => this.read(waiter);
    this.leases = new Leases(parts, this.proposals, { read, wake, requestTimeoutMs: this.requestTimeoutMs });
    this.storageVersion = new StorageVersion(parts);
    this.versions = new Versions(parts, this.log, this.proposals, this.storageVersion);
    this.downgrades = new Downgrades(parts, this.proposals, (waiter) => this.read(waiter));
    this.corruption = new Corruption(new CorruptionPeers(this, this.proposals), parts.checks);
    this.leadership = new Leadership(parts, this.log, wake);
    this.removal = new Removal(parts, this.leadership);
    this.heartbeats = new HeartbeatWatch(parts);
    this.check = new MessageCheck(parts);
    this.held = new HeldProposals(parts.raft, parts.electionMs, () => this.removal.isLeaving());
    this.membership = new MembershipChanges(parts, this.proposals, {
      requestTimeoutMs: this.requestTimeoutMs,
      timeoutError: (sinceMs) => this.leadership.timeoutError(sinceMs),
      wake,
    });
    this.snapshots = new SnapshotTransfers(parts);
    this.retention = new LogRetention(parts, this.log, () => this.snapshots.heldIndex);
    parts.header.term = parts.raft.term;
    this.noteConfState(parts.raft.status().confState);
    parts.backend.onDurable = (index) => {
      if (!this.stopping) this.retention.release(index);
    };
  }

  /** Starts the loop; `onReady` is called once the member has published itself, that is, can serve. */
  start(onReady: () => void): void {
    const { id, cluster, transport, firstMembers } = this.parts;
    const members = [...cluster.members(), ...firstMembers];
    for (const member of members) if (member.id !== id) transport.addPeer(member.id, member.peerUrls);
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

  get isLearner(): boolean {
    return this.parts.raft.isLearner;
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

  // --- Peers ---

  /** A message of a peer: raft hears it now, what follows from it is done at the end of the turn. */
  receive(message: Message): void {
    const { id, raft } = this.parts;
    if (this.stopping) return;
    assert(message.to === id, 'the transport hands on what is for this member');
    if (!this.check.admits(message) || this.held.takes(message, this.parts.nowMs())) return;
    if (message.type === MessageType.app && message.entries.length > 0 && !this.machine.unappliedBytes.mayGrow(raft))
      return;
    raft.step(message);
    this.wake();
  }

  noteUnreachable(id: NodeId): void {
    this.parts.raft.reportUnreachable(id);
  }

  noteSnapshotSent(id: NodeId, succeeded: boolean): void {
    this.parts.raft.reportSnapshot(id, succeeded);
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
    this.submit();
    this.reads.startRound(this.parts.nowMs());
    // A turn that brought much lets the sockets have the next one while the disk syncs: it will bring more. Otherwise nothing is
    // likely to come before the sync is done, and waiting for it here costs least. Not for long: a stalled disk must not stop
    // the loop, after walWaitMs the rest comes by the WAL's message.
    let overlaps = false;
    do {
      while (raft.hasReady()) this.handle(raft.ready());
      if (this.appendedBytes >= overlapBytesMin) this.largeTicket = this.lastTicket;
      overlaps ||= this.appended >= overlapProposalsMin;
      // Peers write to their disks while this one does.
      this.parts.transport.flush();
      const waitMs = overlaps || wal.durableTicket < this.largeTicket ? 0 : walWaitMs;
      if (this.unpersisted.length > 0 && !wal.waitDurable(this.lastTicket, waitMs)) {
        while (raft.hasReady()) this.handle(raft.ready());
        if (overlaps) this.wake();
        break;
      }
    } while (raft.hasReady());
    this.appended = 0;
    this.appendedBytes = 0;
    this.reads.answer(raft.appliedIndex);
    this.leases.applied(raft.appliedIndex);
    this.parts.hub.flush();
    if (this.parts.hub.hasCatchUp && this.parts.hub.catchUp()) this.wake();
    // A leader's answers first: its followers have time to hear of the commit. A follower's acknowledgement is what others wait for.
    if (raft.isLeader) this.parts.flushConnections();
    this.parts.transport.flush();
    if (!raft.isLeader) this.parts.flushConnections();
    this.running = false;
  };

  private submit(): void {
    // The flusher is behind: what it has not written would only grow. Clients wait, as they do for etcd's own backend.
    if (this.removal.isLeaving() || (this.proposals.isEmpty && !this.leases.hasDue) || !this.machine.hasRoom()) return;
    this.leases.submit();
    if (!this.proposals.isEmpty) this.proposals.submit();
  }

  private handle(ready: Ready): void {
    const { raft, wal, storage } = this.parts;
    if (ready.softState !== null) this.noteLeader(ready.softState.lead, ready.softState.state);
    // A leader's appends travel while its own sync runs.
    if (ready.messages.length > 0) this.send(ready.messages);
    const { snapshot } = ready;
    // Entries of before the snapshot that are not applied yet are in it.
    if (snapshot !== null) this.machine.replaceBy(snapshot);
    if (ready.hardState !== null || ready.entries.length > 0 || snapshot !== null) {
      failpoint('raftBeforeSave');
      if (snapshot !== null) storage.applySnapshot(snapshot);
      storage.append(ready.entries);
      this.appended += ready.entries.length;
      this.appendedBytes += this.machine.unappliedBytes.logged(ready.entries);
      wal.append(ready.hardState, ready.entries, markerOf(snapshot));
      if (ready.mustSync) this.lastTicket = wal.sync(this.onDurable);
      failpoint('raftAfterSave');
    }
    if (ready.sequence > 0) {
      const { sequence, messagesAfterPersist: messages } = ready;
      const written = { ticket: this.lastTicket, sequence, messages, snapshot };
      if (wal.durableTicket >= this.lastTicket && this.unpersisted.length === 0) this.persisted(written);
      else this.unpersisted.push(written);
    }
    this.reads.confirm(ready.readStates);
    // Those that came while a round was on its way, or whose leader is another now: nothing else may come to begin theirs.
    if (this.reads.hasNew) this.reads.startRound(this.parts.nowMs());
    this.machine.add(ready.committedEntries);
    this.applyWaiting();
    if (raft.hasReady()) this.wake();
  }

  private send(messages: readonly Message[]): void {
    let hasSnapshots = false;
    for (let i = 0; i < messages.length; i++) {
      const { type, to } = messages[i]!;
      if (type === MessageType.heartbeat) this.heartbeats.sent(to);
      else if (type === MessageType.snap) hasSnapshots = true;
    }
    if (!hasSnapshots) {
      this.parts.transport.send(messages);
      return;
    }
    this.parts.transport.send(messages.filter(({ type }) => type !== MessageType.snap));
    for (const message of messages) if (message.type === MessageType.snap) this.snapshots.send(message);
  }

  private persisted({ sequence, messages, snapshot }: Unpersisted): void {
    this.parts.raft.persisted(sequence);
    if (messages.length > 0) this.send(messages);
    if (snapshot === null) return;
    this.snapshots.install(snapshot, () => {
      this.machine.installed(snapshot);
      this.noteConfState(snapshot.meta.confState);
      this.wake();
    });
  }

  private readonly onDurable = (ticket: number): void => {
    const { unpersisted } = this;
    while (unpersisted.length > 0 && unpersisted[0]!.ticket <= ticket) this.persisted(unpersisted.shift()!);
    if (!this.running) this.wake();
  };

  private applyWaiting(): void {
    if (this.machine.isEmpty) return;
    this.removal.beforeApply();
    this.machine.run(this.isCatchingUp);
    const { raft, cluster } = this.parts;
    // Now that nothing is left that could change the voters: a lone one needs no election timeout, nor a leader who was removed.
    const isAlone = this.isLoneVoter && raft.state === RaftState.follower && raft.appliedIndex === raft.committedIndex;
    if (isAlone && (raft.lead === NONE || cluster.isRemoved(raft.lead))) raft.campaign();
    this.retention.compact();
  }

  private readonly isCatchingUp = (): boolean => !(this.parts.raft.isLeader && this.committedInTerm);

  private noteLeader(lead: NodeId, state: RaftState): void {
    const { raft, lessor, counters } = this.parts;
    this.committedInTerm = false;
    if (lead !== NONE && lead !== this.lastLead) counters.leaderChanges++;
    if (lead !== this.lastLead) this.log.leaderIs(this.lastLead, lead, raft.term);
    this.lastLead = lead;
    this.reads.restart();
    this.heartbeats.reset();
    this.leases.leaderChanged();
    if (state !== RaftState.leader) lessor.demote();
    this.leadership.changed();
    if (this.held.release(this.parts.nowMs())) this.wake();
    this.publication.leaderChanged();
  }

  private noteTerm(): void {
    const { raft, lessor, electionMs } = this.parts;
    this.committedInTerm = true;
    if (!raft.isLeader) return;
    lessor.promote(electionMs);
    this.versions.leads();
  }

  private noteConfState(confState: ConfState): void {
    const { voters, votersOutgoing } = confState;
    // A lone voter needs nobody's answer, and at start no election timeout.
    this.isLoneVoter = voters.length === 1 && voters[0] === this.parts.id && votersOutgoing.length === 0;
  }

  private noteMembership(change: AppliedChange): void {
    const { type, nodeId, refusal } = change;
    if (type === ConfChangeType.removeNode && nodeId === this.parts.id && refusal === null) this.removal.noteApplied();
    this.membership.applied(change);
  }

  // --- Time ---

  /** One raft tick. */
  tick(): void {
    if (this.stopping) return;
    const { raft, nowMs, counters, hub } = this.parts;
    raft.tick();
    const now = nowMs();
    this.leadership.tick(now, this.unpersisted[0]?.ticket ?? 0);
    this.held.release(now);
    this.publication.tick();
    this.proposals.expire(now - this.requestTimeoutMs, (sinceMs) => this.leadership.timeoutError(sinceMs));
    if (this.reads.expire(now - readCatchUpMs - this.requestTimeoutMs) > 0) {
      counters.slowReadIndexes++;
      this.log.readsTimedOut(now, this.requestTimeoutMs);
    }
    const retriedRound = this.isLoneVoter ? 0 : this.reads.retry(now - readRoundRetryMs);
    if (retriedRound > 0) this.log.readsRetried(retriedRound, readRoundRetryMs);
    this.leases.tick(now);
    this.snapshots.tick(now);
    this.membership.tick(now);
    this.removal.tick(now);
    this.versions.tick(now);
    this.corruption.tick(now);
    if (raft.hasReady() || !this.proposals.isEmpty || this.reads.hasNew || hub.hasCatchUp) this.wake();
  }

  /** Refuses new requests, makes all that was acknowledged durable in the backend, closes the files. */
  stop(done: () => void): void {
    this.stopping = true;
    this.proposals.stop();
    this.leases.stop();
    this.membership.stop();
    this.removal.stop();
    this.reads.fail(etcdErrors.stopped);
    this.snapshots.stop();
    this.parts.transport.stop();
    this.parts.flushConnections();
    const { backend, wal, lock } = this.parts;
    backend.close(() => {
      wal.close();
      lock.release();
      done();
    });
  }
}

function markerOf(snapshot: Snapshot | null): WalSnapshotMarker | null {
  return snapshot === null ? null : { index: snapshot.meta.index, term: snapshot.meta.term, reset: true };
}
