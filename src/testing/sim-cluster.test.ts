// Goal: no seed of the simulated cluster breaks a rule, and a seed replays exactly. Method: fresh seeds every time, so that the runs
// of this test add up (`make simulate` goes on without end); and some fixed ones twice, whose traces must hash to the same.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type SimReport, simulate } from './sim-cluster.ts';

/** Some 15 s on an idle core, 40 s on one that is shared by three. */
const freshSeeds = Number(process.env['KEELSON_SIMULATED_SEEDS'] ?? 25);

function failureText({ seed, failure, options, trace }: SimReport): string {
  const again = `node src/testing/simulate.ts --seed=${seed}`;
  return [failure, JSON.stringify(options), ...trace.slice(-60), `all of its trace: ${again}`].join('\n');
}

test('each seed run twice does the same', async () => {
  const small = { durationMs: 10_000 };
  for (const seed of [5, 14, 33, 58]) {
    const run = (): Promise<SimReport> => simulate(seed, { change: (options) => ({ ...options, ...small }) });
    const [first, second] = [await run(), await run()];
    assert.equal(second.traceHash, first.traceHash, `seed ${seed}`);
    assert.equal(second.steps, first.steps);
    assert.deepEqual(second.trace, first.trace);
  }
});

test(`${freshSeeds} fresh seeds`, { timeout: 900_000 }, async () => {
  const from = Date.now() % 1_000_000_000;
  const totals = { answered: 0, faults: 0, revisions: 0, leaders: 0, events: 0 };
  for (let seed = from; seed < from + freshSeeds; seed++) {
    const report = await simulate(seed);
    assert.equal(report.failure, null, failureText(report));
    totals.answered += report.calls.answered;
    totals.faults += Object.values(report.faults).reduce((sum, count) => sum + count, 0);
    totals.revisions += report.revision;
    totals.leaders += report.leaderChanges;
    totals.events += report.watchedEvents;
  }
  // It has been a life: a simulation in which nothing happens finds nothing.
  assert.ok(totals.answered > 100 * freshSeeds, JSON.stringify(totals));
  assert.ok(totals.leaders > 2 * freshSeeds && totals.faults > 50 * freshSeeds, JSON.stringify(totals));
  assert.ok(totals.events > 50 * freshSeeds && totals.revisions > 50 * freshSeeds, JSON.stringify(totals));
});
