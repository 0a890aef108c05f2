// Goal: requests cost what etcd 3.7.1 reckons. Method: the costs by hand, nested Txns included.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PutRequest, TxnRequest } from '../proto/kv-request.ts';
import { encode } from '../proto/message.ts';
import { encodeTxn, type OpInit, PutMessage, type TxnInit } from '../testing/kv-messages.ts';
import { LEASE_COST_BYTES, putCost, txnCost } from './quota.ts';

function put(keyLength: number, valueLength: number): OpInit {
  return { put: { key: Buffer.alloc(keyLength, 1), value: Buffer.alloc(valueLength, 2), lease: 5n } };
}

function costOf(txn: TxnInit): number {
  const bytes = encodeTxn(txn);
  const request = new TxnRequest();
  assert.ok(request.parse(bytes, 0, bytes.length));
  return txnCost(request);
}

test('a put: key, value and 256 bytes', () => {
  const bytes = encode(PutMessage, { key: Buffer.alloc(10), value: Buffer.alloc(200) });
  const request = new PutRequest();
  assert.ok(request.parse(bytes, 0, bytes.length));
  assert.equal(putCost(request), 466);
  assert.equal(LEASE_COST_BYTES, 64);
});

test('a txn: the dearer branch, inner txns by theirs; reads and deletes nothing', () => {
  const read: OpInit = { range: { key: Buffer.from('a') } };
  const remove: OpInit = { delete: { key: Buffer.from('a') } };
  assert.equal(costOf({}), 0);
  assert.equal(costOf({ success: [read, remove], failure: [{ txn: { success: [remove] } }] }), 0);
  assert.equal(costOf({ success: [put(1, 1), put(2, 2)], failure: [put(1, 100)] }), 258 + 260);
  assert.equal(costOf({ success: [put(1, 1)], failure: [put(1, 100)] }), 357);
  const inner: OpInit = { txn: { success: [put(1, 1)], failure: [put(1, 2), { txn: { success: [put(1, 3)] } }] } };
  assert.equal(costOf({ success: [put(1, 0), inner] }), 257 + 259 + 260);
});
