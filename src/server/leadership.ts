// Who leads, as far as this member has a hand in it: it gives leadership to another member when asked or when it ends, gives it up
// when its own disk stands still, and does not wait out the first election timeout when its peers are there already.

import { peerLookMs, ticksKeptAtStart } from '../cluster-limits.ts';
import { hexId } from '../membership/cluster.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { NONE, type NodeId } from '../raft/types.ts';
import { durationText, type MemberLog } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';

const CALLER = 'server/leadership.ts';

/** Reaches the client without a status of its own, as in etcd. */
const TRANSFER_TIMEOUT: EtcdError = {
  code: 2,
  message: 'etcdserver: request timed out, leader transfer took too long',
};

interface Transfer {
  readonly to: NodeId;
  readonly from: NodeId;
  readonly sinceMs: number;
  readonly untilMs: number;
  readonly done: (error: EtcdError | null) => void;
}

export class Leadership {
  private readonly parts: MemberParts;
  private readonly log: MemberLog;
  private readonly wake: () => void;
  private transfers: Transfer[] = [];
  /** When this member became leader last. */
  private electedMs = -Infinity;
  /** The oldest write that was not durable when looked last, 0: none; and when it was first seen so. */
  private unsyncedTicket = 0;
  private unsyncedSinceMs = 0;
  /** Until when peers are looked for, to shorten the first election; null: not any more. */
  private lookUntilMs: number | null;

  constructor(parts: MemberParts, log: MemberLog, wake: () => void) {
    this.parts = parts;
    this.log = log;
    this.wake = wake;
    this.lookUntilMs = parts.advancesFirstElection ? parts.nowMs() + peerLookMs : null;
  }

  /** Once a raft tick. `unsyncedTicket`: the oldest write that is not durable, 0 when all are. */
  tick(nowMs: number, unsyncedTicket: number): void {
    this.watchDisk(nowMs, unsyncedTicket);
    this.shortenFirstElection(nowMs);
    this.watchTransfers(nowMs);
  }

  // --- A disk that stands still ---

  /** etcd's leader goes on to lead without being able to write: nobody is served, and nobody else may lead. */
  private watchDisk(nowMs: number, unsyncedTicket: number): void {
    const { raft, electionMs, logger, id } = this.parts;
    if (unsyncedTicket !== this.unsyncedTicket) {
      this.unsyncedTicket = unsyncedTicket;
      this.unsyncedSinceMs = nowMs;
    }
    const stalledMs = nowMs - this.unsyncedSinceMs;
    if (unsyncedTicket === 0 || stalledMs <= electionMs) return;
    if (!raft.isLeader || this.votersBesideMe() === 0) return;
    // Handing over takes a round trip and nothing of this disk; giving up costs the others an election.
    const to = stalledMs > 2 * electionMs ? null : this.longestConnected();
    if (to !== null && raft.leadTransferee !== NONE) return;
    const fields = { 'local-member-id': hexId(id), 'stalled-ms': Math.round(stalledMs) };
    logger.warn(CALLER, 'the disk has not taken a write for an election timeout; giving up leadership', fields);
    if (to === null) raft.stepDown();
    else raft.transferLeader(to);
    this.wake();
  }

  private votersBesideMe(): number {
    const { raft, id } = this.parts;
    return raft.status().confState.voters.filter((voter) => voter !== id).length;
  }

  // --- The first election ---

  /** A member that starts into a cluster which is there need not wait a whole election timeout for a leader that is not. */
  private shortenFirstElection(nowMs: number): void {
    if (this.lookUntilMs === null) return;
    const { raft, cluster, transport, id, electionTicks, electionMs, logger } = this.parts;
    if (nowMs > this.lookUntilMs || raft.lead !== NONE) {
      this.lookUntilMs = null;
      return;
    }
    const active = cluster.members().filter((one) => one.id !== id && transport.activeSinceMs(one.id) !== null).length;
    if (active === 0) return;
    this.lookUntilMs = null;
    const ticks = electionTicks - ticksKeptAtStart;
    if (ticks <= 0) return;
    logger.info(CALLER, 'initialized peer connections; fast-forwarding election ticks', {
      'local-member-id': hexId(id),
      'forward-ticks': ticks,
      'forward-duration': durationText((ticks * electionMs) / electionTicks),
      'election-ticks': electionTicks,
      'election-timeout': durationText(electionMs),
      'active-remote-members': active,
    });
    for (let i = 0; i < ticks; i++) raft.tick();
  }

  // --- Why a proposal was not applied in time ---

