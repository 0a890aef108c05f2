// Goal: the server conforms to RFC 9113 and RFC 7541 as h2spec sees them: generic, http2 and hpack sections whole, with its
// strict cases. Method: h2spec (test-e2e/peers/build.sh h2spec) against the echo server on a real socket.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { startEchoServer } from '../testing/echo-server.ts';

const cache = process.env['KEELSON_CACHE'] ?? path.join(homedir(), '.cache', 'keelson');
const h2spec = path.join(cache, 'bin', 'h2spec');
const skip = existsSync(h2spec) ? false : `${h2spec} is missing: test-e2e/peers/build.sh h2spec builds it`;

test('h2spec --strict', { skip }, async () => {
  // A number of streams is announced, so that the case that exceeds it is not skipped.
  const server = await startEchoServer([{ host: '127.0.0.1', port: 0 }], { concurrentStreamsMax: 100 });
  try {
    const args = ['-h', '127.0.0.1', '-p', String(server.port), '-o', '2', '--strict'];
    const { stdout } = await promisify(execFile)(h2spec, args, { timeout: 120_000 }).catch(
      (error: { stdout?: string; message: string }) => ({ stdout: error.stdout ?? error.message }),
    );
    const summary = /(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed/.exec(stdout);
    assert.ok(summary !== null, stdout);
    const [, tests, passed, skipped, failed] = summary.map(Number);
    assert.deepEqual({ passed, skipped, failed }, { passed: tests, skipped: 0, failed: 0 }, stdout.slice(-4000));
    assert.ok(tests! >= 146, `${tests} tests`);
  } finally {
    await server.close();
  }
});
