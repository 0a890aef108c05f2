// Goal: clientv3, the client of Kubernetes, finds nothing missing: deadlines, cancellation, big messages, many streams, snapshots.
// Method: test-e2e/peers/harness/keelson-interop against a fresh keelson; its summary has to say that nothing failed.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { Program, peerBinaries, scratchFolder } from './program.ts';
import { Store } from './store.ts';

const CHECKS = 37;
const TIMEOUT_MS = 120_000;

test('clientv3 against keelson', { timeout: TIMEOUT_MS + 60_000 }, async (t) => {
  const scratch = scratchFolder('interop');
  const store = await Store.create(scratch.folder);
  await store.start();
  const file = join(peerBinaries, 'keelson-interop');
  const interop = new Program({ name: 'interop', file, args: ['-endpoint', store.endpoint], folder: scratch.folder });
  const timer = setTimeout(() => void interop.stop('SIGQUIT'), TIMEOUT_MS); // Go prints its goroutines
  try {
    // A store that falls over would let every further check wait for its own timeout.
    await Promise.race([interop.exited, store.exited]);
    const output = interop.output();
    t.diagnostic(output.trim().split('\n').at(-1)!);
    const failures = output.split('\n').filter((line) => line.startsWith('FAIL'));
    assert.deepEqual(failures, [], store.log().slice(-3000));
    const summary = /^(\d+) passed, 0 failed$/m.exec(output);
    assert.ok(summary !== null && Number(summary[1]) >= CHECKS, `${output}\n${store.log().slice(-3000)}`);
    const status = await store.stop();
    if (!store.isEtcd) assert.equal(status.code, 0);
  } finally {
    clearTimeout(timer);
    await interop.stop('SIGKILL');
    await store.kill();
    scratch.remove();
  }
});
