// Goal: KvHasher equals etcd's. Method: databases of etcd 3.7.1 under testdata/ and what `etcdutl hashkv --rev N` said of them;
// then each rule alone, against CRC-32C over the rows that should count.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32c } from '../base/crc32c.ts';
import { type FixtureName, loadFixture, openBytes } from './bolt-fixture.ts';
import { type KeepRevision, KvHasher } from './hashkv.ts';
import { hashKvOf } from './hashkv-fixture.ts';
import { encodeRevisionKey } from './schema.ts';

const cases: readonly (readonly [FixtureName, number, number, number, number])[] = [
  ['etcd-fresh', 0, 38, -1, 1317768311],
  ['etcd-fresh', 20, 20, -1, 1823173895],
  ['etcd-fresh', 30, 30, -1, 3525307525],
  ['etcd-compacted', 0, 127, 73, 1354181427],
  ['etcd-compacted', 73, 73, 73, 2031373559],
  ['etcd-compacted', 90, 90, 73, 633920033],
  ['etcd-compacted', 100, 100, 73, 603474505],
  ['etcd-compacted', 120, 120, 73, 536233222],
];

test('equals `etcdutl hashkv` of etcd 3.7.1', () => {
  for (const [name, asked, hashRevision, compactRevision, hash] of cases) {
    const result = hashKvOf(openBytes(loadFixture(name)), asked);
    assert.deepEqual(result, { hash, hashRevision, compactRevision }, `${name} at ${asked}`);
  }
});

interface Row {
  readonly main: number;
  readonly sub: number;
  readonly isTombstone?: boolean;
}

function hashOf(compact: number, revision: number, keep: KeepRevision | null, rows: readonly Row[]): number {
  const hasher = new KvHasher(compact, revision, keep);
  for (const row of rows)
    hasher.write(encodeRevisionKey(row.main, row.sub, row.isTombstone ?? false), Buffer.from('v'));
  return hasher.hash();
}

function crcOf(rows: readonly Row[]): number {
  let crc = crc32c(0, Buffer.from('key'));
  for (const row of rows) {
    crc = crc32c(crc, encodeRevisionKey(row.main, row.sub, row.isTombstone ?? false));
    crc = crc32c(crc, Buffer.from('v'));
  }
  return crc;
}

test('each rule alone', () => {
  const rows: Row[] = [
    { main: 2, sub: 0 },
    { main: 3, sub: 0 },
    { main: 3, sub: 1 },
    { main: 4, sub: 0, isTombstone: true },
    { main: 5, sub: 0, isTombstone: true },
    { main: 6, sub: 0 },
    { main: 6, sub: 1 },
  ];
  const nothing: KeepRevision = () => false;
  assert.equal(hashOf(-1, 0, nothing, []), crcOf([]));
  assert.equal(hashOf(-1, 6, nothing, rows), crcOf(rows));
  // Up to and with the revision, all of its subs.
  assert.equal(hashOf(-1, 3, nothing, rows), crcOf(rows.slice(0, 3)));
  // At and below the compaction only what is kept.
  assert.equal(hashOf(3, 6, nothing, rows), crcOf(rows.slice(3)));
  assert.equal(
    hashOf(3, 6, (main, sub) => main === 3 && sub === 1, rows),
    crcOf(rows.slice(2)),
  );
  // The tombstone at the compaction never counts, kept or not; an older kept one does.
  assert.equal(
    hashOf(4, 6, () => true, rows),
    crcOf([...rows.slice(0, 3), ...rows.slice(4)]),
  );
  assert.equal(
    hashOf(5, 6, () => true, rows),
    crcOf([...rows.slice(0, 4), ...rows.slice(5)]),
  );
  // Without a keep set nothing is left out but that tombstone.
  assert.equal(hashOf(4, 6, null, rows), crcOf([...rows.slice(0, 3), ...rows.slice(4)]));
  assert.equal(hashOf(6, 6, null, rows), crcOf(rows));
});

test('rows out of order and foreign keys are bugs', () => {
  const hasher = new KvHasher(-1, 10, null);
  hasher.write(encodeRevisionKey(2, 1), Buffer.alloc(0));
  assert.throws(() => hasher.write(encodeRevisionKey(2, 1), Buffer.alloc(0)), /do not ascend/);
  assert.throws(() => hasher.write(encodeRevisionKey(1, 5), Buffer.alloc(0)), /do not ascend/);
  assert.throws(() => hasher.write(Buffer.from('x'), Buffer.alloc(0)), /not a revision key/);
});
