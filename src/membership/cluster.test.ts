// Goal: the membership is kept and stored as etcd does, so that either reads the other's. Method: buckets in maps; the stored
// text is compared with what Go's encoder writes, and everything is read back after each change.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeMember, encodeMember } from '../snapshot/schema.ts';
import { type BucketStore, Cluster, hexId, type Member, refusals } from './cluster.ts';

class MapBuckets implements BucketStore {
  readonly buckets = new Map<string, Map<string, string>>();

  bucket(name: string): Map<string, string> {
    const known = this.buckets.get(name) ?? new Map<string, string>();
    this.buckets.set(name, known);
    return known;
  }
  put(bucket: string, key: Buffer, value: Buffer): void {
    this.bucket(bucket).set(key.toString('latin1'), value.toString());
  }
  remove(bucket: string, key: Buffer): void {
    this.bucket(bucket).delete(key.toString('latin1'));
  }
  scan(bucket: string, visit: (key: Buffer, value: Buffer) => boolean): void {
    for (const [key, value] of this.bucket(bucket)) {
      if (!visit(Buffer.from(key, 'latin1'), Buffer.from(value))) return;
    }
  }
}

function member(id: bigint, peerUrl: string, more: Partial<Member> = {}): Member {
  return { id, peerUrls: [peerUrl], isLearner: false, name: '', clientUrls: [], ...more };
}

const first = member(0x8e9e05c52164694dn, 'http://10.0.0.1:2380', {
  name: 'infra0',
  clientUrls: ['http://10.0.0.1:2379', 'http://127.0.0.1:2379'],
});

test('a member as Go writes it', () => {
  assert.equal(
    encodeMember(first).toString(),
    '{"id":10276657743932975437,"peerURLs":["http://10.0.0.1:2380"],"name":"infra0",' +
      '"clientURLs":["http://10.0.0.1:2379","http://127.0.0.1:2379"]}',
  );
  const learner = member(2n ** 64n - 1n, 'http://a:1', { isLearner: true, name: '<a&b>\u2028"' });
  const text = '{"id":18446744073709551615,"peerURLs":["http://a:1"],"isLearner":true,';
  assert.equal(encodeMember(learner).toString(), `${text}"name":"\\u003ca\\u0026b\\u003e\\u2028\\""}`);
  for (const each of [first, learner, member(1n, 'x')]) assert.deepEqual(decodeMember(encodeMember(each)), each);
});

test('texts that are no member, and the fields that etcd leaves out', () => {
  for (const bad of ['', '{}', '{"id":1', '{"id":-1}', '[]', '{"id":"1"}'])
    assert.equal(decodeMember(Buffer.from(bad)), null);
  assert.deepEqual(decodeMember(Buffer.from('{"id":7,"peerURLs":null}')), { ...member(7n, ''), peerUrls: [] });
});

test('changes are stored under the id in hex without padding, and recovered', () => {
  const buckets = new MapBuckets();
  const cluster = new Cluster(1n, buckets);
  const small = member(0xabcn, 'http://10.0.0.2:2380');
  cluster.add(first);
  cluster.add(small);
  assert.deepEqual([...buckets.bucket('members').keys()], ['8e9e05c52164694d', 'abc']);
  assert.throws(() => cluster.add(small), /twice/);
  cluster.updateAttributes(0xabcn, 'infra1', ['http://c']);
  cluster.updateAttributes(0xdeadn, 'nobody', []);
  cluster.updatePeerUrls(0xabcn, ['http://10.0.0.3:2380']);
  cluster.setVersion('3.7.0');
  cluster.setDowngrade(true, '3.6.0');
  cluster.remove(first.id);
  assert.throws(() => cluster.updatePeerUrls(first.id, []), /not there/);
  assert.deepEqual([...buckets.bucket('members_removed')], [['8e9e05c52164694d', 'removed']]);
  assert.deepEqual(Object.fromEntries(buckets.bucket('cluster')), {
    clusterVersion: '3.7.0',
    downgrade: '{"target-version":"3.6.0","enabled":true}',
  });
  cluster.setDowngrade(false, '');
  assert.equal(buckets.bucket('cluster').get('downgrade'), '{"target-version":"","enabled":false}');

  const recovered = new Cluster(1n, buckets);
  assert.equal(recovered.recover(), null);
  const expected = { ...small, peerUrls: ['http://10.0.0.3:2380'], name: 'infra1', clientUrls: ['http://c'] };
  for (const each of [cluster, recovered]) {
    assert.deepEqual(each.members(), [expected]);
    assert.deepEqual(each.member(0xabcn), expected);
    assert.deepEqual([each.isRemoved(first.id), each.isRemoved(0xabcn), each.version], [true, false, '3.7.0']);
  }
});

