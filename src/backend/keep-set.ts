// Whether a compaction keeps anything at a revision: etcd hashes without its keep set when it is empty (snapshot/hashkv.ts), and the core
// must say so, since the flusher does not know the keys. Both stop at the first: a count at an old revision may go through all.

import { assertSound } from '../base/fatal.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import type { KeyIndex } from './index.ts';
import type { RowVisitor } from './row-log.ts';

const FIRST_KEY: Buffer = Buffer.alloc(1);

export function hasLiveKeyAt(index: KeyIndex, revision: number): boolean {
  let found = false;
  index.scan(FIRST_KEY, null, revision, () => {
    found = true;
    return false;
  });
  return found;
}

/**
 * For HashKV, whose keep set has no tombstones: a key that is deleted and put again in the very revision is not in it either, since
 * etcd looks for the revision in the key's first generation that reaches it, which ends with that tombstone.
 */
export function keepsKeyAt(index: KeyIndex, rows: RevisionRows, revision: number): boolean {
  let found = false;
  const changed: string[] = [];
  index.scan(FIRST_KEY, null, revision, (key, start, end, state) => {
    found = state.main < revision;
    if (!found) changed.push(key.toString('latin1', start, end));
    return !found;
  });
  if (found || changed.length === 0) return found;
  const deleted = new Set<string>();
  const view = new KeyValueView();
  rows.scanRows(revision, revision, (_main, _sub, tombstone, buffer, start, end) => {
    assertSound(view.parse(buffer, start, end), 'a row is no KeyValue');
    if (tombstone) deleted.add(buffer.toString('latin1', view.keyStart, view.keyEnd));
    return true;
  });
  return changed.some((key) => !deleted.has(key));
}

export interface RevisionRows {
  scanRows(fromMain: number, toMain: number, visit: RowVisitor): void;
}

export function hasTombstoneAt(rows: RevisionRows, revision: number): boolean {
  let found = false;
  rows.scanRows(revision, revision, (_main, _sub, tombstone) => {
    found = tombstone;
    return !found;
  });
  return found;
}
