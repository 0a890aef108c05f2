// Compactions whose deletes go on: a compaction is applied at once, what it deletes leaves the database later. Says which are
// running, logs their ends, and tells those who wait for one.

import type { MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';

export class Compactions {
  private readonly parts: MemberParts;
  private readonly log: MemberLog;
  /** Who waits, by revision. */
  private readonly running = new Map<number, (() => void)[]>();

  constructor(parts: MemberParts, log: MemberLog) {
    this.parts = parts;
    this.log = log;
  }

  has(revision: number): boolean {
    return this.running.has(revision);
  }

  /** Calls `done` when the deletes of the compaction to `revision`, which was applied, are done and durable. */
  after(revision: number, done: () => void): void {
    const waiters = this.running.get(revision);
    if (waiters === undefined) done();
    else waiters.push(done);
  }

  /** The deletes begin. */
  start(revision: number): void {
    const waiters: (() => void)[] = [];
    this.running.set(revision, waiters);
    const { backend, nowMs } = this.parts;
    const startMs = nowMs();
    const rowsBefore = backend.compactedRows;
    backend.compact(revision, (hash) => {
      this.running.delete(revision);
      this.log.compacted(revision, nowMs() - startMs, backend.compactedRows - rowsBefore, hash);
      for (const done of waiters) done();
      this.parts.flushConnections();
    });
  }
}
