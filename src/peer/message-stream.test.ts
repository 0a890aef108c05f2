// Goal: the message stream is what etcd's messageEncoder writes, is read however it is cut, and takes neither more memory than arrives
// nor more than its bound. Method: bytes by hand, every cut of a short stream, random cuts of long ones, allocations counted.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteWriter } from '../base/byte-writer.ts';
import { peerAssemblyBytes, peerMessageBytesMax } from '../cluster-limits.ts';
import { SeededRandom } from '../io/random.ts';
import { type Message, MessageType, NONE, newMessage } from '../raft/types.ts';
import { appendFrameNumber, MessageStreamDecoder, MessageStreamEncoder, readFrameNumber } from './message-stream.ts';
import { appendEntry, encodeStream, randomCuts, randomRaftMessage, readStream } from './raft-message-fixture.ts';

const encoder = new MessageStreamEncoder();

function frame(length: number, content = Buffer.alloc(0)): Buffer {
  const out = new ByteWriter(8);
  appendFrameNumber(length, out);
  return Buffer.concat([out.bytes.subarray(0, out.length), content]);
}

/** A proposal with `byteCount` bytes of data. */
function proposal(byteCount: number): Message {
  const message = newMessage(MessageType.prop, 1n);
  message.from = 2n;
  message.entries = [appendEntry(0, 0, Buffer.alloc(byteCount, 'd'))];
  return message;
}

test('the bytes of a message and of a link heartbeat, which is passed over', () => {
  const answer = newMessage(MessageType.appResp, 2n);
  answer.index = 300;
  const out = new ByteWriter(8);
  encoder.heartbeat(out);
  encoder.encode(answer, out);
  encoder.heartbeat(out);
  const content = out.bytes.subarray(0, out.length);
  const heartbeat = '0000000000000002 0808';
  const expected = `${heartbeat} 0000000000000007 0804 1002 30ac02 ${heartbeat}`.replaceAll(' ', '');
  assert.equal(content.toString('hex'), expected);
  assert.deepEqual(readStream(new MessageStreamDecoder(), content), {
    messages: [answer],
    error: null,
    atBoundary: true,
  });
});

test('lengths of 64 bits', () => {
  for (const value of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 5, Number.MAX_SAFE_INTEGER]) {
    const content = frame(value);
    assert.equal(content.readBigUInt64BE(0), BigInt(value));
    assert.equal(readFrameNumber(content, 0), value);
  }
});

test('every cut of a stream, and a byte at a time', () => {
  const random = new SeededRandom(6);
  const messages = [
    randomRaftMessage(random),
    newMessage(MessageType.hup, NONE),
    proposal(40),
    randomRaftMessage(random),
  ];
  const content = encodeStream(encoder, messages);
  const boundaries = new Set([0]);
  for (const count of messages.keys()) boundaries.add(encodeStream(encoder, messages.slice(0, count + 1)).length);
  for (let cut = 0; cut <= content.length; cut++) {
    const whole = readStream(new MessageStreamDecoder(), content, [cut]);
    assert.deepEqual(whole, { messages, error: null, atBoundary: true }, `cut at ${cut}`);
    const part = readStream(new MessageStreamDecoder(), content.subarray(0, cut));
    assert.deepEqual(part.messages, messages.slice(0, part.messages.length));
    assert.equal(part.atBoundary, boundaries.has(cut), `ends at ${cut}`);
  }
  const bytewise = readStream(new MessageStreamDecoder(), content, [...content.keys()]);
  assert.deepEqual(bytewise, { messages, error: null, atBoundary: true });
});

test('random cuts of random streams', () => {
  const random = new SeededRandom(7);
  for (let i = 0; i < 500; i++) {
    const messages = Array.from({ length: random.below(8) }, () => randomRaftMessage(random));
    const content = encodeStream(encoder, messages);
    const read = readStream(new MessageStreamDecoder(), content, randomCuts(random, content.length));
    assert.deepEqual(read, { messages, error: null, atBoundary: true }, `stream ${i}`);
  }
});

