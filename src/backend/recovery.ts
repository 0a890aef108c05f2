// What a start reads from the tables: the engine's numbers, and the rows that the index tables do not know yet, which become
// the index's first delta. The write-ahead log is replayed afterwards by the server, from the consistent index on.

import { ExitCode, FatalError } from '../base/fatal.ts';
import type { ReadEnvironment } from '../io/table.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import {
  decodeCounter,
  encodeRevisionKey,
  isRevisionKey,
  isTombstoneKey,
  MetaKey,
  revisionMain,
  revisionSub,
} from '../snapshot/schema.ts';
import { readEngineState } from './engine-state.ts';
import type { KeyIndex } from './index.ts';
import { newKeyState } from './index-delta.ts';

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

function corrupt(what: string): FatalError {
  return new FatalError(ExitCode.backendCorrupt, `the database is damaged: ${what}; restore it from a snapshot`);
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

/** Gives all rows after `indexedRevision` to the index. 1-2 us a row. Returns how many it did not know. */
export function recoverIndex(environment: ReadEnvironment, index: KeyIndex, indexedRevision: number): number {
  const state = newKeyState();
  const view = new KeyValueView();
  let rows = 0;
  environment.table('key').scan(encodeRevisionKey(indexedRevision + 1, 0), undefined, (key, value) => {
    if (!isRevisionKey(key)) throw corrupt('a row without a revision');
    if (!view.parse(value, 0, value.length)) throw corrupt(`row ${revisionMain(key)} is no KeyValue`);
    state.main = revisionMain(key);
    state.sub = revisionSub(key);
    state.tombstone = isTombstoneKey(key);
    state.createMain = view.createRevision;
    state.version = view.version;
    state.leaseHi = view.leaseHigh >>> 0;
    state.leaseLo = view.leaseLow >>> 0;
    state.ordinal = -1;
    if (index.recover(value, view.keyStart, view.keyEnd, state)) rows++;
    return true;
  });
  return rows;
}
