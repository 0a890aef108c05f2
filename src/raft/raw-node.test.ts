// Goal: the surface that a driver sees: results as values, lists that are its own, input that can't be trusted, bounds.
// What groups of members do is in testdata/ and in the simulation.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { raftReadsPendingMax } from '../limits.ts';
import { ProposeStatus } from './propose.ts';
import { RawNode } from './raw-node.ts';
import { entries, handleReady, settle, testConfig, voterStorage } from './testing.ts';
import {
  ConfChangeTransition,
  ConfChangeType,
  confChangeAsV2,
  EntryType,
  MessageType,
  NO_BYTES,
  newMessage,
  RaftState,
} from './types.ts';

function newLeader(voters: bigint[], changes: Parameters<typeof testConfig>[1] = {}) {
  const storage = voterStorage(...voters);
  const node = new RawNode(testConfig(storage, changes));
  node.campaign();
  handleReady(node, storage);
  for (const voter of voters.slice(1)) {
    const vote = newMessage(MessageType.voteResp, 1n);
    vote.from = voter;
    vote.term = 1;
    node.step(vote);
  }
  assert.equal(node.isLeader, true);
  settle(node, storage);
  return { node, storage };
}

test('a single voter: accepted with index and term, committed when persisted, no messages', () => {
  const { node, storage } = newLeader([1n]);
  const result = node.propose(Buffer.from('a'));
  assert.deepEqual({ ...result }, { status: ProposeStatus.accepted, index: 2, term: 1, reason: 'none' });
  assert.equal(node.proposeBatch([Buffer.from('b'), Buffer.from('c')]).index, 3);
  const ready = node.ready();
  assert.equal(ready.entries.length, 3);
  assert.equal(ready.mustSync, true);
  assert.deepEqual([ready.messages, ready.messagesAfterPersist, ready.committedEntries], [[], [], []]);
  assert.equal(node.committedIndex, 1);
  assert.equal(node.hasReady(), false, 'nothing to do until it is durable');
  storage.append(ready.entries);
  node.persisted(ready.sequence);
  assert.equal(node.committedIndex, 4);
  const next = node.ready();
  assert.deepEqual(
    next.committedEntries.map((one) => one.data.toString()),
    ['a', 'b', 'c'],
  );
  assert.equal(next.committedEntries[0], ready.entries[0], 'the same entry, not a copy');
  assert.deepEqual(next.hardState, { term: 1, vote: 1n, commit: 4 });
  assert.equal(next.mustSync, false, 'a commit index needs no sync');
});

test('thousands of entries in one Ready', () => {
  const { node, storage } = newLeader([1n]);
  const data = Buffer.alloc(100);
  for (let i = 0; i < 5000; i++) node.propose(data);
  const ready = handleReady(node, storage);
  assert.equal(ready.entries.length, 5000);
  assert.equal(node.committedIndex, 5001);
  settle(node, storage);
  assert.equal(node.appliedIndex, 5001);
});

test('a Ready never changes after it was taken', () => {
  const { node } = newLeader([1n, 2n]);
  const ready = node.ready();
  assert.deepEqual([ready.messages, ready.messagesAfterPersist, ready.readStates], [[], [], []]);
  node.tick();
  const app = newMessage(MessageType.app, 1n);
  app.from = 2n;
  app.term = 9;
  node.step(app);
  assert.deepEqual([ready.messages, ready.messagesAfterPersist, ready.readStates], [[], [], []]);
  assert.equal(node.hasReady(), true);
});

test('proposals without a leader are dropped, not thrown', () => {
  const node = new RawNode(testConfig(voterStorage(1n, 2n)));
  assert.deepEqual(
    { ...node.propose(NO_BYTES) },
    { status: ProposeStatus.dropped, index: 0, term: 0, reason: 'no leader' },
  );
  assert.equal(node.readIndex(Buffer.from('r')), false);
  node.transferLeader(2n);
  assert.equal(node.hasReady(), false);
});

