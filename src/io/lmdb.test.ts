// Goal: the tables over LMDB behave as io/table.ts says. Method: a seeded random history against a sorted map, then the hard
// cases one by one: nested scans, shared memory, large values, pinned views, other threads, moving to a compact copy, files that
// are no database, a full disk (a tmpfs, mounted as root).

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { LmdbEnvironment } from './lmdb.ts';
import type { ReadTable } from './table.ts';

const folder = mkdtempSync(join(tmpdir(), 'keelson-lmdb-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let fileNumber = 0;
function newPath(): string {
  return join(folder, `${++fileNumber}.db`);
}

function collect(table: ReadTable, start?: Buffer, end?: Buffer, reverse = false, limit = Infinity): string[] {
  const found: string[] = [];
  table.scan(
    start,
    end,
    (key, value) => {
      found.push(`${key.toString('latin1')}=${value.toString('latin1')}`);
      return found.length < limit;
    },
    reverse,
  );
  return found;
}

function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >>> 0) / 4294967296;
  };
}

test('a random history equals a sorted map', () => {
  const seed = 20261121;
  const random = randomOf(seed);
  const environment = new LmdbEnvironment({ path: newPath() });
  const table = environment.table('t');
  const model = new Map<string, string>();
  const randomKey = (): Buffer => {
    const length = 1 + Math.floor(random() * 3);
    return Buffer.from(Array.from({ length }, () => [0, 1, 2, 128, 255][Math.floor(random() * 5)]!));
  };
  for (let round = 0; round < 60; round++) {
    environment.transaction(() => {
      for (let i = 0; i < 20; i++) {
        const key = randomKey();
        const name = key.toString('latin1');
        if (random() < 0.3) {
          assert.equal(table.remove(key), model.delete(name));
        } else {
          const value = Buffer.alloc(Math.floor(random() * 40), round);
          table.put(key, value);
          model.set(name, value.toString('latin1'));
          assert.equal(table.get(key)?.toString('latin1'), value.toString('latin1'));
        }
      }
    });
    const sorted = [...model].map(([k, v]) => `${k}=${v}`);
    sorted.sort((a, b) => Buffer.compare(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1')));
    const ordered = [...model.keys()].sort((a, b) =>
      Buffer.compare(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1')),
    );
    const start = random() < 0.2 ? undefined : randomKey();
    const end = random() < 0.2 ? undefined : randomKey();
    const inside = ordered.filter(
      (k) =>
        (start === undefined || Buffer.compare(Buffer.from(k, 'latin1'), start) >= 0) &&
        (end === undefined || Buffer.compare(Buffer.from(k, 'latin1'), end) < 0),
    );
    const expected = inside.map((k) => `${k}=${model.get(k)}`);
    assert.deepEqual(collect(table, start, end), expected, `seed ${seed} round ${round}`);
    assert.deepEqual(collect(table, start, end, true), expected.toReversed(), `seed ${seed} round ${round}`);
    assert.equal(table.count(start, end), expected.length);
    assert.equal(table.entryCount(), model.size);
    const limit = 1 + Math.floor(random() * 5);
    assert.deepEqual(collect(table, start, end, false, limit), expected.slice(0, limit));
  }
  environment.close();
});

test('a visitor may get and scan; its own entry stays', () => {
  const environment = new LmdbEnvironment({ path: newPath() });
  const outer = environment.table('outer');
  const inner = environment.table('inner');
  environment.transaction(() => {
    for (let i = 0; i < 10; i++) {
      outer.put(Buffer.from(`o${i}`), Buffer.from(`v${i}`));
      inner.put(Buffer.from(`i${i}`), Buffer.alloc(3000, i));
    }
  });
  const check = (): void => {
    const seen: string[] = [];
    outer.scan(undefined, undefined, (key, value) => {
      assert.equal(inner.get(Buffer.from('i3'))?.length, 3000);
      let count = 0;
      inner.scan(Buffer.from('i2'), undefined, (_key, innerValue) => {
        outer.get(Buffer.from('o1'));
        assert.equal(innerValue[0], count + 2);
        return ++count < 4;
      });
      assert.equal(count, 4);
      seen.push(`${key}=${value}`);
      return true;
    });
    assert.equal(seen.join(), 'o0=v0,o1=v1,o2=v2,o3=v3,o4=v4,o5=v5,o6=v6,o7=v7,o8=v8,o9=v9');
  };
  check();
  environment.transaction(check);
  environment.close();
});

test('values of shared memory, empty ones, large ones', () => {
  const environment = new LmdbEnvironment({ path: newPath() });
  const table = environment.table('t');
  const shared = Buffer.from(new SharedArrayBuffer(200_000));
  shared.fill(7);
  const large = Buffer.alloc(3_000_000, 9);
  environment.transaction(() => {
    table.put(Buffer.from('a'), Buffer.alloc(0));
    table.put(Buffer.from('b'), shared.subarray(10, 310));
    table.put(Buffer.from('c'), shared);
    table.put(Buffer.from('d'), large);
    table.put(Buffer.from('e'), large.subarray(5, 70_000));
  });
  assert.equal(table.get(Buffer.from('a'))?.length, 0);
  assert.deepEqual(Buffer.from(table.get(Buffer.from('b'))!), Buffer.alloc(300, 7));
  assert.deepEqual(Buffer.from(table.get(Buffer.from('c'))!), Buffer.alloc(200_000, 7));
  assert.deepEqual(Buffer.from(table.get(Buffer.from('d'))!), large);
  assert.equal(table.get(Buffer.from('e'))?.length, 69_995);
  const lengths: number[] = [];
  table.scan(undefined, undefined, (_key, value) => {
    assert.ok(value.every((byte) => byte === 7 || byte === 9));
    return lengths.push(value.length) < 100;
  });
  assert.deepEqual(lengths, [0, 300, 200_000, 3_000_000, 69_995]);
  environment.close();
});

test('keys of the longest length', () => {
  const environment = new LmdbEnvironment({ path: newPath() });
  const table = environment.table('t');
  const key = Buffer.alloc(4026, 200);
  environment.transaction(() => table.put(key, Buffer.from('v')));
  assert.equal(table.get(key)?.toString(), 'v');
  assert.equal(collect(table).length, 1);
  assert.throws(() => table.get(Buffer.alloc(4027)), /key length/);
  assert.throws(() => table.get(Buffer.alloc(0)), /key length/);
  environment.close();
});

test('a throw aborts, the data survives a reopen', () => {
  const path = newPath();
  const environment = new LmdbEnvironment({ path });
  const table = environment.table('t');
  environment.transaction(() => table.put(Buffer.from('a'), Buffer.from('1')));
  assert.throws(() => {
    environment.transaction(() => {
      table.put(Buffer.from('a'), Buffer.from('2'));
      throw new RangeError('no');
    });
  }, /^RangeError: no$/);
  assert.equal(table.get(Buffer.from('a'))?.toString(), '1');
  environment.transaction(() => table.put(Buffer.from('b'), Buffer.from('3')));
  environment.close();
  const again = new LmdbEnvironment({ path });
  assert.deepEqual(collect(again.table('t')), ['a=1', 'b=3']);
  again.close();
});

test('a pinned view stays, a refreshed one moves, also against writes of another thread', async () => {
  const path = newPath();
  const environment = new LmdbEnvironment({ path });
  const table = environment.table('t');
  environment.transaction(() => table.put(Buffer.from('a'), Buffer.from('1')));
  const pinned = environment.pin();
  const worker = new Worker(
    `const { workerData, parentPort } = require('node:worker_threads');
     import(workerData.module).then(({ LmdbEnvironment }) => {
       const environment = new LmdbEnvironment({ path: workerData.path });
       const table = environment.table('t');
       let n = 0;
       parentPort.on('message', (message) => {
         if (message === 'end') { environment.close(); parentPort.close(); return; }
         environment.transaction(() => { table.put(Buffer.from('a'), Buffer.from(message)); table.put(Buffer.from('n' + n++), Buffer.alloc(10)); });
         parentPort.postMessage('done');
       });
       parentPort.postMessage('ready');
     });`,
    { eval: true, workerData: { module: new URL('./lmdb.ts', import.meta.url).href, path } },
  );
  const next = (): Promise<unknown> => new Promise((resolve) => worker.once('message', resolve));
  await next();
  for (let i = 2; i < 10; i++) {
    const answered = next();
    worker.postMessage(String(i));
    await answered;
    environment.refresh();
    assert.equal(table.get(Buffer.from('a'))?.toString(), String(i));
    assert.equal(pinned.table('t').get(Buffer.from('a'))?.toString(), '1');
    assert.deepEqual(collect(pinned.table('t')), ['a=1']);
    assert.equal(pinned.table('t').entryCount(), 1);
  }
  pinned.close();
  worker.postMessage('end');
  await new Promise((resolve) => worker.once('exit', resolve));
  environment.refresh();
  assert.equal(table.get(Buffer.from('a'))?.toString(), '9');
  environment.close();
});

test('moving to a compact copy keeps the tables, and frees the pages', async () => {
  const path = newPath();
  const environment = new LmdbEnvironment({ path });
  const table = environment.table('t');
  environment.transaction(() => {
    for (let i = 0; i < 20_000; i++) table.put(Buffer.from(`key${String(i).padStart(8, '0')}`), Buffer.alloc(300, 1));
  });
  environment.transaction(() => {
    for (let i = 0; i < 19_000; i++) table.remove(Buffer.from(`key${String(i).padStart(8, '0')}`));
  });
  environment.transaction(() => table.put(Buffer.from('x'), Buffer.from('y')));
  const before = environment.sizes();
  assert.ok(before.freeBytes > before.allocatedBytes * 0.8, 'most pages are free');
  const copy = new LmdbEnvironment({ path: `${path}.copy` });
  const target = copy.table('t');
  copy.transaction(() =>
    table.scan(undefined, undefined, (key, value) => {
      target.put(key, value);
      return true;
    }),
  );
  copy.renameTo(path);
  environment.reopen(path);
  copy.close();
  assert.equal(table.get(Buffer.from('x'))?.toString(), 'y');
  const sizes = environment.sizes();
  assert.ok(sizes.allocatedBytes < before.allocatedBytes * 0.2, 'the copy is small');
  assert.ok(sizes.freeBytes < 100_000);
  environment.transaction(() => table.put(Buffer.from('z'), Buffer.from('1')));
  assert.equal(existsSync(`${path}.copy`), false);
  environment.close();
  const again = new LmdbEnvironment({ path });
  assert.equal(again.table('t').entryCount(), 1002);
  assert.equal(again.table('t').get(Buffer.from('z'))?.toString(), '1');
  again.close();
});

test('a file that is no database, or a part of one, is refused as corrupt', () => {
  const path = newPath();
  const refused = (error: unknown): boolean =>
    error instanceof FatalError && error.exitCode === ExitCode.backendCorrupt;
  writeFileSync(path, Buffer.alloc(100_000, 0x55));
  assert.throws(() => new LmdbEnvironment({ path }), refused);
  rmSync(path);
  const environment = new LmdbEnvironment({ path });
  const table = environment.table('t');
  environment.transaction(() => {
    for (let i = 0; i < 1000; i++) table.put(Buffer.from(`k${i}`), Buffer.alloc(1000));
  });
  environment.close();
  truncateSync(path, 200_000);
  assert.throws(() => new LmdbEnvironment({ path }), refused);
  truncateSync(path, 9000);
  assert.throws(() => new LmdbEnvironment({ path }), refused);
});

test('a folder that is not there is refused', () => {
  assert.throws(
    () => new LmdbEnvironment({ path: join(folder, 'none', 'x.db') }),
    (error: unknown) => error instanceof FatalError && error.exitCode === ExitCode.backendWrite,
  );
});

test('a full disk is fatal with its own exit code; what was committed stays', async (context) => {
  const mount = join(folder, 'small');
  mkdirSync(mount);
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', mount]);
  if (mounted.status !== 0) {
    context.skip(`needs to mount a tmpfs: ${mounted.stderr}`);
    return;
  }
  try {
    const path = join(mount, 'full.db');
    const environment = new LmdbEnvironment({ path });
    const table = environment.table('t');
    environment.transaction(() => table.put(Buffer.from('a'), Buffer.from('1')));
    assert.throws(
      () => {
        for (let round = 0; ; round++) {
          environment.transaction(() => {
            for (let i = 0; i < 500; i++) table.put(Buffer.from(`k${round}-${i}`), Buffer.alloc(1000));
          });
        }
      },
      (error: unknown) => error instanceof FatalError && error.exitCode === ExitCode.diskFull,
    );
    assert.throws(() => environment.transaction(() => {}), /after a failed one/);
    environment.close();
    const again = new LmdbEnvironment({ path });
    assert.equal(again.table('t').get(Buffer.from('a'))?.toString(), '1');
    const count = again.table('t').entryCount();
    assert.ok(count > 500 && count % 500 === 1, 'whole commits only');
    again.close();
    writeFileSync(join(mount, 'rest'), Buffer.alloc(statfsSync(mount).bavail * statfsSync(mount).bsize));
    assert.throws(
      () => new LmdbEnvironment({ path: join(mount, 'new.db') }),
      (error: unknown) => error instanceof FatalError && error.exitCode === ExitCode.diskFull,
    );
  } finally {
    spawnSync('umount', [mount]);
  }
});
