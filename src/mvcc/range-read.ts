// A range that a turn did not finish, or that holds its keys before it can answer: what is left of it, taken up slice by slice. The
// answer is exact at one revision: it is pinned, so that a compaction meanwhile deletes nothing of it. Not the first slice of a
// plain range: that is store.ts, without an object.
//
//   keys ─────────────┐                 plain: KeyValues in key order, as they come
//   collect ── emit ──┼── count ── done  sorted or filtered: all KeyValues first (now and then slices that let those go which are
//                     │                 behind the limit), then those that are answered
//                     └────────────▶    count: only when the answer needs more than was seen, and the index cannot tell at once

import type { ByteWriter } from '../base/byte-writer.ts';
import type { ReadSlice } from '../limits.ts';
import { RangeRequest } from '../proto/kv-request.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import { hasRevisionFilters, isDefaultOrdering, isPlainRange } from './kv-range.ts';
import type { RangeCount } from './range-count.ts';
import type { SliceEnd } from './range-slices.ts';
import { RowSorter } from './row-sorter.ts';
import type { Store } from './store.ts';

type Phase = 'keys' | 'collect' | 'emit' | 'count' | 'done';

export class RangeRead {
  /** That of the answer's header. */
  readonly headerRevision: number;
  readonly revision: number;
  readonly totalCount: boolean;
  /** Keys seen so far; of a plain range: answered. */
  visited: number;
  private readonly store: Store;
  private readonly slice: ReadSlice;
  /** As it was asked, in bytes of its own. */
  readonly request: RangeRequest;
  /** The same from the next slice's first key on. */
  private rest: RangeRequest;
  private phase: Phase;
  private more: boolean;
  /** The last key that was answered, when there are more than the limit lets out. */
  private lastKey: Buffer | null = null;
  private readonly sorter: RowSorter | null;
  /** The sorter has all that it is to have. */
  private isCollected = false;
  /** How many keys are to be collected. */
  private readonly collectMax: number;
  private counter: RangeCount | null = null;
  private pinned: boolean;
  /** Why it ended before its answer was complete. */
  error: EtcdError | null = null;

  /** `out` holds what the first slice has answered. */
  constructor(
    store: Store,
    request: RangeRequest,
    revision: number,
    slice: ReadSlice,
    totalCount: boolean,
    first: SliceEnd,
    out: ByteWriter,
    overTurns: boolean,
  ) {
    this.store = store;
    this.slice = slice;
    this.headerRevision = store.rangeRevision;
    this.revision = revision;
    this.totalCount = totalCount;
    this.visited = first.visited;
    this.more = first.more;
    this.request = ownRange(request);
    this.rest = first.resumeKey === null ? this.request : withKey(request, first.resumeKey);
    const isPlain = isPlainRange(request);
    this.sorter = isPlain || request.countOnly ? null : new RowSorter(this.request);
    // Without an order etcd reads the first keys alone, one more than the limit, and sorts those by the target.
    const isCut = isDefaultOrdering(request.sortTarget, request.sortOrder) && !hasRevisionFilters(request);
    this.collectMax = isCut && request.limit > 0 ? request.limit + 1 : Infinity;
    this.phase = this.sorter !== null ? 'collect' : 'keys';
    if (overTurns) store.pin(revision);
    this.pinned = overTurns;
    if (request.countOnly || first.more) this.beginCount(out);
  }

  /** KeyValues in the answer so far. */
  get answered(): number {
    if (this.request.countOnly) return 0;
    return this.sorter === null ? this.visited : this.sorter.emitted;
  }

  /** Bytes held beside those that were answered: its copies of the request's keys, what is to be sorted. */
  get heldBytes(): number {
    const { request, rest, sorter } = this;
    const requestBytes = request.buffer.length + (rest === request ? 0 : rest.buffer.length);
    return requestBytes + (sorter === null ? 0 : sorter.heldBytes);
  }

