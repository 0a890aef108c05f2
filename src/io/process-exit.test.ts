// Goal: exitNow() ends the process at once with its code, whatever another thread does. Method: a process of its own whose worker
// stands in a read(2) of a pipe to which nobody writes, where process.exit() would wait.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const script = `
import { openSync, readSync } from 'node:fs';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
const { exitNow } = await import(process.env.MODULE);
if (isMainThread) {
  const worker = new Worker(new URL(import.meta.url));
  worker.once('message', () => setTimeout(() => exitNow(15), 100));
} else {
  // For reading and writing: else the opening would wait.
  const pipe = openSync(process.env.PIPE, 'r+');
  parentPort.postMessage('reads');
  readSync(pipe, Buffer.alloc(1));
}
`;

test('the process ends with its code while another thread stands in the kernel', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'keelson-exit-'));
  try {
    const pipe = join(folder, 'pipe');
    assert.equal(spawnSync('mkfifo', [pipe]).status, 0);
    const file = join(folder, 'script.mjs');
    writeFileSync(file, script);
    const env = { MODULE: new URL('./process-exit.ts', import.meta.url).href, PIPE: pipe };
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', file], { env });
    const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
    const code = await new Promise((resolve) => child.once('close', resolve));
    clearTimeout(timer);
    assert.equal(code, 15);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
