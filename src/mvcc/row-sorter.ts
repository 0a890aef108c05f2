// The KeyValues of a range in another order than their keys', or after filters: collected in runs, one a slice of the read; each run
// is sorted when it ends, and what is answered is merged out of all runs. So no turn has to sort everything. The bytes of a run
// lie in one buffer and its offsets in numbers: no object a KeyValue.
//
// Rows behind the limit go now and then: what is before it is merged into new runs, a slice of the read each, while nothing is added;
// the old ones go when that is done. So twice the limit and a little is held, and while it goes on once the limit more.
//
// Ties keep key order; etcd's sort is unstable, so there the order of ties is unspecified. A target other than the key without an
// order sorts ascending, as in etcd.
//
//   add(a) add(c) endRun()   add(e) add(b) endRun()   →   runs [a c] [b e]   →   emit: a b c e
//   limit 3, slices of 2:    beginPrune() prune() prune()   →   runs [a b] [c]   →   add(d) ...

import { assert } from '../base/assert.ts';
import { ByteWriter } from '../base/byte-writer.ts';
import { assertSound } from '../base/fatal.ts';
import { type RangeRequest, SortOrder, SortTarget } from '../proto/kv-request.ts';
import { KeyValueView, keyValueLength, writeKeyValueHead, writeKeyValueTail } from '../proto/mvccpb.ts';
import { needsSort } from './kv-range.ts';

const EMPTY = Buffer.alloc(0);
/** Memory of a row beside its bytes: five numbers. */
const ROW_OVERHEAD_BYTES = 40;
/** What is held beyond twice the limit before those rows go that are behind it: each time costs a pass over all. */
const PRUNE_ROWS = 4096;
const PRUNE_BYTES = 16 * 1024 * 1024;

/** Rows of one slice; `order` has been sorted by the comparison of the sorter. */
class Run {
  readonly bytes: ByteWriter = new ByteWriter(4096);
  readonly ends: number[] = [];
  /** What is compared: a number, or the bytes [from, to) of the row. */
  readonly numbers: number[] = [];
  readonly from: number[] = [];
  readonly to: number[] = [];
  order: Uint32Array = new Uint32Array(0);
  /** The next of `order` to be answered. */
  next = 0;

  get count(): number {
    return this.ends.length;
  }

  startOf(row: number): number {
    return row === 0 ? 0 : this.ends[row - 1]!;
  }
}

export class RowSorter {
  /** Rows added. */
  count = 0;
  /** Rows that are held: all, but those that a prune let go. */
  heldRows = 0;
  /** ... and their bytes. */
  rowBytes = 0;
  /** Rows answered. */
  emitted = 0;
  private readonly target: number;
  private readonly sign: number;
  private readonly sorts: boolean;
  private readonly limit: number;
  private readonly keysOnly: boolean;
  private runs: Run[] = [];
  private run: Run = new Run();
  private pruneBytes = PRUNE_BYTES;
  /** What a prune has merged so far, in order; null: none goes on. Each row of it is still in `runs` too. */
  private kept: Run[] | null = null;
  private keptCount = 0;
  private keptBytes = 0;
  /** Runs that have rows left, the one with the least first: a binary heap. */
  private heap: number[] | null = null;
  private readonly view = new KeyValueView();

  constructor(request: RangeRequest) {
    this.target = request.sortTarget;
    this.sign = request.sortOrder === SortOrder.descend ? -1 : 1;
    this.sorts = needsSort(request.sortTarget, request.sortOrder);
    this.limit = request.limit > 0 ? request.limit : Infinity;
    this.keysOnly = request.keysOnly;
  }

  /** Bytes of memory that it holds. */
  get heldBytes(): number {
    return this.rowBytes + this.keptBytes + (this.heldRows + this.keptCount) * ROW_OVERHEAD_BYTES;
  }

  /** Whether there are more rows than the limit lets out. */
  get more(): boolean {
    return this.count > this.limit;
  }

