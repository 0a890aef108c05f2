// HashKV of a whole database file, as `etcdutl hashkv` computes it: finds the compaction revision and the keep set by reading
// the `key` bucket, then hashes. The server has both from its index; only tests use this.

import { Reader } from '../proto/wire.ts';
import { unwrap } from './bolt-fixture.ts';
import { type BoltReader, CursorStep } from './bolt-reader.ts';
import { KvHasher } from './hashkv.ts';
import { isTombstoneKey, MetaKey, revisionMain, revisionSub } from './schema.ts';

export interface FileHashKv {
  readonly hash: number;
  readonly hashRevision: number;
  readonly compactRevision: number;
}

/** `asked` 0 means the latest revision, as in etcd. */
export function hashKvOf(reader: BoltReader, asked: number): FileHashKv {
  const compacted = unwrap(unwrap(reader.bucket(Buffer.from('meta')))!.get(MetaKey.finishedCompactRev));
  const compactRevision = compacted === null ? -1 : revisionMain(compacted);
  const last = { main: 1 };
  eachRow(reader, (key) => {
    last.main = revisionMain(key);
  });
  const hashRevision = asked === 0 ? last.main : asked;
  const newest = new Map<string, string | null>();
  eachRow(reader, (key, value) => {
    if (revisionMain(key) > hashRevision) return;
    newest.set(nameOf(value), isTombstoneKey(key) ? null : `${revisionMain(key)}/${revisionSub(key)}`);
  });
  const kept = new Set([...newest.values()].filter((revision) => revision !== null));
  const hasher = new KvHasher(
    compactRevision,
    hashRevision,
    kept.size === 0 ? null : (main, sub) => kept.has(`${main}/${sub}`),
  );
  eachRow(reader, (key, value) => hasher.write(key, value));
  return { hash: hasher.hash(), hashRevision, compactRevision };
}

function eachRow(reader: BoltReader, visit: (key: Buffer, value: Buffer) => void): void {
  const cursor = unwrap(reader.bucket(Buffer.from('key')))!.cursor();
  while (cursor.next() === CursorStep.entry) visit(cursor.key, cursor.value);
  if (cursor.error !== null) throw new Error(cursor.error.reason);
}

/** Field 1 of a KeyValue: etcd writes it first. */
function nameOf(value: Buffer): string {
  const wire = new Reader();
  wire.reset(value, 0, value.length);
  if (!wire.readTag() || wire.fieldNumber !== 1 || !wire.readBytes()) throw new Error('no key in a row');
  return value.toString('latin1', wire.bytesStart, wire.bytesEnd);
}
