// Goal: kill -9 at any instant loses nothing that was acknowledged, invents nothing, and leaves a keyspace that hashes as its
// history says. Method: one data directory; a random load on a real server, SIGKILL at a random moment (sometimes again during
// the recovery), a restart, and every promise checked against a model; then the next round on the same directory.
//
// A second directory takes values so large that the log goes through several segments, which are released and reused.
//
//   KEELSON_KILLS=200 KEELSON_SEED=7 node --test test-e2e/crash.test.ts

import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
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

const heavyKills = Math.max(2, Math.floor(kills / 20));

test(`${heavyKills} kills while the log rotates (KEELSON_SEED=${seed})`, async (context) => {
  const run = new CrashRun(seed);
  try {
    for (let i = 0; i < heavyKills; i++) {
      await run.round({
        load: { inFlight: 12, valueBytesMax: 350_000, largeEach: 2 },
        strike: async (server) => {
          await sleep(1000 + run.random.below(3000));
          server.child.kill('SIGKILL');
        },
      });
    }
    context.diagnostic(run.summary());
  } finally {
    run.end();
  }
});
