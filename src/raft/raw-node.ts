// One raft member as its driver sees it. The driver owns the clock, the disk and the network, and runs this loop:
//
//   tick() / step() / propose() / readIndex() ...        inputs, as many as a turn brings
//   if (hasReady()) ready = ready()                      then, of each Ready:
//     1. send ready.messages at once                     (a leader's appends travel while its own sync runs)
//     2. write snapshot, hardState and entries, in the order of the Readies; sync if mustSync; then
//        sequence > 0: persisted(sequence), and send ready.messagesAfterPersist
//     3. apply the snapshot, then applied(its index); apply committedEntries, with applyConfChange() for each change,
//        then applied(last index)
//
// Many Readies may be in flight: writes are acknowledged in order (one call may cover several), applies as well.
// Entries must be in the Storage when persisted() is called and may be there before. Nothing here throws but failed
// assertions and FatalError when the log turns out to have lost entries.
//
// A single voter: propose() → ready() with entries → persisted() → ready() with committedEntries; no message is made.

import { assert } from '../base/assert.ts';
import { EMPTY_CONFIGURATION, toConfState } from './conf-change.ts';
import type { RaftConfig } from './config.ts';
import { countVote, tryCampaign, unappliedConfChange } from './election.ts';
import { checkInvariants } from './invariants.ts';
import type { ProgressStatus } from './progress.ts';
import {
  newProposeResult,
  type ProposeResult,
  propose,
  proposeAutoLeave,
  proposeConfChange,
  proposeOne,
} from './propose.ts';
import { Raft } from './raft.ts';
import { step } from './step.ts';
import { forgetLeader } from './step-follower.ts';
import { handleRead, reportSnapshot, reportUnreachable, transferLeader } from './step-leader.ts';
import { tick } from './tick.ts';
import {
  ConfChangeType,
  type ConfChangeV2,
  type ConfState,
  EMPTY_HARD_STATE,
  type Entry,
  EntryType,
  type HardState,
  type Message,
  MessageType,
  NO_BYTES,
  NONE,
  type NodeId,
  newMessage,
  RaftState,
  type ReadState,
  type Snapshot,
  type SoftState,
} from './types.ts';

export interface Ready {
  /** Null when unchanged. */
  readonly softState: SoftState | null;
  /** To be written; null when unchanged. */
  readonly hardState: HardState | null;
  readonly readStates: readonly ReadState[];
  /** To be written, in order. The first may replace entries written before: then all from its index on are void. */
  readonly entries: readonly Entry[];
  /** To be written and installed; replaces log and state machine. Before `entries` of the same Ready. */
  readonly snapshot: Snapshot | null;
  /** To be applied, in order. Durable here already. */
  readonly committedEntries: readonly Entry[];
  /** To be sent at once. */
  readonly messages: readonly Message[];
  /** To be sent once everything to be written of this and all earlier Readies is durable. */
  readonly messagesAfterPersist: readonly Message[];
  /** The write needs a sync. Without it (a new commit index alone) a write in order is enough. */
  readonly mustSync: boolean;
  /** For persisted(); 0 when there is nothing to write and no message waits. */
  readonly sequence: number;
}

const NO_MESSAGES: readonly Message[] = [];
const NO_READ_STATES: readonly ReadState[] = [];

export interface BootstrapPeer {
  readonly id: NodeId;
  /** The encoded raftpb.ConfChange that adds it. */
  readonly data: Buffer;
}

export interface Status {
  readonly id: NodeId;
  readonly term: number;
  readonly vote: NodeId;
  readonly commit: number;
  readonly lead: NodeId;
  readonly state: RaftState;
  readonly applied: number;
  readonly lastIndex: number;
  readonly leadTransferee: NodeId;
  readonly confState: ConfState;
  /** Ascending by id; empty unless this member leads. */
  readonly progress: readonly ProgressStatus[];
}

export class RawNode {
  readonly #raft: Raft;
  readonly #proposeResult: ProposeResult = newProposeResult();
  #sequence = 0;
  #lastSoftState: SoftState;
  #lastHardState: HardState;

