// Goal: calls behave as on grpc-go's server, byte for byte where clients look. Method: frames by hand against a server in
// memory with a clock that the test turns. Real clients: clients.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { grpcLimits, http2Limits } from '../connection-limits.ts';
import { FrameType, readUint32, SettingId } from '../http2/frame.ts';
import { echoHttp, echoRouter } from '../testing/echo-server.ts';
import {
  answerOf,
  type Frame,
  frameOf,
  goAwayOf,
  grpcMessage,
  setting,
  TestClient,
  uint32,
} from '../testing/http2-client.ts';
import type { ServerCall } from './call.ts';
import { etcdKeepalive } from './keepalive.ts';
import type { CallObserver } from './observer.ts';
import { Router } from './router.ts';
import { GrpcServer, type GrpcServerOptions, grpcServerOptions } from './server.ts';
import { StatusCode } from './status.ts';

class Clock {
  ms = 1_000_000;
  nowMs(): number {
    return this.ms;
  }
}

interface Bench {
  readonly clock: Clock;
  readonly server: GrpcServer;
  readonly client: TestClient;
  /** Turns the clock and the server's timers, and flushes. */
  pass(ms: number): void;
}

function setUp(overrides: Partial<GrpcServerOptions> = {}): Bench {
  const clock = new Clock();
  const server = new GrpcServer(grpcServerOptions({ router: echoRouter(), clock, schedule: () => {}, ...overrides }));
  return {
    clock,
    server,
    client: new TestClient(server).open(),
    pass: (ms): void => {
      clock.ms += ms;
      server.tick();
      server.flushQueue.flushAll();
    },
  };
}

function lastFields(frames: readonly Frame[], id: number): Readonly<Record<string, string>> {
  return frames.findLast((frame) => frame.type === FrameType.headers && frame.id === id)?.fields ?? {};
}

const base = [
  { name: ':method', value: 'POST' },
  { name: ':scheme', value: 'http' },
  { name: ':path', value: '/echo.Echo/Unary' },
  { name: 'content-type', value: 'application/grpc' },
];

function replaced(name: string, value: string): { name: string; value: string }[] {
  return base.map((field) => (field.name === name ? { name, value } : field));
}

test('requests refused by their headers: HTTP status, code and text as grpc-go', () => {
  const cases: [{ name: string; value: string }[], string, string, string][] = [
    [replaced(':path', '/no.Such/Method'), '200', '12', 'unknown service no.Such'],
    [replaced(':path', '/echo.Echo/None'), '200', '12', 'unknown method None for service echo.Echo'],
    [replaced(':path', 'nonsense'), '200', '12', 'malformed method name: "nonsense"'],
    [replaced(':path', '/nonsense'), '200', '12', 'malformed method name: "/nonsense"'],
    [replaced('content-type', 'text/html'), '415', '3', 'invalid gRPC request content-type "text/html"'],
    [
      replaced('content-type', 'application/grpcx'),
      '415',
      '3',
      'invalid gRPC request content-type "application/grpcx"',
    ],
    [replaced(':method', 'GET'), '405', '13', 'Received a HEADERS frame with :method "GET" which should be POST'],
    [
      [...base, { name: 'grpc-timeout', value: '1x' }],
      '400',
      '13',
      'malformed grpc-timeout: transport: timeout unit is not recognized: "1x"',
    ],
    [[...base, { name: 'grpc-timeout', value: '0S' }], '200', '4', 'context deadline exceeded'],
    [
      [...base, { name: 'grpc-encoding', value: 'snappy' }],
      '200',
      '12',
      'grpc: Decompressor is not installed for grpc-encoding "snappy"',
    ],
    [
      [...base, { name: 'x-bin', value: '*' }],
      '400',
      '13',
      'malformed binary metadata "*" in header "x-bin": illegal base64 data at input byte 0',
    ],
    [
      [...base, { name: 'host', value: 'a' }, { name: 'host', value: 'b' }],
      '400',
      '13',
      'num values of :authority: 0, num values of host: 2, both must only have 1 value as per HTTP/2 spec',
    ],
  ];
  for (const [fields, httpStatus, code, message] of cases) {
    const { client } = setUp();
    client.send(client.headers(1, fields), frameOf(0, 1, 1, grpcMessage('x')));
    const frames = client.frames();
    const trailers = lastFields(frames, 1);
    assert.equal(trailers['grpc-message'], message);
    assert.deepEqual([trailers[':status'], trailers['grpc-status']], [httpStatus, code], message);
    // Trailers-only, and the rest of the request is not wanted.
    assert.deepEqual(
      frames.map((frame) => frame.type),
      [FrameType.headers, FrameType.rstStream],
    );
    assert.equal(readUint32(frames[1]!.payload, 0), 0);
    client.newId();
    assert.equal(client.call('Unary', 'alive'), 'OK alive');
  }
});

