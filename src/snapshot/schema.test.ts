// Goal: the encodings are etcd's, byte for byte, and malformed bytes decode to null. Method: values taken from a database of
// etcd 3.7.1 (testdata/etcd-compacted), literals of Go's JSON, and round trips at the bounds.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dumpLines, loadFixture, openBytes, unwrap } from './bolt-fixture.ts';
import {
  AuthKey,
  BUCKET_NAMES,
  ClusterKey,
  decodeConfState,
  decodeCounter,
  decodeDowngrade,
  decodeLeaseKey,
  decodeMember,
  decodeMemberKey,
  encodeConfState,
  encodeCounter,
  encodeDowngrade,
  encodeLeaseKey,
  encodeMember,
  encodeMemberKey,
  encodeRevisionKey,
  isRevisionKey,
  isTombstoneKey,
  MetaKey,
  revisionMain,
  revisionSub,
} from './schema.ts';

function stored(bucket: string, key: Buffer): Buffer {
  const opened = unwrap(openBytes(loadFixture('etcd-compacted')).bucket(Buffer.from(bucket)))!;
  return unwrap(opened.get(key))!;
}

test('a real etcd has these buckets in this order', () => {
  const names = dumpLines(openBytes(loadFixture('etcd-compacted')))
    .filter((line) => line.startsWith(' '))
    .map((line) => Buffer.from(line.split(' ')[1]!, 'hex').toString());
  assert.deepEqual(names, BUCKET_NAMES);
});

test('values of a real etcd decode, and encode to the same bytes', () => {
  const confBytes = stored('meta', MetaKey.confState);
  const conf = decodeConfState(confBytes)!;
  assert.equal(conf.voters.length, 1);
  assert.ok(encodeConfState(conf).equals(confBytes));

  const memberKey = encodeMemberKey(conf.voters[0]!);
  const memberBytes = stored('members', memberKey);
  const member = decodeMember(memberBytes)!;
  assert.equal(member.id, conf.voters[0]);
  assert.equal(member.id, decodeMemberKey(memberKey));
  assert.deepEqual(member.clientUrls, ['http://127.0.0.1:33381']);
  assert.ok(encodeMember(member).equals(memberBytes));

  for (const key of [MetaKey.consistentIndex, MetaKey.term]) {
    const bytes = stored('meta', key);
    assert.ok(decodeCounter(bytes)! > 0);
    assert.ok(encodeCounter(decodeCounter(bytes)!).equals(bytes));
  }
  for (const key of [MetaKey.scheduledCompactRev, MetaKey.finishedCompactRev]) {
    assert.ok(stored('meta', key).equals(encodeRevisionKey(73, 0)));
  }
  assert.equal(stored('meta', MetaKey.storageVersion).toString(), '3.7.0');
  assert.equal(stored('cluster', ClusterKey.version).toString(), '3.7.0');
  assert.equal(decodeCounter(stored('auth', AuthKey.revision)), 3);
});

test('revision keys', () => {
  assert.equal(encodeRevisionKey(0x1122334455, 7).toString('hex'), '00000011223344555f0000000000000007');
  assert.equal(encodeRevisionKey(1, 0, true).toString('hex'), '00000000000000015f000000000000000074');
  const max = Number.MAX_SAFE_INTEGER;
  for (const [main, sub, tombstone] of [
    [0, 0, false],
    [1, 2, true],
    [2 ** 32, 2 ** 32 - 1, false],
    [max, max, true],
  ] as const) {
    const key = encodeRevisionKey(main, sub, tombstone);
    assert.ok(isRevisionKey(key));
    assert.deepEqual([revisionMain(key), revisionSub(key), isTombstoneKey(key)], [main, sub, tombstone]);
  }
  const bad = [
    '',
    '00'.repeat(16),
    '00'.repeat(17),
    `${'00'.repeat(8)}5f${'00'.repeat(8)}75`,
    `${'00'.repeat(8)}5f${'00'.repeat(10)}`,
  ];
  bad.push(
    `0020${'00'.repeat(6)}5f${'00'.repeat(8)}`,
    `80${'00'.repeat(7)}5f${'00'.repeat(8)}`,
    `${'00'.repeat(8)}5fff${'00'.repeat(7)}`,
  );
  for (const hex of bad) assert.equal(isRevisionKey(Buffer.from(hex, 'hex')), false, hex);
  assert.throws(() => encodeRevisionKey(-1, 0), /main out of range/);
  assert.throws(() => encodeRevisionKey(0, 2 ** 53), /sub out of range/);
});

