// Goal: a member gets another one's state, whole and of one commit: what is sent is etcd's message and etcd's file, and no more than a bound
// at once; what has arrived becomes the state of the store, the leases, the alarms, the membership and the peers, and watchers go on.
// Method: two members with their databases; the bytes between them are carried by hand, and raft and the log are left out
// (snapshot-recovery.test.ts has the log, the simulation has raft).

import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { snapshotLogHeldMs, snapshotSendsMax } from '../cluster-limits.ts';
import type { EventBatch } from '../mvcc/event-batch.ts';
import { EventFilter, Watcher, type WatchSink } from '../mvcc/watcher.ts';
import type { PeerTransport, SnapshotBody } from '../peer/peer-transport.ts';
import { AlarmRequest, AlarmType, LeaseGrantRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { type Message, MessageType, newMessage } from '../raft/types.ts';
import { checkBolt } from '../snapshot/bolt-check.ts';
import { openBytes, unwrap } from '../snapshot/bolt-fixture.ts';
import { encodeMember, encodeMemberKey, MetaKey } from '../snapshot/schema.ts';
import { DeleteMessage, PutMessage } from '../testing/kv-messages.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { silentTransport } from '../testing/silent-transport.ts';
import type { SnapshotTransfers } from './snapshot-transfer.ts';

/** Notes what it is told, and hands over what it is to send. */
class NotedTransport implements PeerTransport {
  readonly notes: string[] = [];
  readonly sent: { readonly message: Message; readonly body: SnapshotBody }[] = [];
  readonly send = silentTransport.send;
  readonly flush = silentTransport.flush;
  readonly stop = silentTransport.stop;
  readonly activeSinceMs = silentTransport.activeSinceMs;

  sendSnapshot(message: Message, body: SnapshotBody): void {
    this.sent.push({ message, body });
  }
  addPeer(id: bigint, urls: readonly string[]): void {
    this.notes.push(`add ${id.toString(16)} ${urls.join()}`);
  }
  updatePeer(id: bigint, urls: readonly string[]): void {
    this.notes.push(`update ${id.toString(16)} ${urls.join()}`);
  }
  removePeer(id: bigint): void {
    this.notes.push(`remove ${id.toString(16)}`);
  }
}

const fixtures: MemberFixture[] = [];
after(() => {
  for (const fixture of fixtures) fixture.remove();
});

async function started(): Promise<{ readonly fixture: MemberFixture; readonly transport: NotedTransport }> {
  const fixture = new MemberFixture();
  fixtures.push(fixture);
  const transport = new NotedTransport();
  fixture.newTransport = () => transport;
  await fixture.start();
  return { fixture, transport };
}

const to = 0xabcn;

function request(fixture: MemberFixture): Message {
  const message = newMessage(MessageType.snap, to);
  message.from = fixture.member.parts.id;
  message.term = 5;
  return message;
}

function later(isTrue: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    const look = (): void => void (isTrue() ? resolve() : setTimeout(look, 1));
    look();
  });
}

interface Sent {
  readonly message: Message;
  readonly bytes: Buffer;
}

/** Takes a snapshot as the transport does: in its own time. */
async function taken(transport: NotedTransport): Promise<Sent> {
  await later(() => transport.sent.length > 0);
  const { message, body } = transport.sent.shift()!;
  const chunks: Buffer[] = [];
  await new Promise<void>((resolve, reject) => {
    body.sink = {
      chunk: (bytes) => {
        chunks.push(bytes);
        setImmediate(() => body.resume());
        return false;
      },
      done: (error) => (error === null ? resolve() : reject(error)),
    };
    setTimeout(() => body.resume(), 5);
  });
  const bytes = Buffer.concat(chunks);
  assert.equal(bytes.length, body.fileBytes);
  return { message, bytes };
}

function arrived(transfers: SnapshotTransfers, { message, bytes }: Sent): Promise<Error | null> {
  const receipt = transfers.arrives(message);
  assert.ok(receipt !== null);
  for (let at = 0; at < bytes.length; at += 5000) receipt.write(bytes.subarray(at, at + 5000));
  return new Promise((resolve) => receipt.end(resolve));
}

function put(fixture: MemberFixture, key: string, value: string, lease = 0n): Promise<unknown> {
  return fixture.propose(RequestField.put, PutMessage, { key: Buffer.from(key), value: Buffer.from(value), lease });
}

