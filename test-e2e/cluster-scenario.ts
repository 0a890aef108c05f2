// The life of a cluster in one script: traffic, leaders moved and killed, a follower lost and back, a learner that comes by snapshot,
// is promoted and removed, a member alone. After each step every member is asked everything that its role shapes. The same for
// keelson and for etcd; ids and addresses are told by the names of the members, so that two runs can be compared. No verdicts here.

import { execFile } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  AlarmRequest,
  CompactionRequest,
  DowngradeRequest,
  HashKVRequest,
  LeaseGrantRequest,
  LeaseKeepAliveRequest,
  LeaseRevokeRequest,
  LeaseTimeToLiveRequest,
  MemberAddRequest,
  MemberIdRequest,
  MemberListRequest,
  MoveLeaderRequest,
  WatchRequest,
} from '../src/proto/etcdserverpb.ts';
import { encode } from '../src/proto/message.ts';
import { type ParsedFamily, parseExposition } from '../src/testing/exposition-parser.ts';
import { freePorts } from '../src/testing/free-port.ts';
import { DeleteMessage, encodeTxn, PutMessage, RangeMessage } from '../src/testing/kv-messages.ts';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { Cluster, type ClusterMember, type Kind } from './cluster.ts';
import { seriesOf } from './metric-series.ts';
import { sleep, until } from './program.ts';
import { type CallOptions, EtcdClient, expectOk } from './support/etcd-client.ts';

const run = promisify(execFile);
const bytes = (text: string): Buffer => Buffer.from(text);
const key = bytes('k');

/** What was seen of one member after one step. */
export interface Sight {
  readonly families: ReadonlyMap<string, ParsedFamily>;
  readonly series: ReadonlyMap<string, number>;
  /** 'client /readyz' → status and body. */
  readonly http: Readonly<Record<string, string>>;
  /** 'KV/Range serializable' → 'ok' or code and message; not at every step. */
  readonly calls: Readonly<Record<string, string>>;
  /** etcdctl's exit code and output, by its arguments. */
  readonly ctl: Readonly<Record<string, string>>;
}

export interface Scenario {
  readonly kind: Kind;
  /** 'step member' → what was seen. */
  readonly sights: Map<string, Sight>;
  /** By member: the lines of each of its runs. */
  readonly logs: Map<string, Record<string, unknown>[][]>;
  /** How streams that ask for a leader ended when it went. */
  readonly ended: Record<string, string>;
}

interface Call {
  readonly name: string;
  readonly path: string;
  readonly request: Buffer;
  readonly options?: CallOptions;
  readonly streams?: boolean;
}

