// Goal: the append stream is etcd's msgappv2, byte for byte, read however it is cut, with every bound. Method: bytes worked out from the
// format that msgappv2_codec.go describes (its codec is not exported), every cut of a short stream, random sequences of appends, and
// each malformed part.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SplicedWriter } from '../base/spliced-writer.ts';
import { peerMessageBytesMax, peerMessageEntriesMax, peerSpliceBytesMin } from '../cluster-limits.ts';
import { SeededRandom } from '../io/random.ts';
import { type Entry, type Message, MessageType, newMessage } from '../raft/types.ts';
import { AppendStreamDecoder, AppendStreamEncoder } from './append-stream.ts';
import {
  appendEntry,
  encodeStream,
  randomAppends,
  randomCuts,
  readStream,
  type StreamRead,
} from './raft-message-fixture.ts';

const LOCAL = 2n;
const REMOTE = 1n;

function append(term: number, logTerm: number, index: number, entries: readonly Entry[], commit: number): Message {
  const message = newMessage(MessageType.app, LOCAL);
  message.from = REMOTE;
  message.term = term;
  message.logTerm = logTerm;
  message.index = index;
  message.entries = entries;
  message.commit = commit;
  return message;
}

function bytes(...parts: readonly string[]): Buffer {
  return Buffer.from(parts.join('').replaceAll(' ', ''), 'hex');
}

/** 8 bytes. */
function number(value: number): string {
  return value.toString(16).padStart(16, '0');
}

function readAll(content: Buffer, cuts: readonly number[] = [], bytesMax?: number): StreamRead {
  return readStream(new AppendStreamDecoder(LOCAL, REMOTE, bytesMax), content, cuts);
}

const data = Buffer.from('ab');

/** A leader's first appends of terms 3 and 5, with what follows them, a lost one and one sent again. */
const story: readonly (readonly [Message, string])[] = [
  [
    append(3, 2, 6, [appendEntry(3, 7, data)], 5),
    `02 ${number(24)} 0803 1002 1801 2003 2802 3006 3a08 1003 1807 22026162 4005`,
  ],
  [append(3, 3, 7, [], 6), `01 ${number(0)} ${number(6)}`],
  [
    append(3, 3, 7, [appendEntry(3, 8, data), { ...appendEntry(3, 9, Buffer.alloc(0)), type: 1 }], 7),
    `01 ${number(2)} ${number(8)} 1003 1808 22026162 ${number(6)} 0801 1003 1809 ${number(7)}`,
  ],
  // Sent again: the position goes back.
  [append(3, 3, 8, [], 8), `02 ${number(14)} 0803 1002 1801 2003 2803 3008 4008`],
  [append(3, 3, 8, [appendEntry(3, 9, data)], 8), `01 ${number(1)} ${number(8)} 1003 1809 22026162 ${number(8)}`],
  // Another leader's term, but the log ends in the old one: the next entries are of the new term, and still a message at first.
  [append(5, 3, 9, [], 8), `02 ${number(14)} 0803 1002 1801 2005 2803 3009 4008`],
  [
    append(5, 3, 9, [appendEntry(5, 10, data)], 2 ** 32),
    `02 ${number(28)} 0803 1002 1801 2005 2803 3009 3a08 1005 180a 22026162 408080808010`,
  ],
  [
    append(5, 5, 10, [appendEntry(5, 11, data)], 2 ** 32),
    `01 ${number(1)} ${number(8)} 1005 180b 22026162 ${number(2 ** 32)}`,
  ],
  // 12 was lost.
  [append(5, 5, 12, [], 12), `02 ${number(14)} 0803 1002 1801 2005 2805 300c 400c`],
];
const storyMessages = story.map(([message]) => message);
const storyBytes = bytes(...story.map(([, hex]) => hex));

test('the bytes of each append', () => {
  const encoder = new AppendStreamEncoder();
  for (const [i, [message, hex]] of story.entries()) {
    assert.equal(encodeStream(encoder, [message]).toString('hex'), bytes(hex).toString('hex'), `append ${i}`);
  }
  assert.deepEqual(readAll(storyBytes), { messages: storyMessages, error: null, atBoundary: true });
});

