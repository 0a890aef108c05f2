// Configurations and how they change: pure functions on sets of node ids, with the rules of etcd-io/raft's confchange
// package (Raft thesis 4.3). Not the progress of the members: the Tracker reconciles that with the result.
//
//   simple:       (1 2 3)            ──► (1 2 3 4)                     one voter at a time
//   enter joint:  (1 2 3)            ──► (1 2 4)&&(1 2 3)              both majorities decide
//   leave joint:  (1 2 4)&&(1 2 3)   ──► (1 2 4)
//
// A voter of the outgoing half that shall become a learner waits in learnersNext until the joint configuration is left,
// so that nobody is voter and learner at once.

import {
  type ConfChangeSingle,
  ConfChangeTransition,
  ConfChangeType,
  type ConfChangeV2,
  type ConfState,
  NONE,
  type NodeId,
} from './types.ts';

/** Immutable by convention: every change makes a new one. */
export interface Configuration {
  readonly voters: ReadonlySet<NodeId>;
  /** The voters before the change, in a joint configuration; else empty. */
  readonly outgoing: ReadonlySet<NodeId>;
  /** Disjoint from voters and outgoing. */
  readonly learners: ReadonlySet<NodeId>;
  /** Part of outgoing, disjoint from voters. */
  readonly learnersNext: ReadonlySet<NodeId>;
  /** The leader leaves the joint configuration by itself, once it is applied. */
  readonly autoLeave: boolean;
}

export const EMPTY_CONFIGURATION: Configuration = {
  voters: new Set(),
  outgoing: new Set(),
  learners: new Set(),
  learnersNext: new Set(),
  autoLeave: false,
};

export type ConfChangeResult =
  | {
      readonly ok: true;
      readonly configuration: Configuration;
      /** Members that the change removed and took in again: what was known of their logs is void. */
      readonly forgotten: ReadonlySet<NodeId>;
    }
  | { readonly ok: false; readonly error: string };

export function isJoint(configuration: Configuration): boolean {
  return configuration.outgoing.size > 0;
}

export function leavesJoint(change: ConfChangeV2): boolean {
  return change.transition === ConfChangeTransition.auto && change.changes.length === 0;
}

/** More than one change goes through a joint configuration even where one step would do: simple beats clever here. */
export function entersJoint(change: ConfChangeV2): boolean {
  return change.transition !== ConfChangeTransition.auto || change.changes.length > 1;
}

/** The configuration after `change`, or why there is none. */
export function changeConfiguration(from: Configuration, change: ConfChangeV2): ConfChangeResult {
  if (leavesJoint(change)) return leaveJoint(from);
  if (entersJoint(change)) {
    return enterJoint(from, change.transition !== ConfChangeTransition.jointExplicit, change.changes);
  }
  return simple(from, change.changes);
}

function simple(from: Configuration, changes: readonly ConfChangeSingle[]): ConfChangeResult {
  if (isJoint(from)) return failed("can't apply a simple change to a joint configuration");
  const draft = new Draft(from);
  const error = draft.apply(changes);
  if (error !== null) return failed(error);
  if (differenceSize(from.voters, draft.voters) > 1)
    return failed('more than one voter changed without joint consensus');
  return draft.finish(false);
}

function enterJoint(from: Configuration, autoLeave: boolean, changes: readonly ConfChangeSingle[]): ConfChangeResult {
  if (isJoint(from)) return failed('the configuration is already joint');
  if (from.voters.size === 0) return failed("can't make a configuration without voters joint");
  const draft = new Draft(from);
  for (const id of from.voters) draft.outgoing.add(id);
  const error = draft.apply(changes);
  if (error !== null) return failed(error);
  return draft.finish(autoLeave);
}

function leaveJoint(from: Configuration): ConfChangeResult {
  if (!isJoint(from)) return failed("can't leave a configuration that is not joint");
  const draft = new Draft(from);
  for (const id of from.learnersNext) draft.learners.add(id);
  draft.learnersNext.clear();
  draft.outgoing.clear();
  return draft.finish(false);
}

