// A set of half-open byte-string intervals that answers "which contain this key" (stabbing). A treap ordered by the start key,
// each node with the greatest end of its subtree: expected O(log n + hits). Priorities come from a counter's hash, so that the
// shape depends on nothing outside. One interval is in it once; what belongs to it hangs on its node.

import { assert } from '../base/assert.ts';

/** `end` null: to the last key. */
export interface Interval {
  readonly key: Buffer;
  readonly end: Buffer | null;
}

interface Node<T extends Interval> {
  readonly interval: T;
  readonly priority: number;
  left: Node<T> | null;
  right: Node<T> | null;
  /** Greatest end of the subtree; null is beyond every key. */
  endMax: Buffer | null;
}

function later(a: Buffer | null, b: Buffer | null): Buffer | null {
  if (a === null || b === null) return null;
  return a.compare(b) >= 0 ? a : b;
}

function order(a: Interval, b: Interval): number {
  const byKey = a.key.compare(b.key);
  if (byKey !== 0) return byKey;
  if (a.end === null || b.end === null) return a.end === b.end ? 0 : a.end === null ? 1 : -1;
  return a.end.compare(b.end);
}

/** A finalizer of MurmurHash3: as good as random, so that sorted insertions stay as shallow as shuffled ones. */
function priorityOf(counter: number): number {
  let hash = Math.imul(counter, 0x9e3779b1);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

export class IntervalTree<T extends Interval> {
  private root: Node<T> | null = null;
  private counter = 0;
  size = 0;

  insert(interval: T): void {
    this.counter = (this.counter + 1) | 0;
    const added = { interval, priority: priorityOf(this.counter), left: null, right: null, endMax: interval.end };
    this.root = this.insertAt(this.root, added);
    this.size++;
  }

  private insertAt(node: Node<T> | null, added: Node<T>): Node<T> {
    if (node === null) return added;
    const side = order(added.interval, node.interval);
    assert(side !== 0, 'an interval is in the tree already');
    if (side < 0) {
      node.left = this.insertAt(node.left, added);
      if (node.left.priority > node.priority) return rotateRight(node);
    } else {
      node.right = this.insertAt(node.right, added);
      if (node.right.priority > node.priority) return rotateLeft(node);
    }
    update(node);
    return node;
  }

  remove(interval: T): void {
    this.root = this.removeAt(this.root, interval);
    this.size--;
  }

  private removeAt(node: Node<T> | null, interval: T): Node<T> | null {
    assert(node !== null, 'an interval to remove is not in the tree');
    const side = order(interval, node.interval);
    if (side === 0) return merge(node.left, node.right);
    if (side < 0) node.left = this.removeAt(node.left, interval);
    else node.right = this.removeAt(node.right, interval);
    update(node);
    return node;
  }

  /** Visits every interval with key <= buffer[start, end) < its end. */
  stab(buffer: Buffer, start: number, end: number, visit: (interval: T) => void): void {
    this.stabAt(this.root, buffer, start, end, visit);
  }

  private stabAt(node: Node<T> | null, buffer: Buffer, start: number, end: number, visit: (interval: T) => void): void {
    if (node === null) return;
    if (node.endMax !== null && node.endMax.compare(buffer, start, end) <= 0) return;
    this.stabAt(node.left, buffer, start, end, visit);
    if (node.interval.key.compare(buffer, start, end) > 0) return;
    const intervalEnd = node.interval.end;
    if (intervalEnd === null || intervalEnd.compare(buffer, start, end) > 0) visit(node.interval);
    this.stabAt(node.right, buffer, start, end, visit);
  }
}

function update<T extends Interval>(node: Node<T>): void {
  let endMax = node.interval.end;
  if (node.left !== null) endMax = later(endMax, node.left.endMax);
  if (node.right !== null) endMax = later(endMax, node.right.endMax);
  node.endMax = endMax;
}

function rotateRight<T extends Interval>(node: Node<T>): Node<T> {
  const top = node.left!;
  node.left = top.right;
  top.right = node;
  update(node);
  update(top);
  return top;
}

function rotateLeft<T extends Interval>(node: Node<T>): Node<T> {
  const top = node.right!;
  node.right = top.left;
  top.left = node;
  update(node);
  update(top);
  return top;
}

function merge<T extends Interval>(left: Node<T> | null, right: Node<T> | null): Node<T> | null {
  if (left === null) return right;
  if (right === null) return left;
  if (left.priority > right.priority) {
    left.right = merge(left.right, right);
    update(left);
    return left;
  }
  right.left = merge(left, right.left);
  update(right);
  return right;
}