test('content types with a subtype are gRPC, and te may be missing', () => {
  for (const type of ['application/grpc', 'application/grpc+proto', 'application/grpc;x']) {
    const { client } = setUp();
    client.send(client.headers(1, replaced('content-type', type)), frameOf(0, 1, 1, grpcMessage('x')));
    const frames = client.frames();
    assert.equal(answerOf(frames, 1), 'OK x');
    const answer = frames.find((frame) => frame.type === FrameType.headers)?.fields['content-type'];
    assert.equal(answer, type === 'application/grpc;x' ? 'application/grpc+x' : type);
  }
});

test('a message in any number of DATA frames', () => {
  for (const size of [1, 2, 3, 5, 7, 40]) {
    const { client } = setUp();
    client.send(client.callHeaders(1, 'Unary'));
    const body = grpcMessage('in pieces of any size, with its prefix');
    for (let at = 0; at < body.length; at += size) client.send(frameOf(0, 0, 1, body.subarray(at, at + size)));
    client.send(frameOf(0, 1, 1));
    assert.equal(answerOf(client.frames(), 1), 'OK in pieces of any size, with its prefix');
    assert.equal(client.connection.assemblyBytes, 0);
  }
});

test('many messages in one DATA frame', () => {
  const { client } = setUp();
  const bodies = ['a', '', 'ccc', 'd'].map((text) => grpcMessage(text));
  client.send(client.callHeaders(1, 'Bidi'), frameOf(0, 1, 1, Buffer.concat(bodies)));
  const frames = client.frames();
  const sent = frames.filter((frame) => frame.type === FrameType.data).map((frame) => frame.payload);
  assert.deepEqual(sent, bodies);
  assert.equal(lastFields(frames, 1)['grpc-status'], '0');
});

test('messages at and above the bound', () => {
  const { client } = setUp({ messageBytesMax: 1000 });
  const id = client.newId();
  assert.equal(client.call('Unary', 'x'.repeat(1000)), `OK ${'x'.repeat(1000)}`);
  assert.equal(client.call('Unary', 'x'.repeat(1001)), '8 grpc: received message larger than max (1001 vs. 1000)');
  // By its prefix alone, before the body has come.
  client.send(client.callHeaders(99, 'Bidi'), frameOf(0, 0, 99, Buffer.from([0, 0xff, 0xff, 0xff, 0xff])));
  assert.equal(answerOf(client.frames(), 99), '8 grpc: received message larger than max (4294967295 vs. 1000)');
  assert.ok(id);
});

test('a message larger than the stream window is granted what it lacks', () => {
  const { client } = setUp();
  client.send(client.callHeaders(1, 'Count'));
  const body = grpcMessage(Buffer.alloc(1_500_000));
  let window = http2Limits.streamWindowBytes;
  let at = 0;
  while (at < body.length) {
    const take = Math.min(16_384, window, body.length - at);
    assert.ok(take > 0, 'the server never leaves the sender without a window');
    client.send(frameOf(0, 0, 1, body.subarray(at, at + take)));
    at += take;
    window -= take;
    for (const frame of client.frames()) if (frame.type === 8 && frame.id === 1) window += readUint32(frame.payload, 0);
  }
  client.send(frameOf(0, 1, 1));
  assert.equal(answerOf(client.frames(), 1), 'OK 1 1500000');
});

