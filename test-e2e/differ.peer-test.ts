// Goal: keelson answers as etcd 3.7 does, field by field, errors included. Method: test-e2e/peers/differ.sh with seeds that are
// fresh in every run (KEELSON_DIFFER_SEED=N replays one; KEELSON_DIFFER_REQUESTS=N makes it longer), the same requests to both; the
// first difference fails.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { join } from 'node:path';
import { test } from 'node:test';
import { repository } from './program.ts';

const SEEDS = 2;
const REQUESTS = Number(process.env['KEELSON_DIFFER_REQUESTS'] ?? 5000);

const fixed = process.env['KEELSON_DIFFER_SEED'];
const seeds = fixed === undefined ? Array.from({ length: SEEDS }, () => randomInt(1, 2 ** 31)) : [Number(fixed)];

for (const seed of seeds) {
  test(`seed ${seed}: ${REQUESTS} requests to etcd and keelson`, { timeout: 60_000 + 36 * REQUESTS }, async (t) => {
    const script = join(repository, 'test-e2e/peers/differ.sh');
    const began = performance.now();
    // Its own process group: a timeout has to end the servers that the script started, too.
    const child = spawn(script, ['-seed', String(seed), '-n', String(REQUESTS)], { detached: true });
    let ended = false;
    t.after(() => {
      if (!ended) process.kill(-child.pid!, 'SIGTERM');
    });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
    ended = true;
    assert.equal(code, 0, output.slice(-6000));
    assert.ok(output.includes(String(REQUESTS)), output.slice(-2000));
    t.diagnostic(`${(performance.now() - began).toFixed(0)} ms`);
  });
}
