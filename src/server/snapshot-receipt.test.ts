// Goal: under its own name a received database is whole and durable or not there, at whatever operation the machine stops; what cannot be
// one is refused before raft hears of it; the disk is not filled. Method: the simulated disk, which loses and tears what was not synced,
// stopped at each of its changes; the answers are held back, so that they come in another turn as node's do.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { snapshotSpaceCheckBytes, snapshotSpareBytes } from '../cluster-limits.ts';
import { type Disk, diskError, writeFully } from '../io/file.ts';
import { SeededRandom } from '../io/random.ts';
import type { StreamFile } from '../io/stream-file.ts';
import { sourceOf, writeAll } from '../snapshot/bolt-fixture.ts';
import { encodeCounter, MetaKey } from '../snapshot/schema.ts';
import { SimCrash, SimDisk } from '../testing/sim-disk.ts';
import { arrivingPath, removeArriving, removeSnapshots, snapshotIndexes, snapshotPath } from './snapshot-files.ts';
import { FileReceipt, type SavedSnapshot } from './snapshot-receipt.ts';

const directory = '/data/member/snap';
const index = 42;

/** Over any disk; what it does is done at once, its answers come when the test says so. */
class HeldStreamFile implements StreamFile {
  drained: (() => void) | null = null;
  private readonly disk: Disk;
  private readonly fd: number;
  private readonly held: (() => void)[];
  private position = 0;
  private error: Error | null = null;
  private isOpen = true;

  constructor(disk: Disk, path: string, held: (() => void)[]) {
    this.disk = disk;
    this.held = held;
    this.fd = disk.open(path, 'create');
  }

  write(bytes: Buffer): boolean {
    try {
      writeFully(this.disk, this.fd, bytes, 0, bytes.length, this.position);
    } catch (error) {
      if (error instanceof SimCrash || !(error instanceof Error)) throw error;
      this.error ??= error;
    }
    this.position += bytes.length;
    return true;
  }

  end(done: (error: Error | null) => void): void {
    if (this.error === null) this.disk.fdatasync(this.fd);
    this.close();
    this.held.push(() => done(this.error));
  }

  abort(closed: () => void): void {
    this.close();
    this.held.push(closed);
  }

  private close(): void {
    if (this.isOpen) this.disk.close(this.fd);
    this.isOpen = false;
  }
}

function databaseOf(consistentIndex: number): Buffer {
  const rows = Array.from(
    { length: 300 },
    (_, i) => [Buffer.from(`row${String(i).padStart(4, '0')}`), Buffer.alloc(90, i)] as const,
  );
  const meta = [
    [MetaKey.confState, Buffer.from('{"voters":[1],"auto_leave":false}')],
    [MetaKey.consistentIndex, encodeCounter(consistentIndex)],
  ] as const;
  return writeAll([sourceOf('key', rows), sourceOf('meta', meta)]);
}

class Receiving {
  readonly disk: SimDisk;
  readonly ends: (SavedSnapshot | null)[] = [];
  readonly held: (() => void)[] = [];
  readonly receipt: FileReceipt;

  constructor(disk: SimDisk) {
    this.disk = disk;
    this.receipt = new FileReceipt({
      files: { disk, openStreamFile: (path) => new HeldStreamFile(disk, path, this.held) },
      directory,
      index,
      nowMs: () => 0,
      ended: (saved) => this.ends.push(saved),
    });
  }

  answer(): void {
    for (const answer of this.held.splice(0)) answer();
  }

  /** Undefined: it has not ended. */
  take(bytes: Buffer): Error | null | undefined {
    for (let at = 0; at < bytes.length; at += 10_000) this.receipt.write(bytes.subarray(at, at + 10_000));
    let result: Error | null | undefined;
    this.receipt.end((error) => {
      result = error;
    });
    this.answer();
    return result;
  }
}

function newDisk(seed: number): SimDisk {
  const disk = new SimDisk(new SeededRandom(seed));
  disk.mkdir(directory);
  return disk;
}

function contentOf(disk: Disk, path: string): Buffer {
  const fd = disk.open(path, 'read');
  const bytes = Buffer.alloc(disk.size(fd));
  disk.read(fd, bytes, 0, bytes.length, 0);
  disk.close(fd);
  return bytes;
}

test('stopped at each change of the disk, the file is whole or not there', () => {
  const bytes = databaseOf(index);
  let wholes = 0;
  for (let stops = 0; ; stops++) {
    const disk = newDisk(stops);
    disk.crashAfter = disk.changes + stops;
    let isDone = false;
    try {
      const receiving = new Receiving(disk);
      isDone = receiving.take(bytes) === null;
    } catch (error) {
      assert.ok(error instanceof SimCrash, String(error));
    }
    disk.crash();
    disk.crashAfter = Number.POSITIVE_INFINITY;
    removeArriving(disk, directory);
    const found = snapshotIndexes(disk, directory);
    if (isDone) assert.deepEqual(found, [index], `told to be there, gone after ${stops}`);
    if (found.length > 0) {
      assert.ok(contentOf(disk, snapshotPath(directory, index)).equals(bytes), `torn after ${stops}`);
      wholes++;
    }
    assert.equal(disk.exists(arrivingPath(directory, index)), false);
    if (isDone) break;
    assert.ok(stops < 1000);
  }
  assert.ok(wholes > 0);
});