test('what is sent is of one commit: message, membership, file', async () => {
  const { fixture, transport } = await started();
  for (let i = 0; i < 200; i++) await put(fixture, `key${i}`, 'v'.repeat(100));
  const { member } = fixture;
  const { backend, raft, id } = member.parts;
  const index = backend.consistentIndex;
  member.snapshots.send(request(fixture));
  assert.equal(member.snapshots.heldIndex, index);
  // Goes on while it is sent.
  await put(fixture, 'later', 'x');
  const { message, bytes } = await taken(transport);
  const { snapshot, type, term, from } = message;
  assert.deepEqual([type, message.to, from, term], [MessageType.snap, to, id, 5]);
  assert.ok(snapshot !== null);
  assert.ok(snapshot.meta.index >= index);
  assert.equal(snapshot.meta.term, raft.term);
  assert.deepEqual(snapshot.meta.confState.voters, [id]);
  const reader = openBytes(bytes);
  unwrap(checkBolt(reader));
  const meta = unwrap(reader.bucket(Buffer.from('meta')))!;
  assert.equal(unwrap(meta.get(MetaKey.consistentIndex))!.readBigUInt64BE(), BigInt(snapshot.meta.index));
  assert.equal(unwrap(meta.get(MetaKey.term))!.readBigUInt64BE(), BigInt(snapshot.meta.term));
  const data = JSON.parse(snapshot.data.toString()) as { Root: { Children: Record<string, { Children: object }> } };
  assert.deepEqual(Object.keys(data.Root.Children['0']!.Children), ['members', 'version']);
  assert.ok(snapshot.data.toString().includes(`/0/members/${id.toString(16)}/raftAttributes`));
  assert.equal(fixture.logged('sending merged snapshot').length, 1);
  assert.equal(fixture.logged('sent merged snapshot')[0]!['bytes'], bytes.length);
  // Its entries stay for a while, for the member to go on from.
  assert.equal(member.snapshots.heldIndex, index);
  fixture.advance(snapshotLogHeldMs);
  member.snapshots.tick(member.parts.nowMs());
  assert.equal(member.snapshots.heldIndex, Infinity);
  await fixture.stop();
});

test('only some are sent at once, and one that is given up ends', async () => {
  const { fixture, transport } = await started();
  await put(fixture, 'a', '1');
  const { member } = fixture;
  const failed: boolean[] = [];
  const { raft } = member.parts;
  const report = raft.reportSnapshot.bind(raft);
  raft.reportSnapshot = (id, succeeded) => {
    failed.push(!succeeded);
    report(id, succeeded);
  };
  for (let i = 0; i < snapshotSendsMax + 1; i++) member.snapshots.send(request(fixture));
  assert.deepEqual(failed, [true], 'one too many');
  await later(() => transport.sent.length === snapshotSendsMax);
  const ends: string[] = [];
  const [first, second] = transport.sent.splice(0);
  first!.body.sink = { chunk: () => false, done: () => assert.fail('who gives it up needs not be told') };
  first!.body.resume();
  first!.body.cancel();
  second!.body.cancel();
  assert.equal(member.snapshots.heldIndex, Infinity);
  assert.deepEqual(failed, [true], 'what the transport has it reports itself');
  // There is room again.
  member.snapshots.send(request(fixture));
  await taken(transport);
  member.snapshots.send(request(fixture));
  await later(() => transport.sent.length === 1);
  const last = transport.sent.shift()!.body;
  await fixture.stop();
  last.sink = { chunk: () => assert.fail('a chunk after the end'), done: (error) => ends.push(String(error)) };
  last.resume();
  assert.deepEqual(ends, ['Error: the server is stopping']);
});

class NotedWatches implements WatchSink {
  readonly isBlocked = false;
  readonly notes: string[] = [];
  sendEvents(watcher: Watcher, batch: EventBatch): void {
    this.notes.push(`${watcher.id}: ${batch.eventCount} from ${batch.firstRevision} at ${batch.revision}`);
  }
  sendCompacted(watcher: Watcher, compactRevision: number): void {
    this.notes.push(`${watcher.id}: compacted ${compactRevision}`);
  }
  watcher(id: number, key: string, startRevision: number): Watcher {
    return new Watcher(this, { id, key, end: '', startRevision, filter: EventFilter.none });
  }
}

/** A leader that has come further than the others, with everything that a state has. */
async function leaderAhead(): Promise<Sent> {
  const { fixture, transport } = await started();
  for (let i = 0; i < 40; i++) await put(fixture, 'a', `${i}`);
  await fixture.propose(RequestField.leaseGrant, LeaseGrantRequest, { id: 77n, ttl: 600n });
  await put(fixture, 'leased', 'x', 77n);
  await put(fixture, 'gone', 'x');
  await fixture.propose(RequestField.deleteRange, DeleteMessage, { key: Buffer.from('gone') });
  const { backend } = fixture.member.parts;
  const members = [
    { id: 0xa1n, peerUrls: ['http://a1:2380'], isLearner: false, name: '', clientUrls: [] },
    { id: fixture.member.parts.id, peerUrls: ['http://m1:2380'], isLearner: false, name: 'm1', clientUrls: [] },
  ];
  for (const member of members) backend.bucketPut('members', encodeMemberKey(member.id), encodeMember(member));
  backend.endApply(backend.consistentIndex, backend.consistentTerm);
  await fixture.propose(RequestField.alarm, AlarmRequest, { action: 1, memberId: 9n, alarm: AlarmType.noSpace });
  fixture.member.snapshots.send(request(fixture));
  const sent = await taken(transport);
  await fixture.stop();
  return sent;
}

