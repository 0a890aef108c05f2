// Answers as rows of cells, for the simple format (joined by ", ") and the table.

import { humanBytes } from '../config/go-value.ts';
import type { MembersResponse } from '../proto/etcdserverpb.ts';
import type { Message } from '../proto/message.ts';
import type { EndpointHash, EndpointHealth, EndpointStatus } from './printer.ts';

export const memberTitles: readonly string[] = ['ID', 'Status', 'Name', 'Peer Addrs', 'Client Addrs', 'Is Learner'];

export function memberRows({ members }: Message<typeof MembersResponse>): string[][] {
  return members.map((member) => [
    member.id.toString(16),
    member.name === '' ? 'unstarted' : 'started',
    member.name,
    member.peerUrls.join(','),
    member.clientUrls.join(','),
    String(member.isLearner),
  ]);
}

export const healthTitles: readonly string[] = ['endpoint', 'health', 'took', 'error'];

export function healthRows(list: readonly EndpointHealth[]): string[][] {
  return list.map(({ endpoint, isHealthy, took, error }) => [endpoint, String(isHealthy), took, error]);
}

export const statusTitles: readonly string[] = [
  'endpoint',
  'ID',
  'version',
  'storage version',
  'db size',
  'in use',
  'percentage not in use',
  'quota',
  'is leader',
  'is learner',
  'raft term',
  'raft index',
  'raft applied index',
  'errors',
  'downgrade target version',
  'downgrade enabled',
];

export function statusRows(list: readonly EndpointStatus[]): string[][] {
  return list.map(({ endpoint, status }) => {
    const memberId = status.header?.memberId ?? 0n;
    const usedPercent = status.dbSize === 0 ? 100 : Math.trunc((status.dbSizeInUse * 100) / status.dbSize);
    return [
      endpoint,
      memberId.toString(16),
      status.version,
      status.storageVersion,
      humanBytes(status.dbSize),
      humanBytes(status.dbSizeInUse),
      `${100 - usedPercent}%`,
      humanBytes(status.dbSizeQuota),
      String(status.leader === memberId),
      String(status.isLearner),
      String(status.raftTerm),
      String(status.raftIndex),
      String(status.raftAppliedIndex),
      status.errors.join(', '),
      status.downgradeInfo?.targetVersion ?? '',
      String(status.downgradeInfo?.enabled ?? false),
    ];
  });
}

export const hashTitles: readonly string[] = ['endpoint', 'hash', 'hash_revision'];

export function hashRows(list: readonly EndpointHash[]): string[][] {
  return list.map(({ endpoint, hash }) => [endpoint, String(hash.hash), String(hash.hashRevision)]);
}
