// One member of a simulated cluster: the server's own bootstrap, loop, raft, WAL and engine, over a simulated disk, a database in
// memory that commits atomically, a clock and a network of the simulation. It can be started, killed, powered off and paused at any
// point. Everything that happens to it comes through enter(), so that what belongs to an earlier life never runs.

import { Admin } from '../admin/admin.ts';
import { memberSource } from '../admin/member-source.ts';
import { silentObserver } from '../backend/backend-options.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { etcdVersion } from '../config/version.ts';
import type { Disk } from '../io/file.ts';
import type { Random } from '../io/random.ts';
import type { WalRemoval, WalRotation, WalWriter, WalWriterConfig } from '../io/wal-writer.ts';
import type { PeerAnswer, PeerRequest } from '../peer/peer-transport.ts';
import { type BootstrapOptions, openMember } from '../server/bootstrap.ts';
import { walDirectory } from '../server/data-directory.ts';
import type { Member } from '../server/member.ts';
import { leaseCounters, memberCounters } from '../server/observers.ts';
import type { StartPlan } from '../server/start-plan.ts';
import { Logger } from '../telemetry/logger.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { walHoldsRecords } from '../wal/replay.ts';
import { DeferredWalWriter } from './deferred-wal-writer.ts';
import { MemoryStore } from './memory-tables.ts';
import type { Damage } from './sim-damage.ts';
import { type DatabaseHost, openSimBackend, SimStreamFile, simDatabases, smallLimits } from './sim-database.ts';
import { SimCrash, SimDisk } from './sim-disk.ts';
import { MemberClock, type SimLoop } from './sim-loop.ts';
import { type SimNetwork, SimPeerRequests, SimTransport, type Station } from './sim-network.ts';
import type { Rot } from './sim-rot.ts';

/** What test code may put in the place of a part: planted bugs. */
export interface SimHooks {
  readonly bootstrap?: (options: BootstrapOptions, member: SimMember) => BootstrapOptions;
  readonly opened?: (member: Member, sim: SimMember) => void;
}

export interface SimWorld {
  readonly loop: SimLoop;
  readonly network: SimNetwork;
  readonly random: Random;
  readonly hooks: SimHooks;
  note(line: string): void;
  /** A rule was broken: ends the run. */
  violated(what: string): void;
  /** After everything that a member did. */
  afterTurn(member: SimMember): void;
}

/** How slow a disk is; all in milliseconds of the simulation. */
export interface DiskSpeed {
  syncMs: number;
  flushMs: number;
}

export class SimMember {
  readonly name: string;
  readonly url: string;
  readonly config: ServerConfig;
  readonly disk: SimDisk;
  /** What its database holds, over all its lives. */
  tables: MemoryStore = new MemoryStore();
  readonly speed: DiskSpeed = { syncMs: 0.3, flushMs: 2 };
  readonly world: SimWorld;
  /** Null while it is down. */
  member: Member | null = null;
  clock: MemberClock;
  isServing = false;
  wasRemoved = false;
  generation = 0;
  /** Requests to its peer listener that are not answered. */
  answering = 0;
  private admin: Admin | null = null;
  starts = 0;
  /** What it last said when it ended by itself. */
  lastFatal: FatalError | null = null;
  /** Of its newest life. */
  memberId = 0n;
  /** What its disk has done to its data, until a start has told. */
  damage: Damage | null = null;
  /** What has rotted in its database, until it is found. */
  rot: Rot | null = null;
  /** Its last life has ended before it served, since another member has other data; until the operator has seen it. */
  refusesToServe = false;
  /** Its data is damaged and it has said so: it does not start until it is replaced. */
  isLost = false;
  private pausedUntilMs = 0;
  /** Nothing that the WAL is given becomes durable before. */
  stalledUntilMs = 0;
  /** Told when this life ends. */
  private readonly mourners = new Set<() => void>();
  /** Of a start without data. */
  private firstPlan: () => StartPlan | null;
  private readonly rate: number;
  private wallOffsetMs = 0;

