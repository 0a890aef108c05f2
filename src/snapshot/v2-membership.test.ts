// Goal: what stands in raftpb.Snapshot.data is the store that etcd itself would write. Method: the tree of etcd 3.7.1's own JSON
// (v2store.New("/0", "/1"), then cluster.Store(), SaveNoCopy()) for the same members, character by character; ids beyond 2^53 and
// characters that Go escapes inside of JSON that is a JSON string.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeMember, encodeMemberKey, REMOVED_MEMBER, type StoredMember } from './schema.ts';
import { encodeV2Membership } from './v2-membership.ts';

function entryOf(member: StoredMember): [Buffer, Buffer] {
  return [encodeMemberKey(member.id), encodeMember(member)];
}

const started: StoredMember = {
  id: 0x8e9e05c52164694dn,
  peerUrls: ['http://localhost:2380'],
  isLearner: false,
  name: 'm1',
  clientUrls: ['http://localhost:2379'],
};
const learner: StoredMember = {
  id: 0xa1n,
  peerUrls: ['http://localhost:2381'],
  isLearner: true,
  name: '',
  clientUrls: [],
};

const file = (path: string, index: number, value: string): string =>
  `{"Path":"${path}","CreatedIndex":${index},"ModifiedIndex":${index},"ExpireTime":"0001-01-01T00:00:00Z","Value":${JSON.stringify(value)},"Children":null}`;
const folder = (path: string, index: number, children: string): string =>
  `{"Path":"${path}","CreatedIndex":${index},"ModifiedIndex":${index},"ExpireTime":"0001-01-01T00:00:00Z","Value":"","Children":{${children}}}`;

test('the tree is that of etcd', () => {
  const bytes = encodeV2Membership({
    members: [entryOf(started), entryOf(learner)],
    membersRemoved: [[encodeMemberKey(0xb2n), REMOVED_MEMBER]],
    cluster: [[Buffer.from('clusterVersion'), Buffer.from('3.7.0')]],
  });
  const m1 = '/0/members/8e9e05c52164694d';
  const attributes = file(`${m1}/attributes`, 2, '{"name":"m1","clientURLs":["http://localhost:2379"]}');
  const raft = file(`${m1}/raftAttributes`, 1, '{"peerURLs":["http://localhost:2380"]}');
  const raftOfLearner = file(
    '/0/members/a1/raftAttributes',
    3,
    '{"peerURLs":["http://localhost:2381"],"isLearner":true}',
  );
  const members = folder(
    '/0/members',
    1,
    // etcd's JSON has them in the order of their names; which order they have matters to nobody.
    `"8e9e05c52164694d":${folder(m1, 1, `"raftAttributes":${raft},"attributes":${attributes}`)},"a1":${folder('/0/members/a1', 3, `"raftAttributes":${raftOfLearner}`)}`,
  );
  const removed = folder('/0/removed_members', 4, `"b2":${file('/0/removed_members/b2', 4, '')}`);
  const zero = folder(
    '/0',
    0,
    `"members":${members},"removed_members":${removed},"version":${file('/0/version', 5, '3.7.0')}`,
  );
  const root = folder('/', 0, `"0":${zero},"1":${folder('/1', 0, '')}`);
  assert.ok(bytes !== null);
  const text = bytes.toString();
  assert.ok(
    text.startsWith(`{"Root":${root},"WatcherHub":{"EventHistory":{"Queue":{"Events":[null,`),
    text.slice(0, 1500),
  );
  const tail =
    ',"CurrentIndex":5,"Stats":{"getsSuccess":0,"getsFail":0,"setsSuccess":2,"setsFail":0,"deleteSuccess":0,"deleteFail":0,' +
    '"updateSuccess":0,"updateFail":0,"createSuccess":3,"createFail":0,"compareAndSwapSuccess":0,"compareAndSwapFail":0,' +
    '"compareAndDeleteSuccess":0,"compareAndDeleteFail":0,"expireCount":0,"watchers":0},"CurrentVersion":2}';
  assert.ok(text.endsWith(tail), text.slice(-600));
});

test('what Go escapes is escaped once more inside of the string that it stands in', () => {
  const odd = { ...learner, peerUrls: ['http://a:1/?x=1&y=<2>'] };
  const bytes = encodeV2Membership({ members: [entryOf(odd)], membersRemoved: [], cluster: [] });
  assert.ok(bytes!.toString().includes(String.raw`?x=1\\u0026y=\\u003c2\\u003e`));
});

test('damage is told', () => {
  const empty = { members: [], membersRemoved: [], cluster: [] };
  assert.equal(encodeV2Membership({ ...empty, members: [[Buffer.from('a1'), Buffer.from('{')]] }), null);
  assert.equal(encodeV2Membership({ ...empty, membersRemoved: [[Buffer.from('xyz'), REMOVED_MEMBER]] }), null);
});
