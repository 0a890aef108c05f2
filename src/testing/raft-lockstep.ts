// A group of keelson's raft members and one of etcd's that get the same inputs, in an order drawn from a seed: messages are
// delivered, lost, doubled and reordered, disks and appliers lag, members crash, are cut off, come and go. After every
// command both sides' answers are the same text, or the run ends with the first that are not.
//
// Ours goes first and is compared a batch later, so that nobody waits for single answers; that is possible because nothing
// that is decided here depends on etcd's answers. `src/raft/lockstep.peer-test.ts` says what is compared, and with what.

import { ReadOnlyOption } from '../raft/config.ts';
import { ProgressState } from '../raft/progress.ts';
import { seededRandom } from '../raft/simulation.ts';
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
  newMessage,
} from '../raft/types.ts';
import { encodeConfChange, encodeConfChangeV2 } from './raft-conf-change.ts';
import type { RaftEtcd } from './raft-etcd.ts';
import { type MemberConfig, RaftMember, type Step } from './raft-member.ts';
import { Relation } from './raft-relation.ts';
import { paddedData } from './raft-text.ts';

/**
 * `async`: the loop of a driver with asynchronous storage writes, any number of inputs between Readies, against etcd's core
 * with the same sends deferred: all is equal. `settled`: the loop of etcd's server after every input, against etcd's core as
 * it is: equal but for when a leader sends appends (raft-relation.ts).
 */
export type LockstepForm = 'async' | 'settled';

export interface LockstepOptions {
  readonly seed: number;
  readonly form: LockstepForm;
  readonly commands: number;
  /** How many of the last commands a difference is shown with. */
  readonly history: number;
}

/** Where both sides differ first. */
export class LockstepDifference extends Error {
  override readonly name: string = 'LockstepDifference';
  /** Counted from 1. */
  readonly command: number;

  constructor(command: number, text: string) {
    super(text);
    this.command = command;
  }
}

const MEMBERS_MAX = 6;
const NETWORK_MAX = 300;
/** Commands between two comparisons. */
const BATCH = 400;
/**
 * Requests and byte bounds in whole units, but for a rest that is larger than what an entry's frame counts for all entries in
 * flight, here or there: so both sides cut at the same entry.
 */
const UNIT_BYTES = 4096;

export class Lockstep {
  readonly #options: LockstepOptions;
  readonly #random: (n: number) => number;
  readonly #etcd: RaftEtcd;
  readonly relation: Relation = new Relation();
  readonly #members: RaftMember[];
  #network: Message[] = [];
  /** Pairs that can't hear each other: 'from>to'. */
  readonly #cut = new Set<string>();
  #steps: Step[] = [];
  readonly #history: string[] = [];
  #compared = 0;
  #tokens = 0;
  readonly #isUniform: boolean;
  readonly #style: MemberConfig;
  readonly #isAligned: boolean;
  readonly #lossPercent: number;
  readonly #weights: readonly [(member: RaftMember) => void, number][];
  readonly #weightSum: number;
  /** What happened, by name: a run in which nothing happens proves nothing. */
  readonly counts: Record<string, number> = {};

