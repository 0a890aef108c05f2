// By hand: `node src/io/lmdb-tree.bench.ts [rows] [value bytes]`. CPU a row of reads through the package and in the memory map, in
// revision order and at random, each with a copy of the value as an answer makes it; and of walks.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeRevisionKey, writeRevisionKey } from '../snapshot/schema.ts';
import { LmdbEnvironment } from './lmdb.ts';
import { SeededRandom } from './random.ts';
import { type ValueRef, ValueRefs } from './table.ts';

const rows = Number(process.argv[2] ?? 1_000_000);
const valueBytes = Number(process.argv[3] ?? 330);
const rounds = Math.max(3, Math.ceil(1_000_000 / rows));
const lot = 16;
const folder = mkdtempSync(join(process.env['BENCH_DIR'] ?? tmpdir(), 'keelson-bench-'));
const environment = new LmdbEnvironment({ path: join(folder, 'db'), noSync: true, mapped: true });
const table = environment.table('key');
const value = Buffer.alloc(valueBytes, 7);
for (let from = 0; from < rows; from += 10_000) {
  environment.transaction(() => {
    for (let i = from; i < Math.min(rows, from + 10_000); i++) table.put(encodeRevisionKey(i, 0), value);
  });
}
const sizes = environment.sizes();
console.log(`${rows} rows, ${(sizes.allocatedBytes / 1e6).toFixed(0)} MB, mapped: ${environment.tree('key') !== null}`);

const inOrder: number[] = Array.from({ length: rows }, (_, i) => i);
const random = new SeededRandom(1);
const shuffled: number[] = [...inOrder];
for (let i = rows - 1; i > 0; i--) {
  const j = random.below(i + 1);
  [shuffled[i], shuffled[j]] = [shuffled[j]!, shuffled[i]!];
}
const out = Buffer.allocUnsafeSlow(1 << 20);
let outAt = 0;
const key = Buffer.alloc(17);
const ref: ValueRef = { buffer: key, start: 0, end: 0 };
const refs = new ValueRefs();
const keys: Buffer[] = Array.from({ length: lot }, () => Buffer.alloc(17));
const views: DataView[] = keys.map((one) => new DataView(one.buffer, one.byteOffset, one.length));

function take(buffer: Buffer, start: number, end: number): void {
  if (outAt + end - start > out.length) outAt = 0;
  outAt += buffer.copy(out, outAt, start, end);
}

/** The least of some rounds: others use the machine too. */
function measure(what: string, run: () => void): void {
  let least = Infinity;
  for (let round = 0; round < rounds; round++) {
    environment.refresh();
    const before = process.cpuUsage();
    run();
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, (user + system) / rows);
  }
  console.log(`${what.padEnd(24)} ${least.toFixed(3)} us a row`);
}

for (const [name, order] of [['in order', inOrder] as const, ['at random', shuffled] as const]) {
  measure(`get ${name}`, () => {
    for (const main of order) {
      writeRevisionKey(key, 0, main, 0, false);
      const found = table.get(key)!;
      take(found, 0, found.length);
    }
  });
  measure(`find ${name}`, () => {
    for (const main of order) {
      writeRevisionKey(key, 0, main, 0, false);
      table.find(key, ref);
      take(ref.buffer, ref.start, ref.end);
    }
  });
  measure(`find nothing ${name}`, () => {
    for (const main of order) {
      writeRevisionKey(key, 0, main, 1, false);
      table.find(key, ref);
    }
  });
  measure(`findAll ${name}`, () => {
    for (let from = 0; from + lot <= rows; from += lot) {
      for (let i = 0; i < lot; i++) writeRevisionKey(keys[i]!, 0, order[from + i]!, 0, false);
      table.findAll(views, lot, refs);
      for (let i = 0; i < lot; i++) take(refs.buffers[i]!, refs.starts[i]!, refs.ends[i]!);
    }
  });
}
measure('scan', () => table.scan(undefined, undefined, (_key, bytes) => bytes.length > 0));
measure('walk', () => table.walk(undefined, undefined, (_key, _from, _to, _value, start, end) => end > start));
environment.close();
rmSync(folder, { recursive: true, force: true });
