// Fuzz of the reader of LMDB's pages with damaged files. A run takes the content of a sound file, damages some of it (bytes, page
// numbers, whole pages that are zeroed or swapped, the table's record), and looks keys up and walks: each must end in an answer
// that lies inside of the file, or in the FatalError of a damaged database; never in another error, nor after more entries than the
// table has. The pages are in memory, so that a read outside of them is an error and not the end of the process.
//
//   node src/io/lmdb-tree.fuzz.ts --seconds 60 [--seed 1]      prints the seed of the run that failed

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { lmdbPageBytes } from '../storage-limits.ts';
import { fuzzMain } from '../testing/fuzz-loop.ts';
import { LmdbEnvironment } from './lmdb.ts';
import type { PageMap, PageWindow } from './lmdb-map.ts';
import { LmdbTree, TABLE_RECORD_BYTES } from './lmdb-tree.ts';
import { type Random, SeededRandom } from './random.ts';
import { type EntryVisitor, type ValueRef, ValueRefs } from './table.ts';

export interface Sound {
  readonly content: Buffer;
  readonly record: Buffer;
  readonly newest: number;
  readonly keys: readonly Buffer[];
}

/** The pages of a file's content, eight in a window and two of the next, or each alone: then nothing beside it can be read. */
export class MemoryPages implements PageMap {
  readonly path = 'memory';
  readonly windowShift: number;
  private readonly windows: PageWindow[] = [];
  private readonly pageCount: number;

  constructor(content: Buffer, isAlone: boolean) {
    this.pageCount = content.length / lmdbPageBytes;
    this.windowShift = isAlone ? 0 : 3;
    const pages = isAlone ? 1 : 10;
    for (let at = 0; at < content.length; at += lmdbPageBytes << this.windowShift) {
      const buffer = content.subarray(at, at + pages * lmdbPageBytes);
      this.windows.push({ buffer, view: new DataView(buffer.buffer, buffer.byteOffset, buffer.length) });
    }
  }

  has(page: number): boolean {
    return page < this.pageCount;
  }

  window(page: number): PageWindow {
    assert.ok(this.has(page), 'a page outside of the file was asked for');
    return this.windows[page >>> this.windowShift]!;
  }
}

/** With a table of two or three levels, of revisions and names, and with values that have pages of their own. */
function makeSound(): Sound {
  const keys: Buffer[] = [];
  for (let i = 0; i < 3000; i++) {
    const revision = Buffer.alloc(17);
    revision.writeUInt32BE(i, 4);
    revision[8] = 0x5f;
    keys.push(i % 3 === 0 ? Buffer.from(`/registry/pods/${i}`.padEnd(15 + (i % 300), 'x')) : revision);
  }
  return soundFile(keys, (i) => (i % 100 === 0 ? 30_000 : i % 200));
}