test('a connection begins at nothing', () => {
  const [message, hex] = story[2]!;
  const first = encodeStream(new AppendStreamEncoder(), [message]);
  assert.equal(first[0], 2, 'what followed on the connection before goes as a message');
  assert.notEqual(first.toString('hex'), bytes(hex).toString('hex'));
  assert.deepEqual(readAll(first).messages, [message]);
});

test('a link heartbeat is one byte, anywhere between frames, and moves nothing', () => {
  const encoder = new AppendStreamEncoder();
  const out = new SplicedWriter(8);
  for (const message of storyMessages) {
    encoder.heartbeat(out);
    encoder.encode(message, out);
  }
  encoder.heartbeat(out);
  const content = out.bytes.subarray(0, out.length);
  assert.equal(content.toString('hex'), bytes(...story.map(([, hex]) => `00${hex}`), '00').toString('hex'));
  assert.deepEqual(readAll(content), { messages: storyMessages, error: null, atBoundary: true });
});

test('large entries are not copied, and stand where they would', () => {
  const large = Buffer.alloc(peerSpliceBytesMin, 'x');
  const small = large.subarray(1);
  const entries = [large, small, large].map((of, i) => appendEntry(3, 8 + i, of));
  const messages = [append(3, 3, 7, [], 7), append(3, 3, 7, entries, 8)];
  const encoder = new AppendStreamEncoder();
  const out = new SplicedWriter(8);
  for (const message of messages) encoder.encode(message, out);
  assert.deepEqual(out.parts, [large, large]);
  assert.ok(out.parts.every((part) => part === large));
  assert.deepEqual(readAll(Buffer.concat(out.pieces(0))), { messages, error: null, atBoundary: true });
});

test('every cut of a stream, and a byte at a time', () => {
  let end = 0;
  const boundaries = new Set([0, ...story.map(([, hex]) => (end += bytes(hex).length))]);
  for (let cut = 0; cut <= storyBytes.length; cut++) {
    const whole = readAll(storyBytes, [cut]);
    assert.deepEqual(whole, { messages: storyMessages, error: null, atBoundary: true }, `cut at ${cut}`);
    const part = readAll(storyBytes.subarray(0, cut));
    assert.deepEqual(part.messages, storyMessages.slice(0, part.messages.length));
    assert.equal(part.atBoundary, boundaries.has(cut), `ends at ${cut}`);
  }
  const bytewise = readAll(storyBytes, [...storyBytes.keys()]);
  assert.deepEqual(bytewise, { messages: storyMessages, error: null, atBoundary: true });
});

test('random appends, cut at random', () => {
  const random = new SeededRandom(8);
  let entriesFrames = 0;
  let messageFrames = 0;
  for (let i = 0; i < 1000; i++) {
    const messages = randomAppends(random, LOCAL, REMOTE);
    const encoder = new AppendStreamEncoder();
    const frames = messages.map((message) => encodeStream(encoder, [message]));
    for (const frame of frames) {
      if (frame[0] === 1) entriesFrames++;
      else messageFrames++;
    }
    const content = Buffer.concat(frames);
    const read = readAll(content, randomCuts(random, content.length));
    assert.deepEqual(read, { messages, error: null, atBoundary: true }, `stream ${i}`);
  }
  assert.ok(entriesFrames > 1000 && messageFrames > 1000, `${entriesFrames} and ${messageFrames}`);
});

