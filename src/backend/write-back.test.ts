// Goal: nothing large is begun once the engine closes; and bounds under which whoever waits for room would wait for ever are refused.
// Method: an engine over tables in memory whose flusher works when it is told to; what it is sent is noted.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimClock } from '../io/clock.ts';
import { type BackendLimits, backendLimits } from '../storage-limits.ts';
import { applyTo } from '../testing/backend-model.ts';
import { MemoryStore } from '../testing/memory-tables.ts';
import { Backend } from './backend.ts';
import { FlusherInline } from './flusher-port.ts';
import type { ToFlusher } from './messages.ts';

const limits: BackendLimits = { ...backendLimits, mergeEntries: 20, mergeSliceKeys: 8, mergeStepKeys: 4 };

/** Notes the kinds of the messages that it gets. */
class NotedFlusher extends FlusherInline {
  readonly kinds: string[] = [];

  override post(message: ToFlusher): void {
    this.kinds.push(message.kind);
    super.post(message);
  }
}

class Engine {
  readonly port: NotedFlusher;
  readonly backend: Backend;

  constructor(bounds: BackendLimits) {
    const store = new MemoryStore();
    const clock = new SimClock();
    this.port = new NotedFlusher({
      environment: store.openWriter(),
      pin: () => store.openReader(),
      now: () => clock.nowMs(),
      limits: bounds,
    });
    const onFatal = (error: Error): void => assert.fail(error);
    const parts = { reader: store.openReader(), port: this.port, reopen: null };
    this.backend = new Backend({ path: '', clock, limits: bounds, onFatal }, parts);
  }

  put(count: number): void {
    for (let i = 0; i < count; i++) applyTo(this.backend, { kind: 'txn', changes: [{ key: `k${i}`, value: 'v' }] });
  }

  merges(): number {
    return this.port.kinds.filter((kind) => kind === 'merge').length;
  }

  /** Until it is closed. */
  close(): void {
    let isClosed = false;
    this.backend.close(() => {
      isClosed = true;
    });
    this.port.run();
    assert.ok(isClosed, 'it closes');
  }
}

test('a merge that ends while the engine closes begins no other, though one is due', () => {
  const engine = new Engine(limits);
  engine.put(21);
  assert.equal(engine.merges(), 1);
  engine.put(30);
  assert.ok(engine.backend.index.activeEntries >= limits.mergeEntries, 'the next one is due');
  // A compaction, which wants it merged, too.
  applyTo(engine.backend, { kind: 'compact', revision: engine.backend.currentRevision });
  // Its flush and all slices of the first merge are done before it hears of any of them.
  engine.backend.flush(() => {});
  for (let i = 0; i < 20; i++) engine.port.flusher.step();
  engine.close();
  assert.equal(engine.merges(), 1);
});

test('without the end, it begins the next one at once', () => {
  const engine = new Engine(limits);
  engine.put(51);
  engine.port.run();
  assert.equal(engine.merges(), 2);
});

test('bounds by which changes would wait for a merge that never begins are refused', () => {
  const refused = { ...limits, mergeEntries: 21, indexLagEntriesMax: 20 };
  assert.throws(() => new Engine(refused), /changes wait for room that no merge would make/);
  const taken = new Engine({ ...limits, indexLagEntriesMax: 20 });
  taken.close();
});
