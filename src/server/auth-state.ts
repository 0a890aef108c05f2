// What the database says of authentication: whether an etcd had it enabled, and the revision of the users and roles. Users, roles
// and tokens themselves come with #5.

import type { Backend } from '../backend/backend.ts';
import { assertSound } from '../base/fatal.ts';
import { AuthKey } from '../snapshot/schema.ts';

/** What etcd's auth store begins with, and shows while nobody has used it. */
const REVISION_FIRST = 1;

export function authRevisionOf(backend: Backend): number {
  const revision = backend.bucketGet('auth', AuthKey.revision);
  if (revision === undefined) return REVISION_FIRST;
  assertSound(revision.length === 8, 'authRevision is no number');
  return Number(revision.readBigUInt64BE());
}

export function isAuthEnabled(backend: Backend): boolean {
  return backend.bucketGet('auth', AuthKey.enabled)?.[0] === 1;
}
