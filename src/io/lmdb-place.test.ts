// Goal: a page that is in another's place, under its number, is damage to every read that comes by it; no key is said not to be there.
// Method: a table of four levels, of keys that begin alike and keys that do not; one page, leaf or branch, gets the content of another
// page of its level, near or far, and then all keys are looked up, and everything is walked, back too, and counted: each has the
// sound answer, or ends in FatalError. A test of lmdb-tree.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { lmdbPageBytes } from '../storage-limits.ts';
import { MemoryPages, type Sound, soundFile } from './lmdb-tree.fuzz.ts';
import { LmdbTree } from './lmdb-tree.ts';
import { type Random, SeededRandom } from './random.ts';
import { type ValueRef, ValueRefs } from './table.ts';

const KEYS = 1200;

/** Long enough for a few nodes a page, so that there are levels; what tells them apart comes first, in the middle, or last. */
function makeKey(i: number): Buffer {
  const number = String(i * 3).padStart(6, '0');
  const key = Buffer.alloc(900, 46);
  key.write(i % 2 === 0 ? '/registry/' : number, 0);
  key.write(number, 400);
  return key;
}

const ordered: readonly Buffer[] = Array.from({ length: KEYS }, (_, i) => makeKey(i)).sort(Buffer.compare);
/** Before, between and after them. */
const absent: readonly Buffer[] = [Buffer.from([1]), Buffer.from([255])].concat(
  ordered.map((key) => Buffer.concat([key, Buffer.from([0])])),
);

/** Page numbers by level, the root first. */
function pagesOf({ content, record }: Sound): number[][] {
  const levels: number[][] = [[record.readUInt32LE(40)]];
  for (let level = 1; level < record.readUInt16LE(6); level++) {
    const below: number[] = [];
    for (const page of levels[level - 1]!) {
      const body = page * lmdbPageBytes + 24;
      const count = content.readUInt16LE(body - 4) / 2;
      for (let at = 0; at < count; at++) below.push(content.readUInt32LE(body + content.readUInt16LE(body + 2 * at)));
    }
    levels.push(below);
  }
  return levels;
}

/** What it gave, or null when it was found to be damaged. */
function attempt<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof FatalError && error.exitCode === ExitCode.backendCorrupt) return null;
    throw error;
  }
}

function walked(tree: LmdbTree, start: Buffer | undefined, end: Buffer | undefined, isBack: boolean): string[] {
  const keys: string[] = [];
  const visit = (key: Buffer, from: number, to: number): boolean => keys.push(key.toString('latin1', from, to)) > 0;
  if (isBack) tree.walkBack(start, end, visit);
  else tree.walk(start, end, visit);
  return keys;
}

/** Returns how many reads met the damage. */
function checkReads(tree: LmdbTree, random: Random): number {
  const ref: ValueRef = { buffer: Buffer.alloc(0), start: 0, end: 0 };
  const refs = new ValueRefs();
  let met = 0;
  const expect = <T>(answer: T | null, sound: T, what: string): void => {
    if (answer === null) met++;
    else assert.deepEqual(answer, sound, what);
  };
  for (const key of ordered)
    expect(
      attempt(() => tree.find(key, ref)),
      true,
      'a key that is there',
    );
  for (const key of absent)
    expect(
      attempt(() => tree.find(key, ref)),
      false,
      'a key that is not there',
    );
  for (let at = 0; at + 16 <= KEYS; at += 16) {
    const some = ordered.slice(at, at + 16).concat(absent.slice(at, at + 16));
    const views = some.map((key) => new DataView(key.buffer, key.byteOffset, key.length));
    const found = attempt(() => {
      tree.findAll(views, views.length, refs);
      return refs.found.slice(0, views.length);
    });
    expect(
      found,
      views.map((_, i) => i < 16),
      'findAll',
    );
  }
  for (let i = 0; i < 40; i++) {
    const from = random.below(KEYS);
    const to = Math.min(KEYS, from + [1, 5, 100, KEYS][random.below(4)]!);
    const start = i === 0 ? undefined : ordered[from];
    const end = to === KEYS ? undefined : ordered[to];
    const inside = ordered.slice(i === 0 ? 0 : from, to).map((key) => key.toString('latin1'));
    expect(
      attempt(() => walked(tree, start, end, false)),
      inside,
      'a walk',
    );
    expect(
      attempt(() => walked(tree, start, end, true)),
      inside.reverse(),
      'a walk back',
    );
    expect(
      attempt(() => tree.count(start, end)),
      inside.length,
      'a count',
    );
  }
  return met;
}

function open({ record, newest }: Sound, content: Buffer): LmdbTree {
  const tree = new LmdbTree(new MemoryPages(content, false), 't');
  tree.begin(record, newest);
  return tree;
}

test("a page in another's place, under its number", () => {
  const seed = Date.now() % 1_000_000;
  const random = new SeededRandom(seed);
  const sound = soundFile(ordered, () => 10);
  const levels = pagesOf(sound);
  assert.ok(levels.length >= 4, `${levels.length} levels`);
  assert.equal(checkReads(open(sound, sound.content), random), 0);
  for (let round = 0; round < 24; round++) {
    const pages = levels[1 + (round % (levels.length - 1))]!;
    const at = random.below(pages.length);
    const step = random.below(2) === 0 ? 1 : 1 + random.below(pages.length - 1);
    const [page, from] = [pages[at]!, pages[(at + step) % pages.length]!];
    const content = Buffer.from(sound.content);
    sound.content.copy(content, page * lmdbPageBytes + 8, from * lmdbPageBytes + 8, (from + 1) * lmdbPageBytes);
    const where = `seed ${seed}, round ${round}: page ${from} in the place of ${page}`;
    try {
      assert.ok(checkReads(open(sound, content), random) > 0, 'nothing met it');
    } catch (error) {
      throw new Error(where, { cause: error });
    }
  }
});