  constructor(config: RaftConfig) {
    this.#raft = new Raft(config);
    this.#lastSoftState = { lead: this.#raft.lead, state: this.#raft.state };
    this.#lastHardState = config.storage.initialState().hardState;
  }

  // --- Hot accessors: no allocation ---

  get id(): NodeId {
    return this.#raft.id;
  }
  get term(): number {
    return this.#raft.term;
  }
  get lead(): NodeId {
    return this.#raft.lead;
  }
  get state(): RaftState {
    return this.#raft.state;
  }
  get isLeader(): boolean {
    return this.#raft.state === RaftState.leader;
  }
  get isLearner(): boolean {
    return this.#raft.isLearner;
  }
  get committedIndex(): number {
    return this.#raft.log.committed;
  }
  get appliedIndex(): number {
    return this.#raft.log.applied;
  }
  get lastIndex(): number {
    return this.#raft.log.lastIndex;
  }
  /** The last entry known to be durable here. */
  get stableIndex(): number {
    return this.#raft.log.stableIndex;
  }
  get leadTransferee(): NodeId {
    return this.#raft.leadTransferee;
  }
  /** Of a leader: there is no unapplied configuration change beyond this index. 0 on all others. */
  get pendingConfIndex(): number {
    return this.#raft.pendingConfIndex;
  }
  /** The term of an entry of the log, durable or not; NO_TERM when compacted or not there. */
  termAt(index: number): number {
    return this.#raft.log.term(index);
  }

