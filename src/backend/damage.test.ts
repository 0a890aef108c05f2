// Goal: whatever a table's entry says, the engine does its work or ends in the error of a damaged database, never in another one.
// Method: two seconds of damage.fuzz.ts from a fresh seed (`make fuzz` runs it for long); and what it meets too seldom.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { SeededRandom } from '../io/random.ts';
import type { WriteTable } from '../io/table.ts';
import { encodeRevisionKey, MetaKey } from '../snapshot/schema.ts';
import { applyTo } from '../testing/backend-model.ts';
import { fuzzFor } from '../testing/fuzz-loop.ts';
import { MemoryStore } from '../testing/memory-tables.ts';
import { Engine, fuzzDamage, makeStore } from './damage.fuzz.ts';

test('damaged entries are refused, or do not matter', () => {
  let seen = 0;
  const run = (seed: number): void => {
    if (fuzzDamage(seed)) seen++;
  };
  const runs = fuzzFor(run, 2, Date.now() % 1_000_000_000);
  assert.ok(seen > 0 && seen < runs, `damage was seen in ${seen} of ${runs} runs`);
});

test('rows without how far the log was applied are refused: it would be applied to them again', () => {
  const lost: readonly [table: string, key: Buffer][] = [
    ['meta', MetaKey.consistentIndex],
    ['keelson', Buffer.from('state')],
  ];
  for (const [table, key] of lost) {
    const { store } = makeStore(new SeededRandom(1));
    assert.ok(new Engine(store).backend.consistentIndex > 0, 'a sound one is taken');
    const writer = store.openWriter();
    writer.transaction(() => assert.ok(writer.table(table).remove(key)));
    assert.throws(() => new Engine(store), /is damaged: it has rows, but not how far the log was applied; restore/);
  }
});

test('a database is new until its first commit, and sound after one without rows', () => {
  const store = new MemoryStore();
  const { backend, port } = new Engine(store);
  assert.equal(backend.consistentIndex, 0);
  backend.bucketPut('members', Buffer.from('1'), Buffer.from('{}'));
  backend.endApply(1, 1);
  assert.equal(new Engine(store).backend.consistentIndex, 0, 'nothing was flushed');
  backend.flush(() => {});
  port.run();
  const again = new Engine(store).backend;
  assert.deepEqual([again.consistentIndex, again.currentRevision], [1, 0]);
});

const stateKey: Buffer = Buffer.from('state');

function change(store: MemoryStore, table: string, body: (table: WriteTable) => void): void {
  const writer = store.openWriter();
  writer.transaction(() => body(writer.table(table)));
  writer.close();
}

function entriesOf(store: MemoryStore, table: string): [key: Buffer, value: Buffer][] {
  const entries: [Buffer, Buffer][] = [];
  const show = (key: Buffer, value: Buffer): boolean => entries.push([Buffer.from(key), Buffer.from(value)]) > 0;
  store.openReader().table(table).scan(undefined, undefined, show);
  return entries;
}

/** Puts of `a` and `b` in turn, each a revision. */
function putTurns(engine: Engine, puts: number): void {
  for (let i = 0; i < puts; i++) {
    applyTo(engine.backend, { kind: 'txn', changes: [{ key: i % 2 === 0 ? 'a' : 'b', value: `value ${i}` }] });
  }
}

function remove(engine: Engine, key: string): void {
  applyTo(engine.backend, { kind: 'txn', changes: [{ key, value: null }] });
}

/** Then `a` is deleted. Flushed; with `merged`, the key index is in the tables too, else a start reads it from the rows. */
function storeOf(puts: number, merged: boolean): MemoryStore {
  const store = new MemoryStore();
  const engine = new Engine(store);
  putTurns(engine, puts);
  remove(engine, 'a');
  if (merged) engine.backend.close(() => {});
  else engine.backend.flush(() => {});
  engine.port.run();
  return store;
}

function start(store: MemoryStore): void {
  new Engine(store);
}

function compact(store: MemoryStore): void {
  const engine = new Engine(store);
  // A tombstone at the revision itself stays.
  putTurns(engine, 1);
  applyTo(engine.backend, { kind: 'compact', revision: engine.backend.currentRevision });
  engine.backend.flush(() => {});
  engine.port.run();
  if (engine.failure !== null) throw engine.failure;
}

function reshape(
  table: string,
  harm: (key: Buffer, value: Buffer, rows: WriteTable) => void,
): (s: MemoryStore) => void {
  return (store) => {
    const [key, value] = entriesOf(store, table)[0]!;
    change(store, table, (rows) => harm(key, value, rows));
  };
}

/** What is there, what is done to it, what meets it, and what that says. */
interface HandDamage {
  readonly says: string;
  readonly store: () => MemoryStore;
  readonly harm: (store: MemoryStore) => void;
  readonly meet: (store: MemoryStore) => void;
}

const handDamage: readonly HandDamage[] = [
  {
    says: 'its engine has an impossible format version',
    store: () => storeOf(2, true),
    harm: (store) => change(store, 'keelson', (table) => table.put(stateKey, Buffer.alloc(32, 0xee))),
    meet: start,
  },
  {
    says: 'the numbers of its engine are cut',
    store: () => storeOf(2, true),
    harm: (store) => change(store, 'keelson', (table) => table.put(stateKey, Buffer.from([0, 0, 0, 1, 0, 0, 0, 0]))),
    meet: start,
  },
  {
    says: 'an entry of the key index is newer than the newest revision',
    store: () => storeOf(4, true),
    // As a longer history has it.
    harm: reshape('live', (key, _value, table) => {
      const longer = entriesOf(storeOf(40, true), 'live').find(([other]) => other.equals(key))!;
      table.put(key, longer[1]);
    }),
    meet: (store) => putTurns(new Engine(store), 2),
  },
  {
    says: 'its compaction has no revision',
    store: () => storeOf(2, true),
    harm: (store) => change(store, 'meta', (table) => table.put(MetaKey.finishedCompactRev, Buffer.from('none'))),
    meet: start,
  },
  {
    says: 'a block of garbage names no row',
    store: () => storeOf(4, true),
    harm: reshape('garbage', (key, value, table) => table.put(key, Buffer.alloc(value.length))),
    meet: compact,
  },
  {
    says: 'a record of history without a revision',
    store: () => storeOf(2, true),
    harm: reshape('histlog', (key, value, table) => {
      table.remove(key);
      table.put(key.subarray(0, 5), value);
    }),
    meet: compact,
  },
  {
    says: 'row 2 has no key',
    store: () => storeOf(2, false),
    // Only its create and mod revisions, and its version.
    harm: reshape('key', (key, _value, table) => table.put(key, Buffer.from([0x10, 2, 0x18, 2, 0x20, 1]))),
    meet: start,
  },
  {
    says: "row 2 is another's",
    store: () => storeOf(2, false),
    harm: reshape('key', (_key, value, table) => {
      const other = Buffer.from(table.get(encodeRevisionKey(3, 0)) ?? value);
      table.put(encodeRevisionKey(2, 0), other);
    }),
    meet: start,
  },
];

test('what is refused says what is damaged, and what to do', () => {
  for (const { says, store, harm, meet } of handDamage) {
    const harmed = store();
    harm(harmed);
    assert.throws(
      () => meet(harmed),
      (error) => {
        assert.ok(error instanceof FatalError, `${says}: ${error}`);
        assert.equal(error.message, `the database is damaged: ${says}; restore it from a snapshot`);
        assert.equal(error.exitCode, ExitCode.backendCorrupt);
        return true;
      },
    );
    // The same without the damage goes well.
    meet(store());
  }
});