test('grants beyond the bound wait for their turn, and all messages arrive', () => {
  const limits = { ...grpcServerOptions({} as never).limits, assemblyGrantBytes: 300_000 };
  const { client } = setUp({ limits });
  const body = grpcMessage(Buffer.alloc(200_000, 'z'));
  const senders = Array.from({ length: 10 }, () => ({ id: client.newId(), at: 0, window: 65_535, granted: false }));
  for (const { id } of senders) client.send(client.callHeaders(id, 'Count'));
  let grantedAtOnce = 0;
  let answers = 0;
  for (let round = 0; round < 1000 && answers < 10; round += 1) {
    for (const sender of senders) {
      const take = Math.min(16_384, sender.window, body.length - sender.at);
      if (take === 0) continue;
      sender.at += take;
      sender.window -= take;
      client.send(frameOf(0, sender.at === body.length ? 1 : 0, sender.id, body.subarray(sender.at - take, sender.at)));
      for (const frame of client.frames()) {
        const to = senders.find(({ id }) => id === frame.id);
        if (frame.type === 8 && to !== undefined) {
          to.window += readUint32(frame.payload, 0);
          to.granted = true;
        }
        if (frame.type === 1 && (frame.flags & 1) !== 0) answers += 1;
      }
    }
    if (round === 5) grantedAtOnce = senders.filter(({ granted }) => granted).length;
  }
  assert.equal(grantedAtOnce, 2, '300,000 bytes are enough for two at a time');
  assert.equal(answers, 10);
  assert.equal(client.connection.assemblyBytes, 0);
});

test('a call that ends while it waits for a grant is forgotten, and who waits behind it is served', () => {
  const { client } = setUp({ limits: { ...grpcLimits, assemblyGrantBytes: 500_000 }, messageBytesMax: 1_000_000 });
  const begin = (bytes: number): number => {
    const id = client.newId();
    const part = grpcMessage(Buffer.alloc(bytes)).subarray(0, 16_000);
    client.send(client.callHeaders(id, 'Unary'), frameOf(0, 0, id, part));
    return id;
  };
  const granted = (): number[] => client.frames().flatMap(({ type, id }) => (type === 8 && id !== 0 ? [id] : []));
  const holder = begin(450_000);
  assert.deepEqual(granted(), [holder], 'the first gets all that it lacks');
  const large = begin(900_000);
  const small = begin(150_000 - 16_000);
  assert.deepEqual(granted(), [], 'both wait: the large one does not fit, the small one is behind it');
  client.send(frameOf(3, 0, large, uint32(8)));
  assert.deepEqual(granted(), [small]);
  const { grants } = client.connection;
  for (let i = 0; i < 100; i += 1) {
    const id = begin(900_000);
    assert.equal(grants.waitingCount, 1);
    client.send(frameOf(3, 0, id, uint32(8)));
    assert.equal(grants.waitingCount, 0);
  }
});

test('broken message framing', () => {
  const cases: [string, Buffer, string][] = [
    ['Unary', Buffer.alloc(0), '2 EOF'],
    ['Unary', Buffer.from([0, 0, 0]), '2 EOF'],
    ['Count', Buffer.from([0, 0, 0]), 'OK 0 0'],
    ['Unary', grpcMessage('abc').subarray(0, 7), '2 unexpected EOF'],
    ['Count', grpcMessage('abc').subarray(0, 7), '13 unexpected EOF'],
    ['Many', Buffer.alloc(0), '13 cardinality violation: received no request message from non-client-streaming RPC'],
    [
      'Many',
      Buffer.concat([grpcMessage('1 1'), grpcMessage('1 1')]),
      '13 cardinality violation: received multiple request messages for non-client-streaming RPC',
    ],
    ['Unary', grpcMessage('x', 2), '13 grpc: received unexpected payload format 2'],
    ['Unary', grpcMessage('x', 1), '13 grpc: compressed flag set with identity or empty encoding'],
  ];
  for (const [method, body, answer] of cases) {
    const { client } = setUp();
    client.send(client.callHeaders(1, method), frameOf(0, 1, 1, body));
    assert.equal(answerOf(client.frames(), 1), answer);
  }
  const { client } = setUp();
  client.send(client.callHeaders(1, 'Unary', [], true));
  assert.equal(answerOf(client.frames(), 1), '2 EOF');
});

