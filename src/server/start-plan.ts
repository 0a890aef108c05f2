// What a start is to be, decided before any file is made, because it may have to ask the network: go on from the log that there is,
// begin a new cluster with the members that the flags (or discovery) name, or join one that runs. etcd's server/bootstrap.go and the
// parts of embed that read the initial cluster, with its refusals and their texts. Making it true is bootstrap.ts.
//
//   the log holds something ──────────────────────────────────────> restart
//   no log, or one that a first start has begun and left empty:
//     --initial-cluster-state=new       flags, DNS or discovery ──> new    all members by id, the same on each of them
//     --initial-cluster-state=existing  flags or DNS, /members ───> join   ids as the running cluster has them
//
// A first start that was cut short is a first start again: as long as nothing is durable in the log, nobody was promised anything.

import { assert } from '../base/assert.ts';
import { ExitCode, FatalError } from '../base/fatal.ts';
import { bootstrapAskMs, clusterInfoTimeoutMs } from '../cluster-limits.ts';
import { clusterId, formatId, memberId } from '../config/cluster-id.ts';
import { goQuote } from '../config/go-value.ts';
import {
  formatInitialCluster,
  hasDuplicateUrl,
  type InitialCluster,
  parseInitialCluster,
  verifyBootstrap,
  verifyJoinExisting,
} from '../config/initial-cluster.ts';
import { type MemberUrl, parseMemberUrl, urlTexts } from '../config/member-url.ts';
import type { ServerConfig } from '../config/server-config.ts';
import { areEqualAsWritten, type ResolveUrl, urlsDiffer } from '../config/url-equality.ts';
import { etcdVersion } from '../config/version.ts';
import { type Clock, systemClock } from '../io/clock.ts';
import { type Disk, nodeDisk } from '../io/file.ts';
import { type Names, patientResolver, systemNames } from '../io/names.ts';
import { requestTimeoutBaseMs } from '../limits.ts';
import type { Member } from '../membership/cluster.ts';
import type { PeerRequests } from '../peer/peer-transport.ts';
import type { Logger } from '../telemetry/logger.ts';
import { walHoldsRecords } from '../wal/replay.ts';
import { walDirectory } from './data-directory.ts';
import { memberText } from './membership-log.ts';
import { type RemoteCluster, RemotePeers } from './remote-cluster.ts';
import { clusterBySrv } from './srv-discovery.ts';

export type StartPlan =
  | { readonly kind: 'restart' }
  | {
      readonly kind: 'new';
      readonly clusterId: bigint;
      readonly memberId: bigint;
      /** All of them, by id. */
      readonly members: readonly Member[];
    }
  | {
      readonly kind: 'join';
      readonly clusterId: bigint;
      readonly memberId: bigint;
      /** The running cluster's members, this one among them. */
      readonly remotes: readonly Member[];
    };

export interface StartOptions {
  readonly config: ServerConfig;
  readonly logger: Logger;
  readonly peerRequests: PeerRequests;
  readonly disk?: Disk;
  readonly clock?: Clock;
  readonly names?: Names;
  /**
   * v3 discovery, which is a client's work: registers a member under its id as name=url,... and resolves with the cluster in the same
   * form, or rejects with why there is none. Needed with --discovery-endpoints.
   */
  readonly joinByDiscovery?: (memberId: string, own: string) => Promise<string>;
}

const CALLER = 'server/start-plan.ts';

/** Throws FatalError: with exit code 1, as etcd ends, when this start must not be. */
export async function planStart(options: StartOptions): Promise<StartPlan> {
  const { config, logger } = options;
  const directory = walDirectory(config);
  if (walHoldsRecords(options.disk ?? nodeDisk, directory)) {
    const message = 'discovery token is ignored since cluster already initialized; valid logs are found';
    if (config.discovery !== null) logger.warn(CALLER, message, { 'wal-dir': directory });
    return { kind: 'restart' };
  }
  if (config.bootstrapError !== null) throw refused(config.bootstrapError);
  const start = new FirstStart(options);
  return config.initialClusterState === 'existing' ? start.join() : start.begin();
}

function refused(reason: string): FatalError {
  return new FatalError(ExitCode.bug, reason);
}

class FirstStart {
  readonly #config: ServerConfig;
  readonly #logger: Logger;
  readonly #peers: RemotePeers;
  readonly #clock: Clock;
  readonly #names: Names;
  readonly #joinByDiscovery: StartOptions['joinByDiscovery'];

