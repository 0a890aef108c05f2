// Goal: what stands around the handlers, as grpc-go's interceptors do: a gate that refuses calls by their metadata before their
// handlers, and the observer's word on unary calls that took long, with their request and answer. Method: frames by hand against a server
// in memory; the clock and the gate are the test's.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { echoRouter } from '../testing/echo-server.ts';
import { answerOf, frameOf, grpcMessage, TestClient, uint32 } from '../testing/http2-client.ts';
import type { ServerCall } from './call.ts';
import type { CallGate } from './call-plan.ts';
import type { CallObserver, MessageBytes } from './observer.ts';
import { silentObserver } from './observer.ts';
import { Router } from './router.ts';
import { GrpcServer, type GrpcServerOptions, grpcServerOptions } from './server.ts';

class Clock {
  ms = 1_000_000;
  nowMs(): number {
    return this.ms;
  }
}

const textOf = (bytes: MessageBytes | null): string =>
  bytes === null ? 'none' : bytes.buffer.toString('latin1', bytes.start, bytes.end);

/** Every call's line: method, duration, request, answer. */
function slowLog(clock: Clock, slowMs: number): { log: string[]; observer: CallObserver } {
  const log: string[] = [];
  const observer: CallObserver = {
    ...silentObserver,
    slowMs,
    recentMs: () => clock.ms,
    slow: (call, ms, request, answer) => {
      assert.equal(call.ended, false, 'told before the end');
      log.push(`${call.method.name} ${ms} ${textOf(request)} > ${textOf(answer)}`);
    },
  };
  return { log, observer };
}

function setUp(clock: Clock, overrides: Partial<GrpcServerOptions>): { server: GrpcServer; client: TestClient } {
  const server = new GrpcServer(grpcServerOptions({ router: echoRouter(), clock, schedule: () => {}, ...overrides }));
  return { server, client: new TestClient(server).open() };
}

test('slow calls: told with request and answer once they took longer, whatever ended them', () => {
  const clock = new Clock();
  const held: ServerCall[] = [];
  const router = echoRouter();
  router.unary('echo.Echo', 'Sleeps', (call, message, start, end) => {
    clock.ms += 70;
    call.respond(message, start, end);
  });
  router.unary('echo.Echo', 'Keeps', (call, message, start, end) => {
    const kept = Buffer.from(message.subarray(start, end));
    call.keepRequest(kept, 0, kept.length);
    held.push(call);
  });
  router.unary('echo.Echo', 'Forgets', (call) => void held.push(call));
  const { log, observer } = slowLog(clock, 50);
  const { client, server } = setUp(clock, { router, observer });
  client.call('Unary', 'quick');
  assert.deepEqual(log.splice(0), []);
  client.call('Sleeps', 'a');
  assert.deepEqual(log.splice(0), ['Sleeps 70 a > a']);

  const open = (method: string): number => {
    const id = client.newId();
    client.send(client.callBytes(id, method, `of ${id}`));
    return id;
  };
  const first = open('Keeps');
  open('Forgets');
  const reset = open('Keeps');
  const failing = open('Keeps');
  clock.ms += 51;
  held[0]!.respondWith(3, (out, at) => out.write('yes', at) + at, null);
  held[1]!.respond(Buffer.from('yes'), 0, 3);
  client.send(frameOf(3, 0, reset, uint32(8)));
  held[3]!.fail({ code: 5, message: 'no' });
  assert.deepEqual(log.splice(0), [
    `Keeps 51 of ${first} > yes`,
    'Forgets 51 none > yes',
    `Keeps 51 of ${reset} > none`,
    `Keeps 51 of ${failing} > none`,
  ]);
  // A deadline, and a stream, which is never told of.
  const id = client.newId();
  client.send(client.callBytes(id, 'Keeps', 'x', [{ name: 'grpc-timeout', value: '100m' }]));
  client.send(client.callHeaders(client.newId(), 'Bidi'));
  clock.ms += 200;
  server.tick();
  assert.deepEqual(log.splice(0), ['Keeps 200 x > none']);
});

