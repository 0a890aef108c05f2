// Goal: the log's next segment can be opened when the process has no descriptor left, and other errors are not tried again. Method: the
// WAL's own file over the real disk, under a limit of descriptors that is counted here; and others that take what is given up.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { openTriesMax } from '../cluster-limits.ts';
import { type Disk, diskError, errorCode, nodeDisk } from './file.ts';
import { reservedDisk } from './reserved-disk.ts';
import { WalFile } from './wal-writer.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'keelson-reserve-'));
  writeFileSync(join(directory, 'first.wal'), '');
});
afterEach(() => rmSync(directory, { recursive: true }));

/** The real disk in a process with `free` descriptors; `onRefused` may change that. */
class ScarceDisk {
  free: number;
  refusals = 0;
  onRefused: () => void = () => {};
  readonly disk: Disk;

  constructor(free: number) {
    this.free = free;
    this.disk = {
      ...nodeDisk,
      open: (path, mode) => {
        this.#take('open', path);
        return nodeDisk.open(path, mode);
      },
      close: (fd) => {
        this.free++;
        nodeDisk.close(fd);
      },
      syncDirectory: (path) => {
        this.#take('open', path);
        this.free++;
        nodeDisk.syncDirectory(path);
      },
    };
  }

  #take(call: string, path: string): void {
    if (this.free <= 0) {
      this.refusals++;
      this.onRefused();
      throw diskError('EMFILE', `too many open files, ${call} '${path}'`);
    }
    this.free--;
  }
}

function rotate(file: WalFile, name: string): void {
  const header = Buffer.from('header');
  const to = join(directory, name);
  const rotation = { from: null, temporary: join(directory, 'next.tmp'), to, directory, header, bytes: 4096 };
  file.write(Buffer.from('record'), 6, 0, rotation);
}

test('segments follow each other without a free descriptor', () => {
  const scarce = new ScarceDisk(3);
  const file = new WalFile(reservedDisk(scarce.disk, '/dev/null'), join(directory, 'first.wal'), true);
  assert.equal(scarce.free, 0, 'its file and its reserve are all there are');
  for (const name of ['second.wal', 'third.wal', 'fourth.wal']) rotate(file, name);
  assert.ok(scarce.refusals > 0);
  assert.equal(scarce.free, 0, 'the reserve is there again');
  assert.deepEqual(readdirSync(directory), ['first.wal', 'fourth.wal', 'second.wal', 'third.wal']);
  file.close();
  // The plain disk fails there.
  const plain = new ScarceDisk(1);
  const bare = new WalFile(plain.disk, join(directory, 'first.wal'), true);
  assert.throws(() => rotate(bare, 'fifth.wal'), /EMFILE/);
  bare.close();
});

test('others take what is given up: it is tried until they give some back', () => {
  const scarce = new ScarceDisk(3);
  const file = new WalFile(reservedDisk(scarce.disk, '/dev/null'), join(directory, 'first.wal'), true);
  scarce.onRefused = (): void => {
    // Whoever comes first: all that is free is gone at once, and comes back late.
    if (scarce.refusals < 6) scarce.free -= 1;
    else if (scarce.refusals === 6) scarce.free += 7;
  };
  rotate(file, 'second.wal');
  assert.ok(scarce.refusals >= 6);
  file.close();
});

test('what stays refused is an error in the end, and any other error at once', () => {
  const scarce = new ScarceDisk(0);
  let tries = 0;
  const disk: Disk = {
    ...scarce.disk,
    open: () => {
      tries++;
      throw diskError(tries % 2 === 0 ? 'EMFILE' : 'ENFILE', 'too many open files');
    },
  };
  const opening = (reserved: Disk): void => void reserved.open(join(directory, 'first.wal'), 'write');
  const reserved = reservedDisk(disk, '/dev/null', 0);
  tries = 0;
  assert.throws(
    () => opening(reserved),
    (error) => ['EMFILE', 'ENFILE'].includes(errorCode(error)),
  );
  assert.equal(tries, openTriesMax);
  assert.throws(() => reservedDisk(nodeDisk, '/dev/null').open(join(directory, 'none'), 'write'), /ENOENT/);
});
