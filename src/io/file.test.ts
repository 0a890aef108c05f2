// Goal: the real disk keeps the contract of the interface: modes, short reads at the end, preallocation, lock, errors with
// codes. Method: a temporary directory.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { type Disk, diskError, errorCode, errorText, nodeDisk, readFully, writeFully } from './file.ts';

const root = fs.mkdtempSync(path.join(os.tmpdir(), 'keelson-file-'));
after(() => fs.rmSync(root, { recursive: true }));

test('a file is written, read, extended, renamed and removed', () => {
  const file = path.join(root, 'a');
  const fd = nodeDisk.open(file, 'create');
  writeFully(nodeDisk, fd, Buffer.from('xhello'), 1, 5, 10);
  nodeDisk.fdatasync(fd);
  assert.equal(nodeDisk.size(fd), 15);
  nodeDisk.truncate(fd, 20);
  const buffer = Buffer.alloc(20, 1);
  assert.equal(readFully(nodeDisk, fd, buffer, 0, 20, 8), 12);
  assert.equal(buffer.toString('latin1', 0, 12), '\0\0hello\0\0\0\0\0');
  nodeDisk.close(fd);
  assert.equal(fs.statSync(file).mode & 0o777, 0o600);
  nodeDisk.rename(file, path.join(root, 'b'));
  nodeDisk.syncDirectory(root);
  assert.deepEqual(nodeDisk.readdir(root), ['b']);
  assert.ok(nodeDisk.exists(path.join(root, 'b')) && !nodeDisk.exists(file));
  nodeDisk.unlink(path.join(root, 'b'));
  assert.deepEqual(nodeDisk.readdir(root), []);
});

test('the name of an unlinked file goes at once, its bytes beside this thread', ({ mock }) => {
  const file = path.join(root, 'large');
  fs.writeFileSync(file, 'x');
  const close = mock.method(fs, 'close', () => {});
  nodeDisk.unlink(file);
  assert.equal(fs.existsSync(file), false);
  const [fd, closed] = close.mock.calls[0]!.arguments as unknown as Parameters<typeof fs.close>;
  const { nlink, size } = fs.fstatSync(fd);
  assert.deepEqual([nlink, size], [0, 1], 'there until the pool closes it');
  fs.closeSync(fd);
  closed?.(null);
  assert.throws(
    () => nodeDisk.unlink(file),
    (error) => errorCode(error) === 'ENOENT',
  );
  fs.symlinkSync('/nowhere', file);
  nodeDisk.unlink(file);
  assert.deepEqual(fs.readdirSync(root), []);
  assert.equal(close.mock.callCount(), 1);
});

test('a directory is made with its parents, for its owner alone; again is fine', () => {
  const directory = path.join(root, 'x/y/z');
  nodeDisk.mkdir(directory);
  nodeDisk.mkdir(directory);
  assert.equal(fs.statSync(directory).mode & 0o777, 0o700);
  assert.ok(nodeDisk.freeBytes(directory) > 0);
});

test('a directory that the system does not let be made is an error, told as etcd tells it', () => {
  const file = path.join(root, 'plain');
  fs.writeFileSync(file, '');
  // Of /proc the kernel says that it is there, and of everything that is made in it that it is not.
  const cases = [
    ['/proc/x/member/snap', 'ENOENT', 'mkdir /proc/x: no such file or directory'],
    [`${file}/a/b`, 'ENOTDIR', `mkdir ${file}/a: not a directory`],
  ] as const;
  for (const [directory, code, text] of cases) {
    assert.throws(
      () => nodeDisk.mkdir(directory),
      (error) => errorCode(error) === code && errorText(error) === text,
    );
  }
  assert.equal(errorText(new Error('x')), 'x');
  assert.equal(errorText('x'), 'x');
  assert.equal(errorText(diskError('EIO', 'y')), 'EIO: y');
});