  constructor(options: StartOptions) {
    const { config, logger, peerRequests, clock, names } = options;
    this.#config = config;
    this.#logger = logger;
    this.#peers = new RemotePeers(peerRequests, logger);
    this.#clock = clock ?? systemClock;
    this.#names = names ?? systemNames();
    this.#joinByDiscovery = options.joinByDiscovery;
  }

  async begin(): Promise<StartPlan> {
    const { name, advertisePeerUrls, initialClusterToken, discovery } = this.#config;
    const cluster = await this.#initialCluster();
    const token = discovery?.token ?? initialClusterToken;
    const refusal = await verifyBootstrap(name, cluster, advertisePeerUrls, this.#resolver());
    if (refusal !== null) throw refused(refusal);
    let members = membersOf(cluster, token);
    const own = memberOf(members, name);
    if (await this.#isBootstrapped(members, own.id)) {
      throw refused(`member ${formatId(own.id)} has already been bootstrapped`);
    }
    if (discovery !== null) members = membersOf(await this.#discovered(own.id, cluster), token);
    return { kind: 'new', clusterId: clusterId(members.map(({ id }) => id)), memberId: own.id, members };
  }

  /** As far as it is known without asking a discovery service. */
  async #initialCluster(): Promise<InitialCluster> {
    const { name, advertisePeerUrls, initialCluster, discovery, discoverySrv } = this.#config;
    if (discovery !== null) return new Map([[name, advertisePeerUrls]]);
    if (discoverySrv === '') return initialCluster;
    const found = await clusterBySrv(this.#config, this.#names, this.#logger);
    const parsed = found.ok ? parseInitialCluster(found.value) : found;
    if (!parsed.ok) throw refused(`error setting up initial cluster: ${parsed.error}`);
    if (parsed.value.has(name)) return parsed.value;
    throw refused(`error setting up initial cluster: cannot find local etcd member ${goQuote(name)} in SRV records`);
  }

  async #discovered(ownId: bigint, own: InitialCluster): Promise<InitialCluster> {
    assert(this.#joinByDiscovery !== undefined, 'discovery is asked for, and nobody does it');
    this.#logger.info(CALLER, 'Bootstrapping cluster using v3 discovery.');
    let text: string;
    try {
      text = await this.#joinByDiscovery(formatId(ownId), formatInitialCluster(own));
    } catch (error) {
      throw this.#discoveryFailed((error as Error).message);
    }
    const parsed = parseInitialCluster(text);
    if (!parsed.ok) throw this.#discoveryFailed('discovery: invalid peer URL');
    if (hasDuplicateUrl(parsed.value)) {
      throw refused(`discovery cluster ${formatInitialCluster(parsed.value)} has duplicate url`);
    }
    const { name } = this.#config;
    // Two members under one name: the later one's addresses would be taken for the earlier one's.
    const entry = parsed.value.get(name);
    if (entry !== undefined && areEqualAsWritten(entry, own.get(name)!)) return parsed.value;
    throw refused(`discovery cluster ${formatInitialCluster(parsed.value)} does not have ${formatInitialCluster(own)}`);
  }

  #discoveryFailed(reason: string): FatalError {
    const error = `failed to join discovery cluster (${reason})`;
    const { token, endpoints } = this.#config.discovery!;
    this.#logger.warn(CALLER, 'failed to bootstrap; discovery token was already used', {
      'discovery-token': token,
      'discovery-endpoints': endpoints,
      error,
    });
    this.#logger.warn(CALLER, 'do not reuse discovery token; generate a new one to bootstrap a cluster');
    return refused(error);
  }

  /** A member that has told its cluster where it serves has had data, which it lacks now. */
  async #isBootstrapped(members: readonly Member[], ownId: bigint): Promise<boolean> {
    const urls = remotePeerUrls(members, this.#config.name);
    if (urls.length === 0) return false;
    const remote = await this.#peers.cluster(urls, bootstrapAskMs, false);
    if (typeof remote === 'string') return false;
    return remote.members.some(({ id, clientUrls }) => id === ownId && clientUrls.length > 0);
  }

  async join(): Promise<StartPlan> {
    const { name, initialClusterToken, maxLearners, electionTimeoutMs, discovery } = this.#config;
    const initialCluster = await this.#initialCluster();
    const refusal = verifyJoinExisting(name, initialCluster, discovery !== null);
    if (refusal !== null) throw refused(refusal);
    const urls = remotePeerUrls(membersOf(initialCluster, initialClusterToken), name);
    const remote = await this.#peers.cluster(urls, clusterInfoTimeoutMs, true);
    if (typeof remote === 'string') throw refused(`cannot fetch cluster info from peer urls: ${remote}`);
    const names = await this.#match(initialCluster, remote);
    const ownId = names.get(name);
    if (ownId === undefined) throw refused(`couldn't find ${name} among the members of the running cluster`);
    const others = remote.members.filter(({ id }) => id !== ownId);
    // etcd's ReqTimeout.
    const timeoutMs = requestTimeoutBaseMs + 2 * electionTimeoutMs;
    const incompatibility = await this.#peers.incompatibility(others, etcdVersion, timeoutMs);
    if (incompatibility !== null) throw refused(incompatibility);
    if (remote.members.filter(({ isLearner }) => isLearner).length > maxLearners) {
      throw refused('membership: too many learner members in cluster');
    }
    return { kind: 'join', clusterId: remote.clusterId, memberId: ownId, remotes: remote.members };
  }

  /** Names of --initial-cluster to the ids that the running cluster has for their addresses. */
  async #match(cluster: InitialCluster, remote: RemoteCluster): Promise<Map<string, bigint>> {
    const ids = new Map<string, bigint>();
    const fail = (reason: string): FatalError => refused(`error validating peerURLs ${printed(remote)}: ${reason}`);
    const { members } = remote;
    if (members.length !== cluster.size) throw fail('member count is unequal');
    const resolve = this.#resolver();
    for (const { id, peerUrls } of members) {
      const parsed = peerUrls.map(parseMemberUrl);
      const wrong = peerUrls.find((_, index) => !parsed[index]!.ok);
      if (wrong !== undefined) throw fail(`failed to parse string to URL: ${goQuote(wrong)}`);
      const urls = parsed.flatMap((url) => (url.ok ? [url.value] : []));
      // Those that are equal as they are written need no name server, and one that is down shall not stop the others.
      let found = [...cluster].find(([, own]) => areEqualAsWritten(urls, own))?.[0];
      let reason: string | null = null;
      if (found === undefined) [found, reason] = await firstEqual(cluster, urls, resolve);
      if (found === undefined) {
        const list = `(${formatId(id)}, [${peerUrls.join(' ')}])`;
        throw fail(`PeerURLs: no match found for existing member ${list}, last resolver error (${reason})`);
      }
      ids.set(found, id);
    }
    return ids;
  }

  #resolver(): ResolveUrl {
    return patientResolver(this.#names, this.#clock, (level, message, fields) => {
      this.#logger[level](CALLER, message, fields);
    });
  }
}

