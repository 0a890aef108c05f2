// Goal: a client that abuses HTTP/2 costs bounded memory and CPU, is told ENHANCE_YOUR_CALM (11), and the connections beside
// it are served. Method: each known attack against a server in memory whose clock stands still (so that nothing is earned
// by time), with a second connection that calls before, in between and after; the attack's effect is counted in streams
// opened, bytes held and frames answered, and its wall time has a generous bound.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grpcLimits, type Http2Limits, http2Limits } from '../connection-limits.ts';
import { echoHttp } from '../testing/echo-server.ts';
import {
  answerOf,
  frameOf,
  goAwayOf,
  grpcFields,
  grpcMessage,
  memoryServer,
  setting,
  TestClient,
  uint32,
} from '../testing/http2-client.ts';
import { FrameType, SettingId } from './frame.ts';

const calm = /^11 /;

class Clock {
  ms = 0;
  nowMs(): number {
    return this.ms;
  }
}

interface Bench {
  readonly clock: Clock;
  readonly attacker: TestClient;
  readonly victim: TestClient;
}

function setUp(limits: Partial<Http2Limits> = {}, overrides: Parameters<typeof memoryServer>[0] = {}): Bench {
  const clock = new Clock();
  const server = memoryServer({
    clock,
    onHttpRequest: echoHttp,
    http2Limits: { ...http2Limits, ...limits },
    ...overrides,
  });
  const victim = new TestClient(server).open();
  assert.equal(victim.call('Unary', 'before'), 'OK before');
  return { clock, attacker: new TestClient(server).open(), victim };
}

/** Sends what `next` makes until the server says goodbye. Returns how often, and the GOAWAY. */
function attack(bench: Bench, countMax: number, next: (i: number) => Buffer): { count: number; goAway: string } {
  const begin = process.cpuUsage();
  let count = 0;
  let goAway = 'none';
  while (count < countMax && goAway === 'none') {
    const batch: Buffer[] = [];
    for (let i = 0; i < 100 && count < countMax; i += 1, count += 1) batch.push(next(count));
    bench.attacker.send(...batch);
    goAway = goAwayOf(bench.attacker.frames());
    if (count % 1000 === 0) assert.equal(bench.victim.call('Unary', 'meanwhile'), 'OK meanwhile');
  }
  assert.equal(bench.victim.call('Unary', 'after'), 'OK after');
  if (goAway !== 'none') {
    assert.ok(bench.attacker.transport.ended);
    // Deaf from now on: more of it costs nothing.
    for (let i = 0; i < 100; i += 1) bench.attacker.connection.receive(next(count + i));
    assert.equal(bench.attacker.transport.take().length, 0);
    assert.equal(bench.attacker.connection.http2.streamCount, 0);
  }
  const { user, system } = process.cpuUsage(begin);
  assert.ok(user + system < 10_000_000, `cost ${user + system} us of CPU`);
  return { count, goAway };
}

test('rapid reset (CVE-2023-44487)', () => {
  const bench = setUp();
  const { count, goAway } = attack(bench, 1_000_000, () => {
    const id = bench.attacker.newId();
    return Buffer.concat([bench.attacker.callBytes(id, 'Never', 'x'), frameOf(FrameType.rstStream, 0, id, uint32(8))]);
  });
  assert.match(goAway, calm);
  assert.ok(count <= http2Limits.resetBurst + 100, `${count}`);
});

test('calls that are cancelled now and then are no attack', () => {
  const bench = setUp();
  const { goAway } = attack(bench, 20_000, (i) => {
    const id = bench.attacker.newId();
    if (i % 2 === 0) return bench.attacker.callBytes(id, 'Unary', 'x');
    return Buffer.concat([bench.attacker.callHeaders(id, 'Bidi'), frameOf(FrameType.rstStream, 0, id, uint32(8))]);
  });
  assert.equal(goAway, 'none');
  // Nor are many at once after a quiet second.
  for (let second = 0; second < 10; second += 1) {
    bench.clock.ms += 4_000;
    const burst = attack(bench, 1_500, () => {
      const id = bench.attacker.newId();
      return Buffer.concat([bench.attacker.callHeaders(id, 'Bidi'), frameOf(FrameType.rstStream, 0, id, uint32(8))]);
    });
    assert.equal(burst.goAway, 'none');
  }
});

