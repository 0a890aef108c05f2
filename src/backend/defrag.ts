// Placeholder of the next step.
import type { LmdbEnvironment } from '../io/lmdb.ts';
import type { Flusher, RunningJob } from './flusher.ts';
export class DefragJob implements RunningJob {
  readonly hash = 0;
  readonly waiting = false;
  readonly mustEnd = true;
  constructor(_flusher: Flusher, _environment: LmdbEnvironment, _wake: () => void) {}
  step(): boolean {
    throw new Error('not yet');
  }
}