test('gzip: requests are taken and answered in gzip; bombs are not', () => {
  const gzip = [{ name: 'grpc-encoding', value: 'gzip' }];
  const { client } = setUp({ messageBytesMax: 10_000 });
  const send = (id: number, body: Buffer, flag: number): Frame[] => {
    client.send(client.callHeaders(id, 'Unary', gzip), frameOf(0, 1, id, grpcMessage(body, flag)));
    return client.frames();
  };
  let frames = send(1, gzipSync('hello gzip'), 1);
  assert.equal(frames[0]!.fields['grpc-encoding'], 'gzip');
  assert.equal(frames[1]!.payload[0], 1);
  assert.equal(gunzipSync(frames[1]!.payload.subarray(5)).toString(), 'hello gzip');
  frames = send(3, Buffer.from('plain'), 0);
  assert.equal(gunzipSync(frames[1]!.payload.subarray(5)).toString(), 'plain');
  frames = send(5, gzipSync(Buffer.alloc(10_000)), 1);
  assert.equal(gunzipSync(frames[1]!.payload.subarray(5)).length, 10_000);
  frames = send(7, gzipSync(Buffer.alloc(10_001)), 1);
  assert.equal(answerOf(frames, 7), '8 grpc: received message after decompression larger than max 10000');
  frames = send(9, gzipSync(Buffer.alloc(9_000_000)), 1);
  assert.equal(answerOf(frames, 9), '8 grpc: received message after decompression larger than max 10000');
  frames = send(11, Buffer.from('not gzip'), 1);
  assert.match(answerOf(frames, 11), /^13 grpc: failed to decompress the message/);
});

test('metadata: ASCII, binary with and without padding, missing', () => {
  const extra = [
    { name: 'token', value: 'first' },
    { name: 'token', value: 'second' },
    { name: 'raw-bin', value: 'AQI=' },
    { name: 'bare-bin', value: 'AQI' },
  ];
  for (const [name, answer] of [
    ['token', 'first'],
    ['raw-bin', '\x01\x02'],
    ['bare-bin', '\x01\x02'],
    ['none', ''],
  ] as const) {
    const { client } = setUp();
    client.send(client.callBytes(1, 'Header', name, extra));
    assert.equal(answerOf(client.frames(), 1), `OK ${answer}`);
  }
});

test('error messages are percent-encoded', () => {
  const { client } = setUp();
  assert.equal(client.call('Fail', 'größe 100%\n'), '9 gr%C3%B6%C3%9Fe 100%25%0A');
  assert.equal(client.call('Fail', ' a '), '9 %20a%20');
  const long = client.call('Fail', 'ü'.repeat(5000));
  assert.ok(long.length <= 4098 && long.endsWith('%C3%BC'), 'cut at a character');
});

test('deadline: the call is cancelled and its stream reset', () => {
  const router = new Router();
  const seen: string[] = [];
  let kept: ServerCall | null = null;
  router.unary('echo.Echo', 'Unary', (call) => {
    kept = call;
    assert.equal(call.deadlineMs, 1_000_200);
    call.onEnd = (): void => {
      seen.push('cancelled');
    };
  });
  const { client, pass } = setUp({ router });
  client.send(client.callBytes(1, 'Unary', 'x', [{ name: 'grpc-timeout', value: '200m' }]));
  pass(150);
  assert.equal(answerOf(client.frames(), 1), 'nothing');
  pass(100);
  assert.equal(answerOf(client.frames(), 1), 'RST 8');
  assert.deepEqual(seen, ['cancelled']);
  assert.ok(kept!.ended);
  // Too late: all of these do nothing.
  kept!.respond(Buffer.from('x'), 0, 1);
  kept!.fail({ code: StatusCode.internal, message: 'x' });
  assert.equal(kept!.send(Buffer.from('x'), 0, 1), true);
  kept!.end();
  kept!.resumeReceive();
  assert.deepEqual(client.frames(), []);
});

