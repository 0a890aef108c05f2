// Goal: the small parts of the gRPC engine, each by itself. Method: tables of inputs with the values that the gRPC
// specification or grpc-go give, and for the timer wheel a comparison with a sorted list over random operations.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RequestHead } from '../http2/request-head.ts';
import { openGate, planCall } from './call-plan.ts';
import { FlushQueue } from './flush-queue.ts';
import { MessageAssembly } from './message-assembly.ts';
import { decodeBinaryHeader } from './metadata.ts';
import { Router } from './router.ts';
import { decodeStatusMessage, encodeStatusMessage } from './status-message.ts';
import { parseTimeout } from './timeout.ts';
import { Timer, TimerWheel } from './timer-wheel.ts';

test('grpc-timeout', () => {
  const good: [string, number][] = [
    ['1H', 3_600_000],
    ['2M', 120_000],
    ['3S', 3_000],
    ['4m', 4],
    ['5000u', 5],
    ['6000000n', 6],
    ['99999999S', 99_999_999_000],
    ['0S', 0],
  ];
  for (const [text, ms] of good) assert.ok(Math.abs((parseTimeout(text) as number) - ms) < 1e-6, text);
  const bad: [string, string][] = [
    ['', 'transport: timeout string is too short: ""'],
    ['S', 'transport: timeout string is too short: "S"'],
    ['123456789S', 'transport: timeout string is too long: "123456789S"'],
    ['1s', 'transport: timeout unit is not recognized: "1s"'],
    ['-1S', 'strconv.ParseUint: parsing "-1": invalid syntax'],
    ['1.5S', 'strconv.ParseUint: parsing "1.5": invalid syntax'],
  ];
  for (const [text, error] of bad) assert.equal(parseTimeout(text), error);
});

test('grpc-message there and back', () => {
  const texts = ['', 'plain text', '100%', 'größe', '日本\n語', '😀', ' edges ', '\x00\x7f'];
  for (const text of texts) {
    const encoded = encodeStatusMessage(text, 1000);
    assert.match(encoded, /^[!-~]*( [!-~]+)*$| /);
    assert.ok(!encoded.startsWith(' ') && !encoded.endsWith(' '));
    assert.equal(decodeStatusMessage(encoded), text);
  }
  assert.equal(encodeStatusMessage('a%b', 100), 'a%25b');
  assert.equal(encodeStatusMessage('  a  b  ', 100), '%20%20a  b%20%20', 'spaces in the middle stay');
  assert.equal(encodeStatusMessage('   ', 100), '%20%20%20');
  assert.equal(encodeStatusMessage('x'.repeat(50), 10), 'x'.repeat(10));
  assert.equal(encodeStatusMessage('üü', 7), '%C3%BC', 'no half character');
  assert.equal(encodeStatusMessage('\ud800', 100), '%EF%BF%BD', 'a lone surrogate');
});

test('binary headers', () => {
  assert.deepEqual(decodeBinaryHeader('AQID'), Buffer.from([1, 2, 3]));
  assert.deepEqual(decodeBinaryHeader('AQ=='), Buffer.from([1]));
  assert.deepEqual(decodeBinaryHeader('AQ'), Buffer.from([1]));
  assert.deepEqual(decodeBinaryHeader(''), Buffer.alloc(0));
  for (const bad of ['A', 'AQ=', '*', 'AQIDA', 'A Q=']) assert.equal(decodeBinaryHeader(bad), null, bad);
});

test('router: what an unknown path is called', () => {
  const router = new Router();
  router.unary('a.B', 'C', () => {});
  assert.equal(router.find('/a.B/C')?.index, 0);
  assert.equal(router.unknownPath('/a.B/D'), 'unknown method D for service a.B');
  assert.equal(router.unknownPath('/x/y/D'), 'unknown service x/y');
  assert.equal(router.unknownPath('//'), 'unknown service ');
  assert.equal(router.unknownPath('a.B/C'), 'malformed method name: "a.B/C"');
  assert.throws(() => router.unary('a.B', 'C', () => {}), /once/);
});

test('a plan for HTTP when somebody serves it', () => {
  const head = new RequestHead();
  head.method = 'GET';
  head.path = '/health';
  assert.equal(planCall(head, new Router(), openGate, true).http, true);
  assert.equal(planCall(head, new Router(), openGate, false).rejection?.httpStatus, 415);
});

test('message assembly grows with what has come', () => {
  const assembly = new MessageAssembly();
  assembly.append(Buffer.from([0, 0x7f, 0xff]), 0, 3);
  assert.deepEqual([assembly.bytes, assembly.missing], [3, 0]);
  assembly.append(Buffer.from([0xff, 0xff, 1]), 0, 3);
  assert.equal(assembly.missing, 0x7fffffff - 1);
  assert.ok(assembly.buffer.length < 10_000);
  assembly.start = 6;
  for (let i = 0; i < 100; i += 1) assembly.append(Buffer.alloc(100, i), 0, 100);
  assert.equal(assembly.bytes, 10_000);
  assert.equal(assembly.buffer[assembly.start], 0);
  assert.equal(assembly.buffer[assembly.end - 1], 99);
});

test('flush queue: one schedule, and what enters while flushing waits for the next round', () => {
  const runs: (() => void)[] = [];
  const queue = new FlushQueue((run) => runs.push(run));
  let flushes = 0;
  const connection = {
    flush: (): void => {
      flushes += 1;
      if (flushes === 1) queue.add(connection);
    },
  };
  queue.add(connection);
  assert.equal(runs.length, 1);
  queue.flushAll();
  assert.equal(flushes, 1);
  runs[0]!();
  assert.equal(flushes, 2);
  queue.add(connection);
  assert.equal(runs.length, 2);
});

test('timer wheel: against a sorted list, with jumps of the clock', () => {
  const seed = Date.now() % 100_000;
  let state = seed;
  const random = (below: number): number => {
    state = (state * 1_103_515_245 + 12_345) & 0x7fffffff;
    return state % below;
  };
  const wheel = new TimerWheel(10, 0);
  const due = new Map<Timer, number>();
  let now = 0;
  const owner = {
    timerFired: (timer: Timer): void => {
      const at = due.get(timer);
      assert.ok(at !== undefined && at <= now, `seed ${seed}: fired early`);
      assert.ok(now - at < jump + 10, `seed ${seed}: fired late`);
      due.delete(timer);
      if (random(4) === 0) set(timer);
    },
  };
  let jump = 0;
  const set = (timer: Timer): void => {
    const at = now + random(20_000);
    due.set(timer, Math.max(at, now + 1));
    wheel.set(timer, at);
  };
  const timers = Array.from({ length: 300 }, () => new Timer(owner));
  for (let step = 0; step < 3000; step += 1) {
    const timer = timers[random(300)]!;
    if (random(3) === 0) {
      wheel.cancel(timer);
      due.delete(timer);
    } else {
      set(timer);
    }
    jump = random(100) === 0 ? random(30_000) : random(50);
    now += jump;
    wheel.advance(now);
    assert.equal(wheel.count, due.size, `seed ${seed}`);
    for (const at of due.values()) assert.ok(at > now - 20, `seed ${seed}: a due timer was left behind`);
  }
});
