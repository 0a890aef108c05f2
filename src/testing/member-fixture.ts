// A member over real parts in a scratch folder, for tests of src/server and src/rpc: its time can be moved, its WAL stalled, its
// log read. No network.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Applier } from '../apply/applier.ts';
import type { FatalError } from '../base/fatal.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { type Clock, systemClock } from '../io/clock.ts';
import { nodeDisk } from '../io/file.ts';
import { SeededRandom } from '../io/random.ts';
import type { PeerRequests } from '../peer/peer-transport.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode, type MessageInit, type Schema } from '../proto/message.ts';
import type { EtcdError } from '../proto/rpctypes.ts';
import { type BootstrapOptions, openMember } from '../server/bootstrap.ts';
import type { Member } from '../server/member.ts';
import { backendObserver, leaseCounters, memberCounters, walObserver } from '../server/observers.ts';
import { planStart } from '../server/start-plan.ts';
import type { BackendLimits } from '../storage-limits.ts';
import { Logger } from '../telemetry/logger.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { RuntimeMetrics } from '../telemetry/runtime-metrics.ts';
import { configOf } from './config-fixture.ts';
import { DeferredWalWriter } from './deferred-wal-writer.ts';
import { PutMessage } from './kv-messages.ts';
import { silentRequests, silentTransport } from './silent-transport.ts';

/** Does its work when it is waited for, unless the test stalls it. */
class StallableWriter extends DeferredWalWriter {
  isStalled: () => boolean = () => false;

  override wait(sequence: number): boolean {
    while (!this.isStalled() && this.pending > 0) this.step();
    return super.wait(sequence);
  }
}

export class MemberFixture {
  readonly folder: string;
  readonly metrics: Metrics;
  readonly lines: string[] = [];
  readonly fatal: FatalError[] = [];
  readonly removed: string[] = [];
  /** Of what the member draws by chance, elections above all. */
  seed = 1;
  newTransport: BootstrapOptions['newTransport'] = () => silentTransport;
  peerRequests: PeerRequests = silentRequests;
  member!: Member;
  /** Of the database, when a test shrinks them. */
  limits: BackendLimits | null = null;
  /** While true nothing that the WAL is given becomes durable. */
  walStalled = false;
  private offsetMs = 0;
  private writer: StallableWriter | null = null;
  private pump: NodeJS.Timeout | null = null;

  constructor(folder: string = mkdtempSync(join(tmpdir(), 'keelson-member-'))) {
    this.folder = folder;
    const options = { serverVersion: '3.7.1', runtimeVersion: 'test', extensive: false, features: [] };
    this.metrics = new Metrics(options, async (families) => {
      const { processReader } = await import('../io/process-info.ts');
      return new RuntimeMetrics(families, 'test', processReader);
    });
  }

  config(...flags: string[]): Promise<ServerConfig> {
    return configOf('--name=m1', `--data-dir=${join(this.folder, 'data')}`, '--log-level=debug', ...flags);
  }

  /** Opens the member; throws what openMember throws. */
  async open(...flags: string[]): Promise<Member> {
    const { metrics } = this;
    const clock: Clock = { ...systemClock, nowMs: () => systemClock.nowMs() + this.offsetMs };
    const config = await this.config(...flags);
    const logger = new Logger({
      level: 'debug',
      format: 'json',
      sink: { write: (line) => void this.lines.push(line), flush: () => {} },
      now: () => 0,
    });
    this.member = openMember({
      config,
      plan: await planStart({ config, logger, peerRequests: this.peerRequests }),
      serverVersion: '3.7.1',
      logger,
      random: new SeededRandom(this.seed),
      walWriter: (config) => {
        this.writer = new StallableWriter(nodeDisk, config);
        this.writer.isStalled = () => this.walStalled;
        return this.writer;
      },
      walObserver: walObserver(metrics),
      backendObserver: backendObserver(metrics, () => systemClock.wallMs()),
      memberCounters: memberCounters(metrics),
      leaseCounters: leaseCounters(metrics),
      failpoints: null,
      onFatal: (error) => void this.fatal.push(error),
      flushConnections: () => {},
      schedule: setImmediate,
      newTransport: this.newTransport,
      peerRequests: this.peerRequests,
      onRemoved: (reason) => void this.removed.push(reason),
      clock,
      ...(this.limits === null ? {} : { limits: this.limits }),
    });
    this.pump = setInterval(() => {
      while (!this.walStalled && this.writer !== null && this.writer.pending > 0) this.writer.step();
    }, 1);
    return this.member;
  }

  /** Opens and starts; resolves when the member can serve. */
  async start(...flags: string[]): Promise<Member> {
    const member = await this.open(...flags);
    await new Promise<void>((ready) => member.start(ready));
    return member;
  }

  /** Moves the member's monotonic time on, without waiting. */
  advance(ms: number): void {
    this.offsetMs += ms;
  }

  /** The fields of the lines with this message, in order. */
  logged(message: string): Record<string, unknown>[] {
    return this.lines
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter((fields) => fields['msg'] === message);
  }

  /** Proposes; resolves with the revision of the answer, or the error. */
  propose<S extends Schema>(field: RequestField, schema: S, message: MessageInit<S>): Promise<number | EtcdError> {
    const bytes = encode(schema, message);
    return new Promise((resolve) => {
      const error = this.member.propose(field, bytes, 0, bytes.length, {
        applied: (applier: Applier) => resolve(applier.error ?? applier.revision),
        failed: resolve,
      });
      if (error !== null) resolve(error);
    });
  }

  put(key: string, value: string): Promise<number | EtcdError> {
    return this.propose(RequestField.put, PutMessage, { key: Buffer.from(key), value: Buffer.from(value) });
  }

  /** A linearizable read; resolves with null, or the error. */
  read(): Promise<EtcdError | null> {
    return new Promise((resolve) => this.member.read({ ready: () => resolve(null), failed: resolve }));
  }

  async stop(): Promise<void> {
    await new Promise<void>((done) => this.member.stop(done));
    this.release();
  }

  /** Ends the timers of a member that was not stopped, and of one that was. */
  release(): void {
    if (this.pump !== null) clearInterval(this.pump);
    this.pump = null;
  }

  remove(): void {
    this.release();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