test('an answered call has no deadline left', () => {
  const { client, server, pass } = setUp();
  client.send(client.callBytes(1, 'Unary', 'x', [{ name: 'grpc-timeout', value: '1S' }]));
  assert.equal(answerOf(client.frames(), 1), 'OK x');
  assert.equal(server.wheel.count, 1, 'keepalive only');
  pass(5000);
  assert.deepEqual(client.frames(), []);
});

test('cancel: onEnd once, by reset or by the loss of the connection', () => {
  const router = new Router();
  let cancels = 0;
  router.stream('echo.Echo', 'Bidi', 'bidi', {
    open: (call) => {
      call.onEnd = (): void => {
        cancels += 1;
      };
    },
    message: () => {},
    halfClose: () => {},
  });
  const { client } = setUp({ router });
  client.send(client.callHeaders(1, 'Bidi'), client.callHeaders(3, 'Bidi'));
  client.send(frameOf(3, 0, 1, uint32(8)));
  assert.equal(cancels, 1);
  client.connection.closed();
  client.connection.closed();
  assert.equal(cancels, 2);
});

test('cancel: a handler may end its other calls meanwhile, those of the same connection too', () => {
  const router = new Router();
  const calls: ServerCall[] = [];
  let cancels = 0;
  router.stream('echo.Echo', 'Bidi', 'bidi', {
    open: (call) => {
      calls.push(call);
      call.onEnd = (): void => {
        cancels += 1;
        for (const other of calls) other.fail({ code: StatusCode.aborted, message: 'the other one is gone' });
      };
    },
    message: () => {},
    halfClose: () => {},
  });
  const { client } = setUp({ router });
  for (let i = 0; i < 3; i += 1) client.send(client.callHeaders(client.newId(), 'Bidi'));
  client.connection.closed();
  assert.deepEqual([cancels, calls.map(({ ended }) => ended)], [3, [true, true, true]]);
  assert.equal(client.connection.http2.streamCount, 0);
});

test('answers of a later turn are flushed by the queue, all of a turn in one write', () => {
  const router = new Router();
  const calls: ServerCall[] = [];
  router.unary('echo.Echo', 'Unary', (call) => calls.push(call));
  const { client, server } = setUp({ router });
  client.send(...[1, 3, 5].map((id) => client.callBytes(id, 'Unary', 'x')));
  const writes = client.transport.writeCount;
  for (const call of calls) {
    call.respondWith(10, (out, offset, text: string) => offset + out.write(text, offset), 'later');
  }
  assert.equal(client.transport.writeCount, writes);
  server.flushQueue.flushAll();
  assert.equal(client.transport.writeCount, writes + 1);
  const frames = client.frames();
  assert.deepEqual(
    [1, 3, 5].map((id) => answerOf(frames, id)),
    ['OK later', 'OK later', 'OK later'],
  );
});

test('respondWith: answers of any size, through the window or queued', () => {
  for (const [size, used] of [
    [0, 0],
    [100, 40],
    [100_000, 100_000],
    [100_000, 5],
  ] as const) {
    const router = new Router();
    router.unary('echo.Echo', 'Unary', (call) => {
      call.respondWith(
        size,
        (out, offset, count: number) => out.fill('w', offset, offset + count) && offset + count,
        used,
      );
    });
    const { client } = setUp({ router });
    client.send(frameOf(4, 0, 0, setting(SettingId.initialWindowSize, 1_000_000)), frameOf(8, 0, 0, uint32(1_000_000)));
    client.frames();
    assert.equal(client.call('Unary', ''), `OK ${'w'.repeat(used)}`);
  }
});

