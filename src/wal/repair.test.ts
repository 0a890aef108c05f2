// Goal: the repair rule. A torn tail is cut wherever it is torn and nothing before it is lost; damage anywhere else is refused
// with the file, the offset and what to do. Method: a written log is copied to a fresh simulated disk, harmed, opened.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FatalError } from '../base/fatal.ts';
import { SeededRandom } from '../io/random.ts';
import { walFlippedBitBytesMax } from '../storage-limits.ts';
import { SimDisk } from '../testing/sim-disk.ts';
import { appendDurably, reopen, walEntries, walEntry, walEvents, walOptions } from '../testing/wal-fixture.ts';
import { encodeHardState, hardStateBytes, recordHeaderBytes, sealRecord, segmentHeaderBytes } from './format.ts';
import { walHoldsRecords } from './replay.ts';
import { SegmentReader } from './segment-reader.ts';
import { fuzzWal } from './wal.fuzz.ts';
import { openWal } from './wal.ts';

type Files = Map<string, Buffer>;

/** A log of `count` records of three entries each; `recycled`: its last segment holds stale bytes of an older one. */
function writtenLog(count: number, recycled = false): Files {
  const disk = new SimDisk(new SeededRandom(1));
  const { wal } = openWal(walOptions(disk, { segmentsMax: recycled ? 2 : 100 }));
  for (let i = 0; i < count; i++) {
    appendDurably(wal, walEntries(1 + i * 3, 3, 1 + (i >> 3), 5 + (i % 9)), 1 + i * 3);
    if (recycled) wal.release(1 + i * 3);
  }
  wal.close();
  const files: Files = new Map();
  for (const name of disk.readdir('/wal')) files.set(`/wal/${name}`, disk.content(`/wal/${name}`));
  return files;
}

function segmentsOf(files: Files): string[] {
  return [...files.keys()].filter((path) => /\/0[0-9a-f]+-/.test(path)).sort();
}

function diskOf(files: Files): SimDisk {
  const disk = new SimDisk(new SeededRandom(2));
  for (const [path, content] of files) disk.place(path, content);
  return disk;
}

/** Positions of the records of a segment, and where the last ends. */
function recordPositions(files: Files, path: string): number[] {
  const reader = SegmentReader.open(diskOf(files), path);
  assert.ok(typeof reader !== 'string');
  const positions = [reader.position];
  while (reader.next()) positions.push(reader.position);
  return positions;
}

function assertRefused(files: Files, pattern: RegExp, exitCode = 10): void {
  const disk = diskOf(files);
  assert.throws(
    () => reopen(disk),
    (error) => {
      assert.ok(error instanceof FatalError, String(error));
      assert.match(error.message, pattern);
      assert.equal(error.exitCode, exitCode);
      if (exitCode === 10)
        assert.match(error.message, /Restore the file from a copy.*remove this member.*snapshot restore/);
      return true;
    },
  );
  // Refused means untouched.
  for (const [path, content] of files) assert.ok(disk.content(path).equals(content), `${path} is unchanged`);
}

/** More than a bit each. */
const flips: readonly number[] = Array.from({ length: 256 }, (_, mask) => mask).filter(
  (mask) => (mask & (mask - 1)) !== 0,
);

for (const recycled of [false, true]) {
  test(`a tail torn at each byte of the last record is cut (${recycled ? 'recycled' : 'zeroed'} segment)`, () => {
    const files = writtenLog(recycled ? 90 : 20, recycled);
    const path = segmentsOf(files).at(-1)!;
    const whole = files.get(path)!;
    const positions = recordPositions(files, path);
    const [begin, end] = positions.slice(-2) as [number, number];
    assert.ok(positions.length > 3 && end < whole.length);
    const count = reopen(diskOf(files)).last.index;
    const random = new SeededRandom(3);
    assert.equal(whole.subarray(end).equals(Buffer.alloc(whole.length - end)), !recycled);
    for (let at = begin; at < end; at++) {
      const truncated = whole.subarray(0, at);
      const zeroed = Buffer.from(whole).fill(0, at);
      const garbage = Buffer.from(whole);
      random.fill(garbage.subarray(at, end));
      const oneByte = Buffer.from(whole);
      oneByte[at]! ^= flips[random.below(flips.length)]!;
      const missingSector = Buffer.from(whole).fill(0, begin, at);
      for (const [kind, content] of Object.entries({ truncated, zeroed, garbage, oneByte, missingSector })) {
        const disk = diskOf(new Map(files).set(path, content));
        const events = walEvents();
        const { wal, replay } = openWal(walOptions(disk, {}, events));
        const intact = content.length >= end && content.subarray(begin, end).equals(whole.subarray(begin, end));
        const expected = intact ? count : count - 3;
        assert.equal(replay.last.index, expected, `${kind} at ${at}`);
        // The log goes on from there, and what it then says is whole again.
        appendDurably(wal, [walEntry(expected + 1, 99)]);
        wal.close();
        const again = reopen(disk, {}, events);
        assert.deepEqual(again.last, { index: expected + 1, term: 99 });
        assert.equal(again.cut, null);
      }
    }
  });
}

