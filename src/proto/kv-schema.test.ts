// Goal: the client's schemas are etcd's messages. Method: what they encode is read by the server's own parser, which was
// written apart from them, and held against bytes worked out by hand. The peer tests of src/cli use them against real etcd.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RangeRequest as RangeParser } from './kv-request.ts';
import { Compare, PutRequest, RangeRequest, TxnRequest, TxnResponse, WatchResponse } from './kv-schema.ts';
import { decode, encode } from './message.ts';

test('a RangeRequest with every field is what the server parses', () => {
  const bytes = encode(RangeRequest, {
    key: Buffer.from('k'),
    rangeEnd: Buffer.from('z'),
    limit: 7,
    revision: 2 ** 40,
    sortOrder: 2,
    sortTarget: 4,
    serializable: true,
    keysOnly: true,
    countOnly: true,
    minModRevision: 1,
    maxModRevision: 2,
    minCreateRevision: 3,
    maxCreateRevision: 4,
  });
  const request = new RangeParser();
  assert.ok(request.parse(bytes, 0, bytes.length));
  assert.equal(bytes.toString('utf8', request.keyStart, request.keyEnd), 'k');
  assert.equal(bytes.toString('utf8', request.rangeEndStart, request.rangeEndEnd), 'z');
  assert.deepEqual([request.limit, request.revision, request.sortOrder, request.sortTarget], [7, 2 ** 40, 2, 4]);
  assert.deepEqual([request.serializable, request.keysOnly, request.countOnly], [true, true, true]);
  assert.deepEqual(
    [request.minModRevision, request.maxModRevision, request.minCreateRevision, request.maxCreateRevision],
    [1, 2, 3, 4],
  );
});

test('a Txn nests, and an empty operation keeps its place', () => {
  const put = { requestPut: { key: Buffer.from('a'), value: Buffer.from('b'), lease: -1n } };
  const inner = { requestTxn: { success: [put], failure: [] } };
  const bytes = encode(TxnRequest, { success: [inner, { requestRange: {} }] });
  // Field 2, then field 4, then the inner field 2, then field 2 with key, value and a ten-byte lease.
  assert.equal(
    bytes.toString('hex'),
    '1217' + '2215' + '1213' + '1211' + '0a0161' + '120162' + `18${'ff'.repeat(9)}01` + '1202' + '0a00',
  );
  const txn = decode(TxnRequest, bytes);
  assert.equal(txn?.success[0]?.requestTxn?.success[0]?.requestPut?.lease, -1n);
  assert.notEqual(txn?.success[1]?.requestRange, undefined);
});

test('a Compare tells zero from absent', () => {
  assert.equal(encode(Compare, { target: 2, key: Buffer.from('k'), modRevision: 0 }).toString('hex'), '10021a016b3000');
  const compare = decode(Compare, Buffer.from('10021a016b3000', 'hex'));
  assert.deepEqual([compare?.modRevision, compare?.version, compare?.lease], [0, undefined, undefined]);
});

test('a TxnResponse and a WatchResponse read back what they wrote', () => {
  const header = { clusterId: 2n ** 64n - 1n, memberId: 1n, revision: 5, raftTerm: 2 };
  const kv = {
    key: Buffer.from([0xff]),
    createRevision: 1,
    modRevision: 2,
    version: 3,
    value: Buffer.from('v'),
    lease: 4n,
  };
  const txn = encode(TxnResponse, {
    header,
    succeeded: true,
    responses: [{ responseTxn: { responses: [{ responseRange: { kvs: [kv], more: true, count: 9 } }] } }],
  });
  assert.deepEqual(decode(TxnResponse, txn)?.responses[0]?.responseTxn?.responses[0]?.responseRange?.kvs, [kv]);
  const watch = encode(WatchResponse, { header, watchId: -1, canceled: true, events: [{ type: 1, kv, prevKv: kv }] });
  const read = decode(WatchResponse, watch);
  assert.deepEqual([read?.watchId, read?.canceled, read?.events[0]?.type], [-1, true, 1]);
  assert.deepEqual(read?.events[0]?.prevKv, kv);
  assert.equal(encode(PutRequest, {}).length, 0);
});