/** As Go prints a cluster. */
function printed({ clusterId, members }: RemoteCluster): string {
  const texts = members.map((member) => `&${memberText(member)}`);
  return `{ClusterID:${formatId(clusterId)} Members:[${texts.join(' ')}] RemovedMemberIDs:[]}`;
}

async function firstEqual(
  cluster: InitialCluster,
  urls: readonly MemberUrl[],
  resolve: ResolveUrl,
): Promise<[string | undefined, string | null]> {
  let reason: string | null = null;
  for (const [name, own] of cluster) {
    reason = await urlsDiffer(urls, own, resolve);
    if (reason === null) return [name, null];
  }
  return [undefined, reason];
}

/** The members that these names and addresses are under this token, by id. */
function membersOf(cluster: InitialCluster, token: string): Member[] {
  const members = [...cluster].map(([name, urls]): Member => {
    const peerUrls = urlTexts(urls);
    return { id: memberId(peerUrls, token), peerUrls, isLearner: false, name, clientUrls: [] };
  });
  return members.sort((a, b) => (a.id < b.id ? -1 : 1));
}

function memberOf(members: readonly Member[], name: string): Member {
  const found = members.find((member) => member.name === name);
  assert(found !== undefined, 'the local name was looked for before');
  return found;
}

function remotePeerUrls(members: readonly Member[], local: string): string[] {
  return members
    .filter(({ name }) => name !== local)
    .flatMap(({ peerUrls }) => peerUrls)
    .sort();
}
