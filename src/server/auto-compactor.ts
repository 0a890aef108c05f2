// Automatic compaction by etcd's rules: `revision` keeps a count of revisions, looked at every five minutes; `periodic` keeps a
// period: it samples the revision ten times an interval (the period, at most an hour) and compacts to the sample that has become
// a period old. Runs where the leader is; being compacted already is success.

import { autoCompactionIntervalMs } from '../limits.ts';
import { CompactionRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { Member } from './member.ts';

export type AutoCompaction =
  | { readonly mode: 'off' }
  | { readonly mode: 'periodic'; readonly retentionMs: number }
  | { readonly mode: 'revision'; readonly retentionRevisions: number };

const HOUR_MS = 3_600_000;
const SAMPLES_AN_INTERVAL = 10;

/** Starts; `setTimer` runs a callback once. */
export function startAutoCompaction(
  member: Member,
  compaction: AutoCompaction,
  setTimer: (delayMs: number, callback: () => void) => unknown,
): void {
  if (compaction.mode === 'revision') {
    const compactor = new RevisionCompactor(member, compaction.retentionRevisions);
    repeat(autoCompactionIntervalMs, () => compactor.run(), setTimer);
  } else if (compaction.mode === 'periodic') {
    const compactor = new PeriodicCompactor(member, compaction.retentionMs);
    compactor.sample();
    repeat(compactor.sampleMs, () => compactor.run(), setTimer);
  }
}

function repeat(
  intervalMs: number,
  run: () => void,
  setTimer: (delayMs: number, callback: () => void) => unknown,
): void {
  setTimer(intervalMs, () => {
    run();
    repeat(intervalMs, run, setTimer);
  });
}

function compact(member: Member, kind: string, revision: number, done: (isCompacted: boolean) => void): void {
  const { logger, nowMs } = member.parts;
  const startMs = nowMs();
  logger.info('server/auto-compactor.ts', `starting auto ${kind} compaction`, { revision });
  const finish = (error: EtcdError | null): void => {
    const isCompacted = error === null || error === etcdErrors.compacted;
    const took = `${((nowMs() - startMs) / 1000).toFixed(6)}s`;
    if (isCompacted) logger.info('server/auto-compactor.ts', `completed auto ${kind} compaction`, { revision, took });
    else {
      const fields = { revision, error: error.message };
      logger.warn('server/auto-compactor.ts', `failed auto ${kind} compaction`, fields);
    }
    done(isCompacted);
  };
  const message = encode(CompactionRequest, { revision });
  const error = member.propose(RequestField.compaction, message, 0, message.length, {
    applied: (applier) => finish(applier.error),
    failed: finish,
  });
  if (error !== null) finish(error);
}

class RevisionCompactor {
  private readonly member: Member;
  private readonly retentionRevisions: number;
  private lastRevision = 0;

  constructor(member: Member, retentionRevisions: number) {
    this.member = member;
    this.retentionRevisions = retentionRevisions;
  }

  run(): void {
    const revision = this.member.parts.store.currentRevision - this.retentionRevisions;
    if (!this.member.isLeader || revision <= 0 || revision === this.lastRevision) return;
    compact(this.member, 'revision', revision, (isCompacted) => {
      if (isCompacted) this.lastRevision = revision;
    });
  }
}

class PeriodicCompactor {
  readonly sampleMs: number;
  private readonly member: Member;
  private readonly intervalMs: number;
  private readonly samplesKept: number;
  private readonly samples: number[] = [];
  private lastRevision = 0;
  private lastSuccessMs: number;

  constructor(member: Member, retentionMs: number) {
    this.member = member;
    this.intervalMs = Math.min(retentionMs, HOUR_MS);
    this.sampleMs = this.intervalMs / SAMPLES_AN_INTERVAL;
    this.samplesKept = Math.floor(retentionMs / this.sampleMs) + 1;
    this.lastSuccessMs = member.parts.nowMs();
  }

  sample(): void {
    this.samples.push(this.member.parts.store.currentRevision);
    if (this.samples.length > this.samplesKept) this.samples.shift();
  }

  run(): void {
    this.sample();
    const now = this.member.parts.nowMs();
    const revision = this.samples[0]!;
    // The samples reach a whole period back only when their list is full.
    if (this.samples.length < this.samplesKept || now - this.lastSuccessMs < this.intervalMs - this.sampleMs / 2)
      return;
    if (!this.member.isLeader || revision <= 0 || revision === this.lastRevision) return;
    compact(this.member, 'periodic', revision, (isCompacted) => {
      if (!isCompacted) return;
      this.lastRevision = revision;
      this.lastSuccessMs = now;
    });
  }
}
