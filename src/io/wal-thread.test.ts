// Goal: the threaded writer writes the same log as the synchronous one, never acknowledges what failed, lets the core go on
// while the disk stalls, and neither keeps the process alive nor outlives close(). Method: real files in a temporary
// directory; /dev/full for ENOSPC, /dev/null for a sync that fails; a FIFO-less stall by stopping to wait.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { FatalError } from '../base/fatal.ts';
import { appendDurably, ignore, reopen, walEntries, walEntry, walEvents, walOptions } from '../testing/wal-fixture.ts';
import { openWal } from '../wal/wal.ts';
import { nodeDisk } from './file.ts';
import { threadedWriter } from './wal-thread.ts';
import type { WalWriter, WalWriterConfig } from './wal-writer.ts';

const root = fs.mkdtempSync(path.join(os.tmpdir(), 'keelson-wal-thread-'));
after(() => fs.rmSync(root, { recursive: true }));
const observer = { write: ignore, fsync: ignore };

function writerTo(file: string, onWake: () => void = ignore, changes: Partial<WalWriterConfig> = {}): WalWriter {
  return threadedWriter()({ path: file, fsync: true, observer, onWake, ...changes });
}

test('a log written by the thread reads back, over rotations, releases and large entries', () => {
  const directory = path.join(root, 'log');
  const events = walEvents();
  const options = walOptions(
    nodeDisk,
    { directory, writer: threadedWriter(), segmentBytes: 1 << 16, segmentsMax: 3, startIndex: 0 },
    events,
  );
  const { wal } = openWal(options);
  let next = 1;
  for (let i = 0; i < 300; i++) {
    const entries = walEntries(next, 10, 1, i === 150 ? 1 << 20 : 100);
    appendDurably(wal, entries, next);
    next += 10;
  }
  assert.ok(wal.segmentCount > 4);
  wal.release(2000);
  appendDurably(wal, [walEntry(next)]);
  assert.ok(events.fsyncs.length === 301 && events.fsyncs.every((seconds) => seconds > 0 && seconds < 10));
  assert.ok(events.writes.every((bytes) => bytes > 88));
  wal.close();
  const replay = reopen(nodeDisk, { directory, segmentBytes: 1 << 16, startIndex: 2000 });
  assert.equal(replay.last.index, 3001);
  for (const [i, entry] of replay.entries.entries()) {
    assert.ok(entry.index === 2001 + i && entry.data.equals(walEntry(entry.index, 1, entry.data.length).data));
  }
  assert.ok(fs.readdirSync(directory).filter((name) => name.startsWith('0')).length >= 3);
});

test('after a wait that was too short the callback comes by message', async () => {
  const directory = path.join(root, 'message');
  const { wal } = openWal(walOptions(nodeDisk, { directory, writer: threadedWriter(), segmentBytes: 1 << 20 }));
  for (let round = 0; round < 200; round++) {
    const index = round + 1;
    wal.append(null, [walEntry(index)]);
    await new Promise<void>((resolve) => {
      const ticket = wal.sync(() => resolve());
      wal.waitDurable(ticket, (round % 5) * 0.05);
    });
    assert.equal(wal.durableTicket, index);
  }
  wal.close();
  assert.equal(reopen(nodeDisk, { directory, segmentBytes: 1 << 20 }).last.index, 200);
});

test('appends while a write is in flight become one record, by messages alone', async () => {
  const directory = path.join(root, 'gather');
  const events = walEvents();
  const { wal } = openWal(walOptions(nodeDisk, { directory, writer: threadedWriter(), segmentBytes: 1 << 22 }, events));
  const order: number[] = [];
  await new Promise<void>((resolve) => {
    for (let i = 1; i <= 1000; i++) {
      wal.append(null, [walEntry(i, 1, 300)]);
      wal.sync((ticket) => {
        order.push(ticket);
        if (ticket === 1000) resolve();
      });
    }
    wal.poll();
  });
  assert.deepEqual(
    order,
    Array.from({ length: 1000 }, (_, i) => i + 1),
  );
  assert.ok(events.fsyncs.length < 100, `${events.fsyncs.length} syncs`);
  wal.close();
});

