// Goal: who waits for room in a connection hears of it when little waits to be sent, whatever made the room, and only then. Method:
// answers against a server in memory whose client opens its windows step by step, or whose socket is stuck.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { http2Limits } from '../connection-limits.ts';
import { frameOf, TestClient, uint32 } from '../testing/http2-client.ts';
import type { ServerCall } from './call.ts';
import { Router } from './router.ts';
import { GrpcServer, grpcServerOptions } from './server.ts';

const ANSWER = Buffer.alloc(100_000);
const ROOM = 150_000;

function setUp(): { server: GrpcServer; client: TestClient; calls: ServerCall[] } {
  const calls: ServerCall[] = [];
  const router = new Router();
  router.unary('echo.Echo', 'Unary', (call) => {
    calls.push(call);
    call.respond(ANSWER, 0, ANSWER.length);
  });
  const server = new GrpcServer(
    grpcServerOptions({
      router,
      clock: { nowMs: () => 0 },
      schedule: () => {},
      http2Limits: { ...http2Limits, roomBytes: ROOM },
    }),
  );
  return { server, client: new TestClient(server).open(), calls };
}

test('the client opens its windows', () => {
  const { client, calls } = setUp();
  let told = 0;
  const ids = Array.from({ length: 5 }, () => client.newId());
  for (const id of ids) client.send(client.callBytes(id, 'Unary', 'x'));
  const [call] = calls;
  const waits = call!.connectionBufferedBytes;
  assert.ok(waits > 4 * ANSWER.length);
  call!.whenRoom(() => {
    told++;
    assert.ok(call!.connectionBufferedBytes <= ROOM);
  });
  client.send(frameOf(8, 0, 0, uint32(1_000_000)));
  for (const id of ids) {
    assert.equal(told, call!.connectionBufferedBytes <= ROOM ? 1 : 0);
    client.send(frameOf(8, 0, id, uint32(1_000_000)));
    client.frames();
  }
  assert.deepEqual([told, call!.connectionBufferedBytes], [1, 0]);
});

test('calls are reset', () => {
  const { client, server, calls } = setUp();
  let told = 0;
  const ids = Array.from({ length: 5 }, () => client.newId());
  for (const id of ids) client.send(client.callBytes(id, 'Unary', 'x'));
  calls[0]!.whenRoom(() => void told++);
  for (const id of ids.slice(0, 2)) client.send(frameOf(3, 0, id, uint32(8)));
  assert.equal(told, 0);
  for (const id of ids.slice(2)) client.send(frameOf(3, 0, id, uint32(8)));
  server.flushQueue.flushAll();
  assert.equal(told, 1);
});

test('a connection that is lost has none', () => {
  const { client, calls } = setUp();
  for (let i = 0; i < 5; i++) client.send(client.callBytes(client.newId(), 'Unary', 'x'));
  calls[0]!.whenRoom(() => assert.fail('told'));
  client.connection.closed();
  client.connection.flush();
});