  /** As etcd tells it to whoever proposed at `sinceMs`. */
  timeoutError(sinceMs: number): EtcdError {
    const { raft, id, transport, electionMs } = this.parts;
    if (sinceMs > this.electedMs - 2 * electionMs && sinceMs < this.electedMs) return etcdErrors.timeoutDueToLeaderFail;
    const isConnected = (peer: NodeId): boolean => {
      const connectedMs = transport.activeSinceMs(peer);
      return peer === id || (connectedMs !== null && connectedMs < sinceMs);
    };
    if (raft.lead === NONE) return etcdErrors.timeout;
    if (raft.lead !== id) return isConnected(raft.lead) ? etcdErrors.timeout : etcdErrors.timeoutDueToConnectionLost;
    const members = this.parts.cluster.members();
    const connected = members.filter((member) => isConnected(member.id)).length;
    return 2 * connected > members.length ? etcdErrors.timeout : etcdErrors.timeoutDueToConnectionLost;
  }

  // --- Giving it to another ---

  /** Null when it is on its way: `done` then hears the end. */
  move(to: NodeId, timeoutMs: number, done: (error: EtcdError | null) => void): EtcdError | null {
    const { cluster, raft, nowMs, id, logger } = this.parts;
    if (!raft.isLeader) return etcdErrors.notLeader;
    const member = cluster.member(to);
    if (member === undefined || member.isLearner) return etcdErrors.badLeaderTransferee;
    const sinceMs = nowMs();
    const fields = { 'current-leader-member-id': hexId(raft.lead), 'transferee-member-id': hexId(to) };
    logger.info(CALLER, 'leadership transfer starting', { 'local-member-id': hexId(id), ...fields });
    this.transfers.push({ to, from: raft.lead, sinceMs, untilMs: sinceMs + timeoutMs, done });
    if (to === raft.lead) this.watchTransfers(sinceMs);
    else raft.transferLeader(to);
    this.wake();
    return null;
  }

  /** The leader is another one now, or none. */
  changed(): void {
    const nowMs = this.parts.nowMs();
    if (this.parts.raft.isLeader) this.electedMs = nowMs;
    this.watchTransfers(nowMs);
  }

  private watchTransfers(nowMs: number): void {
    if (this.transfers.length === 0) return;
    const { raft } = this.parts;
    const ended = this.transfers.filter(({ to, untilMs }) => raft.lead === to || untilMs < nowMs);
    if (ended.length === 0) return;
    this.transfers = this.transfers.filter((transfer) => !ended.includes(transfer));
    for (const { to, from, sinceMs, done } of ended) {
      const hasMoved = raft.lead === to;
      if (hasMoved) this.log.transferred(from, to, nowMs - sinceMs);
      // Not now: whoever is told may end this member, and its loop still has to pass on what it holds for the new leader.
      this.parts.schedule(() => done(hasMoved ? null : TRANSFER_TIMEOUT));
    }
  }

  /** At the end of the process: whoever has been connected longest goes on. `done` at once when there is nobody to give it to. */
  handOver(timeoutMs: number, done: (error: EtcdError | null) => void): void {
    const { raft, id, logger } = this.parts;
    const fields = { 'local-member-id': hexId(id), 'current-leader-member-id': hexId(raft.lead) };
    if (!raft.isLeader) {
      logger.info(CALLER, 'skipped leadership transfer; local server is not leader', fields);
      done(null);
    } else if (this.votersBesideMe() === 0) {
      logger.info(CALLER, 'skipped leadership transfer for single voting member cluster', fields);
      done(null);
    } else {
      const to = this.longestConnected();
      const error = to === null ? etcdErrors.unhealthy : this.move(to, timeoutMs, done);
      if (error !== null) done(error);
    }
  }

  /** This member's own removal is in its log. In any case nothing is proposed here until raft gives the transfer up. */
  giveAway(): void {
    const { raft, id, logger } = this.parts;
    if (!raft.isLeader || raft.leadTransferee !== NONE) return;
    const to = this.longestConnected() ?? raft.status().confState.voters.find((voter) => voter !== id);
    if (to === undefined) return;
    const fields = { 'local-member-id': hexId(id), 'transferee-member-id': hexId(to) };
    logger.info(CALLER, 'this leader is being removed; handing leadership over', fields);
    raft.transferLeader(to);
    this.wake();
  }

  /** The removal is committed: whoever has all of the log, as one of a quorum does, may lead in a round trip. */
  giveToCaughtUp(): void {
    const { raft, id } = this.parts;
    const { progress, lastIndex, leadTransferee } = raft.status();
    const those = progress.filter((one) => one.id !== id && !one.isLearner && one.match === lastIndex);
    // That one has been told already.
    if (those.length > 0 && those.every((one) => one.id !== leadTransferee)) raft.transferLeader(those[0]!.id);
  }

  private longestConnected(): NodeId | null {
    const { raft, id, transport } = this.parts;
    let longest: NodeId | null = null;
    let oldestMs = Infinity;
    for (const voter of raft.status().confState.voters) {
      const sinceMs = voter === id ? null : transport.activeSinceMs(voter);
      if (sinceMs === null || sinceMs >= oldestMs) continue;
      longest = voter;
      oldestMs = sinceMs;
    }
    return longest;
  }
}