test('streams: send tells when to wait, onDrain when to go on, and the order is kept', () => {
  const router = new Router();
  let call: ServerCall | null = null;
  let drains = 0;
  router.stream('echo.Echo', 'Many', 'server', {
    open: (opened) => {
      call = opened;
      opened.onDrain = (): void => {
        drains += 1;
      };
    },
    message: () => {},
    halfClose: () => {},
  });
  const { client, server } = setUp({ router });
  client.send(client.callBytes(1, 'Many', 'x'));
  const part = Buffer.alloc(10_000, 'p');
  let sent = 0;
  while (call!.sendParts([part, Buffer.from([sent])])) sent += 1;
  sent += 1;
  // 65,535 bytes of window went, http2Limits.streamHighWaterBytes wait.
  assert.ok(call!.bufferedBytes >= 65_536 && call!.bufferedBytes < 80_000);
  server.flushQueue.flushAll();
  assert.equal(drains, 0);
  let bytes = Buffer.concat(
    client
      .frames()
      .filter((frame) => frame.type === 0)
      .map((frame) => frame.payload),
  );
  client.send(frameOf(8, 0, 0, uint32(1_000_000)), frameOf(8, 0, 1, uint32(30_000)));
  assert.equal(drains, 0);
  client.send(frameOf(8, 0, 1, uint32(1_000_000)));
  assert.equal(drains, 1);
  call!.send(Buffer.from('last'), 0, 4);
  call!.end();
  server.flushQueue.flushAll();
  const frames = client.frames();
  bytes = Buffer.concat([bytes, ...frames.filter((frame) => frame.type === 0).map((frame) => frame.payload)]);
  assert.equal(bytes.length, sent * (5 + 10_001) + 9);
  for (let i = 0; i < sent; i += 1) assert.equal(bytes[(i + 1) * 10_006 - 1], i);
  assert.equal(lastFields(frames, 1)['grpc-status'], '0');
});

test('a failed stream keeps what it sent and ends with trailers', () => {
  const router = new Router();
  router.stream('echo.Echo', 'Bidi', 'bidi', {
    open: () => {},
    message: (call, message, start, end) => {
      call.send(message, start, end);
      call.fail({ code: StatusCode.aborted, message: 'enough' });
    },
    halfClose: () => {},
  });
  const { client } = setUp({ router });
  client.send(client.callHeaders(1, 'Bidi'), frameOf(0, 0, 1, grpcMessage('x')));
  const frames = client.frames();
  assert.deepEqual(
    frames.map((frame) => frame.type),
    [1, 0, 1, 3],
  );
  assert.deepEqual(frames[2]!.fields, { 'grpc-status': '10', 'grpc-message': 'enough' });
});

test('pauseReceive holds messages and windows back, resumeReceive lets them go on', () => {
  const router = new Router();
  const got: string[] = [];
  let call: ServerCall | null = null;
  let closed = 0;
  router.stream('echo.Echo', 'Count', 'client', {
    open: (opened) => {
      call = opened;
    },
    message: (paused, message, start, end) => {
      got.push(message.toString('latin1', start, end));
      paused.pauseReceive();
    },
    halfClose: () => {
      closed += 1;
    },
  });
  const { client } = setUp({ router });
  const bodies = Buffer.concat(['a', 'b', 'c'].map((text) => grpcMessage(text)));
  client.send(client.callHeaders(1, 'Count'), frameOf(0, 0, 1, bodies), frameOf(0, 1, 1, grpcMessage('d')));
  assert.deepEqual(got, ['a']);
  for (let i = 0; i < 6; i += 1) call!.resumeReceive();
  assert.deepEqual([got.join(''), closed], ['abcd', 1]);
  assert.equal(client.connection.assemblyBytes, 0);
  // A sender that ignores the pause runs into its window.
  client.send(client.callHeaders(3, 'Count'));
  for (let i = 0; i < 5; i += 1) client.send(frameOf(0, 0, 3, grpcMessage(Buffer.alloc(16_000))));
  assert.equal(answerOf(client.frames(), 3), 'RST 3');
});

