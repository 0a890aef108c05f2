// The jobs that the core has asked the flusher for, from the request to the answer: their numbers, who hears the answer, and the
// gate that they wait at (job-gate.ts). What they do is the flusher's part.

import { assert } from '../base/assert.ts';
import { JobGate } from './job-gate.ts';
import { type FromFlusher, type Job, JobHash, type JobKind } from './messages.ts';

export type JobDone = (hash: number, durationMs: number, error: string) => void;

export class Jobs {
  readonly gate: JobGate;
  private readonly waiting = new Map<number, JobDone>();
  private next = 1;
  /** Why no job is done any more; null: they are. */
  private refusal: string | null = null;

  constructor(post: (job: Job) => void) {
    this.gate = new JobGate(post);
  }

  /** `position`, `merges`: what must be flushed and merged before it begins. */
  send(job: JobKind, position: number, merges: number, done: JobDone): void {
    if (this.refusal !== null) {
      done(JobHash.none, 0, this.refusal);
      return;
    }
    const id = this.next++;
    this.waiting.set(id, done);
    this.gate.send({ ...job, id, merges, position });
  }

  /** Fails all that there are and all that come: their database is about to go. */
  refuse(reason: string): void {
    this.refusal = reason;
    this.gate.close();
    const failed = [...this.waiting.values()];
    this.waiting.clear();
    for (const done of failed) done(JobHash.none, 0, reason);
  }

  done(message: FromFlusher & { kind: 'jobDone' }): void {
    if (this.refusal !== null) return;
    const done = this.waiting.get(message.id);
    assert(done !== undefined, 'backend: answer to an unknown job');
    this.waiting.delete(message.id);
    done(message.hash, message.durationMs, message.error);
  }
}
