// Goal: a client of another family finds nothing missing: Google's gRPC core by Python, with stubs made from etcd's own protos. Calls of
// every kind, deadlines, messages at the limits, compression, pings. Method: test-e2e/peers/python/keelson_grpcio.py against a fresh store.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { passClientChecks } from './client-checks.ts';
import { repository } from './program.ts';

const timeoutMs = 120_000;
const environment = join(peerBinaries, '../python');
const python = join(environment, 'bin/python');
const skip = existsSync(python)
  ? false
  : `${python} is missing: install python3 with venv and run test-e2e/peers/build.sh python`;

test('grpcio against keelson', { skip, timeout: timeoutMs + 60_000 }, (t) =>
  passClientChecks(t, {
    name: 'grpcio',
    file: python,
    args: (endpoint) => [join(repository, 'test-e2e/peers/python/keelson_grpcio.py'), endpoint],
    env: { PYTHONPATH: join(environment, 'stubs'), PYTHONDONTWRITEBYTECODE: '1' },
    count: 23,
    timeoutMs,
    signal: 'SIGKILL',
  }),
);
