// Goal: nothing that a peer sends brings the cluster to a stop for good: not a proposal that no member can apply, not a term that leaves no
// room for the next. Method: messages judged alone, each bound on both sides; three members in one process, one of which lies.

import assert from 'node:assert/strict';
import { afterEach, describe, it, test } from 'node:test';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { peerRefusalLogPauseMs, raftPositionMax, raftTermStepMax } from '../cluster-limits.ts';
import { ClusterVersionSetRequest } from '../proto/etcdserverpb.ts';
import { encodeInternalRequest, RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import {
  ConfChangeType,
  EMPTY_CONF_STATE,
  type Entry,
  EntryType,
  type Message,
  MessageType,
  newMessage,
} from '../raft/types.ts';
import { PutMessage } from '../testing/kv-messages.ts';
import { MemberCluster } from '../testing/member-cluster-fixture.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import type { MemberParts } from './member-parts.ts';
import { MessageCheck } from './message-check.ts';

const LOCAL = 1n;
const PEER = 2n;

function requestOf(field: RequestField, message: Buffer): Buffer {
  return encodeInternalRequest(field, message, 0, message.length, 9, 9);
}

const putEntry = requestOf(RequestField.put, encode(PutMessage, { key: Buffer.from('k'), value: Buffer.from('v') }));
const versionEntry = (ver: string): Buffer =>
  requestOf(RequestField.clusterVersionSet, encode(ClusterVersionSetRequest, { ver }));

/** A request of etcd's v2 API, as a 3.5 proposes it. */
function v2Entry(path: string, val: string): Buffer {
  const field = (tag: number, text: string): Buffer =>
    Buffer.concat([Buffer.from([tag, text.length]), Buffer.from(text)]);
  return Buffer.concat([
    Buffer.from([0x08, 1]),
    field(0x12, 'PUT'),
    field(0x1a, path),
    field(0x22, val),
    Buffer.from('2800', 'hex'),
  ]);
}

function changeEntry(type: number, nodeId: bigint, context?: string): Buffer {
  return encode(ConfChange, {
    id: 1n,
    type,
    nodeId,
    ...(context === undefined ? {} : { context: Buffer.from(context) }),
  });
}

function proposals(...entries: readonly (readonly [EntryType, Buffer])[]): Message {
  const message = newMessage(MessageType.prop, LOCAL);
  message.from = PEER;
  message.entries = entries.map(([type, data]) => ({ term: 0, index: 0, type, data }));
  return message;
}

function entriesOf(term: number): Entry[] {
  return [{ term, index: 8, type: EntryType.normal, data: putEntry }];
}

/** Of a member in `term`, whose time the test moves. */
class Bench {
  readonly lines: Record<string, unknown>[] = [];
  readonly raft = { term: 5 };
  nowMs = 0;
  readonly check = new MessageCheck({
    id: LOCAL,
    raft: this.raft,
    serverVersion: '3.7.1',
    nowMs: () => this.nowMs,
    logger: { warn: (_caller: string, _text: string, fields: Record<string, unknown>) => void this.lines.push(fields) },
  } as unknown as MemberParts);

  /** The error of the line that it cost, if it was refused. */
  refusal(message: Message): string | null {
    this.nowMs += peerRefusalLogPauseMs;
    const before = this.lines.length;
    const isAdmitted = this.check.admits(message);
    const line = this.lines[before];
    assert.equal(isAdmitted, line === undefined, 'what is refused is logged, and nothing else');
    return line === undefined ? null : String(line['error']);
  }

  proposalRefusal(type: EntryType, data: Buffer): string | null {
    return this.refusal(proposals([type, data]))?.replace('a proposal that no member can apply: ', '') ?? null;
  }
}

describe('proposals of a peer', () => {
  it('are taken when a member can apply them', () => {
    const bench = new Bench();
    const member = '{"id":77,"peerURLs":["http://x:1"],"name":"x"}';
    const good: readonly (readonly [EntryType, Buffer])[] = [
      [EntryType.normal, putEntry],
      [EntryType.normal, Buffer.alloc(0)],
      [EntryType.normal, versionEntry('3.7.0')],
      [EntryType.normal, v2Entry('/0/version', '3.5.0')],
      [EntryType.normal, v2Entry('/0/members/4d/attributes', '{"name":"x","clientURLs":["http://x:2"]}')],
      [EntryType.confChange, changeEntry(ConfChangeType.addNode, 77n, member)],
      [EntryType.confChange, changeEntry(ConfChangeType.addLearnerNode, 77n, member)],
      [EntryType.confChange, changeEntry(ConfChangeType.updateNode, 77n, member)],
      [EntryType.confChange, changeEntry(ConfChangeType.addNode, 77n, '{"id":77,"peerURLs":null,"isPromote":true}')],
      [EntryType.confChange, changeEntry(ConfChangeType.removeNode, 77n)],
    ];
    for (const [type, data] of good) assert.equal(bench.proposalRefusal(type, data), null, data.toString('latin1'));
    const all = proposals(...good);
    const { entries } = all;
    assert.equal(bench.refusal(all), null);
    assert.equal(all.entries, entries, 'as it came');
    assert.equal(bench.refusal(proposals()), null);
  });

  it('are refused with the reason when none can', () => {
    const bench = new Bench();
    const { normal, confChange, confChangeV2 } = EntryType;
    const noVersion = 'it sets the version of the cluster to what is none';
    const noMember = 'it changes the membership by no member';
    const noUrls = 'it gives a member what are no peer URLs';
    const bad: readonly (readonly [EntryType, Buffer, string])[] = [
      [normal, Buffer.from('garbage'), 'it is no InternalRaftRequest'],
      [normal, putEntry.subarray(0, putEntry.length - 1), 'it is no InternalRaftRequest'],
      [normal, requestOf(RequestField.put, Buffer.from([0x0a, 9])), 'its request does not parse'],
      [
        normal,
        requestOf(1100 as RequestField, Buffer.alloc(0)),
        'it is about authentication, users or roles, which this version of keelson cannot apply',
      ],
      [normal, Buffer.from('a206020801', 'hex'), 'it holds no request that this version knows'],
      [normal, versionEntry('x'), noVersion],
      [normal, v2Entry('/0/version', 'x'), noVersion],
      [normal, v2Entry('/1/key', 'x'), 'it is a request of the v2 API'],
      [normal, v2Entry('/0/members/4d/attributes', '['), 'it is a request of the v2 API'],
      [confChange, Buffer.from([0xff]), 'it is no ConfChange'],
      [confChange, Buffer.alloc(0), noMember],
      [confChange, changeEntry(ConfChangeType.addNode, 77n, '{'), noMember],
      [confChange, changeEntry(ConfChangeType.addNode, 77n, '{"id":77}'), noUrls],
      [confChange, changeEntry(ConfChangeType.updateNode, 77n, '{"id":77,"peerURLs":["x"]}'), noUrls],
      [confChangeV2, Buffer.alloc(0), 'it is a ConfChangeV2, which members of etcd do not propose'],
    ];
    for (const [type, data, reason] of bad) assert.equal(bench.proposalRefusal(type, data), reason, reason);
  });

  it('the others of a message go on, in their order', () => {
    const bench = new Bench();
    const garbage = Buffer.from('garbage');
    const other = versionEntry('3.7.0');
    const message = proposals([0, putEntry], [0, garbage], [0, other], [0, garbage], [0, putEntry]);
    assert.ok(bench.check.admits(message));
    assert.deepEqual(
      message.entries.map(({ data }) => data),
      [putEntry, other, putEntry],
    );
    assert.deepEqual(
      bench.lines.map((line) => [line['remote-peer-id'], line['message-type']]),
      [['2', 'MsgProp']],
    );
  });

  it('cost a line in a while, which says how many there were', () => {
    const bench = new Bench();
    for (let i = 0; i < 1000; i++) assert.equal(bench.check.admits(proposals([0, Buffer.from('garbage')])), false);
    assert.equal(bench.lines.length, 1);
    bench.nowMs += peerRefusalLogPauseMs - 1;
    bench.check.admits(proposals([0, Buffer.from('garbage')]));
    assert.equal(bench.lines.length, 1);
    bench.nowMs += 1;
    bench.check.admits(proposals([0, Buffer.from('garbage')]));
    assert.deepEqual(
      bench.lines.map((line) => line['rejected-since-last-line']),
      [1, 1001],
    );
  });
});

describe('positions', () => {
  const ofTerm = (term: number, type: MessageType = MessageType.heartbeat): Message => {
    const message = newMessage(type, LOCAL);
    message.from = PEER;
    message.term = term;
    return message;
  };

  it('a term is at most some elections ahead, but for a member that has none yet', () => {
    const bench = new Bench();
    for (const type of [MessageType.heartbeat, MessageType.vote, MessageType.preVoteResp, MessageType.appResp]) {
      assert.equal(bench.refusal(ofTerm(5 + raftTermStepMax, type)), null);
      const reason = `term ${6 + raftTermStepMax} is too far beyond this member's, 5, to be one of this cluster`;
      assert.equal(bench.refusal(ofTerm(6 + raftTermStepMax, type)), reason);
    }
    bench.raft.term = 0;
    assert.equal(bench.refusal(ofTerm(raftPositionMax)), null);
    bench.raft.term = raftPositionMax;
    assert.equal(bench.refusal(ofTerm(raftPositionMax)), null);
    assert.equal(bench.refusal(ofTerm(1)), null, 'older ones are raft’s');
  });

  it('what a message carries is of no later term than it', () => {
    const bench = new Bench();
    const append = ofTerm(6, MessageType.app);
    append.entries = entriesOf(6);
    assert.equal(bench.refusal(append), null);
    append.entries = [...entriesOf(6), ...entriesOf(7), ...entriesOf(6)];
    assert.equal(bench.refusal(append), 'an entry of term 7 in a message of term 6');
    const snap = ofTerm(6, MessageType.snap);
    snap.snapshot = { meta: { confState: EMPTY_CONF_STATE, index: 9, term: 6 }, data: Buffer.alloc(0) };
    assert.equal(bench.refusal(snap), null);
    snap.snapshot = { meta: { confState: EMPTY_CONF_STATE, index: 9, term: 7 }, data: Buffer.alloc(0) };
    assert.equal(bench.refusal(snap), 'a snapshot of term 7 in a message of term 6');
  });
});

describe('a cluster with a member that lies', () => {
  let cluster: MemberCluster;
  afterEach(() => cluster.end());

  it('goes on, at the leader and at followers, and no restart finds anything of it', async () => {
    cluster = new MemberCluster();
    await cluster.begin(['a', 'b', 'c']);
    const [leader, liar] = [await cluster.leader(), await cluster.follower()];
    const other = ['a', 'b', 'c'].find((name) => name !== leader && name !== liar)!;
    for (const to of [leader, other]) {
      for (const data of [Buffer.from('garbage'), versionEntry('x'), v2Entry('/0/version', 'x')]) {
        const message = proposals([EntryType.normal, data], [EntryType.confChange, data]);
        message.from = cluster.id(liar);
        message.to = cluster.id(to);
        cluster.member(to).receive(message);
      }
      const [line] = cluster.fixture(to).logged('rejected what a peer sent');
      assert.equal(line!['remote-peer-id'], cluster.id(liar).toString(16), to);
    }
    assert.equal(typeof (await cluster.fixture(other).put('k', 'v')), 'number');
    await cluster.settled();
    for (const name of ['a', 'b', 'c']) await cluster.restart(name);
    assert.equal(typeof (await cluster.fixture(liar).put('k', 'w')), 'number');
  });

  it('elects leaders after terms that leave no room for another', async () => {
    cluster = new MemberCluster();
    await cluster.begin(['a', 'b', 'c']);
    const liar = await cluster.follower();
    for (const name of ['a', 'b', 'c']) {
      for (const type of [MessageType.app, MessageType.appResp, MessageType.vote, MessageType.heartbeat]) {
        const message = newMessage(type, cluster.id(name));
        message.from = cluster.id(liar);
        message.term = raftPositionMax;
        cluster.member(name).receive(message);
      }
      assert.ok(cluster.member(name).term < 100, name);
    }
    const leader = await cluster.leader();
    cluster.cut.add(leader);
    const next = await cluster.leader();
    assert.notEqual(next, leader);
    assert.equal(typeof (await cluster.fixture(next).put('k', 'v')), 'number');
    cluster.cut.clear();
    for (const name of ['a', 'b', 'c']) await cluster.restart(name);
    assert.equal(typeof (await cluster.fixture(leader).put('k', 'w')), 'number');
  });
});

test('a request that no member can apply and that is in the log all the same: the end, which names the entry, before it has any effect', async () => {
  const path = '/0/version';
  for (const [entry, what] of [
    [v2Entry(path, 'x'), 'sets the version of the cluster to what is none'],
    [versionEntry('3.x'), 'sets the version of the cluster to what is none'],
    [requestOf(RequestField.put, Buffer.from([0x0a, 9])), 'holds a put that does not parse'],
    [requestOf(RequestField.alarm, Buffer.from([0x0a, 9])), 'holds a request that does not parse'],
    [requestOf(12 as RequestField, Buffer.alloc(0)), 'holds no request that this version knows'],
  ] as const) {
    const fixture = new MemberFixture();
    try {
      const member = await fixture.start();
      const { raft, cluster, backend } = member.parts;
      const version = cluster.version;
      const index = raft.lastIndex + 1;
      raft.propose(entry);
      assert.throws(
        () => member['run'](),
        (error) =>
          error instanceof FatalError &&
          error.exitCode === ExitCode.walCorrupt &&
          error.message.startsWith(`entry ${index} of term ${raft.term} in the log ${what}: `),
        what,
      );
      assert.equal(cluster.version, version);
      assert.equal(backend.consistentIndex, index - 1);
      await fixture.stop();
    } finally {
      fixture.remove();
    }
  }
});
