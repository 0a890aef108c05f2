// What a paged listing leaves: the number of keys from the next page's first key to the range's end, at the listing's revision. A
// client that pages asks each page for it (`count`), at a revision that is soon not the newest any more, and to count there may
// cost a scan. A page that was answered knows what the next one's count is.
//
// An entry never becomes wrong: the keys of a revision do not change, and after a compaction nobody may ask for it. So the
// least recently used go, and nothing else needs to know of it. Example, pages of 500 of /a/ at revision 70:
//
//   asked            answered                    remembered
//   [/a/, /a0)       500 keys, count 1,200       ("/a/x499\0", "/a0", 70) -> 700

import { type PageRemainderLimits, pageRemainderLimits } from '../limits.ts';

export class PageRemainders {
  private readonly limits: PageRemainderLimits;
  /** In the order of their last use. */
  private readonly counts = new Map<string, number>();
  private keyBytes = 0;

  constructor(limits: PageRemainderLimits = pageRemainderLimits) {
    this.limits = limits;
  }

  get size(): number {
    return this.counts.size;
  }

  /** Number of keys in [key, end) at the revision, `end` empty or as requests carry it; -1 when it is not remembered. */
  take(key: Buffer, end: Buffer, revision: number): number {
    if (this.counts.size === 0) return -1;
    const name = nameOf(key, end, revision);
    const count = this.counts.get(name);
    if (count === undefined) return -1;
    // A page may be asked for again: it stays, as the most recent.
    this.counts.delete(name);
    this.counts.set(name, count);
    return count;
  }

  put(key: Buffer, end: Buffer, revision: number, count: number): void {
    const { entriesMax, keyBytesMax } = this.limits;
    const name = nameOf(key, end, revision);
    if (name.length > keyBytesMax >>> 2) return;
    if (!this.counts.has(name)) this.keyBytes += name.length;
    this.counts.delete(name);
    this.counts.set(name, count);
    for (const oldest of this.counts.keys()) {
      if (this.counts.size <= entriesMax && this.keyBytes <= keyBytesMax) return;
      this.counts.delete(oldest);
      this.keyBytes -= oldest.length;
    }
  }
}

/** One character a byte; the lengths tell the parts apart. */
function nameOf(key: Buffer, end: Buffer, revision: number): string {
  return `${revision} ${key.length} ${key.toString('latin1')}${end.toString('latin1')}`;
}
