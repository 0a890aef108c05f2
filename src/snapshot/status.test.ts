// Goal: status and its print equal `etcdutl snapshot status`. Method: what etcdutl 3.7.1 said of the databases under testdata/,
// then small databases for the cases that these lack; bolt.peer-test.ts runs the real etcdutl beside it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Entry, loadFixture, openBytes, sourceOf, unwrap, writeAll } from './bolt-fixture.ts';
import { encodeRevisionKey } from './schema.ts';
import { formatStatus, type SnapshotStatus, snapshotStatus } from './status.ts';

const compacted: SnapshotStatus = {
  hash: 2194632124,
  revision: 127,
  totalKey: 10,
  totalSize: 36864,
  version: '3.7.0',
};

test('equals etcdutl on real snapshots', () => {
  assert.deepEqual(unwrap(snapshotStatus(openBytes(loadFixture('etcd-compacted')))), compacted);
  assert.deepEqual(unwrap(snapshotStatus(openBytes(loadFixture('etcd-fresh')))), {
    hash: 2314913345,
    revision: 38,
    totalKey: 8,
    totalSize: 24576,
    version: '3.7.0',
  });
});

test('prints as etcdutl does', () => {
  const json = '{"hash":2194632124,"revision":127,"totalKey":10,"totalSize":36864,"version":"3.7.0"}\n';
  assert.equal(formatStatus(compacted, 'json'), json);
  assert.equal(formatStatus(compacted, 'simple'), '82cf6dbc, 127, 10, 37 kB, 3.7.0\n');
  const fields = '"Hash" : 2194632124\n"Revision" : 127\n"Keys" : 10\n"Size" : 36864\n"Version" : 3.7.0\n';
  assert.equal(formatStatus(compacted, 'fields'), fields);
  const first = { hash: 0x945b5684, revision: 8, totalKey: 4, totalSize: 24576, version: '3.7.0' };
  assert.equal(
    formatStatus(first, 'table'),
    [
      '┌──────────┬──────────┬────────────┬────────────┬─────────┐',
      '│   HASH   │ REVISION │ TOTAL KEYS │ TOTAL SIZE │ VERSION │',
      '├──────────┼──────────┼────────────┼────────────┼─────────┤',
      '│ 945b5684 │        8 │          4 │      25 kB │   3.7.0 │',
      '└──────────┴──────────┴────────────┴────────────┴─────────┘',
      '',
    ].join('\n'),
  );
});

test('sizes as go-humanize prints them', () => {
  const shown = (totalSize: number): string => formatStatus({ ...compacted, totalSize }, 'simple').split(', ')[3]!;
  assert.deepEqual([8192, 16384, 999_424, 1_048_576, 20_480_000].map(shown), [
    '8.2 kB',
    '16 kB',
    '999 kB',
    '1.0 MB',
    '20 MB',
  ]);
  assert.deepEqual([9_961_472, 2_147_483_648, 10_737_418_240].map(shown), ['10 MB', '2.1 GB', '11 GB']);
});

function row(main: number, key: string, isTombstone = false): Entry {
  const name = Buffer.from(key);
  return [encodeRevisionKey(main, 0, isTombstone), Buffer.concat([Buffer.from([0x0a, name.length]), name])];
}

function statusOf(rows: readonly Entry[], meta: readonly Entry[]): ReturnType<typeof snapshotStatus> {
  return snapshotStatus(openBytes(writeAll([sourceOf('key', rows), sourceOf('meta', meta)])));
}

test('counts live keys, takes the last revision, reads odd versions as go-semver does', () => {
  const rows = [row(2, 'a'), row(3, 'b'), row(4, 'a', true), row(5, 'b'), row(6, 'c'), row(7, 'c', true), row(8, 'c')];
  const version = (text: string): string => {
    const status = unwrap(statusOf(rows, [[Buffer.from('storageVersion'), Buffer.from(text)]]));
    assert.equal(status.totalKey, 2);
    assert.equal(status.revision, 8);
    return status.version;
  };
  assert.equal(version('3.6.0'), '3.6.0');
  assert.equal(version('03.6.0-rc.1+m'), '3.6.0-rc.1+m');
  for (const text of ['', '3.6', 'x', '3.6.x', '3.6.0-', '3.6.0-a..b', '9223372036854775808.0.0']) {
    const expected = text === '3.6.0-' ? '3.6.0' : '';
    assert.equal(version(text), expected, text);
  }
  assert.equal(unwrap(statusOf([], [])).version, '');
});

test('refuses what is no etcd database', () => {
  const reason = (status: ReturnType<typeof snapshotStatus>): string => (status.ok ? 'sound' : status.error.reason);
  assert.equal(reason(snapshotStatus(openBytes(writeAll([sourceOf('key', [])])))), 'no meta bucket');
  assert.equal(reason(statusOf([[Buffer.from('k'), Buffer.alloc(0)]], [])), 'not a revision key');
  assert.equal(
    reason(statusOf([[encodeRevisionKey(1, 0), Buffer.from([0x0a, 9])]], [])),
    'the value is no KeyValue message',
  );
});
