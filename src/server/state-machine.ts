// Committed entries on their way into the replicated state: each is applied once and in order, and who proposed it here is answered
// in the same turn. What a request does to keys and leases is apply/applier.ts; how much a turn applies, apply-queue.ts.

import { assert } from '../base/assert.ts';
import { assertApplicable, ExitCode, FatalError } from '../base/fatal.ts';
import { invalidDowngrade, parseVersion } from '../membership/semantic-version.ts';
import { InternalRequest, RequestField } from '../proto/internal-request.ts';
import { etcdErrors, messageTooLarge } from '../proto/rpctypes.ts';
import { withoutV2 } from '../proto/v2-request.ts';
import { type ConfState, type Entry, EntryType, type Snapshot } from '../raft/types.ts';
import { encodeConfState, MetaKey } from '../snapshot/schema.ts';
import { ApplyQueue } from './apply-queue.ts';
import { beginAuth } from './auth-state.ts';
import type { MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';
import { type AppliedChange, applyMembershipChange } from './membership-change.ts';
import { MembershipLog } from './membership-log.ts';
import type { Proposals } from './proposals.ts';
import { UnappliedBytes } from './unapplied-bytes.ts';

/** What the member has to know of the entries that are applied. */
interface ApplyEvents {
  /** Applied as far as the entry that the leader of this term began with: everything of older terms. */
  readonly termBegan: () => void;
  readonly confChanged: (confState: ConfState) => void;
  /** Behind confChanged(), and for a change that was refused, too. */
  readonly membershipChanged: (change: AppliedChange) => void;
  /** The cluster's; part of the apply. */
  readonly versionChanged: () => void;
  /** There is more to apply, or room for it again. */
  readonly wake: () => void;
}

export class StateMachine {
  private readonly parts: MemberParts;
  private readonly log: MemberLog;
  private readonly membershipLog: MembershipLog;
  private readonly proposals: Proposals;
  private readonly events: ApplyEvents;
  private readonly request = new InternalRequest();
  private readonly unapplied: ApplyQueue = new ApplyQueue((entry) => this.applyOne(entry));
  /** The end of the last apply. */
  private clockMs = 0;
  private waitsForRoom = false;
  private installing: Snapshot | null = null;
  readonly unappliedBytes: UnappliedBytes = new UnappliedBytes();
  /** Until the log of the time before the start is applied: since when, and from where on. */
  private replay: { readonly sinceMs: number; readonly index: number } | null = null;
  /** As last logged. */
  private clusterVersion: string | undefined;
  private hasAuthBegun = false;

  constructor(parts: MemberParts, log: MemberLog, proposals: Proposals, events: ApplyEvents) {
    this.parts = parts;
    this.log = log;
    this.membershipLog = new MembershipLog(parts);
    this.proposals = proposals;
    this.events = events;
    this.clusterVersion = parts.cluster.version;
  }

  /** What is committed from here on until everything is applied is what the log had beyond the database. */
  startReplay(): void {
    this.replay = { sinceMs: this.parts.nowMs(), index: this.parts.raft.appliedIndex };
  }

  get isEmpty(): boolean {
    return this.unapplied.isEmpty;
  }

  add(entries: readonly Entry[]): void {
    this.unapplied.add(entries);
  }

  /** `snapshot` takes the place of the state: what waits is in it, and what follows waits until it is installed. */
  replaceBy(snapshot: Snapshot): void {
    this.unapplied.clear();
    this.unappliedBytes.reset();
    this.installing = snapshot;
  }

  /** The state is that of `snapshot` now. */
  installed(snapshot: Snapshot): void {
    // A newer one has come meanwhile: it will be installed, too.
    if (this.installing !== snapshot) return;
    this.installing = null;
    this.hasAuthBegun = false;
    this.clusterVersion = this.parts.cluster.version;
    this.parts.header.term = snapshot.meta.term;
    this.parts.raft.applied(snapshot.meta.index);
  }

  /** Applies what was committed, all of it or what there is room for. */
  run(isCatchingUp: () => boolean): void {
    const { raft } = this.parts;
    if (this.installing !== null) return;
    this.clockMs = this.parts.nowMs();
    const last = this.unapplied.run(isCatchingUp, this.hasRoom);
    if (last > 0) raft.applied(last);
    if (raft.appliedIndex === raft.lastIndex) this.unappliedBytes.reset();
    if (!this.unapplied.isEmpty && !this.waitsForRoom) this.events.wake();
    if (this.replay === null || raft.appliedIndex !== raft.committedIndex) return;
    this.log.replayed(raft.appliedIndex - this.replay.index, this.parts.nowMs() - this.replay.sinceMs);
    this.replay = null;
  }

  /** Whether the flusher keeps up; if not, the loop runs again when it does. */
  readonly hasRoom = (): boolean => {
    const { backend } = this.parts;
    if (!backend.isOverloaded()) return true;
    if (this.waitsForRoom) return false;
    this.waitsForRoom = true;
    backend.whenRoom(() => {
      this.waitsForRoom = false;
      this.events.wake();
    });
    return false;
  };

  private applyOne(entry: Entry): void {
    const { backend, raft } = this.parts;
    assert(entry.index === backend.consistentIndex + 1, 'entries are applied in order, each once');
    this.parts.header.term = entry.term;
    this.unappliedBytes.applied(entry);
    if (!this.hasAuthBegun) this.beginAuth();
    if (entry.type !== EntryType.normal) this.applyConfChange(entry);
    else if (entry.data.length > 0) this.applyRequest(entry);
    else if (entry.term === raft.term) this.events.termBegan();
    backend.endApply(entry.index, entry.term);
  }

  private beginAuth(): void {
    this.hasAuthBegun = true;
    beginAuth(this.parts.backend);
  }

  /** Into `request`; returns the bytes in which it lies. */
  private parse(entry: Entry): Buffer {
    const { request } = this;
    const { data } = entry;
    assertApplicable(request.parse(data, 0, data.length), entry, 'is no request');
    if (!request.isOfV2) return data;
    const ofToday = entryWithoutV2(data);
    assert(
      request.parse(ofToday, 0, ofToday.length) && !request.isOfV2,
      'a request of the v2 API becomes one of today',
    );
    return ofToday;
  }

  private applyRequest(entry: Entry): void {
    const { applier, counters, nowMs } = this.parts;
    const { request } = this;
    const { idPrefix, pending } = this.proposals;
    const data = this.parse(entry);
    // One look at the clock an entry: the end of one is the start of the next.
    const startMs = this.clockMs;
    const isAwaited = request.idPrefix === idPrefix && pending.awaits(request.idCounter, entry.data);
    applier.apply(request, data, isAwaited, entry);
    const endMs = nowMs();
    this.clockMs = endMs;
    // What is compacted already needs no compaction: etcd counts that as success.
    const isGood = applier.error === null || applier.error === etcdErrors.compacted;
    counters.observeApply(request.field, isGood, (endMs - startMs) / 1000);
    if (endMs - startMs > this.parts.warningApplyMs) this.log.slowApply(request, data, endMs - startMs);
    if (!isGood) this.log.failedApply(request, data, endMs - startMs);
    if (request.field === RequestField.clusterVersionSet) this.noteClusterVersion();
    if (applier.crossedQuota) this.proposals.raiseNoSpace();
    const waiter = isAwaited ? pending.take(request.idCounter) : undefined;
    if (waiter === undefined) return;
    // etcd's request succeeded when it was applied, whatever the answer.
    const requestMs = endMs - pending.takenSinceMs;
    counters.observeRequest(request.field, true, requestMs / 1000);
    // etcd applies the write that crosses the quota and answers it with the error all the same.
    if (applier.crossedQuota && applier.error === null) applier.error = etcdErrors.noSpace;
    if (applier.body.full && applier.error === null) applier.error = messageTooLarge(applier.body.bytesMax);
    waiter.applied(applier);
  }

  private noteClusterVersion(): void {
    const { cluster, serverVersion } = this.parts;
    const version = cluster.version!;
    this.log.clusterVersion(this.clusterVersion, version);
    this.clusterVersion = version;
    // Before anything is stored that this version of the program does not know.
    const reason = invalidDowngrade(parseVersion(serverVersion)!, parseVersion(version)!);
    if (reason !== null) throw new FatalError(ExitCode.dataDir, reason);
    this.events.versionChanged();
  }

  private applyConfChange(entry: Entry): void {
    const { backend, raft } = this.parts;
    const change = applyMembershipChange(this.parts, this.membershipLog, entry);
    const confState = raft.applyConfChange(change.forRaft);
    backend.bucketPut('meta', MetaKey.confState, encodeConfState(confState));
    this.events.confChanged(confState);
    this.events.membershipChanged(change);
  }
}

/** Only an etcd of before 3.6 proposed such. To pass over it would be another state than theirs. */
function entryWithoutV2(data: Buffer): Buffer {
  const entry = withoutV2(data);
  if (entry !== null) return entry;
  throw new FatalError(
    ExitCode.dataDir,
    'the log holds a request of the v2 API: the cluster keeps data of it, which keelson does not, nor does etcd 3.6',
  );
}
