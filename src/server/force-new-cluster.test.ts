// Goal: --force-new-cluster makes of one member of three a cluster of one with all that was committed, for good. Method: three members in
// memory, of which one is started again alone; and logs as no cluster that runs has them, given to the function itself.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, it } from 'node:test';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { decode, encode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import { ConfChangeType, EMPTY_CONF_STATE, type Entry, EntryType, NO_BYTES } from '../raft/types.ts';
import { Logger } from '../telemetry/logger.ts';
import { MemberCluster } from '../testing/member-cluster-fixture.ts';
import type { WalEntry, WalHardState } from '../wal/format.ts';
import type { WalReplay } from '../wal/replay.ts';
import type { Wal } from '../wal/wal.ts';
import { type AppliedState, forceNewCluster } from './force-new-cluster.ts';

const names = ['a', 'b', 'c'];
let cluster: MemberCluster;

beforeEach(() => {
  cluster = new MemberCluster();
});

afterEach(() => cluster.end());

/** Begins a cluster of three in which revision 2 is everywhere. */
async function beginThree(): Promise<void> {
  await cluster.begin(names);
  await cluster.leader();
  assert.equal(await cluster.fixture('a').put('k', 'v'), 2);
  await cluster.settled();
}

it('one of three goes on alone, with everything that was committed', async () => {
  await beginThree();
  for (const name of names) await cluster.stop(name);
  const { term } = cluster.member('a');
  const others = [cluster.id('b'), cluster.id('c')];

  await cluster.restart('a', '--force-new-cluster');
  const { parts } = cluster.member('a');
  assert.deepEqual(
    parts.cluster.members().map(({ name }) => name),
    ['a'],
  );
  for (const id of others) assert.ok(parts.cluster.isRemoved(id), 'as after a removal: they are not let in again');
  assert.deepEqual(parts.raft.status().confState.voters, [parts.id]);
  assert.ok(cluster.member('a').term > term, 'it was elected after them');
  assert.equal(parts.store.currentRevision, 2);
  assert.equal(await cluster.fixture('a').put('k', 'w'), 3);
  const [line] = cluster.fixture('a').logged('forcing restart member');
  assert.equal(line!['local-member-id'], parts.id.toString(16));

  await cluster.restart('a');
  assert.deepEqual(cluster.member('a').parts.raft.status().confState.voters, [parts.id]);
  assert.equal(await cluster.fixture('a').put('k', 'x'), 4);
});

it('what was not committed is dropped, and with nobody to remove nothing is added', async () => {
  await beginThree();
  const leader = await cluster.leader();
  for (const name of names) if (name !== leader) cluster.cut.add(name);
  const { raft } = cluster.member(leader).parts;
  const { commit } = raft.status();
  // In this turn it still leads.
  void cluster.fixture(leader).put('lost', 'v');
  await cluster.until(() => raft.lastIndex > commit);
  for (const name of names) await cluster.stop(name);
  cluster.cut.clear();

  await cluster.restart(leader, '--force-new-cluster');
  const { parts } = cluster.member(leader);
  assert.equal(parts.store.currentRevision, 2, 'the put that nobody acknowledged is gone');
  assert.equal(cluster.fixture(leader).logged('discarding uncommitted WAL entries').length, 1);
  const lines = cluster.fixture(leader).logged('forcing restart member').length;
  await cluster.restart(leader, '--force-new-cluster');
  const again = cluster.fixture(leader).logged('forcing restart member').slice(lines);
  assert.equal(again.length, 1);
  assert.ok(Number(again[0]!['commit-index']) >= Number(again[0]!['wal-commit-index']));
  assert.deepEqual(cluster.member(leader).parts.raft.status().confState.voters, [parts.id]);
  assert.equal(await cluster.fixture(leader).put('k', 'w'), 3);
});

