// Fuzz of everything that reads what the tables hold. A run makes a database by a random history, over tables in memory, changes some
// entries (bytes of a value or of a key, lengths, an entry that goes), opens it, and reads, hashes, writes, merges and compacts: each
// must come to an end, or to the FatalError of a damaged database (or of another version's); never to another error. Wrong answers
// are not looked for: most such changes cannot be told.
//
//   node src/backend/damage.fuzz.ts --seconds 60 [--seed 1]

import assert from 'node:assert/strict';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { SimClock } from '../io/clock.ts';
import { type Random, SeededRandom } from '../io/random.ts';
import { type BackendLimits, backendLimits, type IndexLimits, indexLimits } from '../storage-limits.ts';
import { applyTo, Model, type Operation, OperationSource } from '../testing/backend-model.ts';
import { fuzzMain } from '../testing/fuzz-loop.ts';
import { MemoryStore } from '../testing/memory-tables.ts';
import { Backend } from './backend.ts';
import { TABLE_NAMES } from './engine-state.ts';
import { FlusherInline } from './flusher-port.ts';

const limits: BackendLimits = {
  ...backendLimits,
  slabBytes: 4096,
  commitRows: 10,
  garbageBlockEntries: 4,
  mergeEntries: 20,
  mergeSliceKeys: 8,
  mergeStepKeys: 4,
  compactSliceRows: 5,
  compactCollectRows: 10,
  compactRoundRows: 20,
};
const smallIndex: IndexLimits = {
  ...indexLimits,
  deltaEntries: 64,
  keySlabBytes: 256,
  diskKeyBytes: 12,
  inlineRevisions: 3,
  chunkRevisions: 3,
  countBlockKeys: 16,
  countBlockKeysMin: 4,
};

/** With leases that come and go, and every third key longer than the tables take. */
function varied(operation: Operation): Operation {
  if (operation.kind !== 'txn') return operation;
  const changes = operation.changes.map(({ key, value }) => ({
    key: Number(key.slice(1)) % 3 === 0 ? key.padStart(20, 'long key ') : key,
    value,
    lease: (value?.length ?? 0) % 4,
  }));
  return { kind: 'txn', changes };
}

/** Over tables in memory; the flusher works when it is told to. */
export class Engine {
  readonly backend: Backend;
  readonly port: FlusherInline;
  readonly clock: SimClock = new SimClock();
  failure: FatalError | null = null;

  constructor(store: MemoryStore) {
    this.port = new FlusherInline({
      environment: store.openWriter(),
      pin: () => store.openReader(),
      now: () => this.clock.nowMs(),
      limits,
    });
    const onFatal = (error: FatalError): void => {
      this.failure = error;
    };
    this.backend = new Backend(
      { path: '', clock: this.clock, limits, indexLimits: smallIndex, onFatal },
      { reader: store.openReader(), port: this.port, reopen: null },
    );
  }

  private canCompactTo(revision: number): boolean {
    return revision > this.backend.compactRevision && revision <= this.backend.currentRevision;
  }

  work(operations: number, random: Random, model: Model): void {
    const source = new OperationSource(random, 40);
    for (let i = 0; i < operations && this.failure === null; i++) {
      const operation = varied(source.next(model));
      model.apply(operation);
      // The model goes its own way, since it knows of no damage.
      if (operation.kind === 'compact' && !this.canCompactTo(operation.revision)) continue;
      applyTo(this.backend, operation);
      if (random.below(10) === 0) this.port.run();
    }
    this.backend.flush(() => {});
    this.port.run();
  }
}

/** All is flushed and merged. */
export function makeStore(random: Random): { readonly store: MemoryStore; readonly model: Model } {
  const store = new MemoryStore();
  const model = new Model();
  const engine = new Engine(store);
  engine.work(100 + random.below(200), random, model);
  engine.backend.close(() => {});
  engine.port.run();
  assert.equal(engine.failure, null);
  return { store, model };
}

function harmed(bytes: Buffer, random: Random): Buffer {
  const out = Buffer.from(bytes);
  switch (random.below(5)) {
    case 0:
      return out.subarray(0, random.below(out.length + 1));
    case 1:
      return Buffer.concat([out, Buffer.alloc(1 + random.below(20), random.below(256))]);
    case 2:
      random.fill(out);
      return out;
    default:
      for (let i = 1 + random.below(3); i > 0 && out.length > 0; i--) out[random.below(out.length)] = random.below(256);
      return out;
  }
}

function damage(store: MemoryStore, random: Random): void {
  const writer = store.openWriter();
  writer.transaction(() => {
    for (let i = 1 + random.below(3); i > 0; i--) {
      const table = writer.table(TABLE_NAMES[random.below(TABLE_NAMES.length)]!);
      const entries: [Buffer, Buffer][] = [];
      table.scan(undefined, undefined, (key, value) => entries.push([Buffer.from(key), Buffer.from(value)]) > 0);
      const entry = entries[random.below(Math.max(1, entries.length))];
      if (entry === undefined) continue;
      const [key, value] = entry;
      const kind = random.below(4);
      if (kind === 0) table.remove(key);
      else if (kind === 1) {
        const other = harmed(key, random);
        table.remove(key);
        if (other.length > 0) table.put(other, value);
      } else table.put(key, harmed(value, random));
    }
  });
  writer.close();
}

function readAll({ backend, port }: Engine, random: Random): void {
  const out = { buffer: Buffer.alloc(0), start: 0, end: 0 };
  const first = Buffer.alloc(1);
  for (const revision of [
    Infinity,
    backend.currentRevision,
    Math.max(backend.compactRevision, backend.currentRevision - random.below(30)),
  ]) {
    backend.index.count(first, null, revision);
    backend.index.scan(first, null, revision, (_key, _start, _end, state) => {
      backend.readRow(state.main, state.sub, state.ordinal, out);
      return true;
    });
  }
  backend.scanRows(0, backend.currentRevision, () => true);
  backend.index.visitLeased(() => {});
  backend.hashKv(backend.currentRevision, backend.compactRevision === 0 ? -1 : backend.compactRevision, () => {});
  backend.hash(() => {});
  port.run();
}

/** Returns whether the damage was seen. */
export function fuzzDamage(seed: number): boolean {
  const random = new SeededRandom(seed);
  const { store, model } = makeStore(random);
  damage(store, random);
  let engine: Engine | null = null;
  try {
    const opened = new Engine(store);
    engine = opened;
    readAll(opened, random);
    // Its history goes on where the engine stands.
    model.revision = Math.max(1, opened.backend.currentRevision);
    model.compactRevision = opened.backend.compactRevision;
    opened.work(100, random, model);
    if (opened.failure === null) readAll(opened, random);
  } catch (error) {
    if (error instanceof FatalError && isRefusal(error)) return true;
    throw error;
  }
  const { failure } = engine;
  if (failure !== null && !isRefusal(failure)) throw failure;
  return failure !== null;
}

/** A byte of the format's number may make it another version's. */
function isRefusal({ exitCode, message }: FatalError): boolean {
  return exitCode === ExitCode.backendCorrupt || /written by another version/.test(message);
}

if (import.meta.main) {
  let runs = 0;
  let seen = 0;
  fuzzMain((seed) => {
    runs++;
    if (fuzzDamage(seed)) seen++;
  });
  console.log(`damage was seen in ${seen} of ${runs} runs`);
}