test('MadeYouReset (CVE-2025-8671): resets that the client makes us send', () => {
  const tricks: ((id: number, attacker: TestClient) => Buffer)[] = [
    (id) => frameOf(FrameType.windowUpdate, 0, id, uint32(0)),
    (id) => frameOf(FrameType.windowUpdate, 0, id, uint32(0x7fffffff)),
    (id) => frameOf(FrameType.priority, 0, id, uint32(id)),
    (id, attacker) => attacker.headers(id, [{ name: 'x', value: '1' }], 4),
    (id) => frameOf(FrameType.priority, 0, id, Buffer.concat([uint32(id), Buffer.from([1])])),
  ];
  for (const trick of tricks) {
    const bench = setUp();
    const { count, goAway } = attack(bench, 100_000, () => {
      const id = bench.attacker.newId();
      return Buffer.concat([bench.attacker.callHeaders(id, 'Bidi'), trick(id, bench.attacker)]);
    });
    assert.match(goAway, calm);
    assert.ok(count <= http2Limits.violationBurst + 100, `${count}`);
  }
});

test('malformed requests in masses', () => {
  const bench = setUp();
  const { count, goAway } = attack(bench, 100_000, () =>
    bench.attacker.headers(bench.attacker.newId(), [{ name: ':path', value: '/' }], 5),
  );
  assert.match(goAway, calm);
  assert.ok(count <= http2Limits.violationBurst + 100);
});

test('DATA for streams that were closed', () => {
  const bench = setUp();
  const { goAway } = attack(bench, 100_000, () => {
    const id = bench.attacker.newId();
    return Buffer.concat([bench.attacker.callBytes(id, 'Unary', ''), frameOf(0, 0, id, 'x')]);
  });
  assert.match(goAway, calm);
});

test('CONTINUATION flood (CVE-2024-27316): small, empty and large frames', () => {
  for (const size of [0, 1, 16_384]) {
    const bench = setUp();
    const first = bench.attacker.callHeaders(bench.attacker.newId(), 'Unary');
    first[4] = 0;
    bench.attacker.send(first);
    const { count, goAway } = attack(bench, 100_000, () => frameOf(FrameType.continuation, 0, 1, Buffer.alloc(size)));
    assert.match(goAway, calm);
    assert.ok(count <= 100);
  }
});

test('HPACK bomb: one long field, referred to from every byte of a block', () => {
  const bench = setUp();
  const id = bench.attacker.newId();
  const value = 'x'.repeat(3_900);
  bench.attacker.send(bench.attacker.callHeaders(id, 'Bidi', [{ name: 'bomb', value, indexed: true }]));
  const before = process.memoryUsage().heapUsed;
  const { goAway } = attack(bench, 10_000, () => {
    const reference = bench.attacker.block([{ name: 'bomb', value, indexed: true }]);
    assert.equal(reference.length, 1);
    const bomb = Buffer.concat([
      bench.attacker.block(grpcFields('Bidi').slice(0, 2)),
      Buffer.alloc(16_000, reference[0]),
    ]);
    return frameOf(FrameType.headers, 5, bench.attacker.newId(), bomb);
  });
  assert.match(goAway, calm);
  // 16,000 references stand for 62 MB a block, and a hundred were sent.
  assert.ok(process.memoryUsage().heapUsed - before < 64_000_000);
});

test('floods of frames that carry nothing', () => {
  const floods: Record<string, (bench: Bench) => Buffer> = {
    SETTINGS: () => frameOf(FrameType.settings, 0, 0, setting(SettingId.initialWindowSize, 1000)),
    'SETTINGS acknowledgement': () => frameOf(FrameType.settings, 1, 0),
    'PING acknowledgement': () => frameOf(FrameType.ping, 1, 0, Buffer.alloc(8)),
    WINDOW_UPDATE: () => frameOf(FrameType.windowUpdate, 0, 0, uint32(1)),
    PRIORITY: () => frameOf(FrameType.priority, 0, 7, Buffer.alloc(5)),
    'empty DATA': () => frameOf(FrameType.data, 0, 1),
    unknown: () => frameOf(0x77, 0, 0, 'x'),
    GOAWAY: () => frameOf(FrameType.goAway, 0, 0, Buffer.alloc(8)),
    'RST_STREAM of a closed stream': () => frameOf(FrameType.rstStream, 0, 3, uint32(8)),
  };
  for (const [what, make] of Object.entries(floods)) {
    const bench = setUp();
    const { attacker } = bench;
    attacker.send(attacker.callHeaders(attacker.newId(), 'Bidi'), attacker.callBytes(attacker.newId(), 'Unary', 'x'));
    const { count, goAway } = attack(bench, 1_000_000, () => make(bench));
    assert.match(goAway, calm, what);
    assert.ok(count <= http2Limits.floodBurst + 200, `${what}: ${count}`);
  }
});

