// A range's options beyond its keys: revision filters and custom orders (etcd 3.7 txn/range.go). They need every KeyValue of the
// range at once, so this path copies; the plain path in store.ts streams.

import { type RangeRequest, SortOrder, SortTarget } from '../proto/kv-request.ts';
import { KeyValueView } from '../proto/mvccpb.ts';

/** etcd's notion of an order that needs no sorting: with it, a limit bounds what is read. Without an order it is always so. */
export function isDefaultOrdering(sortTarget: number, sortOrder: number): boolean {
  return sortOrder === SortOrder.none || (sortTarget === SortTarget.key && sortOrder === SortOrder.ascend);
}

/** Whether the answer differs from the keys in ascending order; a target other than the key sorts even without an order. */
export function needsSort(sortTarget: number, sortOrder: number): boolean {
  return sortTarget !== SortTarget.key || sortOrder === SortOrder.descend;
}

export function hasRevisionFilters(request: RangeRequest): boolean {
  return (
    request.minModRevision !== 0 ||
    request.maxModRevision !== 0 ||
    request.minCreateRevision !== 0 ||
    request.maxCreateRevision !== 0
  );
}

/** Whether the KeyValue survives the request's filters; 0 means that a filter is off. */
export function passesFilters(request: RangeRequest, modRevision: number, createRevision: number): boolean {
  if (request.maxModRevision !== 0 && modRevision > request.maxModRevision) return false;
  if (request.minModRevision !== 0 && modRevision < request.minModRevision) return false;
  if (request.maxCreateRevision !== 0 && createRevision > request.maxCreateRevision) return false;
  return request.minCreateRevision === 0 || createRevision >= request.minCreateRevision;
}

/** One KeyValue held for sorting: its encoding (a copy) and what may be compared. */
export class SortItem {
  readonly bytes: Buffer;
  readonly view: KeyValueView = new KeyValueView();
  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.view.parse(bytes, 0, bytes.length);
  }
}

/**
 * Sorts in place. Ties keep key order; etcd's sort is unstable, so there the order of ties is unspecified. A target other than
 * the key without an order sorts ascending, as in etcd.
 */
export function sortItems(items: SortItem[], sortTarget: number, sortOrder: number): void {
  if (!needsSort(sortTarget, sortOrder)) return;
  const sign = sortOrder === SortOrder.descend ? -1 : 1;
  const compare = comparatorOf(sortTarget);
  items.sort((a, b) => sign * compare(a.view, b.view));
}

function comparatorOf(sortTarget: number): (a: KeyValueView, b: KeyValueView) => number {
  switch (sortTarget) {
    case SortTarget.version:
      return (a, b) => a.version - b.version;
    case SortTarget.create:
      return (a, b) => a.createRevision - b.createRevision;
    case SortTarget.mod:
      return (a, b) => a.modRevision - b.modRevision;
    case SortTarget.value:
      return (a, b) => a.buffer.compare(b.buffer, b.valueStart, b.valueEnd, a.valueStart, a.valueEnd);
    default:
      return (a, b) => a.buffer.compare(b.buffer, b.keyStart, b.keyEnd, a.keyStart, a.keyEnd);
  }
}
