// Goal: a KV request is refused before it is proposed exactly when etcd refuses it, with its error. Method: the checks one by one.
// Overlaps of a Txn's operations are apply/txn-overlaps.test.ts's.

import assert from 'node:assert/strict';
import { test } from 'node:test';
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
import { checkDelete, checkPut, checkRange, checkTxn } from './kv-check.ts';

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
