// Goal: clientv3, the client of Kubernetes, finds nothing missing: deadlines, cancellation, big messages, many streams, snapshots.
// Method: test-e2e/peers/harness/keelson-interop against a fresh keelson; its summary has to say that nothing failed.

import { join } from 'node:path';
import { test } from 'node:test';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { passClientChecks } from './client-checks.ts';

const timeoutMs = 120_000;

test('clientv3 against keelson', { timeout: timeoutMs + 60_000 }, (t) =>
  passClientChecks(t, {
    name: 'interop',
    file: join(peerBinaries, 'keelson-interop'),
    args: (endpoint) => ['-endpoint', endpoint],
    count: 37,
    timeoutMs,
    // Go prints its goroutines.
    signal: 'SIGQUIT',
  }),
);
