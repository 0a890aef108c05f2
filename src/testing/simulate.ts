// make simulate: seed after seed of the simulated cluster until it is stopped, a JSON line for each and the totals now and then. A seed that
// fails prints the end of its trace and ends the run (--keep-going: it does not). With --seed=N that seed alone, with all of its trace.
//   node src/testing/simulate.ts [--seed=N] [--from=N] [--seconds=N] [--keep-going] [--members=N]
// --members: so many at the beginning, in the place of what the seed draws.

import { parseArgs } from 'node:util';
import { type SimReport, simulate } from './sim-cluster.ts';
import type { SimOptions } from './sim-options.ts';

interface Totals {
  seeds: number;
  failed: number;
  hours: number;
  faults: number;
  calls: number;
  events: number;
}

function lineOf(report: SimReport): string {
  const { seed, options, simulatedMs, failure, traceHash, faults, calls, revision, leaderChanges, watchedEvents } =
    report;
  return JSON.stringify({
    seed,
    verdict: failure ?? 'ok',
    members: options.memberCount,
    simulatedSeconds: Math.round(simulatedMs / 1000),
    revision,
    leaderChanges,
    watchedEvents,
    calls,
    faults,
    traceHash,
  });
}

function add(totals: Totals, { simulatedMs, failure, faults, calls, watchedEvents }: SimReport): void {
  totals.seeds++;
  totals.failed += failure === null ? 0 : 1;
  totals.hours += simulatedMs / 3_600_000;
  totals.faults += Object.values(faults).reduce((sum, count) => sum + count, 0);
  totals.calls += calls.answered + calls.unknown;
  totals.events += watchedEvents;
}

function print(totals: Totals): void {
  const { seeds, failed, hours, faults, calls, events } = totals;
  console.log(
    `${seeds} seeds, ${failed} failed: ${hours.toFixed(2)} simulated hours, ${faults} faults, ${calls} calls, ${events} events watched`,
  );
}

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    from: { type: 'string' },
    seconds: { type: 'string' },
    'keep-going': { type: 'boolean', default: false },
    members: { type: 'string' },
  },
});

function change(options: SimOptions): SimOptions {
  return values.members === undefined ? options : { ...options, memberCount: Number(values.members) };
}

async function one(seed: number): Promise<void> {
  const report = await simulate(seed, { change, onLine: (line) => console.log(line) });
  console.log(JSON.stringify(report.options));
  console.log(lineOf(report));
  process.exitCode = report.failure === null ? 0 : 1;
}

async function many(from: number, seconds: number): Promise<void> {
  const totals: Totals = { seeds: 0, failed: 0, hours: 0, faults: 0, calls: 0, events: 0 };
  let isStopped = false;
  process.once('SIGINT', () => {
    isStopped = true;
  });
  const endMs = performance.now() + seconds * 1000;
  for (let seed = from; !isStopped && performance.now() < endMs; seed++) {
    const report = await simulate(seed, { change });
    add(totals, report);
    console.log(lineOf(report));
    if (totals.seeds % 100 === 0) print(totals);
    if (report.failure === null) continue;
    for (const line of report.trace) console.log(line);
    const members = values.members === undefined ? '' : ` --members=${values.members}`;
    console.log(`again, with all of its trace: node src/testing/simulate.ts --seed=${seed}${members}`);
    process.exitCode = 1;
    if (!values['keep-going']) break;
  }
  print(totals);
}

if (values.seed !== undefined) await one(Number(values.seed));
else await many(Number(values.from ?? Date.now() % 1_000_000_000), Number(values.seconds ?? Infinity));
