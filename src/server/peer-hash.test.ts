// Goal: hashes go between members in etcd's JSON, whatever a peer sends: what Go reads is read, all else is an error. Method: requests and
// answers as etcd writes them, and texts that are wrong. That etcd answers so is test-e2e/versions.peer-test.ts.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { etcdErrors } from '../proto/rpctypes.ts';
import { hashAnswer, hashRequest, readHashAnswer, requestedRevision, storeErrorText } from './peer-hash.ts';

const answer = (status: number, body: string): ReturnType<typeof readHashAnswer> =>
  readHashAnswer({ status, headers: {}, body: Buffer.from(body) });

describe('a request', () => {
  it('names the revision, 0 is left out, and the cluster', () => {
    const { path, headers, body } = hashRequest(0xabcn, 7, 1000);
    assert.equal(path, '/members/hashkv');
    assert.equal(headers?.['X-Etcd-Cluster-ID'], 'abc');
    assert.equal(body?.toString(), '{"revision":7}');
    assert.equal(hashRequest(0xabcn, 0, 1000).body?.toString(), '{}');
  });

  it('is read as Go reads it', () => {
    const read = (text: string): number | null => requestedRevision(Buffer.from(text));
    for (const text of ['{}', 'null', ' null\n', '{"revision":null}', '{"revision":0}'])
      assert.equal(read(text), 0, text);
    for (const text of ['{"revision":7}', '{"Revision":7,"x":[]}', '{"revision":6,"REVISION":7}']) {
      assert.equal(read(text), 7, text);
    }
    assert.equal(read('{"revision":-3}'), -3);
    for (const text of [
      '',
      '[]',
      '7',
      '"7"',
      '{',
      '{"revision":"7"}',
      '{"revision":7.5}',
      '{"revision":1e30}',
      '{"revision":{}}',
    ]) {
      assert.equal(read(text), null, text);
    }
  });
});

describe('an answer', () => {
  it('is what was asked for', () => {
    const hash = { hash: 4294967295, revision: 7, compactRevision: -1 };
    const text = hashAnswer(hash, 9);
    assert.equal(text, '{"header":{"revision":9},"hash":4294967295,"compact_revision":-1,"hash_revision":7}');
    assert.deepEqual(answer(200, text), { ...hash, currentRevision: 9 });
  });

  it('lacks what is 0', () => {
    const text = hashAnswer({ hash: 0, revision: 0, compactRevision: 0 }, 0);
    assert.equal(text, '{"header":{}}');
    assert.deepEqual(answer(200, text), { hash: 0, revision: 0, compactRevision: 0, currentRevision: 0 });
    assert.deepEqual(answer(200, '{}'), { hash: 0, revision: 0, compactRevision: 0, currentRevision: 0 });
  });

  it('may be one of the known errors', () => {
    for (const error of [etcdErrors.compacted, etcdErrors.futureRev]) {
      assert.equal(answer(400, `${storeErrorText(error)}\n`), error.message);
    }
    assert.equal(answer(412, 'cluster ID mismatch\n'), 'etcdserver: cluster ID mismatch');
    assert.equal(answer(412, 'other'), 'unknown error: other');
    assert.equal(answer(400, 'error unmarshalling request'), 'unknown error: error unmarshalling request');
    assert.equal(answer(404, '404 page not found'), 'unknown error: 404 page not found');
  });

  it('that is none is an error', () => {
    for (const text of ['', 'x', '[]', 'null', '{"hash":"1"}', '{"hash":1.5}', '{"header":{"revision":{}}}']) {
      assert.match(String(answer(200, text)), /^no hash: /, text);
    }
  });
});