test('a unary answer before END_STREAM waits for it; a stream is reset', () => {
  const { client } = setUp();
  client.send(client.callHeaders(1, 'Unary'), frameOf(0, 0, 1, grpcMessage('x')));
  let frames = client.frames();
  assert.equal(answerOf(frames, 1), 'OK x');
  assert.equal(frames.filter((frame) => frame.type === FrameType.rstStream).length, 0);
  assert.equal(client.connection.http2.streamCount, 1);
  client.send(frameOf(0, 1, 1));
  assert.equal(client.connection.http2.streamCount, 0);
  assert.deepEqual(client.frames(), []);
  // Who goes on sending is stopped.
  client.send(client.callHeaders(3, 'Unary'), frameOf(0, 0, 3, grpcMessage('x')), frameOf(0, 0, 3, 'more'));
  frames = client.frames();
  assert.equal(readUint32(frames.find((frame) => frame.type === FrameType.rstStream)!.payload, 0), 0);
  assert.equal(client.connection.http2.streamCount, 0);
});

test('observer: what is counted, and when', () => {
  const log: string[] = [];
  const observer: CallObserver = {
    wantsDuration: true,
    slowMs: Number.POSITIVE_INFINITY,
    recentMs: () => 0,
    slow: () => log.push('slow'),
    started: (method) => log.push(`started ${method.name}`),
    received: (method) => log.push(`received ${method.name}`),
    sent: (method) => log.push(`sent ${method.name}`),
    handled: (method, code, ms) => log.push(`handled ${method.name} ${code} ${ms}`),
    receivedBytes: (bytes) => log.push(`in ${bytes}`),
    sentBytes: (bytes) => log.push(`out ${bytes}`),
  };
  const { client, clock } = setUp({ observer });
  const take = (): string => log.splice(0).join(', ');
  client.call('Unary', 'abc');
  assert.equal(take(), 'started Unary, received Unary, in 3, sent Unary, out 3, handled Unary 0 0');
  client.call('Fail', 'x');
  assert.equal(take(), 'started Fail, received Fail, in 1, handled Fail 9 0');
  client.call('None', 'x');
  assert.equal(take(), '', "unknown methods are not counted, as with etcd's interceptors");
  const id = client.newId();
  client.send(client.callHeaders(id, 'Bidi'));
  assert.equal(take(), 'started Bidi');
  clock.ms += 7;
  client.send(frameOf(0, 1, id, grpcMessage('hi')));
  assert.equal(take(), 'received Bidi, in 2, sent Bidi, out 2, handled Bidi 0 7');
  const other = client.newId();
  client.send(client.callHeaders(other, 'Bidi'), frameOf(3, 0, other, uint32(8)));
  assert.equal(take(), 'started Bidi, handled Bidi 1 0');
});

test('keepalive enforcement: three pings too early are too many', () => {
  const ping = frameOf(6, 0, 0, Buffer.alloc(8));
  const run = (gapMs: number, open: boolean, permitWithoutStream: boolean): string => {
    const { client, clock } = setUp({ keepalive: { ...etcdKeepalive, permitWithoutStream } });
    if (open) client.send(client.callHeaders(1, 'Bidi'));
    for (let i = 0; i < 6; i += 1) {
      clock.ms += gapMs;
      client.send(ping);
    }
    return goAwayOf(client.frames());
  };
  assert.equal(run(4_000, true, false), '11 too_many_pings');
  assert.equal(run(5_100, true, false), 'none');
  assert.equal(run(60_000, false, false), '11 too_many_pings');
  assert.equal(run(5_100, false, true), 'none');
});

test('keepalive enforcement: answers reset the strikes', () => {
  const { client } = setUp();
  for (let i = 0; i < 50; i += 1) {
    client.send(frameOf(6, 0, 0, Buffer.alloc(8)), frameOf(6, 0, 0, Buffer.alloc(8)));
    assert.equal(client.call('Unary', 'x'), 'OK x');
  }
});

