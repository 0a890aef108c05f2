// Goal: a KV request is refused before it is proposed exactly when etcd refuses it, with its error. Method: the checks one by one;
// for overlaps random branches against etcd's checkIntervals written down once more in its own terms (intervals, points, union),
// and the one deliberate difference by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Random, SeededRandom } from '../io/random.ts';
import { DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest } from '../proto/kv-request.ts';
import { encode, type MessageInit, type Schema } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import {
  DeleteMessage,
  encodeTxn,
  type OpInit,
  PutMessage,
  RangeMessage,
  type TxnInit,
} from '../testing/kv-messages.ts';
import { checkDelete, checkOverlaps, checkPut, checkRange, checkTxn } from './kv-check.ts';

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

function parsed<R extends { parse(buffer: Buffer, start: number, end: number): boolean }>(
  request: R,
  schema: Schema,
  init: object,
): R {
  const bytes = encode(schema, init as MessageInit<Schema>);
  assert.ok(request.parse(bytes, 0, bytes.length));
  return request;
}

function txnOf(init: TxnInit): TxnRequest {
  const bytes = encodeTxn(init);
  const request = new TxnRequest();
  assert.ok(request.parse(bytes, 0, bytes.length));
  return request;
}

const range = (init: object): EtcdError | null => checkRange(parsed(new RangeRequest(), RangeMessage, init));
const put = (init: object): EtcdError | null => checkPut(parsed(new PutRequest(), PutMessage, init));

test('range: a key, and orders and targets that exist', () => {
  const key = latin1('k');
  assert.equal(range({}), etcdErrors.emptyKey);
  assert.equal(range({ sortOrder: 9 }), etcdErrors.emptyKey);
  for (const [sortOrder, sortTarget] of [
    [3, 0],
    [-1, 0],
    [0, 5],
    [2, -1],
  ]) {
    assert.equal(range({ key, sortOrder, sortTarget }), etcdErrors.invalidSortOption);
  }
  for (let order = 0; order <= 2; order++) {
    for (let target = 0; target <= 4; target++)
      assert.equal(range({ key, sortOrder: order, sortTarget: target }), null);
  }
  assert.equal(range({ key, limit: -5, revision: -5 }), null);
});

test('put and delete', () => {
  const key = latin1('k');
  assert.equal(put({}), etcdErrors.emptyKey);
  assert.equal(put({ key, ignoreValue: true, value: latin1('v') }), etcdErrors.valueProvided);
  assert.equal(put({ key, ignoreLease: true, lease: -1n }), etcdErrors.leaseProvided);
  assert.equal(put({ key, ignoreLease: true, lease: 1n << 40n }), etcdErrors.leaseProvided);
  assert.equal(put({ key, ignoreValue: true, ignoreLease: true }), null);
  assert.equal(checkDelete(parsed(new DeleteRangeRequest(), DeleteMessage, {})), etcdErrors.emptyKey);
  assert.equal(checkDelete(parsed(new DeleteRangeRequest(), DeleteMessage, { key })), null);
});

const check = (init: TxnInit, opsMax = 128): EtcdError | null => checkTxn(txnOf(init), opsMax);
const aRange: OpInit = { range: { key: latin1('k') } };

test('txn: each list has its bound, and an inner txn what the outer ones left', () => {
  const many = (count: number): OpInit[] => Array.from({ length: count }, () => aRange);
  const compares = (count: number): { key: Buffer }[] => Array.from({ length: count }, () => ({ key: latin1('k') }));
  assert.equal(check({ success: many(3), failure: many(3), compare: compares(3) }, 3), null);
  assert.equal(check({ success: many(4) }, 3), etcdErrors.tooManyOps);
  assert.equal(check({ failure: many(4) }, 3), etcdErrors.tooManyOps);
  assert.equal(check({ compare: compares(4) }, 3), etcdErrors.tooManyOps);
  // The longest list of each level counts: 2 outside leave 1 inside.
  assert.equal(check({ success: [aRange, { txn: { success: many(1) } }] }, 3), null);
  assert.equal(check({ success: [aRange, { txn: { success: many(2) } }] }, 3), etcdErrors.tooManyOps);
  assert.equal(check({ success: [{ txn: {} }], failure: many(3) }, 3), null);
  assert.equal(check({ success: [{ txn: { compare: compares(1) } }], failure: many(3) }, 3), etcdErrors.tooManyOps);
});

test('nested as deep as the bound, and one deeper', () => {
  const nested = (depth: number): TxnInit => (depth === 1 ? {} : { failure: [{ txn: nested(depth - 1) }] });
  assert.equal(check(nested(129)), null);
  assert.equal(check({ success: [{ txn: nested(129) }] }), etcdErrors.tooManyOps);
});

test('one that nests too deep to be read has too many operations, but for what stands before it', () => {
  let deep: TxnInit = {};
  for (let i = 0; i < 900; i++) deep = { success: [{ txn: deep }] };
  assert.equal(check(deep), etcdErrors.tooManyOps);
  assert.equal(check(deep, 100_000), etcdErrors.tooManyOps);
  assert.equal(check({ success: [{ put: {} }, { txn: deep }] }), etcdErrors.emptyKey);
  assert.equal(check({ success: [{ txn: deep }, { put: {} }] }), etcdErrors.tooManyOps);
});

test('txn: its parts are checked, in order', () => {
  assert.equal(check({ compare: [{}] }), etcdErrors.emptyKey);
  assert.equal(check({ success: [{}] }), etcdErrors.keyNotFound, 'an operation that is none');
  assert.equal(check({ success: [aRange, { put: {} }] }), etcdErrors.emptyKey);
  assert.equal(check({ failure: [{ delete: {} }] }), etcdErrors.emptyKey);
  assert.equal(check({ failure: [{ range: { key: latin1('k'), sortOrder: 7 } }] }), etcdErrors.invalidSortOption);
  assert.equal(check({ success: [{ txn: { failure: [{ put: {} }] } }] }), etcdErrors.emptyKey);
  assert.equal(check({ success: [{ txn: { compare: [{}] } }] }), etcdErrors.emptyKey);
  assert.equal(check({}), null);
});

// --- overlaps ---

const putOp = (key: string, more: object = {}): OpInit => ({ put: { key: latin1(key), ...more } });
const deleteOp = (key: string, end = ''): OpInit => ({ delete: { key: latin1(key), rangeEnd: latin1(end) } });
const overlaps = (...ops: OpInit[]): boolean => checkOverlaps(txnOf({ success: ops }).success) !== null;

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
