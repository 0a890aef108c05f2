// Makes the families of the metric groups and keeps them in one list. Also the bounds that several groups share.

import { ArrayFamily, CellFamily, type Family, HistogramFamily, ScalarFamily } from './exposition.ts';
import { exponentialBounds, type Histogram } from './histogram.ts';

// Bounds that several families share, in seconds.
export const fastBounds: readonly number[] = exponentialBounds(0.001, 2, 14);
export const requestBounds: readonly number[] = exponentialBounds(0.0001, 2, 20);
export const rpcBounds: readonly number[] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Makes families and keeps them; the groups below are built with it. */
export class Builder {
  readonly families: Family[] = [];

  scalar(name: string, type: 'counter' | 'gauge', help: string, read: () => number): void {
    this.families.push(new ScalarFamily(name, type, help, read));
  }
  gauge(name: string, help: string, read: () => number): void {
    this.scalar(name, 'gauge', help, read);
  }
  counter(name: string, help: string, read: () => number): void {
    this.scalar(name, 'counter', help, read);
  }
  cells(name: string, type: 'counter' | 'gauge', help: string, labels: readonly string[]): CellFamily {
    const family = new CellFamily(name, type, help, labels);
    this.families.push(family);
    return family;
  }
  histogram(name: string, help: string, bounds: readonly number[]): Histogram {
    return this.histograms(name, help, bounds, []).with();
  }
  histograms(name: string, help: string, bounds: readonly number[], labels: readonly string[]): HistogramFamily {
    const family = new HistogramFamily(name, help, bounds, labels);
    this.families.push(family);
    return family;
  }
  array(name: string, help: string, labels: readonly Readonly<Record<string, string>>[]): Float64Array {
    const values = new Float64Array(labels.length);
    this.families.push(new ArrayFamily(name, 'counter', help, labels, values));
    return values;
  }
}

/** Shown by every etcd member though nothing counts in them any more, or only in another mode of the binary. */
export function addLeftovers(b: Builder): void {
  const none = (): number => 0;
  const unused = 'Kept for dashboards; always 0.';
  b.counter('etcd_debugging_store_expires_total', unused, none);
  b.counter('etcd_debugging_store_watch_requests_total', unused, none);
  b.gauge('etcd_debugging_store_watchers', unused, none);
  b.cells('etcd_debugging_store_reads_total', 'counter', unused, ['action']);
  b.cells('etcd_debugging_store_writes_total', 'counter', unused, ['action']);
  b.gauge('etcd_grpc_proxy_cache_hits_total', unused, none);
  b.gauge('etcd_grpc_proxy_cache_keys_total', unused, none);
  b.gauge('etcd_grpc_proxy_cache_misses_total', unused, none);
  b.counter('etcd_grpc_proxy_events_coalescing_total', unused, none);
  b.gauge('etcd_grpc_proxy_watchers_coalescing_total', unused, none);
}
