// Goal: messages that have not come whole take bounded memory together, the oldest makes way, and what comes whole is what was sent.
// Method: many bodies in random pieces against a list of what each was given; single cases where the order decides.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { peerUnfinishedBytesInitial } from '../cluster-limits.ts';
import { SeededRandom } from '../io/random.ts';
import { UnfinishedBodies, type UnfinishedBody } from './unfinished-bodies.ts';

const kib = 1024;
const never = (): void => assert.fail('dropped');

test('a body in pieces is whole again, in memory of its size', () => {
  const bodies = new UnfinishedBodies(1024 * kib);
  const sent = Buffer.from(Array.from({ length: 300 * kib }, (_, at) => (at * 31) % 251));
  for (const announced of [sent.length, Number.POSITIVE_INFINITY]) {
    const body = bodies.open(never);
    for (let at = 0; at < sent.length; at += 7001) assert.ok(body.append(sent.subarray(at, at + 7001), announced));
    assert.ok(bodies.bytes >= sent.length && bodies.bytes <= 2 * sent.length);
    const whole = body.take();
    assert.deepEqual(whole, sent);
    assert.equal(whole.buffer.byteLength, sent.length);
    assert.equal(bodies.bytes, 0);
  }
});

test('what is announced takes nothing before it comes, and single bytes cost no more than they are', () => {
  const bodies = new UnfinishedBodies(1024 * kib);
  const body = bodies.open(never);
  assert.equal(bodies.bytes, 0);
  body.append(Buffer.alloc(1), 1 << 30);
  assert.equal(bodies.bytes, peerUnfinishedBytesInitial);
  for (let i = 0; i < 2 * peerUnfinishedBytesInitial; i++) body.append(Buffer.alloc(1), 1 << 30);
  assert.equal(bodies.bytes, 4 * peerUnfinishedBytesInitial);
  body.close();
  body.close();
  assert.equal(bodies.bytes, 0);
});

test('the oldest makes way, one that is too large for itself, and nobody for what fits', () => {
  const bodies = new UnfinishedBodies(10 * kib);
  const dropped: string[] = [];
  const open = (name: string): UnfinishedBody => bodies.open(() => dropped.push(name));
  const [a, b, c] = [open('a'), open('b'), open('c')];
  // Who has sent nothing is not the oldest.
  b.append(Buffer.alloc(4 * kib), 8 * kib);
  c.append(Buffer.alloc(2 * kib), 2 * kib);
  assert.ok(a.append(Buffer.alloc(2 * kib), 2 * kib));
  assert.deepEqual([dropped, bodies.bytes], [['b'], 4 * kib]);
  assert.equal(b.append(Buffer.alloc(1), 8 * kib), false);
  assert.equal(b.length, 0);
  // The oldest itself wants more than there is.
  assert.equal(c.append(Buffer.alloc(9 * kib), 11 * kib), false);
  assert.deepEqual([dropped, bodies.bytes], [['b', 'c'], 2 * kib]);
  const e = open('e');
  assert.equal(e.append(Buffer.alloc(11 * kib), 11 * kib), false);
  assert.deepEqual([dropped, bodies.bytes], [['b', 'c', 'a', 'e'], 0]);
});

test('whatever comes in whatever order, the bound holds and who is not dropped gets its own', () => {
  const seed = Number(process.env['KEELSON_SEED'] ?? Date.now() % 1_000_000);
  const random = new SeededRandom(seed);
  const bytesMax = 900 * kib;
  const bodies = new UnfinishedBodies(bytesMax);
  const open: { body: UnfinishedBody; sent: Buffer; isDropped: boolean }[] = [];
  let drops = 0;
  let whole = 0;
  for (let step = 0; step < 20_000; step++) {
    if (open.length < 40 && random.below(4) === 0) {
      const one = {
        sent: Buffer.alloc(0),
        isDropped: false,
        body: bodies.open(() => {
          one.isDropped = true;
          drops++;
        }),
      };
      open.push(one);
    }
    if (open.length === 0) continue;
    const at = random.below(open.length);
    const one = open[at]!;
    const chunk = Buffer.alloc(random.below(20 * kib), step % 251);
    if (random.below(6) === 0) {
      open.splice(at, 1);
      if (one.isDropped || random.below(3) === 0) one.body.close();
      else {
        assert.ok(one.body.take().equals(one.sent), `seed ${seed}`);
        whole++;
      }
    } else if (one.body.append(chunk, Number.POSITIVE_INFINITY)) one.sent = Buffer.concat([one.sent, chunk]);
    else assert.ok(one.isDropped, `seed ${seed}`);
    assert.ok(bodies.bytes <= bytesMax, `seed ${seed}`);
  }
  assert.ok(drops > 20 && whole > 100, `seed ${seed}: ${drops} ${whole}`);
  for (const { body } of open) body.close();
  assert.equal(bodies.bytes, 0, `seed ${seed}`);
});
