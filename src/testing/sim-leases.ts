// Holders of leases in a simulated cluster: each takes a lease, attaches a key to it, renews it for a while by whatever member it finds,
// then gives it back or is gone without a word, and begins anew. The rules that are checked:
//   - a lease that was renewed does not end before its TTL has passed since that renewal began (less the clocks' difference);
//   - once its end is applied anywhere, no renewal that begins later succeeds;
//   - a lease that nobody renews ends, at the latest some time after the last fault;
//   - its key goes with it.

import type { Random } from '../io/random.ts';
import type { KvOperation } from './kv-model.ts';
import { callGrant, callKv, callRenew } from './sim-calls.ts';
import type { ClientWorld } from './sim-clients.ts';
import type { SimMember } from './sim-member.ts';
import type { SimOptions } from './sim-options.ts';
import { Violation } from './sim-oracle.ts';
import type { TrueEvent } from './watch-checker.ts';

interface Held {
  readonly id: bigint;
  readonly key: string;
  readonly value: string;
  readonly grantedAt: number;
  ttlMs: number;
  /** When the newest renewal began that is known to have succeeded. */
  renewedAt: number;
  /** When its end was applied first, and at which revision. */
  endedAt: number | null;
  endRevision: number;
  isAttached: boolean;
  /** Nobody renews it any more. */
  isLeft: boolean;
  /** Its holder has asked for its end. */
  isRevoked: boolean;
}

export class SimLeaseHolder {
  readonly history: KvOperation[] = [];
  /** Every one that it has had. */
  readonly leases: Held[] = [];
  isStopped = false;
  renewals = 0;
  expired = 0;
  private readonly world: ClientWorld;
  private readonly random: Random;
  private readonly number: number;
  /** How far the clocks of two members may be apart in speed, both ways. */
  private readonly skew: number;
  /** After which share of its TTL it renews a lease. */
  private readonly renewal: number;
  private current: Held | null = null;

  constructor(number: number, world: ClientWorld, options: Pick<SimOptions, 'clockSkew' | 'leaseRenewal'>) {
    this.number = number;
    this.world = world;
    this.random = world.random;
    this.skew = options.clockSkew;
    this.renewal = options.leaseRenewal;
  }

  start(): void {
    this.world.after(this.random.below(1000), () => this.grant());
  }

  /** A change of the store, when it is applied for the first time. */
  noteChange(revision: number, events: readonly TrueEvent[]): void {
    for (const { isDelete, key } of events) {
      if (!isDelete) continue;
      const held = this.leases.find((one) => one.key === key);
      if (held !== undefined) this.noteEnd(held, revision);
    }
  }

  private noteEnd(held: Held, revision: number): void {
    const now = this.world.nowMs();
    held.endedAt = now;
    held.endRevision = revision;
    if (held.isRevoked) return;
    this.expired++;
    const earliest = held.renewedAt + held.ttlMs * (1 - 2 * this.skew);
    if (now >= earliest) return;
    throw new Violation(
      `lease ${held.id} ends ${Math.round(now - held.renewedAt)} ms after its last renewal, its TTL is ${held.ttlMs} ms`,
    );
  }

  private member(): SimMember | null {
    const serving = this.world.members.filter((sim) => sim.isServing);
    return serving.length === 0 ? null : serving[this.random.below(serving.length)]!;
  }

  private grant(): void {
    if (this.isStopped) return;
    const sim = this.member();
    if (sim === null) {
      this.start();
      return;
    }
    const grantedAt = this.world.nowMs();
    const place = this.leases.length + 1;
    const id = BigInt(this.number * 1000 + place + 1000);
    const held: Held = {
      id,
      key: `lease-${id}`,
      value: `of ${id}`,
      grantedAt,
      ttlMs: (2 + this.random.below(4)) * 1000,
      renewedAt: grantedAt,
      endedAt: null,
      endRevision: 0,
      isAttached: false,
      isLeft: false,
      isRevoked: false,
    };
    this.leases.push(held);
    this.current = held;
    callGrant(sim, id, held.ttlMs / 1000, 8000, (end) => {
      if (end.kind === 'answered') this.attach(held);
      else this.leave(held);
    });
  }

  private attach(held: Held): void {
    const sim = this.member();
    if (sim === null) {
      this.leave(held);
      return;
    }
    const call = { kind: 'put', key: held.key, value: held.value, lease: held.id } as const;
    const startedAt = this.world.nowMs();
    callKv(sim, call, false, 8000, (end) => {
      if (end.kind !== 'refused') {
        const answer = end.kind === 'answered' ? end.answer : null;
        this.history.push({ client: 100 + this.number, call, answer, startedAt, endedAt: this.world.nowMs() });
        held.isAttached = true;
      }
      if (end.kind === 'answered') this.keepAlive(held, 2 + this.random.below(12));
      else this.leave(held);
    });
  }

  private keepAlive(held: Held, times: number): void {
    this.world.after(held.ttlMs * this.renewal, () => {
      if (times > 0 && !this.isStopped) this.renew(held, times);
      else if (this.random.below(2) === 0) this.leave(held);
      else this.giveBack(held);
    });
  }

  private renew(held: Held, times: number): void {
    const sim = this.member();
    if (sim === null) {
      this.keepAlive(held, times - 1);
      return;
    }
    const startedAt = this.world.nowMs();
    callRenew(sim, held.id, 4000, (ttlSeconds) => {
      if (ttlSeconds === null) {
        this.keepAlive(held, times - 1);
        return;
      }
      if (ttlSeconds === 0) {
        this.leave(held);
        return;
      }
      if (held.endedAt !== null && held.endedAt < startedAt) {
        throw new Violation(`lease ${held.id} is renewed ${Math.round(startedAt - held.endedAt)} ms after its end`);
      }
      this.renewals++;
      // What has ended meanwhile had this renewal not yet acknowledged.
      if (held.endedAt === null) held.renewedAt = Math.max(held.renewedAt, startedAt);
      this.keepAlive(held, times - 1);
    });
  }

  private giveBack(held: Held): void {
    const sim = this.member();
    held.isRevoked = true;
    if (sim !== null) callKv(sim, { kind: 'revoke', lease: held.id }, false, 8000, () => {});
    this.leave(held);
  }

  private leave(held: Held): void {
    held.isLeft = true;
    if (this.current === held) this.start();
  }

  /** Ends of leases, for the history: what nobody called, but a lease's time being over. */
  ends(): KvOperation[] {
    return this.leases.flatMap(({ id, grantedAt, endedAt, endRevision }) => {
      if (endedAt === null) return [];
      const call = { kind: 'revoke', lease: id } as const;
      return [{ client: -2, call, answer: { revision: endRevision }, startedAt: grantedAt, endedAt: Infinity }];
    });
  }

  /** Of those left before `beforeMs` none may be there any more. */
  checkEnded(beforeMs: number): void {
    for (const held of this.leases) {
      if (!held.isLeft || held.endedAt !== null || held.grantedAt > beforeMs) continue;
      if (this.world.oracle.revisionOfValue(held.key, held.value) === undefined) continue;
      throw new Violation(`lease ${held.id} was left and its key is still there`);
    }
  }
}
