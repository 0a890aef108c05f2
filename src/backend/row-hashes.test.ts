// Goal: hashes out of rows' CRCs equal those out of their bytes. Method: combine() against crc32c over seeded bytes of all
// lengths; folds with rows dropped and removed at random against KvHasher over the same rows.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32c } from '../base/crc32c.ts';
import { SeededRandom } from '../io/random.ts';
import { KvHasher } from '../snapshot/hashkv.ts';
import { encodeRevisionKey } from '../snapshot/schema.ts';
import { combine, RowHashes } from './row-hashes.ts';

test('the CRC of a concatenation', () => {
  const random = new SeededRandom(1);
  const bytes = Buffer.alloc(200_000);
  random.fill(bytes);
  for (const length of [0, 1, 2, 17, 255, 256, 257, 300, 4096, 65_535, 65_536, 65_537, 131_072, 190_001]) {
    for (const head of [0, 1, 3, 1000]) {
      const a = crc32c(0, bytes, 0, head);
      const b = crc32c(0, bytes, head, head + length);
      assert.equal(combine(a, b, length), crc32c(0, bytes, 0, head + length), `${head} ++ ${length}`);
    }
  }
});

test('folds equal the hash over the rows', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new SeededRandom(seed);
    const hashes = new RowHashes();
    let rows: { main: number; sub: number; key: Buffer; value: Buffer }[] = [];
    let main = 1;
    for (let i = 0; i < 300; i++) {
      const sub = random.float() < 0.3 ? (rows.at(-1)?.main === main ? rows.at(-1)!.sub + 1 : 0) : 0;
      if (sub === 0) main += 1 + random.below(3);
      const key = encodeRevisionKey(main, sub, random.float() < 0.2);
      const value = Buffer.alloc(random.below(400), random.below(256));
      hashes.append(main, sub, key, value);
      rows.push({ main, sub, key, value });
    }
    for (let round = 0; round < 4; round++) {
      const names = new Set(rows.filter(() => random.float() < 0.3).map((row) => `${row.main}.${row.sub}`));
      const chosen = {
        mains: Float64Array.from(rows.filter((row) => names.has(`${row.main}.${row.sub}`)).map((row) => row.main)),
        has: (m: number, s: number): boolean => names.has(`${m}.${s}`),
      };
      const revision = random.below(main + 2);
      const compactRevision = random.below(2) === 0 ? -1 : random.below(revision + 1);
      const dropped = random.below(4) === 0 ? null : chosen;
      const wanted = new KvHasher(compactRevision, revision, dropped === null ? null : (m, s) => !chosen.has(m, s));
      for (const row of rows) wanted.write(row.key, row.value);
      const fold = hashes.fold(revision, compactRevision, dropped);
      while (!fold.step(1 + random.below(100))) {
        // Goes on.
      }
      assert.equal(fold.hash, wanted.hash(), `seed ${seed} round ${round}`);
      hashes.remove(chosen);
      rows = rows.filter((row) => !names.has(`${row.main}.${row.sub}`));
      assert.equal(hashes.rowCount, rows.length);
    }
  }
});
