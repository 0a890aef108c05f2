// Whether a leader's heartbeats go out in time: a late one means that its loop was held up, by the disk or for want of a processor, and
// that its followers may soon elect another. Told as etcd tells it (pkg/contention), once a late heartbeat.

import { hexId } from '../membership/cluster.ts';
import type { NodeId } from '../raft/types.ts';
import { durationText } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';

export class HeartbeatWatch {
  private readonly parts: MemberParts;
  private readonly expectedMs: number;
  private readonly lastMs = new Map<NodeId, number>();

  constructor(parts: MemberParts) {
    this.parts = parts;
    // Every tick sends one, and a tick may come late by one.
    this.expectedMs = (2 * parts.electionMs) / parts.electionTicks;
  }

  /** Another leads, or this member begins to: nothing was due. */
  reset(): void {
    this.lastMs.clear();
  }

  sent(to: NodeId): void {
    const nowMs = this.parts.nowMs();
    const lastMs = this.lastMs.get(to);
    this.lastMs.set(to, nowMs);
    if (lastMs === undefined || nowMs - lastMs <= this.expectedMs) return;
    const { counters, logger } = this.parts;
    counters.lateHeartbeats++;
    const message =
      'leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk';
    logger.warn('server/heartbeat-watch.ts', message, {
      to: hexId(to),
      'heartbeat-interval': durationText(this.expectedMs / 2),
      'expected-duration': durationText(this.expectedMs),
      'exceeded-duration': durationText(nowMs - lastMs - this.expectedMs),
    });
  }
}
