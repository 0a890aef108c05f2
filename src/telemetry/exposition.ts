// Metric families and their text in the Prometheus format, byte for byte in the manner of Go's client, which etcd's users
// parse: families by name, labels by name with `le` last, numbers as strconv prints them, families without samples left out.
// A family is also a metric of a prom-client registry (get()), so that prom-client's own text shows the same numbers.
//
// Label texts are made once and kept: 45 gRPC methods times 17 codes are most of a scrape.

import { Histogram } from './histogram.ts';

export type MetricType = 'counter' | 'gauge' | 'histogram';

export interface Sample {
  /** '', '_bucket', '_sum' or '_count'. */
  readonly suffix: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** What prom-client's Registry asks of a metric. */
export interface RegistryValues {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  readonly aggregator: 'sum';
  readonly values: readonly {
    readonly metricName: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly value: number;
  }[];
}

export abstract class Family {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;

  constructor(name: string, type: MetricType, help: string) {
    this.name = name;
    this.type = type;
    this.help = help;
  }

  /** Appends the sample lines, in order. */
  abstract write(lines: string[]): void;
  /** The same as values. */
  abstract samples(): Sample[];

  get(): Promise<RegistryValues> {
    const values = this.samples().map(({ suffix, labels, value }) => ({
      metricName: this.name + suffix,
      labels,
      value,
    }));
    return Promise.resolve({ name: this.name, help: this.help, type: this.type, aggregator: 'sum', values });
  }
}

/** One number without labels, read at the scrape. */
export class ScalarFamily extends Family {
  readonly #read: () => number;

  constructor(name: string, type: 'counter' | 'gauge', help: string, read: () => number) {
    super(name, type, help);
    this.#read = read;
  }

  override write(lines: string[]): void {
    lines.push(`${this.name} ${goFloat(this.#read())}`);
  }

