// Goal: leases live and end as etcd's lessor lets them. Method: a clock that the test moves and a bucket in a map; each rule by
// hand, and a recovery from the bucket after random changes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from '../io/random.ts';
import {
  leaseCheckpointIntervalMs,
  leaseRevokesPerTickMax,
  leasesPerSecondMax,
  leaseTtlMaxSeconds,
} from '../limits.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { type Lease, Lessor, leaseIdOf, leaseKey, notPrimary } from './lessor.ts';

class Bench {
  nowMs = 1_000_000;
  readonly bucket = new Map<string, Buffer>();
  readonly ttls: number[] = [];
  readonly counters = {
    granted: 0,
    renewed: 0,
    revoked: 0,
    expired: 0,
    observeTtl: (seconds: number): void => {
      this.ttls.push(seconds);
    },
  };
  readonly lessor: Lessor;
  persistsCheckpoints = true;

  constructor(checkpoints = false) {
    this.lessor = this.open(checkpoints);
  }

  open(checkpoints = false): Lessor {
    return new Lessor({
      nowMs: () => this.nowMs,
      minTtlSeconds: 2,
      bucket: {
        put: (key, value) => this.bucket.set(key.toString('hex'), Buffer.from(value)),
        remove: (key) => assert.ok(this.bucket.delete(key.toString('hex')), 'a stored lease is removed'),
      },
      counters: this.counters,
      checkpoints,
      persistsCheckpoints: () => this.persistsCheckpoints,
    });
  }

  grant(id: bigint, ttl: bigint): Lease {
    const lease = this.lessor.grant(id, ttl);
    assert.ok(!('code' in lease));
    return lease;
  }

  refuse(id: bigint, ttl: bigint): EtcdError {
    const error = this.lessor.grant(id, ttl);
    assert.ok('code' in error);
    return error;
  }
}

function attach(lessor: Lessor, id: bigint, key: string): void {
  const bytes = Buffer.from(`.${key}.`, 'latin1');
  lessor.attach(...halves(id), bytes, 1, bytes.length - 1);
}

function detach(lessor: Lessor, id: bigint, key: string): void {
  const bytes = Buffer.from(key, 'latin1');
  lessor.detach(...halves(id), bytes, 0, bytes.length);
}

function halves(id: bigint): [number, number] {
  return [Number(BigInt.asUintN(64, id) >> 32n), Number(BigInt.asUintN(32, id))];
}

function keysOf(lessor: Lessor, id: bigint): string[] {
  return lessor.sortedKeys(lessor.lookup(id)!).map((key) => key.toString('latin1'));
}

test('ids: halves, sign and the stored key', () => {
  for (const id of [1n, -1n, 1n << 32n, -(1n << 63n), (1n << 63n) - 1n]) {
    assert.equal(leaseIdOf(...halves(id)), id);
    assert.equal(leaseIdOf(halves(id)[0] | 0, halves(id)[1] | 0), id, 'halves may be signed');
    assert.equal(leaseKey(id).readBigInt64BE(), id);
  }
});

test('grant: the minimum, the maximum, and what is refused, in order', () => {
  const bench = new Bench();
  assert.equal(bench.grant(1n, 60n).ttlSeconds, 60);
  for (const [id, ttl] of [
    [2n, 1n],
    [3n, 0n],
    [4n, -5n],
    [5n, -(2n ** 63n)],
  ] as const) {
    assert.equal(bench.grant(id, ttl).ttlSeconds, 2);
  }
  assert.equal(bench.grant(-7n, BigInt(leaseTtlMaxSeconds)).ttlSeconds, leaseTtlMaxSeconds);
  assert.equal(bench.refuse(0n, 60n), etcdErrors.leaseNotFound);
  assert.equal(bench.refuse(0n, 2n ** 62n), etcdErrors.leaseNotFound);
  assert.equal(bench.refuse(1n, BigInt(leaseTtlMaxSeconds) + 1n), etcdErrors.leaseTTLTooLarge);
  assert.equal(bench.refuse(1n, 60n), etcdErrors.leaseExist);
  assert.deepEqual([bench.lessor.count, bench.counters.granted, bench.bucket.size], [6, 6, 6]);
  assert.deepEqual(bench.ttls.slice(0, 3), [60, 2, 2]);
  assert.equal(bench.bucket.get('0000000000000001')!.toString('hex'), '0801103c');
});

