// Goal: members of a new cluster begin with the same entries at the same places, under the ids that etcd gives them, and one that joins
// later comes to the same. Method: members in one process over a network in memory; ids are those that etcd 3.7.1 logs for these flags.

import assert from 'node:assert/strict';
import { afterEach, it } from 'node:test';
import { decode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import { EntryType } from '../raft/types.ts';
import { MemberCluster } from '../testing/member-cluster-fixture.ts';

let cluster: MemberCluster;
afterEach(() => cluster.end());

/** a, b and c at http://<name>:2380, with the default token. */
const etcdIds = { cluster: 'ace88e7849827d4b', a: '60fe503bd8a47dc9', b: '865314b9482a4584', c: '363134550fedd0e9' };

it('three members elect a leader and agree on who they are, with etcd too', async () => {
  cluster = new MemberCluster();
  await cluster.begin(['a', 'b', 'c']);
  const leader = await cluster.leader();
  assert.equal(await cluster.fixture(leader).put('k', 'v'), 2);
  await cluster.settled();
  for (const name of ['a', 'b', 'c'] as const) {
    const { parts } = cluster.member(name);
    assert.equal(parts.id.toString(16), etcdIds[name]);
    assert.equal(parts.cluster.id.toString(16), etcdIds.cluster);
    assert.deepEqual(
      parts.cluster.members().map((member) => [member.id.toString(16), member.name]),
      [
        [etcdIds.c, 'c'],
        [etcdIds.a, 'a'],
        [etcdIds.b, 'b'],
      ],
    );
    const first = parts.storage.entries(1, 4, Number.POSITIVE_INFINITY);
    assert.ok(first !== null);
    assert.deepEqual(
      first.map((entry) => [entry.index, entry.term, entry.type, decode(ConfChange, entry.data)!.nodeId!.toString(16)]),
      [etcdIds.c, etcdIds.a, etcdIds.b].map((id, at) => [at + 1, 1, EntryType.confChange, id]),
    );
    assert.equal(
      decode(ConfChange, first[0]!.data)!.context!.toString(),
      `{"id":${BigInt(`0x${etcdIds.c}`)},"peerURLs":["http://c:2380"],"name":"c"}`,
      "etcd's text",
    );
    assert.equal(parts.store.currentRevision, 2);
    assert.equal(cluster.fixture(name).logged('starting local member').length, 1);
  }
});

it('a member that was added joins under the id that the cluster gave it, and restarts as itself', async () => {
  cluster = new MemberCluster();
  await cluster.begin(['a', 'b', 'c']);
  const leader = await cluster.leader();
  const added = await cluster.add(leader, 'd');
  assert.ok(Array.isArray(added));
  await cluster.join('d');
  await cluster.settled();
  const { parts } = cluster.member('d');
  assert.ok(added.some(({ id, name }) => id === parts.id && name === ''));
  assert.equal(parts.cluster.id.toString(16), etcdIds.cluster);
  assert.deepEqual(
    parts.cluster
      .members()
      .map(({ name }) => name)
      .sort(),
    ['a', 'b', 'c', 'd'],
  );
  assert.equal(await cluster.fixture('d').put('k', 'v'), 2);
  // With flags of nobody's cluster: who has data does not look at them.
  await cluster.restart('d', '--initial-cluster=x=http://x:1', '--initial-cluster-state=existing');
  await cluster.settled();
  assert.equal(cluster.member('d').parts.store.currentRevision, 2);
  assert.equal(cluster.fixture('d').logged('restarting local member').length, 1);
});