for (const recycled of [false, true]) {
  test(`a flipped bit of the last record is refused, whichever it is (${recycled ? 'recycled' : 'zeroed'} segment)`, () => {
    const files = writtenLog(recycled ? 90 : 20, recycled);
    const path = segmentsOf(files).at(-1)!;
    const whole = files.get(path)!;
    const [begin, end] = recordPositions(files, path).slice(-2) as [number, number];
    for (let bit = 8 * begin; bit < 8 * end; bit++) {
      const content = Buffer.from(whole);
      content[bit >>> 3]! ^= 1 << (bit & 7);
      if (content.subarray(bit >>> 3, end).every((byte) => byte === 0)) {
        // The last bit that was set: the write may have ended before it.
        assert.equal(reopen(diskOf(new Map(files).set(path, content))).cut?.position, begin);
        continue;
      }
      const message = new RegExp(`${path} is damaged at offset ${begin}: .*, for a single bit that has flipped`);
      assertRefused(new Map(files).set(path, content), message);
    }
  });
}

test('in a record beyond the bound a flipped bit is not looked for', () => {
  for (const [bytes, isFound] of [
    [walFlippedBitBytesMax - 200, true],
    [walFlippedBitBytesMax, false],
  ] as const) {
    const disk = new SimDisk(new SeededRandom(1));
    const { wal } = openWal(walOptions(disk, { segmentBytes: 4 * walFlippedBitBytesMax }));
    appendDurably(wal, walEntries(1, 3), 0);
    appendDurably(wal, [walEntry(4, 1, bytes)]);
    wal.close();
    const path = `/wal/${disk.readdir('/wal').find((name) => name.endsWith('1.wal'))!}`;
    disk.rot(path, recordPositions(new Map([[path, disk.content(path)]]), path).at(-2)! + 1000, 8);
    if (isFound) assert.throws(() => reopen(disk), /a single bit that has flipped/);
    else assert.equal(reopen(disk).last.index, 3);
  }
});

test('a write that lacks nothing but its last bit is cut', () => {
  const disk = new SimDisk(new SeededRandom(1));
  const { wal } = openWal(walOptions(disk));
  appendDurably(wal, walEntries(1, 3), 0);
  wal.append(null, [{ index: 4, term: 1, type: 0, data: Buffer.from([0xff, 0x10]) }]);
  wal.close();
  const path = `/wal/${disk.readdir('/wal').find((name) => name.endsWith('1.wal'))!}`;
  const files: Files = new Map([[path, disk.content(path)]]);
  const content = files.get(path)!;
  const last = content.lastIndexOf(0x10);
  assert.ok(content.subarray(last + 1).every((byte) => byte === 0));
  content[last] = 0;
  assert.equal(reopen(diskOf(files)).last.index, 3);
});

test('a cut is logged with file, offset and reason', () => {
  const files = writtenLog(5);
  const path = segmentsOf(files)[0]!;
  const positions = recordPositions(files, path);
  const begin = positions.at(-2)!;
  files.get(path)![begin + recordHeaderBytes + 3]! ^= 3;
  const events = walEvents();
  reopen(diskOf(files), {}, events);
  assert.equal(events.logs.length, 1);
  assert.match(events.logs[0]!, /cut a torn tail of the WAL/);
  assert.ok(
    events.logs[0]!.includes(`"offset":${begin}`) && /checksum of the record's \d+ bytes differs/.test(events.logs[0]!),
  );
});

test('damage before the last record is refused at each byte, with file and offset', () => {
  const files = writtenLog(12);
  const path = segmentsOf(files)[0]!;
  const positions = recordPositions(files, path);
  const random = new SeededRandom(4);
  for (let record = 0; record < positions.length - 2; record++) {
    const [begin, end] = [positions[record]!, positions[record + 1]!];
    for (let at = begin; at < end; at += 1 + random.below(5)) {
      const content = Buffer.from(files.get(path)!);
      content[at]! ^= 1 << random.below(8);
      const message = new RegExp(
        `${path} is damaged at offset ${begin}: .*later record at offset ${positions[record + 1]}`,
      );
      assertRefused(new Map(files).set(path, content), message);
    }
    const zeroed = Buffer.from(files.get(path)!).fill(0, begin, end);
    assertRefused(new Map(files).set(path, zeroed), new RegExp(`damaged at offset ${begin}`));
  }
});

