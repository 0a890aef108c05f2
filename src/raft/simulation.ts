// A group of raft members in one process, driven at random from a seed: messages are lost, doubled and reordered, disks
// and appliers lag, members crash in the middle of writes, are cut off, come and go. Checked at every step against what
// Raft promises (figure 3 of the paper) and what the core promises its driver. Runs in simulation.test.ts.
//
// A member's disk is its MemoryStorage; a write reaches it when the simulation says so. A crash keeps a prefix of the
// writes in flight, and of the entries of the next one. The state machine is a running hash; it survives up to a random
// point between the snapshot and what was applied, as a database that is flushed now and then.

import { assert } from '../base/assert.ts';
import { changeConfiguration, restoreConfiguration } from './conf-change.ts';
import { ReadOnlyOption } from './config.ts';
import { MemoryStorage } from './memory-storage.ts';
import { RawNode, type Ready } from './raw-node.ts';
import { type MachineState, SimulationOracle } from './simulation-oracle.ts';
import {
  type ConfChangeSingle,
  ConfChangeType,
  type ConfChangeV2,
  type ConfState,
  EMPTY_CONF_STATE,
  type Entry,
  EntryType,
  type Message,
  MessageType,
  NO_BYTES,
  type NodeId,
  RaftState,
} from './types.ts';

/** mulberry32: small, and the same everywhere. */
export function seededRandom(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  };
}

function encodeConfChange(change: ConfChangeV2): Buffer {
  return Buffer.from(`${change.transition}${change.changes.map((one) => `,${one.type}:${one.nodeId}`).join('')}`);
}

function decodeConfChange(entry: Entry): ConfChangeV2 {
  if (entry.data.length === 0) return { transition: 0, changes: [], context: NO_BYTES };
  const [transition, ...rest] = entry.data.toString().split(',');
  const changes = rest.map((one): ConfChangeSingle => {
    const [type, id] = one.split(':');
    return { type: Number(type) as ConfChangeType, nodeId: BigInt(id!) };
  });
  return { transition: Number(transition) as 0 | 1 | 2, changes, context: NO_BYTES };
}

interface Member {
  readonly id: NodeId;
  readonly storage: MemoryStorage;
  /** Null while it is down. */
  node: RawNode | null;
  machine: MachineState;
  /** What the database holds durably: never behind the snapshot, never beyond `machine`. */
  flushed: MachineState;
  writes: Ready[];
  applies: Ready[];
  /** Sum of all terms seen on the disk must only grow. */
  durableTerm: number;
}

const MEMBERS_MAX = 6;
const NETWORK_MAX = 400;

export interface SimulationOptions {
  readonly seed: number;
  readonly voters: number;
  readonly steps: number;
}

export class Simulation {
  readonly #random: (n: number) => number;
  readonly #options: SimulationOptions;
  readonly #members: Member[] = [];
  #network: Message[] = [];
  /** Pairs that can't hear each other: 'from>to'. */
  #cut = new Set<string>();
  #requestCount = 0;
  #readCount = 0;
  readonly #preVote: boolean;
  readonly #checkQuorum: boolean;
  readonly #lossPercent: number;
  /** What happens, and how often: each seed has its own kind of weather. */
  readonly #weights: readonly [(member: Member, node: RawNode) => void, number][];
  readonly #weightSum: number;

  readonly #oracle: SimulationOracle = new SimulationOracle((id) => this.#members[Number(id) - 1]!.storage);

  /** What happened, so that a run that tests nothing shows. */
  readonly counts: { crashes: number; snapshots: number; confChanges: number; joint: number } = {
    crashes: 0,
    snapshots: 0,
    confChanges: 0,
    joint: 0,
  };