test('a length beyond the bound ends the stream at once, whether it lies in a chunk or not', () => {
  const atBound = proposal(100);
  const content = encodeStream(encoder, [atBound]);
  const bound = content.length - 8;
  for (const cuts of [[], [3], [8], [20]]) {
    assert.deepEqual(readStream(new MessageStreamDecoder(bound), content, cuts).messages, [atBound]);
    const over = readStream(new MessageStreamDecoder(bound - 1), content, cuts);
    assert.deepEqual([over.messages, over.error], [[], `a raft message of ${bound} bytes is too long`]);
  }
  const length = readStream(new MessageStreamDecoder(), frame(peerMessageBytesMax + 1));
  assert.equal(length.error, `a raft message of ${peerMessageBytesMax + 1} bytes is too long`);
  const endless = Buffer.alloc(8, 0xff);
  assert.match(readStream(new MessageStreamDecoder(), endless).error!, /too long/);
});

test('a malformed message ends the stream, after those before it', () => {
  const good = proposal(3);
  const bad = Buffer.concat([encodeStream(encoder, [good]), frame(2, Buffer.from([0x08, 0x80])), frame(0)]);
  const decoder = new MessageStreamDecoder();
  const read = readStream(decoder, bad);
  assert.deepEqual(read, {
    messages: [good],
    error: 'a raft message of 2 bytes is malformed, or has a term or an index beyond 2^52',
    atBoundary: false,
  });
  assert.throws(() => decoder.push(Buffer.alloc(1), () => {}), /goes on after its error/);
});

test('memory is taken as bytes arrive, and none is kept beside them', (t) => {
  const sizes: number[] = [];
  const { allocUnsafeSlow } = Buffer;
  const message = proposal(5_000_000);
  const content = encodeStream(encoder, [message]);
  const parts = [content.subarray(0, 10), content.subarray(10, 3_000_000), content.subarray(3_000_000)].map((part) =>
    Buffer.from(new Uint8Array(part).buffer),
  );
  t.mock.method(Buffer, 'allocUnsafeSlow', (size: number) => {
    sizes.push(size);
    return allocUnsafeSlow(size);
  });
  const decoder = new MessageStreamDecoder();
  const messages: Message[] = [];
  for (const part of parts)
    assert.equal(
      decoder.push(part, (one) => messages.push(one)),
      null,
    );
  assert.deepEqual(messages, [message]);
  // The two bytes of the message in the first chunk; twice as much with the second; the whole.
  assert.deepEqual(sizes, [peerAssemblyBytes, 2 * peerAssemblyBytes, content.length - 8]);
  assert.equal(messages[0]!.entries[0]!.data.buffer.byteLength, content.length - 8);
});

test('a chunk is referred to, a small part of a large buffer copied', () => {
  const content = encodeStream(encoder, [proposal(100), proposal(100)]);
  const dataBuffer = (chunk: Buffer): ArrayBufferLike => {
    const messages: Message[] = [];
    assert.equal(
      new MessageStreamDecoder().push(chunk, (message) => messages.push(message)),
      null,
    );
    assert.equal(messages.length, 2);
    assert.equal(
      messages[0]!.entries[0]!.data.buffer,
      messages[1]!.entries[0]!.data.buffer,
      'one for all of the chunk',
    );
    return messages[0]!.entries[0]!.data.buffer;
  };
  for (const [room, isKept] of [
    [0, true],
    [content.length, true],
    [content.length + 1, false],
    [60_000, false],
  ] as const) {
    const large = Buffer.allocUnsafeSlow(content.length + room);
    content.copy(large, room);
    const buffer = dataBuffer(large.subarray(room));
    assert.equal(buffer === large.buffer, isKept, `${room} bytes of room`);
    if (!isKept) assert.equal(buffer.byteLength, content.length);
  }
});

test('a visitor may not push', () => {
  const decoder = new MessageStreamDecoder();
  const content = encodeStream(encoder, [proposal(1)]);
  assert.throws(() => decoder.push(content, () => void decoder.push(content, () => {})), /into its own stream/);
});
