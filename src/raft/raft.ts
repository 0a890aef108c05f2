// The state of one raft member and the operations that the steps share: sending, becoming, appending, committing. What
// a message does is in step*.ts, elections are in election.ts, the surface for a driver is raw-node.ts. Pure: no clock,
// no I/O, no randomness of its own. Behaviour follows go.etcd.io/raft/v3 v3.7.0, with which lockstep.peer-test.ts compares it
// after every input; the deliberate differences:
//
// - Appends for everybody and heartbeats are made when the Ready is taken, not at each proposal or answer: a turn's
//   proposals share their messages, and a turn's answers one broadcast of the commit index, which is left out where it
//   can't help (lagging-commit.txt).
// - A Ready is acknowledged by its sequence (write-queue.ts) in place of messages to oneself; one's own pre-vote, which
//   promises nothing, counts at once (prevote.txt).
// - Entries are handed out to be applied only when they are durable here, in every mode (async-writes.txt).
// - A leader always steps down when it is removed or demoted, etcd's StepDownOnRemoval (confchange-remove-leader.txt).
// - A single voter answers reads only after it committed in its term, as in larger groups (read-index-single.txt).
// - A configuration change from before a received snapshot does not undo the snapshot's (snapshot-unapplied-change.txt).
// - A leader refuses its own impossible configuration change by value, and replaces only forwarded ones by an empty
//   entry (confchange-simple.txt, forwarding.txt).
// - A change of nothing that names a transition is refused everywhere; in a joint configuration etcd's leader takes it, and
//   every member panics when it applies it (confchange-empty.txt).
// - A proposal that is dropped for its size leaves no configuration change pending (uncommitted-bound.txt).
// - What a broken peer may send is passed over where etcd panics: a snapshot with an impossible configuration, the confirmation of an entry
//   that the leader does not have (raw-node.test.ts).
// - Reads that wait for a term's first commit are forgotten with the leadership (read-index-step-down.txt), and a change of
//   the configuration answers those that it confirms (read-index-shrink.txt).
// - Against byte bounds an entry counts a fixed overhead (types.ts); a Ready with a snapshot asks for a sync (snapshot.txt).
// - Refusals during a snapshot and answers to heartbeats that were never sent are ignored (raw-node.test.ts).
// - A start repairs what a torn write leaves: a term behind the log's, a commit index behind the state machine's.

import { assert } from '../base/assert.ts';
import { type Configuration, changeConfiguration, restoreConfiguration, toConfState } from './conf-change.ts';
import { assertConfig, type RaftConfig, type RaftLogger, ReadOnlyOption } from './config.ts';
import { describeConfState, hex, progressText } from './describe.ts';
import { RaftLog } from './log.ts';
import { type Progress, ProgressState } from './progress.ts';
import { ReadOnly } from './read-only.ts';
import { NO_TERM, type Storage } from './storage.ts';
import { Tracker } from './tracker.ts';
import {
  type ConfChangeV2,
  type ConfState,
  EntryType,
  type HardState,
  type Message,
  MessageType,
  NO_BYTES,
  NONE,
  type NodeId,
  newMessage,
  payloadBytes,
  RaftState,
  type ReadState,
} from './types.ts';

/** Messages that promise something: they wait until what they promise is durable (Raft thesis 3.8). */
function needsDurability(type: MessageType): boolean {
  return type === MessageType.appResp || type === MessageType.voteResp || type === MessageType.preVoteResp;
}

function isCampaigning(type: MessageType): boolean {
  return (
    type === MessageType.vote ||
    type === MessageType.voteResp ||
    type === MessageType.preVote ||
    type === MessageType.preVoteResp
  );
}

export class Raft {
  readonly id: NodeId;
  readonly config: RaftConfig;
  readonly logger: RaftLogger;
  readonly storage: Storage;
  readonly log: RaftLog;
  readonly tracker: Tracker;
  readonly readOnly: ReadOnly = new ReadOnly();

