// HashKV: the hash of all rows up to a revision, as etcd's HashStorage gives it to clients, to other members and to its own checks.

import type { CompactionHash } from '../backend/backend.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { KvHasher } from '../snapshot/hashkv.ts';
import type { Member } from './member.ts';

const UNAVAILABLE = 14;

/** With the store's revision when it was asked for. */
export type KeyHash = CompactionHash & { readonly currentRevision: number };

/** The parts of a KeyHash. */
export type KeyHashDone = (error: EtcdError | null, hash: CompactionHash | null, currentRevision: number) => void;

/** At `revision`, 0: the current one. */
export function hashByRevision(member: Member, asked: number, done: KeyHashDone): void {
  const { backend, store, compactionHashes } = member.parts;
  // etcd's compactions are done in an instant when they are small, and their hash is what is then answered: wait for ours.
  if (member.isCompactingTo(asked)) {
    member.afterCompaction(asked, () => hashByRevision(member, asked, done));
    return;
  }
  const { currentRevision, compactRevision } = store;
  const revision = asked === 0 ? currentRevision : asked;
  const stored = compactionHashes.at(asked);
  if (stored !== undefined) done(null, stored, currentRevision);
  else if (revision > currentRevision) done(etcdErrors.futureRev, null, currentRevision);
  else if (revision > 0 && revision < compactRevision) done(etcdErrors.compacted, null, currentRevision);
  else if (revision < 0) {
    // etcd lets a negative revision through: nothing is at or below it, so the hash is that of no row.
    const hash = new KvHasher(compactRevision, 0, null).hash();
    done(null, { hash, revision, compactRevision }, currentRevision);
  } else {
    backend.hashKv(revision, compactRevision, (hash, error) => {
      if (error === null) done(null, { hash, revision, compactRevision }, currentRevision);
      else done({ code: UNAVAILABLE, message: error.message }, null, currentRevision);
    });
  }
}