test('deadlines exist on the primary alone', () => {
  const bench = new Bench();
  const lease = bench.grant(1n, 60n);
  assert.throws(() => bench.lessor.remainingSecondsOf(lease), /primary's/);
  assert.deepEqual(
    [bench.lessor.isPrimary, bench.lessor.isDemoted(lease), bench.lessor.hasExpired],
    [false, true, false],
  );
  bench.nowMs += 100_000;
  assert.equal(bench.lessor.isExpired(lease), false);
  assert.deepEqual(bench.lessor.takeExpired(), []);
  for (const id of [1n, 2n]) assert.equal(bench.lessor.renew(id), notPrimary, 'known here or not');
  bench.lessor.promote(1500);
  assert.deepEqual([bench.lessor.isPrimary, bench.lessor.isDemoted(lease)], [true, false]);
  assert.equal(bench.lessor.remainingSecondsOf(lease), 61, 'whole seconds, cut off');
  bench.nowMs += 61_499;
  assert.equal(bench.lessor.isExpired(lease), false);
  bench.nowMs += 1;
  assert.deepEqual([bench.lessor.isExpired(lease), bench.lessor.hasExpired], [true, true]);
  bench.nowMs += 2500;
  assert.equal(bench.lessor.remainingSecondsOf(lease), -2);
  bench.lessor.demote();
  assert.deepEqual([bench.lessor.isPrimary, bench.lessor.hasExpired], [false, false]);
  assert.equal(bench.lessor.isExpired(lease), false);
  assert.deepEqual(bench.lessor.takeExpired(), []);
});

test('renewal moves the deadline by the whole TTL', () => {
  const bench = new Bench();
  bench.lessor.promote(0);
  const lease = bench.grant(1n, 10n);
  bench.nowMs += 9_000;
  assert.equal(bench.lessor.renew(1n), 10);
  bench.nowMs += 9_999;
  assert.deepEqual(bench.lessor.takeExpired(), []);
  bench.nowMs += 1;
  assert.deepEqual(bench.lessor.takeExpired(), [lease]);
  assert.equal(bench.lessor.renew(2n), etcdErrors.leaseNotFound);
  assert.equal(bench.counters.renewed, 1);
});

test("expiry: earliest first, at most a tick's share, each once until it is handed back", () => {
  const bench = new Bench();
  bench.lessor.promote(0);
  const random = new SeededRandom(1);
  const count = leaseRevokesPerTickMax + 100;
  for (let id = 1; id <= count; id++) bench.grant(BigInt(id), BigInt(2 + random.below(20)));
  bench.nowMs += 30_000;
  const first = bench.lessor.takeExpired();
  const second = bench.lessor.takeExpired();
  assert.deepEqual([first.length, second.length, bench.lessor.takeExpired().length], [leaseRevokesPerTickMax, 100, 0]);
  const deadlines = [...first, ...second].map((lease) => lease.deadlineMs);
  assert.deepEqual(
    deadlines,
    deadlines.toSorted((a, b) => a - b),
  );
  assert.equal(new Set([...first, ...second]).size, count);
  const failed = first[3]!;
  bench.lessor.retry(failed);
  assert.deepEqual(bench.lessor.takeExpired(), [failed]);
  assert.equal(bench.counters.expired, 0, 'an expiry is counted when the lease is gone');
  bench.lessor.revoked(failed);
  bench.lessor.revoked(bench.grant(9999n, 5n));
  assert.deepEqual([bench.counters.expired, bench.counters.revoked], [1, 2]);
});

test('an expired lease is not handed back after it was revoked and granted anew', () => {
  const bench = new Bench();
  bench.lessor.promote(0);
  const old = bench.grant(1n, 2n);
  bench.nowMs += 5_000;
  assert.deepEqual(bench.lessor.takeExpired(), [old]);
  bench.lessor.revoked(old);
  const anew = bench.grant(1n, 2n);
  bench.lessor.retry(old);
  assert.deepEqual(bench.lessor.takeExpired(), [], 'the new one has its own time');
  bench.nowMs += 2_000;
  assert.deepEqual(bench.lessor.takeExpired(), [anew]);
});

test('revoke: gone from the bucket and the deadlines; the id is free again', () => {
  const bench = new Bench();
  bench.lessor.promote(0);
  const lease = bench.grant(1n, 5n);
  bench.lessor.revoked(lease);
  assert.deepEqual([bench.lessor.count, bench.bucket.size, bench.lessor.lookup(1n)], [0, 0, undefined]);
  assert.throws(() => bench.lessor.revoked(lease), /gone/);
  bench.nowMs += 10_000;
  assert.deepEqual(bench.lessor.takeExpired(), []);
  bench.grant(1n, 5n);
});

test('renewals of an expired lease wait for its revoke, or for the loss of the leadership', () => {
  const bench = new Bench();
  bench.lessor.promote(0);
  const woken: string[] = [];
  const [a, b] = [bench.grant(1n, 2n), bench.grant(2n, 2n)];
  assert.equal(
    bench.lessor.renewalMustWait(a, () => woken.push('never')),
    false,
  );
  bench.nowMs += 2_000;
  for (const name of ['a1', 'a2'])
    assert.equal(
      bench.lessor.renewalMustWait(a, () => woken.push(name)),
      true,
    );
  assert.equal(
    bench.lessor.renewalMustWait(b, () => woken.push('b')),
    true,
  );
  bench.lessor.takeExpired();
  bench.lessor.revoked(a);
  assert.deepEqual(woken, ['a1', 'a2']);
  bench.lessor.demote();
  assert.deepEqual(woken, ['a1', 'a2', 'b']);
  bench.lessor.promote(0);
  assert.equal(bench.lessor.isExpired(b), false, 'a new primary gives it its time again');
  bench.nowMs += 2_000;
  assert.deepEqual(bench.lessor.takeExpired(), [b]);
  bench.lessor.demote();
  bench.lessor.promote(0);
  bench.lessor.revoked(b);
  assert.equal(bench.counters.expired, 1, "a revoke after that is the client's, not an expiry");
});

test('keys: attached, detached, moved to another lease; sorted by their bytes', () => {
  const { lessor, ...bench } = new Bench();
  lessor.grant(1n, 60n);
  lessor.grant(2n, 60n);
  for (const key of ['b', 'a', '\xff', 'a\0', 'B', '\x80']) attach(lessor, 1n, key);
  attach(lessor, 1n, 'a');
  assert.deepEqual(keysOf(lessor, 1n), ['B', 'a', 'a\0', 'b', '\x80', '\xff']);
  detach(lessor, 1n, 'a');
  attach(lessor, 2n, 'a');
  detach(lessor, 1n, 'never');
  assert.deepEqual([keysOf(lessor, 1n).length, keysOf(lessor, 2n)], [5, ['a']]);
  assert.throws(() => attach(lessor, 3n, 'a'), /does not exist/);
  detach(lessor, 3n, 'a');
  assert.equal(bench.bucket.size, 2);
});

test('recovery: leases from the bucket, then their keys; those of a lost lease are left', () => {
  const bench = new Bench();
  bench.grant(1n, 60n);
  bench.grant(-2n, 1n);
  bench.lessor.checkpoint(1n, 33);
  const lessor = bench.open();
  for (const value of bench.bucket.values()) assert.equal(lessor.recover(value), true);
  const found = [1n, -2n].map((id) => lessor.lookup(id)!);
  assert.deepEqual(
    found.map((lease) => [lease.ttlSeconds, lease.remainingSeconds]),
    [
      [60, 33],
      [2, 0],
    ],
  );
  const key = Buffer.from('key');
  assert.equal(lessor.recoverKey(...halves(-2n), key, 0, 3), true);
  assert.equal(lessor.recoverKey(...halves(7n), key, 0, 3), false);
  assert.deepEqual(keysOf(lessor, -2n), ['key']);
  for (const damaged of [Buffer.from([0x08]), Buffer.alloc(0), Buffer.from([0x10, 5])]) {
    assert.equal(lessor.recover(damaged), false);
  }
  assert.equal(
    lessor.recover(Buffer.from([0x08, 5, 0x10, 1])) && lessor.lookup(5n)!.ttlSeconds,
    2,
    'the minimum holds',
  );
  lessor.promote(0);
  assert.equal(lessor.remainingSecondsOf(found[0]!), 33, 'the checkpoint counts for the new primary');
});

test("another state takes the place of a follower's: nothing of before is left", () => {
  const bench = new Bench();
  bench.grant(1n, 60n);
  bench.grant(2n, 60n);
  attach(bench.lessor, 2n, 'before');
  const other = new Bench();
  other.grant(2n, 30n);
  other.grant(3n, 30n);
  bench.lessor.promote(0);
  bench.lessor.beginReplacement();
  for (const value of other.bucket.values()) assert.equal(bench.lessor.recover(value), true);
  const after = Buffer.from('after');
  assert.equal(bench.lessor.recoverKey(...halves(1n), after, 0, 5), false, 'a lease of before is none');
  for (let again = 0; again < 2; again++) assert.ok(bench.lessor.recoverKey(...halves(2n), after, 0, 5));
  assert.deepEqual(keysOf(bench.lessor, 2n), ['before'], 'nothing is seen until all is there');
  assert.throws(() => bench.lessor.replace(), /primary/);
  bench.lessor.demote();
  bench.lessor.replace();
  assert.deepEqual([bench.lessor.lookup(1n), bench.lessor.count, keysOf(bench.lessor, 2n)], [undefined, 2, ['after']]);
  bench.lessor.promote(0);
  bench.nowMs += 30_000;
  assert.deepEqual(
    bench.lessor.takeExpired().map(({ id }) => id),
    [2n, 3n],
  );
});

test('a checkpoint is stored where the cluster stores it, and counts here in any case', () => {
  const bench = new Bench(true);
  const lease = bench.grant(1n, 600n);
  const stored = (): string => bench.bucket.get('0000000000000001')!.toString('hex');
  const before = stored();
  bench.persistsCheckpoints = false;
  bench.lessor.checkpoint(1n, 100);
  assert.equal(stored(), before);
  bench.lessor.promote(0);
  assert.equal(bench.lessor.remainingSecondsOf(lease), 100);
  bench.persistsCheckpoints = true;
  bench.lessor.checkpoint(1n, 90);
  assert.equal(stored(), `${before}185a`);
});

test('promotion spreads a pile of leases below the revoke rate', () => {
  const bench = new Bench();
  const count = leasesPerSecondMax * 3;
  for (let id = 1; id <= count; id++) bench.grant(BigInt(id), 10n);
  bench.lessor.promote(1000);
  const perSecond = new Map<number, number>();
  for (const lease of bench.lessor.sorted()) {
    const second = Math.floor((lease.deadlineMs - bench.nowMs) / 1000);
    assert.ok(second >= 11, 'none ends early');
    perSecond.set(second, (perSecond.get(second) ?? 0) + 1);
  }
  for (const [second, ending] of perSecond) assert.ok(ending <= leasesPerSecondMax, `${ending} at ${second}`);
  assert.ok(perSecond.size >= 4);
});

test('few leases, or leases far apart, are not moved', () => {
  const bench = new Bench();
  for (let id = 1; id < leasesPerSecondMax; id++) bench.grant(BigInt(id), 10n);
  bench.lessor.promote(0);
  assert.ok(bench.lessor.sorted().every((lease) => lease.deadlineMs === bench.nowMs + 10_000));
  const apart = new Bench();
  for (let id = 1; id <= leasesPerSecondMax; id++) apart.grant(BigInt(id), BigInt(id * 3));
  apart.lessor.promote(0);
  const sorted = apart.lessor.sorted();
  assert.ok(sorted.every((lease, i) => lease.deadlineMs === apart.nowMs + (i + 1) * 3000));
});

test('leases are listed by deadline, then by id', () => {
  const bench = new Bench();
  for (const [id, ttl] of [
    [5n, 20n],
    [-1n, 30n],
    [3n, 20n],
    [9n, 10n],
  ] as const)
    bench.grant(id, ttl);
  const ids = (): bigint[] => bench.lessor.sorted().map((lease) => lease.id);
  assert.deepEqual(ids(), [-1n, 3n, 5n, 9n]);
  bench.lessor.promote(0);
  assert.deepEqual(ids(), [9n, 3n, 5n, -1n]);
});

test('checkpoints: only when asked for, of long leases, with what is left', () => {
  const bench = new Bench(true);
  bench.lessor.promote(0);
  const intervalSeconds = leaseCheckpointIntervalMs / 1000;
  const long = bench.grant(1n, BigInt(intervalSeconds * 10));
  bench.grant(2n, BigInt(intervalSeconds));
  bench.nowMs += leaseCheckpointIntervalMs - 1;
  assert.deepEqual(bench.lessor.takeCheckpoints(10), []);
  bench.nowMs += 1;
  const left = intervalSeconds * 9;
  assert.deepEqual(bench.lessor.takeCheckpoints(10), [{ id: 1n, remainingTtl: BigInt(left) }]);
  assert.deepEqual(bench.lessor.takeCheckpoints(10), [], 'once until it is applied');
  bench.lessor.checkpoint(1n, left);
  assert.equal(bench.lessor.remainingSecondsOf(long), left, 'the running deadline stays');
  bench.nowMs += leaseCheckpointIntervalMs;
  assert.deepEqual(bench.lessor.takeCheckpoints(10), [{ id: 1n, remainingTtl: BigInt(intervalSeconds * 8) }]);
  assert.equal(bench.lessor.renewalMustClear(long), true);
  bench.lessor.checkpoint(1n, 0);
  assert.equal(bench.lessor.renewalMustClear(long), false);
  bench.lessor.renew(1n);
  assert.equal(bench.lessor.remainingSecondsOf(long), intervalSeconds * 10);
  bench.lessor.checkpoint(99n, 5);
});

test('checkpoints are bounded, and none is made of a lease that a promotion extended beyond its TTL', () => {
  const bench = new Bench(true);
  const seconds = BigInt(leaseCheckpointIntervalMs / 1000) * 4n;
  for (let id = 1n; id <= 30n; id++) bench.grant(id, seconds);
  bench.lessor.promote(leaseCheckpointIntervalMs + 1000);
  bench.nowMs += leaseCheckpointIntervalMs;
  assert.deepEqual(bench.lessor.takeCheckpoints(100), []);
  for (let id = 1n; id <= 30n; id++) bench.lessor.renew(id);
  bench.nowMs += leaseCheckpointIntervalMs;
  assert.deepEqual([bench.lessor.takeCheckpoints(20).length, bench.lessor.takeCheckpoints(20).length], [20, 10]);
  const off = new Bench(false);
  off.lessor.promote(0);
  off.grant(1n, seconds);
  off.nowMs += leaseCheckpointIntervalMs;
  assert.deepEqual(off.lessor.takeCheckpoints(10), []);
});
