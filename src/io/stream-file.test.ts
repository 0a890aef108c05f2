// Goal: what is written arrives whole and in order whatever the sizes, no more than a bound waits in memory, an error is told at the end,
// and an aborted file is closed before anybody removes it. Method: the real disk, a full one (/dev/full), a folder that is not there.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { streamFileBufferBytes, streamFileSyncBytes } from '../cluster-limits.ts';
import { SeededRandom } from './random.ts';
import { openStreamFile, type StreamFile } from './stream-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'keelson-stream-file-'));
after(() => rmSync(folder, { recursive: true, force: true }));

function ended(file: StreamFile): Promise<Error | null> {
  return new Promise((resolve) => file.end(resolve));
}

test('what is written arrives in order, and its writer waits when too much is on its way', async () => {
  const path = join(folder, 'whole');
  const file = openStreamFile(path);
  const random = new SeededRandom(1);
  const parts: Buffer[] = [];
  let bytes = 0;
  let waits = 0;
  while (bytes < streamFileSyncBytes + 3 * streamFileBufferBytes) {
    const part = Buffer.alloc(1 + random.below(200_000), random.below(256));
    parts.push(part);
    bytes += part.length;
    if (file.write(part)) continue;
    waits++;
    await new Promise<void>((resolve) => {
      file.drained = resolve;
    });
  }
  assert.equal(await ended(file), null);
  assert.ok(waits > 0);
  assert.ok(readFileSync(path).equals(Buffer.concat(parts)));
});

test('a file of nothing is there', async () => {
  const path = join(folder, 'empty');
  assert.equal(await ended(openStreamFile(path)), null);
  assert.equal(readFileSync(path).length, 0);
});

test('an error is told at the end, however much comes after it', async () => {
  const full = openStreamFile('/dev/full');
  for (let i = 0; i < 20; i++) {
    full.write(Buffer.alloc(1000));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.match(String(await ended(full)), /ENOSPC/);
  const nowhere = openStreamFile(join(folder, 'nowhere', 'file'));
  nowhere.write(Buffer.alloc(10));
  assert.match(String(await ended(nowhere)), /ENOENT/);
});

test('an aborted one is closed, and nobody hears of it but who has aborted it', async () => {
  const path = join(folder, 'aborted');
  const file = openStreamFile(path);
  let drains = 0;
  file.drained = () => drains++;
  while (file.write(Buffer.alloc(1_000_000)));
  await new Promise<void>((resolve) => file.abort(resolve));
  assert.equal(drains, 0);
  assert.ok(existsSync(path));
  const early = openStreamFile(path);
  await new Promise<void>((resolve) => early.abort(resolve));
  assert.equal(readFileSync(path).length, 0);
});
