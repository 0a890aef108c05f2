// HashKV between members, in etcd's form on both sides: GET /members/hashkv with the revision as JSON in the body, the hash as JSON
// in the answer (server/etcdserver/corrupt.go). Not the gRPC method of the same name.

import type { CompactionHash } from '../backend/backend.ts';
import { hexId } from '../membership/cluster.ts';
import type { PeerAnswer, PeerRequest } from '../peer/peer-transport.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { KeyHash } from './key-hash.ts';

export const peerHashPath = '/members/hashkv';
export const clusterIdMismatchText = 'cluster ID mismatch';

/** As etcd's store calls its errors among members. */
const storeErrors: readonly (readonly [EtcdError, string])[] = [
  [etcdErrors.compacted, 'mvcc: required revision has been compacted'],
  [etcdErrors.futureRev, 'mvcc: required revision is a future revision'],
];

export function storeErrorText(error: EtcdError): string {
  return storeErrors.find(([known]) => known === error)?.[1] ?? error.message;
}

/** The revision that a request asks for, or null: it is not what Go reads as HashKVRequest. */
export function requestedRevision(body: Buffer): number | null {
  const request = parseObject(body);
  if (request === null) return body.toString().trim() === 'null' ? 0 : null;
  // Go takes names in any case, and the last of several.
  let revision: unknown = 0;
  for (const [name, value] of Object.entries(request)) {
    if (name.toLowerCase() === 'revision' && value !== null) revision = value;
  }
  // What is beyond the integers that are exact is beyond every revision, too.
  return typeof revision === 'number' && Number.isInteger(revision) && Math.abs(revision) < 2 ** 63 ? revision : null;
}

/** As Go writes HashKVResponse: what is 0 is left out. */
export function hashAnswer({ hash, compactRevision, revision }: CompactionHash, currentRevision: number): string {
  return JSON.stringify({
    header: omitZero({ revision: currentRevision }),
    ...omitZero({ hash, compact_revision: compactRevision, hash_revision: revision }),
  });
}

function omitZero(numbers: Readonly<Record<string, number>>): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(numbers).filter(([, value]) => value !== 0));
}

export function hashRequest(clusterId: bigint, revision: number, timeoutMs: number): PeerRequest {
  return {
    method: 'GET',
    path: peerHashPath,
    headers: { 'Content-Type': 'application/json', 'X-Etcd-Cluster-ID': hexId(clusterId) },
    body: Buffer.from(revision === 0 ? '{}' : JSON.stringify({ revision })),
    timeoutMs,
  };
}

/** The hash, or the text of the error. */
export function readHashAnswer({ status, body }: PeerAnswer): KeyHash | string {
  const text = body.toString();
  if (status === 400) {
    for (const [error, known] of storeErrors) if (text.includes(known)) return error.message;
  }
  if (status === 412 && text.includes(clusterIdMismatchText)) return etcdErrors.clusterIdMismatch.message;
  if (status !== 200) return `unknown error: ${text}`;
  const answer = parseObject(body);
  const header = answer?.['header'] ?? {};
  const numbers = [
    (header as Readonly<Record<string, unknown>>)['revision'],
    answer?.['hash'],
    answer?.['compact_revision'],
    answer?.['hash_revision'],
  ].map((value) => value ?? 0);
  if (answer === null || !numbers.every((value) => Number.isSafeInteger(value)))
    return `no hash: ${text.slice(0, 100)}`;
  const [currentRevision, hash, compactRevision, revision] = numbers as [number, number, number, number];
  return { hash, compactRevision, revision, currentRevision };
}

function parseObject(body: Buffer): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(body.toString());
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Readonly<Record<string, unknown>>)
      : null;
  } catch {
    return null;
  }
}
