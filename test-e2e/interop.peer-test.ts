// Goal: clientv3, the client of Kubernetes, finds nothing missing: deadlines, cancellation, big messages, many streams, snapshots.
// Method: test-e2e/peers/harness/keelson-interop against a fresh keelson; its summary has to say that nothing failed.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { peerBinaries, scratchFolder } from './program.ts';
import { Store } from './store.ts';

test('clientv3 against keelson', { timeout: 240_000 }, async (t) => {
  const scratch = scratchFolder('interop');
  const store = await Store.create(scratch.folder);
  await store.start();
  try {
    const output = await new Promise<string>((resolve) => {
      const args = ['-endpoint', store.endpoint];
      execFile(join(peerBinaries, 'keelson-interop'), args, { env: {} }, (_error, stdout, stderr) =>
        resolve(stdout + stderr),
      );
    });
    const failures = output.split('\n').filter((line) => line.startsWith('FAIL'));
    assert.deepEqual(failures, []);
    const summary = /^(\d+) passed, 0 failed$/m.exec(output);
    assert.ok(summary !== null && Number(summary[1]) >= 37, output);
    t.diagnostic(summary[0]);
    assert.equal((await store.stop()).code, 0);
  } finally {
    await store.kill();
    scratch.remove();
  }
});