test('server keepalive: a silent peer is pinged, and cut when it stays silent', () => {
  const keepalive = { ...etcdKeepalive, intervalMs: 10_000, timeoutMs: 2_000 };
  const { client, server, pass } = setUp({ keepalive });
  pass(9_000);
  client.send(frameOf(6, 1, 0, Buffer.alloc(8)));
  pass(9_000);
  assert.deepEqual(client.frames(), [], 'something was read meanwhile');
  pass(1_100);
  assert.deepEqual(
    client.frames().map((frame) => [frame.type, frame.flags]),
    [[6, 0]],
  );
  client.send(frameOf(6, 1, 0, Buffer.alloc(8)));
  pass(2_100);
  assert.equal(client.transport.destroyed, false, 'it answered');
  pass(8_000);
  pass(2_000);
  assert.equal(client.frames().length, 1);
  pass(2_100);
  assert.equal(client.transport.destroyed, true);
  assert.equal(server.connectionCount, 0);
});

test('drain: two GOAWAYs, open calls finish, then the transport ends', () => {
  const { client, server } = setUp();
  client.send(client.callHeaders(1, 'Bidi'));
  let drained = 0;
  server.drain(() => {
    drained += 1;
  });
  let frames = client.frames();
  assert.deepEqual(
    frames.map((frame) => frame.type),
    [FrameType.goAway, FrameType.ping],
  );
  assert.equal(readUint32(frames[0]!.payload, 0), 0x7fffffff);
  // A call that was on its way is still served.
  client.newId();
  assert.equal(client.call('Unary', 'late'), 'OK late');
  client.send(frameOf(6, 1, 0, frames[1]!.payload));
  frames = client.frames();
  assert.deepEqual([frames[0]!.type, readUint32(frames[0]!.payload, 0), readUint32(frames[0]!.payload, 4)], [7, 3, 0]);
  // One behind the final GOAWAY is ignored.
  client.send(client.callBytes(5, 'Unary', 'too late'));
  assert.deepEqual(client.frames(), []);
  assert.equal(client.transport.ended, false);
  client.send(frameOf(0, 1, 1, grpcMessage('last')));
  assert.equal(answerOf(client.frames(), 1), 'OK last');
  assert.equal(client.transport.ended, true);
  client.connection.closed();
  assert.equal(drained, 1);
});

test('drain of an idle connection whose peer does not answer the ping', () => {
  const { client, server, pass } = setUp();
  let drained = 0;
  server.drain(() => {
    drained += 1;
  });
  pass(5_100);
  assert.equal(client.frames().at(-1)!.type, FrameType.goAway);
  assert.equal(client.transport.ended, true);
  // It does not close either.
  pass(1_100);
  assert.deepEqual([client.transport.destroyed, drained], [true, 1]);
});

test('HTTP over HTTP/2 beside gRPC', () => {
  const { client } = setUp({ onHttpRequest: echoHttp });
  const get = [
    { name: ':method', value: 'GET' },
    { name: ':scheme', value: 'http' },
    { name: ':path', value: '/health' },
  ];
  client.send(client.headers(1, get, 5));
  let frames = client.frames();
  assert.deepEqual(frames[0]!.fields, { ':status': '200', 'content-type': 'text/plain', 'content-length': '16' });
  assert.equal(frames[1]!.payload.toString(), 'echo of /health\n');
  const post = [
    { name: ':method', value: 'POST' },
    ...get.slice(1),
    { name: 'content-type', value: 'application/json' },
  ];
  client.send(client.headers(3, post), frameOf(0, 0, 3, '{"a":'), frameOf(0, 1, 3, '1}'));
  frames = client.frames();
  assert.equal(frames[1]!.payload.toString(), '{"a":1}');
  client.send(client.headers(5, [{ name: ':method', value: 'HEAD' }, ...get.slice(1)], 5));
  frames = client.frames();
  assert.deepEqual([frames.length, frames[0]!.fields['content-length'], frames[0]!.flags], [1, '16', 5]);
  client.send(client.headers(7, post));
  for (let i = 0; i < 129; i += 1) client.send(frameOf(0, 0, 7, Buffer.alloc(16_384)));
  assert.equal(lastFields(client.frames(), 7)[':status'], '413');
});
