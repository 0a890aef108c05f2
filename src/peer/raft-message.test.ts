// Goal: messages are written as raft.proto says and read from all that Go's unmarshaller takes; what raft can't take is refused.
// Method: bytes by hand, random messages there and back, every cut, each bound on both sides. raft-message.peer-test.ts asks Go.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { peerMessageEntriesMax, raftPositionMax } from '../cluster-limits.ts';
import { SeededRandom } from '../io/random.ts';
import { EntryType, type Message, MessageType, NO_BYTES, NONE, newMessage } from '../raft/types.ts';
import { decodeEntry, decodeMessage, encodedEntryBytes, isLinkHeartbeat, writeEntry } from './raft-message.ts';
import { encodeMessage, randomRaftMessage } from './raft-message-fixture.ts';

function bytes(hex: string): Buffer {
  return Buffer.from(hex.replaceAll(' ', ''), 'hex');
}

function read(content: Buffer): Message | null {
  return decodeMessage(content, 0, content.length);
}

/** A field after a MsgProp's type. */
function readProp(hex: string): Message | null {
  return read(bytes(`0802 ${hex}`));
}

test('the bytes of an append', () => {
  const message = newMessage(MessageType.app, 2n);
  message.from = 0xffffffffffffffffn;
  message.term = 300;
  message.logTerm = 3;
  message.index = 4;
  message.entries = [
    { term: 3, index: 5, type: EntryType.normal, data: Buffer.from('ab') },
    { term: 300, index: 6, type: EntryType.confChange, data: NO_BYTES },
  ];
  message.commit = raftPositionMax;
  const expected = bytes(
    '0803 1002 18ffffffffffffffffff01 20ac02 2803 3004' +
      '3a08 1003 1805 22026162 3a07 0801 10ac02 1806 408080808080808008',
  );
  assert.equal(encodeMessage(message).toString('hex'), expected.toString('hex'));
  assert.deepEqual(read(expected), message);
});

test('the bytes of a snapshot, of an answer and of a vote', () => {
  const snap = newMessage(MessageType.snap, 1n);
  const confState = {
    voters: [1n, 300n],
    learners: [3n],
    votersOutgoing: [4n],
    learnersNext: [5n],
    autoLeave: true,
  };
  snap.snapshot = { meta: { confState, index: 7, term: 8 }, data: Buffer.from('z') };
  const snapBytes = bytes('0807 1001 4a18 0a017a 1213 0a0d 0801 08ac02 1003 1804 2005 2801 1007 1808');
  assert.equal(encodeMessage(snap).toString('hex'), snapBytes.toString('hex'));
  assert.deepEqual(read(snapBytes), snap);

  const answer = newMessage(MessageType.appResp, NONE);
  answer.reject = true;
  answer.rejectHint = 9;
  answer.context = Buffer.from('c');
  answer.vote = 6n;
  const answerBytes = bytes('0804 5001 5809 620163 6806');
  assert.equal(encodeMessage(answer).toString('hex'), answerBytes.toString('hex'));
  assert.deepEqual(read(answerBytes), answer);
});

test('zero fields take no bytes, and none is a message of zeros', () => {
  const zeros = newMessage(MessageType.hup, NONE);
  assert.equal(encodeMessage(zeros).length, 0);
  assert.deepEqual(read(NO_BYTES), zeros);
});

test('random messages there and back, wherever they lie in a buffer', () => {
  const random = new SeededRandom(4);
  for (let i = 0; i < 3000; i++) {
    const message = randomRaftMessage(random);
    const content = encodeMessage(message);
    assert.deepEqual(read(content), message, `message ${i}`);
    const around = Buffer.concat([Buffer.alloc(random.below(9), 0xff), content, Buffer.alloc(9, 0x3a)]);
    const start = around.length - 9 - content.length;
    assert.deepEqual(decodeMessage(around, start, start + content.length), message, `message ${i} in a buffer`);
  }
});

test('a message that is cut is refused, or what its whole fields say', () => {
  const random = new SeededRandom(5);
  let refused = 0;
  for (let i = 0; i < 60; i++) {
    const content = encodeMessage(randomRaftMessage(random));
    for (let end = 0; end < content.length; end++) {
      const message = decodeMessage(content, 0, end);
      if (message === null) refused++;
      else assert.equal(encodeMessage(message).toString('hex'), content.subarray(0, end).toString('hex'));
    }
  }
  assert.ok(refused > 1000, `${refused} refused`);
});

test('entries refer to the buffer; empty ones to nothing', () => {
  const entry = { term: 1, index: 2, type: EntryType.confChangeV2, data: Buffer.from('data') };
  const content = Buffer.alloc(encodedEntryBytes(entry));
  assert.equal(writeEntry(entry, content, 0), content.length);
  assert.equal(content.toString('hex'), '080210011802220464617461');
  const again = decodeEntry(content, 0, content.length);
  assert.deepEqual(again, entry);
  assert.equal(again!.data.buffer, content.buffer);
  assert.equal(decodeEntry(bytes('10011802 2200'), 0, 6)!.data, NO_BYTES);
  for (let end = 1; end < content.length; end++) {
    const part = decodeEntry(content, 0, end);
    assert.equal(part === null, ![2, 4, 6].includes(end), `cut at ${end}`);
  }
});