test('SETTINGS that change the windows of many streams are paid for by the stream, whatever else is sent', () => {
  const bench = setUp();
  const { attacker } = bench;
  const streams = 5_000;
  for (let i = 0; i < streams; i += 1) attacker.connection.receive(attacker.callHeaders(attacker.newId(), 'Bidi'));
  // The DATA earns what the SETTINGS frame alone costs.
  const data = Buffer.concat(Array.from({ length: 6 }, () => frameOf(FrameType.data, 0, 1, grpcMessage('x'))));
  const { count, goAway } = attack(bench, 2_000, (i) =>
    Buffer.concat([data, frameOf(FrameType.settings, 0, 0, setting(SettingId.initialWindowSize, i))]),
  );
  assert.match(goAway, calm);
  assert.ok(count <= (http2Limits.floodBurst * http2Limits.floodStreamsChanged) / streams + 100, `${count}`);
});

test('PING flood: the keepalive policy ends it at the third', () => {
  const bench = setUp();
  const { goAway } = attack(bench, 10_000, () => frameOf(FrameType.ping, 0, 0, Buffer.alloc(8)));
  assert.equal(goAway, '11 too_many_pings');
});

test('window updates that go with answers are no flood', () => {
  const bench = setUp();
  const { goAway } = attack(bench, 30_000, () =>
    Buffer.concat([
      bench.attacker.callBytes(bench.attacker.newId(), 'Unary', 'x'),
      frameOf(FrameType.windowUpdate, 0, 0, uint32(6)),
      frameOf(FrameType.windowUpdate, 0, 0, uint32(1)),
    ]),
  );
  assert.equal(goAway, 'none');
});

test('zero-window stall: answers that nobody lets us send are bounded, then the connection is closed', () => {
  const bench = setUp({ pendingRefuseBytes: 1_000_000, pendingCloseBytes: 1_500_000 });
  const { attacker, victim } = bench;
  attacker.send(frameOf(FrameType.settings, 0, 0, setting(SettingId.initialWindowSize, 0)));
  attacker.frames();
  // One by one: new streams are refused when too much waits.
  let refused = 0;
  for (let i = 0; i < 100; i += 1) if (attacker.call('Size', '100000') === 'RST 7') refused += 1;
  assert.ok(refused >= 88, `${refused}`);
  assert.ok(attacker.connection.http2.writer.pendingBytes <= 1_100_100);
  assert.equal(victim.call('Unary', 'x'), 'OK x');
  // An open stream that goes on to ask is the end of it.
  const other = setUp({ pendingRefuseBytes: 1_000_000, pendingCloseBytes: 1_500_000 });
  other.attacker.send(frameOf(FrameType.settings, 0, 0, setting(SettingId.initialWindowSize, 0)));
  const ids = Array.from({ length: 40 }, () => other.attacker.newId());
  for (const id of ids) other.attacker.send(other.attacker.callHeaders(id, 'Size'));
  for (const id of ids) other.attacker.connection.receive(frameOf(0, 1, id, grpcMessage('100000')));
  assert.ok(other.attacker.connection.http2.writer.pendingBytes <= 1_600_100);
  other.attacker.connection.flush();
  assert.match(goAwayOf(other.attacker.frames()), calm);
  assert.equal(other.victim.call('Unary', 'x'), 'OK x');
});

test('slow reader: output is bounded and its input is no longer read', () => {
  const bench = setUp({ outputPauseBytes: 200_000, outputDirectBytes: 100_000, outputPumpBytes: 50_000 });
  const { attacker, victim } = bench;
  attacker.transport.blocked = true;
  let sent = 0;
  while (!attacker.connection.inputPaused && sent < 100_000) {
    attacker.send(
      attacker.callBytes(attacker.newId(), 'Unary', 'x'.repeat(500)),
      attacker.callBytes(attacker.newId(), 'Fail', 'no'),
    );
    sent += 1;
  }
  assert.ok(attacker.connection.inputPaused, 'the listener stops reading here');
  assert.ok(attacker.transport.pendingBytes < 300_000);
  const { writer } = attacker.connection.http2;
  assert.ok(writer.output.length + writer.pendingBytes < 3_000_000);
  assert.equal(victim.call('Unary', 'x'), 'OK x');
  // It begins to read: everything comes.
  attacker.transport.blocked = false;
  attacker.transport.pendingBytes = 0;
  attacker.connection.transportDrained();
  while (writer.hasReady) attacker.connection.flush();
  assert.equal(attacker.connection.inputPaused, false);
});

test('streams that only open are bounded by the number of streams', () => {
  const bench = setUp({ streamsMax: 500 });
  const { goAway } = attack(bench, 100_000, () => bench.attacker.callHeaders(bench.attacker.newId(), 'Bidi'));
  assert.match(goAway, calm);
});