  /** The first configuration change of the log, committed or not, that is not applied; null when there is none. Walks over the tail. */
  unappliedConfChange(): Entry | null {
    return unappliedConfChange(this.#raft, this.#raft.log.lastIndex);
  }

  // --- Inputs ---

  /**
   * The first start of a new group, with an empty storage: every member makes the same log, which adds the members one
   * by one in term 1 (as etcd does, so that indexes agree with it). The changes come back as committedEntries.
   */
  bootstrap(peers: readonly BootstrapPeer[]): void {
    const raft = this.#raft;
    assert(peers.length > 0, 'a group needs a member');
    assert(raft.log.lastIndex === 0 && raft.term === 0, 'bootstrap of a storage in use');
    assert(raft.tracker.configuration === EMPTY_CONFIGURATION || raft.tracker.all.length === 0, 'bootstrap of a group');
    raft.becomeFollower(1, NONE);
    const entries = peers.map(
      (peer, i): Entry => ({ term: 1, index: i + 1, type: EntryType.confChange, data: peer.data }),
    );
    raft.log.append(entries, 0);
    raft.log.committed = entries.length;
    // In force at once, so that the group can elect before it applies; applying them again changes nothing.
    for (const peer of peers) {
      const changes = [{ type: ConfChangeType.addNode, nodeId: peer.id }];
      raft.applyConfChange({ transition: 0, changes, context: NO_BYTES });
    }
    this.#lastHardState = EMPTY_HARD_STATE;
  }

  /** One tick of the driver's clock. */
  tick(): void {
    tick(this.#raft);
  }

  /** Campaigns now. */
  campaign(): void {
    tryCampaign(this.#raft, this.#raft.config.preVote ? 'pre-election' : 'election');
  }

  /** The result is valid until the next proposal. */
  propose(data: Buffer): Readonly<ProposeResult> {
    proposeOne(this.#raft, EntryType.normal, data, this.#proposeResult);
    return this.#proposeResult;
  }

  /** All or none; the result has the index of the first. */
  proposeBatch(datas: readonly Buffer[]): Readonly<ProposeResult> {
    assert(datas.length > 0, 'an empty batch');
    propose(this.#raft, datas, this.#proposeResult);
    return this.#proposeResult;
  }

  /**
   * `data` is an encoded ConfChange (type confChange) or ConfChangeV2 (confChangeV2; empty leaves a joint
   * configuration).
   */
  proposeConfChange(type: EntryType, data: Buffer): Readonly<ProposeResult> {
    assert(type !== EntryType.normal, 'not a configuration change');
    proposeConfChange(this.#raft, type, data, this.#proposeResult);
    return this.#proposeResult;
  }

  /** A message of a peer. What can't come from one, or answers a stranger, is ignored. */
  step(message: Message): void {
    switch (message.type) {
      case MessageType.hup:
      case MessageType.beat:
      case MessageType.unreachable:
      case MessageType.snapStatus:
      case MessageType.checkQuorum:
      case MessageType.storageAppend:
      case MessageType.storageAppendResp:
      case MessageType.storageApply:
      case MessageType.storageApplyResp:
        return;
      case MessageType.appResp:
      case MessageType.voteResp:
      case MessageType.preVoteResp:
      case MessageType.heartbeatResp:
      case MessageType.readIndexResp:
        if (this.#raft.tracker.get(message.from) === undefined) return;
        break;
      default:
    }
    // Nobody can have more of a leader's log than the leader. (etcd-io/raft believes it, and looks for a snapshot to send.)
    if (message.type === MessageType.appResp && this.isLeader && message.term === this.#raft.term) {
      if (!message.reject && message.index > this.#raft.log.lastIndex) return;
    }
    // Only requests that are passed on belong to no term.
    if (message.term === 0 && message.type !== MessageType.prop && message.type !== MessageType.readIndex) return;
    step(this.#raft, message);
  }

  /**
   * Asks for a state to read; the answer is a ReadState with `context`. False when nobody can be asked: try again
   * later.
   */
  readIndex(context: Buffer): boolean {
    const raft = this.#raft;
    const message = newMessage(MessageType.readIndex, NONE);
    message.entries = [{ term: 0, index: 0, type: EntryType.normal, data: context }];
    if (raft.state === RaftState.leader) return handleRead(raft, message);
    if (raft.state !== RaftState.follower || raft.lead === NONE) {
      if (raft.state === RaftState.follower) raft.tellNoLeader('index reading msg');
      return false;
    }
    raft.forward(message);
    return true;
  }

  /** The peer could not be reached. */
  reportUnreachable(id: NodeId): void {
    const peer = this.#peer(id);
    if (peer !== undefined) reportUnreachable(this.#raft, peer);
  }

  /** The end of the transfer of a snapshot. */
  reportSnapshot(id: NodeId, succeeded: boolean): void {
    const peer = this.#peer(id);
    if (peer !== undefined) reportSnapshot(this.#raft, peer, succeeded);
  }

  #peer(id: NodeId): ReturnType<Raft['tracker']['get']> {
    return this.#raft.state === RaftState.leader ? this.#raft.tracker.get(id) : undefined;
  }

  /** On a follower the request goes to the leader. */
  transferLeader(to: NodeId): void {
    const raft = this.#raft;
    if (raft.state === RaftState.leader) {
      const peer = raft.tracker.get(to);
      if (peer !== undefined) transferLeader(raft, peer);
    } else if (raft.state === RaftState.follower && raft.lead !== NONE) {
      const message = newMessage(MessageType.transferLeader, raft.lead);
      message.from = to;
      raft.forward(message);
    }
  }

  /**
   * A follower forgets its leader and may vote for another of the term at once; the leader's next message restores it.
   */
  forgetLeader(): void {
    forgetLeader(this.#raft);
  }

  /** A leader whose disk stalls gives up: others may lead, it becomes a follower in its term. (Not in etcd-io/raft.) */
  stepDown(): void {
    if (this.#raft.state === RaftState.leader) this.#raft.becomeFollower(this.#raft.term, NONE);
  }

  // --- Outputs ---

  hasReady(): boolean {
    const raft = this.#raft;
    return (
      raft.log.hasNextEntries ||
      raft.log.hasNextCommitted ||
      raft.messages.length > 0 ||
      raft.messagesAfterPersist.length > 0 ||
      raft.readStates.length > 0 ||
      raft.log.committed !== this.#lastHardState.commit ||
      raft.term !== this.#lastHardState.term ||
      raft.vote !== this.#lastHardState.vote ||
      raft.state !== this.#lastSoftState.state ||
      raft.lead !== this.#lastSoftState.lead ||
      raft.log.hasNextSnapshot ||
      raft.hasBroadcast
    );
  }

  /** Takes what is to be done: it is the caller's duty from now on, and will not be given again. */
  ready(): Ready {
    const raft = this.#raft;
    raft.flushBroadcasts();
    const entries = raft.log.takeEntries();
    const snapshot = raft.log.takeSnapshot();
    const termChanged = raft.term !== this.#lastHardState.term || raft.vote !== this.#lastHardState.vote;
    const hardState = this.#takeHardState();
    // A Ready never shares a list with the core: an empty one would fill up behind its back.
    const messages = raft.messages.length > 0 ? raft.messages : NO_MESSAGES;
    const messagesAfterPersist = raft.messagesAfterPersist.length > 0 ? raft.messagesAfterPersist : NO_MESSAGES;
    const readStates = raft.readStates.length > 0 ? raft.readStates : NO_READ_STATES;
    if (messages !== NO_MESSAGES) raft.messages = [];
    if (messagesAfterPersist !== NO_MESSAGES) raft.messagesAfterPersist = [];
    if (readStates !== NO_READ_STATES) raft.readStates = [];
    let sequence = 0;
    if (entries.length > 0 || snapshot !== null || hardState !== null || messagesAfterPersist.length > 0) {
      sequence = ++this.#sequence;
      raft.log.writes.push({
        sequence,
        lastIndex: raft.log.handedOutIndex,
        term: raft.term,
        vote: raft.vote,
        snapshotIndex: snapshot === null ? 0 : snapshot.meta.index,
      });
    }
    return {
      softState: this.#takeSoftState(),
      hardState,
      readStates,
      entries,
      snapshot,
      committedEntries: raft.log.takeCommitted(),
      messages,
      messagesAfterPersist,
      mustSync: entries.length > 0 || snapshot !== null || termChanged,
      sequence,
    };
  }

  #takeHardState(): HardState | null {
    const { term, vote, log } = this.#raft;
    const last = this.#lastHardState;
    if (term === last.term && vote === last.vote && log.committed === last.commit) return null;
    this.#lastHardState = { term, vote, commit: log.committed };
    return this.#lastHardState;
  }

  #takeSoftState(): SoftState | null {
    const { lead, state } = this.#raft;
    if (lead === this.#lastSoftState.lead && state === this.#lastSoftState.state) return null;
    this.#lastSoftState = { lead, state };
    return this.#lastSoftState;
  }

  /** What the Readies up to `sequence` gave to write is durable and in the Storage. 0 is ignored. */
  persisted(sequence: number): void {
    assert(sequence <= this.#sequence, 'a Ready that was never given');
    if (this.#raft.persisted(sequence)) countVote(this.#raft, this.#raft.id, true);
  }

  /** The state machine holds everything up to `index`; configuration changes in it went through applyConfChange(). */
  applied(index: number): void {
    if (this.#raft.appliedTo(index)) proposeAutoLeave(this.#raft, this.#proposeResult);
  }

  /**
   * To be called for every committed change, in order and before applied(); a refused one with its node ids 0n. Returns
   * the configuration as of that entry, to be stored with the state machine.
   */
  applyConfChange(change: ConfChangeV2): ConfState {
    return this.#raft.applyConfChange(change);
  }

  // --- Views ---

  status(): Status {
    const raft = this.#raft;
    const progress = raft.state === RaftState.leader ? raft.tracker.all.map((one) => one.status()) : [];
    return {
      id: raft.id,
      term: raft.term,
      vote: raft.vote,
      commit: raft.log.committed,
      lead: raft.lead,
      state: raft.state,
      applied: raft.log.applied,
      lastIndex: raft.log.lastIndex,
      leadTransferee: raft.leadTransferee,
      confState: toConfState(raft.tracker.configuration),
      progress,
    };
  }

  /** Costly: for tests and the simulation. */
  checkInvariants(): void {
    checkInvariants(this.#raft);
  }

  /** For tests that fix the outcome of elections. */
  setElectionTimeout(ticks: number): void {
    this.#raft.randomizedElectionTimeout = ticks;
  }
}
