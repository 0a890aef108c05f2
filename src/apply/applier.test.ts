// Goal: each kind of entry has etcd's effect, answer and refusals. Method: entries over the model engine (apply-fixture.ts), answers
// taken apart by schema; every request under every alarm; the quota at its exact bound; alarms and leases recovered from the
// buckets.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ByteWriter } from '../base/byte-writer.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { readSlice } from '../limits.ts';
import {
  AlarmAction,
  AlarmMember,
  AlarmRequest,
  AlarmType,
  ClusterMemberAttrSetRequest,
  ClusterVersionSetRequest,
  CompactionRequest,
  DowngradeInfoSetRequest,
  LeaseCheckpointRequest,
  LeaseGrantRequest,
  LeaseRevokeRequest,
} from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { TxnRequest } from '../proto/kv-request.ts';
import { encode, type MessageInit } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import {
  DeleteAnswer,
  DeleteMessage,
  encodeTxn,
  type OpInit,
  PutAnswer,
  PutMessage,
  RangeAnswer,
  RangeMessage,
} from '../testing/kv-messages.ts';
import { AlarmStore, alarmName, alarmText } from './alarms.ts';
import { type Applied, ApplyBench, mustDecode } from './apply-fixture.ts';

const GrantAnswer = { id: { no: 2, kind: 'int64' }, ttl: { no: 3, kind: 'int64' } } as const;
const AlarmAnswer = { alarms: { no: 2, kind: AlarmMember, repeated: true } } as const;

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

function put(bench: ApplyBench, key: string, value: string, more: MessageInit<typeof PutMessage> = {}): Applied {
  return bench.apply(RequestField.put, encode(PutMessage, { key: latin1(key), value: latin1(value), ...more }));
}

function remove(bench: ApplyBench, key: string, end = '', prevKv = false): Applied {
  const message = encode(DeleteMessage, { key: latin1(key), rangeEnd: latin1(end), prevKv });
  return bench.apply(RequestField.deleteRange, message);
}

function range(bench: ApplyBench, key: string, end = '', revision = 0): Applied {
  return bench.apply(RequestField.range, encode(RangeMessage, { key: latin1(key), rangeEnd: latin1(end), revision }));
}

function txn(bench: ApplyBench, ...success: OpInit[]): Applied {
  return bench.apply(RequestField.txn, encodeTxn({ success }));
}

function compact(bench: ApplyBench, revision: number): Applied {
  return bench.apply(RequestField.compaction, encode(CompactionRequest, { revision }));
}

function grant(bench: ApplyBench, id: bigint, ttl = 60n): Applied {
  return bench.apply(RequestField.leaseGrant, encode(LeaseGrantRequest, { id, ttl }));
}

function revoke(bench: ApplyBench, id: bigint): Applied {
  return bench.apply(RequestField.leaseRevoke, encode(LeaseRevokeRequest, { id }));
}

function alarm(bench: ApplyBench, action: number, memberId: bigint, type: number): [bigint, number][] {
  const message = encode(AlarmRequest, { action, memberId, alarm: type });
  const { error, body } = bench.apply(RequestField.alarm, message);
  assert.equal(error, null);
  return mustDecode(AlarmAnswer, body).alarms.map((each) => [each.memberId, each.alarm]);
}

function keysOf(bench: ApplyBench): string[] {
  return mustDecode(RangeAnswer, range(bench, '\0', '\0').body).kvs.map((kv) => kv.key.toString('latin1'));
}

