// A set of half-open intervals of strings that answers "which contain this key" (stabbing). A treap ordered by the start key, each
// node with the greatest end of its subtree: expected O(log n + hits). Priorities come from a counter's hash, so that the shape
// depends on nothing outside. One interval is in it once; what belongs to it hangs on its node.

import { assert } from '../base/assert.ts';

/** `end` null: to the last key. */
export interface Interval {
  readonly key: string;
  readonly end: string | null;
}

interface Node<T extends Interval> {
  readonly interval: T;
  readonly priority: number;
  left: Node<T> | null;
  right: Node<T> | null;
  /** Greatest end of the subtree; null is beyond every key. */
  endMax: string | null;
}

function later(a: string | null, b: string | null): string | null {
  if (a === null || b === null) return null;
  return a >= b ? a : b;
}

function order(a: Interval, b: Interval): number {
  if (a.key !== b.key) return a.key < b.key ? -1 : 1;
  if (a.end === b.end) return 0;
  if (a.end === null || b.end === null) return a.end === null ? 1 : -1;
  return a.end < b.end ? -1 : 1;
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

  /** The one with the bounds of `like`, or null. */
  find(like: Interval): T | null {
    let node = this.root;
    while (node !== null) {
      const side = order(like, node.interval);
      if (side === 0) return node.interval;
      node = side < 0 ? node.left : node.right;
    }
    return null;
  }

  /** Removes the one with the bounds of `interval`. */
  remove(interval: Interval): void {
    this.root = this.removeAt(this.root, interval);
    this.size--;
  }

  private removeAt(node: Node<T> | null, interval: Interval): Node<T> | null {
    assert(node !== null, 'an interval to remove is not in the tree');
    const side = order(interval, node.interval);
    if (side === 0) return merge(node.left, node.right);
    if (side < 0) node.left = this.removeAt(node.left, interval);
    else node.right = this.removeAt(node.right, interval);
    update(node);
    return node;
  }

  /** Visits every interval with its key <= `key` < its end. */
  stab(key: string, visit: (interval: T) => void): void {
    stabAt(this.root, key, visit);
  }

  /** All, in order. */
  list(): T[] {
    const all: T[] = [];
    const walk = (node: Node<T> | null): void => {
      if (node === null) return;
      walk(node.left);
      all.push(node.interval);
      walk(node.right);
    };
    walk(this.root);
    return all;
  }
}

function stabAt<T extends Interval>(node: Node<T> | null, key: string, visit: (interval: T) => void): void {
  if (node === null || (node.endMax !== null && node.endMax <= key)) return;
  stabAt(node.left, key, visit);
  const { interval } = node;
  if (interval.key > key) return;
  if (interval.end === null || interval.end > key) visit(interval);
  stabAt(node.right, key, visit);
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
