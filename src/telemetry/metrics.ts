// Every metric of a member by etcd 3.7's names, types, labels and buckets (ETCD-SURFACE.md §7), as plain objects that the
// folders count in by injected references: `metrics.mvcc.put++`, `metrics.grpc.started[index]!++`,
// `metrics.disk.walFsync.observe(seconds)`. Read at a scrape; nothing is computed before. Numbers of Node and of the process
// are runtime-metrics.ts. Metrics of parts that do not exist here but that etcd always shows (v2 store, gRPC proxy) stay 0, as
// they do in an etcd member.

import { type Family, writeFamilies } from './exposition.ts';
import { GrpcMetrics, HealthMetrics, type MetricsOptions, NetworkMetrics, ServerMetrics } from './member-metrics.ts';
import { addLeftovers, Builder } from './metric-builder.ts';
import type { RuntimeMetrics } from './runtime-metrics.ts';
import { DiskMetrics, LeaseMetrics, MvccMetrics, WatchMetrics } from './storage-metrics.ts';

export class Metrics {
  readonly server: ServerMetrics;
  readonly network: NetworkMetrics;
  readonly disk: DiskMetrics;
  readonly mvcc: MvccMetrics;
  readonly lease: LeaseMetrics;
  readonly watch: WatchMetrics;
  readonly health: HealthMetrics;
  readonly grpc: GrpcMetrics;
  authRevision = 0;
  /** All families, in no order; for tests and the registry. */
  readonly families: readonly Family[];
  #scrapes = 0;
  #scrapesRunning = 0;
  readonly #beforeScrape: (() => void)[] = [];
  #runtime: Promise<RuntimeMetrics> | null = null;
  readonly #loadRuntime: (families: readonly Family[]) => Promise<RuntimeMetrics>;

  /** `loadRuntime` brings the numbers of the process; runtime-metrics.ts, which is slow to load, is only needed then. */
  constructor(options: MetricsOptions, loadRuntime: (families: readonly Family[]) => Promise<RuntimeMetrics>) {
    const b = new Builder();
    this.server = new ServerMetrics(b, options);
    this.network = new NetworkMetrics(b);
    this.disk = new DiskMetrics(b);
    this.mvcc = new MvccMetrics(b);
    this.lease = new LeaseMetrics(b);
    this.watch = new WatchMetrics(b);
    this.health = new HealthMetrics(b);
    this.grpc = new GrpcMetrics(b, options.extensive);
    b.gauge('etcd_debugging_auth_revision', 'Revision of the auth store.', () => this.authRevision);
    addLeftovers(b);
    this.#addScrapes(b);
    this.families = b.families;
    this.#loadRuntime = loadRuntime;
  }

  /** Runs `refresh` before each scrape: for gauges whose numbers live elsewhere, such as database sizes. */
  onScrape(refresh: () => void): void {
    this.#beforeScrape.push(refresh);
  }

  /** Loads what the first scrape needs; main.ts calls it when the member is ready, so that no scrape pays for it. */
  async warmUp(): Promise<void> {
    this.#runtime ??= this.#loadRuntime(this.families);
    await this.#runtime;
  }

  /** The exposition, in Prometheus' text format 0.0.4. */
  async text(): Promise<string> {
    this.#scrapesRunning++;
    try {
      this.#runtime ??= this.#loadRuntime(this.families);
      const runtime = await (await this.#runtime).families();
      for (const refresh of this.#beforeScrape) refresh();
      const text = writeFamilies([...this.families, ...runtime]);
      this.#scrapes++;
      return text;
    } finally {
      this.#scrapesRunning--;
    }
  }

  #addScrapes(b: Builder): void {
    b.gauge('promhttp_metric_handler_requests_in_flight', 'Scrapes being answered.', () => this.#scrapesRunning);
    const scrapes = b.cells('promhttp_metric_handler_requests_total', 'counter', 'Scrapes by HTTP status.', ['code']);
    for (const code of ['500', '503']) scrapes.with(code);
    const answered = scrapes.with('200');
    this.#beforeScrape.push(() => {
      answered.value = this.#scrapes;
    });
  }
}
