// Goal: the connection keeps RFC 9113's rules of streams, windows and errors. Method: frames by hand against a server in
// memory with the simulated clock (h2spec covers the same from outside: h2spec.peer-test.ts); each test compares the frames
// that come back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { http2Limits } from '../connection-limits.ts';
import { echoHttp } from '../testing/echo-server.ts';
import {
  answerOf,
  type Frame,
  frameOf,
  goAwayOf,
  grpcMessage,
  memoryServer,
  setting,
  TestClient,
  uint32,
} from '../testing/http2-client.ts';
import { FrameType, readUint32, SettingId } from './frame.ts';

function makeServer(overrides: Parameters<typeof memoryServer>[0] = {}): ReturnType<typeof memoryServer> {
  return memoryServer({ onHttpRequest: echoHttp, ...overrides });
}

function makeClient(overrides: Parameters<typeof memoryServer>[0] = {}): TestClient {
  return new TestClient(makeServer(overrides)).open();
}

function typesOf(frames: readonly Frame[]): number[] {
  return frames.map((frame) => frame.type);
}

function dataBytes(frames: readonly Frame[], id: number): number {
  let bytes = 0;
  for (const frame of frames) if (frame.type === FrameType.data && frame.id === id) bytes += frame.payload.length;
  return bytes;
}

const get = [
  { name: ':method', value: 'GET' },
  { name: ':scheme', value: 'http' },
  { name: ':path', value: '/x' },
];

test('the server opens with SETTINGS and a larger connection window, and acknowledges ours', () => {
  const client = new TestClient(makeServer({ concurrentStreamsMax: 100 }));
  client.send(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frameOf(FrameType.settings, 0, 0));
  const frames = client.frames();
  assert.deepEqual(typesOf(frames), [FrameType.settings, FrameType.windowUpdate, FrameType.settings]);
  assert.equal(frames[0]!.payload.readUInt32BE(2), 16_384);
  assert.equal(frames[0]!.payload.readUInt16BE(6), SettingId.maxConcurrentStreams);
  assert.equal(frames[0]!.payload.readUInt32BE(8), 100);
  assert.equal(readUint32(frames[1]!.payload, 0), http2Limits.connectionWindowBytes - 65_535);
  assert.equal(frames[2]!.flags, 1);
});

test('one unary call: headers, one DATA frame, trailers; all in one write', () => {
  const client = makeClient();
  const writes = client.transport.writeCount;
  client.send(client.callBytes(1, 'Unary', 'hello'));
  assert.equal(client.transport.writeCount, writes + 1);
  const frames = client.frames();
  assert.deepEqual(typesOf(frames), [FrameType.headers, FrameType.data, FrameType.headers]);
  assert.deepEqual(frames[0]!.fields, { ':status': '200', 'content-type': 'application/grpc' });
  assert.deepEqual(frames[1]!.payload, grpcMessage('hello'));
  assert.deepEqual(frames[2]!.fields, { 'grpc-status': '0' });
  assert.equal(frames[2]!.flags, 5);
});

test('calls of one chunk are answered in order by one write, and settled header blocks are three bytes', () => {
  const client = makeClient();
  client.call('Unary', 'warm');
  client.call('Unary', 'warm');
  const writes = client.transport.writeCount;
  client.send(...[5, 7, 9].map((id) => client.callBytes(id, 'Unary', `m${id}`)));
  assert.equal(client.transport.writeCount, writes + 1);
  const frames = client.frames();
  assert.deepEqual(
    frames.filter((frame) => frame.type === FrameType.headers).map((frame) => frame.payload.length),
    [2, 1, 2, 1, 2, 1],
  );
  assert.equal(answerOf(frames, 9), 'OK m9');
});

test('input cut at every byte gives the same answer', () => {
  for (let cut = 1; cut < 160; cut += 1) {
    const client = makeClient();
    const bytes = client.callBytes(1, 'Unary', 'x'.repeat(60));
    client.send(bytes.subarray(0, cut));
    client.send(bytes.subarray(cut));
    assert.equal(answerOf(client.frames(), 1), `OK ${'x'.repeat(60)}`);
  }
});