test('put: the revision, the previous value, what is kept', () => {
  const bench = new ApplyBench();
  grant(bench, 5n);
  assert.deepEqual(put(bench, 'a', '1', { lease: 5n }), { error: null, revision: 2, body: Buffer.alloc(0) });
  const previous = mustDecode(PutAnswer, put(bench, 'a', '2', { prevKv: true, ignoreLease: true }).body).prevKv!;
  assert.deepEqual([previous.value.toString(), previous.modRevision, previous.lease], ['1', 2, 5n]);
  assert.equal(mustDecode(PutAnswer, put(bench, 'new', '', { prevKv: true }).body).prevKv, undefined);
  put(bench, 'a', '', { ignoreValue: true });
  const kv = mustDecode(RangeAnswer, range(bench, 'a').body).kvs[0]!;
  assert.deepEqual([kv.value.toString(), kv.lease, kv.version, kv.modRevision], ['2', 0n, 3, 5]);
  bench.storage.flush();
  put(bench, 'a', '', { ignoreValue: true, ignoreLease: true, prevKv: true });
  assert.deepEqual(mustDecode(RangeAnswer, range(bench, 'a').body).kvs[0], { ...kv, version: 4, modRevision: 6 });
});

test('put: refused without an effect', () => {
  const bench = new ApplyBench();
  const refused = (error: EtcdError): Applied => ({ error, revision: 1, body: Buffer.alloc(0) });
  assert.deepEqual(put(bench, 'a', '1', { lease: 9n }), refused(etcdErrors.leaseNotFound));
  assert.deepEqual(put(bench, 'a', '', { ignoreValue: true }), refused(etcdErrors.keyNotFound));
  assert.deepEqual(put(bench, 'a', '', { ignoreLease: true }), refused(etcdErrors.keyNotFound));
  assert.deepEqual(put(bench, 'a', '', { ignoreValue: true, lease: 9n }), refused(etcdErrors.leaseNotFound));
  assert.equal(bench.storage.rowCount, 0);
});

test('delete: counts, previous values, and no revision for nothing', () => {
  const bench = new ApplyBench();
  for (const key of ['a', 'b', 'c']) put(bench, key, key.toUpperCase());
  assert.deepEqual(remove(bench, 'x', 'z'), { error: null, revision: 4, body: Buffer.alloc(0) });
  const { revision, body } = remove(bench, 'b', '\0', true);
  const answer = mustDecode(DeleteAnswer, body);
  assert.deepEqual([revision, answer.deleted, answer.prevKvs.map((kv) => kv.value.toString())], [5, 2, ['B', 'C']]);
  assert.equal(mustDecode(DeleteAnswer, remove(bench, 'a').body).prevKvs.length, 0);
  assert.deepEqual(keysOf(bench), []);
});

test('ranges in the log, and their errors', () => {
  const bench = new ApplyBench();
  put(bench, 'a', '1');
  assert.equal(range(bench, 'a', '', 3).error, etcdErrors.futureRev);
  assert.deepEqual([compact(bench, 2).error, bench.compactions], [null, [2]]);
  assert.equal(range(bench, 'a', '', 1).error, etcdErrors.compacted);
  assert.equal(mustDecode(RangeAnswer, range(bench, 'a', '', 2).body).count, 1);
});

test('compaction: refused at and below the last, and in the future', () => {
  const bench = new ApplyBench();
  for (let i = 0; i < 5; i++) put(bench, 'a', `${i}`);
  assert.equal(compact(bench, 7).error, etcdErrors.futureRev);
  assert.deepEqual(compact(bench, 4), { error: null, revision: 6, body: Buffer.alloc(0) });
  assert.equal(compact(bench, 4).error, etcdErrors.compacted);
  assert.equal(compact(bench, 3).error, etcdErrors.compacted);
  assert.equal(compact(bench, 6).error, null);
  assert.deepEqual(bench.compactions, [4, 6]);
});

