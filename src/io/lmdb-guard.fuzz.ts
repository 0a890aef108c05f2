// Fuzz of the checks before LMDB's own code gets a page. A run takes a sound file, damages some of it (bytes anywhere, heads, nodes,
// whole pages that are zeroed, swapped or renumbered, the metas, the lists of free pages), opens it, and reads and writes it at
// random, in transactions and outside: each must do its work or end in the FatalError of a damaged database. A page that reaches
// LMDB unseen ends the process with a signal, sooner or later: so the test runs this file as a process of its own.
//
//   node src/io/lmdb-guard.fuzz.ts --seconds 60 [--seed 1]      prints the seed of the run before it begins, if KEELSON_FUZZ_LOUD

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { lmdbPageBytes } from '../storage-limits.ts';
import { fuzzMain } from '../testing/fuzz-loop.ts';
import { LmdbEnvironment } from './lmdb.ts';
import type { LmdbTable } from './lmdb-table.ts';
import { type Random, SeededRandom } from './random.ts';

const folder = mkdtempSync(join(tmpdir(), 'keelson-guard-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const TABLES = ['rows', 'names', 'small'] as const;

function keyOf(random: Random, name: string): Buffer {
  if (name !== 'rows')
    return Buffer.from(
      `/registry/pods/${random.below(name === 'small' ? 20 : 2000)}`.padEnd(15 + random.below(3) * 90, 'x'),
    );
  const key = Buffer.alloc(17);
  key.writeUInt32BE(random.below(3000), 4);
  key[8] = 0x5f;
  return key;
}

const randomValue = (random: Random): Buffer =>
  Buffer.alloc(random.below(40) === 0 ? 5_000 + random.below(30_000) : random.below(400), random.below(256));

/** Changes a table in the transaction that runs. */
function change(table: LmdbTable, random: Random, name: string): void {
  const key = keyOf(random, name);
  const end = keyOf(random, name);
  let left = random.below(100);
  const visit = (): boolean => left-- > 0;
  switch (random.below(10)) {
    case 0:
      table.scan(random.below(3) === 0 ? undefined : key, random.below(2) === 0 ? undefined : end, visit);
      return;
    case 1:
      table.scan(random.below(2) === 0 ? undefined : key, random.below(3) === 0 ? undefined : end, visit, true);
      return;
    case 2:
      table.count(key, end);
      return;
    case 3:
      table.get(key);
      return;
    case 4:
    case 5:
    case 6:
      table.remove(key);
      return;
    default:
      table.put(key, randomValue(random));
  }
}

function read(table: LmdbTable, random: Random, name: string): void {
  const key = keyOf(random, name);
  table.get(key);
  table.count(key, undefined);
  let left = random.below(500);
  table.scan(random.below(2) === 0 ? undefined : key, undefined, () => left-- > 0, random.below(2) === 0);
}

/** Removes a stretch of keys: pages join, and go. */
function removeRange(table: LmdbTable, random: Random, name: string): void {
  const keys: Buffer[] = [];
  table.scan(keyOf(random, name), undefined, (key) => keys.push(Buffer.from(key)) < 300);
  for (const key of keys) assert.ok(table.remove(key), 'a key that was shown is not there');
}

function transact(environment: LmdbEnvironment, random: Random): void {
  environment.transaction(() => {
    for (let i = random.below(300); i > 0; i--) {
      const name = TABLES[random.below(3)]!;
      if (random.below(100) === 0) removeRange(environment.table(name), random, name);
      else change(environment.table(name), random, name);
    }
  });
}

let files = 0;
const newPath = (): string => join(folder, `${++files}.mdb`);
const removeFile = (path: string): void => {
  rmSync(path, { force: true });
  rmSync(`${path}-lock`, { force: true });
};

/** With trees of three levels, values with pages of their own, and free pages. */
function makeSound(): Buffer {
  const path = newPath();
  const random = new SeededRandom(1);
  const environment = new LmdbEnvironment({ path, noSync: true });
  for (const name of TABLES) environment.table(name);
  for (let round = 0; round < 12; round++) {
    environment.transaction(() => {
      for (const name of TABLES) {
        for (let i = 0; i < 700; i++) environment.table(name).put(keyOf(random, name), randomValue(random));
      }
      for (let i = 0; i < 400; i++) environment.table('rows').remove(keyOf(random, 'rows'));
    });
  }
  environment.close();
  const content = readFileSync(path);
  removeFile(path);
  return content;
}

function damage(content: Buffer, random: Random): void {
  const pageCount = content.length / lmdbPageBytes;
  const page = (random.below(20) === 0 ? random.below(2) : random.below(pageCount)) * lmdbPageBytes;
  const from = random.below(pageCount) * lmdbPageBytes;
  // The head, the nodes' offsets, anywhere.
  const at = page + random.below([24, 64, lmdbPageBytes - 8][random.below(3)]!);
  switch (random.below(8)) {
    case 0:
      content[at] = random.below(256);
      return;
    case 1:
      content.writeUInt16LE(random.below(65_536), at);
      return;
    case 2:
      content.writeUInt32LE(random.below(2 * pageCount), at);
      return;
    case 3:
      content[at] = content[at]! ^ (1 << random.below(8));
      return;
    case 4:
      if (page > lmdbPageBytes) content.fill(0, page, page + lmdbPageBytes);
      return;
    case 5:
      // Another page, with this one's number, or all of it.
      if (page > lmdbPageBytes) content.copy(content, page + 8 * random.below(2), from, from + lmdbPageBytes - 8);
      return;
    case 6:
      random.fill(content.subarray(at, at + Math.min(64, page + lmdbPageBytes - at)));
      return;
    default: {
      const offset = content.readUInt16LE(page + 24 + 2 * random.below(20));
      if (offset + 32 > lmdbPageBytes) return;
      // A node's head: the first word is a child's page, or a value's length; then flags, and bytes of the key.
      const word = 4 * random.below(2);
      content.writeUInt32LE(
        random.below(3) === 0 ? random.uint32() : random.below(pageCount),
        page + 24 + offset + word,
      );
    }
  }
}

/** False when the file was found to be damaged. */
function attempt(work: () => void): boolean {
  try {
    work();
    return true;
  } catch (error) {
    if (error instanceof FatalError && error.exitCode === ExitCode.backendCorrupt) {
      assert.match(error.message, /the database .*\.mdb is damaged: .*; restore it from a snapshot$/);
      assert.doesNotMatch(error.message, /MDB_/, 'LMDB has met it');
      return false;
    }
    throw error;
  }
}

let sound: Buffer | null = null;

/** Returns whether the damage was seen. */
export function fuzzGuard(seed: number): boolean {
  if (process.env['KEELSON_FUZZ_LOUD'] !== undefined) console.log(`seed ${seed}`);
  sound ??= makeSound();
  const random = new SeededRandom(seed);
  const content = Buffer.from(sound);
  const isSound = random.below(10) === 0;
  if (!isSound) for (let i = 1 + random.below(6); i > 0; i--) damage(content, random);
  const path = newPath();
  writeFileSync(path, content);
  let environment: LmdbEnvironment | null = null;
  const isWell = attempt(() => {
    const opened = new LmdbEnvironment({ path, noSync: true, mapped: true });
    environment = opened;
    for (const name of TABLES) opened.table(name);
    for (let i = 1 + random.below(5); i > 0; i--) {
      opened.refresh();
      for (const name of TABLES) read(opened.table(name), random, name);
      transact(opened, random);
    }
  });
  (environment as LmdbEnvironment | null)?.close();
  removeFile(path);
  assert.ok(isWell || !isSound, 'a sound file was refused');
  return !isWell;
}

if (import.meta.main) {
  let runs = 0;
  let seen = 0;
  fuzzMain((seed) => {
    runs++;
    if (fuzzGuard(seed)) seen++;
  });
  console.log(`damage was seen in ${seen} of ${runs} runs`);
}
