// Fuzzer of message.ts, mvccpb.ts and internal-request.ts: valid encodings of random messages are harmed, or bytes made up, and
// decoded by every schema. Nothing may be thrown; what was read, written again, must be read as the same. A group between two fields
// changes nothing of what is read, unless it is malformed itself.
//
//   node src/proto/message.fuzz.ts [--seconds N] [--seed N]

import { isDeepStrictEqual } from 'node:util';
import { type Random, SeededRandom } from '../io/random.ts';
import { fuzzMain } from '../testing/fuzz-loop.ts';
import { InternalRequest } from './internal-request.ts';
import { decode, encode, type MessageInit, type Schema } from './message.ts';
import { allSchemas, randomMessage } from './message-fixture.ts';
import { KeyValueView } from './mvccpb.ts';
import { Reader, writeVarint } from './wire.ts';

/** What the runs came to: if nearly all were refused, the fuzzer would not reach much. */
export interface FuzzTally {
  read: number;
  refused: number;
}

/** Bytes that mean something: tags of small fields, lengths, ends of varints. */
const INTERESTING = [0x00, 0x01, 0x08, 0x0a, 0x0b, 0x0c, 0x10, 0x12, 0x13, 0x14, 0x1a, 0x22, 0x2a, 0x7f, 0x80, 0xff];

/** A few small changes: bits, bytes, removed and repeated parts. */
export function harm(bytes: Buffer, random: Random): Buffer {
  let harmed = Buffer.from(bytes);
  for (let i = random.below(4); i > 0 && harmed.length > 0; i--) {
    const at = random.below(harmed.length);
    const end = at + random.below(Math.min(20, harmed.length - at) + 1);
    const kind = random.below(5);
    if (kind === 0) harmed[at]! ^= 1 << random.below(8);
    else if (kind === 1) harmed[at] = INTERESTING[random.below(INTERESTING.length)]!;
    else if (kind === 2) harmed = Buffer.concat([harmed.subarray(0, at), harmed.subarray(end)]);
    else if (kind === 3) harmed = Buffer.concat([harmed.subarray(0, end), harmed.subarray(at)]);
    else harmed = harmed.subarray(0, end);
  }
  return harmed;
}

export function madeUp(random: Random): Buffer {
  const bytes = Buffer.alloc(random.below(60));
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = random.below(3) === 0 ? random.below(256) : INTERESTING[random.below(INTERESTING.length)]!;
  }
  return bytes;
}

/** A group of any number, filled with fields and groups. */
function randomGroup(random: Random, depth: number): Buffer {
  const tag = (wireType: number, fieldNumber: number): Buffer => {
    const bytes = Buffer.alloc(5);
    return bytes.subarray(0, writeVarint(bytes, 0, fieldNumber * 8 + wireType));
  };
  const some = (): Buffer => tag(0, 1 + random.below(2 ** 29 - 1));
  const number = 1 + random.below(random.below(2) === 0 ? 16 : 2 ** 29 - 1);
  const parts = [tag(3, number)];
  for (let i = random.below(4); i > 0; i--) {
    const kind = random.below(5);
    if (kind === 0) parts.push(tag(0, 1 + random.below(20)), some());
    else if (kind === 1) parts.push(tag(1, 1 + random.below(20)), Buffer.alloc(8, random.below(256)));
    else if (kind === 2) parts.push(tag(5, 1 + random.below(20)), Buffer.alloc(4, random.below(256)));
    else if (kind === 3) parts.push(tag(2, 1 + random.below(20)), Buffer.from([2, random.below(256), 0x0c]));
    else if (depth < 5) parts.push(randomGroup(random, depth + 1));
  }
  return Buffer.concat([...parts, tag(4, number)]);
}

/** The message with groups between its fields; null when it is malformed. */
export function withGroups(bytes: Buffer, random: Random): Buffer | null {
  const reader = new Reader();
  reader.reset(bytes, 0, bytes.length);
  const parts: Buffer[] = [randomGroup(random, 0)];
  let from = 0;
  while (reader.readTag()) {
    reader.skip();
    parts.push(bytes.subarray(from, reader.position));
    from = reader.position;
    if (random.below(3) === 0) parts.push(randomGroup(random, 0));
  }
  return reader.ok ? Buffer.concat(parts) : null;
}

const view = new KeyValueView();
const entry = new InternalRequest();

export function fuzzMessages(seed: number, tally: FuzzTally = { read: 0, refused: 0 }): void {
  const random = new SeededRandom(seed);
  const [, source] = allSchemas[random.below(allSchemas.length)]!;
  const valid = encode(source, randomMessage(source, random));
  const bytes = random.below(5) === 0 ? madeUp(random) : harm(valid, random);
  check(source, bytes, tally, random);
  check(allSchemas[random.below(allSchemas.length)]![1], bytes, tally, random);
  const around = Buffer.concat([madeUp(random), bytes, madeUp(random)]);
  const start = random.below(around.length + 1);
  const end = start + random.below(around.length - start + 1);
  if (view.parse(around, start, end) && view.valueEnd > end) throw new Error('a value ends outside');
  if (entry.parse(around, start, end) && entry.field !== 0 && entry.end > end) {
    throw new Error('a request ends outside');
  }
}

function check(schema: Schema, bytes: Buffer, tally: FuzzTally, random: Random): void {
  const message = decode(schema, bytes);
  if (message === undefined) {
    tally.refused++;
    return;
  }
  tally.read++;
  if (random.below(4) === 0) checkGroups(schema, bytes, message, random);
  if (!isExact(message)) return;
  const again = decode(schema, encode(schema, message as MessageInit<Schema>));
  if (!isDeepStrictEqual(again, message)) throw new Error('a message read does not survive its own encoding');
}

function checkGroups(schema: Schema, bytes: Buffer, message: unknown, random: Random): void {
  const grouped = withGroups(bytes, random);
  if (grouped === null) throw new Error('what was read is malformed');
  if (!isDeepStrictEqual(decode(schema, grouped), message)) throw new Error('a group changes what is read');
}

/** Numbers beyond 2^53 are read rounded: such a message is only approximately what was sent. */
function isExact(value: unknown): boolean {
  if (typeof value === 'number') return Number.isSafeInteger(value);
  if (typeof value !== 'object' || value === null || Buffer.isBuffer(value)) return true;
  return Object.values(value).every(isExact);
}

if (import.meta.main) fuzzMain(fuzzMessages);