it('a learner that is left alone votes', async () => {
  await cluster.begin(['a', 'b']);
  const leader = await cluster.leader();
  assert.equal(await cluster.fixture(leader).put('k', 'v'), 2);
  await cluster.add(leader, 'c', true);
  await cluster.join('c');
  await cluster.settled();
  assert.equal(cluster.member('c').isLearner, true);
  for (const name of names) await cluster.stop(name);

  await cluster.restart('c', '--force-new-cluster');
  const { parts } = cluster.member('c');
  assert.deepEqual(parts.raft.status().confState.voters, [parts.id]);
  assert.deepEqual(
    parts.cluster.members().map(({ name, isLearner }) => [name, isLearner]),
    [['c', false]],
  );
  assert.equal(await cluster.fixture('c').put('k', 'w'), 3);
  await cluster.restart('c');
  assert.equal(await cluster.fixture('c').put('k', 'x'), 4);
});

const silent = new Logger({ level: 'fatal', format: 'json', sink: { write: () => {}, flush: () => {} }, now: () => 0 });

/** A log of member 1 with these entries from index 5 on, committed to `commit`, in term 4. */
function forced(entries: readonly Entry[], commit: number, applied: AppliedState, isDurable = true) {
  const written: { state: WalHardState | null; entries: readonly WalEntry[] }[] = [];
  const wal = {
    metadata: { clusterId: 9n, memberId: 1n },
    append: (state: WalHardState | null, added: readonly WalEntry[]) => void written.push({ state, entries: added }),
    sync: () => 1,
    waitDurable: () => isDurable,
  } as unknown as Wal;
  const start = { index: 4, term: 3 };
  const replay = { hardState: { term: 4, vote: 2n, commit }, start, entries, last: start } as unknown as WalReplay;
  return { log: forceNewCluster(wal, replay, applied, silent), written };
}

const entry = (index: number, type: EntryType, data: Buffer): Entry => ({ index, term: 4, type, data });
const change = (type: ConfChangeType, nodeId: bigint): Buffer => encode(ConfChange, { type, nodeId });

it('counts the changes behind the database, and adds a member that its own log does not know', () => {
  const entries = [
    // In the database already: it may not count twice.
    entry(5, EntryType.confChange, change(ConfChangeType.removeNode, 6n)),
    entry(6, EntryType.confChange, change(ConfChangeType.removeNode, 3n)),
    entry(7, EntryType.confChange, change(ConfChangeType.addLearnerNode, 7n)),
    entry(8, EntryType.normal, NO_BYTES),
    entry(9, EntryType.confChange, change(ConfChangeType.addNode, 8n)),
  ];
  const confState = { ...EMPTY_CONF_STATE, voters: [2n, 3n, 6n], learners: [5n] };
  const { log, written } = forced(entries, 6, { index: 5, confState });
  assert.deepEqual(log.entries.slice(0, 2), entries.slice(0, 2), 'what is beyond the commit is dropped');
  const added = log.entries.slice(2).map(({ index, term, data }) => {
    const { type, nodeId, context } = decode(ConfChange, data)!;
    return [index, term, type ?? 0, nodeId, context?.toString() ?? ''];
  });
  const self = '{"id":1,"peerURLs":["http://localhost:2380"]}';
  assert.deepEqual(added, [
    [7, 4, ConfChangeType.addNode, 1n, self],
    [8, 4, ConfChangeType.removeNode, 2n, ''],
    [9, 4, ConfChangeType.removeNode, 5n, ''],
    [10, 4, ConfChangeType.removeNode, 6n, ''],
  ]);
  assert.deepEqual(log.hardState, { term: 4, vote: 2n, commit: 10 });
  assert.deepEqual(log.last, { index: 10, term: 4 });
  assert.deepEqual(written, [{ state: log.hardState, entries: log.entries.slice(2) }], 'in one record');
});

it('believes the database beyond the last note that the log has of the commit, and writes nothing for a member that is alone', () => {
  const entries = [entry(5, EntryType.normal, NO_BYTES), entry(6, EntryType.normal, NO_BYTES)];
  const { log, written } = forced(entries, 4, { index: 6, confState: { ...EMPTY_CONF_STATE, voters: [1n] } });
  assert.deepEqual(log.entries, entries);
  assert.equal(log.hardState.commit, 6);
  assert.deepEqual(written, []);
});

it('ends the start when the disk does not take it', () => {
  const confState = { ...EMPTY_CONF_STATE, voters: [1n, 2n] };
  assert.throws(
    () => forced([], 4, { index: 4, confState }, false),
    (error) => error instanceof FatalError && error.exitCode === ExitCode.walWrite,
  );
});
