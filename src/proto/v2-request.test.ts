// Goal: what an etcd 3.5 wrote by its v2 API is told from requests of today and becomes one of them; nothing else does. Method: entries
// of a real 3.5.35's log.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClusterMemberAttrSetRequest, ClusterVersionSetRequest } from './etcdserverpb.ts';
import { encodeInternalRequest, InternalRequest, RequestField } from './internal-request.ts';
import { decode } from './message.ts';
import { withoutV2 } from './v2-request.ts';

/** What follows the value: every other field of the request, empty. */
const rest = '2800320038004800500058006000680070007800800100';
const ofLog = {
  publication: Buffer.from(
    '088186b1cef5bfe8f3ce0112035055541a262f302f6d656d626572732f356337366139306165373862636565372f61747472696275746573' +
      `22347b226e616d65223a2261222c22636c69656e7455524c73223a5b22687474703a2f2f3132372e302e302e313a3333333739225d7d${rest}`,
    'hex',
  ),
  version: Buffer.from(`088286b1cef5bfe8f3ce0112035055541a0a2f302f76657273696f6e2205332e352e30${rest}`, 'hex'),
};

function put(path: string, val: string, method = 'PUT'): Buffer {
  const field = (tag: number, text: string): Buffer =>
    Buffer.concat([Buffer.from([tag, text.length]), Buffer.from(text)]);
  const head = [Buffer.from([0x08, 1]), field(0x12, method), field(0x1a, path), field(0x22, val)];
  return Buffer.concat([...head, Buffer.from(rest, 'hex')]);
}

/** By the field that the request of today has, and which of its bytes. */
function translated(entry: Buffer): { readonly field: number; readonly message: Buffer } {
  const request = new InternalRequest();
  assert.ok(request.parse(entry, 0, entry.length));
  assert.ok(request.isOfV2);
  const today = withoutV2(entry)!;
  assert.ok(request.parse(today, 0, today.length));
  assert.ok(!request.isOfV2);
  return { field: request.field, message: today.subarray(request.start, request.end) };
}

test('what a 3.5 logs', () => {
  const version = translated(ofLog.version);
  assert.equal(version.field, RequestField.clusterVersionSet);
  assert.deepEqual(decode(ClusterVersionSetRequest, version.message), { ver: '3.5.0' });
  const publication = translated(ofLog.publication);
  assert.equal(publication.field, RequestField.clusterMemberAttrSet);
  assert.deepEqual(decode(ClusterMemberAttrSetRequest, publication.message), {
    memberId: 0x5c76a90ae78bcee7n,
    memberAttributes: { name: 'a', clientUrls: ['http://127.0.0.1:33379'] },
  });
});

test('other requests of the v2 API are none', () => {
  for (const entry of [
    put('/1/key', 'value'),
    put('/0/version', '3.5.0', 'DELETE'),
    put('/0/members/xyz/attributes', '{}'),
    put('/0/members/12/raftAttributes', '{}'),
    put('/0/members/12/attributes', '{'),
    put('/0/members/12/attributes', 'null'),
    put('/0/members/12/attributes', '{"name":1}'),
    put('/0/members/12/attributes', '{"clientURLs":[1]}'),
  ]) {
    assert.equal(withoutV2(entry), null, entry.toString('latin1'));
  }
  assert.equal(translated(put('/0/members/12/attributes', '{}')).field, RequestField.clusterMemberAttrSet);
});

test('no request of today is taken for one', () => {
  const request = new InternalRequest();
  for (const field of Object.values(RequestField)) {
    const entry = encodeInternalRequest(field, Buffer.from('PUT'), 0, 3, 1, 1);
    assert.ok(request.parse(entry, 0, entry.length));
    assert.ok(!request.isOfV2);
  }
});
