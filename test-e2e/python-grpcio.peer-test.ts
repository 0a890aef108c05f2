// Goal: a client of another family finds nothing missing: Google's gRPC core by Python, with stubs made from etcd's own protos. Calls of
// every kind, deadlines, messages at the limits, compression, pings. Method: test-e2e/peers/python/keelson_grpcio.py against a fresh store.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Program, peerBinaries, repository, scratchFolder } from './program.ts';
import { Store } from './store.ts';

const CHECKS = 23;
const TIMEOUT_MS = 120_000;

const environment = join(peerBinaries, '../python');
const python = join(environment, 'bin/python');
const skip = existsSync(python)
  ? false
  : `${python} is missing: install python3 with venv and run test-e2e/peers/build.sh python`;

test('grpcio against keelson', { skip, timeout: TIMEOUT_MS + 60_000 }, async (t) => {
  const scratch = scratchFolder('grpcio');
  const store = await Store.create(scratch.folder);
  await store.start();
  const checks = new Program({
    name: 'grpcio',
    file: python,
    args: [join(repository, 'test-e2e/peers/python/keelson_grpcio.py'), store.endpoint],
    folder: scratch.folder,
    env: { PYTHONPATH: join(environment, 'stubs'), PYTHONDONTWRITEBYTECODE: '1' },
  });
  const timer = setTimeout(() => void checks.stop('SIGKILL'), TIMEOUT_MS);
  try {
    await Promise.race([checks.exited, store.exited]);
    const output = checks.output();
    t.diagnostic(output.trim().split('\n').at(-1)!);
    const failures = output.split('\n').filter((line) => line.startsWith('FAIL'));
    assert.deepEqual(failures, [], store.log().slice(-3000));
    const summary = /^(\d+) passed, 0 failed$/m.exec(output);
    assert.ok(summary !== null && Number(summary[1]) >= CHECKS, `${output}\n${store.log().slice(-3000)}`);
    const status = await store.stop();
    if (!store.isEtcd) assert.equal(status.code, 0);
  } finally {
    clearTimeout(timer);
    await checks.stop('SIGKILL');
    await store.kill();
    scratch.remove();
  }
});
