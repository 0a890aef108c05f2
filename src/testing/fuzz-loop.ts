// Runs a seeded fuzz function over and over: from a test for about a second, from the command line for --seconds. The seed of
// a failing run is part of its error, and --seed replays it.

import { parseArgs } from 'node:util';

/** Runs seeds from `firstSeed` up for `seconds`. Returns how many; throws the first failure with its seed. */
export function fuzzFor(run: (seed: number) => void, seconds: number, firstSeed: number): number {
  const until = performance.now() + seconds * 1000;
  let seed = firstSeed;
  do {
    try {
      run(seed);
    } catch (error) {
      throw new Error(`fuzz run with --seed ${seed} failed`, { cause: error });
    }
    seed += 1;
  } while (performance.now() < until);
  return seed - firstSeed;
}

/** The command line of a `*.fuzz.ts`. With --seed and no --seconds that seed alone is run. */
export function fuzzMain(run: (seed: number) => void): void {
  const { values } = parseArgs({ options: { seconds: { type: 'string' }, seed: { type: 'string' } } });
  const seed = values.seed === undefined ? Date.now() % 1_000_000_000 : Number(values.seed);
  const seconds = values.seconds === undefined ? (values.seed === undefined ? 10 : 0) : Number(values.seconds);
  console.log(`first seed ${seed}`);
  console.log(`${fuzzFor(run, seconds, seed)} runs`);
}
