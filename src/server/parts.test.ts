// Goal: the small parts of the member keep their promises: who waits is told once, hashes and headers are etcd's. Method: examples
// that show each rule.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ResponseHeader } from '../proto/etcdserverpb.ts';
import { decode } from '../proto/message.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import { type Entry, EntryType } from '../raft/types.ts';
import { CompactionHashes } from './compaction-hashes.ts';
import { PendingProposals, type Waiter } from './pending.ts';
import { ResponseHeaderEncoder, responseHeaderBytesMax } from './response-header.ts';
import { UnappliedBytes } from './unapplied-bytes.ts';

const ENTRY: Buffer = Buffer.from('entry');

describe('what is not applied of the log in memory', () => {
  const entry = (bytes: number): Entry => ({ term: 1, index: 1, type: EntryType.normal, data: Buffer.alloc(bytes) });
  const behind = { appliedIndex: 4, committedIndex: 5 };

  it('has a bound, and room again when it is applied', () => {
    const unapplied = new UnappliedBytes(1000);
    const [most, one] = [entry(999), entry(1)];
    unapplied.logged([most]);
    assert.ok(unapplied.mayGrow(behind));
    unapplied.logged([one]);
    assert.equal(unapplied.mayGrow(behind), false);
    unapplied.applied(one);
    assert.ok(unapplied.mayGrow(behind));
  });

  it('is nothing when all is applied, whatever was replaced or found at a start', () => {
    const unapplied = new UnappliedBytes(1000);
    unapplied.applied(entry(1000));
    unapplied.logged([entry(1000)]);
    assert.equal(unapplied.mayGrow(behind), false, 'what was never counted leaves no debt');
    unapplied.reset();
    assert.ok(unapplied.mayGrow(behind));
  });

  it('does not keep out the append that cuts off what is not committed', () => {
    const unapplied = new UnappliedBytes(1000);
    unapplied.logged([entry(5000)]);
    assert.ok(unapplied.mayGrow({ appliedIndex: 5, committedIndex: 5 }));
  });
});

describe('pending proposals', () => {
  const waiterInto = (told: string[], name: string): Waiter => ({
    applied: () => told.push(`${name} applied`),
    failed: (error) => told.push(`${name} ${error.message}`),
  });

  it('gives each waiter back once, with its time', () => {
    const pending = new PendingProposals();
    const waiter = waiterInto([], 'a');
    pending.add(7, 1, ENTRY, waiter, 100);
    assert.equal(pending.count, 1);
    assert.equal(pending.take(8), undefined);
    assert.equal(pending.take(7), waiter);
    assert.equal(pending.takenSinceMs, 100);
    assert.equal(pending.take(7), undefined);
    assert.equal(pending.count, 0);
  });

  it('expires the oldest, up to a time, and tells kind and age', () => {
    const pending = new PendingProposals();
    const told: string[] = [];
    for (const [i, name] of ['a', 'b', 'c'].entries()) pending.add(i, 4 + i, ENTRY, waiterInto(told, name), i * 10);
    const kinds: number[][] = [];
    assert.equal(
      pending.expire(
        20,
        () => etcdErrors.timeout,
        (kind, sinceMs) => kinds.push([kind, sinceMs]),
      ),
      2,
    );
    assert.deepEqual(told, [`a ${etcdErrors.timeout.message}`, `b ${etcdErrors.timeout.message}`]);
    assert.deepEqual(kinds, [
      [4, 0],
      [5, 10],
    ]);
    assert.equal(pending.count, 1);
    assert.notEqual(pending.take(2), undefined);
  });

  it('lets a waiter that fails propose again', () => {
    const pending = new PendingProposals();
    const again: Waiter = { applied: () => {}, failed: () => pending.add(9, 1, ENTRY, again, 50) };
    pending.add(1, 1, ENTRY, again, 0);
    assert.equal(
      pending.expire(
        20,
        () => etcdErrors.timeout,
        () => {},
      ),
      1,
    );
    assert.equal(pending.count, 1);
    assert.equal(pending.take(9), again);
  });
});

describe('compaction hashes', () => {
  it('keeps the ten newest by revision, whatever the order in which they came', () => {
    const hashes = new CompactionHashes();
    for (const revision of [50, 10, 30, 20, 40, 60, 70, 80, 90, 100, 110, 120]) {
      hashes.store({ hash: revision * 2, revision, compactRevision: revision - 1 });
    }
    assert.equal(hashes.at(10), undefined);
    assert.equal(hashes.at(20), undefined);
    assert.deepEqual(hashes.at(30), { hash: 60, revision: 30, compactRevision: 29 });
    assert.equal(hashes.at(120)!.hash, 240);
    assert.equal(hashes.at(35), undefined);
  });

  // keelson-differ, seed 990017.
  it('names a compaction to 0 as the one before, which the engine does not know', () => {
    const hashes = new CompactionHashes();
    hashes.store({ hash: 1, revision: 0, compactRevision: -1 });
    hashes.store({ hash: 2, revision: 14, compactRevision: -1 });
    hashes.store({ hash: 3, revision: 20, compactRevision: 14 });
    assert.deepEqual(hashes.at(0), { hash: 1, revision: 0, compactRevision: -1 });
    assert.deepEqual(hashes.at(14), { hash: 2, revision: 14, compactRevision: 0 });
    assert.deepEqual(hashes.at(20), { hash: 3, revision: 20, compactRevision: 14 });
  });
});

describe('response header', () => {
  const cases: [bigint, bigint, number, number][] = [
    [0xcdf818194e3a8c32n, 0x8e9e05c52164694dn, 1, 2],
    [1n, 2n, 0, 0],
    [(1n << 64n) - 1n, (1n << 64n) - 1n, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
    [127n, 128n, 127, 128],
  ];
  for (const [clusterId, memberId, revision, term] of cases) {
    it(`encodes revision ${revision} and term ${term} as the schema does`, () => {
      const encoder = new ResponseHeaderEncoder(clusterId, memberId);
      encoder.term = term;
      const out = Buffer.alloc(responseHeaderBytesMax + 4, 0xee);
      const end = encoder.write(out, 2, revision);
      assert.ok(end - 2 <= responseHeaderBytesMax);
      assert.equal(out[2], 0x0a);
      assert.equal(out[3], end - 4);
      assert.ok(
        out.subarray(end).every((byte) => byte === 0xee),
        'nothing behind it',
      );
      const decoded = decode(ResponseHeader, out, 4, end)!;
      assert.deepEqual({ ...decoded }, { ...encoder.message(revision) });
    });
  }
});
