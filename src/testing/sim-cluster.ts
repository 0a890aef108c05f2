// A whole cluster in one process from one seed: members (sim-member.ts) on a simulated network, clients and watchers that use them,
// faults that strike as the seed's options say, and checkers that look after everything that happens (sim-oracle.ts), at the end at
// what the clients saw (linearizability.ts). Two phases: faults, then none, and the cluster has to become whole and go on within a
// bound. The same seed gives the same run, event by event: `traceHash` says so.

import { setImmediate } from 'node:timers/promises';
import { crc32c } from '../base/crc32c.ts';
import { clusterId, memberId } from '../config/cluster-id.ts';
import { urlTexts } from '../config/member-url.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { type Random, SeededRandom } from '../io/random.ts';
import type { Member as ClusterMember } from '../membership/cluster.ts';
import type { StartPlan } from '../server/start-plan.ts';
import { checkKv, type KvOperation } from './kv-model.ts';
import { callKv } from './sim-calls.ts';
import { resolveUnknown, SimClient } from './sim-clients.ts';
import { FaultInjector } from './sim-faults.ts';
import { SimLeaseHolder } from './sim-leases.ts';
import { SimLoop } from './sim-loop.ts';
import { type SimHooks, SimMember, type SimWorld } from './sim-member.ts';
import { SimNetwork } from './sim-network.ts';
import { SimOperator } from './sim-operator.ts';
import { drawOptions, memberConfig, peerUrlOf, type SimOptions } from './sim-options.ts';
import { Oracle, Violation } from './sim-oracle.ts';
import { RotWatch } from './sim-rot.ts';
import { SimWatcher } from './sim-watchers.ts';
import { WatchViolation } from './watch-checker.ts';

/** Lines kept for the report of a failure. */
const TRACE_LINES = 200;
/** Machines that the operator may add. */
const sparesMax = 6;
/** After the last fault the cluster must be whole and serving within this time. */
const recoveryMs = 60_000;
/** Of a search, which takes about one a call. */
const searchStepsMax = 2_000_000;
/** Histories with more are checked with what the log says of them only. */
const unknownCallsMax = 12;

export interface SimReport {
  readonly seed: number;
  readonly options: SimOptions;
  readonly simulatedMs: number;
  readonly steps: number;
  /** Null: nothing was found. */
  readonly failure: string | null;
  readonly traceHash: string;
  readonly trace: readonly string[];
  readonly faults: Readonly<Record<string, number>>;
  readonly calls: { answered: number; refused: number; unknown: number };
  readonly revision: number;
  readonly leaderChanges: number;
  readonly watchedEvents: number;
}

export interface SimRunOptions {
  readonly hooks?: SimHooks;
  /** In the place of what the seed draws. */
  readonly change?: (options: SimOptions) => SimOptions;
  /** Sees each line of the trace. */
  readonly onLine?: (line: string) => void;
}

export async function simulate(seed: number, run: SimRunOptions = {}): Promise<SimReport> {
  const random = new SeededRandom(seed);
  const drawn = drawOptions(seed, random);
  const options = run.change?.(drawn) ?? drawn;
  const slots = Array.from({ length: options.memberCount + sparesMax }, (_, slot) => slot);
  const initial = slots
    .slice(0, options.memberCount)
    .map((slot) => `m${slot + 1}=${peerUrlOf(slot)}`)
    .join(',');
  const configs = await Promise.all(slots.map((slot) => memberConfig(slot, initial, options)));
  return new SimCluster(options, random, configs, run).run();
}

class SimCluster {
  readonly loop: SimLoop = new SimLoop();
  readonly random: Random;
  readonly members: SimMember[];
  private readonly options: SimOptions;
  private readonly world: SimWorld;
  private readonly spares: ServerConfig[];
  private operator: SimOperator | null = null;
  private readonly oracle = new Oracle();
  private readonly network: SimNetwork;
  private readonly injector: FaultInjector;
  private readonly rotWatch: RotWatch;
  private readonly clients: SimClient[] = [];
  private readonly watchers: SimWatcher[] = [];
  private readonly holders: SimLeaseHolder[] = [];
  private readonly run_: SimRunOptions;
  /** Calls of the run itself. */
  private readonly ownHistory: KvOperation[] = [];
  private readonly lines: string[] = [];
  private hash = 0;
  private failure: string | null = null;

