// Goal: a process killed by SIGKILL at any moment leaves a log with everything that it reported durable, and nothing that it did
// not append. Method: a child appends and prints, the parent kills it after a random time, reads the log, starts it again on
// the same directory. The page cache survives a kill: lost syncs are for crash.test.ts.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { FatalError } from '../base/fatal.ts';
import { nodeDisk } from '../io/file.ts';
import { systemRandom } from '../io/random.ts';
import { reopen, walEntry, walOptions } from '../testing/wal-fixture.ts';
import { openWal } from './wal.ts';

const child = path.join(import.meta.dirname, '../testing/wal-child.ts');
const kills = Number(process.env['WAL_KILLS'] ?? 20);

/** Runs the child until it has reported something, then kills it after `delayMs`; returns the last index it reported. */
function runAndKill(directory: string, writer: string, delayMs: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const started = spawn(process.execPath, [child, directory, writer], { stdio: ['ignore', 'pipe', 'inherit'] });
    let reported = '';
    started.stdout.setEncoding('latin1').on('data', (text: string) => {
      if (reported === '') setTimeout(() => started.kill('SIGKILL'), delayMs);
      reported += text;
    });
    started.on('error', reject).on('close', (_, signal) => {
      if (signal !== 'SIGKILL') reject(new Error(`the child ended by ${signal}`));
      else resolve(Number(reported.slice(0, reported.lastIndexOf('\n')).split('\n').at(-1)));
    });
  });
}

for (const writer of ['sync', 'thread']) {
  test(`${kills / 2} kills lose nothing that was reported durable (${writer} writer)`, {
    timeout: 120_000,
  }, async () => {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'keelson-wal-kill-'));
    try {
      let last = 0;
      for (let i = 0; i < kills / 2; i++) {
        const reported = await runAndKill(directory, writer, systemRandom.below(150));
        const { entries, hardState } = reopen(nodeDisk, { directory, startIndex: 0, segmentBytes: 1 << 20 });
        assert.ok(reported > last, `the log went on from ${last} to ${reported}`);
        assert.ok(entries.length >= reported, `${reported} was reported, the log has ${entries.length}`);
        assert.equal(hardState.commit, entries.length);
        for (let at = last; at < entries.length; at++) {
          // A batch's entries have the size that its first index gives, so only their prefix can be told here.
          assert.equal(entries[at]!.index, at + 1);
          const { data } = entries[at]!;
          assert.ok(data.equals(walEntry(at + 1, 1, data.length).data));
        }
        last = entries.length;
      }
    } finally {
      // A preparation of the next segment that was under way may still make its file.
      fs.rmSync(directory, { recursive: true, maxRetries: 10, retryDelay: 50 });
    }
  });
}

test('the lock of a killed process is gone, that of a living one holds across processes', {
  timeout: 30_000,
}, async () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'keelson-wal-lock-'));
  try {
    const { wal } = openWal(walOptions(nodeDisk, { directory, segmentBytes: 1 << 20 }));
    const second = spawn(process.execPath, [child, directory, 'sync'], { stdio: ['ignore', 'ignore', 'pipe'] });
    let message = '';
    second.stderr.setEncoding('latin1').on('data', (text: string) => {
      message += text;
    });
    const code = await new Promise((resolve) => second.on('close', resolve));
    assert.equal(code, 1);
    assert.match(message, /in use by another process/);
    assert.throws(() => openWal(walOptions(nodeDisk, { directory })), FatalError);
    wal.close();
    await runAndKill(directory, 'sync', 0);
    reopen(nodeDisk, { directory, segmentBytes: 1 << 20 });
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
});