test('what cannot be installed is refused, and removed', () => {
  for (const [bytes, reason] of [
    [Buffer.alloc(50_000, 7), /cannot be used/],
    [databaseOf(index - 1), /its consistent index is 41, but it was sent as a snapshot of entry 42/],
    [databaseOf(index + 5), /its consistent index is 47, but it was sent as a snapshot of entry 42/],
    [writeAll([sourceOf('meta', [[MetaKey.consistentIndex, encodeCounter(index)]])]), /does not tell the members/],
    [databaseOf(index).subarray(0, 20_000), /shorter than/],
  ] as const) {
    const receiving = new Receiving(newDisk(1));
    assert.match(String(receiving.take(bytes)), reason);
    assert.deepEqual(receiving.disk.readdir(directory), []);
    assert.deepEqual(receiving.ends, [null]);
  }
});

test('a transfer that breaks off leaves nothing, whatever comes after it', () => {
  const receiving = new Receiving(newDisk(1));
  receiving.receipt.write(databaseOf(index).subarray(0, 10_000));
  receiving.receipt.abort();
  assert.deepEqual(receiving.ends, [], 'the file is not closed yet');
  receiving.receipt.abort();
  assert.equal(receiving.receipt.write(Buffer.alloc(10)), true);
  receiving.answer();
  assert.deepEqual(receiving.disk.readdir(directory), []);
  assert.deepEqual(receiving.ends, [null]);
  const late = new Receiving(newDisk(1));
  late.receipt.write(databaseOf(index));
  late.receipt.end(() => assert.fail('nobody is told of what was given up'));
  late.receipt.abort();
  late.answer();
  assert.deepEqual(late.disk.readdir(directory), []);
});

test('a disk without room: from the beginning, on the way, and for the last byte', () => {
  const room = (
    free: (asked: number) => number,
  ): { readonly error: Error | null | undefined; readonly names: string[] } => {
    const disk = newDisk(1);
    let asked = 0;
    disk.freeBytes = () => free(asked++);
    const receiving = new Receiving(disk);
    const half = Buffer.alloc(snapshotSpaceCheckBytes / 2);
    const bytes = Buffer.concat([databaseOf(index), half, half]);
    const error = receiving.take(bytes);
    assert.deepEqual(receiving.ends, [null]);
    return { error, names: disk.readdir(directory) };
  };
  const none = room(() => snapshotSpareBytes - 1);
  assert.match(String(none.error), /the disk has 134217727 bytes left, a snapshot of 0 or more needs 134217728/);
  assert.deepEqual(none.names, []);
  const later = room((asked) => (asked === 0 ? Infinity : snapshotSpareBytes + snapshotSpaceCheckBytes - 1));
  assert.match(String(later.error), /bytes left/);
  assert.deepEqual(later.names, []);
  const full = newDisk(1);
  full.capacityBytes = 15_000;
  full.freeBytes = () => Infinity;
  const receiving = new Receiving(full);
  assert.match(String(receiving.take(databaseOf(index))), /ENOSPC/);
  assert.deepEqual(full.readdir(directory), []);
});

test('what the disk refuses beside the writing ends the process, with its reason', () => {
  const isFatal = (text: RegExp) => (error: unknown) =>
    error instanceof FatalError && error.exitCode === ExitCode.backendWrite && text.test(error.message);
  const fails = (code: string) => (): never => {
    throw diskError(code, 'of the test');
  };
  const blind = newDisk(1);
  blind.freeBytes = fails('EIO');
  assert.throws(() => new Receiving(blind), isFatal(/the free space of .data.member.snap is not told: .*EIO/));
  const readOnly = newDisk(1);
  const receiving = new Receiving(readOnly);
  readOnly.unlink = fails('EROFS');
  assert.throws(() => receiving.take(Buffer.alloc(50_000, 7)), isFatal(/snap.db.tmp cannot be removed: .*EROFS/));
  readOnly.readdir = fails('EIO');
  assert.throws(() => removeSnapshots(readOnly, directory, 42), isFatal(/snap cannot be read: .*EIO/));
});

test('files go when the database holds them, newer ones stay', () => {
  const disk = newDisk(1);
  const names = [snapshotPath(directory, 5), snapshotPath(directory, 42), snapshotPath(directory, 0x123456789ab)];
  for (const path of [...names, arrivingPath(directory, 9), `${directory}/keelson.mdb`])
    disk.close(disk.open(path, 'create'));
  assert.deepEqual(names[1], '/data/member/snap/000000000000002a.snap.db');
  removeSnapshots(disk, directory, 42);
  assert.deepEqual(snapshotIndexes(disk, directory), [0x123456789ab]);
  removeArriving(disk, directory);
  assert.deepEqual(disk.readdir(directory), ['00000123456789ab.snap.db', 'keelson.mdb']);
});
