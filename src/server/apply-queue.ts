// Committed entries on their way into the state machine, in order. A leader that has caught up applies all at once: what it commits
// is bounded by what it was proposed. A member that catches up (at its start with its own log, later with a leader's) has as much
// before it as the log holds: it applies a slice a turn, and waits whenever the flusher is behind, so that its memory stays
// bounded whatever the log's length. raft hands out no more than applyHandedOutBytesMax of it at a time.

import { applyTurnEntries } from '../limits.ts';
import type { Entry } from '../raft/types.ts';

export class ApplyQueue {
  private readonly lists: (readonly Entry[])[] = [];
  /** Of the first list. */
  private next = 0;
  private readonly apply: (entry: Entry) => void;

  constructor(apply: (entry: Entry) => void) {
    this.apply = apply;
  }

  get isEmpty(): boolean {
    return this.lists.length === 0;
  }

  add(entries: readonly Entry[]): void {
    if (entries.length > 0) this.lists.push(entries);
  }

  clear(): void {
    this.lists.length = 0;
    this.next = 0;
  }

  /** Applies everything, or a slice as long as `mayGoOn`. Returns the index of the last entry applied, 0: none was. */
  run(isCatchingUp: () => boolean, mayGoOn: () => boolean): number {
    let applied = 0;
    let left = applyTurnEntries;
    for (;;) {
      const list = this.lists[0];
      if (list === undefined) return applied;
      if (isCatchingUp() && (left-- === 0 || !mayGoOn())) return applied;
      const entry = list[this.next++]!;
      this.apply(entry);
      applied = entry.index;
      if (this.next < list.length) continue;
      this.lists.shift();
      this.next = 0;
    }
  }
}
