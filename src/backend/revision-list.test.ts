// Goal: the list sorts and finds revisions of any size, by the fast way and by the general one. Method: seeded random lists
// against a plain sort.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import { RevisionList } from './revision-list.ts';

test('sorts and finds', () => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = new SeededRandom(seed);
    const mainMax = seed % 3 === 0 ? 2 ** 52 : 2 ** 20;
    const subMax = seed % 3 === 1 ? 2 ** 25 : 20;
    const list = new RevisionList();
    const wanted = new Map<string, { main: number; sub: number; tombstone: boolean }>();
    for (let i = 0; i < 3000; i++) {
      const main = Math.floor(random.float() * mainMax);
      const sub = random.below(subMax);
      const tombstone = random.below(2) === 1;
      if (wanted.has(`${main}.${sub}`)) continue;
      wanted.set(`${main}.${sub}`, { main, sub, tombstone });
      list.push(main, sub, tombstone);
    }
    list.sort();
    const sorted = [...wanted.values()].sort((a, b) => a.main - b.main || a.sub - b.sub);
    const found = sorted.map((_, i) => ({ main: list.mains[i]!, sub: list.sub(i), tombstone: list.isTombstone(i) }));
    assert.deepEqual(found, sorted, `seed ${seed}`);
    for (const { main, sub } of sorted) {
      assert.ok(list.has(main, sub));
      assert.equal(list.has(main, sub + 1), wanted.has(`${main}.${sub + 1}`));
    }
    assert.throws(() => {
      list.push(1, 1, false);
      list.has(1, 1);
    }, /before it is sorted/);
  }
});
