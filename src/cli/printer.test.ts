// Goal: each format prints what etcdctl 3.7 prints. Method: fixed answers against bytes that etcdctl printed for them (the peer
// test does it live; this says which bytes, and runs without etcd).

import assert from 'node:assert/strict';
import { openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { goJson, unlessZero } from './go-json.ts';
import { Output } from './output.ts';
import { type Format, loadPrinter, type MemberChange, type Printable, printWith } from './printer.ts';
import { tableText } from './table.ts';

async function printed<K extends keyof Printable>(
  format: Format,
  kind: K,
  value: Printable[K],
  isHex = false,
): Promise<string> {
  const file = join(tmpdir(), `keelson-printer-${process.pid}`);
  const out = new Output(openSync(file, 'w'));
  printWith((await loadPrinter(format, isHex))!, format, kind, value, out);
  out.flush();
  const text = readFileSync(file, 'latin1');
  rmSync(file);
  return text;
}

const header = { clusterId: 14841639068965178418n, memberId: 10276657743932975437n, revision: 5, raftTerm: 2 };
const kv = {
  key: Buffer.from('a<\xff', 'latin1'),
  createRevision: 2,
  modRevision: 6,
  version: 5,
  value: Buffer.from('v&"'),
  lease: -1n,
};

test('a range', async () => {
  const value = { response: { header, kvs: [kv], more: true, count: 3 }, valuesOnly: false };
  assert.equal(await printed('simple', 'get', value), 'a<\xff\nv&"\n');
  assert.equal(await printed('simple', 'get', { ...value, valuesOnly: true }), 'v&"\n');
  assert.equal(await printed('simple', 'get', value, true), '\\x61\\x3c\\xff\n\\x76\\x26\\x22\n');
  assert.equal(
    await printed('json', 'get', value),
    '{"header":{"cluster_id":14841639068965178418,"member_id":10276657743932975437,"revision":5,"raft_term":2},' +
      '"kvs":[{"key":"YTz/","create_revision":2,"mod_revision":6,"version":5,"value":"diYi","lease":-1}],"more":true,"count":3}\n',
  );
  const lines = '"Key" : "a<\\xff"\n"CreateRevision" : 2\n"ModRevision" : 6\n"Version" : 5\n"Value" : "v&\\""\n';
  const ids = '"ClusterID" : 14841639068965178418\n"MemberID" : 10276657743932975437\n';
  const rest = '"More" : true\n"Count" : 3\n';
  assert.equal(
    await printed('fields', 'get', value),
    `${ids}"Revision" : 5\n"RaftTerm" : 2\n${lines}"Lease" : -1\n${rest}`,
  );
  const hexIds = '"ClusterID" : cdf818194e3a8c32\n"MemberID" : 8e9e05c52164694d\n';
  assert.equal(
    await printed('fields', 'get', value, true),
    `${hexIds}"Revision" : 5\n"RaftTerm" : 2\n${lines}"Lease" : -000000000000001\n${rest}`,
  );
  await assert.rejects(printed('table', 'get', value), { message: 'table not supported as output format', code: 4 });
});

test('watch and txn in JSON', async () => {
  const events = [
    { type: 1, kv: { ...kv, value: Buffer.alloc(0), lease: 0n, version: 0, createRevision: 0 }, prevKv: undefined },
  ];
  const response = {
    header,
    watchId: 0,
    created: false,
    canceled: false,
    compactRevision: 0,
    cancelReason: '',
    fragment: false,
    events,
  };
  assert.match(
    await printed('json', 'watch', response),
    /,"Events":\[\{"type":1,"kv":\{"key":"YTz\/","mod_revision":6\}\}\],"CompactRevision":0,"Canceled":false,"Created":false,"CancelReason":""\}\n$/,
  );
  assert.match(await printed('json', 'watch', { ...response, events: [] }), /"Events":null/);
  const put = { header: { ...header, clusterId: 0n, memberId: 0n, raftTerm: 0 }, prevKv: undefined };
  const operation = {
    responseRange: undefined,
    responsePut: put,
    responseDeleteRange: undefined,
    responseTxn: undefined,
  };
  assert.match(
    await printed('json', 'txn', { header, succeeded: false, responses: [operation] }),
    /\},"responses":\[\{"Response":\{"response_put":\{"header":\{"revision":5\}\}\}\}\]\}\n$/,
  );
});

test('leases', async () => {
  const response = { header, id: 0x1234n, ttl: -1n, grantedTtl: 0n, keys: [] };
  const value = { response, withKeys: true };
  assert.equal(await printed('simple', 'timeToLive', value), 'lease 0000000000001234 already expired\n');
  assert.match(
    await printed('json', 'timeToLive', value),
    /"raft_term":2,"id":4660,"ttl":-1,"granted-ttl":0,"keys":null\}\n$/,
  );
  const alive = { ...response, ttl: 5n, grantedTtl: 9n, keys: [Buffer.from('a'), Buffer.from('b')] };
  assert.equal(
    await printed('simple', 'timeToLive', { response: alive, withKeys: true }),
    'lease 0000000000001234 granted with TTL(9s), remaining(5s), attached keys([a b])\n',
  );
  assert.equal(
    Buffer.from(await printed('protobuf', 'leases', { header, leases: [{ id: 1n }] }), 'latin1').toString('hex'),
    '08b298eaf1948386fccd0110cdd2918bd2b881cf8e0118052002',
    'the header alone',
  );
});

