// The hashes that compactions left, the newest few by revision: HashKV at such a revision answers with it, as etcd does, so that
// members can be compared at a revision that they have all compacted.

import type { CompactionHash } from '../backend/backend.ts';
import { compactionHashesMax } from '../limits.ts';

export class CompactionHashes {
  private hashes: CompactionHash[] = [];

  store(hash: CompactionHash): void {
    this.hashes.push(hash);
    this.hashes.sort((a, b) => a.revision - b.revision);
    this.hashes = this.hashes.slice(-compactionHashesMax);
  }

  at(revision: number): CompactionHash | undefined {
    return this.hashes.find((hash) => hash.revision === revision);
  }
}