  /** A KeyValue, after all that were added before in the order of the keys. */
  add(view: KeyValueView, rowStart: number, rowEnd: number): void {
    assert(this.kept === null, 'a row is added in a prune');
    this.count++;
    // In the order of the keys those behind the limit are only counted.
    if (!this.sorts && this.heldRows >= this.limit) return;
    const { run, target } = this;
    const start = run.bytes.length;
    // What is read from the index alone has no lease in etcd's answer; when the values were needed for sorting, it has.
    if (this.keysOnly && target !== SortTarget.value) writeKeyValue(run.bytes, view, 0, 0);
    else run.bytes.copy(view.buffer, rowStart, rowEnd);
    const end = run.bytes.length;
    run.ends.push(end);
    this.noteSortKey(run, view, start - rowStart);
    this.heldRows++;
    this.rowBytes += end - start;
  }

  /** `shift` from the row's bytes to the run's. */
  private noteSortKey(run: Run, view: KeyValueView, shift: number): void {
    const { target } = this;
    const isValue = target === SortTarget.value;
    // The key is behind its tag and length at the start of either form.
    run.from.push(shift + (isValue ? view.valueStart : view.keyStart));
    run.to.push(shift + (isValue ? view.valueEnd : view.keyEnd));
    let number = 0;
    if (target === SortTarget.version) number = view.version;
    else if (target === SortTarget.create) number = view.createRevision;
    else if (target === SortTarget.mod) number = view.modRevision;
    run.numbers.push(number);
  }

  /** Ends a slice: sorts its rows. */
  endRun(): void {
    const { run } = this;
    if (run.count === 0) return;
    const ids = Array.from(run.ends.keys());
    if (this.sorts) ids.sort((a, b) => this.compare(run, a, run, b));
    run.order = Uint32Array.from(ids);
    this.runs.push(run);
    this.run = new Run();
  }

  /** So much is held that a prune pays. */
  get isCrowded(): boolean {
    return this.heldRows > 2 * this.limit + PRUNE_ROWS || this.rowBytes > this.pruneBytes;
  }

  /** Nothing may be added or emitted until prune() has ended it. */
  get isPruning(): boolean {
    return this.kept !== null;
  }

  /** Begins to let the rows go that are behind the limit, if there are any. After the end of a run. */
  beginPrune(): void {
    assert(this.run.count === 0, 'a prune begins within a run');
    if (this.heldRows > this.limit) this.kept = [];
  }

  /** Goes on with a prune, if there is one, for a slice: a run of so many rows and bytes. */
  prune(rowsMax: number, bytesMax: number): void {
    const { kept, limit } = this;
    if (kept === null) return;
    const best = new Run();
    const countMax = Math.min(rowsMax, limit - this.keptCount);
    while (best.count < countMax && best.bytes.length < bytesMax) {
      const { run, row } = this.pop();
      const start = run.startOf(row);
      const shift = best.bytes.length - start;
      best.bytes.copy(run.bytes.bytes, start, run.ends[row]!);
      best.ends.push(best.bytes.length);
      best.numbers.push(run.numbers[row]!);
      best.from.push(run.from[row]! + shift);
      best.to.push(run.to[row]! + shift);
    }
    best.order = Uint32Array.from(best.ends.keys());
    kept.push(best);
    this.keptCount += best.count;
    this.keptBytes += best.bytes.length;
    if (this.keptCount === limit) this.endPrune(kept);
  }

  private endPrune(kept: Run[]): void {
    this.runs = kept;
    this.heap = null;
    this.heldRows = this.keptCount;
    this.rowBytes = this.keptBytes;
    this.pruneBytes = PRUNE_BYTES + 2 * this.rowBytes;
    this.kept = null;
    this.keptCount = this.keptBytes = 0;
  }

