// Goal: the simulated disk loses exactly what it may: synced bytes and names stay, others vary with the seed, faults strike
// where told. A model that loses nothing would make every crash test pass.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errorCode } from '../io/file.ts';
import { SeededRandom } from '../io/random.ts';
import { SimCrash, SimDisk } from './sim-disk.ts';

/** What is left, over many seeds, of a file with 2048 synced bytes of 1 and 2048 unsynced ones of 2 written over them. */
function outcomes(act: (disk: SimDisk, fd: number) => void): Set<string> {
  const seen = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const disk = new SimDisk(new SeededRandom(seed));
    disk.mkdir('/d');
    const fd = disk.open('/d/a', 'create');
    disk.write(fd, Buffer.alloc(2048, 1), 0, 2048, 0);
    disk.fdatasync(fd);
    disk.syncDirectory('/d');
    act(disk, fd);
    disk.crash();
    const sectors = [];
    const content = disk.content('/d/a');
    for (let at = 0; at < content.length; at += 512)
      sectors.push([...new Set(content.subarray(at, at + 512))].join('+'));
    seen.add(sectors.join(' '));
  }
  return seen;
}

test('synced bytes stay, unsynced ones are lost, torn in sectors, or kept', () => {
  assert.deepEqual(
    outcomes(() => {}),
    new Set(['1 1 1 1']),
  );
  const synced = outcomes((disk, fd) => {
    disk.write(fd, Buffer.alloc(2048, 2), 0, 2048, 0);
    disk.fdatasync(fd);
  });
  assert.deepEqual(synced, new Set(['2 2 2 2']));
  const unsynced = outcomes((disk, fd) => disk.write(fd, Buffer.alloc(2048, 2), 0, 2048, 0));
  for (const expected of ['1 1 1 1', '2 2 2 2', '1 2 1 2', '2 2 2+1 1']) assert.ok(unsynced.has(expected), expected);
});

test('a failed sync does not become good by a later one', () => {
  const seen = outcomes((disk, fd) => {
    disk.write(fd, Buffer.alloc(512, 2), 0, 512, 0);
    disk.fault = (call) => (call === 'fdatasync' ? { error: 'EIO' } : null);
    assert.throws(
      () => disk.fdatasync(fd),
      (error) => errorCode(error) === 'EIO',
    );
    disk.fault = () => null;
    disk.fdatasync(fd);
  });
  assert.deepEqual(seen, new Set(['1 1 1 1']));
});

test('names are durable after the sync of their directory only', () => {
  const seen = new Set<string>();
  for (let seed = 0; seed < 100; seed++) {
    const disk = new SimDisk(new SeededRandom(seed));
    disk.place('/d/old', Buffer.from('x'));
    disk.rename('/d/old', '/d/new');
    disk.close(disk.open('/d/made', 'create'));
    disk.crash();
    seen.add(disk.readdir('/d').join());
  }
  assert.deepEqual(seen, new Set(['old', 'new', 'made,old', 'made,new']));
  const disk = new SimDisk(new SeededRandom(1));
  disk.place('/d/old', Buffer.from('x'));
  disk.rename('/d/old', '/d/new');
  disk.syncDirectory('/d');
  disk.crash();
  assert.deepEqual(disk.readdir('/d'), ['new']);
});

test('a killed process loses its descriptors and locks, no bytes', () => {
  const disk = new SimDisk(new SeededRandom(1));
  const fd = disk.open('/a', 'create');
  disk.write(fd, Buffer.from('abc'), 0, 3, 0);
  const lock = disk.lock('/l');
  assert.ok(lock !== null && disk.lock('/l') === null);
  disk.kill();
  assert.equal(disk.content('/a').toString(), 'abc');
  assert.ok(disk.lock('/l') !== null);
  assert.throws(
    () => disk.size(fd),
    (error) => errorCode(error) === 'EBADF',
  );
});

test('capacity, short calls, rot, and the crash at a call', () => {
  const disk = new SimDisk(new SeededRandom(1));
  disk.capacityBytes = 10;
  const fd = disk.open('/a', 'create');
  assert.equal(disk.write(fd, Buffer.alloc(20, 1), 0, 20, 0), 10);
  assert.equal(disk.freeBytes(), 0);
  assert.throws(
    () => disk.write(fd, Buffer.alloc(1), 0, 1, 10),
    (error) => errorCode(error) === 'ENOSPC',
  );
  assert.equal(disk.write(fd, Buffer.alloc(4, 9), 0, 4, 0), 4);
  disk.fault = () => ({ short: 2 });
  assert.equal(disk.write(fd, Buffer.alloc(4, 9), 0, 4, 4), 2);
  assert.equal(disk.read(fd, Buffer.alloc(10), 0, 10, 0), 2);
  disk.fault = () => null;
  disk.rot('/a', 0, 0xff);
  assert.deepEqual([...disk.content('/a')], [0xf6, 9, 9, 9, 9, 9, 1, 1, 1, 1]);
  disk.crashAfter = disk.changes + 1;
  disk.fdatasync(fd);
  assert.throws(() => disk.fdatasync(fd), SimCrash);
});
