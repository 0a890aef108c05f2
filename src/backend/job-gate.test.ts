// Goal: no job that deletes what a read needs passes before the read is done, none is lost, and their order stays. Method: jobs of two
// kinds and pins, in scripts; what was posted is read after each step.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JobGate } from './job-gate.ts';
import type { Job } from './messages.ts';

class Bench {
  readonly posted: string[] = [];
  readonly gate: JobGate = new JobGate((job) => this.posted.push(nameOf(job)));

  compact(revision: number): void {
    this.gate.send({ kind: 'compact', revision } as Job);
  }

  hash(): void {
    this.gate.send({ kind: 'hash' } as Job);
  }
}

function nameOf(job: Job): string {
  return job.kind === 'compact' ? `compact ${job.revision}` : job.kind;
}

test('a compaction waits for reads below its revision, and for no others', () => {
  const bench = new Bench();
  const { gate, posted } = bench;
  gate.pin(10);
  bench.compact(10);
  assert.deepEqual(posted, ['compact 10'], 'at its own revision nothing is deleted');
  bench.compact(11);
  assert.deepEqual(posted, ['compact 10']);
  gate.pin(11);
  gate.unpin(10);
  assert.deepEqual(posted, ['compact 10', 'compact 11']);
});

test('jobs behind one that waits keep their order', () => {
  const bench = new Bench();
  bench.gate.pin(5);
  bench.hash();
  bench.compact(8);
  bench.hash();
  bench.compact(9);
  assert.deepEqual(bench.posted, ['hash']);
  bench.gate.unpin(5);
  assert.deepEqual(bench.posted, ['hash', 'compact 8', 'hash', 'compact 9']);
});

test('a revision that several read is needed until the last is done; a later job may need another wait', () => {
  const bench = new Bench();
  for (const revision of [5, 5, 8]) bench.gate.pin(revision);
  bench.compact(6);
  bench.hash();
  bench.compact(9);
  bench.gate.unpin(5);
  assert.deepEqual(bench.posted, []);
  bench.gate.unpin(5);
  assert.deepEqual(bench.posted, ['compact 6', 'hash']);
  bench.gate.unpin(8);
  assert.deepEqual(bench.posted, ['compact 6', 'hash', 'compact 9']);
});

test('a revision that is not pinned is not let go, and nothing is done after the end', () => {
  const bench = new Bench();
  assert.throws(() => bench.gate.unpin(3), /not pinned/);
  bench.gate.pin(3);
  bench.compact(4);
  bench.gate.close();
  bench.gate.unpin(3);
  assert.deepEqual(bench.posted, []);
});
