// Goal: the buffer in which a large message gathers is a pool's, goes back when nobody looks at the message any more, not before, and
// whatever becomes of the call. Method: calls against a server in memory, their frames by turns; the pool's buffers are overwritten as
// soon as they are given back, as another message would.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { grpcLimits } from '../connection-limits.ts';
import { ChunkPool } from '../http2/chunk-pool.ts';
import { SeededRandom } from '../io/random.ts';
import { answerOf, frameOf, grpcMessage, TestClient, uint32 } from '../testing/http2-client.ts';
import type { ServerCall } from './call.ts';
import { messagePrefixBytes } from './message-assembly.ts';
import { Router } from './router.ts';
import { GrpcServer, grpcServerOptions } from './server.ts';
import { StatusCode } from './status.ts';

const frameBytes = 16_384;

class PoisoningPool extends ChunkPool {
  taken = 0;
  given = 0;
  override take(): Buffer {
    this.taken += 1;
    return super.take();
  }
  override give(chunk: Buffer): void {
    this.given += 1;
    chunk.fill(0xee);
    super.give(chunk);
  }
}

type Handler = (call: ServerCall, message: Buffer, start: number, end: number) => void;

/** Answers a message's checksum. */
const answerSum: Handler = (call, message, start, end) => {
  const text = Buffer.from(String(crc32(message.subarray(start, end))));
  call.respond(text, 0, text.length);
};

function setUp(handler: Handler): { client: TestClient; pool: PoisoningPool } {
  const router = new Router();
  router.unary('echo.Echo', 'Unary', handler);
  const server = new GrpcServer(grpcServerOptions({ router, clock: { nowMs: () => 0 }, schedule: () => {} }));
  const pool = new PoisoningPool(messagePrefixBytes + grpcLimits.pooledMessageBytes, grpcLimits.messagePoolCount);
  Object.assign(server, { messagePool: pool });
  return { client: new TestClient(server).open(), pool };
}

function randomMessage(random: SeededRandom, bytes: number): Buffer {
  const message = Buffer.alloc(bytes, random.below(250));
  for (let i = 0; i < 100; i++) message[random.below(bytes)] = random.below(250);
  return message;
}

test('large messages by turns arrive as they were sent', () => {
  const random = new SeededRandom(1);
  const { client, pool } = setUp(answerSum);
  for (let round = 0; round < 5; round++) {
    const sizes = [100_000, 500_000, 700_000, 1_500_000, grpcLimits.pooledMessageBytes, 1_000_000, 300_000];
    const senders = sizes.map((bytes) => {
      const message = randomMessage(random, bytes);
      return { id: client.newId(), at: 0, sum: crc32(message), body: grpcMessage(message) };
    });
    for (const { id } of senders) client.send(client.callHeaders(id, 'Unary'));
    for (let sending = senders; sending.length > 0; sending = sending.filter(({ at, body }) => at < body.length)) {
      for (const sender of sending) {
        const to = Math.min(sender.body.length, sender.at + frameBytes);
        client.send(frameOf(0, to === sender.body.length ? 1 : 0, sender.id, sender.body.subarray(sender.at, to)));
        sender.at = to;
      }
    }
    const frames = client.frames();
    for (const { id, sum } of senders) assert.equal(answerOf(frames, id), `OK ${sum}`);
    // Neither the two small ones nor what is less than a quarter of a buffer.
    assert.deepEqual([pool.taken, pool.given], [4 * (round + 1), 4 * (round + 1)]);
  }
  assert.equal(client.connection.assemblyBytes, 0);
});

test('a call that is reset gives its buffer back', () => {
  const { client, pool } = setUp(answerSum);
  const id = client.newId();
  const part = grpcMessage(Buffer.alloc(1_500_000)).subarray(0, frameBytes);
  client.send(client.callHeaders(id, 'Unary'), frameOf(0, 0, id, part));
  assert.deepEqual([pool.taken, pool.given], [1, 0]);
  client.send(frameOf(3, 0, id, uint32(8)));
  assert.deepEqual([pool.taken, pool.given], [1, 1]);
});

test('a handler that ends its call goes on with its message', () => {
  const sums: number[] = [];
  const { client, pool } = setUp((call, message, start, end) => {
    call.fail({ code: StatusCode.unavailable, message: 'no' });
    sums.push(crc32(message.subarray(start, end)));
  });
  const message = randomMessage(new SeededRandom(2), 1_500_000);
  const body = grpcMessage(message);
  const id = client.newId();
  client.send(client.callHeaders(id, 'Unary'));
  for (let at = 0; at < body.length; at += frameBytes) {
    client.send(frameOf(0, at + frameBytes >= body.length ? 1 : 0, id, body.subarray(at, at + frameBytes)));
  }
  assert.equal(answerOf(client.frames(), id), '14 no');
  assert.deepEqual(sums, [crc32(message)]);
  assert.deepEqual([pool.taken, pool.given], [1, 1]);
});
