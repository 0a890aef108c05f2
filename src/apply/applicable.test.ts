// Goal: what is refused before it gets into the log is what the applier could not apply, and nothing else. Method: requests of each kind,
// and thousands of them damaged by a byte, are judged and applied; those that are refused for other reasons are told one by one.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FatalError } from '../base/fatal.ts';
import { SeededRandom } from '../io/random.ts';
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
import { encodeInternalRequest, InternalRequest, RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { DeleteMessage, encodeTxn, PutMessage, RangeMessage } from '../testing/kv-messages.ts';
import { inapplicableReason } from './applicable.ts';
import { ApplyBench } from './apply-fixture.ts';

const server = { major: 3, minor: 7, patch: 1 };
const key = Buffer.from('key');
const value = Buffer.from('value');

const emptyKey = 'it puts an empty key';
const keepsDeleted = 'its txn puts what it may have deleted';

const put = encode(PutMessage, { key, value, lease: 5n, prevKv: true });
const nested = encodeTxn({ success: [{ txn: { success: [{ put: { key, value } }, { range: { key } }] } }] });
const requests: readonly (readonly [RequestField, Buffer])[] = [
  [RequestField.put, put],
  [RequestField.range, encode(RangeMessage, { key, limit: 3, sortTarget: 9 })],
  [RequestField.deleteRange, encode(DeleteMessage, { key, rangeEnd: Buffer.from([0]) })],
  [RequestField.txn, encodeTxn({ compare: [{ key, target: 3, value }], success: [{ put: { key, value } }] })],
  [RequestField.txn, encodeTxn({ success: [{ delete: { key } }, {}], failure: [{ range: { key } }] })],
  [RequestField.txn, encodeTxn({ success: [{ delete: { key: value } }, { put: { key, ignoreLease: true } }] })],
  [RequestField.txn, nested],
  [RequestField.compaction, encode(CompactionRequest, { revision: 99 })],
  [RequestField.leaseGrant, encode(LeaseGrantRequest, { id: 7n, ttl: 60n })],
  [RequestField.leaseRevoke, encode(LeaseRevokeRequest, { id: 7n })],
  [RequestField.leaseCheckpoint, encode(LeaseCheckpointRequest, { checkpoints: [{ id: 7n, remainingTtl: 3n }] })],
  [RequestField.alarm, encode(AlarmRequest, { action: 1, memberId: 3n, alarm: 9 })],
  [RequestField.clusterVersionSet, encode(ClusterVersionSetRequest, { ver: '3.6.0' })],
  [RequestField.clusterMemberAttrSet, encode(ClusterMemberAttrSetRequest, { memberId: 3n })],
  [RequestField.downgradeInfoSet, encode(DowngradeInfoSetRequest, { enabled: true, ver: '3.6.0' })],
  [RequestField.downgradeInfoSet, encode(DowngradeInfoSetRequest, { enabled: false, ver: 'x' })],
  [RequestField.downgradeVersionTest, Buffer.from([0xff])],
];

function judge(field: number, message: Buffer): string | null {
  const request = new InternalRequest();
  const entry = encodeInternalRequest(field as RequestField, message, 0, message.length, 7, 42);
  assert.ok(request.parse(entry, 0, entry.length));
  return inapplicableReason(request, entry, server);
}

/** Whether the applier takes it; anything but its own refusal fails the test. */
function isApplied(field: number, message: Buffer): boolean {
  try {
    new ApplyBench().apply(field as RequestField, message);
    return true;
  } catch (error) {
    if (error instanceof FatalError) return false;
    throw error;
  }
}

test('requests of all kinds are taken, and can be applied', () => {
  for (const [field, message] of requests) {
    assert.equal(judge(field, message), null, `${field} ${message.toString('hex')}`);
    assert.ok(isApplied(field, message), `${field} ${message.toString('hex')}`);
  }
});

test('damaged ones are refused exactly when the applier could not apply them', () => {
  const random = new SeededRandom(9);
  const counts = { taken: 0, refused: 0 };
  for (let round = 0; round < 400; round++) {
    for (const [field, message] of requests) {
      // Of these more is refused than the applier could not apply: below.
      if (field === RequestField.downgradeInfoSet || field === RequestField.clusterVersionSet) continue;
      const damaged = Buffer.from(message.subarray(0, message.length - random.below(3)));
      if (damaged.length > 0) damaged[random.below(damaged.length)] = random.below(256);
      const reason = judge(field, damaged);
      if (reason === emptyKey || reason === keepsDeleted) continue;
      assert.equal(reason === null, isApplied(field, damaged), `${field} ${damaged.toString('hex')}: ${reason}`);
      if (reason === null) counts.taken++;
      else counts.refused++;
    }
  }
  assert.ok(counts.taken > 500 && counts.refused > 500, JSON.stringify(counts));
});

test('what is no request of this version is refused, and cannot be applied', () => {
  const auth = 'it is about authentication, users or roles, which this version of keelson cannot apply';
  const unknown = 'it holds no request that this version knows';
  for (const field of [2, 12, 99, 101, 1400]) assert.equal(judge(field, put), unknown, `${field}`);
  for (const field of [1000, 1299]) assert.equal(judge(field, put), auth, `${field}`);
  for (const field of [2, 12, 99, 101, 1400, 1000, 1299]) assert.equal(isApplied(field, put), false, `${field}`);
  const request = new InternalRequest();
  const headerAlone = Buffer.from('a206020801', 'hex');
  assert.ok(request.parse(headerAlone, 0, headerAlone.length));
  assert.equal(inapplicableReason(request, headerAlone, server), unknown);
});

test('puts that no engine could make, in a Txn or alone', () => {
  const aPut = { put: { key, value } };
  const [nothing, keeping] = [{ put: { value } }, { put: { key, ignoreValue: true } }];
  const [one, tail] = [{ delete: { key } }, { delete: { key: Buffer.from('a'), rangeEnd: Buffer.from([0]) } }];
  assert.equal(judge(RequestField.put, encode(PutMessage, { value })), emptyKey);
  for (const success of [[nothing], [aPut, { txn: { failure: [nothing] } }]]) {
    assert.equal(judge(RequestField.txn, encodeTxn({ success })), emptyKey);
    assert.equal(judge(RequestField.txn, encodeTxn({ failure: success })), emptyKey);
  }
  for (const ops of [
    [one, keeping],
    [tail, keeping],
    [tail, { txn: { success: [keeping] } }],
  ]) {
    assert.equal(judge(RequestField.txn, encodeTxn({ success: ops })), keepsDeleted);
    assert.equal(judge(RequestField.txn, encodeTxn({ success: [{ txn: { failure: ops } }] })), keepsDeleted);
  }
  assert.equal(judge(RequestField.txn, encodeTxn({ success: [keeping, tail] })), null);
  assert.equal(judge(RequestField.txn, encodeTxn({ success: [keeping], failure: [tail] })), null);
});

test('versions: what is none, or would end this server', () => {
  const version = (ver: string): Buffer => encode(ClusterVersionSetRequest, { ver });
  for (const ver of ['', 'x', '3.7', '3.7.0.1']) {
    assert.equal(
      judge(RequestField.clusterVersionSet, version(ver)),
      'it sets the version of the cluster to what is none',
    );
    assert.equal(isApplied(RequestField.clusterVersionSet, version(ver)), false, ver);
  }
  assert.equal(judge(RequestField.clusterVersionSet, version('3.7.0')), null);
  assert.match(judge(RequestField.clusterVersionSet, version('3.8.0'))!, /^invalid downgrade; server version is lower/);
  assert.equal(judge(RequestField.clusterVersionSet, Buffer.from([0x0a, 9])), 'its request does not parse');
  const downgrade = encode(DowngradeInfoSetRequest, { enabled: true, ver: 'x' });
  assert.equal(judge(RequestField.downgradeInfoSet, downgrade), 'it goes down to what is no version');
});

test('a txn that nests deeper than this version reads is refused: it would stand for an empty one', () => {
  const nestedIn = (depth: number): Buffer => {
    let txn = encodeTxn({ success: [{ put: { key, value } }] });
    const wrap = (tag: number, inner: Buffer): Buffer => {
      const head = [tag];
      for (let left = inner.length; ; left = Math.floor(left / 128)) {
        head.push(left < 128 ? left : (left % 128) + 128);
        if (left < 128) break;
      }
      return Buffer.concat([Buffer.from(head), inner]);
    };
    for (let i = 1; i < depth; i++) txn = wrap(0x12, wrap(0x22, txn));
    return txn;
  };
  assert.equal(judge(RequestField.txn, nestedIn(301)), null);
  assert.equal(judge(RequestField.txn, nestedIn(302)), 'its txn does not parse, or nests too deep');
});
