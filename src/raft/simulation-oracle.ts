// What Raft promises (figure 3 of the paper), checked from outside on a whole group: one leader a term and one vote a term,
// logs that match, leaders that hold all that was committed, state machines that agree, commits that are durable on a
// majority, reads that are not stale. The simulation tells it what happens; it knows nothing of how.

import { assert } from '../base/assert.ts';
import type { MemoryStorage } from './memory-storage.ts';
import type { RawNode } from './raw-node.ts';
import { NO_TERM } from './storage.ts';
import type { ConfState, Message, NodeId } from './types.ts';

/** What a state machine holds: a running hash stands for its content. */
export interface MachineState {
  readonly applied: number;
  readonly hash: number;
  readonly confState: ConfState;
}

interface Committed {
  readonly term: number;
  /** The state after applying it; NaN until somebody has. */
  hash: number;
}

export class SimulationOracle {
  readonly #diskOf: (id: NodeId) => MemoryStorage;
  readonly #leaders = new Map<number, NodeId>();
  readonly #votes = new Map<string, NodeId>();
  readonly #committed: Committed[] = [{ term: 0, hash: 0 }];
  /** By context: the least index that may answer it. */
  readonly #reads = new Map<string, number>();
  elections = 0;
  commits = 0;
  reads = 0;

  constructor(diskOf: (id: NodeId) => MemoryStorage) {
    this.#diskOf = diskOf;
  }

  /** Election safety; and leader completeness, when it is new. */
  checkLeader(node: RawNode): void {
    const known = this.#leaders.get(node.term);
    assert(known === undefined || known === node.id, 'two leaders in one term');
    if (known !== undefined) return;
    this.elections++;
    this.#leaders.set(node.term, node.id);
    for (let index = this.#committed.length - 1; index > 0; index--) {
      const term = node.termAt(index);
      if (term === NO_TERM && index <= node.lastIndex) break; // Compacted: committed long ago.
      assert(term === this.#committed[index]!.term, 'a leader without a committed entry');
    }
  }

  /** What a member takes for committed: the same for all, and durable on a majority the first time. */
  checkCommit(node: RawNode): void {
    const commit = node.committedIndex;
    for (let index = this.#committed.length; index <= commit; index++) {
      const term = node.termAt(index);
      assert(term !== NO_TERM, 'a commit that nobody could have seen');
      this.#checkDurable(node, index, term);
      this.#committed.push({ term, hash: Number.NaN });
      this.commits++;
    }
    const term = node.termAt(commit);
    if (term !== NO_TERM) assert(term === this.#committed[commit]!.term, 'members commit different entries');
  }

  #checkDurable(node: RawNode, index: number, term: number): void {
    const { voters, votersOutgoing } = node.status().confState;
    for (const half of [voters, votersOutgoing]) {
      if (half.length === 0) continue;
      let holders = 0;
      for (const id of half) {
        const disk = this.#diskOf(id);
        if (disk.term(index) === term || disk.firstIndex() > index) holders++;
      }
      assert(holders * 2 > half.length, 'committed without being durable on a majority');
    }
  }

  /** State machine safety: the same state after the same index. */
  checkState(state: MachineState): void {
    const committed = this.#committed[state.applied];
    assert(committed !== undefined, 'applied before it was committed');
    if (Number.isNaN(committed.hash)) committed.hash = state.hash;
    assert(committed.hash === state.hash, 'state machines differ');
  }

  /** Of a vote that leaves its member. */
  checkVote(message: Message): void {
    const key = `${message.from}@${message.term}`;
    const known = this.#votes.get(key);
    assert(known === undefined || known === message.to, 'two votes in one term');
    this.#votes.set(key, message.to);
  }

  /** A read begins now: its answer must hold all that is committed by now. */
  expectRead(context: string): void {
    this.#reads.set(context, this.#committed.length - 1);
  }

  checkRead(context: string, index: number): void {
    const least = this.#reads.get(context);
    assert(least !== undefined, 'an answer that nobody asked for');
    assert(index >= least, 'a stale read');
    this.reads++;
  }

  /** Logs that agree at an index agree before it. */
  checkLogMatching(nodes: readonly RawNode[]): void {
    for (const a of nodes) {
      for (const b of nodes) if (a.id < b.id) checkPair(a, b);
    }
  }
}

function checkPair(a: RawNode, b: RawNode): void {
  let agrees = false;
  for (let index = Math.min(a.lastIndex, b.lastIndex); index > 0; index--) {
    const ours = a.termAt(index);
    const theirs = b.termAt(index);
    if (ours === NO_TERM || theirs === NO_TERM) return;
    if (ours === theirs) agrees = true;
    else assert(!agrees, 'logs that agree at an index must agree before it');
  }
}