  term = 0;
  /** Whom this member voted for in its term. */
  vote: NodeId = NONE;
  lead: NodeId = NONE;
  state: RaftState = RaftState.follower;
  /** While a transfer runs no proposal is taken. Only on a leader. */
  leadTransferee: NodeId = NONE;
  /** No configuration change is taken until the state machine has applied up to here. Only on a leader. */
  pendingConfIndex = 0;
  /** Bytes of requests appended in this term and not yet applied: an estimate that never exceeds the truth. */
  uncommittedBytes = 0;

  /**
   * Ticks since the election timer was reset: as follower since the leader was heard, as leader since the last check.
   */
  electionElapsed = 0;
  heartbeatElapsed = 0;
  randomizedElectionTimeout = 0;

  messages: Message[] = [];
  messagesAfterPersist: Message[] = [];
  readStates: ReadState[] = [];
  /** Read requests that wait for the first commit of this term. */
  pendingReads: Message[] = [];
  /**
   * The configuration as of what the state machine holds. It trails the one in force (the tracker's) from the moment
   * that a snapshot is received until the state machine has applied what came before it, and the snapshot.
   */
  #appliedConfiguration: Configuration;
  /** Of snapshots that were received and not applied; ascending. */
  readonly #restored: { readonly index: number; readonly configuration: Configuration }[] = [];
  #appendsPending = false;
  #heartbeatsPending = false;

  constructor(config: RaftConfig) {
    assertConfig(config);
    this.id = config.id;
    this.config = config;
    this.logger = config.logger;
    this.storage = config.storage;
    this.log = new RaftLog(config.storage, config.maxCommittedSizePerReady, config.logger);
    this.tracker = new Tracker(config.id, config.maxInflightMessages, config.maxInflightBytes);
    const { hardState, confState } = config.storage.initialState();
    const restored = restoreConfiguration(confState);
    assert(restored.ok, 'the stored configuration is impossible');
    this.#appliedConfiguration = restored.configuration;
    this.tracker.switchTo(restored.configuration, restored.forgotten, this.log.lastIndex);
    this.#tellConfiguration();
    this.#loadState(hardState);
    this.becomeFollower(this.term, NONE);
    this.logger.info(
      `newRaft ${hex(this.id)} [peers: [${this.tracker.voterIds().map(hex).join(',')}], term: ${this.term}, ` +
        `commit: ${this.log.committed}, applied: ${this.log.applied}, lastindex: ${this.log.lastIndex}, lastterm: ${this.log.lastTerm}]`,
    );
  }

