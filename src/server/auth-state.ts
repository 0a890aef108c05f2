// What the database says of authentication: whether an etcd had it enabled, and the revision of the users and roles. Users, roles
// and tokens themselves come with #5.

import type { Backend } from '../backend/backend.ts';
import { assertSound, ExitCode, FatalError } from '../base/fatal.ts';
import { AuthKey, encodeCounter } from '../snapshot/schema.ts';

/** What etcd's auth store begins with, and shows while nobody has used it. */
const REVISION_FIRST = 1;

export function authRevisionOf(backend: Backend): number {
  const revision = backend.bucketGet('auth', AuthKey.revision);
  if (revision === undefined) return REVISION_FIRST;
  assertSound(revision.length === 8, 'authRevision is no number');
  return Number(revision.readBigUInt64BE());
}

/**
 * As etcd's auth store does at its start: members of one cluster have the number stored from the first entry on, and etcd's Hash, which
 * covers it, is equal on all. Part of an apply.
 */
export function beginAuth(backend: Backend): void {
  if (backend.bucketGet('auth', AuthKey.revision) !== undefined) return;
  backend.bucketPut('auth', AuthKey.revision, encodeCounter(REVISION_FIRST));
}

/**
 * Throws FatalError over a database that an etcd protected, restored or sent by a leader: serving it to everybody must not be what a
 * migration does.
 */
export function refuseProtected(backend: Backend): void {
  if (backend.bucketGet('auth', AuthKey.enabled)?.[0] !== 1) return;
  throw new FatalError(
    ExitCode.dataDir,
    `the database ${backend.path} has authentication enabled, which this version of keelson cannot enforce yet (issue 5): it ` +
      'would serve everybody. Disable it in etcd (etcdctl auth disable), then take a new snapshot and restore that, or join its cluster anew',
  );
}
