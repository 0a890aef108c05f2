// Goal: a large unary answer is pulled as the client takes it: the connection holds little of it and is never closed for its size,
// other calls are answered meanwhile, and nothing is pulled for a call that is gone. Method: frames by hand against a server in memory,
// the window opened step by step.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { http2Limits } from '../connection-limits.ts';
import { echoRouter } from '../testing/echo-server.ts';
import { answerOf, type Frame, frameOf, grpcMessage, TestClient, uint32 } from '../testing/http2-client.ts';
import type { ServerCall } from './call.ts';
import type { MessageBytes } from './observer.ts';
import { silentObserver } from './observer.ts';
import { GrpcServer, grpcServerOptions } from './server.ts';

const PART = 100_000;
const PARTS = 30;
const windowUpdate = (id: number, bytes: number): Buffer => frameOf(8, 0, id, uint32(bytes));

class Bench {
  readonly server: GrpcServer;
  readonly client: TestClient;
  readonly slow: (MessageBytes | null)[] = [];
  pulled = 0;
  ended = 0;
  failsAt = -1;
  call: ServerCall | null = null;

  constructor() {
    const router = echoRouter();
    router.unary('echo.Echo', 'Pulled', (call) => {
      this.call = call;
      call.onEnd = () => void this.ended++;
      const last = Buffer.alloc(PART, 'z');
      call.respondPulled(PART * PARTS, last, () => {
        this.pulled++;
        if (this.pulled === this.failsAt) call.fail({ code: 10, message: 'no more' });
        return this.pulled === PARTS ? last : Buffer.alloc(PART, 96 + this.pulled);
      });
    });
    const slow = (_call: ServerCall, _ms: number, _request: unknown, answer: MessageBytes | null): void => {
      this.slow.push(answer);
    };
    this.server = new GrpcServer(
      grpcServerOptions({
        router,
        clock: { nowMs: () => 0 },
        schedule: () => {},
        observer: { ...silentObserver, slowMs: -1, slow },
        // Far less than the answer: queued at once, it would close the connection.
        http2Limits: { ...http2Limits, pendingRefuseBytes: 400_000, pendingCloseBytes: 500_000 },
      }),
    );
    this.client = new TestClient(this.server).open();
  }

  /** Gives the call so much window and takes what comes. */
  open(id: number, bytes: number): Frame[] {
    // Some more for the connection, so that others have room.
    this.client.send(windowUpdate(0, bytes + 1000), windowUpdate(id, bytes));
    const frames: Frame[] = [];
    for (let quiet = 0; quiet < 2; ) {
      this.server.flushQueue.flushAll();
      const more = this.client.frames();
      quiet = more.length === 0 ? quiet + 1 : 0;
      frames.push(...more);
    }
    return frames;
  }
}

test('parts are pulled as the window opens, between other calls', () => {
  const bench = new Bench();
  const { client } = bench;
  const id = client.newId();
  client.send(client.callBytes(id, 'Pulled', 'x'));
  const frames = client.frames();
  assert.equal(bench.pulled, 1, 'more than the high-water mark waits');
  for (let step = 0; frames.at(-1)!.type === 0 || step < 3; step++) {
    assert.ok(step < 100, 'the answer does not end');
    frames.push(...bench.open(id, 70_000));
    const received = frames.filter((frame) => frame.id === id && frame.type === 0);
    const bytes = received.reduce((sum, frame) => sum + frame.payload.length, 0);
    assert.ok(bench.pulled * PART <= bytes + 2 * PART, `${bench.pulled} parts for ${bytes} bytes`);
    if (bench.pulled < PARTS) {
      const other = client.newId();
      client.send(client.callBytes(other, 'Unary', 'small'));
      const between = client.frames();
      assert.equal(answerOf(between, other), 'OK small');
      frames.push(...between.filter((frame) => frame.id === id));
    }
  }
  const answer = answerOf(frames, id);
  assert.equal(answer.length, 3 + PART * PARTS);
  for (let part = 0; part < PARTS; part++) {
    const text = part === PARTS - 1 ? 'z' : String.fromCharCode(97 + part);
    assert.ok(answer.startsWith(text.repeat(100), 3 + part * PART), `part ${part}`);
  }
  assert.equal(bench.pulled, PARTS);
  assert.equal(bench.ended, 1);
  const told = bench.slow.findLast((each) => (each?.totalBytes ?? 0) > 1000)!;
  assert.deepEqual([told.totalBytes, told.end - told.start, told.buffer[0]], [PART * PARTS, PART, 0x7a]);
});