test('messages that no peer may send are ignored', () => {
  const { node } = newLeader([1n, 2n]);
  const before = node.status();
  for (let type = 0; type <= 30; type++) {
    for (const from of [0n, 9n]) {
      const message = newMessage(type as MessageType, 1n);
      message.from = from;
      // Without a term: only what is passed on may come so. And it has no entries, so there is nothing to do.
      node.step(message);
      const isLocal = [0, 1, 10, 11, 12, 19, 20, 21, 22].includes(type);
      const isResponse = [4, 6, 9, 16, 18].includes(type);
      if (isLocal || isResponse) node.step({ ...message, term: 77 });
    }
  }
  assert.deepEqual(node.status(), before);
  assert.equal(node.hasReady(), false);
});

test('a malformed configuration change of a follower becomes an empty entry', () => {
  const { node, storage } = newLeader([1n, 2n], { decodeConfChange: () => null });
  assert.equal(node.proposeConfChange(EntryType.confChange, Buffer.from('?')).reason, 'malformed configuration change');
  const message = newMessage(MessageType.prop, 1n);
  message.from = 2n;
  message.entries = [{ term: 0, index: 0, type: EntryType.confChange, data: Buffer.from('?') }];
  node.step(message);
  const [appended] = handleReady(node, storage).entries;
  assert.deepEqual([appended!.type, appended!.data.length], [EntryType.normal, 0]);
});

test('reads beyond the bound are refused', () => {
  const { node } = newLeader([1n, 2n]);
  for (let i = 0; i < raftReadsPendingMax; i++) assert.equal(node.readIndex(Buffer.from('r')), true);
  assert.equal(node.readIndex(Buffer.from('r')), false);
});

test('a heartbeat answer with a position of the future confirms nothing', () => {
  const { node } = newLeader([1n, 2n, 3n]);
  const acknowledge = (from: bigint, position: number): void => {
    const message = newMessage(MessageType.heartbeatResp, 1n);
    message.from = from;
    message.term = 1;
    message.context = Buffer.alloc(8);
    message.context.writeUInt32LE(position, 0);
    node.step(message);
  };
  // The leader has committed nothing yet in its term: 2 confirms its first entry.
  const confirmed = newMessage(MessageType.appResp, 1n);
  confirmed.from = 2n;
  confirmed.term = 1;
  confirmed.index = 1;
  node.step(confirmed);
  assert.equal(node.readIndex(Buffer.from('r1')), true);
  acknowledge(2n, 1000);
  assert.deepEqual(node.ready().readStates, []);
  assert.equal(node.readIndex(Buffer.from('r2')), true);
  acknowledge(3n, 1);
  assert.deepEqual(
    node.ready().readStates.map((one) => one.context.toString()),
    ['r1'],
  );
  acknowledge(2n, 2);
  assert.deepEqual(
    node.ready().readStates.map((one) => one.context.toString()),
    ['r2'],
  );
});

test('a member whose log was lost stops instead of answering', () => {
  const node = new RawNode(testConfig(voterStorage(1n, 2n)));
  const heartbeat = newMessage(MessageType.heartbeat, 1n);
  heartbeat.from = 2n;
  heartbeat.term = 1;
  heartbeat.commit = 5;
  assert.throws(() => node.step(heartbeat), { name: 'FatalError' });
});

test('a start after a torn write: entries of a term whose hard state is missing', () => {
  const storage = voterStorage(1n, 2n, 3n);
  storage.append(entries(1, 1, 3));
  storage.setHardState({ term: 2, vote: 2n, commit: 1 });
  const node = new RawNode(testConfig(storage));
  assert.deepEqual([node.term, node.status().vote], [3, 0n]);
  const ready = node.ready();
  assert.deepEqual(ready.hardState, { term: 3, vote: 0n, commit: 1 });
});