test('a header block in CONTINUATION frames, with priority and padding', () => {
  const client = makeClient();
  const block = client.block([
    { name: ':method', value: 'GET' },
    { name: ':scheme', value: 'http' },
    { name: ':path', value: '/continued' },
  ]);
  const first = Buffer.concat([Buffer.from([3, 0, 0, 0, 0, 7]), block.subarray(0, 2), Buffer.alloc(3)]);
  client.send(
    frameOf(FrameType.headers, 1 | 8 | 0x20, 1, first),
    frameOf(FrameType.continuation, 0, 1, block.subarray(2, 5)),
    frameOf(FrameType.continuation, 4, 1, block.subarray(5)),
  );
  assert.match(
    client
      .frames()
      .map((frame) => frame.payload.toString('latin1'))
      .join('|'),
    /echo of \/continued/,
  );
});

test('streams: frames that a state does not allow', () => {
  const cases: [string, (client: TestClient) => Buffer[], string][] = [
    ['DATA on an idle stream', () => [frameOf(0, 0, 1, 'x')], '1 DATA on an idle stream'],
    ['RST_STREAM on an idle stream', () => [frameOf(3, 0, 1, uint32(8))], '1 RST_STREAM on an idle stream'],
    ['WINDOW_UPDATE on an idle stream', () => [frameOf(8, 0, 1, uint32(8))], '1 WINDOW_UPDATE on an idle stream'],
    [
      'HEADERS on an even stream',
      (client) => [client.headers(2, get, 5)],
      "1 HEADERS on a stream that is not a client's",
    ],
    [
      'HEADERS below the last',
      (client) => [client.headers(5, get, 5), client.headers(3, get, 5)],
      '1 HEADERS on a stream below the last',
    ],
    ['PUSH_PROMISE', () => [frameOf(5, 4, 1, uint32(2))], '1 clients do not push'],
    ['CONTINUATION alone', () => [frameOf(9, 4, 1, '')], '1 CONTINUATION without HEADERS'],
    [
      'an interrupted block',
      (client) => [client.headers(1, get, 1), frameOf(6, 0, 0, Buffer.alloc(8))],
      '1 a header block was interrupted',
    ],
    ['DATA on stream 0', () => [frameOf(0, 0, 0, 'x')], '1 DATA on stream 0'],
    [
      'padding beyond the frame',
      (client) => [client.callHeaders(1, 'Unary'), frameOf(0, 8, 1, Buffer.from([9, 1]))],
      '1 padding exceeds the frame',
    ],
    ['an unreadable block', () => [frameOf(1, 5, 1, Buffer.from([0xff, 0xff]))], '9 header block cannot be decoded'],
    [
      'a frame that is too large',
      () => [frameOf(0, 0, 1, Buffer.alloc(16_385))],
      '6 frame larger than SETTINGS_MAX_FRAME_SIZE',
    ],
    ['SETTINGS on a stream', () => [frameOf(4, 0, 1)], '1 SETTINGS on a stream'],
    ['SETTINGS of a wrong size', () => [frameOf(4, 0, 0, 'abc')], '6 invalid SETTINGS'],
    ['SETTINGS ENABLE_PUSH 2', () => [frameOf(4, 0, 0, setting(2, 2))], '1 invalid SETTINGS'],
    ['SETTINGS INITIAL_WINDOW_SIZE 2^31', () => [frameOf(4, 0, 0, setting(4, 2 ** 31))], '3 invalid SETTINGS'],
    ['SETTINGS MAX_FRAME_SIZE 1', () => [frameOf(4, 0, 0, setting(5, 1))], '1 invalid SETTINGS'],
    ['PING of a wrong size', () => [frameOf(6, 0, 0, 'abc')], '6 PING of a wrong size'],
    ['PING on a stream', () => [frameOf(6, 0, 1, Buffer.alloc(8))], '1 PING on a stream'],
    ['GOAWAY on a stream', () => [frameOf(7, 0, 1, Buffer.alloc(8))], '1 GOAWAY on a stream'],
    ['WINDOW_UPDATE of 0', () => [frameOf(8, 0, 0, uint32(0))], '1 WINDOW_UPDATE of 0'],
    [
      'a connection window above 2^31 - 1',
      () => [frameOf(8, 0, 0, uint32(0x7fffffff))],
      '3 connection window above 2^31 - 1',
    ],
  ];
  for (const [what, bytes, goAway] of cases) {
    const client = makeClient();
    client.send(...bytes(client));
    assert.equal(goAwayOf(client.frames()), goAway, what);
    assert.ok(client.transport.ended, what);
    // Nothing behind the GOAWAY is looked at.
    client.connection.receive(client.callBytes(99, 'Unary', 'late'));
    assert.deepEqual(client.frames(), [], what);
  }
});

