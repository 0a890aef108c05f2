// Numbers of the process and of Node: prom-client's process_* and nodejs_* defaults, the rest of Go's process collector,
// os_fd_*, and the few go_* that have an honest counterpart here (docs/differences.md says which do not). Loaded at the first
// scrape or by Metrics.warmUp(), because prom-client takes tens of milliseconds to load.
//
// All families of the member are registered in the prom-client registry too, so that whatever works with one finds them.

import { collectDefaultMetrics, type Metric, Registry } from 'prom-client';
import {
  CellFamily,
  Family,
  goFloat,
  labelText,
  type MetricType,
  type RegistryValues,
  type Sample,
  ScalarFamily,
} from './exposition.ts';

/** What telemetry may not read by itself (only src/io opens files). */
export interface ProcessReader {
  /** The text of a file under /proc, or null where there is none. */
  readText(path: string): string | null;
  /** Number of entries of a directory under /proc, or -1. */
  entryCount(path: string): number;
}

/** Event loop lag is sampled at this interval: fine enough for its percentiles, a fifth of the default's wake-ups. */
const loopSampleMs = 50;

export class RuntimeMetrics {
  readonly registry: Registry;
  readonly #own: readonly Family[];
  readonly #defaults: readonly string[];

  constructor(memberFamilies: readonly Family[], runtimeVersion: string, reader: ProcessReader) {
    this.registry = new Registry();
    collectDefaultMetrics({ register: this.registry, eventLoopMonitoringPrecision: loopSampleMs });
    this.#defaults = this.registry.getMetricsAsArray().map((metric) => metric.name);
    this.#own = ownFamilies(runtimeVersion, reader);
    for (const family of [...memberFamilies, ...this.#own]) {
      // The registry calls nothing but get() and the fields that Family has; its type asks for the classes of prom-client.
      this.registry.registerMetric(family as unknown as Metric);
    }
  }

  /** The families of this file, with the current numbers. */
  async families(): Promise<Family[]> {
    const values = await Promise.all(
      this.#defaults.map((name) => this.registry.getSingleMetric(name)!.get() as Promise<unknown>),
    );
    return [...this.#own, ...values.map((value) => new SnapshotFamily(value as RegistryValues))];
  }
}

/** What prom-client's metrics answered at this scrape. */
class SnapshotFamily extends Family {
  readonly #values: RegistryValues['values'];

  constructor(values: RegistryValues) {
    super(values.name, values.type as MetricType, values.help);
    this.#values = values.values;
  }

  override write(lines: string[]): void {
    for (const sample of this.samples()) {
      const text = labelText(sample.labels);
      lines.push(`${this.name}${sample.suffix}${text === '' ? '' : `{${text}}`} ${goFloat(sample.value)}`);
    }
  }

  override samples(): Sample[] {
    return this.#values.map((value) => ({
      suffix: (value.metricName ?? this.name).slice(this.name.length),
      labels: Object.fromEntries(Object.entries(value.labels).map(([name, text]) => [name, String(text)])),
      value: value.value,
    }));
  }
}

function ownFamilies(runtimeVersion: string, reader: ProcessReader): Family[] {
  const gauge = (name: string, help: string, read: () => number): Family => new ScalarFamily(name, 'gauge', help, read);
  const counter = (name: string, help: string, read: () => number): Family =>
    new ScalarFamily(name, 'counter', help, read);
  const info = new CellFamily('go_info', 'gauge', 'There is no Go here; the label names the runtime.', ['version']);
  info.with(runtimeVersion).value = 1;
  const heapUsed = (): number => process.memoryUsage().heapUsed;
  const descriptors = (): number => reader.entryCount('/proc/self/fd');
  const descriptorLimit = (): number => limitOf(reader, 'Max open files');
  return [
    info,
    gauge(
      'go_goroutines',
      'Handles and requests that the event loop waits for; the nearest number to goroutines.',
      () => process.getActiveResourcesInfo().length,
    ),
    gauge('go_threads', 'Threads of the process.', () => reader.entryCount('/proc/self/task')),
    gauge('go_memstats_alloc_bytes', "Bytes in use of this thread's JavaScript heap.", heapUsed),
    gauge('go_memstats_heap_alloc_bytes', "Bytes in use of this thread's JavaScript heap.", heapUsed),
    gauge('go_memstats_heap_inuse_bytes', "Bytes in use of this thread's JavaScript heap.", heapUsed),
    gauge(
      'go_memstats_heap_sys_bytes',
      "Bytes that this thread's JavaScript heap has of the system.",
      () => process.memoryUsage().heapTotal,
    ),
    gauge('os_fd_used', 'Open file descriptors.', descriptors),
    gauge('os_fd_limit', 'Limit of open file descriptors.', descriptorLimit),
    gauge('process_virtual_memory_max_bytes', 'Limit of virtual memory.', () => limitOf(reader, 'Max address space')),
    counter('process_network_receive_bytes_total', 'Bytes that the network namespace received.', () =>
      networkBytes(reader, 'InOctets'),
    ),
    counter('process_network_transmit_bytes_total', 'Bytes that the network namespace sent.', () =>
      networkBytes(reader, 'OutOctets'),
    ),
  ];
}

/** The soft limit of a row in /proc/self/limits; Go prints "unlimited" as 2^64 - 1. */
function limitOf(reader: ProcessReader, row: string): number {
  const match = new RegExp(`^${row}\\s+(\\S+)`, 'm').exec(reader.readText('/proc/self/limits') ?? '');
  return match === null ? 0 : match[1] === 'unlimited' ? 2 ** 64 : Number(match[1]);
}

/** /proc/self/net/netstat has a line of names and a line of values for each section. */
function networkBytes(reader: ProcessReader, name: string): number {
  const lines = (reader.readText('/proc/self/net/netstat') ?? '')
    .split('\n')
    .filter((line) => line.startsWith('IpExt:'));
  const index = (lines[0] ?? '').split(' ').indexOf(name);
  return index < 0 ? 0 : Number((lines[1] ?? '').split(' ')[index] ?? 0);
}
