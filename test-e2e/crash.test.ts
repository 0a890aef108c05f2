// Goal: kill -9 at any instant loses nothing that was acknowledged, invents nothing, and leaves a keyspace that hashes as its
// history says. Method: one data directory; a random load on a real server, SIGKILL at a random moment (sometimes again during
// the recovery), a restart, and every promise checked against a model; then the next round on the same directory.
//
//   KEELSON_KILLS=200 KEELSON_SEED=7 node --test test-e2e/crash.test.ts

import { test } from 'node:test';
import { CrashRun } from './support/crash-run.ts';

const kills = Number(process.env['KEELSON_KILLS'] ?? 15);
const seed = Number(process.env['KEELSON_SEED'] ?? Date.now() % 1_000_000);

test(`${kills} kills under load lose nothing acknowledged (KEELSON_SEED=${seed})`, async (context) => {
  const run = new CrashRun(seed);
  try {
    for (let i = 0; i < kills; i++) {
      await run.round();
      if (i % 20 === 19) context.diagnostic(run.summary());
    }
    context.diagnostic(run.summary());
  } finally {
    run.end();
  }
});
