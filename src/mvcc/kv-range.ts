// A range's options beyond its keys: revision filters and custom orders (etcd 3.7 txn/range.go). Those need every KeyValue of the
// range: row-sorter.ts holds them; the plain path in store.ts streams.

import { type RangeRequest, SortOrder, SortTarget } from '../proto/kv-request.ts';

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

/** The upper bound of a range as requests carry it (a single zero byte: to the last key) as the index takes it. */
export function rangeEndOf(buffer: Buffer, start: number, end: number): Buffer | null {
  return end - start === 1 && buffer[start] === 0 ? null : buffer.subarray(start, end);
}

/** Whether the answer is the range's KeyValues as they come. */
export function isPlainRange(request: RangeRequest): boolean {
  return !request.countOnly && !needsSort(request.sortTarget, request.sortOrder) && !hasRevisionFilters(request);
}

/** Whether the KeyValue survives the request's filters; 0 means that a filter is off. */
export function passesFilters(request: RangeRequest, modRevision: number, createRevision: number): boolean {
  if (request.maxModRevision !== 0 && modRevision > request.maxModRevision) return false;
  if (request.minModRevision !== 0 && modRevision < request.minModRevision) return false;
  if (request.maxCreateRevision !== 0 && createRevision > request.maxCreateRevision) return false;
  return request.minCreateRevision === 0 || createRevision >= request.minCreateRevision;
}