test('a start with a state machine that is ahead of the stored commit index', () => {
  const storage = voterStorage(1n);
  storage.append(entries(1, 1, 1, 1));
  storage.setHardState({ term: 1, vote: 1n, commit: 1 });
  const node = new RawNode(testConfig(storage, { applied: 2 }));
  assert.deepEqual([node.committedIndex, node.appliedIndex], [2, 2]);
  assert.throws(() => new RawNode(testConfig(storage, { applied: 4 })), /beyond the log/);
});

test('impossible settings are refused', () => {
  const storage = voterStorage(1n);
  for (const changes of [
    { id: 0n },
    { heartbeatTick: 0 },
    { electionTick: 1 },
    { maxInflightMessages: 0 },
    { maxInflightBytes: 1 },
    { maxUncommittedEntriesSize: 0 },
    { maxCommittedSizePerReady: 0 },
    { readOnlyOption: 1 as const },
  ]) {
    assert.throws(() => new RawNode(testConfig(storage, changes)), { name: 'AssertionError' });
  }
});

test('election timeouts lie in [electionTick, 2 * electionTick - 1]', () => {
  for (const drawn of [0, 9]) {
    const node = new RawNode(testConfig(voterStorage(1n, 2n), { random: () => drawn }));
    let ticks = 0;
    while (node.state === RaftState.follower) {
      node.tick();
      ticks++;
    }
    assert.equal(ticks, 10 + drawn);
  }
});

test('persisted is cumulative, ignores 0 and refuses what was never given', () => {
  const { node, storage } = newLeader([1n]);
  node.persisted(0);
  node.propose(Buffer.from('a'));
  const first = node.ready();
  node.propose(Buffer.from('b'));
  const second = node.ready();
  assert.ok(second.sequence > first.sequence);
  storage.append(first.entries);
  storage.append(second.entries);
  node.persisted(second.sequence);
  assert.equal(node.committedIndex, 3);
  node.persisted(first.sequence);
  assert.throws(() => node.persisted(second.sequence + 1), /never given/);
});

test('ConfChange and ConfChangeV2 say the same', () => {
  const change = { type: ConfChangeType.addNode, nodeId: 2n, context: Buffer.from('c') };
  assert.deepEqual(confChangeAsV2(change), {
    transition: ConfChangeTransition.auto,
    changes: [{ type: ConfChangeType.addNode, nodeId: 2n }],
    context: change.context,
  });
});

test('a leader passes over an answer that confirms what it does not have', () => {
  const { node, storage } = newLeader([1n, 2n, 3n]);
  const answer = newMessage(MessageType.appResp, 1n);
  Object.assign(answer, { from: 2n, term: node.term, index: node.lastIndex + 1 });
  node.step(answer);
  node.propose(Buffer.from('a'));
  settle(node, storage);
  const [, peer] = node.status().progress;
  assert.deepEqual([peer!.id, peer!.match, peer!.pendingSnapshot], [2n, 0, 0]);
  node.step({ ...answer, index: node.lastIndex });
  assert.equal(node.committedIndex, node.lastIndex);
  // Of a later term it is news whatever its index.
  node.step({ ...answer, term: node.term + 1, index: node.lastIndex + 1 });
  assert.equal(node.isLeader, false);
});

test('a snapshot whose configuration is impossible is passed over', () => {
  const storage = voterStorage(1n, 2n);
  const node = new RawNode(testConfig(storage));
  const message = newMessage(MessageType.snap, 1n);
  const confState = { voters: [1n, 2n], learners: [1n], votersOutgoing: [], learnersNext: [], autoLeave: false };
  const snapshot = { meta: { index: 5, term: 1, confState }, data: NO_BYTES };
  Object.assign(message, { from: 2n, term: 1, snapshot });
  node.step(message);
  assert.deepEqual(
    settle(node, storage).map(({ type, index }) => [type, index]),
    [[MessageType.appResp, 0]],
  );
  Object.assign(snapshot.meta, { confState: { ...confState, learners: [] } });
  node.step(message);
  assert.equal(handleReady(node, storage).snapshot?.meta.index, 5);
});