test('large answers beyond what a connection may hold do not close it', () => {
  const bench = new Bench();
  const { client } = bench;
  client.send(windowUpdate(0, 1_000_000));
  for (let i = 0; i < 3; i++) client.send(client.callBytes(client.newId(), 'Pulled', 'x'));
  assert.equal(client.call('Unary', 'alive'), 'OK alive');
  assert.ok(!client.transport.ended && !client.transport.destroyed);
});

test('a call that is gone is not pulled for', () => {
  for (const end of ['reset', 'lost'] as const) {
    const bench = new Bench();
    const { client } = bench;
    const id = client.newId();
    client.send(client.callBytes(id, 'Pulled', 'x'));
    bench.open(id, 200_000);
    const { pulled } = bench;
    assert.ok(pulled > 1 && pulled < PARTS);
    if (end === 'reset') client.send(frameOf(3, 0, id, uint32(8)));
    else bench.server.destroy();
    assert.equal(bench.ended, 1);
    if (end === 'reset') bench.open(id, 1_000_000);
    assert.equal(bench.pulled, pulled);
  }
});

test('an answer that its handler gives up half-way ends with the status, behind what was pulled', () => {
  const bench = new Bench();
  const { client } = bench;
  const id = client.newId();
  client.send(client.callBytes(id, 'Pulled', 'x'));
  const frames = bench.open(id, 100_000);
  const { pulled } = bench;
  bench.call!.fail({ code: 10, message: 'not taken' });
  // Little by little: most of what waits is sent while the call is open still.
  for (let step = 0; step < 100; step++) frames.push(...bench.open(id, 5_000));
  assert.equal(frames.findLast((frame) => frame.id === id)!.fields['grpc-status'], '10');
  assert.deepEqual([bench.pulled, bench.ended], [pulled, 1]);
  assert.equal(client.call('Unary', 'alive'), 'OK alive');
});

test('a handler that fails the call when it is asked for a part is not asked again, and the part is not sent', () => {
  const bench = new Bench();
  const { client } = bench;
  bench.failsAt = 3;
  const id = client.newId();
  client.send(client.callBytes(id, 'Pulled', 'x'));
  const frames = [...client.frames(), ...bench.open(id, PART * PARTS)];
  const bytes = frames.reduce((sum, frame) => sum + (frame.type === 0 ? frame.payload.length : 0), 0);
  assert.deepEqual([bench.pulled, bench.ended, bytes], [3, 1, 5 + 2 * PART]);
  assert.equal(frames.findLast((frame) => frame.id === id)!.fields['grpc-status'], '10');
  assert.equal(client.call('Unary', 'alive'), 'OK alive');
});

test('a client that takes gzip gets the message uncompressed, as its flag says', () => {
  const bench = new Bench();
  const { client } = bench;
  const id = client.newId();
  const headers = client.callHeaders(id, 'Pulled', [{ name: 'grpc-encoding', value: 'gzip' }]);
  client.send(headers, frameOf(0, 1, id, grpcMessage('x')));
  const frames = [...client.frames(), ...bench.open(id, PART * PARTS)];
  assert.equal(frames[0]!.fields['grpc-encoding'], 'gzip');
  const first = frames.find((frame) => frame.type === 0)!;
  assert.deepEqual([first.payload[0], first.payload.readUInt32BE(1)], [0, PART * PARTS]);
  assert.equal(answerOf(frames, id).length, 3 + PART * PARTS);
});