/** A configuration in the making. */
class Draft {
  readonly voters: Set<NodeId>;
  readonly outgoing: Set<NodeId>;
  readonly learners: Set<NodeId>;
  readonly learnersNext: Set<NodeId>;
  readonly forgotten = new Set<NodeId>();

  constructor(from: Configuration) {
    this.voters = new Set(from.voters);
    this.outgoing = new Set(from.outgoing);
    this.learners = new Set(from.learners);
    this.learnersNext = new Set(from.learnersNext);
  }

  /** Null, or why not. */
  apply(changes: readonly ConfChangeSingle[]): string | null {
    for (const change of changes) {
      if (change.nodeId === NONE) continue;
      switch (change.type) {
        case ConfChangeType.addNode:
          this.#makeVoter(change.nodeId);
          break;
        case ConfChangeType.addLearnerNode:
          this.#makeLearner(change.nodeId);
          break;
        case ConfChangeType.removeNode:
          this.#remove(change.nodeId);
          break;
        case ConfChangeType.updateNode:
          break;
        default:
          return 'unknown type of configuration change';
      }
    }
    return this.voters.size === 0 ? 'removed all voters' : null;
  }

  finish(autoLeave: boolean): ConfChangeResult {
    const configuration: Configuration = {
      voters: this.voters,
      outgoing: this.outgoing,
      learners: this.learners,
      learnersNext: this.learnersNext,
      autoLeave,
    };
    const error = configurationError(configuration);
    return error === null ? { ok: true, configuration, forgotten: this.forgotten } : failed(error);
  }

  #makeVoter(id: NodeId): void {
    this.learners.delete(id);
    this.learnersNext.delete(id);
    this.voters.add(id);
  }

  #makeLearner(id: NodeId): void {
    if (this.learners.has(id)) return;
    this.voters.delete(id);
    if (this.outgoing.has(id)) this.learnersNext.add(id);
    else this.learners.add(id);
  }

  #remove(id: NodeId): void {
    const known = this.voters.delete(id) || this.learners.delete(id);
    this.learnersNext.delete(id);
    if (known && !this.outgoing.has(id)) this.forgotten.add(id);
  }
}

/** Null, or the invariant that does not hold. */
export function configurationError(configuration: Configuration): string | null {
  const { voters, outgoing, learners, learnersNext, autoLeave } = configuration;
  for (const id of learnersNext) {
    if (!outgoing.has(id)) return 'a waiting learner that is no outgoing voter';
    if (voters.has(id)) return 'a waiting learner that stays a voter';
  }
  for (const id of learners) {
    if (voters.has(id) || outgoing.has(id)) return 'a learner that is a voter';
  }
  if (outgoing.size === 0 && autoLeave) return 'autoLeave without a joint configuration';
  return null;
}

/** The configuration that a snapshot or the storage names. */
export function restoreConfiguration(state: ConfState): ConfChangeResult {
  const configuration: Configuration = {
    voters: new Set(state.voters),
    outgoing: new Set(state.votersOutgoing),
    learners: new Set(state.learners),
    learnersNext: new Set(state.learnersNext),
    autoLeave: state.autoLeave,
  };
  const error = configurationError(configuration);
  return error === null ? { ok: true, configuration, forgotten: new Set() } : failed(error);
}

export function toConfState(configuration: Configuration): ConfState {
  return {
    voters: ascending(configuration.voters),
    learners: ascending(configuration.learners),
    votersOutgoing: ascending(configuration.outgoing),
    learnersNext: ascending(configuration.learnersNext),
    autoLeave: configuration.autoLeave,
  };
}

export function ascending(ids: Iterable<NodeId>): NodeId[] {
  return [...ids].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

function differenceSize(a: ReadonlySet<NodeId>, b: ReadonlySet<NodeId>): number {
  let size = 0;
  for (const id of a) if (!b.has(id)) size++;
  for (const id of b) if (!a.has(id)) size++;
  return size;
}

function failed(error: string): ConfChangeResult {
  return { ok: false, error };
}
