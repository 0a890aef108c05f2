// HashKV of a database file, as `etcdutl hashkv` computes it. A server has the newest revisions from its index; here a first
// pass over the rows finds them. Memory: one string and two numbers a key.

import { Reader, WireType } from '../proto/wire.ts';
import type { BoltReader } from '../snapshot/bolt-reader.ts';
import { KvHasher } from '../snapshot/hashkv.ts';
import { isRevisionKey, isTombstoneKey, MetaKey, revisionMain, revisionSub } from '../snapshot/schema.ts';
import { ExitCode, ExitError } from './exit.ts';
import { damaged, orDamaged, rowsOf } from './snapshot-file.ts';

export interface FileHash {
  readonly hash: number;
  readonly hashRevision: number;
  /** -1: never compacted. */
  readonly compactRevision: number;
}

/** `asked`: the revision to hash up to, 0 for the latest. */
export function hashKvOfFile(path: string, reader: BoltReader, asked: number): FileHash {
  const finished = metaRevision(path, reader, MetaKey.finishedCompactRev);
  const scheduled = metaRevision(path, reader, MetaKey.scheduledCompactRev);
  // etcd goes on with a compaction that was scheduled as soon as it has opened the file.
  const compactRevision = Math.max(finished, scheduled);
  let current = 1;
  for (const { key } of rowsOf(path, reader)) current = revisionMain(key);
  current = Math.max(current, compactRevision);
  if (asked > 0 && asked < compactRevision) {
    throw new ExitError(ExitCode.error, 'mvcc: required revision has been compacted');
  }
  if (asked > current) throw new ExitError(ExitCode.error, 'mvcc: required revision is a future revision');
  const hashRevision = asked === 0 ? current : asked;
  const kept = keptRevisions(path, reader, hashRevision);
  const hasher = new KvHasher(
    compactRevision,
    hashRevision,
    kept.size === 0 ? null : (main, sub) => kept.get(main)?.has(sub) === true,
  );
  for (const { key, value } of rowsOf(path, reader)) hasher.write(key, value);
  return { hash: hasher.hash(), hashRevision, compactRevision };
}

/** What a compaction at `revision` keeps: the newest change of each key that lives there. Subs by main. */
function keptRevisions(path: string, reader: BoltReader, revision: number): Map<number, Set<number>> {
  const newest = new Map<string, readonly [main: number, sub: number]>();
  const wire = new Reader();
  for (const { key, value } of rowsOf(path, reader)) {
    if (revisionMain(key) > revision) break;
    const name = nameOf(wire, value);
    if (isTombstoneKey(key)) newest.delete(name);
    else newest.set(name, [revisionMain(key), revisionSub(key)]);
  }
  const kept = new Map<number, Set<number>>();
  for (const [main, sub] of newest.values()) {
    const subs = kept.get(main);
    if (subs === undefined) kept.set(main, new Set([sub]));
    else subs.add(sub);
  }
  return kept;
}

function metaRevision(path: string, reader: BoltReader, name: Buffer): number {
  const meta = orDamaged(path, reader.bucket(Buffer.from('meta')));
  const stored = meta === null ? null : orDamaged(path, meta.get(name));
  if (stored === null) return -1;
  if (!isRevisionKey(stored)) throw damaged(path, { offset: 0, reason: `meta/${name.toString()} is no revision` });
  return revisionMain(stored);
}

/** Field 1 of a KeyValue; empty when it has none. */
function nameOf(wire: Reader, value: Buffer): string {
  wire.reset(value, 0, value.length);
  let name = '';
  while (wire.readTag()) {
    if (wire.fieldNumber === 1 && wire.wireType === WireType.bytes) {
      wire.readBytes();
      name = value.toString('latin1', wire.bytesStart, wire.bytesEnd);
    } else wire.skip();
  }
  return name;
}