  override samples(): Sample[] {
    return [{ suffix: '', labels: {}, value: this.#read() }];
  }
}

/** A number with its labels, for the places that count or set it. */
export class Cell {
  value: number = 0;
}

/** Cells by label values. Places on hot paths keep the cell that with() gave them. */
export class CellFamily extends Family {
  readonly #labelNames: readonly string[];
  readonly #children: Map<string, { readonly labels: Readonly<Record<string, string>>; readonly cell: Cell }> =
    new Map();

  constructor(name: string, type: 'counter' | 'gauge', help: string, labelNames: readonly string[]) {
    super(name, type, help);
    this.#labelNames = labelNames;
  }

  /** The cell of these values, in the order of the label names given to the constructor. */
  with(...values: string[]): Cell {
    const labels = zipLabels(this.#labelNames, values);
    const text = labelText(labels);
    let child = this.#children.get(text);
    if (child === undefined) {
      child = { labels, cell: new Cell() };
      this.#children.set(text, child);
    }
    return child.cell;
  }

  /** Forgets every cell; for gauges that name a state (a version, an alarm) in a label. */
  clear(): void {
    this.#children.clear();
  }

  /** Sets every cell to 0; for gauges whose series stay when what they name has gone. */
  zero(): void {
    for (const { cell } of this.#children.values()) cell.value = 0;
  }

  override write(lines: string[]): void {
    for (const text of [...this.#children.keys()].sort())
      lines.push(`${this.name}{${text}} ${goFloat(this.#children.get(text)!.cell.value)}`);
  }

  override samples(): Sample[] {
    return [...this.#children.values()].map(({ labels, cell }) => ({ suffix: '', labels, value: cell.value }));
  }
}

/** A fixed set of labelled numbers that lie in an array of the caller's, which counts by index. */
export class ArrayFamily extends Family {
  readonly #labels: readonly Readonly<Record<string, string>>[];
  readonly #values: Float64Array;
  /** Index and text in the order of the text; made at the first scrape. */
  #order: { readonly index: number; readonly prefix: string }[] | null = null;

  constructor(
    name: string,
    type: 'counter' | 'gauge',
    help: string,
    labels: readonly Readonly<Record<string, string>>[],
    values: Float64Array,
  ) {
    super(name, type, help);
    this.#labels = labels;
    this.#values = values;
  }

  override write(lines: string[]): void {
    this.#order ??= this.#labels
      .map((labels, index) => ({ index, prefix: `${this.name}{${labelText(labels)}} ` }))
      .sort((a, b) => (a.prefix < b.prefix ? -1 : 1));
    for (const { index, prefix } of this.#order) lines.push(prefix + goFloat(this.#values[index]!));
  }

  override samples(): Sample[] {
    return this.#labels.map((labels, index) => ({ suffix: '', labels, value: this.#values[index]! }));
  }
}

/** Histograms by label values; without labels there is one. */
export class HistogramFamily extends Family {
  readonly #labelNames: readonly string[];
  readonly #bounds: readonly number[];
  readonly #children: Map<string, HistogramChild> = new Map();

  constructor(name: string, help: string, bounds: readonly number[], labelNames: readonly string[] = []) {
    super(name, 'histogram', help);
    this.#bounds = bounds;
    this.#labelNames = labelNames;
  }

  /** The histogram of these label values. Places on hot paths keep it. */
  with(...values: string[]): Histogram {
    const labels = zipLabels(this.#labelNames, values);
    const text = labelText(labels);
    let child = this.#children.get(text);
    if (child === undefined) {
      child = new HistogramChild(this.name, labels, text, new Histogram(this.#bounds));
      this.#children.set(text, child);
    }
    return child.histogram;
  }

  override write(lines: string[]): void {
    for (const text of [...this.#children.keys()].sort()) this.#children.get(text)!.write(lines);
  }

  override samples(): Sample[] {
    return [...this.#children.values()].flatMap((child) => child.samples());
  }
}

class HistogramChild {
  readonly histogram: Histogram;
  readonly #labels: Readonly<Record<string, string>>;
  readonly #bucketPrefixes: readonly string[];
  readonly #sumPrefix: string;
  readonly #countPrefix: string;

  constructor(name: string, labels: Readonly<Record<string, string>>, text: string, histogram: Histogram) {
    this.histogram = histogram;
    this.#labels = labels;
    const before = text === '' ? '' : `${text},`;
    const les = [...Array.from(histogram.bounds, goFloat), '+Inf'];
    this.#bucketPrefixes = les.map((le) => `${name}_bucket{${before}le="${le}"} `);
    this.#sumPrefix = `${name}_sum${text === '' ? '' : `{${text}}`} `;
    this.#countPrefix = `${name}_count${text === '' ? '' : `{${text}}`} `;
  }

  write(lines: string[]): void {
    const counts = this.histogram.counts;
    let total = 0;
    for (let i = 0; i < counts.length; i++) {
      total += counts[i]!;
      lines.push(this.#bucketPrefixes[i]! + goFloat(total));
    }
    lines.push(this.#sumPrefix + goFloat(this.histogram.sum), this.#countPrefix + goFloat(total));
  }

  samples(): Sample[] {
    const samples: Sample[] = [];
    let total = 0;
    for (const [i, count] of this.histogram.counts.entries()) {
      total += count;
      const bound = this.histogram.bounds[i];
      const le = bound === undefined ? '+Inf' : goFloat(bound);
      samples.push({ suffix: '_bucket', labels: { ...this.#labels, le }, value: total });
    }
    samples.push({ suffix: '_sum', labels: this.#labels, value: this.histogram.sum });
    samples.push({ suffix: '_count', labels: this.#labels, value: total });
    return samples;
  }
}

/** The text of all families, by name. */
export function writeFamilies(families: readonly Family[]): string {
  const lines: string[] = [];
  for (const family of [...families].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const start = lines.length;
    lines.push(`# HELP ${family.name} ${escapeHelp(family.help)}`, `# TYPE ${family.name} ${family.type}`);
    family.write(lines);
    if (lines.length === start + 2) lines.length = start;
  }
  lines.push('');
  return lines.join('\n');
}

function zipLabels(names: readonly string[], values: readonly string[]): Readonly<Record<string, string>> {
  const pairs = names.map((name, index): [string, string] => [name, values[index] ?? '']);
  return Object.fromEntries(pairs.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** `a="1",b="2"`, by name. */
export function labelText(labels: Readonly<Record<string, string>>): string {
  return Object.keys(labels)
    .sort()
    .map((name) => `${name}="${escapeLabel(labels[name]!)}"`)
    .join(',');
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}

function escapeHelp(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}

/** strconv.FormatFloat(value, 'g', -1, 64), with Prometheus' names for what is not finite. */
export function goFloat(value: number): string {
  if (Number.isInteger(value) && value > -1e6 && value < 1e6) return Object.is(value, -0) ? '-0' : String(value);
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf';
  const [digits = '', exponentText = '0'] = value.toExponential().split('e');
  const exponent = Number(exponentText);
  // 'g' with the shortest precision decides by six digits: 1e6 is "1e+06", 0.0001 stays.
  if (exponent >= -4 && exponent < 6) return String(value);
  const size = Math.abs(exponent);
  return `${digits}e${exponent < 0 ? '-' : '+'}${size < 10 ? '0' : ''}${size}`;
}
