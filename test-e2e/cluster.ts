// A cluster of processes on loopback, each member keelson or real etcd, with its own data directory and ports: started, stopped,
// killed, frozen and asked one by one. Not one member alone: that is store.ts. KEELSON_E2E_STORE=etcd makes every member an etcd, so
// that what fails there is wrong in the test, not in keelson.

import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { EtcdClient } from '../src/client/client.ts';
import { freePorts } from '../src/testing/free-port.ts';
import { memberFlags, peerBinaries } from '../src/testing/peer-programs.ts';
import { type ExitStatus, Hopeless, Program, serverFile, until } from './program.ts';

const run = promisify(execFile);
/** The start of a process on a busy machine, and an election. */
const startTimeoutMs = 60_000;

/** The names of the programs, too. */
export type Kind = 'keelson' | 'etcd' | 'etcd-3.6';

export interface MemberStatus {
  readonly id: string;
  readonly leader: string;
  readonly term: number;
  readonly appliedIndex: number;
  readonly revision: number;
  readonly isLearner: boolean;
}

export interface ListedMember {
  /** Hexadecimal, as etcdctl takes it. */
  readonly id: string;
  readonly name: string;
  readonly isLearner: boolean;
  readonly peerUrls: readonly string[];
}

export interface HashKv {
  readonly hash: number;
  readonly revision: number;
}

/** What `--initial-cluster` and its kin say, or 'data': it has data already. */
export interface Start {
  readonly initialCluster: string;
  readonly state: 'new' | 'existing';
}

/** Where and how a member runs, when not on loopback like all the others. */
export interface Place {
  /** The address of all its ports. */
  readonly host?: string;
  /** A program and its arguments that run the member's: `ip netns exec NAME`. */
  readonly launcher?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** In it: its data. */
  readonly folder?: string;
}

export class ClusterMember {
  readonly name: string;
  /** May be changed before a start: of etcd, whose versions take up each other's data. */
  kind: Kind;
  readonly endpoint: string;
  readonly peerUrl: string;
  readonly dataDir: string;
  readonly #folder: string;
  readonly #flags: readonly string[];
  readonly #place: Place;
  #program: Program | null = null;
  #starts = 0;

  constructor(
    name: string,
    kind: Kind,
    folder: string,
    ports: readonly number[],
    flags: readonly string[],
    place: Place = {},
  ) {
    this.name = name;
    this.kind = kind;
    this.#folder = folder;
    this.#flags = flags;
    this.#place = place;
    const host = place.host ?? '127.0.0.1';
    this.endpoint = `${host}:${ports[0]}`;
    this.peerUrl = `http://${host}:${ports[1]}`;
    this.dataDir = join(place.folder ?? folder, name);
  }

