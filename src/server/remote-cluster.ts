// What a member that starts learns of a cluster from its members' peer listeners: who they are, their versions, whether a downgrade
// is under way (etcd's cluster_util.go). All are asked at once and heard in the order of their addresses, so that those that are
// down cost one time limit together; etcd asks one after the other.

import { hexId, type Member } from '../membership/cluster.ts';
import {
  isLess,
  minClusterVersion,
  parseVersion,
  type SemanticVersion,
  skippedMinor,
  versionText,
} from '../membership/semantic-version.ts';
import type { PeerAnswer, PeerRequests } from '../peer/peer-transport.ts';
import { decodeMemberList } from '../snapshot/schema.ts';
import type { Logger } from '../telemetry/logger.ts';

export interface RemoteCluster {
  readonly clusterId: bigint;
  /** By id. */
  readonly members: readonly Member[];
}

const CALLER = 'server/remote-cluster.ts';
const INCOMPATIBLE = 'incompatible with current running cluster';

type Answer = { readonly error: Error } | PeerAnswer;

export class RemotePeers {
  readonly #requests: PeerRequests;
  readonly #logger: Logger;

  constructor(requests: PeerRequests, logger: Logger) {
    this.#requests = requests;
    this.#logger = logger;
  }

  /** The cluster as the first of the peers tells it that answers; the error's text when none does. `tells`: log who does not. */
  async cluster(urls: readonly string[], timeoutMs: number, tells: boolean): Promise<RemoteCluster | string> {
    const answers = urls.map((url) => this.#get(url, '/members', timeoutMs));
    for (const [index, answered] of answers.entries()) {
      const cluster = this.#clusterOf(`${urls[index]}/members`, await answered, tells);
      if (cluster === null) continue;
      if (cluster.members.length > 0) return cluster;
      return 'failed to get raft cluster member(s) from the given URLs';
    }
    return 'could not retrieve cluster information from the given URLs';
  }

  #clusterOf(address: string, answer: Answer, tells: boolean): RemoteCluster | null {
    const warn = (message: string, fields: Readonly<Record<string, string>>): null => {
      if (tells) this.#logger.warn(CALLER, message, { address, ...fields });
      return null;
    };
    if ('error' in answer) return warn('failed to get cluster response', { error: answer.error.message });
    const members = decodeMemberList(answer.body);
    if (members === null) return warn('failed to unmarshal cluster response', { error: 'no list of members' });
    const header = String(answer.headers['x-etcd-cluster-id'] ?? '');
    if (!/^[0-9a-fA-F]{1,16}$/.test(header)) {
      return warn('failed to parse cluster ID', { header, error: 'no hexadecimal number of 64 bits' });
    }
    return { clusterId: BigInt(`0x${header}`), members: members.sort((a, b) => (a.id < b.id ? -1 : 1)) };
  }

