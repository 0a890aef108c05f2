// Fuzzer of the peer protocol's codecs: streams of random messages are harmed (bits, lengths, parts removed or repeated) and read in
// random chunks, and bytes made up. Nothing may be thrown; what comes out and the error don't depend on the chunks; what was read as a
// message, written again, is read as the same.
//
//   node src/peer/peer-streams.fuzz.ts [--seconds N] [--seed N]

import { isDeepStrictEqual } from 'node:util';
import { type Random, SeededRandom } from '../io/random.ts';
import { type FuzzTally, harm, madeUp } from '../proto/message.fuzz.ts';
import type { Message } from '../raft/types.ts';
import { fuzzMain } from '../testing/fuzz-loop.ts';
import { AppendStreamDecoder, AppendStreamEncoder } from './append-stream.ts';
import { MessageStreamDecoder, MessageStreamEncoder } from './message-stream.ts';
import type { StreamDecoder } from './part-decoder.ts';
import { decodeEntry, decodeMessage, encodedEntryBytes, writeEntry } from './raft-message.ts';
import {
  encodeMessage,
  encodeStream,
  randomAppends,
  randomCuts,
  randomRaftMessage,
  readStream,
} from './raft-message-fixture.ts';

/** Far below the real bound, so that harmed lengths fall on both sides of it. */
const BYTES_MAX = 5000;

export function fuzzPeerStreams(seed: number, tally: FuzzTally = { read: 0, refused: 0 }): void {
  const random = new SeededRandom(seed);
  const message = randomRaftMessage(random);
  checkMessage(random.below(5) === 0 ? madeUp(random) : harm(encodeMessage(message), random), tally);
  const messages = Array.from({ length: random.below(4) }, () => randomRaftMessage(random));
  const appends = randomAppends(random, 2n, 1n);
  checkStream(
    random,
    () => new MessageStreamDecoder(BYTES_MAX),
    encodeStream(new MessageStreamEncoder(), messages),
    tally,
  );
  checkStream(
    random,
    () => new AppendStreamDecoder(2n, 1n, BYTES_MAX),
    encodeStream(new AppendStreamEncoder(), appends),
    tally,
  );
}

function checkMessage(bytes: Buffer, tally: FuzzTally): void {
  const message = decodeMessage(bytes, 0, bytes.length);
  if (message === null) tally.refused++;
  else {
    tally.read++;
    checkSurvives(message);
  }
  const entry = decodeEntry(bytes, 0, bytes.length);
  if (entry === null) return;
  const again = Buffer.alloc(encodedEntryBytes(entry));
  writeEntry(entry, again, 0);
  if (!isDeepStrictEqual(decodeEntry(again, 0, again.length), entry)) throw new Error('an entry does not survive');
}

function checkSurvives(message: Message): void {
  const again = encodeMessage(message);
  if (!isDeepStrictEqual(decodeMessage(again, 0, again.length), message)) throw new Error('a message does not survive');
}

function checkStream(random: Random, decoder: () => StreamDecoder, bytes: Buffer, tally: FuzzTally): void {
  const harmed = random.below(8) === 0 ? madeUp(random) : harm(bytes, random);
  const whole = readStream(decoder(), harmed);
  if (whole.error === null) tally.read++;
  else tally.refused++;
  for (const message of whole.messages) checkSurvives(message);
  for (const cuts of [randomCuts(random, harmed.length), [...harmed.keys()]]) {
    const cut = readStream(decoder(), harmed, cuts);
    if (!isDeepStrictEqual(cut, whole)) throw new Error(`read otherwise when cut at ${cuts.slice(0, 20)}`);
  }
}

if (import.meta.main) fuzzMain(fuzzPeerStreams);