test('damage in any segment but the last is refused', () => {
  const files = writtenLog(80);
  const segments = segmentsOf(files);
  assert.ok(segments.length >= 3);
  const random = new SeededRandom(5);
  for (const path of segments.slice(0, -1)) {
    const positions = recordPositions(files, path);
    for (let i = 0; i < 200; i++) {
      const content = Buffer.from(files.get(path)!);
      const at = random.below(positions.at(-1)!);
      if (at >= 8 && at < 12) continue; // the version, refused with its own message below
      content[at]! ^= 1 << random.below(8);
      assertRefused(new Map(files).set(path, content), new RegExp(`${path} is damaged at offset \\d+: `));
    }
    for (const cut of [positions.at(-2)!, positions.at(-2)! + 50, positions[3]!, 100]) {
      const content = files.get(path)!.subarray(0, cut);
      assertRefused(new Map(files).set(path, content), new RegExp(`${path} is damaged at offset \\d+: `));
    }
  }
});

test('damage in the header of the last segment is refused, another version by name', () => {
  const files = writtenLog(80);
  const path = segmentsOf(files).at(-1)!;
  for (let at = 0; at < segmentHeaderBytes; at++) {
    const content = Buffer.from(files.get(path)!);
    content[at]! ^= 0x10;
    const message = at >= 8 && at < 12 ? /format version is \d+, this program knows 1/ : /damaged at offset 0: /;
    assertRefused(new Map(files).set(path, content), message);
  }
});

test('missing, swapped, renamed and foreign segments are refused', () => {
  const files = writtenLog(160);
  const segments = segmentsOf(files);
  assert.ok(segments.length >= 4);
  const without = new Map(files);
  without.delete(segments[2]!);
  assertRefused(without, new RegExp(`segment 3 is missing in /wal, before ${segments[3]}`));
  const withoutLast = new Map(files);
  withoutLast.delete(segments.at(-1)!);
  assertRefused(
    withoutLast,
    new RegExp(`segment ${segments.length} is missing in /wal: .* ends with the note that it exists`),
  );
  const swapped = new Map(files)
    .set(segments[1]!, files.get(segments[2]!)!)
    .set(segments[2]!, files.get(segments[1]!)!);
  assertRefused(swapped, /damaged or renamed: its header \(offset 16\) says segment 3 .*, its name 2/);
  const foreign = new Map([['/wal/0000000000000000-0000000000000000.wal', Buffer.alloc(4096, 3)]]);
  assertRefused(foreign, /are not keelson's \(etcd's\?\): choose another --data-dir/, 14);
  // Another log's segment of the same number: the ids are equal, the chain is not.
  const other = writtenLog(163);
  const others = segmentsOf(other);
  const strange = Buffer.from(other.get(others.at(-1)!)!);
  assertRefused(new Map(files).set(segments.at(-1)!, strange.subarray(0, 400)), /damaged at offset 0/);
});

test('a segment of a log with another history does not fit in', () => {
  const make = (bytes: number): Files => {
    const disk = new SimDisk(new SeededRandom(1));
    const { wal } = openWal(walOptions(disk, { segmentsMax: 100, random: new SeededRandom(bytes) }));
    for (let i = 1; i <= 150; i++) appendDurably(wal, [walEntry(i, 1, 20)]);
    wal.close();
    return new Map(disk.readdir('/wal').map((name) => [`/wal/${name}`, disk.content(`/wal/${name}`)]));
  };
  const [one, two] = [make(1), make(2)];
  const path = segmentsOf(one)[1]!;
  assert.ok(two.has(path));
  assertRefused(new Map(one).set(path, two.get(path)!), /does not continue the segment before it/);
});

test('a rotation that a crash interrupted is undone, if nothing was written after it', () => {
  const files = writtenLog(80);
  const segments = segmentsOf(files);
  const [before, last] = segments.slice(-2) as [string, string];
  const positions = recordPositions(files, before);
  const torn = Buffer.from(files.get(before)!);
  torn[positions.at(-1)! - 9]! ^= 3;
  const unused = Buffer.from(files.get(last)!).fill(0, segmentHeaderBytes);
  const disk = diskOf(new Map(files).set(before, torn).set(last, unused));
  const events = walEvents();
  const { wal, replay } = openWal(walOptions(disk, {}, events));
  assert.match(events.logs.join('\n'), /dropped a WAL segment.*\n.*cut a torn tail/);
  assert.equal(replay.segments.at(-1)!.path, before);
  appendDurably(wal, walEntries(replay.last.index + 1, 60, 99));
  wal.close();
  assert.equal(reopen(disk).last.term, 99);
  // The same with a start index that needs the last segment only.
  const again = diskOf(new Map(files).set(before, torn).set(last, unused));
  assert.equal(reopen(again, { startIndex: replay.last.index }).segments.at(-1)!.path, before);
  // With a record in the last segment it is damage.
  assertRefused(
    new Map(files).set(before, torn),
    new RegExp(`${before} is damaged .*but a later segment exists \\(${last}\\)`),
  );
});