test('leases: granted with their TTL, revoked with all their keys in one revision, in the order of their bytes', () => {
  const bench = new ApplyBench();
  const answer = mustDecode(GrantAnswer, grant(bench, -7n, 1n).body);
  assert.deepEqual([answer.id, answer.ttl], [-7n, 2n]);
  assert.equal(grant(bench, -7n).error, etcdErrors.leaseExist);
  for (const key of ['b', '\xff', 'a', 'B']) put(bench, key, 'v', { lease: -7n });
  put(bench, 'other', 'v');
  put(bench, 'a', 'moved away');
  const woken: number[] = [];
  const lease = bench.lessor.lookup(-7n)!;
  lease.revokeWaiters = [() => woken.push(bench.store.currentRevision)];
  const before = bench.store.currentRevision;
  assert.deepEqual(revoke(bench, -7n), { error: null, revision: before + 1, body: Buffer.alloc(0) });
  assert.deepEqual(woken, [before + 1], 'who waits sees the deletes');
  const rows: [number, number, boolean, string][] = [];
  bench.storage.scanRows(before + 1, before + 1, (main, sub, tombstone, buffer, start, end) => {
    rows.push([main, sub, tombstone, buffer.toString('latin1', start + 2, end)]);
    return true;
  });
  const main = before + 1;
  assert.deepEqual(rows, [
    [main, 0, true, 'B'],
    [main, 1, true, 'b'],
    [main, 2, true, '\xff'],
  ]);
  assert.deepEqual(keysOf(bench), ['a', 'other']);
  assert.equal(revoke(bench, -7n).error, etcdErrors.leaseNotFound);
  grant(bench, -7n);
  assert.deepEqual(revoke(bench, -7n), { error: null, revision: main, body: Buffer.alloc(0) }, 'no key, no revision');
  assert.equal(
    [...bench.buckets.rows.keys()].some((name) => name.startsWith('lease/')),
    false,
  );
});

test('a NOSPACE alarm stops what grows: puts, txns with a put in any branch, grants', () => {
  const bench = new ApplyBench();
  grant(bench, 1n);
  put(bench, 'a', '1');
  alarm(bench, AlarmAction.activate, 5n, AlarmType.noSpace);
  const putOp: OpInit = { put: { key: latin1('b') } };
  assert.equal(put(bench, 'b', '').error, etcdErrors.noSpace);
  assert.equal(grant(bench, 2n).error, etcdErrors.noSpace);
  assert.equal(txn(bench, putOp).error, etcdErrors.noSpace);
  assert.equal(txn(bench, { txn: { failure: [putOp] } }).error, etcdErrors.noSpace);
  assert.equal(bench.apply(RequestField.txn, encodeTxn({ failure: [putOp] })).error, etcdErrors.noSpace);
  assert.equal(bench.store.currentRevision, 2);

  assert.equal(txn(bench, { range: { key: latin1('a') } }, { delete: { key: latin1('x') } }).error, null);
  assert.equal(range(bench, 'a').error, null);
  assert.equal(remove(bench, 'a').error, null);
  assert.equal(compact(bench, 2).error, null);
  assert.equal(revoke(bench, 1n).error, null);

  alarm(bench, AlarmAction.deactivate, 4n, AlarmType.noSpace);
  assert.equal(put(bench, 'b', '').error, etcdErrors.noSpace, "another member's alarm was taken down");
  alarm(bench, AlarmAction.deactivate, 5n, AlarmType.noSpace);
  assert.equal(put(bench, 'b', '').error, null);
});

test('a CORRUPT alarm stops everything of KV and leases, but not alarms, checkpoints or reads outside of the log', () => {
  const bench = new ApplyBench();
  grant(bench, 1n);
  put(bench, 'a', '1');
  alarm(bench, AlarmAction.activate, 5n, AlarmType.noSpace);
  alarm(bench, AlarmAction.activate, 5n, AlarmType.corrupt);
  const all = [
    put(bench, 'a', ''),
    range(bench, 'a'),
    remove(bench, 'a'),
    txn(bench),
    txn(bench, { put: { key: latin1('a') } }),
    compact(bench, 2),
    grant(bench, 2n),
    revoke(bench, 1n),
    revoke(bench, 9n),
  ];
  for (const { error, revision } of all) assert.deepEqual([error, revision], [etcdErrors.corrupt, 2]);
  const checkpoints = [{ id: 1n, remainingTtl: 7n }];
  bench.apply(RequestField.leaseCheckpoint, encode(LeaseCheckpointRequest, { checkpoints }));
  assert.equal(bench.lessor.lookup(1n)!.remainingSeconds, 7);
  assert.equal(bench.applier.readTxn(new TxnRequest(), new ByteWriter(8), readSlice), null);
  alarm(bench, AlarmAction.deactivate, 5n, AlarmType.corrupt);
  assert.equal(put(bench, 'a', '').error, etcdErrors.noSpace);
});

