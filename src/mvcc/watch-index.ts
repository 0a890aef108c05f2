// Who wants the changes of a key: the synced watchers and groups by key and by range. Those of one key are in a map, those of a
// range in an interval tree; with the same range and different filters they are chained (Recipient.next).

import { assert } from '../base/assert.ts';
import { IntervalTree } from './interval-tree.ts';
import type { Recipient } from './watcher.ts';

interface RangeEntry {
  readonly key: string;
  readonly end: string | null;
  first: Recipient;
}

export class WatchIndex {
  private readonly exact = new Map<string, Recipient>();
  private readonly ranges = new IntervalTree<RangeEntry>();
  private readonly visitor: (recipient: Recipient) => void;
  private readonly visitEntry = (entry: RangeEntry): void => visitChain(entry.first, this.visitor);

  /** `visitor` is what visit() calls: given once, so that a visit makes no closure. */
  constructor(visitor: (recipient: Recipient) => void) {
    this.visitor = visitor;
  }

  get isEmpty(): boolean {
    return this.exact.size === 0 && this.ranges.size === 0;
  }

  /** The one with the range and filter of `like`, or null. */
  find(like: Recipient): Recipient | null {
    let found = this.firstOf(like);
    while (found !== null && found.filter !== like.filter) found = found.next;
    return found;
  }

  private firstOf(like: Recipient): Recipient | null {
    if (like.isExact) return this.exact.get(like.key) ?? null;
    return this.ranges.find(like)?.first ?? null;
  }

  /** Nobody with its range and filter is in the index. */
  add(added: Recipient): void {
    const first = this.firstOf(added);
    if (first !== null) {
      // Keys may be long, and watchers of one range many: they share its strings.
      added.key = first.key;
      added.end = first.end;
      added.next = first.next;
      first.next = added;
    } else if (added.isExact) this.exact.set(added.key, added);
    else this.ranges.insert({ key: added.key, end: added.end, first: added });
  }

  /** Puts `by`, with the same range and filter, in the place of `old`. */
  replace(old: Recipient, by: Recipient): void {
    by.next = old.next;
    this.relink(old, by);
  }

  remove(gone: Recipient): void {
    this.relink(gone, gone.next);
  }

  private relink(old: Recipient, by: Recipient | null): void {
    old.next = null;
    let before = this.firstOf(old);
    assert(before !== null, 'a synced watcher is not in the index');
    if (before === old) {
      this.setFirst(old, by);
      return;
    }
    while (before.next !== old) {
      before = before.next;
      assert(before !== null, 'a synced watcher is not in the index');
    }
    before.next = by;
  }

  private setFirst(old: Recipient, first: Recipient | null): void {
    if (old.isExact) {
      if (first === null) this.exact.delete(old.key);
      else this.exact.set(old.key, first);
      return;
    }
    if (first === null) this.ranges.remove(old);
    else this.ranges.find(old)!.first = first;
  }

  /** Visits all that want the changes of `key`. The index must not change meanwhile. */
  visit(key: string): void {
    if (this.exact.size > 0) visitChain(this.exact.get(key) ?? null, this.visitor);
    if (this.ranges.size > 0) this.ranges.stab(key, this.visitEntry);
  }

  /** All, for invariants. */
  list(): Recipient[] {
    const all: Recipient[] = [];
    const push = (recipient: Recipient): void => void all.push(recipient);
    for (const first of this.exact.values()) visitChain(first, push);
    for (const { first } of this.ranges.list()) visitChain(first, push);
    return all;
  }
}

function visitChain(first: Recipient | null, visitor: (recipient: Recipient) => void): void {
  for (let recipient = first; recipient !== null; recipient = recipient.next) visitor(recipient);
}