test('a cut takes the entries of a record and their commit index together', () => {
  const disk = new SimDisk(new SeededRandom(1));
  const { wal } = openWal(walOptions(disk));
  appendDurably(wal, walEntries(1, 10), 0);
  appendDurably(wal, walEntries(11, 10), 20);
  wal.close();
  const path = disk.readdir('/wal').find((name) => name.endsWith('1.wal'))!;
  const files: Files = new Map([[`/wal/${path}`, disk.content(`/wal/${path}`)]]);
  // The torn record held both the entries and the commit index, so the cut is consistent.
  const begin = recordPositions(files, `/wal/${path}`).at(-2)!;
  files.get(`/wal/${path}`)![begin + 45]! ^= 3;
  assert.deepEqual(reopen(diskOf(files)).last, { index: 10, term: 1 });
});

test('a log that ends before its commit index is refused', () => {
  const files = writtenLog(3);
  const path = segmentsOf(files)[0]!;
  const content = files.get(path)!;
  const reader = SegmentReader.open(diskOf(files), path);
  assert.ok(typeof reader !== 'string');
  while (reader.next());
  // wal.ts asserts against writing such a record, so it is forged: its checksums and its place in the chain are right.
  const record = Buffer.alloc(recordHeaderBytes + hardStateBytes + 8);
  const used = encodeHardState(record, recordHeaderBytes, { term: 1, vote: 0n, commit: 10 });
  const { seed, lastCrc, count, position } = reader;
  sealRecord(record, used, { seed, previousCrc: lastCrc, sequence: 1, number: count, position }, false);
  record.copy(content, position);
  assertRefused(files, new RegExp(`${path} ends at offset \\d+ with entry 9, but entry 10 was committed`));
});

test('an unreadable segment is refused by name', () => {
  const disk = diskOf(writtenLog(80));
  const path = segmentsOf(writtenLog(80))[1]!;
  disk.fault = (call, file) => (call === 'read' && file === path ? { error: 'EIO' } : null);
  assert.throws(
    () => reopen(disk),
    (error) =>
      error instanceof FatalError && error.exitCode === 10 && error.message.includes(`${path} cannot be read: EIO`),
  );
});

test('whichever read of a start fails, it is refused', () => {
  const files = writtenLog(80);
  const isUnreadable = (error: unknown): boolean =>
    error instanceof FatalError && error.exitCode === 10 && error.message.includes('cannot be read: EIO');
  let reads = 0;
  for (let nth = 1; ; nth++) {
    const disk = diskOf(files);
    let left = nth;
    disk.fault = (call) => (call === 'read' && --left === 0 ? { error: 'EIO' } : null);
    const start = (): void => {
      walHoldsRecords(disk, '/wal');
      reopen(disk);
    };
    try {
      start();
    } catch (error) {
      assert.ok(isUnreadable(error), `read ${nth}: ${error}`);
      reads++;
      continue;
    }
    assert.ok(left > 0, `read ${nth} failed and nobody said so`);
    break;
  }
  assert.ok(reads > 4, `${reads} reads`);
});

test('a value that holds a copy of WAL records does not pass for one', () => {
  const files = writtenLog(20);
  const path = segmentsOf(files)[0]!;
  const disk = diskOf(files);
  const { wal, replay } = openWal(walOptions(disk));
  const copy = files.get(path)!.subarray(0, 1400);
  wal.append(null, [{ index: replay.last.index + 1, term: 9, type: 0, data: copy }]);
  wal.close();
  const content = disk.content(path);
  const begin = recordPositions(new Map([[path, content]]), path).at(-2)!;
  content[begin + recordHeaderBytes + 2]! ^= 3;
  assert.equal(reopen(diskOf(new Map(files).set(path, content))).last.index, replay.last.index);
});

test('the reader takes anything: fuzz for a second', () => {
  const result = fuzzWal(1000, 20260101);
  assert.ok(result.runs > 100, `${result.runs} runs`);
  assert.ok(result.opened > 0 && result.refused > 0, JSON.stringify(result));
});