test('an alarm, a member, an endpoint', async () => {
  const alarms = [{ memberId: 10276657743932975437n, alarm: 1 }];
  assert.equal(await printed('simple', 'alarm', { header, alarms }), 'memberID:10276657743932975437 alarm:NOSPACE\n');
  assert.match(await printed('fields', 'alarm', { header, alarms }), /"AlarmType" : NOSPACE\n\n$/);
  assert.equal(await printed('json', 'alarm', { header: undefined, alarms: [] }), '{}\n');
  const member = { id: 255n, name: '', peerUrls: ['http://a:1'], clientUrls: [], isLearner: true };
  assert.equal(
    await printed('simple', 'memberList', { header, members: [member] }),
    'ff, unstarted, , http://a:1, , true\n',
  );
  assert.match(
    await printed('json', 'memberList', { header, members: [member] }, true),
    /"members":\[\{"ID":"ff","peerURLs":\["http:\/\/a:1"\],"isLearner":true\}\]/,
  );
  assert.equal(await printed('json', 'endpointStatus', []), 'null\n');
  const health = [{ endpoint: 'e', isHealthy: false, took: '1s', error: 'x' }];
  assert.equal(
    await printed('json', 'endpointHealth', health),
    '[{"endpoint":"e","health":false,"took":"1s","error":"x"}]\n',
  );
  await assert.rejects(printed('protobuf', 'endpointHealth', health), /protobuf not supported/);
});

test('members that change', async () => {
  const old = { id: 0xa1n, name: 'm1', peerUrls: ['http://a:1'], clientUrls: ['http://a:2'], isLearner: false };
  const added = { id: 0xb2c3n, name: '', peerUrls: ['http://b:1', 'http://b:2'], clientUrls: [], isLearner: true };
  const head = { clusterId: 0xc4n, memberId: 0xa1n, revision: 0, raftTerm: 2 };
  const response = { header: head, member: added, members: [old, added] };
  const addition = { name: 'm "2"', peerUrls: 'http://b:1,http://b:2', response };
  assert.equal(
    await printed('simple', 'memberAdd', addition),
    'Member             b2c3 added as learner to cluster               c4\n\nETCD_NAME="m \\"2\\""\n' +
      'ETCD_INITIAL_CLUSTER="m1=http://a:1,m \\"2\\"=http://b:1,m \\"2\\"=http://b:2"\n' +
      'ETCD_INITIAL_ADVERTISE_PEER_URLS="http://b:1,http://b:2"\nETCD_INITIAL_CLUSTER_STATE="existing"\n',
  );
  const voter = { ...response, member: { ...added, isLearner: false } };
  assert.match(
    await printed('simple', 'memberAdd', { ...addition, response: voter }),
    /^Member +b2c3 added to cluster/,
  );
  const list =
    '[{"ID":"a1","name":"m1","peerURLs":["http://a:1"],"clientURLs":["http://a:2"]},' +
    '{"ID":"b2c3","peerURLs":["http://b:1","http://b:2"],"isLearner":true}]';
  const hexHead = '"header":{"cluster_id":"c4","member_id":"a1","raft_term":2}';
  assert.equal(
    await printed('json', 'memberAdd', addition, true),
    `{${hexHead},"member":{"ID":"b2c3","peerURLs":["http://b:1","http://b:2"],"isLearner":true},"members":${list}}\n`,
  );
  const change: MemberChange = {
    id: 0xb2c3n,
    change: 'promoted in',
    response: { header: head, members: [old, added] },
  };
  assert.equal(
    await printed('simple', 'memberChange', change),
    'Member             b2c3 promoted in cluster               c4\n',
  );
  assert.equal(await printed('json', 'memberChange', change, true), `{${hexHead},"members":${list}}\n`);
  await assert.rejects(printed('table', 'memberChange', change), /table not supported as output format/);
  await assert.rejects(printed('fields', 'memberAdd', addition), /fields not supported as output format/);
});

test('tables: centered titles, cells to the right, wide characters', () => {
  assert.equal(
    tableText(['id', 'hash_revision'], [['日本', '7']]),
    '┌──────┬───────────────┐\n│  ID  │ HASH REVISION │\n├──────┼───────────────┤\n│ 日本 │             7 │\n└──────┴───────────────┘\n',
  );
  assert.equal(tableText(['a'], []), '┌───┐\n│ A │\n└───┘\n');
});

test('JSON as Go writes it', () => {
  assert.equal(
    goJson({ a: '<&>\u2028"\\\n\u0001é', b: undefined, c: 2n ** 64n, d: [null, true], e: Buffer.from('x') }),
    '{"a":"\\u003c\\u0026\\u003e\\u2028\\"\\\\\\n\\u0001é","c":18446744073709551616,"d":[null,true],"e":"eA=="}',
  );
  assert.deepEqual([0, 0n, '', false, Buffer.alloc(0), []].map(unlessZero), Array(6).fill(undefined));
  assert.equal(unlessZero(-1), -1);
});
