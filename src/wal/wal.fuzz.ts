// Fuzz of the WAL's reader: a small written log is harmed in a random way (bits, ranges, truncation, swapped and repeated
// parts, and checksums repaired so that the decoder behind them is reached), then opened and dumped. Whatever the bytes, the
// outcome is a log without gaps or a FatalError; never another exception, a hang or an entry out of nowhere.
//
//   node src/wal/wal.fuzz.ts --seconds 60 [--seed 1]       prints the seed of the run that failed

import { assert } from '../base/assert.ts';
import { FatalError } from '../base/fatal.ts';
import { type Random, SeededRandom } from '../io/random.ts';
import { SimDisk } from '../testing/sim-disk.ts';
import { appendDurably, reopen, walEntries, walOptions } from '../testing/wal-fixture.ts';
import { dumpWal } from './dump.ts';
import { decodeSegmentHeader, recordHeaderBytes, sealRecord, segmentHeaderBytes, segmentSeed } from './format.ts';
import { openWal } from './wal.ts';

type Files = Map<string, Buffer>;

function randomLog(random: Random): Files {
  const disk = new SimDisk(random);
  const { wal } = openWal(
    walOptions(disk, { random, segmentBytes: 1024 + random.below(3000), segmentsMax: 1 + random.below(4) }),
  );
  let next = 1;
  const records = random.below(40);
  for (let i = 0; i < records; i++) {
    const count = 1 + random.below(5);
    if (next > 5 && random.below(10) === 0) next -= random.below(Math.min(3, next - 1 - wal.hardState.commit) + 1);
    appendDurably(wal, walEntries(next, count, 1 + i, random.below(80)), random.below(4) === 0 ? next : 0);
    next += count;
    if (random.below(4) === 0) wal.release(random.below(next));
  }
  wal.close();
  return new Map(disk.readdir('/wal').map((name) => [`/wal/${name}`, disk.content(`/wal/${name}`)]));
}

/** Replaces a record's payload by changed bytes under good checksums. */
function forge(content: Buffer, random: Random): void {
  const header = decodeSegmentHeader(content);
  if (typeof header === 'string' || content.length < 700) return;
  const length = random.below(Math.min(120, content.length - segmentHeaderBytes - recordHeaderBytes - 8));
  const record = Buffer.alloc(recordHeaderBytes + length + 8);
  content.copy(record, recordHeaderBytes, segmentHeaderBytes + recordHeaderBytes);
  for (let i = random.below(6); i >= 0 && length > 0; i--) {
    record[recordHeaderBytes + random.below(length)] = random.below(3) === 0 ? random.below(256) : random.below(4);
  }
  const seed = segmentSeed(content);
  const place = { seed, previousCrc: seed, sequence: header.sequence, number: 0, position: segmentHeaderBytes };
  sealRecord(record, recordHeaderBytes + length, place, random.below(4) === 0);
  record.copy(content, segmentHeaderBytes);
}

function harm(files: Files, random: Random): void {
  const paths = [...files.keys()];
  const path = paths[random.below(paths.length)]!;
  const content = files.get(path)!;
  const at = content.length === 0 ? 0 : random.below(content.length);
  const length = 1 + random.below(Math.min(600, content.length - at) || 1);
  const kind = random.below(8);
  if (content.length < segmentHeaderBytes) return;
  if (kind === 0) content[at]! ^= 1 << random.below(8);
  else if (kind === 1) random.fill(content.subarray(at, at + length));
  else if (kind === 2) content.fill(0, at, at + length);
  else if (kind === 3) files.set(path, content.subarray(0, at));
  else if (kind === 4) content.copy(content, at, random.below(content.length));
  else if (kind === 5) forge(content, random);
  else if (kind === 6) files.delete(path);
  else files.set(path, Buffer.from(files.get(paths[random.below(paths.length)]!)!));
}

/** One run; returns whether the log was opened. */
function run(seed: number): boolean {
  const random = new SeededRandom(seed);
  const files = randomLog(random);
  for (let i = random.below(4); i >= 0 && files.size > 0; i--) harm(files, random);
  const disk = new SimDisk(random);
  disk.mkdir('/wal');
  for (const [path, content] of files) disk.place(path, content);
  try {
    for (const line of dumpWal(disk, '/wal')) JSON.parse(line);
  } catch (error) {
    if (!(error instanceof FatalError)) throw error;
  }
  const startIndex = random.below(3) === 0 ? random.below(60) : null;
  try {
    const replay = reopen(disk, { startIndex });
    for (const [i, entry] of replay.entries.entries()) assert(entry.index === replay.start.index + 1 + i, 'no gaps');
    // What was accepted once, repaired, is accepted again and is the same.
    const again = reopen(disk, { startIndex });
    assert(again.cut === null && again.last.index === replay.last.index, 'a repaired log stays as it is');
    return true;
  } catch (error) {
    if (error instanceof FatalError) return false;
    throw error;
  }
}

/** Runs for `milliseconds` with the seeds from `seed` on. */
export function fuzzWal(milliseconds: number, seed: number): { runs: number; opened: number; refused: number } {
  const end = performance.now() + milliseconds;
  const result = { runs: 0, opened: 0, refused: 0 };
  for (let next = seed; performance.now() < end; next++) {
    try {
      if (run(next)) result.opened++;
      else result.refused++;
      result.runs++;
    } catch (error) {
      throw new Error(`WAL fuzz failed: replay it with --seed ${next}`, { cause: error });
    }
  }
  return result;
}

function argument(name: string, fallback: number): number {
  const at = process.argv.indexOf(name);
  return at < 0 ? fallback : Number(process.argv[at + 1]);
}

if (import.meta.main) console.log(fuzzWal(argument('--seconds', 10) * 1000, argument('--seed', 1)));