test('HEADERS on a stream that is finished end the connection', () => {
  const client = makeClient();
  client.send(client.headers(1, get, 5));
  client.send(client.headers(1, get, 5));
  assert.equal(goAwayOf(client.frames()), '5 HEADERS on a closed stream');
});

test('the first frame has to be SETTINGS, the first bytes the preface', () => {
  const client = new TestClient(makeServer());
  client.send(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frameOf(6, 0, 0, Buffer.alloc(8)));
  assert.equal(goAwayOf(client.frames()), '1 the first frame is not SETTINGS');
  const other = new TestClient(makeServer());
  other.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  assert.equal(goAwayOf(other.frames()), '1 bad client preface');
});

test('malformed requests reset their stream and no other', () => {
  const grpc = [
    { name: ':method', value: 'POST' },
    { name: ':scheme', value: 'http' },
    { name: ':path', value: '/echo.Echo/Unary' },
    { name: 'content-type', value: 'application/grpc' },
  ];
  const bad: [string, { name: string; value: string }[]][] = [
    ['capital in a name', [...grpc, { name: 'X-a', value: '1' }]],
    ['space in a name', [...grpc, { name: 'x a', value: '1' }]],
    ['empty name', [...grpc, { name: '', value: '1' }]],
    ['newline in a value', [...grpc, { name: 'x', value: 'a\nb' }]],
    ['space at the end of a value', [...grpc, { name: 'x', value: 'a ' }]],
    ['connection', [...grpc, { name: 'connection', value: 'close' }]],
    ['transfer-encoding', [...grpc, { name: 'transfer-encoding', value: 'chunked' }]],
    ['te', [...grpc, { name: 'te', value: 'gzip' }]],
    ['no method', grpc.slice(1)],
    ['no path', grpc.filter((field) => field.name !== ':path')],
    ['empty path', [...grpc.slice(0, 2), { name: ':path', value: '' }]],
    ['path twice', [...grpc.slice(0, 3), { name: ':path', value: '/' }]],
    ['unknown pseudo-header', [{ name: ':protocol', value: 'x' }, ...grpc]],
    ['response pseudo-header', [{ name: ':status', value: '200' }, ...grpc]],
    ['pseudo-header behind a field', [...grpc, { name: ':authority', value: 'a' }]],
    ['content-length of letters', [...grpc, { name: 'content-length', value: 'x' }]],
    ['two lengths', [...grpc, { name: 'content-length', value: '6' }, { name: 'content-length', value: '7' }]],
  ];
  for (const [what, fields] of bad) {
    const client = makeClient();
    client.send(client.headers(1, fields), frameOf(0, 1, 1, grpcMessage('x')));
    assert.equal(answerOf(client.frames(), 1), 'RST 1', what);
    client.newId();
    assert.equal(client.call('Unary', 'alive'), 'OK alive', what);
  }
});