  constructor(world: SimWorld, config: ServerConfig, firstPlan: () => StartPlan | null, rate: number) {
    this.world = world;
    this.firstPlan = firstPlan;
    this.config = config;
    this.name = config.name;
    this.url = config.advertisePeerUrls[0]!.text;
    this.rate = rate;
    this.disk = new SimDisk(world.random);
    this.clock = this.newClock();
  }

  get isUp(): boolean {
    return this.member !== null;
  }

  /** Its data was taken away, and it is not a member again yet. */
  get isUnplaced(): boolean {
    return this.starts === 0 && this.memberId !== 0n;
  }

  get isPaused(): boolean {
    return this.pausedUntilMs > this.world.loop.nowMs;
  }

  private newClock(): MemberClock {
    return new MemberClock(this.world.loop, this.rate, this.wallOffsetMs, this.entrance());
  }

  /** enter() of this life. */
  private entrance(): (run: () => void) => void {
    const { generation } = this;
    return (run) => {
      if (this.generation === generation) this.enter(run);
    };
  }

  private isInside = false;

  /** Runs as this member, now or when it is free to. */
  enter(run: () => void): void {
    const { loop } = this.world;
    const { generation } = this;
    if (this.isPaused || this.isInside) {
      const delayMs = this.isPaused ? this.pausedUntilMs - loop.nowMs : 0;
      loop.after(delayMs, () => {
        if (this.generation === generation) this.enter(run);
      });
      return;
    }
    this.isInside = true;
    try {
      run();
    } catch (error) {
      this.thrown(error);
    } finally {
      this.isInside = false;
    }
    if (this.member !== null) this.world.afterTurn(this);
  }

  private thrown(error: unknown): void {
    if (error instanceof SimCrash) this.die('power', 'the disk stopped in the middle of a write');
    else if (error instanceof FatalError) this.fatal(error);
    else this.world.violated(`${this.name}: ${error instanceof Error ? error.stack : String(error)}`);
  }

  /** The process ends itself. */
  private fatal(error: FatalError): void {
    this.lastFatal = error;
    this.die('kill', `fatal: ${error.message}`);
  }

  start(): void {
    const { world } = this;
    this.lastFatal = null;
    const plan = this.plan();
    // The cluster that it is to join does not answer, or the disk does not read.
    if (plan === null) return;
    this.starts++;
    this.generation++;
    this.isServing = false;
    this.clock = this.newClock();
    this.disk.crashAfter = Number.POSITIVE_INFINITY;
    world.note(`${this.name} starts`);
    this.enter(() => {
      const options = this.options(plan);
      const member = openMember(world.hooks.bootstrap?.(options, this) ?? options);
      this.member = member;
      this.memberId = member.parts.id;
      this.admin = this.newAdmin(member, this.entrance());
      world.hooks.opened?.(member, this);
      const enter = this.entrance();
      // The server goes on in a turn of its own.
      member.start(() => void world.loop.after(0, () => enter(() => this.checkFirst(member))));
      this.scheduleTick();
    });
  }

  /** As initial-check.ts, without a promise. */
  private checkFirst(member: Member): void {
    const serve = (): void => {
      this.isServing = true;
      this.world.note(`${this.name} serves`);
    };
    const isChecked = this.config.features.enabled('InitialCorruptCheck') && member.parts.backend.consistentIndex > 0;
    if (!isChecked) {
      serve();
      return;
    }
    member.corruption.initialCheck((error) => {
      if (error === null) serve();
      else {
        this.refusesToServe = true;
        this.fatal(new FatalError(ExitCode.backendCorrupt, error));
      }
    });
  }

  private plan(): StartPlan | null {
    try {
      const hasData = walHoldsRecords(this.disk, walDirectory(this.config));
      return hasData ? { kind: 'restart' } : this.firstPlan();
    } catch (error) {
      if (!(error instanceof FatalError)) throw error;
      this.lastFatal = error;
      return null;
    }
  }