test('what has arrived becomes the state, and everything goes on in it', async () => {
  const sent = await leaderAhead();
  const { fixture, transport } = await started();
  const { member } = fixture;
  const { store, hub, lessor, cluster, alarms, backend, id } = member.parts;
  await put(fixture, 'a', 'old');
  await fixture.propose(RequestField.leaseGrant, LeaseGrantRequest, { id: 5n, ttl: 600n });
  await put(fixture, 'own', 'x', 5n);
  const watches = new NotedWatches();
  const before = store.currentRevision;
  for (const watcher of [watches.watcher(1, 'a', 0), watches.watcher(2, 'leased', 42), watches.watcher(3, 'a', 2)]) {
    hub.add(watcher);
  }
  hub.flush();
  while (hub.hasCatchUp) hub.catchUp();
  watches.notes.length = 0;
  const snap = join(fixture.folder, 'data/member/snap');
  const { snapshots } = member;
  assert.equal(await arrived(snapshots, sent), null);
  const { snapshot } = sent.message;
  assert.ok(readdirSync(snap).some((name) => name.endsWith(`${snapshot!.meta.index.toString(16)}.snap.db`)));
  const done = new Promise<void>((resolve) => snapshots.install(snapshot!, resolve));
  assert.equal(snapshots.isInstalling, true);
  assert.equal(snapshots.arrives(sent.message), null, 'one at a time');
  snapshots.send(request(fixture));
  assert.equal(snapshots.heldIndex, Infinity, 'what it has is older than its log begins: nobody is sent that');
  assert.equal(fixture.logged('refused to send a database snapshot').length, 1);
  await done;
  assert.equal(snapshots.isInstalling, false);
  assert.deepEqual(
    readdirSync(snap).filter((name) => name.includes('.snap.db')),
    [],
    'the database holds it',
  );
  assert.equal(backend.consistentIndex, snapshot!.meta.index);
  assert.equal(store.currentRevision, 44);
  assert.equal(store.compactRevision, -1);
  assert.deepEqual([...lessor.lookup(77n)!.keys], ['leased']);
  assert.equal(lessor.lookup(5n), undefined);
  assert.deepEqual(alarms.get(AlarmType.none), [{ memberId: 9n, alarm: AlarmType.noSpace }]);
  assert.deepEqual(
    cluster.members().map((one) => one.id),
    [0xa1n, id],
  );
  assert.deepEqual(transport.notes, ['add a1 http://a1:2380']);
  while (hub.hasCatchUp) hub.catchUp();
  hub.checkInvariants();
  const changes = 41 - before;
  assert.deepEqual(watches.notes.sort(), [
    `1: ${changes} from ${before + 1} at 44`,
    '2: 1 from 42 at 44',
    `3: ${changes} from ${before + 1} at 44`,
  ]);
  assert.ok(existsSync(backend.path));
  assert.equal(fixture.fatal.length, 0);
  await new Promise<void>((resolve) => backend.close(resolve));
});

test('a database that raft did not take is removed, one that it took stays until it is installed', async () => {
  const sent = await leaderAhead();
  const { fixture } = await started();
  const { snapshots, parts } = fixture.member;
  const { index } = sent.message.snapshot!.meta;
  const names = (): string[] =>
    readdirSync(join(fixture.folder, 'data/member/snap')).filter((name) => name.includes('.snap.db'));
  const tick = (): void => snapshots.tick(parts.nowMs());
  assert.equal(await arrived(snapshots, sent), null);
  assert.equal(names().length, 1);
  tick();
  assert.deepEqual(names(), [], 'of a leader that was one no more, say');
  assert.equal(await arrived(snapshots, sent), null);
  const other = { message: structuredClone(sent.message), bytes: Buffer.alloc(30_000, 7) };
  assert.match(String(await arrived(snapshots, other)), /cannot be used/);
  assert.deepEqual(names(), [], 'there is room for the next one');
  assert.equal(await arrived(snapshots, sent), null);
  Object.defineProperty(parts.raft, 'committedIndex', { value: index });
  tick();
  assert.equal(names().length, 1, 'the log is about to tell of it');
  await new Promise<void>((resolve) => snapshots.install(sent.message.snapshot!, resolve));
  tick();
  assert.deepEqual(names(), []);
  await new Promise<void>((resolve) => parts.backend.close(resolve));
});

test('a state that this member has already is not written, but its message goes on', async () => {
  const { fixture } = await started();
  const { member } = fixture;
  const message = request(fixture);
  const { id } = member.parts;
  const confState = { voters: [id], learners: [], votersOutgoing: [], learnersNext: [], autoLeave: false };
  message.snapshot = { meta: { confState, index: member.parts.raft.committedIndex, term: 1 }, data: Buffer.alloc(0) };
  const unwanted = { message, bytes: Buffer.alloc(20_000) };
  assert.equal(await arrived(member.snapshots, unwanted), null);
  assert.deepEqual(
    readdirSync(join(fixture.folder, 'data/member/snap')).filter((name) => name.includes('snap.db')),
    [],
  );
  await fixture.stop();
});
