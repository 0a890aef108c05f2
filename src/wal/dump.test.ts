// Goal: dump-log prints what the log holds as JSON lines, reads a live directory without disturbing it, says how the log ends, and
// refuses damage. Method: logs on the simulated and the real disk, lines parsed and compared.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { FatalError } from '../base/fatal.ts';
import { nodeDisk } from '../io/file.ts';
import { SeededRandom } from '../io/random.ts';
import { threadedWriter } from '../io/wal-thread.ts';
import { SimDisk } from '../testing/sim-disk.ts';
import { appendDurably, ignore, walEntries, walEntry, walOptions } from '../testing/wal-fixture.ts';
import { dumpWal } from './dump.ts';
import { openWal } from './wal.ts';

function linesOf(disk: SimDisk): ReturnType<typeof JSON.parse>[] {
  return [...dumpWal(disk, '/wal')].map((line) => JSON.parse(line));
}

test('entries, hard states, markers and segments come in the order written', () => {
  const disk = new SimDisk(new SeededRandom(1));
  const { wal } = openWal(walOptions(disk));
  appendDurably(wal, walEntries(6, 0), 0);
  wal.append({ term: 2, vote: 0x8e9e05c52164694dn, commit: 0 }, [walEntry(1), { ...walEntry(2, 2), type: 2 }]);
  wal.append(null, [walEntry(2, 3)], { index: 1, term: 1, reset: false });
  wal.waitDurable(wal.sync(ignore), 0);
  const lines = linesOf(disk);
  assert.deepEqual(lines, [
    {
      segment: '0000000000000001-0000000000000001.wal',
      firstIndex: 1,
      clusterId: 'cdf818194e3a8c32',
      memberId: '8e9e05c52164694d',
    },
    { hardState: { term: 0, vote: '7', commit: 0 } },
    { index: 1, term: 1, type: 'normal', data: walEntry(1).data.toString('base64') },
    { index: 2, term: 2, type: 'confChangeV2', data: walEntry(2, 2).data.toString('base64') },
    { hardState: { term: 2, vote: '8e9e05c52164694d', commit: 0 } },
    { snapshot: { index: 1, term: 1, reset: false } },
    { index: 2, term: 3, type: 'normal', data: walEntry(2, 3).data.toString('base64') },
    { end: { segment: '0000000000000001-0000000000000001.wal', offset: 824, tail: 'clean' } },
  ]);
  for (let i = 3; i <= 200; i++) appendDurably(wal, [walEntry(i, 3)]);
  const all = linesOf(disk);
  assert.deepEqual(
    all.filter((line) => line.index > 2).map((line) => line.index),
    Array.from({ length: 198 }, (_, i) => i + 3),
  );
  assert.equal(all.filter((line) => 'segment' in line).length, wal.segmentCount);
  wal.close();
});

test('a torn tail ends the dump and is named, damage throws after what is before it', () => {
  const disk = new SimDisk(new SeededRandom(1));
  const { wal } = openWal(walOptions(disk));
  for (let i = 1; i <= 10; i++) appendDurably(wal, [walEntry(i)]);
  wal.close();
  const file = '/wal/0000000000000001-0000000000000001.wal';
  const before = disk.content(file);
  disk.rot(file, 512 + 9 * 120 + 60, 3);
  const torn = linesOf(disk);
  assert.equal(torn.filter((line) => 'index' in line).length, 9);
  assert.equal(torn.at(-1).end.tail, 'torn');
  assert.equal(torn.at(-1).end.offset, 512 + 9 * 120);
  assert.match(torn.at(-1).end.reason, /checksum/);
  disk.rot(file, 512 + 5 * 120 + 60, 1);
  const lines: string[] = [];
  assert.throws(
    () => {
      for (const line of dumpWal(disk, '/wal')) lines.push(line);
    },
    (error) =>
      error instanceof FatalError && error.exitCode === 10 && /offset 1112: .*later record/.test(error.message),
  );
  assert.equal(lines.filter((line) => line.startsWith('{"index"')).length, 5);
  assert.equal(disk.content(file).length, before.length);
});

test('a directory without a log and one with a hole are refused', () => {
  const disk = new SimDisk(new SeededRandom(1));
  assert.throws(() => linesOf(disk), /\/wal holds no log/);
  const { wal } = openWal(walOptions(disk));
  for (let i = 1; i <= 200; i++) appendDurably(wal, [walEntry(i)]);
  wal.close();
  const second = disk.readdir('/wal').find((name) => name.startsWith('0000000000000002'))!;
  disk.unlink(`/wal/${second}`);
  assert.throws(() => linesOf(disk), /segment 2 is missing in \/wal, before \/wal\/0000000000000003/);
});

test('a live directory is dumped while it is written, rotated and released', () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'keelson-wal-dump-'));
  const options = walOptions(nodeDisk, { directory, writer: threadedWriter(), segmentBytes: 1 << 16, segmentsMax: 3 });
  const { wal } = openWal(options);
  try {
    let next = 1;
    const tails = new Map<string, number>();
    for (let round = 0; round < 20; round++) {
      const indexes: number[] = [];
      const certain = wal.lastIndex;
      for (const line of dumpWal(nodeDisk, directory)) {
        const value = JSON.parse(line);
        if ('index' in value) indexes.push(value.index);
        if ('end' in value) tails.set(value.end.tail, 1 + (tails.get(value.end.tail) ?? 0));
        if (indexes.length % 20 !== 0 || indexes.length > 4000) continue;
        // The log moves on under the reader; a record is in flight most of the time.
        wal.append({ term: 1, vote: 0n, commit: wal.lastIndex }, walEntries(next, 10, 1, 100));
        const ticket = wal.sync(ignore);
        next += 10;
        if (round % 2 === 0) while (!wal.waitDurable(ticket, 100));
        else wal.poll();
        if (indexes.length % 400 === 0) wal.release(wal.lastIndex - 1000);
      }
      for (let i = 1; i < indexes.length; i++) assert.equal(indexes[i], indexes[i - 1]! + 1);
      if (!tails.has('released')) assert.ok((indexes.at(-1) ?? 0) >= certain - 10, `${indexes.at(-1)} of ${certain}`);
    }
    assert.ok([...tails.keys()].every((tail) => ['clean', 'torn', 'released'].includes(tail)));
    assert.ok((tails.get('clean') ?? 0) > 0);
  } finally {
    wal.close();
    fs.rmSync(directory, { recursive: true });
  }
});