  private scheduleTick(): void {
    this.clock.setTimer(this.config.heartbeatIntervalMs, () => {
      this.member?.tick();
      if (this.member !== null) this.scheduleTick();
    });
  }

  /** The process is gone at once, with the machine's memory ('power') or without it ('kill'). */
  die(how: 'kill' | 'power', why: string): void {
    this.world.note(`${this.name} ${how === 'kill' ? 'is killed' : 'loses power'}: ${why}`);
    this.generation++;
    this.member = null;
    this.admin = null;
    this.isServing = false;
    this.pausedUntilMs = 0;
    if (how === 'power') this.disk.crash();
    else this.disk.kill();
    for (const mourner of [...this.mourners]) mourner();
    this.mourners.clear();
  }

  /** The operator takes its data away; it may start again as a new member. */
  empty(plan: () => StartPlan | null): void {
    this.disk.erase();
    this.tables = new MemoryStore();
    this.firstPlan = plan;
    this.starts = 0;
    this.isLost = false;
  }

  pause(forMs: number): void {
    this.pausedUntilMs = this.world.loop.nowMs + forMs;
  }

  jumpWall(deltaMs: number): void {
    this.wallOffsetMs += deltaMs;
    this.clock.jumpWall(deltaMs);
  }

  /** Calls `mourner` when this life ends; returns how to be forgotten. */
  onDeath(mourner: () => void): () => void {
    this.mourners.add(mourner);
    return () => void this.mourners.delete(mourner);
  }

  private options(plan: StartPlan): BootstrapOptions {
    const { world, generation } = this;
    const enter = this.entrance();
    const host = this.databaseHost(enter);
    return {
      config: this.config,
      plan,
      serverVersion: etcdVersion,
      logger: this.logger(),
      random: world.random,
      walWriter: (config) => new SimWalWriter(this, this.disk, config, enter),
      walObserver: { write: () => {}, fsync: () => {} },
      backendObserver: silentObserver,
      memberCounters: memberCounters(metrics),
      leaseCounters: leaseCounters(metrics),
      failpoints: null,
      onFatal: (error) => {
        if (this.generation === generation) this.fatal(error);
      },
      flushConnections: () => {},
      schedule: (run) => void world.loop.after(0.01, () => enter(run)),
      newTransport: (events, { id }) => {
        const station: Station = {
          id,
          url: this.url,
          events,
          enter,
          isAlive: () => this.generation === generation && this.member !== null,
          nowMs: () => this.clock.nowMs(),
          answer: (request, done) => this.answer(request, done),
          met: () => {},
        };
        world.network.join(station);
        return new SimTransport(world.network, station);
      },
      peerRequests: new SimPeerRequests(world.network, {
        id: 0n,
        url: this.url,
        events: noEvents,
        enter,
        isAlive: () => this.generation === generation,
        nowMs: () => this.clock.nowMs(),
        answer: () => {},
        met: () => {},
      }),
      onRemoved: (reason) => {
        this.wasRemoved = true;
        world.loop.after(0, () => {
          if (this.generation === generation) this.die('kill', `removed: ${reason}`);
        });
      },
      disk: this.disk,
      clock: this.clock,
      openBackend: (options) => openSimBackend(host, options),
      openStreamFile: (path) => new SimStreamFile(host, path),
      databases: simDatabases(host),
      limits: smallLimits,
      walSegmentBytes: 16384,
    };
  }

  /** A request to its peer listener. */
  private answer({ method, path, headers, body }: PeerRequest, done: (answer: PeerAnswer) => void): void {
    const { admin, generation } = this;
    if (admin === null) return;
    this.answering++;
    const request = { method, target: path, host: 'peer', origin: '', secure: false };
    admin
      .handlePeer({
        ...request,
        ...(headers === undefined ? {} : { headers }),
        ...(body === undefined ? {} : { body: Buffer.from(body) }),
      })
      .then((response) => {
        const bytes = Buffer.from(response.body);
        if (this.generation === generation)
          done({ status: response.status, headers: lowerCase(response.headers), body: bytes });
      })
      .catch((error: unknown) => this.thrown(error))
      .finally(() => this.answering--);
  }