test('content-length has to be the length of the body', () => {
  const extra = (value: string): { name: string; value: string }[] => [{ name: 'content-length', value }];
  for (const [length, answer] of [
    ['6', 'OK x'],
    ['5', 'RST 1'],
    ['7', 'RST 1'],
  ] as const) {
    const client = makeClient();
    client.send(client.callBytes(1, 'Unary', 'x', extra(length)));
    assert.equal(answerOf(client.frames(), 1), answer);
  }
});

test('request trailers end a request; without END_STREAM or with pseudo-headers they are an error', () => {
  const cases: [{ name: string; value: string }[], number, string][] = [
    [[{ name: 'x-checksum', value: '1' }], 5, 'OK x'],
    [[{ name: 'x-checksum', value: '1' }], 4, 'RST 1'],
    [[{ name: ':path', value: '/' }], 5, 'RST 1'],
  ];
  for (const [fields, flags, answer] of cases) {
    const client = makeClient();
    client.send(client.callHeaders(1, 'Bidi'), frameOf(0, 0, 1, grpcMessage('x')), client.headers(1, fields, flags));
    const frames = client.frames();
    assert.equal(answerOf(frames, 1), answer);
  }
});

test('DATA on a stream that ended or was reset', () => {
  const client = makeClient();
  client.send(client.callBytes(1, 'Unary', 'x'), frameOf(0, 0, 1, 'more'));
  assert.ok(client.frames().some((frame) => frame.type === 3 && frame.id === 1 && readUint32(frame.payload, 0) === 5));
  client.send(client.callHeaders(3, 'Bidi'), frameOf(3, 0, 3, uint32(8)), frameOf(0, 0, 3, 'more'));
  assert.ok(client.frames().some((frame) => frame.type === 3 && frame.id === 3 && readUint32(frame.payload, 0) === 5));
  // What we reset may be on its way still: ignored.
  client.send(client.headers(5, [{ name: 'x', value: '1' }]), frameOf(0, 0, 5, 'more'), frameOf(0, 1, 5, 'more'));
  assert.equal(client.frames().filter((frame) => frame.id === 5).length, 1);
});

test('sending respects the stream window, and goes on when it opens', () => {
  const client = new TestClient(makeServer()).open(setting(SettingId.initialWindowSize, 10));
  client.send(client.callBytes(1, 'Size', '100'));
  let frames = client.frames();
  assert.equal(dataBytes(frames, 1), 10);
  assert.equal(frames.at(-1)!.type, FrameType.data);
  client.send(frameOf(8, 0, 1, uint32(20)));
  assert.equal(dataBytes(client.frames(), 1), 20);
  client.send(frameOf(8, 0, 1, uint32(75)));
  frames = client.frames();
  assert.equal(dataBytes(frames, 1), 75);
  assert.deepEqual(frames.at(-1)!.fields, { 'grpc-status': '0' });
});

test('sending respects the connection window across streams', () => {
  const client = new TestClient(makeServer()).open(setting(SettingId.initialWindowSize, 1_000_000));
  client.send(client.callBytes(1, 'Size', '60000'), client.callBytes(3, 'Size', '60000'));
  let frames = client.frames();
  assert.equal(dataBytes(frames, 1) + dataBytes(frames, 3), 65_535);
  client.send(frameOf(8, 0, 0, uint32(100_000)));
  frames = frames.concat(client.frames());
  assert.equal(dataBytes(frames, 1) + dataBytes(frames, 3), 120_010);
});

