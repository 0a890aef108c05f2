// Goal: members that differ are found and named as etcd's corruption checks do it (server/etcdserver/corrupt.go): before serving, at the
// current revision, and at compacted revisions by majority. Method: every answer is a script; alarms and log lines are compared.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { CompactionHash } from '../backend/backend.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { Logger } from '../telemetry/logger.ts';
import { Corruption, type CorruptionSource, type PeerHash } from './corruption.ts';

const SELF = 0xan;
const B = 0xbn;
const C = 0xcn;

type Own = CompactionHash & { readonly currentRevision: number };

class Source implements CorruptionSource {
  readonly id = SELF;
  readonly lines: Record<string, unknown>[] = [];
  readonly logger = new Logger({
    level: 'debug',
    format: 'json',
    sink: { write: (line) => void this.lines.push(JSON.parse(line) as Record<string, unknown>), flush: () => {} },
    now: () => 0,
  });
  readonly timeoutText = '7s';
  isLeader = true;
  isStopped = false;
  /** One after the other; the last stays. */
  own: (Own | EtcdError)[] = [{ hash: 1, revision: 10, compactRevision: 5, currentRevision: 10 }];
  compactions: CompactionHash[] = [];
  peers: (revision: number) => PeerHash[] = () => [];
  readError: EtcdError | null = null;
  readonly asked: number[] = [];
  readonly alarms: bigint[] = [];

  hash(_revision: number, done: Parameters<CorruptionSource['hash']>[1]): void {
    const own = this.own.length > 1 ? this.own.shift()! : this.own[0]!;
    if ('code' in own) done(own, null, 0);
    else done(null, own, own.currentRevision);
  }

  compactionHashes(): readonly CompactionHash[] {
    return this.compactions;
  }

  peerHashes(revision: number, done: (answers: readonly PeerHash[]) => void): void {
    this.asked.push(revision);
    done(this.peers(revision));
  }

  read(waiter: Parameters<CorruptionSource['read']>[0]): void {
    if (this.readError === null) waiter.ready();
    else waiter.failed(this.readError);
  }

  raiseAlarm(memberId: bigint): void {
    this.alarms.push(memberId);
  }

  logged(message: string): Record<string, unknown>[] {
    return this.lines.filter((line) => line['msg'] === message);
  }
}

function answer(id: bigint, hash: Partial<Own>): PeerHash {
  const whole = { hash: 1, revision: 10, compactRevision: 5, currentRevision: 10, ...hash };
  return { id, urls: [`http://${id}`], hash: whole, error: null };
}

const silent = (id: bigint, error = 'refused'): PeerHash => ({ id, urls: [`http://${id}`], hash: null, error });
const checks = { corruptMs: 1000, compactHashMs: 2000, downgradeMs: 0 };

describe('before serving', () => {
  const check = (source: Source): string | null | undefined => {
    let result: string | null | undefined;
    new Corruption(source, checks).initialCheck((error) => {
      result = error;
    });
    return result;
  };

  it('equal members, members that do not answer, and other compact revisions pass', () => {
    const source = new Source();
    source.peers = () => [answer(B, {}), silent(C), answer(0xdn, { hash: 2, compactRevision: 7 })];
    assert.equal(check(source), null);
    assert.deepEqual(source.asked, [10]);
    assert.equal(source.logged('starting initial corruption check')[0]?.['timeout'], '7s');
    assert.equal(source.logged('initial corruption checking passed; no corruption').length, 1);
    assert.equal(source.logged('found different compact revision values from remote peer').length, 1);
  });

  it('another hash at the same compact revision does not', () => {
    const source = new Source();
    source.peers = () => [answer(B, { hash: 2 })];
    assert.equal(check(source), 'a found data inconsistency with peers');
    const [line] = source.logged('found different hash values from remote peer');
    assert.deepEqual([line?.['local-member-hash'], line?.['remote-peer-hash'], line?.['remote-peer-id']], [1, 2, 'b']);
  });

  it('says why a peer has no hash', () => {
    const source = new Source();
    const errors = [etcdErrors.futureRev, etcdErrors.compacted, etcdErrors.clusterIdMismatch];
    source.peers = () => errors.map((error, at) => silent(BigInt(at + 11), error.message));
    assert.equal(check(source), null);
    for (const message of [
      'cannot fetch hash from slow remote peer',
      'cannot fetch hash from remote peer; local member is behind',
      'cluster ID mismatch',
    ])
      assert.equal(source.logged(message).length, 1, message);
  });

  it('does not pass without an own hash', () => {
    const source = new Source();
    source.own = [etcdErrors.compacted];
    assert.equal(check(source), `a failed to fetch hash (${etcdErrors.compacted.message})`);
  });
});