  private newAdmin(member: Member, enter: (run: () => void) => void): Admin {
    const source = memberSource({
      member,
      etcdVersion,
      metricsText: () => Promise.resolve(''),
      setTimer: (delayMs, callback) => this.world.loop.after(delayMs, () => enter(callback)),
    });
    const access = { cors: [], hostWhitelist: [] };
    return new Admin({ source, metrics, logger: this.logger(), access, requestTimeoutMs: member.requestTimeoutMs });
  }

  private logger(): Logger {
    const { world, name } = this;
    return new Logger({
      level: 'info',
      format: 'json',
      sink: { write: (line) => world.note(`${name} log ${logText(line)}`), flush: () => {} },
      now: () => 0,
    });
  }

  /** For the database of this life. */
  private databaseHost(enter: (run: () => void) => void): DatabaseHost {
    const sim = this;
    return {
      get tables(): MemoryStore {
        return sim.tables;
      },
      set tables(tables: MemoryStore) {
        sim.tables = tables;
      },
      disk: this.disk,
      clock: this.clock,
      later: (run) => void this.world.loop.after(this.drawMs(this.speed.flushMs), () => enter(run)),
    };
  }

  /** Exponential around the mean. */
  drawMs(meanMs: number): number {
    return 0.02 - meanMs * Math.log(1 - this.world.random.float());
  }
}

/** Nobody scrapes a simulated member. */
const metrics = new Metrics(
  { serverVersion: etcdVersion, runtimeVersion: 'simulated', extensive: false, features: [] },
  () => Promise.reject(new Error('not scraped')),
);

function lowerCase(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

function logText(line: string): string {
  const { msg, error } = JSON.parse(line) as { msg: string; error?: string };
  return error === undefined ? msg : `${msg} (${error})`;
}

const noEvents = {
  message: () => {},
  unreachable: () => {},
  snapshotSent: () => {},
  snapshotArrives: () => null,
  isRemoved: () => false,
  refused: () => {},
};

/** Writes that take their time; at times the disk is fast enough for the loop to wait for it. */
class SimWalWriter extends DeferredWalWriter implements WalWriter {
  private readonly sim: SimMember;
  private readonly enter: (run: () => void) => void;

  constructor(sim: SimMember, disk: Disk, config: WalWriterConfig, enter: (run: () => void) => void) {
    super(disk, config);
    this.sim = sim;
    this.enter = enter;
  }

  override write(length: number, position: number, rotation: WalRotation | null): number {
    const sequence = super.write(length, position, rotation);
    this.plan();
    return sequence;
  }

  override remove(removal: WalRemoval): number {
    const sequence = super.remove(removal);
    this.plan();
    return sequence;
  }

  private plan(): void {
    const { sim } = this;
    const { loop } = sim.world;
    const delayMs = Math.max(sim.drawMs(sim.speed.syncMs), sim.stalledUntilMs - loop.nowMs);
    loop.after(delayMs, () => this.enter(() => this.work()));
  }

  private work(): void {
    const { sim } = this;
    const leftMs = sim.stalledUntilMs - sim.world.loop.nowMs;
    if (leftMs > 0) sim.world.loop.after(leftMs, () => this.enter(() => this.work()));
    else if (this.pending > 0) this.step();
  }

  override wait(sequence: number): boolean {
    const { sim } = this;
    const isFast = sim.stalledUntilMs <= sim.world.loop.nowMs && sim.speed.syncMs < 2;
    if (isFast && sim.world.random.below(3) === 0) while (this.pending > 0) this.step();
    return super.wait(sequence);
  }

  /** The end of the process waits for what is in flight. */
  override close(): void {
    while (this.pending > 0) this.step();
    super.close();
  }
}