  #loadState(hardState: HardState): void {
    // A crash in the middle of a write may leave entries of a term without the hard state that begins it. Nothing was
    // promised in that term then: no answer leaves before the whole write is durable.
    const isTorn = hardState.term < this.log.lastTerm;
    this.term = isTorn ? this.log.lastTerm : hardState.term;
    this.vote = isTorn ? NONE : hardState.vote;
    // The commit index is written without a sync, so a crash may lose its last values; what is applied was committed.
    const commit = Math.max(hardState.commit, this.config.applied, this.log.committed);
    assert(commit <= this.log.lastIndex, 'the stored commit or applied index is beyond the log');
    this.log.committed = commit;
    if (this.config.applied > 0) this.log.restoreApplied(this.config.applied);
  }

  get isLearner(): boolean {
    return this.tracker.self?.isLearner ?? false;
  }

  /** May campaign: a voter of the configuration that does not wait for a snapshot. */
  get isPromotable(): boolean {
    const self = this.tracker.self;
    return self !== null && !self.isLearner && !this.log.hasPendingSnapshot;
  }

  get hasCommittedInTerm(): boolean {
    return this.log.term(this.log.committed) === this.term;
  }

  // --- Sending ---

  send(message: Message): void {
    if (message.from === NONE) message.from = this.id;
    if (isCampaigning(message.type)) {
      assert(message.term !== 0, 'a campaign message needs its term');
    } else {
      assert(message.term === 0, 'the term of a message is set here');
      // Proposals and reads that are passed on belong to no term.
      if (message.type !== MessageType.prop && message.type !== MessageType.readIndex) message.term = this.term;
    }
    assert(message.to !== this.id, 'a message to oneself');
    if (needsDurability(message.type)) this.messagesAfterPersist.push(message);
    else this.messages.push(message);
  }

  /** Passes a request on to the leader. The message may be shared with its sender: it is not touched. */
  forward(message: Message): void {
    this.send({ ...message, to: this.lead, term: 0 });
  }

  /** Followers get what they miss when the Ready is taken. */
  broadcastAppend(): void {
    this.#appendsPending = true;
  }

  broadcastHeartbeat(): void {
    this.#heartbeatsPending = true;
  }

  get hasBroadcast(): boolean {
    return (this.#appendsPending || this.#heartbeatsPending) && this.tracker.peers.length > 0;
  }

  /** Makes the messages that were put off. Called when a Ready is taken. */
  flushBroadcasts(): void {
    if (this.#appendsPending) {
      this.#appendsPending = false;
      for (const peer of this.tracker.peers) {
        // An empty append only helps a peer that can commit more by it; entries go until nothing is left or it is
        // paused.
        this.maybeSendAppend(peer, peer.canBumpCommit(this.log.committed));
        while (this.maybeSendAppend(peer, false));
      }
    }
    if (this.#heartbeatsPending) {
      this.#heartbeatsPending = false;
      const context = this.readOnly.heartbeatContext();
      for (const peer of this.tracker.peers) this.#sendHeartbeat(peer, context);
    }
  }

  /** Sends the peer the next entries, or a snapshot if they are gone. False when nothing was sent. */
  maybeSendAppend(peer: Progress, sendIfEmpty: boolean): boolean {
    if (peer.isPaused) return false;
    const prevIndex = peer.next - 1;
    const prevTerm = this.log.term(prevIndex);
    if (prevTerm === NO_TERM) return this.#maybeSendSnapshot(peer);
    // With a full window only an empty append goes out, after a heartbeat's answer: should all messages in the window
    // be lost, its rejection is what empties the window.
    const windowFull = peer.state === ProgressState.replicate && peer.inflights.full;
    const entries = windowFull ? [] : this.log.entriesFrom(peer.next, this.config.maxSizePerMessage);
    if (entries === null) return this.#maybeSendSnapshot(peer);
    if (entries.length === 0 && !sendIfEmpty) return false;
    const message = newMessage(MessageType.app, peer.id);
    message.index = prevIndex;
    message.logTerm = prevTerm;
    message.entries = entries;
    message.commit = this.log.committed;
    this.send(message);
    peer.sentEntries(entries.length, payloadBytes(entries));
    peer.sentCommit(this.log.committed);
    return true;
  }

  #maybeSendSnapshot(peer: Progress): boolean {
    if (!peer.recentActive) return false;
    const snapshot = this.log.snapshot();
    if (snapshot === null) return false;
    const { index, term } = snapshot.meta;
    assert(index > 0, 'a follower needs a snapshot and there is none');
    if (this.logger.debugEnabled) {
      const place = `[firstindex: ${this.log.firstIndex}, commit: ${this.log.committed}]`;
      const what = `snapshot[index: ${index}, term: ${term}] to ${hex(peer.id)}`;
      this.logger.debug(`${hex(this.id)} ${place} sent ${what} [${progressText(peer.status())}]`);
    }
    peer.becomeSnapshot(index);
    this.tellProgress('paused sending replication messages to', peer);
    const message = newMessage(MessageType.snap, peer.id);
    message.snapshot = snapshot;
    this.send(message);
    return true;
  }

  #sendHeartbeat(peer: Progress, context: Buffer): void {
    // Never beyond what the peer is known to hold: its tail beyond that may differ from ours.
    const commit = Math.min(peer.match, this.log.committed);
    const message = newMessage(MessageType.heartbeat, peer.id);
    message.commit = commit;
    message.context = context;
    this.send(message);
    peer.sentCommit(commit);
  }

  sendTimeoutNow(to: NodeId): void {
    this.send(newMessage(MessageType.timeoutNow, to));
  }

  tellNoLeader(dropped: string): void {
    this.logger.info(`${hex(this.id)} no leader at term ${this.term}; dropping ${dropped}`);
  }

  /** `before` and `after` are etcd's words around the peer's id. Once a message to a peer that is away: built only if it is wanted. */
  tellProgress(before: string, peer: Progress, after = ''): void {
    if (!this.logger.debugEnabled) return;
    this.logger.debug(`${hex(this.id)} ${before} ${hex(peer.id)}${after} [${progressText(peer.status())}]`);
  }

  // --- Becoming ---

  #reset(term: number): void {
    if (this.term !== term) {
      this.term = term;
      this.vote = NONE;
    }
    this.lead = NONE;
    this.electionElapsed = 0;
    this.heartbeatElapsed = 0;
    this.randomizedElectionTimeout = this.config.electionTick + this.config.random(this.config.electionTick);
    this.leadTransferee = NONE;
    this.tracker.resetVotes();
    for (const one of this.tracker.all) {
      one.reset(one.id === this.id ? this.log.stableIndex : 0, this.log.lastIndex + 1);
    }
    this.pendingConfIndex = 0;
    this.uncommittedBytes = 0;
    this.readOnly.reset();
    this.pendingReads = [];
    this.#appendsPending = false;
    this.#heartbeatsPending = false;
  }

  becomeFollower(term: number, lead: NodeId): void {
    this.#reset(term);
    this.lead = lead;
    this.state = RaftState.follower;
    this.logger.info(`${hex(this.id)} became follower at term ${this.term}`);
  }

  becomeCandidate(): void {
    assert(this.state !== RaftState.leader, 'a leader must not campaign');
    this.#reset(this.term + 1);
    this.vote = this.id;
    this.state = RaftState.candidate;
    this.logger.info(`${hex(this.id)} became candidate at term ${this.term}`);
  }

  /** Changes neither term nor vote. */
  becomePreCandidate(): void {
    assert(this.state !== RaftState.leader, 'a leader must not campaign');
    this.tracker.resetVotes();
    this.lead = NONE;
    this.state = RaftState.preCandidate;
    this.logger.info(`${hex(this.id)} became pre-candidate at term ${this.term}`);
  }

  becomeLeader(): void {
    assert(this.state === RaftState.candidate, 'only a candidate becomes leader');
    const self = this.tracker.self;
    assert(self !== null, 'a leader must be a member');
    this.#reset(this.term);
    this.lead = this.id;
    this.state = RaftState.leader;
    self.becomeReplicate();
    self.recentActive = true;
    // There may be a configuration change in the tail. Looking for it could be long; waiting for the tail is as safe.
    this.pendingConfIndex = this.log.lastIndex;
    this.appendOwn(EntryType.normal, NO_BYTES);
    this.broadcastAppend();
    this.logger.info(`${hex(this.id)} became leader at term ${this.term}`);
  }

  // --- The leader's log ---

  /** Hot: one call a proposal, allocates the entry alone. The caller has accounted for the bytes. */
  appendOwn(type: EntryType, data: Buffer): void {
    this.log.push({ term: this.term, index: this.log.lastIndex + 1, type, data });
  }

  /** False when that would exceed the bound. An empty tail takes any size, and empty entries always fit. */
  reserveUncommitted(bytes: number): boolean {
    if (this.uncommittedBytes > 0 && bytes > 0) {
      if (this.uncommittedBytes + bytes > this.config.maxUncommittedEntriesSize) return false;
    }
    this.uncommittedBytes += bytes;
    return true;
  }

  /** Commits what a majority holds. True when the commit index moved. Hot: once a batch. */
  maybeCommit(): boolean {
    const index = this.tracker.committedIndex();
    if (index <= this.log.committed || !this.log.maybeCommit(index, this.term)) return false;
    this.#releasePendingReads();
    this.broadcastAppend();
    return true;
  }

  // --- Acknowledgements of the driver ---

  /**
   * Everything handed out in the Readies up to `sequence` is durable. True when this member's own vote became durable.
   */
  persisted(sequence: number): boolean {
    let voted = false;
    let any = false;
    for (let write = this.log.writes.shift(sequence); write !== null; write = this.log.writes.shift(sequence)) {
      any = true;
      this.log.stableTo(write.lastIndex);
      if (write.snapshotIndex > 0) this.log.stableSnapshotTo(write.snapshotIndex);
      voted = write.term === this.term && write.vote === this.id;
    }
    if (!any) return false;
    if (this.state === RaftState.leader) {
      // Only now does a leader count itself.
      const self = this.tracker.self;
      if (self?.maybeUpdate(this.log.stableIndex)) this.maybeCommit();
    }
    return voted && this.state === RaftState.candidate && !this.tracker.hasVoteOf(this.id);
  }

  /** The state machine holds everything up to `index`. True when the joint configuration is now to be left. */
  appliedTo(index: number): boolean {
    const bytes = this.log.appliedTo(index);
    while (this.#restored.length > 0 && this.#restored[0]!.index <= index) {
      this.#appliedConfiguration = this.#restored.shift()!.configuration;
    }
    this.uncommittedBytes = Math.max(0, this.uncommittedBytes - bytes);
    return (
      this.state === RaftState.leader &&
      this.tracker.configuration.autoLeave &&
      this.log.applied >= this.pendingConfIndex
    );
  }

  // --- Reads ---

  /** A leader that has committed in its term answers or starts a round of heartbeats. False when too many wait. */
  startRead(request: Message): boolean {
    if (this.config.readOnlyOption === ReadOnlyOption.leaseBased || this.tracker.isSingleton) {
      this.answerRead(request, this.log.committed);
      return true;
    }
    if (!this.readOnly.add(request, this.log.committed, this.id)) return false;
    this.broadcastHeartbeat();
    return true;
  }

  answerRead(request: Message, index: number): void {
    const context = request.entries[0]!.data;
    if (request.from === NONE || request.from === this.id) {
      this.readStates.push({ index, context });
      return;
    }
    const response = newMessage(MessageType.readIndexResp, request.from);
    response.index = index;
    response.entries = request.entries;
    this.send(response);
  }

  answerConfirmedReads(): void {
    for (const read of this.readOnly.take(this.tracker.ackedPosition(this.readOnly.acks))) {
      this.answerRead(read.request, read.index);
    }
  }

  #releasePendingReads(): void {
    if (this.pendingReads.length === 0) return;
    const reads = this.pendingReads;
    this.pendingReads = [];
    for (const read of reads) this.startRead(read);
  }

  // --- Configuration ---

  applyConfChange(change: ConfChangeV2): ConfState {
    const result = changeConfiguration(this.#appliedConfiguration, change);
    assert(result.ok, 'a committed configuration change is impossible');
    this.#appliedConfiguration = result.configuration;
    // An entry from before a snapshot that was received meanwhile: its change is part of what is in force.
    if (this.#restored.length === 0) {
      this.tracker.switchTo(result.configuration, result.forgotten, this.log.lastIndex);
      this.#configurationChanged();
    }
    return toConfState(result.configuration);
  }

  /** The configuration of a received snapshot is in force at once; the state machine follows when it gets there. */
  takeSnapshotConfiguration(index: number, configuration: Configuration): void {
    this.#restored.push({ index, configuration });
    this.tracker.switchTo(configuration, new Set(this.tracker.all.map((one) => one.id)), index);
    this.#configurationChanged();
  }

  #tellConfiguration(): void {
    const confState = toConfState(this.tracker.configuration);
    this.logger.info(`${hex(this.id)} switched to configuration ${describeConfState(confState)}`);
  }

  /** What follows from a configuration that the tracker has taken over. */
  #configurationChanged(): void {
    this.#tellConfiguration();
    if (this.state !== RaftState.leader) return;
    const self = this.tracker.self;
    if (self === null || self.isLearner) {
      this.becomeFollower(this.term, NONE);
      return;
    }
    // The new quorum may already hold more; and new members are probed at once.
    this.maybeCommit();
    this.broadcastAppend();
    this.answerConfirmedReads();
    if (this.leadTransferee !== NONE && !this.tracker.isVoter(this.leadTransferee)) this.leadTransferee = NONE;
  }
}
