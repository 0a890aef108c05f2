// The jobs that the core has asked the flusher for, from the request to the answer: their numbers, who hears the answer, and the
// gate that they wait at (job-gate.ts). What they do is the flusher's part.

import { assert } from '../base/assert.ts';
import { JobGate } from './job-gate.ts';
import type { FromFlusher, Job, JobKind } from './messages.ts';

export type JobDone = (hash: number, durationMs: number, error: string) => void;

export class Jobs {
  readonly gate: JobGate;
  private readonly waiting = new Map<number, JobDone>();
  private next = 1;

  constructor(post: (job: Job) => void) {
    this.gate = new JobGate(post);
  }

  /** `position`, `merges`: what must be flushed and merged before it begins. */
  send(job: JobKind, position: number, merges: number, done: JobDone): void {
    const id = this.next++;
    this.waiting.set(id, done);
    this.gate.send({ ...job, id, merges, position });
  }

  done(message: FromFlusher & { kind: 'jobDone' }): void {
    const done = this.waiting.get(message.id);
    assert(done !== undefined, 'backend: answer to an unknown job');
    this.waiting.delete(message.id);
    done(message.hash, message.durationMs, message.error);
  }
}