  /**
   * Why a server of version `localVersion` may not be in a cluster of these members; null: it may. As in etcd one of them at least
   * must know the cluster's version, and none one that this server does not speak; nor one that is more than a minor version behind, with
   * which etcd would go on.
   */
  async incompatibility(members: readonly Member[], localVersion: string, timeoutMs: number): Promise<string | null> {
    const [versions, isDowngrading] = await Promise.all([
      Promise.all(members.map((member) => this.#clusterVersion(member, timeoutMs))),
      this.#isDowngrading(members, timeoutMs),
    ]);
    const local = parseVersion(localVersion) ?? minClusterVersion;
    const max = { major: local.major, minor: local.minor + (isDowngrading ? 1 : 0), patch: 0 };
    const min = isDowngrading ? max : minClusterVersion;
    let isKnown = false;
    for (const [index, text] of versions.entries()) {
      if (text === null) continue;
      const member = members[index]!;
      const version = parseVersion(text);
      if (version === null) {
        const fields = { 'remote-member-id': hexId(member.id), 'remote-member-cluster-version': text };
        this.#logger.warn(CALLER, 'failed to parse cluster version of remote member', fields);
        continue;
      }
      const skipped = skippedMinor(local, version);
      if (isLess(max, version)) this.#warnOfVersion('high', member, version, max);
      else if (isLess(version, min)) this.#warnOfVersion('low', member, version, min);
      else if (skipped !== null) this.#warnOfVersion('low', member, version, { ...max, minor: max.minor - 1 });
      else {
        isKnown = true;
        continue;
      }
      return skipped === null ? INCOMPATIBLE : `${INCOMPATIBLE}: ${skipped}`;
    }
    return isKnown ? null : INCOMPATIBLE;
  }

  #warnOfVersion(what: 'high' | 'low', { id }: Member, version: SemanticVersion, bound: SemanticVersion): void {
    const name = `${what === 'low' ? 'minimum' : 'maximum'}-cluster-version-supported`;
    this.#logger.warn(CALLER, `cluster version of remote member is not compatible; too ${what}`, {
      'remote-member-id': hexId(id),
      'remote-member-cluster-version': versionText(version),
      [name]: versionText(bound),
    });
  }

  /** The cluster's version as a member knows it, from the first of its addresses that answers. */
  async #clusterVersion(member: Member, timeoutMs: number): Promise<string | null> {
    const text = await this.#firstOf(member, '/version', timeoutMs, clusterVersionIn);
    if (text !== null) return text;
    this.#logger.warn(CALLER, 'failed to get version', { 'remote-member-id': hexId(member.id) });
    return null;
  }

  /** What the first of the members says that knows; the answer is linearizable. */
  async #isDowngrading(members: readonly Member[], timeoutMs: number): Promise<boolean> {
    const answers = members.map((member) => this.#firstOf(member, '/downgrade/enabled', timeoutMs, booleanIn));
    for (const [index, answered] of answers.entries()) {
      const enabled = await answered;
      if (enabled !== null) return enabled;
      const fields = { 'remote-member-id': hexId(members[index]!.id) };
      this.#logger.warn(CALLER, 'failed to get downgrade enabled status', fields);
    }
    return false;
  }

  async #firstOf<T>(
    member: Member,
    path: string,
    timeoutMs: number,
    read: (body: Buffer) => T | null,
  ): Promise<T | null> {
    const answers = member.peerUrls.map((url) => this.#get(url, path, timeoutMs));
    for (const [index, answered] of answers.entries()) {
      const answer = await answered;
      const address = `${member.peerUrls[index]}${path}`;
      const fields = { address, 'remote-member-id': hexId(member.id) };
      if ('error' in answer) {
        this.#logger.warn(CALLER, 'failed to reach the peer URL', { ...fields, error: answer.error.message });
        continue;
      }
      const value = read(answer.body);
      if (value !== null) return value;
      this.#logger.warn(CALLER, 'failed to unmarshal response', { ...fields, status: answer.status });
    }
    return null;
  }

  #get(url: string, path: string, timeoutMs: number): Promise<Answer> {
    return new Promise((resolve) => {
      this.#requests.request(url, { method: 'GET', path, timeoutMs }, (error, answer) => {
        resolve(answer ?? { error: error ?? new Error('no answer') });
      });
    });
  }
}

function parsed(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString());
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** '' where the answer does not say: etcd's parser takes any object. */
function clusterVersionIn(body: Buffer): string | null {
  const versions = parsed(body);
  if (typeof versions !== 'object' || versions === null || Array.isArray(versions)) return null;
  const { etcdcluster } = versions as { readonly etcdcluster?: unknown };
  return typeof etcdcluster === 'string' ? etcdcluster : '';
}

/** Go's strconv.ParseBool. */
function booleanIn(body: Buffer): boolean | null {
  const text = body.toString();
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(text)) return true;
  return ['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(text) ? false : null;
}