  constructor(options: SimOptions, random: Random, configs: readonly ServerConfig[], run: SimRunOptions) {
    this.options = options;
    this.random = random;
    this.run_ = run;
    this.network = new SimNetwork(this.loop, random);
    this.network.faults = { ...options.link };
    this.network.onMessage = ({ type, term, index, commit, entries }) => {
      const text = type * 31 + term * 7 + index * 13 + commit * 17 + entries.length;
      this.hash = Math.imul(this.hash ^ text, 0x9e3779b1);
    };
    const hooks = run.hooks ?? {};
    const world: SimWorld = {
      loop: this.loop,
      network: this.network,
      random,
      hooks,
      note: (line) => this.note(line),
      violated: (what) => this.violated(what),
      afterTurn: (sim) => this.check(() => this.afterTurn(sim)),
    };
    this.world = world;
    this.spares = configs.slice(options.memberCount);
    const first = configs.slice(0, options.memberCount);
    const clusterMembers = first.map(clusterMemberOf).sort((a, b) => (a.id < b.id ? -1 : 1));
    this.members = [];
    for (const config of first) {
      this.newMember(config, () => ({
        kind: 'new',
        clusterId: clusterId(clusterMembers.map(({ id }) => id)),
        memberId: clusterMemberOf(config).id,
        members: clusterMembers,
      }));
    }
    this.rotWatch = new RotWatch(
      { ...world, members: this.members, after: (delayMs, go) => this.after(delayMs, go) },
      () => this.loop.nowMs,
    );
    this.injector = new FaultInjector(world, this.members, options.faults, options.rotsRows ? this.rotWatch : null);
  }

  private newMember(config: ServerConfig, plan: () => StartPlan | null): SimMember {
    const { options, random } = this;
    const rate = 1 + (random.float() * 2 - 1) * options.clockSkew;
    const member = new SimMember(this.world, config, plan, rate);
    member.speed.syncMs = options.syncMs;
    member.speed.flushMs = options.flushMs;
    this.members.push(member);
    return member;
  }

  private after(delayMs: number, go: () => void): void {
    this.loop.after(delayMs, () => this.check(go));
  }

  private note(line: string): void {
    const text = `${(this.loop.nowMs / 1000).toFixed(6)} ${line}`;
    this.hash = crc32c(this.hash, Buffer.from(text));
    this.run_.onLine?.(text);
    this.lines.push(text);
    if (this.lines.length > 2 * TRACE_LINES) this.lines.splice(0, TRACE_LINES);
  }

  private violated(what: string): void {
    if (this.failure !== null) return;
    this.failure = what;
    this.note(`VIOLATED ${what}`);
  }

  private check(body: () => void): void {
    try {
      body();
    } catch (error) {
      this.caught(error);
    }
  }

  private caught(error: unknown): void {
    const isKnown = error instanceof Violation || error instanceof WatchViolation;
    this.violated(isKnown ? error.message : error instanceof Error ? (error.stack ?? error.message) : String(error));
  }

  private afterTurn(sim: SimMember): void {
    this.oracle.afterTurn(sim);
    for (const watcher of this.watchers) watcher.checker.check();
  }

  /** Until the time, or a violation. */
  private async goOnUntil(endMs: number, isDone: () => boolean = () => false): Promise<void> {
    let goesOn = true;
    while (goesOn && this.failure === null && !isDone()) {
      this.check(() => {
        goesOn = this.loop.step(endMs);
      });
      // Requests to peer listeners are answered by promises: these go on before anything else happens.
      if (this.members.some((sim) => sim.answering > 0)) await setImmediate();
    }
  }

  async run(): Promise<SimReport> {
    for (const member of this.members) member.start();
    this.startClients();
    this.injector.start();
    await this.goOnUntil(this.options.durationMs);
    if (this.failure === null) await this.recover();
    if (this.failure === null) {
      try {
        await this.checkEnd();
      } catch (error) {
        this.caught(error);
      }
    }
    return this.report();
  }

  private startClients(): void {
    const { options, loop, oracle, members, random } = this;
    const world = {
      random,
      oracle,
      members,
      after: (delayMs: number, go: () => void) => this.after(delayMs, go),
      nowMs: () => loop.nowMs,
      note: (line: string) => this.note(line),
    };
    for (let id = 0; id < options.clientCount; id++) this.clients.push(new SimClient(id, world, options.client));
    for (let id = 0; id < options.watcherCount; id++) {
      const range =
        random.below(2) === 0 ? { key: 'k0', end: '' } : { key: 'k', end: random.below(2) === 0 ? '\0' : 'k5' };
      this.watchers.push(new SimWatcher(world, `w${id}`, range));
    }
    for (let id = 0; id < options.leaseHolderCount; id++) {
      this.holders.push(new SimLeaseHolder(id, world, options));
    }
    oracle.onRevision = (revision, events) => {
      for (const holder of this.holders) holder.noteChange(revision, events);
    };
    for (const holder of this.holders) holder.start();
    this.operator = new SimOperator(
      {
        ...world,
        newMachine: (plan) => {
          const config = this.spares.shift();
          return config === undefined ? null : this.newMember(config, () => plan(peerUrlOf(configSlot(config))));
        },
      },
      options.faults.operator,
      options.memberCount,
    );
    this.operator.start();
    if (options.corruptCheckMs > 0) this.rotWatch.start();
    for (const client of this.clients) client.start();
    for (const watcher of this.watchers) watcher.start();
  }

