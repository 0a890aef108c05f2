// Goal: rows that were looked up ahead are those that would be found one by one, in whatever order changes are shown, overridden and
// asked for; nothing outlives its scan; a scan that asks for no rows has none looked up. Method: seeded random scans over a table in
// LMDB, each row against find(); a table without findAll().

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { LmdbEnvironment } from '../io/lmdb.ts';
import { SeededRandom } from '../io/random.ts';
import type { ReadTable, ValueRef } from '../io/table.ts';
import { encodeRevisionKey } from '../snapshot/schema.ts';
import { rowsAheadMax } from '../storage-limits.ts';
import { MemoryStore } from '../testing/memory-tables.ts';
import { RowAhead } from './row-ahead.ts';

const folder = mkdtempSync(join(tmpdir(), 'keelson-ahead-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const ROWS = 3000;
/** Every third main is missing; some have a sub. */
const hasRow = (main: number, sub: number): boolean => main < ROWS && main % 3 !== 0 && (sub === 0 || main % 5 === 0);

function openTable(): { environment: LmdbEnvironment; table: ReadTable } {
  const environment = new LmdbEnvironment({ path: join(folder, 'rows'), mapped: true });
  const table = environment.table('key');
  environment.transaction(() => {
    for (let main = 0; main < ROWS; main++) {
      for (const sub of [0, 1]) {
        if (hasRow(main, sub)) table.put(encodeRevisionKey(main, sub), Buffer.from(`row ${main}.${sub}`));
      }
    }
  });
  assert.ok(environment.tree('key') !== null, 'there is no map');
  return { environment, table };
}

test('random scans take what find() finds', () => {
  const { environment, table } = openTable();
  const seed = 20261121;
  const random = new SeededRandom(seed);
  const ahead = new RowAhead(table);
  const out: ValueRef = { buffer: Buffer.alloc(0), start: 0, end: 0 };
  let taken = 0;
  let lots = 0;
  for (let scan = 0; scan < 200; scan++) {
    ahead.begin();
    for (let left = random.below(200); left > 0; ) {
      const lot = ahead.lot();
      assert.ok(lot <= rowsAheadMax);
      if (lot > 0) lots++;
      const changes = Array.from({ length: Math.max(1, Math.min(left, lot)) }, () => ({
        main: random.below(ROWS + 10),
        sub: random.below(2),
      }));
      left -= changes.length;
      if (lot > 0) for (const { main, sub } of changes) if (random.below(20) > 0) ahead.show(main, sub);
      for (const change of changes) {
        // A newer change of the key, which is in a delta; or a visitor that wants no row.
        const isNewer = random.below(10) === 0;
        const main = isNewer ? random.below(ROWS) : change.main;
        const sub = isNewer ? 0 : change.sub;
        if (random.below(10) === 0 || !ahead.take(main, sub, out)) continue;
        taken++;
        assert.ok(hasRow(main, sub), `seed ${seed}: a row that is not there`);
        assert.equal(out.buffer.toString('latin1', out.start, out.end), `row ${main}.${sub}`, `seed ${seed}`);
      }
    }
    ahead.end();
    for (let main = 0; main < ROWS; main += 97)
      assert.equal(ahead.take(main, 0, out), false, 'a row outlives its scan');
  }
  assert.ok(taken > 4000 && lots > 500, `${taken} rows in ${lots} lots`);
  environment.close();
});

test('lots begin when rows are asked for, and double', () => {
  const ahead = new RowAhead(new MemoryStore().openReader().table('key'));
  const out: ValueRef = { buffer: Buffer.alloc(0), start: 0, end: 0 };
  ahead.begin();
  assert.equal(ahead.lot(), 0);
  assert.equal(ahead.lot(), 0);
  const sizes: number[] = [];
  for (let i = 0; i < 5; i++) {
    ahead.take(i, 0, out);
    sizes.push(ahead.lot());
  }
  assert.deepEqual(sizes, [2, 6, 14, rowsAheadMax, rowsAheadMax]);
  ahead.begin();
  assert.equal(ahead.lot(), 0, 'the next scan begins anew');
  ahead.end();
});

test('a table that finds no lots is asked once', () => {
  let asked = 0;
  const table = new MemoryStore().openReader().table('key');
  const counted: ReadTable = Object.assign(Object.create(table), { findAll: () => ++asked < 0 });
  const ahead = new RowAhead(counted);
  const out: ValueRef = { buffer: Buffer.alloc(0), start: 0, end: 0 };
  ahead.begin();
  ahead.take(1, 0, out);
  for (let i = 0; i < 10; i++) {
    const lot = ahead.lot();
    for (let main = 0; main < lot; main++) ahead.show(main, 0);
    assert.equal(ahead.take(0, 0, out), false);
  }
  assert.equal(asked, 1);
});
