// Goal: no row of a leader's database is installed that could not be one: it is refused before it is anybody's state, with the place in the
// file, and not by an assertion that fails or a read that fails later. Method: files with one row too odd, over tables in memory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { SimClock } from '../io/clock.ts';
import { SeededRandom } from '../io/random.ts';
import { encode, type Message } from '../proto/message.ts';
import { KeyValue } from '../proto/mvccpb.ts';
import { sourceOf, writeAll } from '../snapshot/bolt-fixture.ts';
import { encodeCounter, encodeRevisionKey, MetaKey } from '../snapshot/schema.ts';
import { MemoryStore } from '../testing/memory-tables.ts';
import { openSimBackend, simDatabases } from '../testing/sim-database.ts';
import { SimDisk } from '../testing/sim-disk.ts';
import { type ConversionTarget, convertSnapshot, snapshotMismatch } from './snapshot-conversion.ts';

type Row = readonly [key: Buffer, value: Buffer];

const index = 9;

function put(
  main: number,
  sub = 0,
  { modRevision = main, createRevision = main, version = 1 }: Partial<Message<typeof KeyValue>> = {},
): Row {
  const value = encode(KeyValue, { key: Buffer.from('a'), createRevision, modRevision, version });
  return [encodeRevisionKey(main, sub), value];
}

function tombstone(main: number, sub = 0): Row {
  const key = Buffer.concat([encodeRevisionKey(main, sub), Buffer.from('t')]);
  return [key, encode(KeyValue, { key: Buffer.from('a') })];
}

/** What etcdutl's --bump-revision leaves. */
function keyless(main: number): Row {
  return [encodeRevisionKey(main, 0), Buffer.alloc(0)];
}

/** Throws what a conversion of these rows ends with. `watch` is given what it is made into. */
function convert(
  rows: readonly Row[],
  leases: readonly Row[] = [],
  watch: (made: ConversionTarget) => void = () => {},
  more: readonly Row[] = [],
): void {
  const meta: Row[] = [
    ...more,
    [MetaKey.confState, Buffer.from('{"voters":[1],"auto_leave":false}')],
    [MetaKey.consistentIndex, encodeCounter(index)],
  ];
  meta.sort(([a], [b]) => a.compare(b));
  const bytes = writeAll([sourceOf('key', rows), sourceOf('lease', leases), sourceOf('meta', meta)]);
  const disk = new SimDisk(new SeededRandom(1));
  disk.mkdir('/data');
  const fd = disk.open('/data/sent', 'create');
  disk.write(fd, bytes, 0, bytes.length, 0);
  disk.close(fd);
  const host = { tables: new MemoryStore(), disk, clock: new SimClock(), later: () => {} };
  const databases = simDatabases(host);
  const made = databases.openNext('/data/database');
  watch(made);
  convertSnapshot(disk, { path: '/data/sent', index, term: 1 }, made);
  databases.putInPlace('/data/database');
  const reader = host.tables.openReader();
  let leaseCount = 0;
  reader.table('lease').scan(undefined, undefined, () => ++leaseCount > 0);
  assert.equal(leaseCount, leases.length);
  const kept: Row[] = [];
  reader.table('key').scan(undefined, undefined, (key, value) => kept.push([Buffer.from(key), Buffer.from(value)]) > 0);
  assert.deepEqual(kept, rows, 'the rows that HashKV is of');
  // A start meets none of them as new.
  openSimBackend(host, { path: '/data/database', clock: host.clock, onFatal: (error) => assert.fail(error) });
}

test('rows as etcd writes them are taken', () => {
  convert([]);
  convert([put(2), put(3, 0, { createRevision: 2, version: 2 }), tombstone(4), put(4, 1), put(5), put(7)]);
  // Of a key that a compaction has taken all else of; and what a restored database begins with.
  convert([tombstone(5), put(6)]);
  convert([put(2), [encodeRevisionKey(9, 0), Buffer.alloc(0)]]);
  // The same, after a compaction that has taken all that was before.
  convert([keyless(9), keyless(12), put(14), put(15)]);
});

test('of a bucket with much in it no more is in memory than of the rows', () => {
  const leases = Array.from({ length: 40 }, (_, i): Row => [encodeCounter(i + 1), Buffer.alloc(1 << 20, i)]);
  let backlogMax = 0;
  convert([put(2)], leases, ({ backend }) => {
    const bucketPut = backend.bucketPut.bind(backend);
    backend.bucketPut = (...change) => {
      bucketPut(...change);
      backlogMax = Math.max(backlogMax, backend.backlog());
    };
  });
  assert.ok(backlogMax > 0 && backlogMax < 12 << 20, `${backlogMax} bytes`);
});

test('rows without a key alone are refused, and more of them than there can be', () => {
  assert.throws(() => convert([keyless(9)]), /cannot be installed: its row 9 has no key, and no other row has one/);
  const many = Array.from({ length: 1001 }, (_, i) => keyless(i + 2));
  assert.throws(() => convert([...many, put(2000)]), /not the KeyValue of its revision/);
});

test('a database of another entry, older or newer, is refused with both named', () => {
  for (const found of [index - 1, index + 1]) {
    const facts = { consistentIndex: found, term: 1 };
    assert.match(
      snapshotMismatch(facts, index)!,
      new RegExp(`index is ${found}, but it was sent as a snapshot of entry ${index}$`),
    );
  }
  assert.equal(snapshotMismatch({ consistentIndex: index, term: 1 }, index), null);
});

for (const name of ['scheduledCompactRev', 'finishedCompactRev'] as const) {
  test(`a ${name} that is none is refused before anything is made`, () => {
    const reason = new RegExp(`cannot be installed: it is damaged: meta/${name} is no revision`);
    assert.throws(() => convert([put(2)], [], () => {}, [[MetaKey[name], Buffer.from('odd')]]), reason);
    convert([put(2)], [], () => {}, [[MetaKey[name], encodeRevisionKey(1, 0)]]);
  });
}

for (const [what, rows] of [
  ['a value of another revision', [put(2), put(4, 0, { modRevision: 3 })]],
  ['a value that was made later', [put(2, 0, { createRevision: 3 })]],
  ['a value that was never made', [put(2, 0, { createRevision: 0 })]],
  ['more versions than revisions', [put(2, 0, { version: 3 })]],
  ['a revision before the first', [put(0)]],
  ['a revision behind the last', [put(Number.MAX_SAFE_INTEGER)]],
  ['more changes in a revision than there can be', [put(2, 2 ** 40)]],
  ['a put and a tombstone at once', [put(2), tombstone(2)]],
  ['a tombstone of no key', [put(2), [tombstone(3)[0], Buffer.alloc(0)]]],
] as const) {
  test(`${what} is refused`, () => {
    assert.throws(
      () => convert(rows),
      (error) =>
        error instanceof FatalError &&
        error.exitCode === ExitCode.backendCorrupt &&
        /^the leader's snapshot \/data\/sent cannot be installed: it is damaged: not the KeyValue of its revision \(at byte \d+\)/.test(
          error.message,
        ),
    );
  });
}