test('what is malformed ends the stream, after the appends before it', () => {
  const start = story[0]![1];
  const entry = `${number(8)} 1003 1808 22026162`;
  const cases: readonly (readonly [string, string])[] = [
    ['03', 'frame of the unknown kind 3 in an append stream'],
    ['ff', 'frame of the unknown kind 255 in an append stream'],
    [`02 ${number(2)} 0880`, 'a raft message of 2 bytes is malformed, or has a term or an index beyond 2^52'],
    [`02 ${number(peerMessageBytesMax + 1)}`, `a raft message of ${peerMessageBytesMax + 1} bytes is too long`],
    [`01 ${number(peerMessageEntriesMax + 1)}`, `an append of ${peerMessageEntriesMax + 1} entries is too long`],
    [
      `01 ${number(1)} ${number(peerMessageBytesMax + 1)}`,
      `a raft message of ${peerMessageBytesMax + 1} bytes is too long`,
    ],
    [
      `01 ${number(1)} ${number(2)} 1880`,
      'a raft entry of 2 bytes is malformed, or has a term or an index beyond 2^52',
    ],
    [`01 ${number(1)} ${number(4)} 10031807`, 'entry 7 in an append stream where entry 8 is due'],
    [`01 ${number(2)} ${entry} ${entry}`, 'entry 8 in an append stream where entry 9 is due'],
    [`01 ${number(1)} ${number(0)}`, 'entry 0 in an append stream where entry 8 is due'],
    [`01 ${number(0)} ${number(2 ** 52 + 1)}`, `commit index ${2 ** 52 + 1} in an append stream`],
    [`01 ${number(0)} ${number(2 ** 53)}`, `commit index ${2 ** 53} in an append stream`],
  ];
  for (const [hex, error] of cases) {
    const content = bytes(start, hex);
    for (const cuts of [[], [...content.keys()]]) {
      const read = readAll(content, cuts);
      assert.deepEqual(read, { messages: [story[0]![0]], error, atBoundary: false }, hex);
    }
  }
});

test('the bounds hold for all entries of an append together', () => {
  const content = bytes(story[0]![1], story[2]![1]);
  // The message takes 24, the entries 8 and 6.
  assert.equal(readAll(content, [], 24).error, null);
  assert.equal(readAll(content, [], 23).error, 'a raft message of 24 bytes is too long');
  const entries = bytes(`01 ${number(3)}`, ...[1, 2, 3].map((index) => `${number(4)} 1000 180${index}`), number(1));
  assert.equal(readAll(entries, [], 12).messages[0]!.entries.length, 3);
  assert.equal(readAll(entries, [], 11).error, 'a raft message of 12 bytes is too long');
});

test('the largest number of entries is taken', () => {
  const entries = Array.from({ length: peerMessageEntriesMax }, (_, i) => appendEntry(1, i + 2, Buffer.alloc(0)));
  const messages = [append(1, 1, 1, [], 0), append(1, 1, 1, entries, 1)];
  const read = readAll(encodeStream(new AppendStreamEncoder(), messages), [10_000, 2_000_003]);
  assert.equal(read.error, null);
  assert.equal(read.messages[1]!.entries.length, peerMessageEntriesMax);
  assert.equal(read.messages[1]!.entries.at(-1)!.index, peerMessageEntriesMax + 1);
});

test('entries refer to their chunk; only those that are cut, or in a small part of a buffer, are copied', () => {
  const messages = [
    append(1, 1, 1, [], 0),
    append(
      1,
      1,
      1,
      [2, 3, 4].map((i) => appendEntry(1, i, Buffer.alloc(50, i))),
      1,
    ),
  ];
  const content = encodeStream(new AppendStreamEncoder(), messages);
  const read = (chunks: readonly Buffer[]): readonly Entry[] => {
    const decoder = new AppendStreamDecoder(LOCAL, REMOTE);
    const got: Message[] = [];
    for (const chunk of chunks)
      assert.equal(
        decoder.push(chunk, (message) => got.push(message)),
        null,
      );
    assert.deepEqual(got, messages);
    return got[1]!.entries;
  };
  const own = (from: number, to: number): Buffer => Buffer.from(new Uint8Array(content.subarray(from, to)).buffer);
  const cut = content.length - 90;
  const chunks = [own(0, cut), own(cut, content.length)];
  const entries = read(chunks);
  assert.equal(entries[0]!.data.buffer, chunks[0]!.buffer);
  assert.equal(entries[1]!.data.buffer.byteLength, 56, 'the entry alone');
  assert.equal(entries[2]!.data.buffer, chunks[1]!.buffer);
  const slab = Buffer.concat([content, Buffer.alloc(content.length + 1)]);
  const copied = read([Buffer.from(new Uint8Array(slab).buffer).subarray(0, content.length)]);
  for (const entry of copied) assert.equal(entry.data.buffer.byteLength, content.length);
});