/** A file with one table; each value is filled with the low byte of its key's number. */
export function soundFile(keys: readonly Buffer[], valueBytes: (i: number) => number): Sound {
  const folder = mkdtempSync(join(tmpdir(), 'keelson-fuzz-'));
  try {
    const path = join(folder, 'db');
    const environment = new LmdbEnvironment({ path, noSync: true });
    const table = environment.table('t');
    environment.transaction(() => {
      for (const [i, key] of keys.entries()) table.put(key, Buffer.alloc(valueBytes(i), i));
    });
    environment.close();
    const content = readFileSync(path);
    // The newer meta, its table of tables of one page, the record of `t` in it.
    const meta = content.readUInt32LE(152) > content.readUInt32LE(lmdbPageBytes + 152) ? 0 : lmdbPageBytes;
    const root = content.readUInt32LE(meta + 136) * lmdbPageBytes;
    const record = content.indexOf('t\0', root + lmdbPageBytes / 2, 'latin1') + 2;
    assert.ok(record > root && record + TABLE_RECORD_BYTES <= root + lmdbPageBytes, 'no record of the table');
    const newest = content.readUInt32LE(root + 8);
    return { content, record: content.subarray(record, record + TABLE_RECORD_BYTES), newest, keys };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

let sound: Sound | null = null;

function damage(content: Buffer, random: Random): void {
  const pageCount = content.length / lmdbPageBytes;
  const page = random.below(pageCount) * lmdbPageBytes;
  const from = random.below(pageCount) * lmdbPageBytes;
  // The head, the nodes' offsets, anywhere.
  const at = page + random.below([24, 64, lmdbPageBytes - 4][random.below(3)]!);
  switch (random.below(7)) {
    case 0:
      content[at] = random.below(256);
      break;
    case 1:
      content.writeUInt16LE(random.below(65_536), at);
      break;
    case 2:
      content.writeUInt32LE(random.below(2 * pageCount), at);
      break;
    case 3:
      content[at] = content[at]! ^ (1 << random.below(8));
      break;
    case 4:
      content.fill(0, page, page + lmdbPageBytes);
      break;
    case 5:
      // Another page, with this one's number: within all bounds.
      content.copy(content, page + 8, from + 8, from + lmdbPageBytes);
      break;
    default: {
      // A node's head: the first word is a child's page, or a value's length.
      const offset = content.readUInt16LE(page + 24 + 2 * random.below(20));
      if (offset + 32 > lmdbPageBytes) return;
      content.writeUInt32LE(random.below(3) === 0 ? random.uint32() : random.below(pageCount), page + 24 + offset);
    }
  }
}

/** False when the file was found to be damaged. */
function attempt(read: () => void): boolean {
  try {
    read();
    return true;
  } catch (error) {
    if (error instanceof FatalError && error.exitCode === ExitCode.backendCorrupt) return false;
    throw error;
  }
}

function isInside(ref: ValueRef): void {
  assert.ok(ref.start >= 0 && ref.start <= ref.end && ref.end <= ref.buffer.length, 'an answer outside of the file');
}

/** Returns how often the damage was seen. */
export function fuzzTree(seed: number): number {
  sound ??= makeSound();
  const random = new SeededRandom(seed);
  const content = Buffer.from(sound.content);
  const record = Buffer.from(sound.record);
  for (let i = random.below(20); i > 0; i--) damage(content, random);
  if (random.below(10) === 0) record[random.below(record.length)] = random.below(256);
  const tree = new LmdbTree(new MemoryPages(content, random.below(2) === 0), 't');
  if (!attempt(() => tree.begin(record, sound!.newest))) return 1;
  const { keys } = sound;
  const entryCount = record.readUInt32LE(32);
  const ref: ValueRef = { buffer: content, start: 0, end: 0 };
  const pick = (): Buffer => keys[random.below(keys.length)]!;
  let seen = 0;
  for (let i = 0; i < 50; i++) {
    if (!attempt(() => tree.find(pick(), ref) && isInside(ref))) seen++;
  }
  const refs = new ValueRefs();
  const views = Array.from({ length: 16 }, pick).map((key) => new DataView(key.buffer, key.byteOffset, key.length));
  if (!attempt(() => tree.findAll(views, views.length, refs))) seen++;
  for (const [start, end] of [
    [undefined, undefined] as const,
    [pick(), undefined] as const,
    [pick(), pick()] as const,
  ]) {
    let visited = 0;
    const lots = { lot: (): number => random.below(20), show: (): void => {} };
    const isSound = attempt(() =>
      tree.walk(
        start,
        end,
        (key, keyStart, keyEnd, buffer, valueStart, valueEnd) => {
          isInside({ buffer: key, start: keyStart, end: keyEnd });
          isInside({ buffer, start: valueStart, end: valueEnd });
          return ++visited <= entryCount;
        },
        lots,
      ),
    );
    assert.ok(visited <= entryCount, 'a walk visits more than the table has');
    if (!isSound) seen++;
    let back = 0;
    const visitBack: EntryVisitor = (key, keyStart, keyEnd, buffer, valueStart, valueEnd) => {
      isInside({ buffer: key, start: keyStart, end: keyEnd });
      isInside({ buffer, start: valueStart, end: valueEnd });
      return ++back <= entryCount;
    };
    if (!attempt(() => tree.walkBack(start, end, visitBack))) seen++;
    assert.ok(back <= entryCount, 'a walk back visits more than the table has');
    if (!attempt(() => assert.ok(tree.count(start, end) <= entryCount, 'more are counted than there are'))) seen++;
  }
  return seen;
}

if (import.meta.main) fuzzMain(fuzzTree);
