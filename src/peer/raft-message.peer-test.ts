// Goal: a Go member reads our messages as we mean them, we read Go's as it means them, and both agree on what is malformed. Method:
// the process keelson-raft (test-e2e/peers/build.sh tools) reads random messages of ours, gives their text and writes them again:
// the text and the bytes must be ours. It writes messages of a text, with pointers to zeros where etcd's code has them: we must read
// the same text. Of harmed bytes both must read the same; we alone may refuse what raft-message.ts says, and Go alone what is malformed
// in `responses`.

import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { raftPositionMax } from '../cluster-limits.ts';
import { SeededRandom } from '../io/random.ts';
import { harm } from '../proto/message.fuzz.ts';
import { Reader, WireType } from '../proto/wire.ts';
import type { Message } from '../raft/types.ts';
import { RaftEtcd } from '../testing/raft-etcd.ts';
import { messageText } from '../testing/raft-text.ts';
import { decodeMessage } from './raft-message.ts';
import { encodeMessage, randomRaftMessage } from './raft-message-fixture.ts';

const MESSAGES = 5000;
const seed = Number(process.env['WSEED'] ?? randomInt(1, 2 ** 31));

async function ask(commands: readonly string[]): Promise<readonly string[]> {
  const etcd = new RaftEtcd('plain');
  try {
    return await etcd.exchange(commands);
  } finally {
    etcd.close();
  }
}

function randomMessages(): Message[] {
  const random = new SeededRandom(seed);
  return Array.from({ length: MESSAGES }, () => randomRaftMessage(random));
}

test(`Go reads and writes our bytes (seed ${seed})`, async () => {
  const messages = randomMessages();
  const encoded = messages.map((message) => encodeMessage(message).toString('hex'));
  const answers = await ask(encoded.map((hex) => `0 decode 0 ${hex}`));
  for (const [i, message] of messages.entries()) {
    assert.equal(answers[i], `${encoded[i]} ${messageText(message)}`, `message ${i}`);
  }
});

test(`we read what Go writes (seed ${seed})`, async () => {
  const messages = randomMessages();
  const answers = await ask(messages.map((message) => `0 encode 0 ${messageText(message)}`));
  let withZeros = 0;
  for (const [i, message] of messages.entries()) {
    const bytes = Buffer.from(answers[i]!, 'hex');
    const read = decodeMessage(bytes, 0, bytes.length);
    assert.deepEqual(read, message, `message ${i}`);
    if (bytes.length > encodeMessage(message).length) withZeros++;
  }
  assert.ok(withZeros > MESSAGES / 10, `${withZeros} messages with zeros`);
});

/** Where a message has its terms and indexes, its enum (field 1) and messages with more of them. */
interface Shape {
  readonly counts: readonly number[];
  readonly kindMax?: number;
  readonly inner?: Readonly<Record<number, Shape>>;
}

const SHAPE: Shape = {
  counts: [4, 5, 6, 8, 11],
  kindMax: 23,
  inner: { 7: { counts: [2, 3], kindMax: 2 }, 9: { counts: [], inner: { 2: { counts: [2, 3] } } } },
};

/** Why we may refuse what Go reads: a number or a type, also in a field that a later one replaces. */
function refusedField(bytes: Buffer, shape: Shape): string | null {
  const reader = new Reader();
  reader.reset(bytes, 0, bytes.length);
  while (reader.readTag()) {
    const { fieldNumber, wireType } = reader;
    const inner = shape.inner?.[fieldNumber];
    if (wireType === WireType.bytes && inner !== undefined) {
      reader.readBytes();
      const reason = refusedField(bytes.subarray(reader.bytesStart, reader.bytesEnd), inner);
      if (reason !== null) return reason;
    } else if (wireType === WireType.varint && shape.counts.includes(fieldNumber)) {
      if (reader.readUint64() > BigInt(raftPositionMax)) return 'beyond the bound';
    } else if (wireType === WireType.varint && fieldNumber === 1 && shape.kindMax !== undefined) {
      const kind = reader.readEnum();
      if (kind < 0 || kind > shape.kindMax) return 'unknown type';
    } else reader.skip();
  }
  return null;
}

/** `responses`, which Go reads and we pass over: their content may be malformed. */
function hasResponses(bytes: Buffer): boolean {
  const reader = new Reader();
  reader.reset(bytes, 0, bytes.length);
  while (reader.readTag()) {
    if (reader.fieldNumber === 14 && reader.wireType === WireType.bytes) return true;
    reader.skip();
  }
  return false;
}

function reasonToRefuse(bytes: Buffer, text: string): string | null {
  const entries = [...text.matchAll(/(?<=entries=\[.*)\d+\/(\d+)\/-?\d+\//g)];
  const index = Number(/ index=(\d+)/.exec(text)?.[1] ?? 0);
  const isGapless = entries.every((entry, i) => Number(entry[1]) === index + 1 + i);
  return text.startsWith('app ') && !isGapless ? 'entries that do not follow' : refusedField(bytes, SHAPE);
}

test(`harmed bytes mean the same to both (seed ${seed})`, async (t) => {
  const random = new SeededRandom(seed);
  const harmed = randomMessages().map((message) => harm(encodeMessage(message), random));
  const answers = await ask(harmed.map((bytes) => `0 decode 0 ${bytes.toString('hex')}`));
  const counts: Record<string, number> = {};
  const count = (name: string): void => {
    counts[name] = (counts[name] ?? 0) + 1;
  };
  for (const [i, bytes] of harmed.entries()) {
    const message = decodeMessage(bytes, 0, bytes.length);
    // A snapshot without an index is none to us, and to raft.
    const text = answers[i]!.replace(/^[0-9a-f]* /, '').replace(/ snapshot=\d+\/0\/.*$/, '');
    if (message !== null && text === 'malformed' && hasResponses(bytes)) count('malformed responses');
    else if (message !== null) {
      assert.equal(text, messageText(message), `message ${i}: ${bytes.toString('hex')}`);
      count('read');
    } else if (text === 'malformed') count('malformed');
    else {
      const reason = reasonToRefuse(bytes, text);
      assert.notEqual(reason, null, `message ${i} is refused: ${bytes.toString('hex')} ${text}`);
      count(reason!);
    }
  }
  t.diagnostic(JSON.stringify(counts));
  assert.ok(counts['read']! > 100 && counts['malformed']! > 100, JSON.stringify(counts));
});
