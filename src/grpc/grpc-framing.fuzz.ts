// Fuzz of gRPC message framing: random messages to the echo's bidi method, cut into DATA frames and chunks at random places,
// with padding, small windows in both directions that open now and then, and streams side by side. Every message comes back
// unchanged and in order, and nothing is left behind.
//
//   node src/grpc/grpc-framing.fuzz.ts --seconds 60 [--seed 1]      prints the seed of the run that failed

import assert from 'node:assert/strict';
import { FrameType, readUint32, SettingId } from '../http2/frame.ts';
import { type Random, SeededRandom } from '../io/random.ts';
import { fuzzMain } from '../testing/fuzz-loop.ts';
import { frameOf, grpcMessage, memoryServer, setting, TestClient, uint32 } from '../testing/http2-client.ts';

interface Sender {
  readonly id: number;
  readonly body: Buffer;
  sent: number;
  window: number;
  received: Buffer[];
  receivedBytes: number;
  done: boolean;
}

function randomBody(random: Random): Buffer {
  const messages: Buffer[] = [];
  const count = random.below(12);
  for (let i = 0; i < count; i += 1) {
    const size = random.below(10) === 0 ? random.below(200_000) : random.below(60);
    const message = Buffer.alloc(size);
    random.fill(message);
    messages.push(grpcMessage(message));
  }
  return Buffer.concat(messages);
}

/** The next DATA frame of a sender, padded at random, within its window. */
function nextFrame(random: Random, sender: Sender): Buffer | null {
  const left = sender.body.length - sender.sent;
  const padding = random.below(4) === 0 ? random.below(20) : -1;
  const overhead = padding >= 0 ? padding + 1 : 0;
  const most = Math.min(left, sender.window - overhead, 16_384 - overhead);
  if (most < 0 || (most === 0 && left > 0)) return null;
  const take = random.below(2) === 0 ? most : random.below(most + 1);
  const part = sender.body.subarray(sender.sent, sender.sent + take);
  sender.sent += take;
  sender.window -= take + overhead;
  const last = sender.sent === sender.body.length;
  const flags = (last ? 1 : 0) | (padding >= 0 ? 8 : 0);
  if (last) sender.done = true;
  if (padding < 0) return frameOf(FrameType.data, flags, sender.id, part);
  return frameOf(
    FrameType.data,
    flags,
    sender.id,
    Buffer.concat([Buffer.from([padding]), part, Buffer.alloc(padding)]),
  );
}

/** One seeded run. Throws when something is wrong. */
export function fuzzGrpcFraming(seed: number): void {
  const random = new SeededRandom(seed);
  const client = new TestClient(memoryServer({ messageBytesMax: 250_000 }));
  client.open(setting(SettingId.initialWindowSize, random.below(3) === 0 ? random.below(1000) : 65_535));
  const senders: Sender[] = Array.from({ length: 1 + random.below(5) }, () => ({
    id: client.newId(),
    body: randomBody(random),
    sent: 0,
    window: 65_535,
    received: [],
    receivedBytes: 0,
    done: false,
  }));
  for (const { id } of senders) client.send(client.callHeaders(id, 'Bidi'));
  const finished = new Set<number>();
  for (let round = 0; finished.size < senders.length; round += 1) {
    assert.ok(round < 100_000, 'every stream gets to its end');
    const sender = senders[random.below(senders.length)]!;
    const frame = sender.done ? null : nextFrame(random, sender);
    const input = [frame ?? Buffer.alloc(0)];
    if (random.below(3) === 0) input.push(frameOf(8, 0, 0, uint32(1 + random.below(60_000))));
    const opened = senders[random.below(senders.length)]!;
    if (random.below(2) === 0) input.push(frameOf(8, 0, opened.id, uint32(1 + random.below(60_000))));
    const bytes = Buffer.concat(input);
    const cut = random.below(bytes.length + 1);
    client.connection.receive(bytes.subarray(0, cut));
    client.connection.receive(bytes.subarray(cut));
    client.connection.flush();
    for (const answer of client.frames()) {
      const to = senders.find(({ id }) => id === answer.id);
      if (to === undefined) continue;
      if (answer.type === FrameType.data) {
        to.received.push(answer.payload);
        to.receivedBytes += answer.payload.length;
      } else if (answer.type === FrameType.windowUpdate) to.window += readUint32(answer.payload, 0);
      else if ((answer.flags & 1) !== 0) {
        assert.equal(answer.fields['grpc-status'], '0');
        finished.add(to.id);
      }
      assert.notEqual(answer.type, FrameType.rstStream);
    }
  }
  for (const sender of senders) assert.deepEqual(Buffer.concat(sender.received), sender.body);
  assert.equal(client.connection.assemblyBytes, 0);
  assert.equal(client.connection.http2.streamCount, 0);
  assert.equal(client.connection.http2.writer.pendingBytes, 0);
}

if (import.meta.main) fuzzMain(fuzzGrpcFraming);