/** Each service that is there: authentication, locks and elections come with issue 5. */
function calls(): Call[] {
  const range = { key };
  const list: Call[] = [];
  const add = (path: string, request: Buffer, note = '', more: Partial<Call> = {}): void => {
    list.push({ name: note === '' ? path : `${path} ${note}`, path: `/${path}`, request, ...more });
  };
  const needsLeader = { options: { metadata: { hasleader: 'true' } } };
  add('etcdserverpb.KV/Range', encode(RangeMessage, range));
  add('etcdserverpb.KV/Range', encode(RangeMessage, { ...range, serializable: true }), 'serializable');
  add('etcdserverpb.KV/Range', encode(RangeMessage, { ...range, serializable: true }), 'hasleader', needsLeader);
  add('etcdserverpb.KV/RangeStream', encode(RangeMessage, range), '', { streams: true });
  add('etcdserverpb.KV/RangeStream', encode(RangeMessage, { ...range, serializable: true }), 'serializable', {
    streams: true,
  });
  add('etcdserverpb.KV/Put', encode(PutMessage, { key, value: key }));
  add('etcdserverpb.KV/Put', encode(PutMessage, { key, value: key }), 'hasleader', needsLeader);
  add('etcdserverpb.KV/DeleteRange', encode(DeleteMessage, { key: bytes('none') }));
  add('etcdserverpb.KV/Txn', encodeTxn({ success: [{ range }] }), 'reads');
  add('etcdserverpb.KV/Txn', encodeTxn({ success: [{ range: { ...range, serializable: true } }] }), 'serializable');
  add('etcdserverpb.KV/Txn', encodeTxn({ success: [{ put: { key, value: key } }] }));
  add('etcdserverpb.KV/Compact', encode(CompactionRequest, { revision: 1_000_000 }));
  const create = encode(WatchRequest, { createRequest: { key } });
  add('etcdserverpb.Watch/Watch', create, '', { streams: true });
  add('etcdserverpb.Watch/Watch', create, 'hasleader', { streams: true, ...needsLeader });
  add('etcdserverpb.Lease/LeaseGrant', encode(LeaseGrantRequest, { ttl: -1n }));
  add('etcdserverpb.Lease/LeaseRevoke', encode(LeaseRevokeRequest, { id: 404n }));
  add('etcdserverpb.Lease/LeaseTimeToLive', encode(LeaseTimeToLiveRequest, { id: 404n }));
  add('etcdserverpb.Lease/LeaseLeases', Buffer.alloc(0));
  const renew = encode(LeaseKeepAliveRequest, { id: 404n });
  add('etcdserverpb.Lease/LeaseKeepAlive', renew, '', { streams: true });
  add('etcdserverpb.Lease/LeaseKeepAlive', renew, 'hasleader', { streams: true, ...needsLeader });
  add('etcdserverpb.Cluster/MemberList', encode(MemberListRequest, { linearizable: true }), 'linearizable');
  add('etcdserverpb.Cluster/MemberList', encode(MemberListRequest, {}));
  add('etcdserverpb.Cluster/MemberAdd', encode(MemberAddRequest, { peerUrls: ['http://'] }));
  add('etcdserverpb.Cluster/MemberRemove', encode(MemberIdRequest, { id: 404n }));
  add('etcdserverpb.Cluster/MemberPromote', encode(MemberIdRequest, { id: 404n }));
  add('etcdserverpb.Maintenance/Alarm', encode(AlarmRequest, {}));
  add('etcdserverpb.Maintenance/Status', Buffer.alloc(0));
  add('etcdserverpb.Maintenance/Status', Buffer.alloc(0), 'hasleader', needsLeader);
  add('etcdserverpb.Maintenance/Defragment', Buffer.alloc(0));
  add('etcdserverpb.Maintenance/Hash', Buffer.alloc(0));
  add('etcdserverpb.Maintenance/HashKV', encode(HashKVRequest, {}));
  add('etcdserverpb.Maintenance/Snapshot', Buffer.alloc(0), '', { streams: true });
  add('etcdserverpb.Maintenance/Snapshot', Buffer.alloc(0), 'hasleader', { streams: true, ...needsLeader });
  add('etcdserverpb.Maintenance/MoveLeader', encode(MoveLeaderRequest, { targetId: 404n }));
  add('etcdserverpb.Maintenance/Downgrade', encode(DowngradeRequest, { action: 0, version: '3.6.0' }));
  add('grpc.health.v1.Health/Check', Buffer.alloc(0));
  return list;
}

/** More than twice etcd's own time-out of a request: a read waits for the one before it there. */
const callMs = 20_000;

const paths = [
  ...['/health', '/health?serializable=true', '/health?exclude=NOSPACE', '/livez', '/livez?verbose'],
  ...['/livez/serializable_read', '/readyz', '/readyz?verbose', '/readyz?verbose&exclude=linearizable_read'],
  ...['/readyz?exclude=non_learner&verbose', '/readyz/data_corruption', '/readyz/serializable_read'],
  ...['/readyz/linearizable_read', '/readyz/non_learner', '/version', '/debug/vars'],
];
/** What a healthy member has the same of at every step is asked once. */
const peerPaths = ['/health', '/livez', '/readyz', '/metrics', '/version', '/debug/vars', '/members', '/raft/probing'];

