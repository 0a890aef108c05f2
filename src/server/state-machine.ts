// Committed entries on their way into the replicated state: each is applied once and in order, and who proposed it here is answered
// in the same turn. What a request does to keys and leases is apply/applier.ts; how much a turn applies, apply-queue.ts.

import { assert } from '../base/assert.ts';
import { InternalRequest, RequestField } from '../proto/internal-request.ts';
import { etcdErrors, messageTooLarge } from '../proto/rpctypes.ts';
import { type ConfState, type Entry, EntryType } from '../raft/types.ts';
import { encodeConfState, MetaKey } from '../snapshot/schema.ts';
import { ApplyQueue } from './apply-queue.ts';
import type { MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';
import { applyMembershipChange } from './membership-change.ts';
import type { Proposals } from './proposals.ts';

/** What the member has to know of the entries that are applied. */
interface ApplyEvents {
  /** Applied as far as the entry that the leader of this term began with: everything of older terms. */
  readonly termBegan: () => void;
  readonly confChanged: (confState: ConfState) => void;
  /** There is more to apply, or room for it again. */
  readonly wake: () => void;
}

export class StateMachine {
  private readonly parts: MemberParts;
  private readonly log: MemberLog;
  private readonly proposals: Proposals;
  private readonly events: ApplyEvents;
  private readonly request = new InternalRequest();
  private readonly unapplied: ApplyQueue = new ApplyQueue((entry) => this.applyOne(entry));
  /** The end of the last apply. */
  private clockMs = 0;
  private waitsForRoom = false;
  /** Until the log of the time before the start is applied: since when, and from where on. */
  private replay: { readonly sinceMs: number; readonly index: number } | null = null;
  /** As last logged. */
  private clusterVersion: string | undefined;

  constructor(parts: MemberParts, log: MemberLog, proposals: Proposals, events: ApplyEvents) {
    this.parts = parts;
    this.log = log;
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

  /** Applies what was committed, all of it or what there is room for. */
  run(isCatchingUp: () => boolean): void {
    const { raft } = this.parts;
    this.clockMs = this.parts.nowMs();
    const last = this.unapplied.run(isCatchingUp, this.hasRoom);
    if (last > 0) raft.applied(last);
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
    if (entry.type !== EntryType.normal) this.applyConfChange(entry);
    else if (entry.data.length > 0) this.applyRequest(entry);
    else if (entry.term === raft.term) this.events.termBegan();
    backend.endApply(entry.index, entry.term);
  }

  private applyRequest(entry: Entry): void {
    const { applier, counters, nowMs } = this.parts;
    const { request } = this;
    const { idPrefix, pending } = this.proposals;
    assert(request.parse(entry.data, 0, entry.data.length), 'a committed entry does not parse');
    // One look at the clock an entry: the end of one is the start of the next.
    const startMs = this.clockMs;
    const isAwaited = request.idPrefix === idPrefix && pending.has(request.idCounter);
    applier.apply(request, entry.data, isAwaited);
    const endMs = nowMs();
    this.clockMs = endMs;
    // What is compacted already needs no compaction: etcd counts that as success.
    const isGood = applier.error === null || applier.error === etcdErrors.compacted;
    counters.observeApply(request.field, isGood, (endMs - startMs) / 1000);
    if (endMs - startMs > this.parts.warningApplyMs) this.log.slowApply(request, entry.data, endMs - startMs);
    if (!isGood) this.log.failedApply(request, entry.data, endMs - startMs);
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
    const { backend, cluster } = this.parts;
    const version = cluster.version!;
    backend.bucketPut('meta', MetaKey.storageVersion, Buffer.from(version));
    this.log.clusterVersion(this.clusterVersion, version);
    this.clusterVersion = version;
  }

  private applyConfChange(entry: Entry): void {
    const { backend, raft, cluster } = this.parts;
    const change = applyMembershipChange(cluster, entry, (member) => this.log.addedMember(member));
    const confState = raft.applyConfChange(change);
    backend.bucketPut('meta', MetaKey.confState, encodeConfState(confState));
    this.events.confChanged(confState);
  }
}
