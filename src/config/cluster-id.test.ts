// Goal: ids equal etcd's. Method: ids that real etcd 3.7.1 printed; more, made at run time, in cluster-id.peer-test.ts.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { clusterId, formatId, memberId } from './cluster-id.ts';

it('computes the ids that etcd printed', () => {
  const member = memberId(['http://127.0.0.1:41280'], 'etcd-cluster');
  assert.equal(formatId(member), '31061317c5f48915');
  assert.equal(formatId(clusterId([member])), 'd070c7e0337f2a13');
  assert.equal(member, 3532531950545045781n);
  // The default member of every quick start: 8e9e05c52164694d in cluster cdf818194e3a8c32.
  const quick = memberId(['http://localhost:2380'], 'etcd-cluster');
  assert.equal(formatId(quick), '8e9e05c52164694d');
  assert.equal(formatId(clusterId([quick])), 'cdf818194e3a8c32');
});

it('does not depend on the order of URLs or members', () => {
  assert.equal(memberId(['http://b:1', 'http://a:1'], 't'), memberId(['http://a:1', 'http://b:1'], 't'));
  assert.equal(clusterId([2n, 1n, 0xffffffffffffffffn]), clusterId([0xffffffffffffffffn, 1n, 2n]));
  assert.notEqual(memberId(['http://a:1'], 't'), memberId(['http://a:1'], 't', 1700000000));
});
