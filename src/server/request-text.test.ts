// Goal: requests in log lines show keys and sizes, never values, and stay short. Method: encoded requests of every kind, and the text.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CompactionRequest, LeaseGrantRequest, LeaseRevokeRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { RangeRequest } from '../proto/kv-request.ts';
import { encode } from '../proto/message.ts';
import { DeleteMessage, encodeTxn, PutMessage, RangeMessage } from '../testing/kv-messages.ts';
import { rangeText, requestText } from './request-text.ts';

const key = Buffer.from('a"key');
const value = Buffer.from('a secret');

function textOf(field: RequestField, bytes: Buffer): string {
  const padded = Buffer.concat([Buffer.from([0xff]), bytes, Buffer.from([0xff])]);
  return requestText(field, padded, 1, padded.length - 1);
}

describe('a request as text', () => {
  const cases: [RequestField, Buffer, string][] = [
    [RequestField.put, encode(PutMessage, { key, value }), 'put:<key:"a\\"key" value_size:8>'],
    [RequestField.put, encode(PutMessage, { key, lease: 7n }), 'put:<key:"a\\"key" value_size:0 lease:7>'],
    [RequestField.deleteRange, encode(DeleteMessage, { key }), 'delete_range:<key:"a\\"key">'],
    [
      RequestField.deleteRange,
      encode(DeleteMessage, { key, rangeEnd: Buffer.from('b') }),
      'delete_range:<key:"a\\"key" range_end:"b">',
    ],
    [RequestField.compaction, encode(CompactionRequest, { revision: 9 }), 'compaction:<revision:9>'],
    [
      RequestField.leaseGrant,
      encode(LeaseGrantRequest, { ttl: 60n, id: 0x1234n }),
      'lease_grant:<ttl:60-second id:0000000000001234>',
    ],
    [RequestField.leaseRevoke, encode(LeaseRevokeRequest, { id: -1n }), 'lease_revoke:<id:ffffffffffffffff>'],
    [RequestField.alarm, Buffer.from([0x08, 1]), `field:${RequestField.alarm} size:2`],
  ];
  for (const [field, bytes, text] of cases) it(text, () => assert.equal(textOf(field, bytes), text));

  it('a transaction, nested', () => {
    const bytes = encodeTxn({
      compare: [{ key }],
      success: [{ put: { key, value } }, { txn: { success: [{ range: { key } }] } }],
      failure: [{ delete: { key } }],
    });
    const name = 'key:"a\\"key"';
    assert.equal(
      textOf(RequestField.txn, bytes),
      `txn:<compare:<${name}> success:<request_put:<${name} value_size:8> request_txn:<compare:<> success:<request_range:<${name}>> failure:<>>> failure:<request_delete_range:<${name}>>>`,
    );
  });

  it('a range with its options', () => {
    const request = new RangeRequest();
    const bytes = encode(RangeMessage, { key, limit: 5, revision: 3, serializable: true, countOnly: true });
    assert.ok(request.parse(bytes, 0, bytes.length));
    assert.equal(rangeText(request), 'key:"a\\"key" limit:5 revision:3 serializable:true count_only:true');
  });

  it('is bounded', () => {
    const long = textOf(RequestField.put, encode(PutMessage, { key: Buffer.alloc(100_000, 'k'), value }));
    assert.ok(long.length < 1100 && long.includes('...'), `${long.length}`);
    const ops = Array.from({ length: 128 }, () => ({ put: { key, value } }));
    const many = textOf(RequestField.txn, encodeTxn({ success: ops }));
    assert.ok(many.length < 1000 && many.includes('... of 128'), `${many.length}`);
    assert.ok(!many.includes('secret'));
  });
});
