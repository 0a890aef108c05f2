// Cost of the append stream in the core: entries of 300 B, in appends of 1, 50 and 500, encoded into a kept writer, and decoded from
// chunks of 64 KB (what a socket's read gives at most): in memory of their own, to which entries refer, and as small parts of a large
// buffer, which are copied first.
//
//   node src/peer/append-stream.bench.ts
//
// On a shared 2-core machine with Node 26, us an entry:
//
//   entries an append      encode      decode      copied
//                    1      0.24        0.45        1.2
//                   50      0.105       0.18        0.31
//                  500      0.10        0.18        0.22
//
// A copy costs 0.7 us for a chunk of one entry.

import { SplicedWriter } from '../base/spliced-writer.ts';
import { type Message, MessageType, newMessage } from '../raft/types.ts';
import { AppendStreamDecoder, AppendStreamEncoder } from './append-stream.ts';
import { appendEntry } from './raft-message-fixture.ts';

const ENTRY_BYTES = 300;
const ENTRIES = 400_000;
const CHUNK_BYTES = 65_536;

const data = Buffer.alloc(ENTRY_BYTES, 'x');

/** As a leader in its fifth term, a million entries on: varints of the usual length. */
function appends(perAppend: number, first: number): Message[] {
  const messages: Message[] = [];
  for (let index = first; index < first + ENTRIES / 20; index += perAppend) {
    const message = newMessage(MessageType.app, 2n);
    message.from = 1n;
    message.term = 5;
    message.logTerm = 5;
    message.index = index;
    message.commit = index;
    message.entries = Array.from({ length: perAppend }, (_, i) => appendEntry(5, index + 1 + i, data));
    messages.push(message);
  }
  return messages;
}

/** An append goes out, and comes in, in a turn of its own; large ones in several chunks. */
function chunksOf(frames: readonly Buffer[], memory: number): Buffer[] {
  const chunks: Buffer[] = [];
  for (const frame of frames) {
    for (let at = 0; at < frame.length; at += CHUNK_BYTES) {
      const part = frame.subarray(at, at + CHUNK_BYTES);
      const chunk = Buffer.allocUnsafeSlow(part.length * memory).subarray(0, part.length);
      part.copy(chunk);
      chunks.push(chunk);
    }
  }
  return chunks;
}

function measure(perAppend: number): void {
  const out = new SplicedWriter(1 << 20);
  let encodeMs = 0;
  let ownMs = 0;
  let partMs = 0;
  let count = 0;
  const encoder = new AppendStreamEncoder();
  const visit = (message: Message): void => {
    count += message.entries.length;
  };
  const decoders = [1, 3].map((memory) => ({ memory, decoder: new AppendStreamDecoder(2n, 1n) }));
  for (let round = 0; round < 20; round++) {
    const messages = appends(perAppend, 1_000_000 + (round * ENTRIES) / 20);
    const frames: Buffer[] = [];
    for (const message of messages) {
      out.reset();
      const started = performance.now();
      encoder.encode(message, out);
      encodeMs += performance.now() - started;
      frames.push(Buffer.from(out.bytes.subarray(0, out.length)));
    }
    for (const { memory, decoder } of decoders) {
      const chunks = chunksOf(frames, memory);
      const started = performance.now();
      for (const chunk of chunks) if (decoder.push(chunk, visit) !== null) throw new Error('not read');
      if (memory === 1) ownMs += performance.now() - started;
      else partMs += performance.now() - started;
    }
  }
  if (count !== ENTRIES * 2) throw new Error(`${count} entries read`);
  const each = (ms: number): string => ((ms * 1000) / ENTRIES).toFixed(3);
  console.log(
    `${perAppend} entries an append: encode ${each(encodeMs)}, decode ${each(ownMs)}, copied ${each(partMs)} us an entry`,
  );
}

for (let round = 0; round < 3; round++) for (const perAppend of [1, 50, 500]) measure(perAppend);