test('counters and ids at their bounds', () => {
  for (const value of [0, 1, 2 ** 32, Number.MAX_SAFE_INTEGER])
    assert.equal(decodeCounter(encodeCounter(value)), value);
  assert.equal(decodeCounter(Buffer.from('0020000000000000', 'hex')), null);
  assert.equal(decodeCounter(Buffer.alloc(7)), null);
  for (const id of [0n, -1n, -(1n << 63n), (1n << 63n) - 1n]) assert.equal(decodeLeaseKey(encodeLeaseKey(id)), id);
  assert.equal(encodeLeaseKey(1n).toString('hex'), '0000000000000001');
  assert.equal(decodeLeaseKey(Buffer.alloc(9)), null);
  assert.equal(encodeMemberKey(0xabcn).toString(), 'abc');
  assert.equal(decodeMemberKey(Buffer.from('ffffffffffffffff')), (1n << 64n) - 1n);
  for (const text of ['', 'x', '0x1', '-1', '10000000000000000'])
    assert.equal(decodeMemberKey(Buffer.from(text)), null);
});

test('JSON as Go writes it', () => {
  const member = {
    id: 18446744073709551615n,
    peerUrls: ['http://a/?x=1&y=<2>'],
    isLearner: true,
    name: '',
    clientUrls: [],
  };
  const text = '{"id":18446744073709551615,"peerURLs":["http://a/?x=1\\u0026y=\\u003c2\\u003e"],"isLearner":true}';
  assert.equal(encodeMember(member).toString(), text);
  assert.deepEqual(decodeMember(Buffer.from(text)), member);
  const state = {
    voters: [1n, 2n],
    learners: [3n],
    votersOutgoing: [18446744073709551615n],
    learnersNext: [5n],
    autoLeave: true,
  };
  const json =
    '{"voters":[1,2],"learners":[3],"voters_outgoing":[18446744073709551615],"learners_next":[5],"auto_leave":true}';
  assert.equal(encodeConfState(state).toString(), json);
  assert.deepEqual(decodeConfState(Buffer.from(json)), state);
  const none = { voters: [], learners: [], votersOutgoing: [], learnersNext: [], autoLeave: false };
  assert.deepEqual(decodeConfState(Buffer.from('{"voters":null}')), none);
  const downgrade = { targetVersion: '3.6.0', isEnabled: true };
  assert.equal(encodeDowngrade(downgrade).toString(), '{"target-version":"3.6.0","enabled":true}');
  assert.deepEqual(decodeDowngrade(encodeDowngrade(downgrade)), downgrade);
});

test('malformed JSON decodes to null', () => {
  const texts = [
    '',
    '{',
    '[]',
    'null',
    '1',
    '"x"',
    '{"id":"1"}',
    '{"id":-1}',
    '{"id":1.5}',
    '{"id":18446744073709551616}',
  ];
  texts.push('{"id":1,"peerURLs":[1]}', '{"id":1,"peerURLs":{}}', '{"id":1,"name":2}', '{"id":1,"isLearner":1}');
  for (const text of texts) assert.equal(decodeMember(Buffer.from(text)), null, text);
  for (const text of ['{"voters":1}', '{"voters":["1"]}', '{"voters":[-1]}', '{"auto_leave":0}', 'x']) {
    assert.equal(decodeConfState(Buffer.from(text)), null, text);
  }
  for (const text of ['{"target-version":1}', '{"enabled":"yes"}', '[]']) {
    assert.equal(decodeDowngrade(Buffer.from(text)), null, text);
  }
});
