// Goal: entries are applied in order, each once, whatever the slices; and a member whose flusher is behind lets proposals wait, so that
// what is not flushed stays bounded and no client is refused. Method: the queue alone; a member with a shrunk memtable.
// (The same at a start: bootstrap.test.ts.)

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { applyTurnEntries } from '../limits.ts';
import { type Entry, EntryType, NO_BYTES } from '../raft/types.ts';
import { backendLimits } from '../storage-limits.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { ApplyQueue } from './apply-queue.ts';

function entries(from: number, count: number): Entry[] {
  return Array.from({ length: count }, (_, i) => ({
    term: 1,
    index: from + i,
    type: EntryType.normal,
    data: NO_BYTES,
  }));
}

test('a queue gives everything at once, or a slice, or as much as there is room for', () => {
  const applied: number[] = [];
  const queue = new ApplyQueue((entry) => void applied.push(entry.index));
  const yes = (): boolean => true;
  const no = (): boolean => false;
  assert.ok(queue.isEmpty);
  assert.equal(queue.run(no, no), 0);
  queue.add([]);
  assert.ok(queue.isEmpty, 'nothing is no work');
  queue.add(entries(1, 10));
  queue.add(entries(11, applyTurnEntries));
  assert.equal(queue.run(yes, no), 0, 'no room');
  let room = 4;
  assert.equal(
    queue.run(yes, () => room-- > 0),
    4,
  );
  assert.equal(queue.run(yes, yes), 4 + applyTurnEntries, 'a slice, over two lists');
  assert.ok(!queue.isEmpty);
  assert.equal(queue.run(no, no), 10 + applyTurnEntries, 'who does not catch up takes all');
  assert.ok(queue.isEmpty);
  assert.deepEqual(
    applied,
    entries(1, 10 + applyTurnEntries).map(({ index }) => index),
  );
});

test('proposals wait while the flusher is behind: none is refused, and what is not flushed stays bounded', async () => {
  const fixture = new MemberFixture();
  const backlogBytesMax = 20_000;
  fixture.limits = { ...backendLimits, backlogBytesMax, slabBytes: 16_384 };
  const member = await fixture.start('--backend-batch-interval=1h');
  const { backend } = member.parts;
  let most = 0;
  const { endApply } = backend;
  backend.endApply = (index, term) => {
    endApply.call(backend, index, term);
    most = Math.max(most, backend.backlog());
  };
  const client = async (key: string): Promise<void> => {
    for (let i = 0; i < 50; i++) {
      const revision = await fixture.put(key, 'v'.repeat(500));
      assert.equal(typeof revision, 'number', `refused: ${JSON.stringify(revision)}`);
    }
  };
  await Promise.all(Array.from({ length: 10 }, (_, i) => client(`k${i}`)));
  assert.equal(member.parts.store.currentRevision, 501);
  // A turn that begins below the bound ends above it, with a put of each client.
  assert.ok(most > backlogBytesMax, 'the bound was met');
  assert.ok(most < backlogBytesMax + 10 * 700, `${most} bytes at once`);
  await fixture.stop();
  fixture.remove();
});