  /** Appends rows as RangeResponse's kvs (2), until the slice is full; false: that was the last one. */
  emit(out: ByteWriter, keysMax: number, bytesMax: number): boolean {
    assert(this.kept === null, 'rows are answered in a prune');
    const wanted = Math.min(this.count, this.limit);
    const first = this.emitted;
    const start = out.length;
    while (this.emitted < wanted) {
      if (this.emitted - first >= keysMax || out.length - start >= bytesMax) return true;
      const { run, row } = this.pop();
      this.emitted++;
      const rowStart = run.startOf(row);
      const rowEnd = run.ends[row]!;
      if (!out.room(rowEnd - rowStart)) return false;
      if (this.keysOnly && this.target === SortTarget.value) {
        const { view } = this;
        assertSound(view.parse(run.bytes.bytes, rowStart, rowEnd), 'a row is no KeyValue');
        out.byte(0x12);
        out.varint(lengthOf(view, view.leaseHigh, view.leaseLow));
        writeKeyValue(out, view, view.leaseHigh, view.leaseLow);
      } else out.bytesField(0x12, run.bytes.bytes, rowStart, rowEnd);
    }
    return false;
  }

  // --- the merge ---

  private readonly popped: { run: Run; row: number } = { run: this.run, row: 0 };

  /** The least row of all that are left. */
  private pop(): { readonly run: Run; readonly row: number } {
    const { runs, popped } = this;
    this.heap ??= this.newHeap();
    const { heap } = this;
    const first = heap[0];
    assert(first !== undefined, 'more rows are taken than there are');
    const run = runs[first]!;
    popped.run = run;
    popped.row = run.order[run.next++]!;
    if (run.next === run.count) {
      const last = heap.pop()!;
      if (heap.length > 0) heap[0] = last;
    }
    if (heap.length > 1) this.siftDown(heap, 0);
    return popped;
  }

  private newHeap(): number[] {
    const heap = Array.from(this.runs.keys());
    for (const run of this.runs) run.next = 0;
    for (let at = (heap.length >>> 1) - 1; at >= 0; at--) this.siftDown(heap, at);
    return heap;
  }

  private siftDown(heap: number[], from: number): void {
    const moved = heap[from]!;
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!this.isBefore(heap[child]!, moved)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = moved;
  }

  /** Of two runs, by their next rows. Rows that tie go by their keys: those of an earlier run are smaller. */
  private isBefore(a: number, b: number): boolean {
    const runA = this.runs[a]!;
    const runB = this.runs[b]!;
    const order = this.sorts ? this.compare(runA, runA.order[runA.next]!, runB, runB.order[runB.next]!) : 0;
    return order === 0 ? a < b : order < 0;
  }

  private compare(runA: Run, a: number, runB: Run, b: number): number {
    if (this.target !== SortTarget.key && this.target !== SortTarget.value) {
      return this.sign * (runA.numbers[a]! - runB.numbers[b]!);
    }
    const bytesA = runA.bytes.bytes;
    return this.sign * bytesA.compare(runB.bytes.bytes, runB.from[b]!, runB.to[b]!, runA.from[a]!, runA.to[a]!);
  }
}

function lengthOf(view: KeyValueView, leaseHi: number, leaseLo: number): number {
  const { createRevision, modRevision, version, keyStart, keyEnd } = view;
  return keyValueLength(keyEnd - keyStart, createRevision, modRevision, version, 0, leaseHi, leaseLo);
}

/** The KeyValue without its value. */
function writeKeyValue(out: ByteWriter, view: KeyValueView, leaseHi: number, leaseLo: number): void {
  const { buffer, keyStart, keyEnd, createRevision, modRevision, version } = view;
  out.reserve(lengthOf(view, leaseHi, leaseLo));
  const at = writeKeyValueHead(out.bytes, out.length, buffer, keyStart, keyEnd, createRevision, modRevision, version);
  out.length = writeKeyValueTail(out.bytes, at, EMPTY, 0, 0, leaseHi, leaseLo);
}
