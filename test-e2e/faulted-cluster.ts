// The course of every test that harms a cluster: three new members under load, the harm, then the verdict on all that the clients were
// told and the members' agreement. Figures go to the test's diagnostics.

import type { TestContext } from 'node:test';
import type { Cluster } from './cluster.ts';
import { HistoryLoad } from './support/history-load.ts';

export interface Harmed {
  readonly cluster: Cluster;
  readonly load: HistoryLoad;
  /** Prints how long it takes from now until a write is acknowledged that began later. */
  recovery(what: string): Promise<void>;
}

/** How often each test does what it does: 1 unless KEELSON_ROUNDS says more. */
export const rounds: number = Number(process.env['KEELSON_ROUNDS'] ?? 1);
/** Of a test: a start, a verdict, and its rounds. */
export const timeout: number = 60_000 + rounds * 60_000;

export async function harm(
  t: TestContext,
  start: () => Promise<Cluster>,
  work: (harmed: Harmed) => Promise<void>,
): Promise<void> {
  const cluster = await start();
  const load = new HistoryLoad(cluster.endpoints);
  const recovery = async (what: string): Promise<void> => {
    t.diagnostic(`${what}: the next write after ${Math.round(await load.nextWriteMs())} ms`);
  };
  try {
    await load.nextWriteMs();
    for (let round = 0; round < rounds; round++) await work({ cluster, load, recovery });
    await cluster.leader();
    await load.verdict();
    await cluster.agreed();
  } finally {
    t.diagnostic(load.figures());
    await load.end();
    await cluster.end();
  }
}