  constructor(options: LockstepOptions, etcd: RaftEtcd) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
    this.#etcd = etcd;
    this.#isUniform = this.#random(4) > 0;
    this.#isAligned = this.#random(3) > 0;
    this.#style = this.#drawConfig();
    this.#lossPercent = this.#random(3) * 8;
    this.#weights = this.#drawWeights();
    this.#weightSum = this.#weights.reduce((sum, [, weight]) => sum + weight, 0);
    this.#members = this.#newMembers();
  }

  /** Compared so far. */
  get commands(): number {
    return this.#compared;
  }

  /** Throws LockstepDifference. */
  async run(): Promise<void> {
    while (this.#compared < this.#options.commands) {
      while (this.#steps.length < BATCH) this.#act();
      const steps = this.#steps;
      this.#steps = [];
      const answers = await this.#etcd.exchange(steps.map((step) => step.command));
      for (const [i, step] of steps.entries()) this.#compare(step, answers[i]!);
    }
  }

  #compare(step: Step, answer: string): void {
    this.#compared++;
    this.#history.push(step.command);
    if (this.#history.length > this.#options.history) this.#history.shift();
    const difference = this.#difference(step, answer);
    if (difference === null) return;
    const { seed, form } = this.#options;
    throw new LockstepDifference(
      this.#compared,
      `${difference}: --seed ${seed} --form ${form}, command ${this.#compared}\n${this.#history.join('\n')}\n` +
        `keelson: ${step.expected.split('\t').join('\n         ')}\netcd:    ${answer.split('\t').join('\n         ')}`,
    );
  }

  /** Null, or what is wrong. */
  #difference(step: Step, answer: string): string | null {
    if (step.expected.startsWith('panic') || answer.startsWith('panic')) return 'panic';
    if (this.#options.form === 'settled') return this.relation.difference(step, answer);
    return step.expected === answer ? null : 'answers differ';
  }

  #count(name: string): void {
    this.counts[name] = (this.counts[name] ?? 0) + 1;
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#random(from.length)]!;
  }

  // --- What the seed decides at the start ---

  #newMembers(): RaftMember[] {
    // Small ids, or any of 64 bits.
    const isWide = this.#random(4) === 0;
    const ids = Array.from({ length: MEMBERS_MAX }, (_, i) =>
      isWide ? (BigInt(this.#random(2 ** 32)) << 32n) + BigInt(this.#random(2 ** 32)) + 1n : BigInt(i + 1),
    );
    const voters = ids.slice(0, this.#pick([1, 2, 3, 3, 3, 4, 5]));
    const learners = this.#random(4) === 0 ? ids.slice(5) : [];
    const isBootstrapped = this.#random(4) === 0;
    const confState: ConfState = isBootstrapped ? EMPTY_CONF_STATE : { ...EMPTY_CONF_STATE, voters, learners };
    const emit = (step: Step): void => {
      this.#steps.push(step);
    };
    // Those who are not members yet know the first configuration too, unless it is in the log: they may get all of it.
    const bootstrap = isBootstrapped ? voters : [];
    const members = ids.map((id) => new RaftMember(id, confState, bootstrap, this.#random, emit));
    for (const member of members) this.#start(member);
    return members;
  }

  #start(member: RaftMember): void {
    member.start(this.#isUniform ? this.#style : this.#drawConfig(), this.#options.form === 'async');
  }

  #drawConfig(): MemberConfig {
    const inf = Number.POSITIVE_INFINITY;
    const isAsync = this.#options.form === 'async';
    const aligned = (...units: number[]): number[] => units.map((n) => n * UNIT_BYTES + UNIT_BYTES - 96);
    const checkQuorum = this.#random(2) === 0;
    const maxSizePerMessage = this.#pick(isAsync && this.#isAligned ? [0, inf, ...aligned(1, 2, 5)] : [0, inf]);
    const bytes = this.#isAligned ? UNIT_BYTES : 10;
    return {
      electionTick: this.#pick([3, 5, 10]),
      heartbeatTick: this.#pick([1, 1, 2]),
      maxSizePerMessage,
      maxCommittedSizePerReady: this.#pick(this.#isAligned ? [1, inf, ...aligned(1, 2, 5)] : [1, inf]),
      maxUncommittedEntriesSize: this.#pick([inf, inf, bytes * 3, bytes * 8]),
      maxInflightMessages: isAsync ? this.#pick([1, 2, 3, 16, 256]) : 512,
      maxInflightBytes: isAsync ? this.#pick([inf, Math.max(maxSizePerMessage, bytes * 3)]) : inf,
      checkQuorum,
      preVote: this.#random(2) === 0,
      readOnlyOption: checkQuorum && this.#random(3) === 0 ? ReadOnlyOption.leaseBased : ReadOnlyOption.safe,
      disableProposalForwarding: this.#random(6) === 0,
    };
  }

  #drawWeights(): [(member: RaftMember) => void, number][] {
    const isAsync = this.#options.form === 'async';
    return [
      [() => this.#deliverSome(), this.#pick([200, 400])],
      [(member) => this.#send(member.ready()), isAsync ? this.#pick([40, 150, 300]) : 0],
      [(member) => this.#send(member.persist(1 + this.#random(3))), isAsync ? this.#pick([8, 60, 200]) : 0],
      [(member) => member.apply(), isAsync ? this.#pick([20, 150]) : 0],
      [(member) => this.#tickSome(member), this.#pick([60, 160])],
      [(member) => this.#propose(member), this.#pick([10, 60])],
      [(member) => this.#read(member), this.#pick([3, 40])],
      [(member) => this.#proposeConfChange(member), this.#pick([1, 5, 20])],
      [(member) => this.#crash(member), this.#pick([0, 1, 4])],
      [() => this.#partition(), this.#pick([1, 3])],
      [() => this.#calm(), this.#pick([0, 1, 6])],
      [(member) => this.#compact(member), this.#pick([2, 20, 60])],
      [(member) => this.#disturb(member), this.#pick([1, 5, 20])],
    ];
  }

  // --- What happens ---

  #act(): void {
    // Leaders do most of what can go wrong.
    const leaders = this.#members.filter((one) => one.isLeader);
    const member = leaders.length > 0 && this.#random(4) === 0 ? this.#pick(leaders) : this.#pick(this.#members);
    if (member.node === null) {
      if (this.#random(10) === 0) this.#start(member);
      return;
    }
    let at = this.#random(this.#weightSum);
    for (const [action, weight] of this.#weights) {
      at -= weight;
      if (at >= 0) continue;
      action(member);
      this.#settle(member);
      return;
    }
  }

  #settle(member: RaftMember): void {
    if (this.#options.form !== 'settled' || member.node === null) return;
    this.#send(member.settle());
    member.shareFlow();
  }

  #tickSome(member: RaftMember): void {
    // Mostly the leaders' clocks: else there would be nothing but elections.
    const count = member.isLeader ? 1 : this.#random(3);
    for (let i = 0; i < count; i++) {
      member.tick();
      this.#settle(member);
    }
    this.#count('ticks');
  }

  #propose(member: RaftMember): void {
    const isBatch = this.#options.form === 'async' && this.#random(4) === 0;
    const datas: Buffer[] = [];
    for (let i = isBatch ? this.#random(4) : 0; i >= 0; i--) datas.push(this.#newRequest());
    member.propose(datas);
    this.#count('proposals');
  }

  #newRequest(): Buffer {
    const token = `p${++this.#tokens}`;
    const size = this.#isAligned ? UNIT_BYTES * this.#pick([1, 1, 2, 3]) : token.length + this.#random(20);
    return this.#random(20) === 0 ? NO_BYTES : paddedData(token, size);
  }

  #read(member: RaftMember): void {
    member.read(`pr${++this.#tokens}`);
    this.#count('reads');
  }

  #proposeConfChange(member: RaftMember): void {
    const changes: ConfChangeSingle[] = [];
    for (let i = this.#random(4); i > 0; i--) {
      const type = this.#pick([
        ConfChangeType.addNode,
        ConfChangeType.addNode,
        ConfChangeType.addLearnerNode,
        ConfChangeType.removeNode,
        ConfChangeType.updateNode,
      ]);
      changes.push({ type, nodeId: this.#pick(this.#members).id });
    }
    const context = this.#random(3) === 0 ? Buffer.from(`context ${this.#tokens}`) : NO_BYTES;
    this.#count('configuration changes');
    if (changes.length === 1 && this.#random(2) === 0) {
      member.proposeConfChange(EntryType.confChange, encodeConfChange({ ...changes[0]!, context }));
      return;
    }
    const transition = this.#random(3) as ConfChangeV2['transition'];
    // To leave a configuration that is not joint, by a change that says how to leave it: etcd's leader would take it in a joint
    // one, and every member would panic when it applies it.
    const isOdd = changes.length === 0 && transition !== 0;
    if (isOdd && (!member.isLeader || member.raft.tracker.configuration.outgoing.size > 0)) return;
    member.proposeConfChange(EntryType.confChangeV2, encodeConfChangeV2({ transition, changes, context }));
    // The leadership goes to whom the change may remove.
    if (changes.length > 0 && this.#random(4) === 0) member.transfer(changes[0]!.nodeId);
  }

  /** Some rounds in which nothing is lost and nothing lags: else there would be few changes of the configuration. */
  #calm(): void {
    if (this.#random(2) === 0) this.#cut.clear();
    for (let round = this.#random(8); round >= 0; round--) {
      for (const member of this.#members) {
        if (member.node === null) continue;
        this.#settle(member);
        if (this.#options.form === 'async') this.#work(member);
        const mine = this.#network.filter((message) => message.to === member.id);
        this.#network = this.#network.filter((message) => message.to !== member.id);
        for (const message of mine) if (!this.#isCut(message)) this.#deliver(member, message);
      }
    }
    this.#count('calms');
  }

  #work(member: RaftMember): void {
    this.#send(member.ready());
    if (member.writes.length > 0) this.#send(member.persist(member.writes.length));
    while (member.applies.length > 0) member.apply();
  }

  #deliver(member: RaftMember, message: Message): void {
    member.step(message);
    this.#count(`${nameOf(message)}s`);
    this.#settle(member);
  }

  #crash(member: RaftMember): void {
    member.crash(this.#random(member.writes.length + 1));
    this.#count('crashes');
    if (this.#random(2) === 0) this.#start(member);
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

  #compact(member: RaftMember): void {
    if (this.#random(2) === 0) member.flush();
    else member.compact(this.#random(4));
  }

  #disturb(member: RaftMember): void {
    const peer = this.#pick(this.#members).id;
    switch (this.#random(10)) {
      case 0:
      case 1:
        member.transfer(peer);
        break;
      case 2:
        member.forgetLeader();
        break;
      case 3:
      case 4:
        member.reportUnreachable(peer);
        break;
      case 5:
      case 6: {
        const waiting = member.raft.tracker.peers.find((one) => one.state === ProgressState.snapshot);
        member.reportSnapshot(waiting?.id ?? peer, this.#random(2) === 0);
        break;
      }
      case 7:
        this.#stepStranger(member, peer);
        break;
      case 8:
        this.#stepMixedProposal(member, peer);
        break;
      default:
        member.campaign();
    }
  }

  /** What no peer sends, and an answer of somebody who is no member. */
  #stepStranger(member: RaftMember, from: bigint): void {
    const { hup, beat, unreachable, snapStatus, checkQuorum, storageAppendResp, appResp } = MessageType;
    const message = newMessage(
      this.#pick([hup, beat, unreachable, snapStatus, checkQuorum, storageAppendResp, appResp]),
      member.id,
    );
    message.from = message.type === appResp ? 4711n : from;
    message.term = member.raft.term + this.#random(2);
    member.step(message);
  }

  /** A follower's message with several requests, of which some change the configuration. */
  #stepMixedProposal(member: RaftMember, from: bigint): void {
    if (!member.isLeader) return;
    const message = newMessage(MessageType.prop, member.id);
    message.from = from;
    message.entries = Array.from({ length: 1 + this.#random(4) }, (): Entry => {
      const isNormal = this.#random(2) === 0;
      const nodeId = this.#pick(this.#members).id;
      const change = { type: this.#pick([0, 1, 3] as const), nodeId, context: NO_BYTES };
      const type = isNormal ? EntryType.normal : EntryType.confChange;
      return { term: 0, index: 0, type, data: isNormal ? this.#newRequest() : encodeConfChange(change) };
    });
    member.step(message);
    this.#count('mixed proposals');
  }

  #deliverSome(): void {
    for (let i = this.#random(6); i >= 0 && this.#network.length > 0; i--) {
      // Mostly in order, as connections are; sometimes late, sometimes twice.
      const at = this.#random(4) === 0 ? this.#random(this.#network.length) : 0;
      const message = this.#random(30) === 0 ? this.#network[at]! : this.#network.splice(at, 1)[0]!;
      const target = this.#members.find((one) => one.id === message.to);
      if (target?.node == null || this.#isCut(message) || this.#random(100) < this.#lossPercent) continue;
      this.#deliver(target, message);
    }
  }

  #isCut(message: Message): boolean {
    return this.#cut.has(`${message.from}>${message.to}`);
  }

  #send(messages: readonly Message[]): void {
    for (const message of messages) this.#network.push(message);
    if (this.#network.length > NETWORK_MAX) this.#network.splice(0, this.#network.length - NETWORK_MAX);
  }
}

function nameOf(message: Message): string {
  const name = Object.entries(MessageType).find(([, type]) => type === message.type)![0];
  return message.reject ? `rejecting ${name}` : name;
}