test('alarms: activated once, listed by type, recovered from their bucket', () => {
  const bench = new ApplyBench();
  const id = 0x8e9e05c52164694dn;
  assert.deepEqual(alarm(bench, AlarmAction.activate, id, AlarmType.none), []);
  assert.deepEqual(alarm(bench, AlarmAction.activate, id, AlarmType.noSpace), [[id, 1]]);
  assert.deepEqual(alarm(bench, AlarmAction.activate, id, AlarmType.noSpace), [[id, 1]]);
  assert.deepEqual(alarm(bench, AlarmAction.activate, 3n, AlarmType.corrupt), [[3n, 2]]);
  assert.deepEqual(alarm(bench, AlarmAction.get, 0n, AlarmType.noSpace), [[id, 1]]);
  assert.deepEqual(alarm(bench, AlarmAction.get, 0n, AlarmType.none), [
    [id, 1],
    [3n, 2],
  ]);
  assert.deepEqual(alarm(bench, 7, id, AlarmType.noSpace), []);
  const stored = encode(AlarmMember, { memberId: id, alarm: AlarmType.noSpace }).toString('hex');
  assert.deepEqual(bench.buckets.rows.get(`alarm/${stored}`), Buffer.alloc(0));
  const recovered = new AlarmStore(bench.buckets);
  recovered.recover();
  assert.deepEqual([recovered.has(AlarmType.noSpace), recovered.has(AlarmType.corrupt)], [true, true]);
  assert.deepEqual(alarm(bench, AlarmAction.deactivate, id, AlarmType.noSpace), [[id, 1]]);
  assert.deepEqual(alarm(bench, AlarmAction.deactivate, id, AlarmType.noSpace), []);
  assert.deepEqual([bench.buckets.rows.size, bench.alarms.has(AlarmType.noSpace)], [1, false]);
  assert.equal(alarmText({ memberId: id, alarm: 1 }), 'memberID:10276657743932975437 alarm:NOSPACE');
  assert.deepEqual([0, 2, 9].map(alarmName), ['NONE', 'CORRUPT', '9']);
});

test('the quota only marks the answer, at its exact bound, and only of what succeeded', () => {
  const quota = 10_000;
  const bench = new ApplyBench(quota);
  const marked = (free: number, { error }: Applied): boolean => {
    assert.equal(error, null, `with ${free} bytes free`);
    return bench.applier.crossedQuota;
  };
  const cost = 256 + 1 + 3;
  for (const [free, isMarked] of [
    [cost + 1, false],
    [cost, true],
    [-1_000_000, true],
  ] as const) {
    bench.backendBytes = quota - free;
    assert.equal(marked(free, put(bench, 'a', 'xyz')), isMarked);
    assert.equal(marked(free, txn(bench, { put: { key: latin1('a'), value: latin1('xyz') } })), isMarked);
    assert.equal(marked(free, remove(bench, 'none')), false);
    assert.equal(marked(free, txn(bench, { delete: { key: latin1('x') } })), false);
  }
  bench.backendBytes = quota - 65;
  assert.equal(marked(65, grant(bench, 1n)), false);
  bench.backendBytes++;
  assert.equal(marked(64, grant(bench, 2n)), true);
  for (const run of [
    () => grant(bench, 2n),
    () => put(bench, 'a', '', { lease: 99n }),
    () => txn(bench, { put: { key: latin1('a'), lease: 99n } }),
  ]) {
    assert.notEqual(run().error, null);
    assert.equal(bench.applier.crossedQuota, false);
  }
  const unbounded = new ApplyBench();
  unbounded.backendBytes = Number.MAX_SAFE_INTEGER;
  put(unbounded, 'a', '');
  assert.equal(unbounded.applier.crossedQuota, false);
});

