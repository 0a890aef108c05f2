// For the tests, the fuzzer and the benchmark of the peer protocol's codecs: random messages, entries, and cutting bytes into chunks.

import { SplicedWriter } from '../base/spliced-writer.ts';
import type { Random } from '../io/random.ts';
import {
  type Entry,
  EntryType,
  type Message,
  MessageType,
  NO_BYTES,
  type NodeId,
  newMessage,
  type Snapshot,
} from '../raft/types.ts';
import type { StreamEncoder } from './message-stream.ts';
import type { StreamDecoder } from './part-decoder.ts';
import { encodedMessageBytes, writeMessage } from './raft-message.ts';

/** All lengths of a varint up to 2^53; often zero. */
export function randomCount(random: Random): number {
  return random.below(4) === 0 ? 0 : Math.floor(2 ** (random.float() * 52));
}

function randomId(random: Random): NodeId {
  return random.below(4) === 0 ? 0n : random.uint64() >> BigInt(random.below(64));
}

function randomBytes(random: Random, bytesMax: number): Buffer {
  const bytes = Buffer.alloc(random.below(bytesMax));
  random.fill(bytes);
  // 'p' begins a padded token in src/testing/raft-text.ts.
  if (bytes[0] === 0x70) bytes[0] = 0;
  return bytes.length === 0 ? NO_BYTES : bytes;
}

export function appendEntry(term: number, index: number, data: Buffer): Entry {
  return { term, index, type: EntryType.normal, data };
}

export function randomEntries(random: Random, first: number, term: number): Entry[] {
  const entries: Entry[] = [];
  for (let count = random.below(6); count > 0; count--) {
    entries.push({
      term,
      index: first + entries.length,
      type: random.below(4) === 0 ? (random.below(3) as EntryType) : EntryType.normal,
      data: randomBytes(random, random.below(10) === 0 ? 3000 : 100),
    });
  }
  return entries;
}

function randomSnapshot(random: Random): Snapshot {
  const ids = (): NodeId[] => {
    const list = Array.from({ length: random.below(4) }, () => random.uint64() | 1n);
    return list.sort((a, b) => (a < b ? -1 : 1));
  };
  return {
    meta: {
      confState: {
        voters: ids(),
        learners: ids(),
        votersOutgoing: ids(),
        learnersNext: ids(),
        autoLeave: random.below(2) === 0,
      },
      index: 1 + randomCount(random),
      term: randomCount(random),
    },
    data: randomBytes(random, 200),
  };
}

/** Of any type, with any fields, but as raft's log has it: an append's entries follow its index. */
export function randomRaftMessage(random: Random): Message {
  const message = newMessage(random.below(MessageType.forgetLeader + 1) as MessageType, randomId(random));
  // Never a link heartbeat.
  message.from = randomId(random) | 1n;
  message.term = randomCount(random);
  message.logTerm = randomCount(random);
  message.index = randomCount(random);
  const entries = randomEntries(random, message.index + 1, randomCount(random));
  if (entries.length > 0) message.entries = entries;
  message.commit = randomCount(random);
  message.vote = randomId(random);
  if (random.below(3) === 0) message.snapshot = randomSnapshot(random);
  message.reject = random.below(2) === 0;
  message.rejectHint = randomCount(random);
  message.context = randomBytes(random, 60);
  return message;
}

/** What a leader sends to a follower over one connection: appends that mostly follow each other, terms that change, lost ones. */
export function randomAppends(random: Random, local: NodeId, remote: NodeId): Message[] {
  const messages: Message[] = [];
  let term = 1 + random.below(3);
  let index = random.below(300);
  let logTerm = term;
  for (let count = random.below(12); count > 0; count--) {
    const message = newMessage(MessageType.app, local);
    message.from = remote;
    if (random.below(6) === 0) term++;
    if (random.below(8) === 0) index += random.below(5);
    message.term = term;
    message.logTerm = logTerm;
    message.index = index;
    message.entries = randomEntries(random, index + 1, term);
    message.commit = randomCount(random);
    index += message.entries.length;
    if (message.entries.length > 0) logTerm = term;
    messages.push(message);
  }
  return messages;
}

export function encodeMessage(message: Message): Buffer {
  const bytes = Buffer.alloc(encodedMessageBytes(message) + 3, 0xa5);
  const end = writeMessage(message, bytes, 1);
  if (end !== bytes.length - 2 || bytes[0] !== 0xa5 || bytes[end] !== 0xa5) throw new Error('written outside');
  return bytes.subarray(1, end);
}

export function encodeStream(encoder: StreamEncoder, messages: readonly Message[]): Buffer {
  const out = new SplicedWriter(16);
  for (const message of messages) encoder.encode(message, out);
  return Buffer.concat(out.pieces(0));
}

export interface StreamRead {
  readonly messages: readonly Message[];
  readonly error: string | null;
  readonly atBoundary: boolean;
}

/** Reads `bytes` in chunks that end at `cuts` (ascending), each in memory of its own. */
export function readStream(decoder: StreamDecoder, bytes: Buffer, cuts: readonly number[] = []): StreamRead {
  const messages: Message[] = [];
  let error: string | null = null;
  let from = 0;
  for (const to of [...cuts, bytes.length]) {
    const chunk = Buffer.allocUnsafeSlow(to - from);
    bytes.copy(chunk, 0, from, to);
    error = decoder.push(chunk, (message) => messages.push(message));
    if (error !== null) break;
    from = to;
  }
  return { messages, error, atBoundary: decoder.atBoundary };
}

export function randomCuts(random: Random, byteCount: number): number[] {
  return Array.from({ length: random.below(8) }, () => random.below(byteCount + 1)).sort((a, b) => a - b);
}