  /**
   * Goes on for one slice: appends RangeResponse's fields from kvs (2) on to `out`. True: that was the last one, or `out` is full
   * and the rest is of no use, or there is an error.
   */
  step(out: ByteWriter): boolean {
    const { slice } = this;
    this.error = this.store.lostRevision(this.revision);
    if (this.error !== null) this.close();
    switch (this.phase) {
      case 'keys':
        this.stepKeys(out);
        break;
      case 'collect':
        this.stepCollect(out);
        break;
      case 'emit':
        if (this.sorter!.emit(out, slice.keys, slice.bytes)) break;
        if (this.visited < this.collectMax) this.finish(out, this.visited);
        else this.beginCount(out);
        break;
      case 'count':
        if (this.counter!.step(slice.countKeys)) this.finish(out, this.counter!.count);
        break;
      case 'done':
        break;
    }
    if (out.full) this.close();
    return this.phase === 'done';
  }

  private stepKeys(out: ByteWriter): void {
    const { store, request } = this;
    const left = request.limit > 0 ? request.limit - this.visited : Infinity;
    const { visited, more, resumeKey } = store.slices.read(
      this.rest,
      store.seenAt(this.revision),
      left,
      this.slice,
      out,
    );
    this.visited += visited;
    this.more = more;
    if (resumeKey !== null) this.rest = withKey(request, resumeKey);
    else if (more && this.totalCount) this.beginCount(out);
    else this.finish(out, this.visited);
  }

  private stepCollect(out: ByteWriter): void {
    const { slice } = this;
    const sorter = this.sorter!;
    if (sorter.isPruning) sorter.prune(slice.keys, slice.bytes);
    else this.collect(sorter, out.bytesMax);
    if (sorter.isPruning) return;
    if (sorter.rowBytes > out.bytesMax) out.full = true;
    if (!this.isCollected) return;
    this.phase = 'emit';
    // All of it was one slice: so it is answered in one.
    if (this.visited <= slice.keys && !out.full) this.step(out);
  }

  /** Collects a slice; when that makes too much, a prune has begun, whose slices are the next. */
  private collect(sorter: RowSorter, bytesMax: number): void {
    const { store, slice } = this;
    const left = Math.min(slice.keys, this.collectMax - this.visited);
    const { visited, resumeKey } = store.slices.collect(
      this.rest,
      store.seenAt(this.revision),
      left,
      slice.bytes,
      sorter,
    );
    this.visited += visited;
    this.isCollected = resumeKey === null || this.visited === this.collectMax;
    if (!this.isCollected) this.rest = withKey(this.request, resumeKey!);
    sorter.endRun();
    if (sorter.rowBytes > bytesMax || (sorter.isCrowded && !this.isCollected)) sorter.beginPrune();
  }

  private beginCount(out: ByteWriter): void {
    const { store, request, revision } = this;
    if (this.more) this.lastKey = store.slices.lastKey(out);
    const count = store.countNow(request, revision);
    if (count >= 0) {
      this.finish(out, count);
      return;
    }
    this.phase = 'count';
    this.counter = store.counts.slow(request, revision);
  }

  private finish(out: ByteWriter, count: number): void {
    const more = this.sorter === null ? this.more : this.sorter.more;
    out.varintField(0x18, more ? 1 : 0);
    out.varintField(0x20, count);
    if (this.lastKey !== null) this.store.rememberRest(this.request, this.revision, this.lastKey, count - this.visited);
    this.close();
  }

  /** Lets go of the revision; once the read is done, or not wanted any more. */
  close(): void {
    this.phase = 'done';
    if (this.pinned) this.store.unpin(this.revision);
    this.pinned = false;
  }
}

/** The request in a buffer of its own. */
export function ownRange(request: RangeRequest): RangeRequest {
  return withKey(request, request.buffer.subarray(request.keyStart, request.keyEnd));
}

/** The request from another key on, in a buffer of its own. */
function withKey(request: RangeRequest, key: Buffer): RangeRequest {
  const { buffer, rangeEndStart, rangeEndEnd } = request;
  const copy = Object.assign(new RangeRequest(), request);
  copy.buffer = Buffer.concat([key, buffer.subarray(rangeEndStart, rangeEndEnd)]);
  copy.keyStart = 0;
  copy.keyEnd = copy.rangeEndStart = key.length;
  copy.rangeEndEnd = copy.buffer.length;
  return copy;
}
