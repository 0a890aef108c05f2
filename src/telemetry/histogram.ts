// A histogram for hot paths: fixed bounds, counts in typed arrays, observe() without allocation. Why not prom-client's: its
// observe() looks labels up and keeps objects, two orders slower. Buckets are kept apart and summed up only at a scrape.

import { assert } from '../base/assert.ts';

export class Histogram {
  /** Upper bounds, ascending; a value equal to a bound belongs to it (Prometheus' `le`). */
  readonly bounds: Float64Array;
  /** Count of each bucket by itself; one more at the end for values above every bound. */
  readonly counts: Float64Array;
  /** [0]: the sum of all values. In an array so that adding to it does not allocate a number. */
  readonly #sum: Float64Array = new Float64Array(1);

  constructor(bounds: readonly number[] | Float64Array) {
    this.bounds = Float64Array.from(bounds);
    this.counts = new Float64Array(bounds.length + 1);
    for (let i = 1; i < bounds.length; i++) assert(this.bounds[i - 1]! < this.bounds[i]!, 'bounds not ascending');
  }

  /** Adds one value. Budget: a few ns; most values of a server are in the lowest buckets, where the search starts. */
  observe(value: number): void {
    const bounds = this.bounds;
    let i = 0;
    while (i < bounds.length && value > bounds[i]!) i++;
    this.counts[i]!++;
    this.#sum[0]! += value;
  }

  /** The same value so many times. */
  observeMany(value: number, count: number): void {
    const bounds = this.bounds;
    let i = 0;
    while (i < bounds.length && value > bounds[i]!) i++;
    this.counts[i]! += count;
    this.#sum[0]! += value * count;
  }

  get sum(): number {
    return this.#sum[0]!;
  }

  get count(): number {
    let total = 0;
    for (const count of this.counts) total += count;
    return total;
  }
}

/** Go's prometheus.ExponentialBuckets: repeated multiplication, so that the bounds are its to the last bit. */
export function exponentialBounds(start: number, factor: number, count: number): number[] {
  const bounds: number[] = [];
  for (let i = 0, bound = start; i < count; i++, bound *= factor) bounds.push(bound);
  return bounds;
}
