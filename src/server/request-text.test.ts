// Goal: requests in log lines read as etcd's, show keys and sizes, never values, and stay short. Method: encoded requests of every kind,
// and the texts that etcd 3.7.1 wrote for the same ones (test-e2e/request-stats.peer-test.ts compares the lines of both programs).

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  AlarmRequest,
  ClusterMemberAttrSetRequest,
  ClusterVersionSetRequest,
  CompactionRequest,
  DowngradeInfoSetRequest,
  LeaseCheckpointRequest,
  LeaseGrantRequest,
  LeaseRevokeRequest,
} from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { RangeRequest } from '../proto/kv-request.ts';
import { encode } from '../proto/message.ts';
import { DeleteMessage, encodeTxn, PutMessage, RangeMessage } from '../testing/kv-messages.ts';
import { entryText, rangeText } from './request-text.ts';

const key = Buffer.from('a"key');
const value = Buffer.from('a secret');
/** Not ASCII, a control character, a byte that is no UTF-8, and a C1 control. */
const odd = Buffer.concat([Buffer.from('kü€😀\n\u0001\u007f'), Buffer.from([0xff, 0xc3]), Buffer.from('\u0085')]);

function textOf(field: RequestField, bytes: Buffer): string {
  const padded = Buffer.concat([Buffer.from([0xff]), bytes, Buffer.from([0xff])]);
  return entryText(9n, field, padded, 1, padded.length - 1);
}

describe('an entry as text', () => {
  const cases: [RequestField, Buffer, string][] = [
    [RequestField.put, encode(PutMessage, { key, value }), 'header:<ID:9> put:<key:"a\\"key" value_size:8 >'],
    [
      RequestField.put,
      encode(PutMessage, { key, lease: 7n, prevKv: true, ignoreValue: true }),
      'header:<ID:9> put:<key:"a\\"key" lease:7 prev_kv:true ignore_value:true >',
    ],
    [
      RequestField.put,
      encode(PutMessage, { key: odd }),
      'header:<ID:9> put:<key:"k\\303\\274\\342\\202\\254\\360\\237\\230\\200\\n\\001\\177\\377\\303\\302\\205" >',
    ],
    [RequestField.deleteRange, encode(DeleteMessage, { key }), 'header:{ID:9} delete_range:{key:"a\\"key"}'],
    [
      RequestField.deleteRange,
      encode(DeleteMessage, { key: odd, rangeEnd: Buffer.from('b'), prevKv: true }),
      'header:{ID:9} delete_range:{key:"kü€😀\\n\\x01\\x7f\\xff\\xc3\\u0085" range_end:"b" prev_kv:true}',
    ],
    [RequestField.compaction, encode(CompactionRequest, { revision: 9 }), 'header:{ID:9} compaction:{revision:9}'],
    [
      RequestField.compaction,
      encode(CompactionRequest, { revision: 9, physical: true }),
      'header:{ID:9} compaction:{revision:9 physical:true}',
    ],
    [
      RequestField.leaseGrant,
      encode(LeaseGrantRequest, { ttl: 60n, id: 0x1234n }),
      'header:<ID:9> lease_grant:<ttl:60-second id:0000000000001234>',
    ],
    [
      RequestField.leaseRevoke,
      encode(LeaseRevokeRequest, { id: -1n }),
      'header:<ID:9> lease_revoke:<id:-000000000000001>',
    ],
    [RequestField.alarm, encode(AlarmRequest, {}), 'header:{ID:9} alarm:{}'],
    [
      RequestField.alarm,
      encode(AlarmRequest, { action: 1, memberId: 5n, alarm: 1 }),
      'header:{ID:9} alarm:{action:ACTIVATE memberID:5 alarm:NOSPACE}',
    ],
    [
      RequestField.leaseCheckpoint,
      encode(LeaseCheckpointRequest, { checkpoints: [{ id: 3n, remainingTtl: 8n }] }),
      'header:{ID:9} lease_checkpoint:{checkpoints:{ID:3 remaining_TTL:8}}',
    ],
    [
      RequestField.clusterVersionSet,
      encode(ClusterVersionSetRequest, { ver: '3.7.0' }),
      'header:{ID:9} cluster_version_set:{ver:"3.7.0"}',
    ],
    [
      RequestField.clusterMemberAttrSet,
      encode(ClusterMemberAttrSetRequest, {
        memberId: 4n,
        memberAttributes: { name: 'm1', clientUrls: ['http://a', 'b'] },
      }),
      'header:{ID:9} cluster_member_attr_set:{member_ID:4 member_attributes:{name:"m1" client_urls:"http://a" client_urls:"b"}}',
    ],
    [
      RequestField.downgradeInfoSet,
      encode(DowngradeInfoSetRequest, { enabled: true, ver: '3.6.0' }),
      'header:{ID:9} downgrade_info_set:{enabled:true ver:"3.6.0"}',
    ],
    [RequestField.downgradeVersionTest, Buffer.from([0x0a, 0]), `header:{ID:9} field:9900 size:2`],
  ];
  for (const [field, bytes, text] of cases) it(text, () => assert.equal(textOf(field, bytes), text));

  it('a transaction with every compare and operation, nested', () => {
    const bytes = encodeTxn({
      compare: [
        { target: 3, key, value },
        { result: 1, target: 2, key, modRevision: 5 },
        { target: 2, key, modRevision: 0 },
        { result: 3, target: 4, key, lease: -1n, rangeEnd: Buffer.from('z') },
      ],
      success: [{ put: { key, value } }, { txn: { success: [{ range: { key } }] } }, {}],
      failure: [{ delete: { key } }],
    });
    const name = 'key:"a\\"key"';
    const compare = [
      `target:VALUE ${name} value_size:8 `,
      `result:GREATER target:MOD ${name} mod_revision:5`,
      `target:MOD ${name} mod_revision:0`,
      `result:NOT_EQUAL target:LEASE ${name} lease:-1 range_end:"z"`,
    ];
    const nested = `request_txn:<compare:<> success:<request_range:{${name}}> failure:<>>`;
    assert.equal(
      textOf(RequestField.txn, bytes),
      `header:<ID:9> txn:<compare:<${compare.join(' ')}> success:<request_put:<${name} value_size:8 > ${nested} > ` +
        `failure:<request_delete_range:{${name}}>>`,
    );
  });

  it('a range with its options', () => {
    const request = new RangeRequest();
    const bytes = encode(RangeMessage, {
      key,
      rangeEnd: Buffer.from('z'),
      limit: 5,
      revision: 3,
      sortOrder: 2,
      sortTarget: 3,
      serializable: true,
      countOnly: true,
    });
    assert.ok(request.parse(bytes, 0, bytes.length));
    const text =
      'range_end:"z" limit:5 revision:3 sort_order:DESCEND sort_target:MOD serializable:true count_only:true';
    assert.equal(rangeText(request), `key:"a\\"key" ${text}`);
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
