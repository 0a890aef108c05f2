// Goal: a handler hears of the end of its call exactly once, whatever ends it, and what was held for the call is let go of. Method: a
// call of each kind against a server in memory, ended in every way there is, by the handler, by what the client sends, by time and by
// the connection.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grpcLimits } from '../connection-limits.ts';
import { frameOf, grpcMessage, TestClient, uint32 } from '../testing/http2-client.ts';
import type { ServerCall } from './call.ts';
import { Router } from './router.ts';
import { GrpcServer, grpcServerOptions } from './server.ts';
import { StatusCode } from './status.ts';

const DATA = 0;
const RST_STREAM = 3;
const END_STREAM = 1;
const MESSAGE_BYTES_MAX = 1000;

class Bench {
  readonly server: GrpcServer;
  readonly client: TestClient;
  readonly id: number;
  call: ServerCall | null = null;
  ends = 0;
  messages = 0;
  nowMs = 0;
  isAllowed = true;

  constructor(kind: 'unary' | 'bidi') {
    const router = new Router();
    const begin = (call: ServerCall): void => {
      this.call = call;
      call.onDrain = () => {};
      call.onEnd = () => {
        assert.ok(call.ended && call.onDrain === null);
        this.ends++;
      };
    };
    if (kind === 'unary') router.unary('echo.Echo', 'Unary', begin);
    else
      router.stream('echo.Echo', 'Bidi', 'bidi', {
        open: begin,
        message: () => void this.messages++,
        halfClose: () => {},
      });
    this.server = new GrpcServer(
      grpcServerOptions({
        router,
        clock: { nowMs: () => this.nowMs },
        schedule: () => {},
        limits: { ...grpcLimits, assemblyBytesMax: 500 },
        messageBytesMax: MESSAGE_BYTES_MAX,
      }),
    );
    this.client = new TestClient(this.server).open();
    this.id = this.client.newId();
  }

  begin(method: string): this {
    const timeout = [{ name: 'grpc-timeout', value: '200m' }];
    if (method === 'Unary') this.client.send(this.client.callBytes(this.id, method, 'x', timeout));
    else this.client.send(this.client.callHeaders(this.id, method, timeout));
    assert.ok(this.call !== null && this.ends === 0);
    return this;
  }

  data(bytes: Buffer, flags = 0): void {
    this.client.send(frameOf(DATA, flags, this.id, bytes));
  }
}

const OK = Buffer.from('x');
const failure = { code: StatusCode.aborted, message: 'x' };

const ways: readonly (readonly [name: string, kinds: string, end: (bench: Bench) => void])[] = [
  ['answered', 'Unary', ({ call }) => call!.respond(OK, 0, 1)],
  [
    'answered by an encoder',
    'Unary',
    ({ call }) => call!.respondWith(1, (out, at) => out.fill(1, at, at + 1) && at + 1, null),
  ],
  ['answered in parts', 'Unary', ({ call }) => call!.respondPulled(1, OK, () => OK)],
  ['ended', 'Bidi', ({ call }) => call!.end()],
  ['failed by its handler', 'Unary Bidi', ({ call }) => call!.fail(failure)],
  ['reset', 'Unary Bidi', ({ client, id }) => void client.send(frameOf(RST_STREAM, 0, id, uint32(8)))],
  ['a reset by our side', 'Bidi', ({ client, id }) => void client.send(frameOf(8, 0, id, uint32(0)))],
  ['the connection is lost', 'Unary Bidi', ({ client }) => client.connection.closed()],
  [
    'its deadline',
    'Unary Bidi',
    (bench) => {
      bench.nowMs = 1000;
      bench.server.wheel.advance(bench.nowMs);
    },
  ],
  [
    'a message that is too large',
    'Bidi',
    (bench) => bench.data(Buffer.concat([Buffer.of(0), uint32(MESSAGE_BYTES_MAX + 1)])),
  ],
  ['an unknown flag', 'Bidi', (bench) => bench.data(Buffer.of(2, 0, 0, 0, 0))],
  ['a compressed message without an encoding', 'Bidi', (bench) => bench.data(Buffer.of(1, 0, 0, 0, 0))],
  [
    'too many bytes of incomplete messages',
    'Bidi',
    (bench) => bench.data(grpcMessage(Buffer.alloc(900)).subarray(0, 600)),
  ],
  ['half a message at its end', 'Bidi', (bench) => bench.data(grpcMessage(OK).subarray(0, 5), END_STREAM)],
];

for (const [name, kinds, end] of ways) {
  for (const kind of kinds.split(' ')) {
    test(`${kind}: ${name}`, () => {
      const bench = new Bench(kind === 'Unary' ? 'unary' : 'bidi').begin(kind);
      end(bench);
      bench.server.flushQueue.flushAll();
      assert.deepEqual([bench.ends, bench.call!.ended, bench.messages], [1, true, 0]);
      bench.call!.fail(failure);
      bench.client.connection.closed();
      assert.equal(bench.ends, 1, 'once');
      assert.equal(bench.client.connection.assemblyBytes, 0);
    });
  }
}