test('SETTINGS change the windows of open streams, below zero too', () => {
  const client = new TestClient(makeServer()).open(setting(SettingId.initialWindowSize, 30));
  client.send(client.callBytes(1, 'Size', '100'));
  assert.equal(dataBytes(client.frames(), 1), 30);
  client.send(frameOf(4, 0, 0, setting(SettingId.initialWindowSize, 10)));
  assert.equal(dataBytes(client.frames(), 1), 0, 'the window is -20 now');
  client.send(frameOf(8, 0, 1, uint32(20)));
  assert.equal(dataBytes(client.frames(), 1), 0, 'and 0 now');
  client.send(frameOf(4, 0, 0, setting(SettingId.initialWindowSize, 15)));
  assert.equal(dataBytes(client.frames(), 1), 5);
  client.send(client.callHeaders(3, 'Bidi'), frameOf(8, 0, 3, uint32(0x7fffffff)));
  assert.equal(answerOf(client.frames(), 3), 'RST 3', 'a window above 2^31 - 1');
  client.send(client.callHeaders(5, 'Bidi'), frameOf(8, 0, 5, uint32(0x7ffffff0)));
  client.send(frameOf(4, 0, 0, setting(SettingId.initialWindowSize, 100)));
  assert.equal(goAwayOf(client.frames()), '3 stream window above 2^31 - 1');
});

test('frames are no larger than the peer allows', () => {
  const client = new TestClient(makeServer()).open(setting(SettingId.initialWindowSize, 1_000_000));
  client.send(frameOf(8, 0, 0, uint32(1_000_000)), client.callBytes(1, 'Size', '100000'));
  const sizes = client
    .frames()
    .filter((frame) => frame.type === 0)
    .map((frame) => frame.payload.length);
  assert.deepEqual(sizes, [16_384, 16_384, 16_384, 16_384, 16_384, 16_384, 1_701]);
});

test('receiving: what a peer sends beyond its window is an error', () => {
  const client = makeClient();
  client.send(client.callHeaders(1, 'Never'));
  for (let i = 0; i < 4; i += 1) client.send(frameOf(0, 0, 1, Buffer.alloc(16_384)));
  assert.equal(answerOf(client.frames(), 1), 'RST 3');
});

test('receiving: both windows are given back while messages are taken', () => {
  const client = makeClient();
  client.send(client.callHeaders(1, 'Count'));
  let streamWindow = 65_535;
  let connectionWindow = http2Limits.connectionWindowBytes;
  const chunk = Buffer.concat([grpcMessage(Buffer.alloc(8_187)), grpcMessage(Buffer.alloc(8_187))]);
  for (let i = 0; i < 1000; i += 1) {
    client.send(frameOf(0, 0, 1, chunk));
    streamWindow -= chunk.length;
    connectionWindow -= chunk.length;
    for (const frame of client.frames()) {
      assert.equal(frame.type, FrameType.windowUpdate);
      if (frame.id === 0) connectionWindow += readUint32(frame.payload, 0);
      else streamWindow += readUint32(frame.payload, 0);
    }
    assert.ok(streamWindow >= 16_384 && connectionWindow >= 16_384);
  }
  client.send(frameOf(0, 1, 1));
  assert.equal(answerOf(client.frames(), 1), 'OK 2000 16374000');
});

test('the connection window is given back for streams that nobody reads', () => {
  const client = makeClient();
  client.send(client.callHeaders(1, 'Unary'), frameOf(3, 0, 1, uint32(8)));
  let granted = 0;
  for (let i = 0; i < 300; i += 1) {
    client.send(frameOf(0, 0, 1, Buffer.alloc(16_384)));
    for (const frame of client.frames())
      if (frame.type === 8 && frame.id === 0) granted += readUint32(frame.payload, 0);
  }
  assert.ok(granted > 2_000_000);
});

test('large answers take turns, and small ones do not wait for them', () => {
  const client = new TestClient(makeServer()).open(setting(SettingId.initialWindowSize, 10_000_000));
  client.send(frameOf(8, 0, 0, uint32(100_000_000)));
  client.frames();
  client.transport.blocked = true;
  client.send(
    client.callBytes(1, 'Size', '1000000'),
    client.callBytes(3, 'Size', '1000000'),
    client.callBytes(5, 'Unary', 'small'),
  );
  const frames = client.frames();
  const order = frames.filter((frame) => frame.type === 0).map((frame) => frame.id);
  assert.equal(order[0], 5, 'the small one first');
  assert.deepEqual(order.slice(1, 7), [1, 3, 1, 3, 1, 3]);
  const bytes = dataBytes(frames, 1) + dataBytes(frames, 3);
  assert.ok(bytes <= http2Limits.outputPumpBytes + 16_384, 'only so much enters the output of a socket that is stuck');
  // Even now a small answer goes into the output at once.
  client.send(client.callBytes(7, 'Unary', 'also'));
  assert.equal(answerOf(client.frames(), 7), 'OK also');
  client.transport.blocked = false;
  client.transport.pendingBytes = 0;
  client.connection.transportDrained();
  while (client.connection.http2.writer.hasReady) client.connection.flush();
  const rest = client.frames();
  assert.equal(dataBytes(rest, 1) + dataBytes(rest, 3) + bytes, 2_000_010);
});