for (const [device, exitCode, pattern] of [
  ['/dev/full', 13, /disk is full.*ENOSPC/],
  ['/dev/null', 11, /failed writing 8 bytes at offset 512 of \/dev\/null.*EINVAL/],
] as const) {
  test(`an error on ${device} is fatal to whoever asks, is posted, and is never acknowledged`, async () => {
    const woken = Promise.withResolvers<void>();
    const writer = writerTo(device, () => woken.resolve());
    const sequence = writer.write(8, 512, null);
    const isFatal = (error: unknown): boolean =>
      error instanceof FatalError && error.exitCode === exitCode && pattern.test(error.message);
    assert.throws(() => {
      if (!writer.wait(sequence, 10_000)) throw new Error('timeout');
    }, isFatal);
    await woken.promise;
    assert.throws(() => writer.completed(), isFatal);
    assert.throws(() => writer.write(8, 520, null), isFatal);
    assert.throws(() => writer.remove({ path: '/nothing', recycleTo: null, directory: root }), isFatal);
    writer.close();
  });
}

test('an error reaches onFatal when the core only waits for messages', async () => {
  const woken = Promise.withResolvers<void>();
  const writer = writerTo('/dev/full', () => woken.resolve());
  writer.write(8, 512, null);
  await woken.promise;
  assert.throws(() => writer.completed(), FatalError);
  writer.close();
});

test('a segment that cannot be opened is fatal', () => {
  const writer = writerTo(path.join(root, 'none.wal'));
  const sequence = writer.write(8, 512, null);
  assert.throws(() => writer.wait(sequence, 10_000), /failed opening .*none\.wal: ENOENT/);
  writer.close();
});

test('without fsync the thread does not sync: /dev/null takes it', () => {
  const writer = writerTo('/dev/null', ignore, { fsync: false });
  assert.equal(writer.wait(writer.write(8, 512, null), 10_000), true);
  writer.close();
});

test('a second write before the first is complete asserts', () => {
  const file = path.join(root, 'two.wal');
  fs.writeFileSync(file, Buffer.alloc(4096));
  const writer = writerTo(file);
  const sequence = writer.write(8, 512, null);
  if (!writer.wait(sequence, 0)) assert.throws(() => writer.write(8, 520, null), /one WAL write in flight/);
  writer.wait(sequence, 10_000);
  writer.close();
});

test('a buffer that grew for a burst is given back', () => {
  const file = path.join(root, 'burst.wal');
  fs.writeFileSync(file, Buffer.alloc(4096));
  const writer = writerTo(file);
  const small = writer.buffer.length;
  writer.buffer.write('kept', 0);
  writer.reserve(4, 40 << 20);
  assert.ok(writer.buffer.length > 40 << 20);
  assert.equal(writer.buffer.toString('latin1', 0, 4), 'kept');
  assert.equal(writer.wait(writer.write(30 << 20, 512, null), 10_000), true);
  assert.equal(writer.buffer.length, small);
  assert.equal(writer.wait(writer.write(8, 512, null), 10_000), true);
  assert.equal(writer.buffer.length, small);
  writer.close();
  const content = fs.readFileSync(file);
  assert.equal(content.length, 512 + (30 << 20));
});

test('process.exit works with a log open, and a closed log lets the process end', () => {
  for (const last of ['process.exit(7)', 'wal.close(); process.exitCode = 7']) {
    const directory = path.join(root, last.slice(0, 5));
    const script = `
      const { openWal } = await import(${JSON.stringify(path.join(import.meta.dirname, '../wal/wal.ts'))});
      const { walOptions, walEntry, appendDurably } = await import(${JSON.stringify(path.join(import.meta.dirname, '../testing/wal-fixture.ts'))});
      const { nodeDisk } = await import(${JSON.stringify(path.join(import.meta.dirname, 'file.ts'))});
      const { threadedWriter } = await import(${JSON.stringify(path.join(import.meta.dirname, 'wal-thread.ts'))});
      const { wal } = openWal(walOptions(nodeDisk, { directory: ${JSON.stringify(directory)}, writer: threadedWriter() }));
      appendDurably(wal, [walEntry(1)]);
      ${last};`;
    const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      timeout: 20_000,
      encoding: 'utf8',
    });
    assert.equal(run.status, 7, run.stderr);
    assert.equal(reopen(nodeDisk, { directory }).last.index, 1);
  }
});