  constructor(options: SimulationOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
    this.#preVote = this.#random(2) === 0;
    this.#checkQuorum = this.#random(2) === 0;
    this.#lossPercent = this.#random(3) * 10;
    this.#weights = [
      [() => this.#deliverSome(), this.#pick([100, 300])],
      [(member) => this.#ready(member), 250],
      [(member) => this.#persistSome(member), this.#pick([20, 60, 150])],
      [(member) => this.#applyOne(member), this.#pick([20, 100])],
      [(member) => this.#tickSome(member), this.#pick([70, 200])],
      [(_, node) => this.#propose(node), this.#pick([10, 50])],
      [(_, node) => this.#read(node), this.#pick([5, 50])],
      [(_, node) => this.#proposeConfChange(node), this.#pick([1, 5, 20])],
      [(member) => this.#crash(member), this.#pick([0, 1, 5])],
      [() => this.#partition(), this.#pick([1, 3])],
      [(member) => this.#compact(member), this.#pick([2, 20])],
      [(_, node) => this.#disturb(node), this.#pick([1, 3, 20])],
    ];
    this.#weightSum = this.#weights.reduce((sum, [, weight]) => sum + weight, 0);
    const voters = Array.from({ length: options.voters }, (_, i) => BigInt(i + 1));
    const confState: ConfState = { ...EMPTY_CONF_STATE, voters };
    for (let id = 1; id <= MEMBERS_MAX; id++) {
      // Those who are not members yet know the first configuration too: they may get the log from its beginning.
      const state: MachineState = { applied: 0, hash: 0, confState };
      const member: Member = {
        id: BigInt(id),
        storage: new MemoryStorage(confState),
        node: null,
        machine: state,
        flushed: state,
        writes: [],
        applies: [],
        durableTerm: 0,
      };
      this.#members.push(member);
      this.#start(member);
    }
  }

  get totals(): Readonly<Record<string, number>> {
    const { elections, commits, reads } = this.#oracle;
    return { elections, commits, reads, ...this.counts };
  }

  run(): void {
    for (let i = 0; i < this.#options.steps; i++) {
      this.#step();
      this.#check();
      if (i % 64 === 0) this.#oracle.checkLogMatching(this.#nodes());
    }
    this.#checkLiveness();
  }

  #nodes(): RawNode[] {
    return this.#members.flatMap((member) => (member.node === null ? [] : [member.node]));
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#random(from.length)]!;
  }

  #start(member: Member): void {
    member.machine = member.flushed;
    member.storage.setConfState(member.machine.confState);
    member.node = new RawNode({
      id: member.id,
      electionTick: 5,
      heartbeatTick: 1,
      storage: member.storage,
      applied: member.machine.applied,
      maxSizePerMessage: this.#pick([0, 100, 1000]),
      maxCommittedSizePerReady: this.#pick([1, 100, 1000]),
      maxUncommittedEntriesSize: 2000,
      maxInflightMessages: this.#pick([1, 3, 16]),
      maxInflightBytes: this.#pick([1000, Number.POSITIVE_INFINITY]),
      checkQuorum: this.#checkQuorum,
      preVote: this.#preVote,
      readOnlyOption: ReadOnlyOption.safe,
      random: this.#random,
      logger: { debugEnabled: false, debug: () => {}, info: () => {}, warn: () => {} },
      disableProposalForwarding: false,
      decodeConfChange,
    });
  }

  // --- What happens ---

  #step(): void {
    const member = this.#pick(this.#members);
    const { node } = member;
    if (node === null) {
      if (this.#random(10) === 0) this.#start(member);
      return;
    }
    let at = this.#random(this.#weightSum);
    for (const [action, weight] of this.#weights) {
      at -= weight;
      if (at >= 0) continue;
      action(member, node);
      return;
    }
  }

  #tickSome(member: Member): void {
    // Mostly the leaders' clocks: else there would be nothing but elections.
    const count = member.node!.isLeader ? 1 : this.#random(3);
    for (let i = 0; i < count; i++) member.node!.tick();
  }

  #disturb(node: RawNode): void {
    const other = this.#pick(this.#members).id;
    switch (this.#random(7)) {
      case 0:
        node.transferLeader(other);
        break;
      case 1:
        node.forgetLeader();
        break;
      case 2:
        node.stepDown();
        break;
      case 3:
        node.reportUnreachable(other);
        break;
      case 4:
        node.reportSnapshot(other, true);
        break;
      case 5:
        node.reportSnapshot(other, false);
        break;
      default:
        node.campaign();
    }
  }

  #propose(node: RawNode): void {
    const datas: Buffer[] = [];
    for (let i = this.#random(4); i >= 0; i--) datas.push(Buffer.from(`r${++this.#requestCount}`));
    node.proposeBatch(datas);
  }

  #proposeConfChange(node: RawNode): void {
    const changes: ConfChangeSingle[] = [];
    for (let i = this.#random(3); i > 0; i--) {
      const type = this.#pick([ConfChangeType.addNode, ConfChangeType.addLearnerNode, ConfChangeType.removeNode]);
      changes.push({ type, nodeId: BigInt(this.#random(MEMBERS_MAX) + 1) });
    }
    const voters = new Set(node.status().confState.voters);
    for (const one of changes) {
      if (one.type === ConfChangeType.addNode) voters.add(one.nodeId);
      else voters.delete(one.nodeId);
    }
    // What would remove all voters is impossible at apply time: etcd's membership rules prevent it.
    if (voters.size < 2) return;
    const transition = changes.length > 1 ? this.#random(3) : 0;
    const change: ConfChangeV2 = { transition: transition as 0 | 1 | 2, changes, context: NO_BYTES };
    if (changes.length === 1) node.proposeConfChange(EntryType.confChangeV2, encodeConfChange(change));
    else if (changes.length === 0) node.proposeConfChange(EntryType.confChangeV2, NO_BYTES);
    else node.proposeConfChange(EntryType.confChangeV2, encodeConfChange(change));
  }

  /** The answer must not be older than what was committed when it was asked for. */
  #read(node: RawNode): void {
    const context = `read${++this.#readCount}`;
    if (node.readIndex(Buffer.from(context))) this.#oracle.expectRead(context);
  }

  #partition(): void {
    this.#cut.clear();
    if (this.#random(2) === 0) return;
    const side = this.#members.map(() => this.#random(3) === 0);
    for (const [i, from] of this.#members.entries()) {
      for (const [j, to] of this.#members.entries()) {
        // Sometimes in one direction only.
        if (side[i] !== side[j] && this.#random(8) > 0) this.#cut.add(`${from.id}>${to.id}`);
      }
    }
  }

  #deliverSome(): void {
    for (let i = this.#random(6); i >= 0 && this.#network.length > 0; i--) {
      // Mostly in order, as connections are.
      const at = this.#random(4) === 0 ? this.#random(this.#network.length) : 0;
      const message = this.#random(30) === 0 ? this.#network[at]! : this.#network.splice(at, 1)[0]!;
      if (this.#random(100) < this.#lossPercent || this.#cut.has(`${message.from}>${message.to}`)) continue;
      this.#deliver(message);
    }
  }

  #deliver(message: Message): void {
    const target = this.#members[Number(message.to) - 1]!;
    if (target.node === null) return;
    target.node.step(message);
    this.#oracle.checkCommit(target.node);
    if (message.type === MessageType.snap) this.counts.snapshots++;
  }

  #send(messages: readonly Message[]): void {
    for (const message of messages) {
      if (message.type === MessageType.voteResp && !message.reject) this.#oracle.checkVote(message);
      this.#network.push(message);
    }
    if (this.#network.length > NETWORK_MAX) this.#network.splice(0, this.#network.length - NETWORK_MAX);
  }

  // --- The driver ---

  #ready(member: Member): void {
    const node = member.node!;
    if (!node.hasReady()) return;
    const ready = node.ready();
    this.#send(ready.messages);
    for (const read of ready.readStates) this.#oracle.checkRead(read.context.toString(), read.index);
    if (ready.sequence > 0) member.writes.push(ready);
    if (ready.committedEntries.length > 0 || ready.snapshot !== null) member.applies.push(ready);
  }

  #persistSome(member: Member): void {
    const count = Math.min(member.writes.length, 1 + this.#random(3));
    if (count === 0) return;
    const done = member.writes.splice(0, count);
    for (const ready of done) this.#writeToDisk(member, ready);
    member.node!.persisted(done[done.length - 1]!.sequence);
    this.#oracle.checkCommit(member.node!);
    for (const ready of done) this.#send(ready.messagesAfterPersist);
  }

  #writeToDisk(member: Member, ready: Ready): void {
    if (ready.snapshot !== null) this.#writeSnapshot(member, ready);
    member.storage.append(ready.entries);
    if (ready.hardState !== null) {
      assert(ready.hardState.term >= member.durableTerm, 'a term must not go back');
      member.durableTerm = ready.hardState.term;
      member.storage.setHardState(ready.hardState);
    }
  }

  #writeSnapshot(member: Member, ready: Ready): void {
    const snapshot = ready.snapshot!;
    member.storage.applySnapshot(snapshot);
    // The database of the snapshot is installed with it.
    member.flushed = {
      applied: snapshot.meta.index,
      hash: Number(snapshot.data.toString()),
      confState: snapshot.meta.confState,
    };
    this.#oracle.checkState(member.flushed);
  }

  #applyOne(member: Member): void {
    const ready = member.applies[0];
    // A snapshot is applied once it is written.
    if (ready === undefined || (ready.snapshot !== null && member.writes.includes(ready))) return;
    member.applies.shift();
    const node = member.node!;
    if (ready.snapshot !== null) {
      member.machine = {
        applied: ready.snapshot.meta.index,
        hash: Number(ready.snapshot.data.toString()),
        confState: ready.snapshot.meta.confState,
      };
      node.applied(member.machine.applied);
    }
    for (const entry of ready.committedEntries) this.#applyEntry(member, entry);
    if (ready.committedEntries.length > 0) node.applied(member.machine.applied);
    const isNewer = member.machine.applied > member.flushed.applied;
    if (isNewer && this.#random(4) === 0) member.flushed = member.machine;
  }

  #applyEntry(member: Member, entry: Entry): void {
    const { applied, hash } = member.machine;
    assert(entry.index === applied + 1, 'entries must be applied in order');
    const durable = member.storage.term(entry.index);
    const isInSnapshot = entry.index < member.storage.firstIndex();
    assert(isInSnapshot || durable === entry.term, 'an entry applied before it was durable here');
    let next = hash;
    for (const byte of entry.data) next = (Math.imul(next, 31) + byte) | 0;
    next = (Math.imul(next, 31) + entry.term) | 0;
    let confState = member.machine.confState;
    if (entry.type !== EntryType.normal) {
      confState = member.node!.applyConfChange(this.#voidIfImpossible(confState, decodeConfChange(entry)));
      // The next change could hide which majority this commit had.
      this.#oracle.checkCommit(member.node!);
      this.counts.confChanges++;
      if (confState.votersOutgoing.length > 0) this.counts.joint++;
    }
    member.machine = { applied: entry.index, hash: next, confState };
    this.#oracle.checkState(member.machine);
  }

  /** As etcd's membership rules do at apply time: a follower's stale proposal must not remove the last voter. */
  #voidIfImpossible(confState: ConfState, change: ConfChangeV2): ConfChangeV2 {
    const from = restoreConfiguration(confState);
    assert(from.ok, 'the applied configuration is impossible');
    const result = changeConfiguration(from.configuration, change);
    if (result.ok) return change;
    assert(result.error === 'removed all voters', 'a change was committed that its leader had to refuse');
    return { ...change, changes: change.changes.map((one) => ({ ...one, nodeId: 0n })) };
  }

  #compact(member: Member): void {
    const { applied, hash, confState } = member.machine;
    const { storage } = member;
    if (applied <= storage.snapshot()!.meta.index || applied > storage.lastIndex()) return;
    member.flushed = member.machine;
    storage.createSnapshot(applied, confState, Buffer.from(String(hash)));
    const lag = this.#random(5);
    if (applied - lag > storage.firstIndex()) storage.compact(applied - lag);
  }

  #crash(member: Member): void {
    this.counts.crashes++;
    member.node = null;
    member.applies = [];
    const { writes } = member;
    member.writes = [];
    const whole = this.#random(writes.length + 1);
    for (const ready of writes.slice(0, whole)) this.#writeToDisk(member, ready);
    // The next write is torn: some of its entries are there, its hard state is not.
    const torn = writes[whole];
    if (torn !== undefined && torn.snapshot === null && torn.entries.length > 0) {
      member.storage.append(torn.entries.slice(0, this.#random(torn.entries.length + 1)));
    }
  }

  #check(): void {
    for (const { node } of this.#members) {
      if (node === null) continue;
      node.checkInvariants();
      if (node.state === RaftState.leader) this.#oracle.checkLeader(node);
      this.#oracle.checkCommit(node);
    }
  }

  /** With everything repaired, a leader is found, and all members of the configuration get the same state. */
  #checkLiveness(): void {
    this.#cut.clear();
    for (const member of this.#members) if (member.node === null) this.#start(member);
    let marker = 0;
    for (let round = 0; round < 3000; round++) {
      for (const member of this.#members) this.#work(member, round);
      this.#check();
      const leader = this.#members.find((member) => member.node!.isLeader);
      if (leader === undefined) continue;
      if (marker === 0) marker = this.#proposeMarker(leader.node!);
      else if (this.#hasConverged(leader, marker)) return;
      else if (round % 400 === 399) marker = 0; // The leader that took it may have lost it.
    }
    assert(false, 'no progress after everything was repaired');
  }

  #work(member: Member, round: number): void {
    const node = member.node!;
    const { id } = member;
    if (round % 4 === 0) node.tick();
    this.#ready(member);
    this.#persistSome(member);
    while (member.applies.length > 0 && !member.writes.includes(member.applies[0]!)) this.#applyOne(member);
    const mine = this.#network.filter((message) => message.to === id);
    this.#network = this.#network.filter((message) => message.to !== id);
    for (const message of mine) this.#deliver(message);
    // A snapshot from before a member was added is of no use to it: a driver makes a new one for each transfer.
    if (round % 40 === 0 && node.isLeader) {
      this.#compact(member);
      for (const other of this.#members) node.reportSnapshot(other.id, false);
    }
  }

  #proposeMarker(node: RawNode): number {
    const result = node.propose(Buffer.from('marker'));
    return result.index;
  }

  #hasConverged(leader: Member, marker: number): boolean {
    const { confState, applied } = leader.machine;
    if (applied < marker || confState.autoLeave) return false;
    const ids = new Set([...confState.voters, ...confState.learners, ...confState.votersOutgoing]);
    for (const member of this.#members) {
      if (ids.has(member.id) && member.machine.applied < marker) return false;
    }
    return true;
  }
}