describe('at the current revision', () => {
  const check = (source: Source): void => new Corruption(source, checks).periodicCheck();

  it('equal members raise nothing', () => {
    const source = new Source();
    source.peers = () => [answer(B, {}), silent(C)];
    check(source);
    assert.deepEqual(source.alarms, []);
    assert.equal(source.logged('finished peer corruption check')[0]?.['number-of-peers-checked'], 1);
  });

  for (const [what, peer, message] of [
    ['another hash at the same compact revision', { hash: 2 }, 'same compact revision then hashes must match'],
    ['a revision ahead', { currentRevision: 11 }, "revision from follower must be less than or equal to leader's"],
    [
      'a compact revision ahead',
      { compactRevision: 6 },
      "compact revision from follower must be less than or equal to leader's",
    ],
  ] as const) {
    it(`a follower with ${what} is named, the first alone`, () => {
      const source = new Source();
      source.peers = () => [answer(B, {}), answer(C, peer), answer(0xdn, peer)];
      check(source);
      assert.deepEqual(source.alarms, [C]);
      assert.equal(source.logged(message)[0]?.['follower-peer-id'], 'c');
    });
  }

  it('a follower that is behind, or compacted less, is no finding', () => {
    const source = new Source();
    source.peers = () => [answer(B, { currentRevision: 3 }), answer(C, { compactRevision: 3, hash: 9 })];
    check(source);
    assert.deepEqual(source.alarms, []);
  });

  it('an own hash that changes while nothing was written names this member', () => {
    const source = new Source();
    const own = source.own[0] as Own;
    source.own = [own, { ...own, hash: 2 }];
    source.peers = () => [answer(B, { hash: 2 })];
    check(source);
    assert.deepEqual(source.alarms, [SELF]);
    assert.equal(source.logged('found hash mismatch').length, 1);
  });

  it('that cannot be had, by the hash or the quorum, is told', () => {
    const source = new Source();
    source.own = [etcdErrors.compacted];
    check(source);
    source.own = [{ hash: 1, revision: 10, compactRevision: 5, currentRevision: 10 }];
    source.readError = etcdErrors.timeout;
    check(source);
    assert.deepEqual(
      source.logged('failed to check hash KV').map((line) => line['error']),
      [etcdErrors.compacted.message, etcdErrors.timeout.message],
    );
  });
});

describe('at compacted revisions', () => {
  const hashes = [3, 9, 6].map((revision) => ({ hash: revision, revision, compactRevision: revision - 3 }));
  const same = (id: bigint, revision: number): PeerHash =>
    answer(id, { hash: revision, revision, compactRevision: revision - 3 });

  it('the newest that all have is compared, and never again', () => {
    const source = new Source();
    source.compactions = hashes;
    source.peers = (revision) => [same(B, revision), revision === 9 ? silent(C) : same(C, revision)];
    const corruption = new Corruption(source, checks);
    corruption.compactHashCheck();
    assert.deepEqual(source.asked, [9, 6]);
    assert.equal(source.logged("Skipped peer's hash")[0]?.['reason'], 'no response');
    assert.equal(source.logged('successfully checked hash on whole cluster')[0]?.['revision'], 6);
    assert.equal(source.logged('finished compaction hash check')[0]?.['number-of-hashes-checked'], 2);
    corruption.compactHashCheck();
    assert.deepEqual(source.asked, [9, 6, 9]);
    assert.deepEqual(source.alarms, []);
  });

  it('a minority is named', () => {
    const source = new Source();
    source.compactions = hashes;
    source.peers = (revision) => [same(B, revision), { ...same(C, revision), hash: { ...same(C, 9).hash!, hash: 77 } }];
    new Corruption(source, checks).compactHashCheck();
    assert.deepEqual(source.alarms, [C]);
    const [line] = source.logged('Detected compaction hash mismatch');
    assert.deepEqual([line?.['peer-ids'], line?.['peer-hash'], line?.['quorum-exist']], ['c', 77, true]);
  });

  it('the leader itself is named when it is the minority', () => {
    const source = new Source();
    source.compactions = hashes.slice(0, 1);
    source.peers = () => [answer(B, { hash: 77, compactRevision: 0 }), answer(C, { hash: 77, compactRevision: 0 })];
    new Corruption(source, checks).compactHashCheck();
    assert.deepEqual(source.alarms, [SELF]);
  });

  it('without a majority nobody is: member 0 stands for all', () => {
    const source = new Source();
    source.compactions = hashes.slice(0, 1);
    source.peers = () => [answer(B, { hash: 77, compactRevision: 0 })];
    new Corruption(source, checks).compactHashCheck();
    assert.deepEqual(source.alarms, [0n]);
    assert.equal(source.logged('Detected compaction hash mismatch')[0]?.['quorum-exist'], false);
  });

  it('of another compaction before it, a hash says nothing', () => {
    const source = new Source();
    source.compactions = hashes.slice(0, 1);
    source.peers = () => [answer(B, { hash: 77, compactRevision: 1 })];
    new Corruption(source, checks).compactHashCheck();
    assert.deepEqual(source.alarms, []);
    const reason = "the peer's CompactRevision 1 doesn't match leader's CompactRevision 0";
    assert.equal(source.logged("Skipped peer's hash")[0]?.['reason'], reason);
  });
});

describe('the checks', () => {
  it('run at their intervals, on the leader alone', () => {
    const source = new Source();
    source.compactions = [{ hash: 3, revision: 3, compactRevision: 0 }];
    const corruption = new Corruption(source, checks);
    for (let ms = 0; ms <= 4000; ms += 100) corruption.tick(ms);
    const counts = (): number[] => [
      source.logged('finished peer corruption check').length,
      source.logged('starting compact hash check').length,
    ];
    const [periodic, compact] = counts();
    assert.ok(periodic! >= 3 && periodic! <= 4, `${periodic}`);
    assert.ok(compact! >= 1 && compact! <= 2, `${compact}`);
    source.isLeader = false;
    for (let ms = 4100; ms <= 8000; ms += 100) corruption.tick(ms);
    assert.deepEqual(counts(), [periodic, compact]);
  });

  it('do not run when they are off', () => {
    const source = new Source();
    const corruption = new Corruption(source, { corruptMs: 0, compactHashMs: 0, downgradeMs: 0 });
    for (let ms = 0; ms <= 100_000; ms += 1000) corruption.tick(ms);
    assert.deepEqual(source.lines, []);
  });
});
