// One stored row as the key index wants it: a start and a defragmentation rebuild deltas from rows.

import { ExitCode, FatalError } from '../base/fatal.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import { isRevisionKey, isTombstoneKey, revisionMain, revisionSub } from '../snapshot/schema.ts';
import { type KeyState, newKeyState } from './index-delta.ts';

export function corrupt(what: string): FatalError {
  return new FatalError(ExitCode.backendCorrupt, `the database is damaged: ${what}; restore it from a snapshot`);
}

/** Whether a put's value says the same of its revision as its key. */
export function isOfRevision({ modRevision, createRevision }: KeyValueView, main: number): boolean {
  return modRevision === main && createRevision > 0 && createRevision <= main;
}

export class IndexRow {
  /** Without an ordinal: the row is in a table. */
  readonly state: KeyState = newKeyState();
  /** Where the client's key lies in the buffer that was read. */
  keyStart = 0;
  keyEnd = 0;
  private readonly view: KeyValueView = new KeyValueView();

  /** The row with that key and buffer[start, end) as its value. Throws FatalError when it is none. */
  read(key: Buffer, buffer: Buffer, start: number, end: number): void {
    const { view, state } = this;
    if (!isRevisionKey(key)) throw corrupt('a row without a revision');
    if (!view.parse(buffer, start, end)) throw corrupt(`row ${revisionMain(key)} is no KeyValue`);
    if (view.keyStart === view.keyEnd) throw corrupt(`row ${revisionMain(key)} has no key`);
    if (!isTombstoneKey(key) && !isOfRevision(view, revisionMain(key)))
      throw corrupt(`row ${revisionMain(key)} is another's`);
    this.keyStart = view.keyStart;
    this.keyEnd = view.keyEnd;
    state.main = revisionMain(key);
    state.sub = revisionSub(key);
    state.tombstone = isTombstoneKey(key);
    state.createMain = view.createRevision;
    state.version = view.version;
    state.leaseHi = view.leaseHigh >>> 0;
    state.leaseLo = view.leaseLow >>> 0;
    state.ordinal = -1;
  }
}
