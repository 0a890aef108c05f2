// How much of the log behind the applied entries stays, in memory and in the WAL: what followers that lag, or that were just sent a
// snapshot, go on from. Bounded by entries, as etcd's, and by bytes, as etcd's is not: 15,000 entries of 1.5 MB would be 22 GB. Who needs
// what is gone gets the database instead.

import { logBytesKept, logBytesMax, snapshotLogHeldEntriesMax } from '../cluster-limits.ts';
import { NO_BYTES } from '../raft/types.ts';
import type { MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';

export class LogRetention {
  private readonly parts: MemberParts;
  private readonly log: MemberLog;
  private readonly heldIndex: () => number;
  private readonly bytesMax: number;

  /** `heldIndex`: from which entry on members that were sent a snapshot go on. `bytesMax`: logBytesMax, but for tests. */
  constructor(parts: MemberParts, log: MemberLog, heldIndex: () => number, bytesMax: number = logBytesMax) {
    this.parts = parts;
    this.log = log;
    this.heldIndex = heldIndex;
    this.bytesMax = bytesMax;
  }

  /** To be called when entries were applied. Entries leave memory many at a time. */
  compact(): void {
    const { storage, raft, catchUpEntries, logCompactionEntries } = this.parts;
    const applied = raft.appliedIndex;
    const heldFrom = Math.max(this.heldIndex(), applied - snapshotLogHeldEntriesMax);
    let dropTo = Math.min(applied - catchUpEntries, heldFrom);
    if (storage.bytes > this.bytesMax) {
      dropTo = Math.max(dropTo, storage.dropFor((this.bytesMax * logBytesKept) / logBytesMax, applied));
      if (dropTo < storage.firstIndex()) return;
    } else if (dropTo - storage.firstIndex() <= logCompactionEntries) return;
    if (applied > storage.snapshot()!.meta.index) storage.createSnapshot(applied, raft.status().confState, NO_BYTES);
    storage.compact(dropTo);
    this.log.compactedLog(dropTo);
  }

  /** The database holds all up to `durableIndex`: what no start needs to read goes from the disk. */
  release(durableIndex: number): void {
    const { wal, storage, catchUpEntries } = this.parts;
    wal.release(Math.max(durableIndex - catchUpEntries, Math.min(durableIndex, storage.firstIndex() - 1)));
  }
}
