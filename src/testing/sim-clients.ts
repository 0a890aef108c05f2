// The clients of a simulated cluster: each makes one call after the other to a member of its choice, gives up after a while, goes to
// another, and keeps a history for the checkers. What it writes is written once in the whole run, so that every value tells whose
// it is.

import type { Random } from '../io/random.ts';
import { etcdErrors } from '../proto/rpctypes.ts';
import type { KvCall, KvOperation } from './kv-model.ts';
import { type CallEnd, callCompact, callKv } from './sim-calls.ts';
import type { SimMember } from './sim-member.ts';
import { type Oracle, Violation } from './sim-oracle.ts';

export interface ClientOptions {
  readonly keyCount: number;
  /** Mean time between two calls of a client. */
  readonly thinkMs: number;
  /** Shares of the kinds of calls; the rest are reads. */
  readonly puts: number;
  readonly deletes: number;
  readonly swaps: number;
  readonly serializable: number;
  readonly compactions: number;
  readonly valueBytes: number;
}

/** Where clients live: the members that may be called, time and chance. */
export interface ClientWorld {
  readonly random: Random;
  readonly oracle: Oracle;
  readonly members: readonly SimMember[];
  after(delayMs: number, run: () => void): void;
  nowMs(): number;
  note(line: string): void;
}

export interface CallCounts {
  answered: number;
  refused: number;
  unknown: number;
}

export class SimClient {
  readonly id: number;
  readonly history: KvOperation[] = [];
  readonly counts: CallCounts = { answered: 0, refused: 0, unknown: 0 };
  isStopped = false;
  private readonly world: ClientWorld;
  private readonly options: ClientOptions;
  private member: SimMember | null = null;
  private sequence = 0;
  /** The value that it last saw of a key, for its compare-and-swaps. */
  private readonly seen = new Map<string, string | null>();
  private highestRevision = 0;

  constructor(id: number, world: ClientWorld, options: ClientOptions) {
    this.id = id;
    this.world = world;
    this.options = options;
  }

  start(): void {
    const meanMs = this.options.thinkMs;
    const delayMs = -meanMs * Math.log(1 - this.world.random.float());
    this.world.after(delayMs, () => {
      if (this.isStopped) return;
      const sim = this.choose();
      if (sim === null) this.start();
      else this.call(sim);
    });
  }

  private choose(): SimMember | null {
    const { random, members } = this.world;
    // Mostly the same one, as a client with a connection.
    if (this.member?.isServing !== true || random.below(10) === 0) {
      const serving = members.filter((sim) => sim.isServing);
      this.member = serving.length === 0 ? null : serving[random.below(serving.length)]!;
    }
    return this.member;
  }

  private call(sim: SimMember): void {
    const { random } = this.world;
    const draw = random.float();
    if (draw < this.options.compactions) {
      this.compact(sim);
      return;
    }
    const call = this.draw(draw - this.options.compactions);
    const serializable = call.kind === 'range' && random.float() < this.options.serializable;
    const startedAt = this.world.nowMs();
    const timeoutMs = 1000 + random.below(8000);
    callKv(sim, call, serializable, timeoutMs, (end) => {
      this.ended(sim, call, serializable, startedAt, end);
      this.start();
    });
  }

  private draw(draw: number): KvCall {
    const { random } = this.world;
    const { keyCount, puts, deletes, swaps, valueBytes } = this.options;
    const key = `k${random.below(keyCount)}`;
    const value = `${this.id}.${this.sequence++}`.padEnd(random.below(valueBytes) + 1, '_');
    if (draw < puts) return { kind: 'put', key, value };
    if (draw < puts + deletes)
      return random.below(4) === 0 ? { kind: 'delete', key, end: `${key}~` } : { kind: 'delete', key };
    if (draw < puts + deletes + swaps) return { kind: 'cas', key, expected: this.seen.get(key) ?? null, value };
    return random.below(4) === 0 ? { kind: 'range', key: 'k', end: 'l' } : { kind: 'range', key };
  }

  private ended(sim: SimMember, call: KvCall, serializable: boolean, startedAt: number, end: CallEnd): void {
    this.counts[end.kind]++;
    if (end.kind === 'refused') {
      // A read of what is compacted, or a member that takes no more: without an effect.
      if (end.error === etcdErrors.stopped) this.member = null;
      return;
    }
    if (end.kind === 'unknown') {
      this.member = null;
      if (call.kind === 'range') return;
      this.history.push({ client: this.id, call, answer: null, startedAt, endedAt: Infinity });
      return;
    }
    const { answer } = end;
    for (const { key, value } of answer.kvs ?? []) this.seen.set(key, value);
    if (call.kind === 'range' && call.end === undefined && answer.kvs?.length === 0) this.seen.set(call.key, null);
    if (call.kind === 'put' || (call.kind === 'cas' && answer.succeeded)) this.seen.set(call.key, call.value);
    if (serializable) {
      this.checkSerializable(sim, call as KvCall & { kind: 'range' }, end);
      return;
    }
    if (answer.revision! < this.highestRevision) {
      throw new Violation(`client ${this.id} is answered revision ${answer.revision} after ${this.highestRevision}`);
    }
    this.highestRevision = answer.revision!;
    this.history.push({ client: this.id, call, answer, startedAt, endedAt: this.world.nowMs() });
  }

  /** A read of the past, but of a past that was. */
  private checkSerializable(
    sim: SimMember,
    call: KvCall & { kind: 'range' },
    end: CallEnd & { kind: 'answered' },
  ): void {
    const { oracle } = this.world;
    const { revision = 0, kvs = [] } = end.answer;
    const keys =
      call.end === undefined ? [call.key] : oracle.keys().filter((key) => key >= call.key && key < call.end!);
    const expected = keys.flatMap((key) => {
      const at = oracle.valueAt(key, revision);
      return at === undefined ? [] : [`${key}=${at.value}@${at.mod}`];
    });
    const found = kvs.map(({ key, value, mod }) => `${key}=${value}@${mod}`);
    if (found.join() === expected.join()) return;
    throw new Violation(
      `a serializable read of ${sim.name} at revision ${revision} gave ${found.join(' ')} instead of ${expected.join(' ')}`,
    );
  }

  private compact(sim: SimMember): void {
    const { oracle, random } = this.world;
    const revision = oracle.history.revision - random.below(20);
    if (revision < 2) {
      this.start();
      return;
    }
    callCompact(sim, revision, 8000, () => this.start());
  }
}

/**
 * What became of calls without an answer, as the replicated log has it: found by the value, which is unique. A delete is left open.
 * What never had an effect is left out.
 */
export function resolveUnknown(history: readonly KvOperation[], oracle: Oracle): KvOperation[] {
  return history.flatMap((operation) => {
    const { call, answer } = operation;
    if (answer !== null) return [operation];
    if (call.kind === 'delete' || call.kind === 'revoke') return [operation];
    if (call.kind === 'range') return [];
    const revision = oracle.revisionOfValue(call.key, call.value);
    if (revision === undefined) return [];
    const found = { revision, ...(call.kind === 'cas' ? { succeeded: true } : {}) };
    // When, nobody was told.
    return [{ ...operation, answer: found, endedAt: Infinity }];
  });
}
