// Goal: no page that is damaged reaches LMDB's own code, whose end would be a signal, and none that is sound is refused. Method: a
// file with one damage of each kind, opened, and written where it lies; then damaged and sound files at random for some seconds, by
// lmdb-guard.fuzz.ts in a process of its own, which a page that slips through ends.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { lmdbPageBytes } from '../storage-limits.ts';
import { LmdbEnvironment } from './lmdb.ts';

const folder = mkdtempSync(join(tmpdir(), 'keelson-guard-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const newPath = (): string => join(folder, `${++files}.mdb`);

const keyOf = (i: number): Buffer => Buffer.from(`key ${String(i).padStart(6, '0')}`);
const KEYS = 6000;
const BIG = 3000;

/** One table of three levels, with one value that has pages of its own, and some free pages. */
function makeSound(): Buffer {
  const path = newPath();
  const environment = new LmdbEnvironment({ path, noSync: true });
  const table = environment.table('t');
  for (let round = 0; round < 3; round++) {
    environment.transaction(() => {
      for (let i = round; i < KEYS; i += 3) table.put(keyOf(i), Buffer.alloc(i === BIG ? 20_000 : 2000, i));
    });
  }
  environment.close();
  return readFileSync(path);
}

const sound: Buffer = makeSound();
const metaOf = (content: Buffer): number =>
  content.readBigUInt64LE(152) > content.readBigUInt64LE(lmdbPageBytes + 152) ? 0 : lmdbPageBytes;
const mainRoot = (content: Buffer): number => content.readUInt32LE(metaOf(content) + 136) * lmdbPageBytes;

/** Offset of node `at` of the page at offset `page`. */
const nodeOf = (content: Buffer, page: number, at: number): number =>
  page + 24 + content.readUInt16LE(page + 24 + 2 * at);
const countOf = (content: Buffer, page: number): number => content.readUInt16LE(page + 20) / 2;

/** Offsets of the pages on the way to the key, from the root on. */
function wayTo(content: Buffer, key: Buffer): number[] {
  const record = content.indexOf('t\0', mainRoot(content) + lmdbPageBytes / 2, 'latin1') + 2;
  const pages = [content.readUInt32LE(record + 40) * lmdbPageBytes];
  for (let level = content.readUInt16LE(record + 6); level > 1; level--) {
    const page = pages.at(-1)!;
    let at = countOf(content, page) - 1;
    for (; at > 0; at--) {
      const node = nodeOf(content, page, at);
      if (content.subarray(node + 8, node + 8 + content.readUInt16LE(node + 6)).compare(key) <= 0) break;
    }
    pages.push(content.readUInt32LE(nodeOf(content, page, at)) * lmdbPageBytes);
  }
  return pages;
}

type Work = (environment: LmdbEnvironment) => void;
const put: Work = (environment) => environment.table('t').put(keyOf(BIG), Buffer.alloc(10));
const remove: Work = (environment) => void environment.table('t').remove(keyOf(BIG));

/** Damages a copy, opens it, and works in a transaction; the message, null when nothing was found. */
function found(damage: (content: Buffer) => void, work: Work): string | null {
  const content = Buffer.from(sound);
  damage(content);
  const path = newPath();
  writeFileSync(path, content);
  let environment: LmdbEnvironment | null = null;
  try {
    const opened = new LmdbEnvironment({ path, noSync: true, mapped: true });
    environment = opened;
    opened.table('t');
    opened.transaction(() => work(opened));
    return null;
  } catch (error) {
    assert.ok(error instanceof FatalError && error.exitCode === ExitCode.backendCorrupt, String(error));
    assert.ok(error.message.startsWith(`the database ${path} is damaged: `), error.message);
    assert.match(error.message, /; restore it from a snapshot$/);
    return error.message.slice(`the database ${path} is damaged: `.length, -'; restore it from a snapshot'.length);
  } finally {
    (environment as LmdbEnvironment | null)?.close();
  }
}

/** The last page on the way to the key: its leaf. */
const leafOf = (content: Buffer, i: number): number => wayTo(content, keyOf(i)).at(-1)!;

test('what a page may not be, on the way to a key that is written', () => {
  assert.equal(
    found(() => {}, put),
    null,
  );
  assert.equal(
    found(() => {}, remove),
    null,
  );
  assert.equal(wayTo(sound, keyOf(BIG)).length, 3);
  const cases: readonly [string, (content: Buffer, page: number) => void, RegExp][] = [
    ['another page', (content, page) => content.writeUInt32LE(7, page), /another number/],
    ['of a later transaction', (content, page) => content.writeUInt32LE(1e6, page + 8), /newer than what is read/],
    ['of one far beyond', (content, page) => content.writeUInt32LE(1, page + 12), /newer than what is read/],
    ['of another kind', (content, page) => content.writeUInt16LE(8, page + 18), /of another kind/],
    ['bounds', (content, page) => content.writeUInt16LE(9000, page + 20), /impossible bounds/],
    ['zeros', (content, page) => content.fill(0, page, page + lmdbPageBytes), /another number/],
    ['one node twice', (content, page) => content.copyWithin(page + 24, page + 26, page + 28), /nodes over each other/],
    [
      'a gap',
      (content, page) => content.writeUInt16LE(content.readUInt16LE(page + 22) - 2, page + 22),
      /over each other/,
    ],
    [
      'a node at an odd offset',
      (content, page) => content.writeUInt8(content[page + 24]! ^ 1, page + 24),
      /each other|outside/,
    ],
    [
      'a key that does not ascend',
      (content, page) => content.fill(0xff, nodeOf(content, page, 1) + 8, nodeOf(content, page, 1) + 12),
      /do not ascend/,
    ],
    [
      'a key too long',
      (content, page) => content.writeUInt16LE(5000, nodeOf(content, page, 1) + 6),
      /impossible length|outside of it/,
    ],
  ];
  for (const [name, damage, message] of cases) {
    for (let level = 0; level < 3; level++) {
      const told = found((content) => damage(content, wayTo(content, keyOf(BIG))[level]!), put);
      assert.match(String(told), message, `${name}, level ${level}`);
      const page = wayTo(sound, keyOf(BIG))[level]! / lmdbPageBytes;
      assert.match(String(told), new RegExp(`^table t, page ${page}: `), `${name}, level ${level}`);
    }
  }
});

test('values and children outside of what there is', () => {
  const pageCount = sound.length / lmdbPageBytes;
  const child = (value: number) => (content: Buffer) =>
    void content.writeUInt32LE(value, nodeOf(content, wayTo(content, keyOf(BIG))[1]!, 1));
  assert.match(String(found(child(pageCount + 3), put)), /a child outside of the file/);
  assert.match(String(found(child(1), put)), /a child outside of the file/);
  // Where the big value's node is in its leaf: the one with a flag.
  const big = (content: Buffer): number => {
    const leaf = leafOf(content, BIG);
    for (let at = 0; ; at++)
      if (content.readUInt16LE(nodeOf(content, leaf, at) + 4) === 1) return nodeOf(content, leaf, at);
  };
  const pages = (content: Buffer): number => big(content) + 8 + keyOf(BIG).length;
  assert.match(
    String(found((content) => void content.writeUInt32LE(pageCount, pages(content)), put)),
    /outside of the file/,
  );
  assert.match(String(found((content) => void content.writeUInt32LE(1, pages(content) + 16), put)), /impossible pages/);
  assert.match(
    String(found((content) => void content.writeUInt16LE(2, big(content) + 4), put)),
    /a node of another kind/,
  );
  const head = (content: Buffer): number => content.readUInt32LE(pages(content)) * lmdbPageBytes;
  for (const at of [0, 12, 18, 20]) {
    const told = found((content) => void content.writeUInt16LE(0x101, head(content) + at), put);
    assert.match(String(told), /not the pages of a value/, `byte ${at}`);
  }
});

test('a leaf in the place of another, under its number', () => {
  const swap = (content: Buffer): void => {
    const from = leafOf(content, BIG + 500);
    content.copy(content, leafOf(content, BIG) + 8, from + 8, from + lmdbPageBytes);
  };
  assert.match(String(found(swap, put)), /keys that belong to another page/);
});

test('a removal, a walk and a count look at the pages beside', () => {
  const beside = (step: number) => (content: Buffer) => {
    const branch = wayTo(content, keyOf(BIG))[1]!;
    const leaf = leafOf(content, BIG) / lmdbPageBytes;
    for (let at = 0; ; at++) {
      if (content.readUInt32LE(nodeOf(content, branch, at)) !== leaf) continue;
      const page = content.readUInt32LE(nodeOf(content, branch, at + step)) * lmdbPageBytes;
      content.writeUInt16LE(9000, page + 20);
      return;
    }
  };
  const walk =
    (isBack: boolean): Work =>
    (environment) => {
      let left = 30;
      const key = keyOf(BIG);
      environment.table('t').scan(isBack ? undefined : key, isBack ? key : undefined, () => left-- > 0, isBack);
    };
  const count: Work = (environment) => void environment.table('t').count(keyOf(BIG), keyOf(BIG + 30));
  for (const step of [-1, 1]) {
    assert.equal(found(beside(step), put), null, 'a put does not care');
    assert.match(String(found(beside(step), remove)), /impossible bounds/);
  }
  assert.match(String(found(beside(1), walk(false))), /impossible bounds/);
  assert.match(String(found(beside(-1), walk(true))), /impossible bounds/);
  assert.match(String(found(beside(1), count)), /impossible bounds/);
  const countOne: Work = (environment) => void environment.table('t').count(keyOf(BIG), keyOf(BIG + 1));
  assert.match(String(found(beside(1), countOne)), /impossible bounds/, 'the first key behind the range may be there');
  assert.equal(found(beside(-1), count), null);
});

test('the metas, the table of tables and the lists of free pages are looked at before the file is opened', () => {
  const newest = metaOf(sound);
  const freeRoot = (content: Buffer): number => content.readUInt32LE(metaOf(content) + 88) * lmdbPageBytes;
  /** Where the first list is, which has pages of its own when it is long. */
  const listOf = (content: Buffer): number => {
    const node = nodeOf(content, freeRoot(content), 0);
    return content.readUInt16LE(node + 4) === 1 ? content.readUInt32LE(node + 16) * lmdbPageBytes + 24 : node + 16;
  };
  const nothing: Work = () => assert.fail('it was opened');
  const cases: readonly [string, (content: Buffer) => void, RegExp][] = [
    [
      'a transaction of the other page',
      (content) => content.writeUInt8(content[newest + 152]! ^ 1, newest + 152),
      /that cannot be/,
    ],
    ['transactions far apart', (content) => content.writeUInt32LE(2, newest + 156), /transactions \d+ and \d+/],
    ['a longer map', (content) => content.writeUInt32LE(0xffff, newest + 44), /that cannot be/],
    ['flags', (content) => content.writeUInt16LE(4, newest + 100), /that cannot be/],
    ['the table of tables', (content) => content.fill(0, mainRoot(content), mainRoot(content) + 24), /table of tables/],
    [
      'a record that is none',
      (content) => content.writeUInt16LE(0, nodeOf(content, mainRoot(content), 0) + 4),
      /of another kind/,
    ],
    [
      'the list of free pages',
      (content) => content.fill(0, freeRoot(content), freeRoot(content) + 24),
      /of free pages/,
    ],
    [
      'a page that is free twice',
      (content) => {
        const list = listOf(content);
        content.writeBigUInt64LE(content.readBigUInt64LE(list + 8), list + 16);
      },
      /a list of free pages that cannot be/,
    ],
    [
      'a free page beyond',
      (content) => {
        content.writeBigUInt64LE(1n << 40n, listOf(content) + 8);
      },
      /a list of free pages that cannot be/,
    ],
    [
      'more free pages than there is room for',
      (content) => {
        content.writeBigUInt64LE(1n << 20n, listOf(content));
      },
      /a list of free pages that cannot be/,
    ],
  ];
  for (const [name, damage, message] of cases) assert.match(String(found(damage, nothing)), message, name);
});

test('damaged and sound files at random', () => {
  const script = fileURLToPath(new URL('./lmdb-guard.fuzz.ts', import.meta.url));
  const seed = Number(process.env['KEELSON_SEED'] ?? Date.now() % 1_000_000);
  const options = { encoding: 'utf8', timeout: 60_000 } as const;
  const run = spawnSync(process.execPath, [script, '--seconds', '4', '--seed', String(seed)], options);
  const told = `from seed ${seed} on: ${run.signal} ${run.status}\n${run.stdout.slice(-500)}\n${run.stderr.slice(-2000)}`;
  assert.deepEqual([run.signal, run.status], [null, 0], told);
  const [, seen, runs] = /damage was seen in (\d+) of (\d+) runs/.exec(run.stdout)!;
  assert.ok(Number(runs) > 5 && Number(seen) > 0, told);
});
