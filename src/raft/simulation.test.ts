// Goal: Raft's promises hold whatever the network, the disks and the members do. Method: simulation.ts from many seeds.
// A run takes new seeds and prints the first; RAFT_SIM_SEED=n replays from that one, RAFT_SIM_SEEDS=n runs that many.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Simulation } from './simulation.ts';

const first = Number(process.env['RAFT_SIM_SEED'] ?? Date.now() % 1_000_000_000);
const count = Number(process.env['RAFT_SIM_SEEDS'] ?? 40);

test(`simulation: ${count} seeds from ${first}`, (t) => {
  const sums: Record<string, number> = {};
  for (let seed = first; seed < first + count; seed++) {
    const simulation = new Simulation({ seed, voters: seed % 2 === 0 ? 3 : 5, steps: 8000 });
    try {
      simulation.run();
    } catch (error) {
      throw new Error(`RAFT_SIM_SEED=${seed} RAFT_SIM_SEEDS=1`, { cause: error });
    }
    for (const [key, total] of Object.entries(simulation.totals)) sums[key] = (sums[key] ?? 0) + total;
  }
  t.diagnostic(`seed ${first}: ${JSON.stringify(sums)}`);
  // A simulation in which nothing happens proves nothing.
  for (const [key, sum] of Object.entries(sums)) assert.ok(sum > 0, `no ${key}`);
});