test('read as Go does: repeated fields, packed ids, unknown fields, other wire types, any order', () => {
  assert.equal(readProp('2005 2006')!.term, 6, 'the last one counts');
  assert.equal(read(bytes('2005 0802'))!.type, MessageType.prop);
  const merged = readProp('4a06 1204 1003 1801 4a0b 0a0178 1206 0a02 0805 1004 4a06 1204 0a02 0806')!.snapshot!;
  assert.deepEqual(merged.meta, {
    confState: { voters: [5n, 6n], learners: [], votersOutgoing: [], learnersNext: [], autoLeave: false },
    index: 4,
    term: 1,
  });
  assert.equal(merged.data.toString(), 'x');
  const packed = readProp('4a0d 120b 0a07 0a0301ac02 1007 1001')!.snapshot!.meta.confState;
  assert.deepEqual([packed.voters, packed.learners], [[1n, 300n], [7n]]);
  // responses (14), a field of 2^28 and more, a group, fixed numbers; `to` as bytes.
  const unknown = '7202 0801 f8ffffff0f01 7b0801 7c 7d01020304 790102030405060708 12026162';
  assert.deepEqual(readProp(`${unknown} 1809`), { ...newMessage(MessageType.prop, NONE), from: 9n });
  assert.deepEqual(decodeEntry(bytes('2a0101 1101020304050607081001'), 0, 14)!.term, 1);
});

test('an empty snapshot, as members before 3.6 send it, is none', () => {
  assert.equal(readProp('4a06 1204 0a00 1000')!.snapshot, null);
  assert.equal(readProp('4a00')!.snapshot, null);
});

test('terms and indexes have a bound, far below what a number holds exactly', () => {
  const fields = ['20', '28', '30', '40', '58'];
  const inside: ((value: string) => string)[] = [
    ...fields.map((tag) => (value: string) => `${tag}${value}`),
    (value) => `3a09 10${value}`,
    (value) => `3a09 18${value}`,
    (value) => `4a0d 120b 1001 10${value}`,
    (value) => `4a0d 120b 1001 18${value}`,
  ];
  for (const field of inside) {
    assert.ok(readProp(field('8080808080808008')) !== null, `2^52 in ${field('')}`);
    // The same length: the next one, the last that is exact, and 2^53 + 1, which a number can't tell from the one before it.
    assert.equal(readProp(field('8180808080808008')), null, `2^52 + 1 in ${field('')}`);
    assert.equal(readProp(field('ffffffffffffff0f')), null, `2^53 - 1 in ${field('')}`);
    assert.equal(readProp(field('8180808080808010')), null, `2^53 + 1 in ${field('')}`);
  }
  assert.equal(readProp('10ffffffffffffffffff01 18ffffffffffffffffff01 68ffffffffffffffffff01')!.vote, 2n ** 64n - 1n);
});

test('unknown types of messages and entries are refused', () => {
  assert.equal(read(bytes('0817'))!.type, MessageType.forgetLeader);
  assert.equal(read(bytes('0818')), null);
  assert.equal(read(bytes('08ffffffffffffffffff01')), null);
  assert.equal(readProp('3a02 0802')!.entries[0]!.type, EntryType.confChangeV2);
  assert.equal(readProp('3a02 0803'), null);
  assert.equal(readProp('3a0b 08ffffffffffffffffff01'), null);
});

test("an append's entries follow its index; a proposal's have none", () => {
  assert.equal(read(bytes('0803 3004 3a021805 3a021806'))!.entries.length, 2);
  assert.equal(read(bytes('3a021805 3a021806 3004 0803'))!.entries.length, 2, 'in whatever order');
  assert.equal(read(bytes('0803 3004 3a021804')), null);
  assert.equal(read(bytes('0803 3004 3a021805 3a021807')), null);
  assert.equal(readProp('3a02 2200 3a02 2200')!.entries.length, 2);
});

test('the number of entries is bounded', () => {
  const empty = (count: number): Buffer => Buffer.concat([bytes('0802'), Buffer.alloc(count * 2, bytes('3a00'))]);
  assert.equal(read(empty(peerMessageEntriesMax))!.entries.length, peerMessageEntriesMax);
  assert.equal(read(empty(peerMessageEntriesMax + 1)), null);
});

test('malformed inside of inner messages is malformed', () => {
  for (const hex of [
    '3a02 1080',
    '3a02 2201',
    '3a02 10',
    '4a03 120108',
    '4a04 12021080',
    '4a06 12040a02 0880',
    '4a06 12040a02 0a01',
  ]) {
    assert.equal(readProp(hex), null, hex);
  }
  // What follows does not make it good.
  assert.equal(readProp('3a02 2201 2005'), null);
  assert.equal(readProp('4a05 1203 0a0508 2005'), null);
  for (const hex of ['00', '07', '0b', '0c', '3c']) assert.equal(readProp(hex), null, hex);
});

test('a link heartbeat is a heartbeat between nobody', () => {
  const heartbeat = newMessage(MessageType.heartbeat, NONE);
  assert.ok(isLinkHeartbeat(heartbeat));
  assert.ok(!isLinkHeartbeat({ ...heartbeat, from: 1n }));
  assert.ok(!isLinkHeartbeat({ ...heartbeat, to: 1n }));
  assert.ok(!isLinkHeartbeat(newMessage(MessageType.app, NONE)));
});