  /** Starts the process; does not wait for it to serve. */
  launch({ initialCluster, state }: Start): void {
    const args = [
      ...memberFlags(this.name, this.dataDir, `http://${this.endpoint}`, this.peerUrl),
      ...[`--initial-cluster=${initialCluster}`, `--initial-cluster-state=${state}`],
      ...this.#flags,
    ];
    const [file, ...before] = [...(this.#place.launcher ?? []), serverFile(this.kind)];
    const name = `${this.name}-${++this.#starts}`;
    const env = this.#place.env ?? {};
    this.#program = new Program({ name, file: file!, args: [...before, ...args], folder: this.#folder, env });
  }

  /** Until it says that it serves. */
  async ready(): Promise<void> {
    await this.#running().says(undefined, startTimeoutMs);
  }

  get pid(): number {
    return this.#running().pid;
  }

  get isRunning(): boolean {
    return this.#program !== null && !this.#program.ended;
  }

  get exited(): Promise<ExitStatus> {
    return this.#running().exited;
  }

  /** Of the present run. */
  log(): string {
    return this.#program?.log() ?? '';
  }

  async kill(): Promise<void> {
    await this.#program?.stop('SIGKILL');
  }

  async stop(): Promise<ExitStatus> {
    return this.#running().stop();
  }

  /** SIGSTOP: it holds its connections and does nothing. */
  freeze(): void {
    process.kill(this.pid, 'SIGSTOP');
  }

  thaw(): void {
    process.kill(this.pid, 'SIGCONT');
  }

  removeData(): void {
    rmSync(this.dataDir, { recursive: true, force: true });
  }

  async status(): Promise<MemberStatus> {
    const text = await ctl([this.endpoint], 'endpoint', 'status', '-w', 'json');
    const [{ Status: status }] = JSON.parse(quoteLongNumbers(text)) as [{ Status: Record<string, unknown> }];
    const header = status['header'] as Record<string, string | number>;
    return {
      id: hex(header['member_id']),
      leader: hex(status['leader']),
      term: Number(status['raftTerm'] ?? 0),
      appliedIndex: Number(status['raftAppliedIndex'] ?? 0),
      revision: Number(header['revision'] ?? 0),
      isLearner: status['isLearner'] === true,
    };
  }

  async hashKv(revision = 0): Promise<HashKv> {
    const text = await ctl([this.endpoint], 'endpoint', 'hashkv', `--rev=${revision}`, '-w', 'json');
    const [{ HashKV: hash }] = JSON.parse(quoteLongNumbers(text)) as [{ HashKV: Record<string, unknown> }];
    return { hash: Number(hash['hash']), revision: Number(hash['hash_revision'] ?? 0) };
  }

  async metrics(): Promise<string> {
    const response = await fetch(`http://${this.endpoint}/metrics`);
    if (!response.ok) throw new Error(`/metrics: ${response.status}`);
    return response.text();
  }

  #running(): Program {
    if (this.#program === null) throw new Error(`${this.name} was never started`);
    return this.#program;
  }
}

export class Cluster {
  readonly members: ClusterMember[] = [];
  readonly #folder: string;
  readonly #flags: readonly string[];

  constructor(folder: string, flags: readonly string[] = []) {
    this.#folder = folder;
    this.#flags = flags;
  }

  /** As many members as kinds, not started. */
  static async create(
    folder: string,
    kinds: readonly Kind[],
    flags: readonly string[] = [],
    places: readonly Place[] = [],
  ): Promise<Cluster> {
    const cluster = new Cluster(folder, flags);
    for (const [index, kind] of kinds.entries()) await cluster.#newMember(kind, places[index]);
    return cluster;
  }

  /** Creates it, starts all and waits for all. */
  static async start(
    folder: string,
    kinds: readonly Kind[],
    flags: readonly string[] = [],
    places: readonly Place[] = [],
  ): Promise<Cluster> {
    const cluster = await Cluster.create(folder, kinds, flags, places);
    const initialCluster = cluster.initialCluster();
    for (const member of cluster.members) member.launch({ initialCluster, state: 'new' });
    try {
      await Promise.all(cluster.members.map((member) => member.ready()));
    } catch (error) {
      // Nobody else can, and what runs would keep the test's process alive.
      await cluster.end();
      throw error;
    }
    return cluster;
  }

  async #newMember(kind: Kind, place: Place = {}): Promise<ClusterMember> {
    const name = `m${this.members.length + 1}`;
    const forced = process.env['KEELSON_E2E_STORE'] === 'etcd' && kind === 'keelson' ? 'etcd' : kind;
    const member = new ClusterMember(name, forced, this.#folder, await freePorts(2), this.#flags, place);
    this.members.push(member);
    return member;
  }

  initialCluster(): string {
    return this.members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(',');
  }

  get endpoints(): string[] {
    return this.members.filter((member) => member.isRunning).map((member) => member.endpoint);
  }

  /** Starts one that was killed or stopped, on its data. */
  async restart(member: ClusterMember): Promise<void> {
    member.launch({ initialCluster: this.initialCluster(), state: 'new' });
    await member.ready();
  }

  /** Adds a member through the running ones and starts it. A learner serves, but only what learners serve. */
  async add(kind: Kind, options: { readonly learner?: boolean } = {}): Promise<ClusterMember> {
    const member = await this.#newMember(kind);
    const flags = options.learner === true ? ['--learner'] : [];
    const running = this.endpoints;
    await until(`adding ${member.name}`, 20_000, async () => {
      // Strict reconfiguration wants the members to have been connected for five seconds.
      await ctl(running, 'member', 'add', member.name, `--peer-urls=${member.peerUrl}`, ...flags);
      return true;
    });
    const listed = await this.list(running);
    const present = this.members.filter((one) => listed.some(({ peerUrls }) => peerUrls.includes(one.peerUrl)));
    const initialCluster = present.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(',');
    member.launch({ initialCluster, state: 'existing' });
    await member.ready();
    return member;
  }

  async promote(member: ClusterMember): Promise<void> {
    const id = await this.idOf(member);
    await until(`promoting ${member.name}`, 30_000, async () => {
      await this.ctl('member', 'promote', id);
      return true;
    });
  }

  /** Takes it out of the cluster; its process ends by itself. */
  async remove(member: ClusterMember): Promise<void> {
    const id = await this.idOf(member);
    const others = this.members.filter((one) => one !== member && one.isRunning).map((one) => one.endpoint);
    await until(`removing ${member.name}`, 20_000, async () => {
      await ctl(others, 'member', 'remove', id);
      return true;
    });
  }

  async idOf(member: ClusterMember): Promise<string> {
    const found = (await this.list(this.endpoints)).find(({ peerUrls }) => peerUrls.includes(member.peerUrl));
    if (found === undefined) throw new Error(`${member.name} is not in the cluster`);
    return found.id;
  }

  async list(endpoints: readonly string[] = this.endpoints): Promise<ListedMember[]> {
    const text = await ctl(endpoints, 'member', 'list', '-w', 'json');
    const { members } = JSON.parse(quoteLongNumbers(text)) as { members: Record<string, unknown>[] };
    return members.map((member) => ({
      id: hex(member['ID']),
      name: (member['name'] as string | undefined) ?? '',
      isLearner: member['isLearner'] === true,
      peerUrls: member['peerURLs'] as string[],
    }));
  }

  /** The member that all running ones hold to be the leader, once they agree. */
  async leader(timeoutMs = 20_000): Promise<ClusterMember> {
    return until('a leader', timeoutMs, async () => {
      const running = this.members.filter((member) => member.isRunning);
      const states = await Promise.all(running.map((member) => member.status()));
      const leaderId = states[0]!.leader;
      if (leaderId === '0' || states.some(({ leader }) => leader !== leaderId)) return false;
      return running[states.findIndex(({ id }) => id === leaderId)] ?? false;
    });
  }

  async followers(): Promise<ClusterMember[]> {
    const leader = await this.leader();
    return this.members.filter((member) => member.isRunning && member !== leader);
  }

  /** Waits until all running members have the same HashKV at one revision, and returns it. Learners do not answer it, as in etcd. */
  async agreed(timeoutMs = 30_000): Promise<HashKv> {
    return until('equal hashes', timeoutMs, async () => {
      const running = this.members.filter((member) => member.isRunning);
      const states = await Promise.all(running.map((member) => member.status()));
      const voters = running.filter((_, index) => !states[index]!.isLearner);
      const revision = Math.min(...states.map((state) => state.revision));
      const hashes = await Promise.all(voters.map((member) => member.hashKv(revision)));
      if (hashes.every(({ hash }) => hash === hashes[0]!.hash)) return hashes[0]!;
      throw new Hopeless(`hashes differ at revision ${revision}: ${JSON.stringify(hashes)}`);
    });
  }

  /** etcdctl on all running members. */
  async ctl(...args: string[]): Promise<string> {
    return ctl(this.endpoints, ...args);
  }

  /** Kills what is left. */
  async end(): Promise<void> {
    await Promise.all(
      this.members.map(async (member) => {
        if (!member.isRunning) return;
        // A frozen one dies of SIGKILL, too.
        await member.kill();
      }),
    );
  }
}

/** A client of members that come and go: it gives a connection up whose pings are not answered. */
export function clientOf(endpoints: readonly string[]): EtcdClient {
  // etcd takes pings every five seconds, no oftener.
  return new EtcdClient({ endpoints, keepAliveMs: 6000, keepAliveTimeoutMs: 2000 });
}

/** etcdctl with the arguments; its standard output. */
export async function ctl(endpoints: readonly string[], ...args: string[]): Promise<string> {
  const all = ['--endpoints', endpoints.join(','), '--command-timeout', '10s', ...args];
  const { stdout } = await run(join(peerBinaries, 'etcdctl'), all, { maxBuffer: 64 * 1024 * 1024, env: {} });
  return stdout;
}

/** Ids are numbers in etcdctl's JSON, too long for JavaScript's. What stands within strings (an alarm's text) stays. */
function quoteLongNumbers(json: string): string {
  return json.replace(/"(?:[^"\\]|\\.)*"|\d{16,}/g, (token) => (token.startsWith('"') ? token : `"${token}"`));
}

function hex(id: unknown): string {
  return BigInt((id ?? 0) as string | number).toString(16);
}
