// Automatic compaction by etcd's rules: `revision` keeps a count of revisions, looked at every five minutes; `periodic` keeps a
// period: it samples the revision ten times an interval (the period, at most an hour) and compacts to the oldest sample, first when
// a period has passed, then once an interval. What failed is tried again at the next sample. Runs where the leader is; being
// compacted already is success. etcd's server/etcdserver/api/v3compactor.

import { autoCompactionIntervalMs } from '../limits.ts';
import { CompactionRequest } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { LogFields } from '../telemetry/logger.ts';
import type { Member } from './member.ts';
import { durationText } from './member-log.ts';

export type AutoCompaction =
  | { readonly mode: 'off' }
  | { readonly mode: 'periodic'; readonly retentionMs: number }
  | { readonly mode: 'revision'; readonly retentionRevisions: number };

const CALLER = 'server/auto-compactor.ts';
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

type Kind = 'revision' | 'periodic';

function compact(member: Member, kind: Kind, revision: number, fields: LogFields, done: (ok: boolean) => void): void {
  const { logger, nowMs } = member.parts;
  const startMs = nowMs();
  const { 'retry-interval': _retry, ...shown } = fields;
  logger.info(CALLER, `starting auto ${kind} compaction`, { revision, ...shown });
  const finish = (error: EtcdError | null): void => {
    const isCompacted = error === null || error === etcdErrors.compacted;
    if (isCompacted) {
      const took = durationText(nowMs() - startMs);
      logger.info(CALLER, `completed auto ${kind} compaction`, { revision, ...shown, took });
    } else {
      logger.warn(CALLER, `failed auto ${kind} compaction`, { revision, ...fields, error: error.message });
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
  /** A proposal is under way: nothing new before its end. */
  private isBusy = false;

  constructor(member: Member, retentionRevisions: number) {
    this.member = member;
    this.retentionRevisions = retentionRevisions;
  }

  run(): void {
    const revision = this.member.parts.store.currentRevision - this.retentionRevisions;
    if (this.isBusy || !this.member.isLeader || revision <= 0 || revision === this.lastRevision) return;
    this.isBusy = true;
    const fields = {
      'revision-compaction-retention': this.retentionRevisions,
      'retry-interval': durationText(autoCompactionIntervalMs),
    };
    compact(this.member, 'revision', revision, fields, (isCompacted) => {
      this.isBusy = false;
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
  private readonly fields: LogFields;
  private lastRevision = 0;
  private lastSuccessMs: number;
  /** What has to have passed since the last success: the whole period before the first compaction, then the interval. */
  private waitMs: number;
  private isBusy = false;

  constructor(member: Member, retentionMs: number) {
    this.member = member;
    this.intervalMs = Math.min(retentionMs, HOUR_MS);
    this.sampleMs = this.intervalMs / SAMPLES_AN_INTERVAL;
    this.samplesKept = Math.floor(retentionMs / this.sampleMs) + 1;
    this.fields = { 'compact-period': durationText(retentionMs), 'retry-interval': durationText(this.sampleMs) };
    this.waitMs = retentionMs;
    this.lastSuccessMs = member.parts.nowMs();
    this.sample();
  }

  private sample(): void {
    this.samples.push(this.member.parts.store.currentRevision);
    if (this.samples.length > this.samplesKept) this.samples.shift();
  }

  run(): void {
    this.compactWhenDue();
    this.sample();
  }

  private compactWhenDue(): void {
    const now = this.member.parts.nowMs();
    const revision = this.samples[0]!;
    // Timers end a little early or late: half a sample is neither.
    const isDue = now - this.lastSuccessMs >= this.waitMs - this.sampleMs / 2;
    if (this.isBusy || !this.member.isLeader || !isDue || revision === this.lastRevision) return;
    this.waitMs = this.intervalMs;
    this.isBusy = true;
    compact(this.member, 'periodic', revision, this.fields, (isCompacted) => {
      this.isBusy = false;
      if (!isCompacted) return;
      this.lastRevision = revision;
      this.lastSuccessMs = now;
    });
  }
}
