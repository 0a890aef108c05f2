// The child of the kill test in backend-lmdb.test.ts: applies the operations that a seed gives to an engine over LMDB, from
// the recovered index on, with compactions, defragmentations and snapshots beside, and prints each durable index. Runs until
// it is killed, or until the failpoint of that name panics.   node backend-crash.ts PATH SEED [FAILPOINT]

import { writeSync } from 'node:fs';
import { Backend } from '../backend/backend.ts';
import type { BackendOptions } from '../backend/backend-options.ts';
import { armFailpoints, setFailpoint } from '../base/failpoint.ts';
import { systemClock } from '../io/clock.ts';
import { processFailpointControl } from '../io/failpoint-http.ts';
import { SeededRandom } from '../io/random.ts';
import { backendLimits, indexLimits } from '../storage-limits.ts';
import { applyTo, Model, OperationSource } from './backend-model.ts';

/** Small ones, so that merges, slices and slabs turn over many times in a second. */
export function crashOptions(path: string): BackendOptions {
  return {
    path,
    clock: systemClock,
    batchIntervalMs: 5,
    onFatal: (error) => {
      writeSync(2, `fatal: ${error.message}\n`);
      process.exit(7);
    },
    limits: {
      ...backendLimits,
      slabBytes: 65536,
      commitRows: 50,
      mergeEntries: 200,
      mergeSliceKeys: 40,
      mergeStepKeys: 20,
      mergeIdleTicks: 3,
      compactSliceRows: 30,
      indexLagEntriesMax: 400,
      defragCatchUpRows: 100,
      defragLastRoundRows: 60,
      defragRoundsMax: 6,
    },
    indexLimits: { ...indexLimits, deltaEntries: 512, keySlabBytes: 4096, countBlockKeys: 64, countBlockKeysMin: 8 },
  };
}

/** The operations of a seed; the same for the same seed. */
export class SeededOperations {
  readonly model: Model = new Model();
  private readonly source: OperationSource;

  constructor(seed: number) {
    this.source = new OperationSource(new SeededRandom(seed), 300);
  }

  /** Draws the next one and applies it to the model. */
  next(): ReturnType<OperationSource['next']> {
    const operation = this.source.next(this.model);
    this.model.apply(operation);
    return operation;
  }
}

function run(path: string, seed: number, point: string | undefined): void {
  let failpoints: SharedArrayBuffer | null = null;
  if (point !== undefined) {
    failpoints = armFailpoints(processFailpointControl);
    // Rare stages must panic soon, frequent ones not at once.
    const rare = /^(defrag|compact.*SetFinished)/.test(point);
    const error = setFailpoint(point, rare ? '50.0%panic' : '2.0%panic');
    if (error !== null) throw new Error(error);
  }
  const backend = Backend.open({ ...crashOptions(path), failpoints });
  const operations = new SeededOperations(seed);
  while (operations.model.index < backend.consistentIndex) operations.next();
  backend.onDurable = (index) => void writeSync(1, `${index}\n`);
  let defragging = false;
  let turnCount = 0;
  const turn = (): void => {
    for (let i = 0; i < 20; i++) applyTo(backend, operations.next());
    if (!defragging && (++turnCount === 2 || Math.random() < 0.05)) {
      defragging = true;
      backend.defrag((error) => {
        if (error !== null) writeSync(2, `defrag: ${error.message}\n`);
        else writeSync(1, 'defrag\n');
        defragging = false;
      });
    }
    setTimeout(turn, backend.backlog() > 200_000 ? 5 : 0);
  };
  turn();
}

if (process.argv[1] === import.meta.filename) run(process.argv[2]!, Number(process.argv[3]), process.argv[4]);
