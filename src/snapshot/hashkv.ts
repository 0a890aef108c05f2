// The hash of the keyspace that etcd's members compare (HashKV, the corruption checks, compaction hashes): CRC-32C over the
// name of the `key` bucket, then raw key and raw value of every row that counts, in revision order. Pure and incremental;
// who reads the rows, at which revision, and what is kept is the caller's part (mvcc). It follows kvHasher of etcd 3.7's
// server/storage/mvcc/hash.go.
//
// A row of revision (main, sub) counts
//
//   main > revision                        no
//   main <= compactRevision                only when `keep` holds for it. Compaction may or may not have deleted the others
//                                          yet: the hash must not depend on that. Without a keep set every row counts, for
//                                          there is nothing that a compaction would delete
//   main == compactRevision, a tombstone   no: etcd up to 3.5.15 deleted it, later ones keep it
//   otherwise                              yes
//
// Two kinds of caller, as in etcd:
//   HashKV at R           new KvHasher(compactRevision or -1, R, keep), `keep` of the revisions that a compaction at R would
//                         keep: of each key the newest one <= R, unless that is a tombstone
//   a compaction at R     new KvHasher(previous compact revision or -1, R, keep), fed with the rows <= R before they are
//                         deleted; here etcd's `keep` has a tombstone that is the newest one <= R only when it is at R itself
// `keep` is null when the set is empty (etcd tests the size of its map).

import { assert } from '../base/assert.ts';
import { crc32c } from '../base/crc32c.ts';
import { isRevisionKey, isTombstoneKey, revisionMain, revisionSub } from './schema.ts';

const SEED: number = crc32c(0, Buffer.from('key'));

/** Whether a revision at or below the compaction revision is one that compaction keeps. */
export type KeepRevision = (main: number, sub: number) => boolean;

export class KvHasher {
  private readonly compactRevision: number;
  private readonly revision: number;
  private readonly keep: KeepRevision | null;
  private crc = SEED;
  private lastMain = -1;
  private lastSub = -1;

  /** `compactRevision` is -1 before any compaction; `keep` is null when nothing at all is kept. */
  constructor(compactRevision: number, revision: number, keep: KeepRevision | null) {
    this.compactRevision = compactRevision;
    this.revision = revision;
    this.keep = keep;
  }

  /** A row of the `key` bucket: its 17- or 18-byte key and its value as stored. Rows ascend. Hot: 1 ns a byte. */
  write(key: Buffer, value: Buffer): void {
    assert(isRevisionKey(key), 'hashkv: not a revision key');
    const main = revisionMain(key);
    const sub = revisionSub(key);
    assert(main > this.lastMain || (main === this.lastMain && sub > this.lastSub), 'hashkv: revisions do not ascend');
    this.lastMain = main;
    this.lastSub = sub;
    if (main > this.revision) return;
    if (main <= this.compactRevision) {
      if (this.keep !== null && !this.keep(main, sub)) return;
      if (main === this.compactRevision && isTombstoneKey(key)) return;
    }
    this.crc = crc32c(crc32c(this.crc, key), value);
  }

  /** The hash over what was written so far, unsigned. */
  hash(): number {
    return this.crc;
  }
}