test('incomplete messages are bounded', () => {
  const bench = setUp(
    {},
    { limits: { ...grpcLimits, assemblyGrantBytes: 300_000, assemblyBytesMax: 1_000_000 }, messageBytesMax: 200_000 },
  );
  const { attacker } = bench;
  const part = grpcMessage(Buffer.alloc(150_000)).subarray(0, 16_384);
  let answers = 0;
  for (let i = 0; i < 200; i += 1) {
    const id = attacker.newId();
    attacker.send(attacker.callHeaders(id, 'Unary'), frameOf(0, 0, id, part));
    if (answerOf(attacker.frames(), id).startsWith('8 keelson: too many bytes')) answers += 1;
    assert.ok(attacker.connection.assemblyBytes <= 1_000_000);
  }
  assert.equal(answers, 200 - Math.floor(1_000_000 / 16_384));
  assert.equal(bench.victim.call('Unary', 'x'), 'OK x');
  attacker.connection.closed();
  assert.equal(attacker.connection.assemblyBytes, 0);
});

test('bodies of HTTP requests are bounded each and together with incomplete messages, and their account is settled', () => {
  const bench = setUp({}, { limits: { ...grpcLimits, assemblyBytesMax: 500_000 } });
  const { attacker } = bench;
  const post = [
    { name: ':method', value: 'POST' },
    { name: ':scheme', value: 'http' },
    { name: ':path', value: '/x' },
  ];
  const part = Buffer.alloc(16_000);
  const statuses: (string | undefined)[] = [];
  const ids: number[] = [];
  for (let i = 0; i < 40; i += 1) {
    const id = attacker.newId();
    ids.push(id);
    attacker.send(attacker.headers(id, post), frameOf(0, 0, id, part));
    statuses.push(attacker.frames().find((frame) => frame.id === id && frame.type === 1)?.fields[':status']);
  }
  assert.equal(attacker.connection.assemblyBytes, 31 * 16_000);
  assert.deepEqual(statuses, [...new Array(31).fill(undefined), ...new Array(9).fill('503')]);
  // An incomplete message has no room either, until bodies are done or given up.
  const call = attacker.newId();
  attacker.send(attacker.callHeaders(call, 'Unary'), frameOf(0, 0, call, grpcMessage(part).subarray(0, 9_000)));
  assert.match(answerOf(attacker.frames(), call), /^8 keelson: too many bytes/);
  attacker.send(frameOf(FrameType.rstStream, 0, ids[0]!, uint32(8)), frameOf(0, 1, ids[1]!, 'the end'));
  const answer = attacker.frames().filter((frame) => frame.id === ids[1]! && frame.type === 0);
  assert.equal(Buffer.concat(answer.map(({ payload }) => payload)).toString('latin1', 16_000), 'the end');
  assert.equal(attacker.connection.assemblyBytes, 29 * 16_000);
  attacker.connection.closed();
  assert.equal(attacker.connection.assemblyBytes, 0);
  assert.equal(bench.victim.call('Unary', 'x'), 'OK x');
});

test('answers given at last: a cancelled stream drops what waits in it', () => {
  const bench = setUp();
  const { attacker } = bench;
  attacker.send(frameOf(FrameType.settings, 0, 0, setting(SettingId.initialWindowSize, 0)));
  for (let i = 0; i < 50; i += 1) {
    const id = attacker.newId();
    attacker.send(attacker.callBytes(id, 'Size', '1000000'));
    attacker.send(frameOf(FrameType.rstStream, 0, id, uint32(8)));
    assert.equal(attacker.connection.http2.writer.pendingBytes, 0);
  }
  assert.equal(attacker.call('Unary', ''), 'nothing');
});

test('a shut connection window: streams that end while they wait for it are not kept', () => {
  const bench = setUp();
  const { attacker } = bench;
  const { writer } = attacker.connection.http2;
  // Takes all of the connection's window: it is never opened again.
  attacker.call('Size', '65535');
  const stays = attacker.newId();
  attacker.send(attacker.callBytes(stays, 'Size', '100'));
  for (let i = 0; i < 500; i += 1) {
    const id = attacker.newId();
    attacker.send(attacker.callBytes(id, 'Size', '100'));
    attacker.send(frameOf(FrameType.rstStream, 0, id, uint32(8)));
    assert.ok(writer.ready.count <= 2, `${writer.ready.count} streams are kept`);
  }
  attacker.frames();
  attacker.send(frameOf(FrameType.windowUpdate, 0, 0, uint32(1_000)));
  assert.equal(answerOf(attacker.frames(), stays).length, 103);
  assert.equal(writer.ready.count, 0);
});
