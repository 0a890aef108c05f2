// Goal: a Txn that puts what it deletes is refused exactly when etcd refuses it, but for one case more. Method: random branches against
// etcd's checkIntervals written down once more in its own terms (intervals, points, union), and the one deliberate difference by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Random, SeededRandom } from '../io/random.ts';
import { TxnRequest } from '../proto/kv-request.ts';
import { encodeTxn, type OpInit } from '../testing/kv-messages.ts';
import { checkOverlaps } from './txn-overlaps.ts';

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

const aRange: OpInit = { range: { key: latin1('k') } };
const putOp = (key: string, more: object = {}): OpInit => ({ put: { key: latin1(key), ...more } });
const deleteOp = (key: string, end = ''): OpInit => ({ delete: { key: latin1(key), rangeEnd: latin1(end) } });

function overlaps(...ops: OpInit[]): boolean {
  const bytes = encodeTxn({ success: ops });
  const txn = new TxnRequest();
  assert.ok(txn.parse(bytes, 0, bytes.length));
  return checkOverlaps(txn.success) !== null;
}

/** [begin, end) of strings, as in etcd; the end '\0' is a string like any other. */
type Interval = readonly [string, string];

/** etcd's checkIntervals: the puts and deletes of a branch, or null for an overlap. */
function checkIntervals(ops: readonly OpInit[]): { puts: Set<string>; dels: Interval[] } | null {
  const dels: Interval[] = [];
  const puts = new Set<string>();
  const meets = (key: string): boolean => dels.some(([begin, end]) => begin < `${key}\0` && key < end);
  for (const op of ops) {
    if (op.delete === undefined) continue;
    const key = op.delete.key!.toString('latin1');
    const end = op.delete.rangeEnd!.toString('latin1');
    dels.push([key, end === '' ? `${key}\0` : end]);
  }
  for (const op of ops) {
    if (op.txn === undefined) continue;
    const then = checkIntervals(op.txn.success ?? []);
    const otherwise = then === null ? null : checkIntervals(op.txn.failure ?? []);
    if (then === null || otherwise === null) return null;
    for (const key of then.puts) {
      if (puts.has(key) || meets(key)) return null;
      puts.add(key);
    }
    for (const key of otherwise.puts) {
      if ((puts.has(key) && !then.puts.has(key)) || meets(key)) return null;
      puts.add(key);
    }
    dels.push(...then.dels, ...otherwise.dels);
  }
  for (const op of ops) {
    if (op.put === undefined) continue;
    const key = op.put.key!.toString('latin1');
    if (puts.has(key) || meets(key)) return null;
    puts.add(key);
  }
  return { puts, dels };
}

function randomOps(random: Random, depth: number): OpInit[] {
  const key = (): string => 'abc\0\xff'[random.below(5)]! + ['', '', 'a', '\0'][random.below(4)]!;
  return Array.from({ length: random.below(4) }, (): OpInit => {
    const kind = random.below(depth > 2 ? 4 : 6);
    if (kind === 0) return deleteOp(key(), random.below(3) === 0 ? ['\0', key()][random.below(2)]! : '');
    if (kind < 3) return putOp(key());
    if (kind === 3) return aRange;
    return { txn: { success: randomOps(random, depth + 1), failure: randomOps(random, depth + 1) } };
  });
}

test('random branches overlap exactly where etcd finds it', () => {
  const random = new SeededRandom(1);
  const seen = { refused: 0, passed: 0 };
  for (let round = 0; round < 20_000; round++) {
    const ops = randomOps(random, 0);
    const expected = checkIntervals(ops) === null;
    assert.equal(overlaps(...ops), expected, JSON.stringify(ops));
    if (expected) seen.refused++;
    else if (ops.length > 1) seen.passed++;
  }
  assert.ok(seen.refused > 2000 && seen.passed > 2000, JSON.stringify(seen));
});

test('the rules in words', () => {
  assert.equal(overlaps(putOp('a'), putOp('a')), true);
  assert.equal(overlaps(putOp('a'), putOp('b')), false);
  assert.equal(overlaps(putOp('a'), deleteOp('a')), true, 'in either order');
  assert.equal(overlaps(deleteOp('a', 'c'), putOp('b')), true);
  assert.equal(overlaps(deleteOp('a', 'c'), putOp('c')), false);
  assert.equal(overlaps(deleteOp('a'), deleteOp('a', 'b')), false, 'deletes may meet');
  const either = { txn: { success: [putOp('a')], failure: [putOp('a')] } };
  assert.equal(overlaps(either), false, 'only one of them happens');
  assert.equal(overlaps(either, putOp('a')), true);
  assert.equal(overlaps(either, either), true);
  assert.equal(overlaps(deleteOp('a'), either), true);
  const inner = { txn: { success: [deleteOp('a')] } };
  assert.equal(overlaps(inner, putOp('a')), true);
  assert.equal(overlaps(inner, either), true, 'a put after a delete in an inner txn before');
  assert.equal(overlaps(either, inner), false, 'but not the other way round, as in etcd');
});

test('a delete to the last key meets no put, as in etcd; but a put that keeps something may not follow it', () => {
  const tail = deleteOp('b', '\0');
  assert.equal(overlaps(tail, putOp('c')), false);
  assert.equal(overlaps(putOp('c'), tail), false);
  for (const keep of [{ ignoreValue: true }, { ignoreLease: true }]) {
    const keeping = putOp('c', keep);
    assert.equal(overlaps(tail, keeping), true, 'etcd accepts this and crashes');
    assert.equal(overlaps(keeping, tail), false);
    assert.equal(overlaps(tail, putOp('a', keep)), false);
    assert.equal(overlaps(deleteOp('c', '\0'), keeping), true);
    assert.equal(overlaps(tail, { txn: { failure: [keeping] } }), true);
    assert.equal(overlaps({ txn: { failure: [tail] } }, keeping), true);
    assert.equal(overlaps({ txn: { success: [tail], failure: [keeping] } }), false, 'only one of them happens');
    assert.equal(overlaps({ txn: { success: [deleteOp('d', '\0')], failure: [tail] } }, keeping), true);
  }
});
