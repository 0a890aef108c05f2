// Goal: the peer listener answers hash requests and /downgrade/enabled as etcd, also when the quorum or the hash is not to be had. Method:
// a scripted source. The whole list of requests beside a real etcd is test-e2e/versions.peer-test.ts.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { etcdErrors } from '../proto/rpctypes.ts';
import { Logger } from '../telemetry/logger.ts';
import type { AdminRequest, AdminResponse } from './http-message.ts';
import { type PeerCheckSource, PeerChecks } from './peer-checks.ts';

const timeouts: (number | null)[] = [];
const source: PeerCheckSource & { readError: string | null; isFuture: boolean; isDown: boolean } = {
  readError: null,
  isFuture: false,
  isDown: false,
  clusterId: () => 'c1',
  hashByRevision(revision, done) {
    if (this.isFuture) done(etcdErrors.futureRev, null, 3);
    else done(null, { hash: 5, revision, compactRevision: -1 }, 3);
  },
  linearizableRead(timeoutMs, done) {
    timeouts.push(timeoutMs);
    done(this.readError);
  },
  isDowngrading() {
    return this.isDown;
  },
};
const lines: string[] = [];
const logger = new Logger({
  level: 'info',
  format: 'json',
  sink: { write: (line) => void lines.push(line), flush: () => {} },
  now: () => 0,
});
const checks = new PeerChecks(source, logger, 7000);

async function ask(path: string, request: Partial<AdminRequest> = {}): Promise<AdminResponse | null> {
  const whole = { method: 'GET', target: path, host: 'h', origin: '', secure: false, ...request };
  return checks.handle(path, whole);
}

describe('/members/hashkv', () => {
  it('answers with the hash', async () => {
    const answer = await ask('/members/hashkv', { body: Buffer.from('{"revision":2}') });
    assert.equal(answer?.status, 200);
    assert.equal(answer.body, '{"header":{"revision":3},"hash":5,"compact_revision":-1,"hash_revision":2}');
    assert.deepEqual(answer.headers, { 'X-Etcd-Cluster-Id': 'c1', 'Content-Type': 'application/json' });
  });

  it('refuses other clusters, wrong requests and revisions that are not there', async () => {
    const body = Buffer.from('{}');
    const other = await ask('/members/hashkv', { body, headers: { 'x-etcd-cluster-id': 'c2' } });
    assert.deepEqual([other?.status, other?.body], [412, 'cluster ID mismatch\n']);
    assert.equal((await ask('/members/hashkv', { body, headers: { 'x-etcd-cluster-id': 'c1' } }))?.status, 200);
    const malformed = await ask('/members/hashkv');
    assert.deepEqual([malformed?.status, malformed?.body], [400, 'error unmarshalling request\n']);
    source.isFuture = true;
    const future = await ask('/members/hashkv', { body });
    source.isFuture = false;
    assert.deepEqual([future?.status, future?.body], [400, 'mvcc: required revision is a future revision\n']);
    assert.match(lines.at(-1)!, /failed to get hashKV/);
    assert.equal((await ask('/members/hashkv', { method: 'POST', body }))?.status, 405);
  });
});

describe('/downgrade/enabled', () => {
  it('tells it after a read through the quorum', async () => {
    assert.equal((await ask('/downgrade/enabled'))?.body, 'false');
    source.isDown = true;
    assert.equal((await ask('/downgrade/enabled'))?.body, 'true');
    assert.deepEqual(timeouts, [7000, 7000]);
  });

  it('fails when that fails', async () => {
    source.readError = 'context deadline exceeded';
    const answer = await ask('/downgrade/enabled');
    assert.deepEqual([answer?.status, answer?.body], [500, 'failed linearized read: context deadline exceeded\n']);
    assert.equal(answer?.headers['X-Etcd-Cluster-Id'], 'c1');
  });
});

it('another path is not theirs', async () => {
  for (const path of ['/', '/members', '/members/hashkv/', '/downgrade']) assert.equal(await ask(path), null, path);
});