  /** Faults end: everybody is up, equal and serving within the bound. */
  private async recover(): Promise<void> {
    this.note('faults end');
    this.injector.stop();
    this.operator?.stop();
    const endMs = this.loop.nowMs + recoveryMs;
    const isWhole = (): boolean =>
      this.expected().every((sim) => sim.isServing) &&
      this.areRemovedGone() &&
      this.operator?.isReplacing !== true &&
      this.rotWatch.isOver;
    await this.goOnUntil(endMs, isWhole);
    if (this.failure !== null) return;
    if (!isWhole()) {
      const missing = this.expected().filter((sim) => !sim.isServing);
      const names = missing.map(({ name }) => name).join(', ');
      const rest = this.rotWatch.isOver ? 'a member that was removed still runs' : this.rotWatch.stateText();
      const what = missing.length > 0 ? `${names} does not serve` : rest;
      this.violated(`${recoveryMs} ms after the last fault ${what}: ${this.stateText()}`);
      return;
    }
    // Each of them takes a write, and then there is silence in which all become equal.
    const answered = new Set<SimMember>();
    const asked = new Set<SimMember>();
    // A change of the members that was under way may still come through.
    const areAnswered = (): boolean => {
      const expected = this.expected();
      for (const sim of expected) {
        if (asked.has(sim) || !sim.isServing) continue;
        asked.add(sim);
        this.writeThrough(sim, () => answered.add(sim));
      }
      return expected.every((sim) => answered.has(sim));
    };
    await this.goOnUntil(endMs, areAnswered);
    if (this.failure === null && !areAnswered()) {
      this.violated(`${recoveryMs} ms after the last fault not every member takes a write: ${this.stateText()}`);
    }
    for (const client of this.clients) client.isStopped = true;
    for (const holder of this.holders) holder.isStopped = true;
    await this.goOnUntil(this.loop.nowMs + 12_000);
    for (const watcher of this.watchers) watcher.readOn();
    await this.goOnUntil(this.loop.nowMs + 5000);
  }

  /** Who is in the cluster, as its leader knows it. */
  private expected(): SimMember[] {
    const leader = this.members.find(({ member }) => member?.isLeader === true)?.member;
    const list = leader?.parts.cluster.members() ?? [];
    if (leader === undefined || leader === null) return this.members.filter((sim) => !sim.wasRemoved && sim.starts > 0);
    return this.members.filter(({ url }) => list.some(({ peerUrls }) => peerUrls.includes(url)));
  }

  private areRemovedGone(): boolean {
    const expected = this.expected();
    return this.members.every((sim) => sim.member === null || expected.includes(sim));
  }

  private writeThrough(sim: SimMember, done: () => void): void {
    const startedAt = this.loop.nowMs;
    const call = { kind: 'put', key: 'k-recovered', value: `${sim.name} ${startedAt}` } as const;
    callKv(sim, call, false, 8000, (end) => {
      if (end.kind !== 'refused') {
        const answer = end.kind === 'answered' ? end.answer : null;
        this.ownHistory.push({ client: -1, call, answer, startedAt, endedAt: this.loop.nowMs });
      }
      if (end.kind === 'answered') done();
      else if (sim.isUp) this.loop.after(200, () => this.writeThrough(sim, done));
    });
  }

  private async checkEnd(): Promise<void> {
    const { oracle, watchers } = this;
    for (const sim of this.expected()) {
      this.oracle.checkState(sim);
      const { currentRevision } = sim.member!.parts.store;
      if (currentRevision === oracle.history.revision) continue;
      throw new Violation(
        `${sim.name} is at revision ${currentRevision} of ${oracle.history.revision}: ${this.stateText()}`,
      );
    }
    for (const holder of this.holders) holder.checkEnded(this.loop.nowMs - 16_000);
    await this.checkHashes();
    for (const { checker } of watchers) checker.checkComplete(oracle.history.revision);
    this.checkHistory();
  }

