// Goal: a failure reads as in Go's clientv3. Method: the kinds of failure, each with the text that etcdctl prints for it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { etcdErrors } from '../proto/rpctypes.ts';
import { canceledError, deadlineError, EtcdClientError } from './status.ts';

test("etcd's own message stands alone, another status is whole", () => {
  const compacted = new EtcdClientError(etcdErrors.compacted.code, etcdErrors.compacted.message);
  assert.equal(compacted.message, 'etcdserver: mvcc: required revision has been compacted');
  assert.equal(compacted.status, `rpc error: code = OutOfRange desc = ${compacted.message}`);
  assert.ok(compacted.is(etcdErrors.compacted));
  assert.ok(!compacted.is(etcdErrors.futureRev));
  const unknown = new EtcdClientError(12, 'unknown service x');
  assert.equal(unknown.message, 'rpc error: code = Unimplemented desc = unknown service x');
  assert.equal(new EtcdClientError(99, 'x').message, 'rpc error: code = Code(99) desc = x');
});

test("what the caller did has the context's words", () => {
  assert.equal(deadlineError('no connection').message, 'context deadline exceeded');
  assert.equal(deadlineError('no connection').details, 'no connection');
  assert.deepEqual([canceledError().message, canceledError().code], ['context canceled', 1]);
});
