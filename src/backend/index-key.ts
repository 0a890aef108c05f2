// Keys of the index tables: any byte string of a client as a non-empty LMDB key of bounded length that sorts the same.
// Not the keys of etcd's buckets: those are revisions.
//
//   client's key        table key                                                 order
//   escaped <= 3,900 B  escaped, 00 00                                            a prefix sorts before its extensions
//   longer              first 3,900 escaped bytes, 00 01, ordinal (6 bytes BE)    after the key that equals the prefix
//
// Escaping writes 00 as 00 FF; everything else stays. So the end mark 00 00 is smaller than any continuation, and no
// escaped key contains it. A long key's table key says only where it sorts: the entry's value holds the key itself
// (index-long.ts chooses and finds ordinals). An escape cut in half at the 3,900th byte does no harm: those bytes are only
// compared, never unescaped.

import { assert } from '../base/assert.ts';
import { assertSound } from '../base/fatal.ts';
import { indexLimits, lmdbKeyBytesMax } from '../storage-limits.ts';

export const ORDINAL_BYTES = 6;
const END_MARK_BYTES = 2;

/** -1, 0 or 1 as the unsigned bytes compare. Faster than Buffer.compare for the short keys at hand (no native call). */
export function compareBytes(
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number,
): -1 | 0 | 1 {
  const aLength = aEnd - aStart;
  const bLength = bEnd - bStart;
  const length = Math.min(aLength, bLength);
  for (let i = 0; i < length; i++) {
    const x = a[aStart + i]!;
    const y = b[bStart + i]!;
    if (x !== y) return x < y ? -1 : 1;
  }
  return aLength === bLength ? 0 : aLength < bLength ? -1 : 1;
}

export function equalBytes(a: Uint8Array, aStart: number, b: Uint8Array, bStart: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (a[aStart + i] !== b[bStart + i]) return false;
  return true;
}

/**
 * Builds table keys in a buffer of its own, after an optional head of fixed bytes (the lease id in `leased`). The key it
 * returns is valid until the next set(). Views of the buffer are made once for each length, so that a look-up allocates
 * nothing.
 */
export class TableKey {
  /** Escaped bytes kept; tests shrink it. */
  readonly bodyBytesMax: number;
  readonly headBytes: number;
  /** True when the last set() key did not fit: `key` is then the group's prefix, without ordinal. */
  long = false;
  /** The table key of the last set() (for a long one: what all keys of its group begin with). */
  key: Buffer;
  private readonly buffer: Buffer;
  private readonly views: Buffer[] = [];

  constructor(headBytes = 0, bodyBytesMax: number = indexLimits.diskKeyBytes) {
    const bytes = headBytes + bodyBytesMax + END_MARK_BYTES + ORDINAL_BYTES;
    assert(bytes <= lmdbKeyBytesMax, 'table key longer than LMDB takes');
    this.headBytes = headBytes;
    this.bodyBytesMax = bodyBytesMax;
    this.buffer = Buffer.alloc(bytes);
    this.key = this.view(0);
  }

  private view(length: number): Buffer {
    let view = this.views[length];
    if (view === undefined) {
      view = this.buffer.subarray(0, length);
      this.views[length] = view;
    }
    return view;
  }

  /** Where the caller writes the head, before set() or after. */
  get head(): Buffer {
    return this.buffer;
  }

  set(source: Uint8Array, start: number, end: number): Buffer {
    const target = this.buffer;
    const limit = this.headBytes + this.bodyBytesMax;
    let at = this.headBytes;
    let from = start;
    while (from < end && at < limit) {
      const byte = source[from++]!;
      target[at++] = byte;
      if (byte !== 0) continue;
      // The second half of an escape may be the byte that no longer fits.
      if (at === limit) return this.finish(at, true);
      target[at++] = 0xff;
    }
    return this.finish(at, from < end);
  }

  private finish(at: number, long: boolean): Buffer {
    this.long = long;
    this.buffer[at] = 0;
    this.buffer[at + 1] = long ? 1 : 0;
    this.key = this.view(at + END_MARK_BYTES);
    return this.key;
  }

  /** The table key of the last set() key, a long one, with its ordinal. */
  withOrdinal(ordinal: number): Buffer {
    assert(this.long, 'ordinal of a short key');
    const at = this.key.length;
    this.buffer.writeUIntBE(ordinal, at, ORDINAL_BYTES);
    return this.view(at + ORDINAL_BYTES);
  }

  /** Just after all keys of the group of the last set() key. */
  groupEnd(): Buffer {
    assert(this.long, 'group of a short key');
    const at = this.key.length;
    // One more than the mark: nothing else begins with the prefix and 00 02.
    this.buffer[at - 1] = 2;
    const end = Buffer.from(this.view(at));
    this.buffer[at - 1] = 1;
    return end;
  }
}

/** Turns a short table key back; `start` and `end` delimit the client's key in `buffer` until the next call. */
export class KeyReader {
  buffer: Buffer = Buffer.alloc(0);
  start = 0;
  end = 0;
  private scratch = Buffer.alloc(256);

  /** tableKey[from, end) ends with the mark 00 00. Copies only when something is escaped. */
  read(tableKey: Buffer, from: number, end: number = tableKey.length): void {
    const last = end - END_MARK_BYTES;
    const isWhole = last >= from && tableKey[last] === 0 && tableKey[last + 1] === 0;
    assertSound(isWhole, 'a key of the key index without its end mark');
    this.buffer = tableKey;
    this.start = from;
    this.end = last;
    for (let i = from; i < last; i++) {
      if (tableKey[i] !== 0) continue;
      this.unescape(tableKey, from, last);
      return;
    }
  }

  private unescape(tableKey: Buffer, from: number, last: number): void {
    if (this.scratch.length < last - from) this.scratch = Buffer.alloc(2 * (last - from));
    const target = this.scratch;
    let at = 0;
    for (let i = from; i < last; i++) {
      const byte = tableKey[i]!;
      target[at++] = byte;
      if (byte !== 0) continue;
      i++;
      assertSound(i < last && tableKey[i] === 0xff, 'a key of the key index with a broken escape');
    }
    this.buffer = target;
    this.start = 0;
    this.end = at;
  }

  set(buffer: Buffer, start: number, end: number): void {
    this.buffer = buffer;
    this.start = start;
    this.end = end;
  }
}
