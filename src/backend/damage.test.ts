// Goal: whatever a table's entry says, the engine does its work or ends in the error of a damaged database, never in another one.
// Method: two seconds of damage.fuzz.ts from a fresh seed (`make fuzz` runs it for long); and what it meets too seldom.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import { MetaKey } from '../snapshot/schema.ts';
import { fuzzFor } from '../testing/fuzz-loop.ts';
import { MemoryStore } from '../testing/memory-tables.ts';
import { Engine, fuzzDamage, makeStore } from './damage.fuzz.ts';

test('damaged entries are refused, or do not matter', () => {
  let seen = 0;
  const run = (seed: number): void => {
    if (fuzzDamage(seed)) seen++;
  };
  const runs = fuzzFor(run, 2, Date.now() % 1_000_000_000);
  assert.ok(seen > 0 && seen < runs, `damage was seen in ${seen} of ${runs} runs`);
});

test('rows without how far the log was applied are refused: it would be applied to them again', () => {
  const lost: readonly [table: string, key: Buffer][] = [
    ['meta', MetaKey.consistentIndex],
    ['keelson', Buffer.from('state')],
  ];
  for (const [table, key] of lost) {
    const { store } = makeStore(new SeededRandom(1));
    assert.ok(new Engine(store).backend.consistentIndex > 0, 'a sound one is taken');
    const writer = store.openWriter();
    writer.transaction(() => assert.ok(writer.table(table).remove(key)));
    assert.throws(() => new Engine(store), /is damaged: it has rows, but not how far the log was applied; restore/);
  }
});

test('a database is new until its first commit, and sound after one without rows', () => {
  const store = new MemoryStore();
  const { backend, port } = new Engine(store);
  assert.equal(backend.consistentIndex, 0);
  backend.bucketPut('members', Buffer.from('1'), Buffer.from('{}'));
  backend.endApply(1, 1);
  assert.equal(new Engine(store).backend.consistentIndex, 0, 'nothing was flushed');
  backend.flush(() => {});
  port.run();
  const again = new Engine(store).backend;
  assert.deepEqual([again.consistentIndex, again.currentRevision], [1, 0]);
});
