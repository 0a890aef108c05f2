// How many keys a range has as of a revision, the cheapest way: what a page before has left, the index's counts, or a count in slices.

import type { PageRemainderLimits } from '../limits.ts';
import type { RangeRequest } from '../proto/kv-request.ts';
import { rangeEndOf } from './kv-range.ts';
import { PageRemainders } from './page-remainders.ts';
import { RangeCount } from './range-count.ts';
import { type KeyState, newKeyState, type Storage } from './storage.ts';

export class RangeCounts {
  private readonly storage: Storage;
  private readonly remainders: PageRemainders;
  private readonly state: KeyState = newKeyState();

  constructor(storage: Storage, limits?: PageRemainderLimits) {
    this.storage = storage;
    this.remainders = new PageRemainders(limits);
  }

  /** -1 when it costs a scan: slow() tells. `newest`: the revision that a read sees now. */
  now(request: RangeRequest, revision: number, newest: number, isSettled: boolean): number {
    const { buffer, keyStart, keyEnd, rangeEndStart, rangeEndEnd } = request;
    const isNewest = revision === newest;
    const { index } = this.storage;
    if (rangeEndStart === rangeEndEnd) {
      const found = isNewest
        ? index.get(buffer, keyStart, keyEnd, this.state)
        : index.getAt(buffer, keyStart, keyEnd, revision, this.state);
      return found ? 1 : 0;
    }
    const key = buffer.subarray(keyStart, keyEnd);
    if (isSettled) {
      const count = this.remainders.take(key, buffer.subarray(rangeEndStart, rangeEndEnd), revision);
      if (count >= 0) return count;
    }
    if (!isNewest && revision < index.countFloor) return -1;
    return index.count(key, rangeEndOf(buffer, rangeEndStart, rangeEndEnd), isNewest ? Infinity : revision);
  }

  slow(request: RangeRequest, revision: number): RangeCount {
    const { buffer, keyStart, keyEnd, rangeEndStart, rangeEndEnd } = request;
    const end = rangeEndOf(buffer, rangeEndStart, rangeEndEnd);
    return new RangeCount(this.storage, buffer.subarray(keyStart, keyEnd), end, revision);
  }

  /** `count` keys are left behind `lastKey`, at a revision that does not change any more. */
  rememberRest(request: RangeRequest, revision: number, lastKey: Buffer, count: number): void {
    const { buffer, rangeEndStart, rangeEndEnd } = request;
    const next = Buffer.allocUnsafe(lastKey.length + 1);
    lastKey.copy(next);
    next[lastKey.length] = 0;
    this.remainders.put(next, buffer.subarray(rangeEndStart, rangeEndEnd), revision, count);
  }
}
