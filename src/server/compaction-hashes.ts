// The hashes that compactions left, the newest few by revision: HashKV at such a revision answers with it, as etcd does, so that
// members can be compared at a revision that they have all compacted.

import type { CompactionHash } from '../backend/backend.ts';
import { compactionHashesMax } from '../limits.ts';

export class CompactionHashes {
  private hashes: CompactionHash[] = [];

  store(hash: CompactionHash): void {
    // The engine knows nothing of a compaction to 0, before every row; to etcd it is the one before this one.
    const followsZero = hash.compactRevision === -1 && this.at(0) !== undefined;
    this.hashes.push(followsZero ? { ...hash, compactRevision: 0 } : hash);
    this.hashes.sort((a, b) => a.revision - b.revision);
    this.hashes = this.hashes.slice(-compactionHashesMax);
  }

  all(): readonly CompactionHash[] {
    return this.hashes;
  }

  at(revision: number): CompactionHash | undefined {
    return this.hashes.find((hash) => hash.revision === revision);
  }
}
