// Goal: a stab finds exactly the intervals that contain the key, after any inserts and removes, and the tree stays shallow
// whatever the order of insertion. Method: random intervals beside a plain list; sorted and shuffled insertions, whose depth is
// measured.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Random, SeededRandom } from '../io/random.ts';
import { type Interval, IntervalTree } from './interval-tree.ts';

interface Named extends Interval {
  readonly name: string;
}

const LETTERS = 'ab\0\xff';

function randomText(random: Random): string {
  let text = '';
  for (let length = random.below(4); length > 0; length--) text += LETTERS[random.below(LETTERS.length)]!;
  return text;
}

function interval(key: string, end: string | null): Named {
  return { key, end, name: `${key.length}:${key}-${end}` };
}

function stab(tree: IntervalTree<Named>, key: string): string[] {
  const names: string[] = [];
  tree.stab(key, (found) => names.push(found.name));
  return names.sort();
}

test('random intervals equal a plain list', () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new SeededRandom(seed);
    const tree = new IntervalTree<Named>();
    const list = new Map<string, Named>();
    for (let step = 0; step < 300; step++) {
      const key = randomText(random);
      const added = interval(key, random.below(5) === 0 ? null : `${randomText(random)}b`);
      const isProper = added.end === null || added.key < added.end;
      if (isProper && !list.has(added.name)) {
        tree.insert(added);
        list.set(added.name, added);
      }
      if (random.below(5) < 2 && list.size > 0) {
        const gone = [...list.values()][random.below(list.size)]!;
        // By value: the one to remove need not be the very object.
        tree.remove({ ...gone });
        list.delete(gone.name);
      }
      assert.equal(tree.size, list.size);
      assert.equal(tree.find(added), list.get(added.name) ?? null);
      assert.deepEqual(new Set(tree.list()), new Set(list.values()));
      const probe = randomText(random);
      // Bytes, as the keys of requests: strings with a character a byte must order as they do.
      const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');
      const expected = [...list.values()].filter(
        ({ key, end }) =>
          bytes(key).compare(bytes(probe)) <= 0 && (end === null || bytes(probe).compare(bytes(end)) < 0),
      );
      assert.deepEqual(stab(tree, probe), expected.map((found) => found.name).sort(), `seed ${seed}`);
    }
  }
});

/** The deepest way from the root, by looking into the tree: depth is what the recursion costs. */
function depthOf(tree: IntervalTree<Named>): number {
  interface Shape {
    readonly left: Shape | null;
    readonly right: Shape | null;
  }
  const depth = (node: Shape | null): number => (node === null ? 0 : 1 + Math.max(depth(node.left), depth(node.right)));
  return depth((tree as unknown as { root: Shape | null }).root);
}

test('thirty thousand intervals in any order stay shallow', () => {
  const orders: readonly ((i: number) => number)[] = [(i) => i, (i) => 30_000 - i, (i) => (i * 7919) % 30_011];
  for (const order of orders) {
    const tree = new IntervalTree<Named>();
    for (let i = 0; i < 30_000; i++) {
      const key = String(order(i)).padStart(6, '0');
      tree.insert(interval(key, `${key}~`));
    }
    const depth = depthOf(tree);
    assert.ok(depth < 50, `depth ${depth}`);
    assert.equal(stab(tree, '000777/x').length, 1);
  }
});

test('an interval is in the tree once', () => {
  const tree = new IntervalTree<Named>();
  tree.insert(interval('a', 'b'));
  assert.throws(() => tree.insert(interval('a', 'b')), /already/);
  assert.throws(() => tree.remove(interval('a', null)), /not in the tree/);
  assert.throws(() => tree.remove(interval('c', 'd')), /not in the tree/);
});
