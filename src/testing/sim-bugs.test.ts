// Goal: the simulation bites. Method: known bugs are planted one at a time (sim-bugs.ts); each must be found within some seeds, by the checker
// that is there for it; and the same seeds without the bug find nothing, so that it is the bug that was found.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type PlantedBug, plantedBugs } from './sim-bugs.ts';
import { type SimReport, simulate } from './sim-cluster.ts';

const seedsMax = 60;

async function firstFailure(bug: PlantedBug): Promise<SimReport | null> {
  const undo = bug.patch?.();
  try {
    for (let seed = 1; seed <= seedsMax; seed++) {
      const report = await simulate(seed, { hooks: bug.hooks, change: bug.change });
      if (report.failure !== null) return report;
    }
    return null;
  } finally {
    undo?.();
  }
}

for (const bug of plantedBugs) {
  test(`found: ${bug.name}`, { timeout: 600_000 }, async () => {
    const found = await firstFailure(bug);
    assert.ok(found !== null, `not found in ${seedsMax} seeds`);
    assert.match(found.failure!, bug.found, `seed ${found.seed}`);
    const without = await simulate(found.seed, { change: bug.change });
    assert.equal(without.failure, null, `seed ${found.seed} without the bug`);
  });
}