test('a damaged entry is named', () => {
  const buckets = new MapBuckets();
  buckets.put('members', Buffer.from('1'), Buffer.from('{"id":'));
  assert.match(new Cluster(1n, buckets).recover() ?? '', /^members\/1: /);
});

test('members are listed by id', () => {
  const cluster = new Cluster(1n, new MapBuckets());
  for (const id of [9n, 2n ** 63n, 1n]) cluster.add(member(id, `http://${id}`));
  assert.deepEqual(
    cluster.members().map(({ id }) => hexId(id)),
    ['1', '9', '8000000000000000'],
  );
});

test('who can be added', () => {
  const cluster = new Cluster(1n, new MapBuckets());
  cluster.add(first);
  assert.equal(cluster.checkAdd(member(5n, 'http://new'), 1), null);
  assert.equal(cluster.checkAdd(member(first.id, 'http://new'), 1), refusals.idExists);
  assert.equal(cluster.checkAdd(member(5n, first.peerUrls[0]!), 1), refusals.peerUrlExists);
  const learner = member(6n, 'http://learner', { isLearner: true });
  assert.equal(cluster.checkAdd(learner, 1), null);
  cluster.add(learner);
  assert.equal(cluster.checkAdd({ ...learner, id: 7n, peerUrls: ['http://x'] }, 1), refusals.tooManyLearners);
  assert.equal(cluster.checkAdd({ ...learner, id: 7n, peerUrls: ['http://x'] }, 2), null);
  cluster.remove(6n);
  assert.equal(cluster.checkAdd(learner, 1), refusals.idRemoved, 'an id is never used again');
});

test('who can be promoted, updated and removed, and that a promotion leaves the rest', () => {
  const buckets = new MapBuckets();
  const cluster = new Cluster(1n, buckets);
  cluster.add(first);
  const learner = member(6n, 'http://learner', { isLearner: true, name: 'infra1', clientUrls: ['http://c'] });
  cluster.add(learner);
  assert.equal(cluster.checkPromote(9n), refusals.idNotFound);
  assert.equal(cluster.checkPromote(first.id), refusals.notLearner);
  assert.equal(cluster.checkPromote(6n), null);
  assert.deepEqual(cluster.votingMembers(), [first]);
  cluster.promote(6n);
  assert.throws(() => cluster.promote(6n), /no learner/);
  assert.deepEqual(cluster.member(6n), { ...learner, isLearner: false });
  assert.deepEqual(
    cluster.votingMembers().map(({ id }) => id),
    [6n, first.id],
  );
  const stored = '{"id":6,"peerURLs":["http://learner"],"name":"infra1","clientURLs":["http://c"]}';
  assert.equal(buckets.bucket('members').get('6'), stored);
  assert.equal(cluster.checkUpdate(9n, ['http://x']), refusals.idNotFound);
  assert.equal(cluster.checkUpdate(6n, first.peerUrls), refusals.peerUrlExists);
  assert.equal(cluster.checkUpdate(6n, ['http://learner']), null, 'its own URLs are not taken');
  assert.equal(cluster.checkRemove(9n), refusals.idNotFound);
  assert.equal(cluster.checkRemove(6n), null);
  cluster.remove(6n);
  assert.equal(cluster.checkRemove(6n), refusals.idRemoved);
  assert.equal(cluster.checkPromote(6n), refusals.idRemoved);
  assert.equal(cluster.checkUpdate(6n, ['http://y']), refusals.idRemoved);
});