test('errors carry their code', () => {
  for (const call of [
    () => nodeDisk.open(path.join(root, 'none'), 'read'),
    () => nodeDisk.open(path.join(root, 'none'), 'write'),
    () => nodeDisk.readdir(path.join(root, 'none')),
    () => nodeDisk.unlink(path.join(root, 'none')),
  ]) {
    assert.throws(call, (error) => errorCode(error) === 'ENOENT');
  }
  const full = nodeDisk.open('/dev/full', 'write');
  assert.throws(
    () => writeFully(nodeDisk, full, Buffer.alloc(1), 0, 1, 0),
    (error) => errorCode(error) === 'ENOSPC',
  );
  nodeDisk.close(full);
  assert.equal(errorCode(new Error('x')), '');
  assert.equal(errorCode('x'), '');
  assert.equal(errorCode(diskError('EIO', 'x')), 'EIO');
});

test('a disk that writes nothing without an error does not hang', () => {
  const stuck: Disk = { ...nodeDisk, write: () => 0 };
  assert.throws(
    () => writeFully(stuck, 1, Buffer.alloc(4), 0, 4, 0),
    (error) => errorCode(error) === 'EIO',
  );
});

test('preallocate makes zeros beside the caller; cancelled it does not call back', async () => {
  const file = path.join(root, 'zeros');
  const bytes = (5 << 20) + 123;
  await new Promise<void>((resolve, reject) => {
    nodeDisk.preallocate(file, bytes, (error) => (error === null ? resolve() : reject(error)));
  });
  const content = fs.readFileSync(file);
  assert.ok(content.equals(Buffer.alloc(bytes)));
  assert.ok(fs.statSync(file).blocks * 512 >= bytes, 'its blocks are allocated');
  const error = await new Promise((resolve) => nodeDisk.preallocate(path.join(root, 'no/such'), 10, resolve));
  assert.equal(errorCode(error), 'ENOENT');
  let called = false;
  const job = nodeDisk.preallocate(file, 1 << 20, () => {
    called = true;
  });
  job.cancel();
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(called, false);
});

test('mkdir: each level is durable in its parent before the next one is made', (context) => {
  const made: string[] = [];
  const open = fs.openSync;
  const paths = new Map<number, string>();
  const make = fs.mkdirSync;
  const sync = fs.fsyncSync;
  const relative = (name: fs.PathLike): string => path.relative(root, String(name)) || '.';
  context.mock.method(fs, 'openSync', (name: fs.PathLike, flags: string) => {
    const fd = open(name, flags);
    paths.set(fd, relative(name));
    return fd;
  });
  context.mock.method(fs, 'mkdirSync', (name: fs.PathLike, options: fs.MakeDirectoryOptions) => {
    made.push(`make ${relative(name)}`);
    return make(name, options);
  });
  context.mock.method(fs, 'fsyncSync', (fd: number) => {
    made.push(`sync ${paths.get(fd)}`);
    sync(fd);
  });
  const directory = path.join(root, 'one', 'two', 'three');
  nodeDisk.mkdir(directory);
  assert.deepEqual(made, ['make one', 'sync .', 'make one/two', 'sync one', 'make one/two/three', 'sync one/two']);
  assert.equal(fs.statSync(directory).mode & 0o777, 0o700);
  nodeDisk.mkdir(directory);
  assert.equal(made.length, 6, 'what is there is left alone');
});

test('a lock has one holder, who writes nothing', () => {
  const file = path.join(root, 'lock');
  const locks = (): string[] => fs.readdirSync(root).filter((name) => name.startsWith('lock'));
  const first = nodeDisk.lock(file);
  assert.ok(first !== null);
  assert.equal(nodeDisk.lock(file), null);
  assert.deepEqual(locks(), ['lock'], 'no journal');
  assert.equal(fs.statSync(file).size, 0);
  first.release();
  // What an older version that was killed has left beside it.
  fs.writeFileSync(`${file}-journal`, Buffer.alloc(512));
  const second = nodeDisk.lock(file);
  assert.ok(second !== null);
  assert.equal(nodeDisk.lock(file), null);
  second.release();
  assert.equal(fs.statSync(file).size, 0);
  assert.deepEqual(locks(), ['lock'], 'the old journal is gone');
});
