// Goal: leases and their keys of a new state come in slices, and nobody sees some of them: those of before until all are there. Method: a
// database in memory with more of both than a turn takes; the turns are taken by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend } from '../backend/backend.ts';
import { restoredLeasesPerTurn } from '../cluster-limits.ts';
import { SimClock } from '../io/clock.ts';
import { SeededRandom } from '../io/random.ts';
import { Lessor } from '../lease/lessor.ts';
import { Logger } from '../telemetry/logger.ts';
import { applyTo } from '../testing/backend-model.ts';
import { MemoryStore } from '../testing/memory-tables.ts';
import { openSimBackend } from '../testing/sim-database.ts';
import { SimDisk } from '../testing/sim-disk.ts';
import { restoreLeases, type StateParts } from './restored-state.ts';

const leaseCount = 2 * restoredLeasesPerTurn + 1;
const silent = new Logger({ level: 'fatal', format: 'json', sink: { write: () => {}, flush: () => {} }, now: () => 0 });

function newLessor(backend: Backend): Lessor {
  return new Lessor({
    nowMs: () => 0,
    minTtlSeconds: 1,
    bucket: {
      put: (key, value) => backend.bucketPut('lease', key, value),
      remove: (key) => backend.bucketDelete('lease', key),
    },
    counters: { granted: 0, renewed: 0, revoked: 0, expired: 0, observeTtl: () => {} },
    checkpoints: false,
    persistsCheckpoints: () => false,
  });
}

/** With leases of 60 seconds, and a key for each of the first thousand. */
function filled(): Backend {
  const clock = new SimClock();
  const host = { tables: new MemoryStore(), disk: new SimDisk(new SeededRandom(1)), clock, later: () => {} };
  const onFatal = (error: Error): never => assert.fail(error);
  const backend = openSimBackend(host, { path: '/data/database', clock, onFatal });
  const lessor = newLessor(backend);
  for (let id = 1; id <= leaseCount; id++) lessor.grant(BigInt(id), 60n);
  for (let lease = 1; lease <= 1000; lease++) {
    applyTo(backend, { kind: 'txn', changes: [{ key: `key${lease}`, value: 'x', lease }] });
  }
  return backend;
}

class Turns {
  readonly lessor: Lessor;
  private readonly waiting: (() => void)[] = [];
  isStopped = false;
  isDone = false;

  constructor(backend: Backend) {
    this.lessor = newLessor(backend);
    // Of the state before: it is in no database any more.
    assert.ok(this.lessor.recover(Buffer.from([0x08, 0x7f, 0x10, 5])));
    const schedule = (run: () => void): void => void this.waiting.push(run);
    const parts = { backend, lessor: this.lessor, logger: silent, schedule } as unknown as StateParts;
    restoreLeases(
      parts,
      () => this.isStopped,
      () => {
        this.isDone = true;
      },
    );
  }

  take(): boolean {
    const turn = this.waiting.shift();
    turn?.();
    return turn !== undefined;
  }
}

test('leases come in slices, and are seen when all are there', () => {
  const turns = new Turns(filled());
  const { lessor } = turns;
  let taken = 0;
  while (!turns.isDone) {
    assert.equal(lessor.count, 1, 'some of them');
    assert.equal(lessor.lookup(0x7fn)!.ttlSeconds, 5);
    assert.ok(turns.take());
    taken++;
  }
  assert.ok(taken >= 3, `${taken} turns for ${leaseCount} leases`);
  assert.equal(lessor.count, leaseCount);
  assert.equal(lessor.lookup(0x7fn)!.ttlSeconds, 60);
  assert.deepEqual([...lessor.lookup(1000n)!.keys], ['key1000']);
  assert.deepEqual([...lessor.lookup(1001n)!.keys], []);
  assert.equal(turns.take(), false);
});

test('a stop between the slices ends it', () => {
  const turns = new Turns(filled());
  assert.ok(turns.take());
  turns.isStopped = true;
  assert.ok(turns.take());
  assert.equal(turns.take(), false);
  assert.equal(turns.isDone, false);
});