test('a socket that was stuck gives its chunks back as soon as it has taken them, whatever follows', () => {
  const client = makeClient();
  client.transport.blocked = true;
  client.send(client.callBytes(1, 'Size', '1000'));
  assert.ok(client.connection.http2.writer.output.buffer.length > 0, 'the transport holds a view');
  client.transport.blocked = false;
  client.transport.pendingBytes = 0;
  client.connection.transportDrained();
  assert.equal(client.connection.http2.writer.output.buffer.length, 0, 'an idle connection holds nothing');
});

test('ping is answered with its payload', () => {
  const client = makeClient();
  client.send(frameOf(6, 0, 0, 'abcdefgh'));
  const [frame] = client.frames();
  assert.deepEqual([frame!.type, frame!.flags, frame!.payload.toString()], [6, 1, 'abcdefgh']);
});

test('unknown frames and flags are ignored', () => {
  const client = makeClient();
  client.send(frameOf(0xee, 0xff, 5, 'xyz'), frameOf(7, 0, 0, Buffer.alloc(8)), frameOf(2, 0, 9, Buffer.alloc(5)));
  assert.equal(client.call('Unary', 'x'), 'OK x');
});

test('streams above the announced number are refused, and accepted again when there is room', () => {
  const client = makeClient({ concurrentStreamsMax: 2 });
  client.send(client.callHeaders(1, 'Bidi'), client.callHeaders(3, 'Bidi'), client.callHeaders(5, 'Bidi'));
  const frames = client.frames();
  assert.equal(answerOf(frames, 5), 'RST 7');
  client.send(frameOf(3, 0, 1, uint32(8)), client.callHeaders(7, 'Bidi'), frameOf(0, 1, 7, grpcMessage('x')));
  assert.equal(answerOf(client.frames(), 7), 'OK x');
});

test('a lost connection ends its streams', () => {
  const server = makeServer();
  const client = new TestClient(server).open();
  client.send(client.callHeaders(1, 'Bidi'), client.callBytes(3, 'Never', 'x'));
  assert.equal(client.connection.http2.streamCount, 2);
  client.connection.closed();
  assert.equal(client.connection.http2.streamCount, 0);
  assert.equal(server.connectionCount, 0);
});

test('the peer may forbid our dynamic table and limit the header list', () => {
  const client = new TestClient(makeServer()).open(setting(SettingId.headerTableSize, 0));
  for (let i = 0; i < 3; i += 1) assert.equal(client.call('Unary', 'x'), 'OK x');
  const small = new TestClient(makeServer()).open(setting(SettingId.maxHeaderListSize, 20));
  assert.equal(small.call('Unary', 'x'), 'RST 2');
});

test('a long header block goes out in CONTINUATION frames', () => {
  const client = makeClient({
    onHttpRequest: (_request, _body, respond) => respond(200, { 'x-long': 'ü'.repeat(40_000) }, Buffer.alloc(0)),
  });
  client.send(client.headers(1, get, 5));
  const bytes = client.transport.take();
  const types: number[] = [];
  for (let at = 0; at < bytes.length; at += 9 + bytes.readUIntBE(at, 3)) types.push(bytes[at + 3]!, bytes[at + 4]!);
  assert.deepEqual(types, [1, 1, 9, 0, 9, 4]);
});