test('the cluster: version, attributes, downgrade; what a version test leaves', () => {
  const bench = new ApplyBench();
  bench.cluster.add({ id: 9n, peerUrls: ['http://p'], isLearner: false, name: '', clientUrls: [] });
  bench.apply(RequestField.clusterVersionSet, encode(ClusterVersionSetRequest, { ver: '3.7.0' }));
  assert.equal(bench.cluster.version, '3.7.0');
  const attributes = { memberId: 9n, memberAttributes: { name: 'n', clientUrls: ['http://c'] } };
  bench.apply(RequestField.clusterMemberAttrSet, encode(ClusterMemberAttrSetRequest, attributes));
  const { name, clientUrls } = bench.cluster.member(9n)!;
  assert.deepEqual([name, clientUrls], ['n', ['http://c']]);
  bench.apply(RequestField.downgradeInfoSet, encode(DowngradeInfoSetRequest, { enabled: true, ver: '3.6.0' }));
  const key = `cluster/${latin1('downgrade').toString('hex')}`;
  assert.match(bench.buckets.rows.get(key)!.toString(), /3\.6\.0.*true/);
  bench.apply(RequestField.downgradeInfoSet, encode(DowngradeInfoSetRequest, { enabled: false, ver: '3.6.0' }));
  assert.equal(bench.buckets.rows.get(key)!.toString(), '{"target-version":"","enabled":false}');
  assert.equal(bench.apply(RequestField.downgradeVersionTest, Buffer.alloc(0)).error, null);
});

test('an entry that does not parse, whose request is unknown or that sets no version stops the member', () => {
  const bench = new ApplyBench();
  const endsWith =
    (text: RegExp) =>
    (error: unknown): boolean =>
      error instanceof FatalError && error.exitCode === ExitCode.walCorrupt && text.test(error.message);
  const malformed = Buffer.from([0x0a, 0x05]);
  for (const field of Object.values(RequestField)) {
    if (field === RequestField.downgradeVersionTest) continue;
    assert.throws(() => bench.apply(field, malformed), endsWith(/does not parse/), `field ${field}`);
  }
  assert.throws(
    () => bench.apply(2000 as RequestField, Buffer.alloc(0)),
    endsWith(/no request that this version knows/),
  );
  const version = encode(ClusterVersionSetRequest, { ver: 'x' });
  assert.throws(
    () => bench.apply(RequestField.clusterVersionSet, version),
    endsWith(/version of the cluster to what is/),
  );
  assert.deepEqual([bench.cluster.version, bench.buckets.rows.size], [undefined, 0], 'before anything is stored');
  // Of an etcd in the same cluster: no bug, and no member that passes over it.
  for (const field of [1000, 1105, 1204]) {
    assert.throws(
      () => bench.apply(field as RequestField, Buffer.alloc(0)),
      (error) => error instanceof FatalError && error.exitCode === ExitCode.dataDir,
    );
  }
});

test('an answer of any size is whole, and its memory is given back', () => {
  const bench = new ApplyBench();
  const value = 'x'.repeat(3_000_000);
  for (const key of ['a', 'b', 'c']) put(bench, key, value);
  assert.equal(mustDecode(RangeAnswer, range(bench, 'a', 'z').body).kvs.length, 3);
  put(bench, 'd', '');
  assert.ok(bench.applier.body.bytes.length < 1_000_000);
});

test('counters: a revoke is a delete a key, a compaction reads once', () => {
  const bench = new ApplyBench();
  const { counters } = bench.store;
  grant(bench, 1n);
  for (const key of ['a', 'b']) put(bench, key, '', { lease: 1n });
  revoke(bench, 1n);
  assert.deepEqual([counters.put, counters.delete, counters.txn], [2, 2, 1]);
  compact(bench, 3);
  compact(bench, 3);
  assert.equal(counters.range, 1);
  remove(bench, 'a', 'z', true);
  assert.deepEqual([counters.delete, counters.range, counters.txn], [3, 2, 2]);
});
