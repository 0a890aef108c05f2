// Goal: the log behind the applied entries is bounded by entries and by bytes, in memory and on disk, and nothing goes that is not applied,
// or that a start has to read. Method: a raft storage with entries of given sizes, and a WAL that notes what is released.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { logBytesKept, logBytesMax } from '../cluster-limits.ts';
import { MemoryStorage } from '../raft/memory-storage.ts';
import { EMPTY_CONF_STATE, EntryType } from '../raft/types.ts';
import { LogRetention } from './log-retention.ts';
import type { MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';

const bytesMax = 1024;
const kept = (bytesMax * logBytesKept) / logBytesMax;

function make(heldIndex = Infinity) {
  const storage = new MemoryStorage();
  const raft = { appliedIndex: 0, status: () => ({ confState: EMPTY_CONF_STATE }) };
  const released: number[] = [];
  const wal = { release: (index: number): void => void released.push(index) };
  const parts = { storage, raft, wal, catchUpEntries: 50, logCompactionEntries: 100 };
  const log = { compactedLog: () => {} } as unknown as MemberLog;
  const retention = new LogRetention(parts as unknown as MemberParts, log, () => heldIndex, bytesMax);
  const append = (count: number, bytes: number): void => {
    for (let i = 0; i < count; i++) {
      const index = storage.lastIndex() + 1;
      storage.append([{ term: 1, index, type: EntryType.normal, data: Buffer.alloc(bytes) }]);
    }
  };
  return { storage, raft, retention, append, released };
}

test('small entries stay by their number', () => {
  const { storage, raft, retention, append } = make();
  append(151, 1);
  raft.appliedIndex = 151;
  retention.compact();
  assert.equal(storage.firstIndex(), 1, 'not for a few');
  append(1, 1);
  raft.appliedIndex = 152;
  retention.compact();
  assert.equal(storage.firstIndex(), 103);
});

test('large entries go by their bytes, those that are not applied never', () => {
  const { storage, raft, retention, append, released } = make(1);
  append(10, 200);
  retention.compact();
  assert.equal(storage.firstIndex(), 1, 'none is applied');
  raft.appliedIndex = 2;
  retention.compact();
  assert.equal(storage.firstIndex(), 3);
  raft.appliedIndex = 10;
  retention.compact();
  assert.ok(storage.bytes <= kept && storage.bytes > kept - 200, `${storage.bytes}`);
  const first = storage.firstIndex();
  append(1, 200);
  raft.appliedIndex = 11;
  retention.compact();
  assert.equal(storage.firstIndex(), first, 'many at a time');
  // On disk what is not durable elsewhere stays.
  retention.release(4);
  retention.release(11);
  assert.deepEqual(released, [4, first - 1]);
});

test('a WAL of small entries keeps those that followers may need', () => {
  const { raft, retention, append, released } = make();
  append(120, 1);
  raft.appliedIndex = 120;
  retention.release(110);
  assert.deepEqual(released, [60]);
});