test('all calls: told with their requests even when handlers keep nothing', () => {
  const clock = new Clock();
  const held: ServerCall[] = [];
  const router = new Router();
  router.unary('echo.Echo', 'Forgets', (call) => void held.push(call));
  const { log, observer } = slowLog(clock, -1);
  const { client } = setUp(clock, { router, observer });
  const bytes = client.callBytes(client.newId(), 'Forgets', 'abc');
  client.connection.receive(bytes);
  // The buffer that the request came in is used again.
  bytes.fill(0x7a);
  held[0]!.respond(Buffer.from('yes'), 0, 3);
  assert.deepEqual(log, ['Forgets 0 abc > yes']);
});

/** Demands of `x-need: text` are its length; those above the limit are refused. */
class LengthGate implements CallGate {
  limit = Number.POSITIVE_INFINITY;
  asked = 0;
  closed = '';
  methodRefusal(path: string): { code: 9; message: string } | null {
    return path.endsWith(`/${this.closed}`) ? { code: 9, message: 'closed' } : null;
  }
  demandsOf(metadata: (name: string) => string | undefined): number {
    return metadata('x-need')?.length ?? 0;
  }
  refusal(demands: number): { code: 14; message: string } | null {
    this.asked++;
    return demands > this.limit ? { code: 14, message: `more than ${this.limit}` } : null;
  }
}

test('the gate: refuses before the handler, and ends open streams when asked again', () => {
  const clock = new Clock();
  const gate = new LengthGate();
  const log: string[] = [];
  const observer: CallObserver = {
    ...silentObserver,
    started: (method) => log.push(`started ${method.name}`),
    handled: (method, code) => log.push(`handled ${method.name} ${code}`),
  };
  const { client, server } = setUp(clock, { gate, observer });
  const need = (value: string): { name: string; value: string }[] => [{ name: 'x-need', value }];
  const call = (method: string, fields: { name: string; value: string }[]): [number, string] => {
    const id = client.newId();
    client.send(client.callHeaders(id, method, fields), frameOf(0, method === 'Bidi' ? 0 : 1, id, grpcMessage('x')));
    return [id, answerOf(client.frames(), id)];
  };
  assert.equal(call('Unary', [])[1], 'OK x');
  assert.equal(gate.asked, 0, 'a call without demands asks nobody');
  gate.closed = 'Unary';
  assert.deepEqual([call('Unary', [])[1], call('Unary', need('abc'))[1]], ['9 closed', '9 closed']);
  gate.closed = 'Bidi';
  assert.deepEqual([call('Bidi', [])[1], call('Unary', [])[1]], ['9 closed', 'OK x']);
  gate.closed = '';
  assert.deepEqual([gate.asked, server.demanding.size], [0, 0], 'a method is refused whatever the call demands');
  assert.equal(call('Unary', need('abc'))[1], 'OK x');
  log.length = 0;
  gate.limit = 2;
  assert.equal(call('Unary', need('abc'))[1], '14 more than 2');
  assert.equal(call('Bidi', need('abc'))[1], '14 more than 2');
  assert.deepEqual(log.splice(0), ['started Unary', 'handled Unary 14', 'started Bidi', 'handled Bidi 14']);

  const [plain] = call('Bidi', []);
  const [modest] = call('Bidi', need('a'));
  const [demanding] = call('Bidi', need('ab'));
  const [gone] = call('Bidi', need('ab'));
  client.send(frameOf(0, 1, gone, Buffer.alloc(0)));
  client.frames();
  assert.equal(server.demanding.size, 2);
  gate.limit = 1;
  log.length = 0;
  server.endRefused();
  assert.deepEqual(log.splice(0), ['handled Bidi 14']);
  server.flushQueue.flushAll();
  assert.equal(answerOf(client.frames(), demanding), '14 more than 1');
  for (const id of [plain, modest]) {
    client.send(frameOf(0, 0, id, grpcMessage('still')));
    assert.deepEqual(
      client.frames().map((frame) => [frame.id, frame.payload.toString('latin1', 5)]),
      [[id, 'still']],
    );
  }
  assert.equal(server.demanding.size, 1);
  server.destroy();
  assert.equal(server.demanding.size, 0);
});
