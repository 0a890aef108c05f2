// What versions the members of a cluster are, by the /version endpoints of their peer listeners.

import { type Cluster, type Member as ClusterMember, hexId } from '../membership/cluster.ts';
import type { PeerRequests } from '../peer/peer-transport.ts';
import type { Logger } from '../telemetry/logger.ts';
import { askPeer } from './peer-question.ts';

const CALLER = 'server/member-versions.ts';

export interface MemberVersion {
  readonly server: string;
  readonly cluster: string;
}

/** By member; null: it did not answer. */
export type MemberVersions = ReadonlyMap<bigint, MemberVersion | null>;

export interface VersionSource {
  readonly id: bigint;
  readonly cluster: Cluster;
  readonly peerRequests: PeerRequests;
  readonly serverVersion: string;
  readonly logger: Logger;
}

/** Asks all members at once, each at one of its URLs after the other. `done` comes in this turn when there is nobody to ask. */
export function memberVersions(
  source: VersionSource,
  timeoutMs: number,
  done: (versions: MemberVersions) => void,
): void {
  const { id, cluster, serverVersion, logger } = source;
  const versions = new Map<bigint, MemberVersion | null>();
  const members = cluster.members();
  const note = (member: bigint, version: MemberVersion | null): void => {
    versions.set(member, version);
    if (versions.size === members.length) done(versions);
  };
  for (const member of members) {
    if (member.id === id) note(id, { server: serverVersion, cluster: cluster.version ?? 'not_decided' });
    else {
      askVersion(source, member, timeoutMs, (error, version) => {
        if (error !== null) {
          logger.warn(CALLER, 'failed to get version', { 'remote-member-id': hexId(member.id), error });
        }
        note(member.id, version);
      });
    }
  }
}

const path = '/version';

/** Whatever the status, a body that can be read is the answer, as in etcd. */
function askVersion(
  { peerRequests, logger }: VersionSource,
  { id, peerUrls }: ClusterMember,
  timeoutMs: number,
  done: (error: string | null, version: MemberVersion | null) => void,
): void {
  const request = { method: 'GET', path, timeoutMs } as const;
  let lastError: string | null = null;
  askPeer<MemberVersion>(peerRequests, peerUrls, {
    request: () => request,
    read: (answer, url) => {
      const result =
        typeof answer === 'string'
          ? { warning: 'failed to reach the peer URL', error: answer }
          : readVersion(answer.body.toString());
      if ('value' in result) return result.value;
      lastError = result.error;
      const fields = { address: `${url}${path}`, 'remote-member-id': hexId(id), error: result.error };
      logger.warn(CALLER, result.warning, fields);
      return null;
    },
    done: (version) => done(version === null ? lastError : null, version),
  });
}

function readVersion(
  body: string,
): { readonly value: MemberVersion } | { readonly warning: string; readonly error: string } {
  try {
    const { etcdserver = '', etcdcluster = '' } = JSON.parse(body) as Readonly<Record<string, unknown>>;
    if (typeof etcdserver === 'string' && typeof etcdcluster === 'string') {
      return { value: { server: etcdserver, cluster: etcdcluster } };
    }
  } catch {
    // No JSON, or null: told below.
  }
  return { warning: 'failed to unmarshal response', error: `no versions: ${body.slice(0, 100)}` };
}
