// Fuzz of frames and connections. A run makes one stream of bytes out of frames that are good, bad, or noise, and feeds it to
// two servers in memory, cut at different places: both must answer the same bytes, in whole frames, within bounds, and after
// a GOAWAY nothing more. Their accounts (open streams, bytes that wait) must be back at zero when the connection is lost.
//
//   node src/http2/frame.fuzz.ts --seconds 60 [--seed 1]      prints the seed of the run that failed

import assert from 'node:assert/strict';
import { http2Limits } from '../connection-limits.ts';
import { type Random, SeededRandom } from '../io/random.ts';
import { echoHttp } from '../testing/echo-server.ts';
import { fuzzMain } from '../testing/fuzz-loop.ts';
import { frameOf, grpcMessage, memoryServer, setting, TestClient, uint32 } from '../testing/http2-client.ts';
import { clientPreface } from './frame.ts';

const methods = ['Unary', 'Bidi', 'Count', 'Many', 'Size', 'Never', 'Fail', 'None'];

function randomBytes(random: Random, lengthMax: number): Buffer {
  const bytes = Buffer.alloc(random.below(lengthMax + 1));
  random.fill(bytes);
  return bytes;
}

/** A frame that a client could send, on streams that may or may not exist. */
function plausibleFrame(random: Random, client: TestClient): Buffer {
  const id = 1 + 2 * random.below(12);
  switch (random.below(14)) {
    case 0:
    case 1:
    case 2: {
      const method = methods[random.below(methods.length)]!;
      const message = method === 'Many' ? `${random.below(20)} ${random.below(9000)}` : String(random.below(90_000));
      return client.callBytes(client.newId(), method, message);
    }
    case 3:
      return client.callHeaders(client.newId(), methods[random.below(methods.length)]!);
    case 4:
      return frameOf(0, random.below(2), id, grpcMessage(randomBytes(random, 500), random.below(20) === 0 ? 1 : 0));
    case 5:
      return frameOf(0, random.below(2), id, randomBytes(random, 50));
    case 6:
      return frameOf(3, 0, id, uint32(random.below(14)));
    case 7:
      return frameOf(8, 0, random.below(3) === 0 ? 0 : id, uint32(1 + random.below(100_000)));
    case 8:
      return frameOf(4, 0, 0, setting(1 + random.below(6), random.below(3) === 0 ? random.below(100) : 16_384));
    case 9:
      return frameOf(6, random.below(2), 0, Buffer.alloc(8, 1));
    case 10:
      return frameOf(2, 0, id, Buffer.concat([uint32(random.below(30)), Buffer.from([1])]));
    case 11:
      return client.headers(
        client.newId(),
        [
          { name: ':method', value: 'GET' },
          { name: ':scheme', value: 'http' },
          { name: ':path', value: `/${random.below(10)}` },
        ],
        5,
      );
    case 12:
      return frameOf(8 + random.below(200), random.below(256), id, randomBytes(random, 20));
    default:
      return frameOf(random.below(10), random.below(256), random.below(30), randomBytes(random, 40));
  }
}

function randomInput(random: Random, client: TestClient): Buffer {
  const frames: Buffer[] = [clientPreface, frameOf(4, 0, 0)];
  const count = random.below(60);
  for (let i = 0; i < count; i += 1) {
    const frame = plausibleFrame(random, client);
    if (random.below(30) === 0) frame[random.below(frame.length)] = random.below(256);
    frames.push(frame);
  }
  return Buffer.concat(frames);
}

interface Outcome {
  readonly output: Buffer;
  readonly client: TestClient;
}

function feed(input: Buffer, random: Random, pieceMax: number): Outcome {
  const client = new TestClient(memoryServer({ onHttpRequest: echoHttp, concurrentStreamsMax: 20 }));
  const parts: Buffer[] = [];
  const { http2 } = client.connection;
  for (let at = 0; at < input.length; ) {
    const take = 1 + random.below(pieceMax);
    client.connection.receive(input.subarray(at, at + take));
    at += take;
    assert.ok(http2.streamCount <= 20 && http2.writer.ready.count <= http2.streamCount);
    assert.ok(http2.writer.output.length < http2Limits.outputPauseBytes);
  }
  client.connection.flush();
  for (let i = 0; i < 100 && http2.writer.hasReady; i += 1) client.connection.flush();
  parts.push(client.transport.take());
  return { output: Buffer.concat(parts), client };
}

/** The output is whole frames, a GOAWAY with an error the last of them. */
function checkOutput(output: Buffer): void {
  let closed = false;
  for (let at = 0; at < output.length; ) {
    const length = output.readUIntBE(at, 3);
    assert.ok(length <= 16_384 && at + 9 + length <= output.length, 'whole frames of a legal size');
    assert.equal(closed, false, 'nothing behind GOAWAY');
    closed = output[at + 3] === 7;
    at += 9 + length;
  }
}

/** One seeded run. Throws when something is wrong. */
export function fuzzFrames(seed: number): void {
  const random = new SeededRandom(seed);
  // Only its encoder is used: the input is the same for both servers.
  const author = new TestClient(memoryServer());
  const input = randomInput(random, author);
  const whole = feed(input, random, input.length);
  const pieces = feed(input, random, 1 + random.below(100));
  for (const { output, client } of [whole, pieces]) {
    checkOutput(output);
    const { connection } = client;
    assert.equal(client.transport.ended, connection.http2.isClosing);
    connection.closed();
    assert.equal(connection.http2.streamCount, 0);
    assert.equal(connection.http2.writer.pendingBytes, 0);
    assert.equal(connection.http2.writer.ready.count, 0);
    assert.equal(connection.assemblyBytes, 0);
  }
  assert.deepEqual(pieces.output, whole.output);
}

if (import.meta.main) fuzzMain(fuzzFrames);