  /** HashKV of all at one revision. */
  private async checkHashes(): Promise<void> {
    const found = new Map<string, string>();
    const sims = this.expected();
    for (const sim of sims) {
      sim.enter(() => {
        const { backend, store } = sim.member!.parts;
        const { currentRevision, compactRevision } = store;
        backend.hashKv(currentRevision, compactRevision, (hash) => {
          found.set(sim.name, `${hash} at revision ${currentRevision}, compacted ${compactRevision}`);
        });
      });
    }
    await this.goOnUntil(this.loop.nowMs + 60_000, () => found.size === sims.length);
    if (found.size === sims.length && new Set(found.values()).size === 1) return;
    throw new Violation(`hashes differ: ${[...found].map(([name, hash]) => `${name} ${hash}`).join('; ')}`);
  }

  private checkHistory(): void {
    const { oracle, clients } = this;
    const history = [
      ...this.ownHistory,
      ...this.rotWatch.history,
      ...clients.flatMap((client) => client.history),
      ...this.holders.flatMap((holder) => [...holder.history, ...holder.ends()]),
    ];
    for (const { call, answer } of history) {
      if (answer === null || (call.kind !== 'put' && !(call.kind === 'cas' && answer.succeeded))) continue;
      if (oracle.revisionOfValue(call.key, call.value) === answer.revision) continue;
      throw new Violation(
        `the acknowledged write ${call.key}=${call.value.slice(0, 20)} at revision ${answer.revision} is lost`,
      );
    }
    checkLinearizable(resolveUnknown(history, oracle));
    // Once more by what the clients know alone. Ends of leases are known from the log, and each unknown call may double the search.
    const unknown = history.filter(({ answer }) => answer === null).length;
    if (this.holders.length > 0 || unknown > unknownCallsMax) return;
    this.note(`${history.length} calls, ${unknown} of them without an answer, are checked as the clients saw them`);
    checkLinearizable(history);
  }

  private stateText(): string {
    return this.members
      .map(({ name, member, isServing }) => {
        if (member === null) return `${name} down`;
        const { raft } = member.parts;
        const role = raft.isLeader ? 'leads' : 'follows';
        const index = `${raft.appliedIndex}/${raft.committedIndex}/${raft.lastIndex}`;
        return `${name} ${isServing ? '' : 'not serving '}${role} term ${raft.term} at ${index}`;
      })
      .join('; ');
  }

  private report(): SimReport {
    const { loop, oracle, clients, network, injector } = this;
    const calls = { answered: 0, refused: 0, unknown: 0 };
    for (const { counts } of clients) {
      calls.answered += counts.answered;
      calls.refused += counts.refused;
      calls.unknown += counts.unknown;
    }
    const { lost, repeated, overtaken, snapshots, snapshotsCut } = network.counts;
    return {
      seed: this.options.seed,
      options: this.options,
      simulatedMs: loop.nowMs,
      steps: loop.steps,
      failure: this.failure,
      traceHash: (this.hash >>> 0).toString(16),
      trace: this.lines.slice(-TRACE_LINES),
      faults: {
        ...injector.counts,
        ...this.operator?.counts,
        ...this.rotWatch.counts,
        lost,
        repeated,
        overtaken,
        snapshots,
        snapshotsCut,
      },
      calls,
      revision: oracle.history.revision,
      leaderChanges: oracle.leaderChanges,
      watchedEvents: this.watchers.reduce((sum, { checker }) => sum + checker.eventCount, 0),
    };
  }
}

function checkLinearizable(history: readonly KvOperation[]): void {
  const { verdict, stuckAt, steps, longest } = checkKv(history, searchStepsMax);
  if (verdict === 'linearizable') return;
  const of = `${history.length} calls, ${longest} of them in order`;
  if (verdict === 'unknown') throw new Violation(`linearizability is not decided in ${steps} steps: ${of}`);
  const stuck = JSON.stringify(history[stuckAt], (_, value) => (typeof value === 'bigint' ? `${value}` : value));
  throw new Violation(`not linearizable: ${stuck}`);
}

function configSlot({ name }: ServerConfig): number {
  return Number(name.slice(1)) - 1;
}

function clusterMemberOf(config: ServerConfig): ClusterMember {
  const peerUrls = urlTexts(config.advertisePeerUrls);
  const id = memberId(peerUrls, config.initialClusterToken);
  return { id, peerUrls, isLearner: false, name: config.name, clientUrls: [] };
}