export class ScenarioRun {
  readonly scenario: Scenario;
  readonly #cluster: Cluster;
  readonly #metricsUrls: readonly string[];
  readonly #ids: Map<string, string> = new Map();

  private constructor(kind: Kind, cluster: Cluster, metricsUrls: readonly string[]) {
    this.scenario = { kind, sights: new Map(), logs: new Map(), ended: {} };
    this.#cluster = cluster;
    this.#metricsUrls = metricsUrls;
  }

  /** `name`: of its folder within `parent`. */
  static async play(kind: Kind, parent: string, name: string): Promise<Scenario> {
    const folder = join(parent, name);
    mkdirSync(folder);
    const metricsUrls = (await freePorts(3)).map((port) => `http://127.0.0.1:${port}`);
    const places = metricsUrls.map((url) => ({ env: { ETCD_LISTEN_METRICS_URLS: url } }));
    const flags = ['--snapshot-count=100', '--snapshot-catchup-entries=10'];
    const cluster = await Cluster.start(folder, [kind, kind, kind], flags, places);
    const play = new ScenarioRun(kind, cluster, metricsUrls);
    try {
      await play.#play();
      return play.scenario;
    } finally {
      await cluster.end();
    }
  }

  get #isEtcd(): boolean {
    return this.#cluster.members[0]!.kind === 'etcd';
  }

  async #play(): Promise<void> {
    const cluster = this.#cluster;
    const [m1, m2, m3] = cluster.members as [ClusterMember, ClusterMember, ClusterMember];
    for (const member of cluster.members) this.#ids.set(member.name, await cluster.idOf(member));
    await this.#lead(m1);
    for (const member of cluster.members) {
      await until('the version', 20_000, () => member.log().includes('enabled capabilities for version'));
    }
    await this.#look('started', { calls: true });

    await this.#traffic();
    await this.#look('used');

    await this.#lead(m2);
    await this.#look('moved');
    await this.#lead(m1);

    await m3.kill();
    await this.#put(m1, 3);
    await sleep(5000);
    await this.#look('follower lost');
    this.#keepLog(m3);
    await cluster.restart(m3);
    await cluster.leader();
    await sleep(5000);
    await this.#look('follower back');

    // More than is kept in memory for who lags: etcd goes by --snapshot-count, keelson keeps ten thousand entries beyond what it must.
    await this.#put(m1, this.#isEtcd ? 220 : 11_000);
    const m4 = await cluster.add(this.scenario.kind, { learner: true });
    this.#ids.set(m4.name, await cluster.idOf(m4));
    await cluster.agreed();
    await sleep(2000);
    await this.#look('learner', { calls: true });
    await cluster.promote(m4);
    await sleep(1000);
    await this.#look('promoted');
    await sleep(5000);
    await cluster.remove(m4);
    await until('the end of the removed', 20_000, () => !m4.isRunning);
    this.#keepLog(m4);
    await sleep(1000);
    await this.#look('removed');

    // etcd says so half a minute later.
    await until('the end of the snapshot', 45_000, () => m1.log().includes('sent merged snapshot'));
    await m1.kill();
    this.#keepLog(m1);
    const heir = await cluster.leader();
    await this.#look('leader lost');
    await cluster.restart(m1);
    await cluster.leader();
    await sleep(2000);

    await this.#alone(heir === m2 ? m3 : m2);
    await cluster.leader();
    await sleep(2000);
    await this.#look('together');
    for (const member of [m1, m2, m3]) {
      await member.stop();
      this.#keepLog(member);
    }
  }

  /** Leaves a follower alone; all comes back at the end. */
  async #alone(member: ClusterMember): Promise<void> {
    const others = this.#cluster.members.filter((other) => other.isRunning && other !== member);
    const client = new EtcdClient(member.endpoint);
    const metadata = { hasleader: 'true' };
    const streams = [
      ['Watch', '/etcdserverpb.Watch/Watch', encode(WatchRequest, { createRequest: { key } })],
      ['LeaseKeepAlive', '/etcdserverpb.Lease/LeaseKeepAlive', encode(LeaseKeepAliveRequest, { id: 404n })],
    ] as const;
    const open = streams.map(([name, path, request]) => ({ name, stream: client.open(path, request, { metadata }) }));
    await Promise.all(open.map(({ stream }) => stream.first));
    for (const other of others) await other.kill();
    for (const other of others) this.#keepLog(other);
    for (const { name, stream } of open) {
      const { code, message } = await stream.ended;
      this.scenario.ended[name] = `${code} ${message}`;
    }
    client.close();
    await this.#look('alone', { calls: true, only: member });
    // It looks twice a minute.
    await until('the prober', 45_000, () => member.log().includes('prober detected unhealthy status'));
    const initialCluster = this.#cluster.members.slice(0, 3).map(({ name, peerUrl }) => `${name}=${peerUrl}`);
    for (const other of others) other.launch({ initialCluster: initialCluster.join(','), state: 'new' });
    await Promise.all(others.map((other) => other.ready()));
  }

  /** Moves the leadership there, unless it is there. */
  async #lead(member: ClusterMember): Promise<void> {
    const leader = await this.#cluster.leader();
    if (leader === member) return;
    await this.#cluster.ctl('move-leader', await this.#cluster.idOf(member));
    await until('the new leader', 10_000, async () => (await this.#cluster.leader()) === member);
  }

  async #put(member: ClusterMember, count: number): Promise<void> {
    const client = new EtcdClient(member.endpoint);
    let left = count;
    const putSome = async (): Promise<void> => {
      while (left-- > 0) expectOk(await client.put({ key: bytes(`put${left % 100}`), value: bytes('value') }));
    };
    await Promise.all(Array.from({ length: 100 }, putSome));
    client.close();
  }

  async #traffic(): Promise<void> {
    for (const member of this.#cluster.members) {
      const client = new EtcdClient(member.endpoint);
      for (let i = 0; i < 5; i++) expectOk(await client.put({ key: bytes(`k${i}`), value: bytes('v') }));
      for (let i = 0; i < 3; i++) expectOk(await client.range({ key }));
      for (let i = 0; i < 3; i++) expectOk(await client.range({ key, serializable: true }));
      let events = 0;
      const watch = client.watch((answer) => {
        events += answer.created ? 1 : answer.events.length;
      });
      watch.send({ createRequest: { key: bytes('w') } });
      await until('the watcher', 5000, () => events === 1);
      await client.put({ key: bytes('w'), value: key });
      await until('its event', 5000, () => events === 2);
      watch.cancel();
      await watch.ended;
      expectOk(await client.grant(0x1000n, 100));
      const renew = client.open(
        '/etcdserverpb.Lease/LeaseKeepAlive',
        encode(LeaseKeepAliveRequest, { id: 0x1000n }),
        {},
      );
      await renew.first;
      renew.end();
      await renew.ended;
      expectOk(await client.timeToLive(0x1000n));
      expectOk(await client.revoke(0x1000n));
      client.close();
    }
    await sleep(500);
  }

  async #look(step: string, options: { calls?: boolean; only?: ClusterMember } = {}): Promise<void> {
    const running = this.#cluster.members.filter((member) => member.isRunning);
    for (const member of running) {
      if (options.only !== undefined && member !== options.only) continue;
      const text = await member.metrics();
      const families = parseExposition(this.#named(text));
      const [http, ctl, called] = await Promise.all([
        this.#http(member),
        this.#ctl(member),
        options.calls === true ? this.#call(member) : {},
      ]);
      const sight = { families, series: seriesOf(families), http, calls: called, ctl };
      this.scenario.sights.set(`${step} ${member.name}`, sight);
      if (options.calls === true && options.only === undefined) await this.#leasesEnd();
    }
  }

  /** Calls leave one behind, of a few seconds; whether it has ended shows in the metrics. */
  async #leasesEnd(): Promise<void> {
    const client = new EtcdClient(this.#cluster.members[0]!.endpoint);
    await until('the end of the leases', 20_000, async () => {
      return expectOk(await client.leases()).leases.length === 0;
    });
    client.close();
  }

  async #http(member: ClusterMember): Promise<Record<string, string>> {
    const answers: Record<string, string> = {};
    const ask = async (where: string, base: string, path: string): Promise<void> => {
      const response = await fetch(`${base}${path}`, { signal: AbortSignal.timeout(callMs) }).catch(() => null);
      let text = response === null ? 'no answer' : await response.text();
      if (path === '/debug/vars' && response?.status === 200) {
        text = /"raft\.status": (.*?),?\n/.exec(text)?.[1] ?? 'no raft.status';
      }
      if (path === '/metrics' && response?.status === 200) text = 'the metrics';
      answers[`${where} ${path}`] = this.#named(`${response?.status ?? ''} ${text}`);
    };
    const metricsUrl = this.#metricsUrls[this.#cluster.members.indexOf(member)];
    const asked = paths.map((path) => ask('client', `http://${member.endpoint}`, path));
    if (metricsUrl !== undefined) asked.push(...paths.map((path) => ask('metrics', metricsUrl, path)));
    asked.push(...peerPaths.map((path) => ask('peer', member.peerUrl, path)));
    await Promise.all(asked);
    return answers;
  }

  async #ctl(member: ClusterMember): Promise<Record<string, string>> {
    const answers: Record<string, string> = {};
    for (const args of [
      ['endpoint', 'status', '-w', 'json'],
      ['endpoint', 'health'],
      ['endpoint', 'health', '-w', 'json'],
    ]) {
      const all = ['--endpoints', member.endpoint, ...args];
      answers[args.join(' ')] = await run(join(peerBinaries, 'etcdctl'), all, { env: {} }).then(
        ({ stdout, stderr }) => this.#named(`0 ${stdout} ${stderr}`),
        ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) =>
          this.#named(`${code} ${stdout} ${stderr}`),
      );
    }
    return answers;
  }

  async #call(member: ClusterMember): Promise<Record<string, string>> {
    const client = new EtcdClient(member.endpoint);
    const answers: Record<string, string> = {};
    await Promise.all(
      calls().map(async ({ name, path, request, options = {}, streams = false }) => {
        const wait = { ...options, deadlineMs: callMs };
        if (path.endsWith('/Watch') || path.endsWith('/LeaseKeepAlive')) {
          const stream = client.open(path, request, wait);
          const first = await stream.first;
          // A watch lasts when its client has said all that it wants to say.
          if (first === null) stream.end();
          else stream.cancel();
          const { code, message } = await stream.ended;
          answers[name] = first === null ? `${code} ${message}` : 'ok';
          return;
        }
        const result = streams ? await client.collect(path, request, wait) : await client.call(path, request, wait);
        answers[name] = this.#named(result.ok ? 'ok' : `${result.code} ${result.message}`);
      }),
    );
    client.close();
    return answers;
  }

  #keepLog(member: ClusterMember): void {
    const lines = this.#named(member.log())
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const { logs } = this.scenario;
    logs.set(member.name, [...(logs.get(member.name) ?? []), lines]);
  }

  /** With names for what differs from run to run: ids, ports, folders. */
  #named(text: string): string {
    let named = text;
    for (const [name, id] of this.#ids) {
      named = named.replaceAll(id, `ID-${name}`).replaceAll(BigInt(`0x${id}`).toString(), `ID-${name}`);
    }
    for (const [index, { name, endpoint, peerUrl }] of this.#cluster.members.entries()) {
      named = named.replaceAll(endpoint, `CLIENT-${name}`).replaceAll(peerUrl, `http://PEER-${name}`);
      named = named.replaceAll(peerUrl.slice('http://'.length), `PEER-${name}`);
      const metrics = this.#metricsUrls[index];
      if (metrics !== undefined) named = named.replaceAll(metrics, `http://METRICS-${name}`);
    }
    return named;
  }
}
