// What a start reads from the tables: the engine's numbers, and the rows that the index tables do not know yet, which become
// the index's first delta. The write-ahead log is replayed afterwards by the server, from the consistent index on.

import type { ReadEnvironment } from '../io/table.ts';
import {
  decodeCounter,
  encodeRevisionKey,
  isRevisionKey,
  MetaKey,
  REVISION_KEY_BYTES,
  revisionMain,
  TOMBSTONE_KEY_BYTES,
} from '../snapshot/schema.ts';
import { readEngineState } from './engine-state.ts';
import type { KeyIndex } from './index.ts';
import { corrupt, IndexRow } from './index-row.ts';

export interface Recovered {
  readonly generation: number;
  readonly consistentIndex: number;
  readonly consistentTerm: number;
  readonly currentRevision: number;
  readonly indexedRevision: number;
  /** Of the newest compaction that was scheduled, or 0. */
  readonly scheduledCompactRevision: number;
  /** Of the newest compaction that was done, or 0. */
  readonly finishedCompactRevision: number;
}

export function recoverNumbers(environment: ReadEnvironment): Recovered {
  const state = readEngineState(environment.table('keelson'));
  const meta = environment.table('meta');
  const counter = (key: Buffer): number => {
    const bytes = meta.get(key);
    if (bytes === undefined) return 0;
    const value = decodeCounter(bytes);
    if (value === null) throw corrupt(`meta/${key.toString()} is no counter`);
    return value;
  };
  const revision = (key: Buffer): number => {
    const bytes = meta.get(key);
    if (bytes === undefined) return 0;
    if (!isRevisionKey(bytes)) throw corrupt(`meta/${key.toString()} is no revision`);
    return revisionMain(bytes);
  };
  let currentRevision = state?.currentRevision ?? 0;
  environment.table('key').scan(
    undefined,
    undefined,
    (key) => {
      if (!isRevisionKey(key)) throw corrupt('a row without a revision');
      currentRevision = Math.max(currentRevision, revisionMain(key));
      return false;
    },
    true,
  );
  // Written together with the first row, and never taken away: without them the log would be applied to the rows again.
  const isWhole = state !== null && meta.get(MetaKey.consistentIndex) !== undefined;
  if (currentRevision > 0 && !isWhole) throw corrupt('it has rows, but not how far the log was applied');
  const scheduledCompactRevision = revision(MetaKey.scheduledCompactRev);
  const finishedCompactRevision = revision(MetaKey.finishedCompactRev);
  return {
    generation: state?.generation ?? 0,
    consistentIndex: counter(MetaKey.consistentIndex),
    consistentTerm: counter(MetaKey.term),
    // etcd issue 17780: compaction may have removed the newest row.
    currentRevision: Math.max(currentRevision, scheduledCompactRevision, finishedCompactRevision),
    indexedRevision: state?.indexedRevision ?? 0,
    scheduledCompactRevision,
    finishedCompactRevision,
  };
}

/** Gives all rows after `indexedRevision` to the index. About 1.2 us a row. Returns how many there were. */
export function recoverIndex(environment: ReadEnvironment, index: KeyIndex, indexedRevision: number): number {
  const row = new IndexRow();
  const keys = [Buffer.alloc(REVISION_KEY_BYTES), Buffer.alloc(TOMBSTONE_KEY_BYTES)];
  let rows = 0;
  const from = encodeRevisionKey(indexedRevision + 1, 0);
  environment.table('key').walk(from, undefined, (buffer, keyStart, keyEnd, value, valueStart, valueEnd) => {
    const key = keys[keyEnd - keyStart - REVISION_KEY_BYTES];
    if (key === undefined) throw corrupt('a row without a revision');
    for (let i = 0; i < key.length; i++) key[i] = buffer[keyStart + i]!;
    row.read(key, value, valueStart, valueEnd);
    index.recover(value, row.keyStart, row.keyEnd, row.state);
    rows++;
    return true;
  });
  index.endRecovery();
  return rows;
}
