// The members as a leader or candidate sees them: the configuration, the progress of each, the votes of an election,
// and what follows from them (commit index, election result, active quorum). Lists are made when the configuration
// changes, so that the paths of messages and proposals neither look up bigints nor allocate.

import { assert } from '../base/assert.ts';
import { ascending, type Configuration, EMPTY_CONFIGURATION, isJoint } from './conf-change.ts';
import { Progress } from './progress.ts';
import { jointVote, majorityIndex, majorityVote, VoteResult } from './quorum.ts';
import type { NodeId } from './types.ts';

export class Tracker {
  readonly #selfId: NodeId;
  readonly #inflightCountMax: number;
  readonly #inflightBytesMax: number;
  readonly #scratch: number[] = [];
  readonly #votes = new Map<NodeId, boolean>();
  #progress = new Map<NodeId, Progress>();
  #configuration: Configuration = EMPTY_CONFIGURATION;

  /** All members in ascending order of id, learners included. */
  all: readonly Progress[] = [];
  /** The same without this member. */
  peers: readonly Progress[] = [];
  /** Null when this member is not part of the configuration. */
  self: Progress | null = null;
  #incoming: readonly Progress[] = [];
  #outgoing: readonly Progress[] = [];

  constructor(selfId: NodeId, inflightCountMax: number, inflightBytesMax: number) {
    this.#selfId = selfId;
    this.#inflightCountMax = inflightCountMax;
    this.#inflightBytesMax = inflightBytesMax;
  }

  get configuration(): Configuration {
    return this.#configuration;
  }

  get(id: NodeId): Progress | undefined {
    return this.#progress.get(id);
  }

  /**
   * Takes a new configuration; members that stay keep their progress. New ones count as active, so that a quorum check
   * does not fall before they could be heard, and are probed at `lastIndex`.
   */
  switchTo(configuration: Configuration, forgotten: ReadonlySet<NodeId>, lastIndex: number): void {
    const ids = new Set([...configuration.voters, ...configuration.outgoing, ...configuration.learners]);
    const progress = new Map<NodeId, Progress>();
    for (const id of ascending(ids)) {
      const isLearner = configuration.learners.has(id);
      const known = forgotten.has(id) ? undefined : this.#progress.get(id);
      if (known === undefined) {
        const next = Math.max(lastIndex, 1);
        progress.set(id, new Progress(id, next, isLearner, true, this.#inflightCountMax, this.#inflightBytesMax));
      } else {
        known.isLearner = isLearner;
        progress.set(id, known);
      }
    }
    this.#configuration = configuration;
    this.#progress = progress;
    this.all = [...progress.values()];
    this.peers = this.all.filter((one) => one.id !== this.#selfId);
    this.self = progress.get(this.#selfId) ?? null;
    this.#incoming = this.all.filter((one) => configuration.voters.has(one.id));
    this.#outgoing = this.all.filter((one) => configuration.outgoing.has(one.id));
  }

  /** One voter, not joint: this member decides alone (if it is that voter). */
  get isSingleton(): boolean {
    return this.#incoming.length === 1 && this.#outgoing.length === 0;
  }

  isVoter(id: NodeId): boolean {
    return this.#configuration.voters.has(id) || this.#configuration.outgoing.has(id);
  }

  /** All who vote in either half, ascending. */
  voterIds(): NodeId[] {
    return ascending(new Set([...this.#configuration.voters, ...this.#configuration.outgoing]));
  }

  /** The largest index that is durable on a majority (on both, when joint). Hot: no allocation. */
  committedIndex(): number {
    const incoming = this.#matchIndex(this.#incoming);
    return this.#outgoing.length === 0 ? incoming : Math.min(incoming, this.#matchIndex(this.#outgoing));
  }

  #matchIndex(voters: readonly Progress[]): number {
    if (voters.length === 1) return voters[0]!.match;
    const scratch = this.#scratch;
    scratch.length = 0;
    for (let i = 0; i < voters.length; i++) scratch.push(voters[i]!.match);
    return majorityIndex(scratch);
  }

  /** The largest position that a majority has acknowledged in `acks`; absent means 0. */
  ackedPosition(acks: ReadonlyMap<NodeId, number>): number {
    return Math.min(this.#ackedBy(this.#incoming, acks), this.#ackedBy(this.#outgoing, acks));
  }

  #ackedBy(voters: readonly Progress[], acks: ReadonlyMap<NodeId, number>): number {
    const scratch = this.#scratch;
    scratch.length = 0;
    for (const voter of voters) scratch.push(acks.get(voter.id) ?? 0);
    return majorityIndex(scratch);
  }

  resetVotes(): void {
    this.#votes.clear();
  }

  /** The first answer of a member counts. */
  recordVote(id: NodeId, granted: boolean): void {
    if (!this.#votes.has(id)) this.#votes.set(id, granted);
  }

  hasVoteOf(id: NodeId): boolean {
    return this.#votes.has(id);
  }

  /** Votes for and against, for the log line; of voters only. */
  countVotes(granted: boolean): number {
    let count = 0;
    for (const one of this.all) {
      if (!one.isLearner && this.#votes.get(one.id) === granted) count++;
    }
    return count;
  }

  electionResult(): VoteResult {
    return jointVote(this.#electionAmong(this.#incoming), this.#electionAmong(this.#outgoing));
  }

  #electionAmong(voters: readonly Progress[]): VoteResult {
    let granted = 0;
    let rejected = 0;
    for (const voter of voters) {
      const vote = this.#votes.get(voter.id);
      if (vote === true) granted++;
      else if (vote === false) rejected++;
    }
    return majorityVote(voters.length, granted, rejected);
  }

  /** A majority was heard from since the last check. */
  quorumActive(): boolean {
    return jointVote(activeAmong(this.#incoming), activeAmong(this.#outgoing)) === VoteResult.won;
  }

  checkInvariants(): void {
    const { voters, outgoing, learners, learnersNext } = this.#configuration;
    for (const ids of [voters, outgoing, learners, learnersNext]) {
      for (const id of ids) assert(this.#progress.has(id), 'a member without progress');
    }
    for (const one of this.all) {
      one.checkInvariants();
      assert(one.isLearner === learners.has(one.id), 'progress disagrees about a learner');
      assert(voters.has(one.id) || outgoing.has(one.id) || one.isLearner, 'progress of a stranger');
    }
    assert(isJoint(this.#configuration) || learnersNext.size === 0, 'waiting learners outside a joint configuration');
  }
}

function activeAmong(voters: readonly Progress[]): VoteResult {
  let active = 0;
  for (const voter of voters) if (voter.recentActive) active++;
  return majorityVote(voters.length, active, voters.length - active);
}
