// Goal: what followers propose while leadership goes from one member to another reaches the new leader once, and is not kept without
// bound. Method: a stand-in for raft that says who leads and counts what it is stepped.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { heldProposalBytesMax } from '../cluster-limits.ts';
import type { RawNode } from '../raft/raw-node.ts';
import { EntryType, type Message, MessageType, NONE, newMessage } from '../raft/types.ts';
import { HeldProposals } from './held-proposals.ts';

class FakeRaft {
  lead = 1n;
  leadTransferee = NONE;
  isLeaving = false;
  readonly stepped: Message[] = [];
  step(message: Message): void {
    this.stepped.push(message);
  }
}

function proposal(bytes = 10): Message {
  const message = newMessage(MessageType.prop, 1n);
  message.entries = [{ term: 0, index: 0, type: EntryType.normal, data: Buffer.alloc(bytes) }];
  return message;
}

function make(): { raft: FakeRaft; held: HeldProposals } {
  const raft = new FakeRaft();
  return { raft, held: new HeldProposals(raft as unknown as RawNode, 1000, () => raft.isLeaving) };
}

test('a leader takes what comes, and messages of other kinds are never held', () => {
  const { raft, held } = make();
  assert.equal(held.takes(proposal(), 0), false);
  raft.leadTransferee = 2n;
  assert.equal(held.takes(newMessage(MessageType.heartbeat, 1n), 0), false);
});

test('held while leadership is handed over, given to raft once when the next leader is known', () => {
  const { raft, held } = make();
  raft.leadTransferee = 2n;
  const messages = [proposal(), proposal()];
  for (const message of messages) assert.ok(held.takes(message, 0));
  assert.equal(held.release(1), false, 'the transfer goes on');
  raft.lead = NONE;
  raft.leadTransferee = NONE;
  assert.equal(held.release(2), false, 'nobody leads');
  raft.lead = 2n;
  assert.ok(held.release(3));
  assert.deepEqual(raft.stepped, messages);
  assert.equal(held.release(4), false);
  assert.equal(raft.stepped.length, 2);
});

test('a transfer that comes to nothing: they are the old leader’s after all', () => {
  const { raft, held } = make();
  raft.leadTransferee = 2n;
  assert.ok(held.takes(proposal(), 0));
  raft.leadTransferee = NONE;
  assert.ok(held.release(1));
  assert.equal(raft.stepped.length, 1);
});

test('a transfer that comes to nothing at a leader that is being removed: they wait for the next one', () => {
  const { raft, held } = make();
  raft.isLeaving = true;
  raft.leadTransferee = 2n;
  assert.ok(held.takes(proposal(), 0));
  raft.leadTransferee = NONE;
  assert.equal(held.release(1), false);
  assert.ok(held.takes(proposal(), 2));
  raft.isLeaving = false;
  raft.lead = 2n;
  assert.ok(held.release(3));
  assert.equal(raft.stepped.length, 2);
});

test('dropped after their time, and refused beyond the bound', () => {
  const { raft, held } = make();
  raft.lead = NONE;
  assert.ok(held.takes(proposal(), 0));
  assert.equal(held.release(1000), false);
  assert.equal(held.release(1001), false);
  raft.lead = 2n;
  assert.equal(held.release(1002), false);
  assert.equal(raft.stepped.length, 0);
  raft.lead = NONE;
  assert.ok(held.takes(proposal(heldProposalBytesMax), 2000));
  assert.equal(held.takes(proposal(1), 2000), false);
});
