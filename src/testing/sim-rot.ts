// Rot that no start can tell: a bit of a row's value in the database, for which neither LMDB nor bbolt keeps a checksum. The corruption
// checks (src/server/corruption.ts) have to find it by comparing members, and raise the CORRUPT alarm or keep one from serving; then the operator, who knows
// from the run which member it is, takes it away and the alarm down. Without rot there must never be such an alarm.
//
// Only rows of keys of the run's own rot, outside of what clients read and watch: until the alarm a member answers with what it has, in
// etcd too, and the checkers of the clients would find that instead.

import type { Random } from '../io/random.ts';
import { AlarmAction, AlarmRequest, AlarmType } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import type { KvOperation } from './kv-model.ts';
import { callKv } from './sim-calls.ts';
import type { SimMember } from './sim-member.ts';

/** Keys whose rows may rot begin with it; clients' begin with k. */
const rotPrefix = 'a';
const rotKeys: readonly string[] = ['a0', 'a1', 'a2', 'a3'];
const lookMs = 250;

export function mayRot(key: string): boolean {
  return key.startsWith(rotPrefix);
}

/** A row as it is now. */
export interface Rot {
  readonly rowKey: Buffer;
  readonly row: Buffer;
}

/** Flips a bit of a value in the database of a member that is down; null: there is none yet. */
export function rotRow({ tables }: SimMember, random: Random): Rot | null {
  const found: Rot[] = [];
  const places: (readonly [start: number, end: number])[] = [];
  const view = new KeyValueView();
  const reader = tables.openReader();
  reader.table('key').scan(undefined, undefined, (rowKey, row) => {
    if (!view.parse(row, 0, row.length)) return true;
    if (!mayRot(row.toString('latin1', view.keyStart, view.keyEnd)) || view.valueEnd === view.valueStart) return true;
    found.push({ rowKey: Buffer.from(rowKey), row: Buffer.from(row) });
    places.push([view.valueStart, view.valueEnd]);
    return true;
  });
  reader.close();
  if (found.length === 0) return null;
  const which = random.below(found.length);
  const rot = found[which]!;
  const [start, end] = places[which]!;
  rot.row[start + random.below(end - start)]! ^= 1 << random.below(8);
  const writer = tables.openWriter();
  writer.transaction(() => writer.table('key').put(rot.rowKey, rot.row));
  writer.close();
  return rot;
}

/** Not any more when a leader's database has taken the place of the member's. */
function isStill({ tables }: SimMember, { rowKey, row }: Rot): boolean {
  const reader = tables.openReader();
  const now = reader.table('key').get(rowKey);
  const isSame = now?.equals(row) === true;
  reader.close();
  return isSame;
}

export interface RotWorld {
  readonly members: readonly SimMember[];
  after(delayMs: number, run: () => void): void;
  note(line: string): void;
  violated(what: string): void;
}

export class RotWatch {
  /** Rows that rotted, and for how many of them an alarm came or somebody did not start. */
  readonly counts: { rotted: number; alarmed: number; kept: number } = { rotted: 0, alarmed: 0, kept: 0 };
  /** What was written for it. */
  readonly history: KvOperation[] = [];
  private readonly world: RotWorld;
  private readonly nowMs: () => number;

  constructor(world: RotWorld, nowMs: () => number) {
    this.world = world;
    this.nowMs = nowMs;
  }

  start(): void {
    for (const key of rotKeys) this.write(key);
    this.lookOn();
  }

  private write(key: string): void {
    const sim = this.world.members.find(({ isServing, isPaused }) => isServing && !isPaused);
    const again = (): void => this.world.after(300, () => this.write(key));
    if (sim === undefined) {
      again();
      return;
    }
    const startedAt = this.nowMs();
    const call = { kind: 'put', key, value: `${key} of ${startedAt}` } as const;
    callKv(sim, call, false, 5000, (end) => {
      if (end.kind === 'refused') again();
      else {
        const answer = end.kind === 'answered' ? end.answer : null;
        this.history.push({ client: -2, call, answer, startedAt, endedAt: answer === null ? Infinity : this.nowMs() });
        if (answer === null) again();
      }
    });
  }

  /** Neither is there rot that nobody has found, nor an alarm. */
  get isOver(): boolean {
    return this.rotten().length === 0 && this.alarmed() === null;
  }

  stateText(): string {
    const names = this.rotten().map(({ name }) => name);
    return names.length > 0 ? `rot of ${names.join(', ')} is not found` : 'the CORRUPT alarm stands';
  }

  private rotten(): SimMember[] {
    for (const sim of this.world.members) if (sim.rot !== null && !isStill(sim, sim.rot)) sim.rot = null;
    return this.world.members.filter(({ rot }) => rot !== null);
  }

  /** Who serves and knows of an alarm. */
  private alarmed(): SimMember | null {
    const knows = ({ member, isServing }: SimMember): boolean =>
      isServing && member?.parts.alarms.has(AlarmType.corrupt) === true;
    return this.world.members.find(knows) ?? null;
  }

  private lookOn(): void {
    this.look();
    this.world.after(lookMs, () => this.lookOn());
  }

  private look(): void {
    const { world, counts } = this;
    const by = this.alarmed();
    const refusing = world.members.find(({ refusesToServe }) => refusesToServe);
    if (by === null && refusing === undefined) return;
    if (counts.rotted === 0) {
      const what = by === null ? `${refusing!.name} refuses to serve` : `${by.name} has a CORRUPT alarm`;
      world.violated(`${what}, and nothing has rotted`);
      return;
    }
    // The one with rot or one without: it may be the other's data that differs.
    if (refusing !== undefined) refusing.refusesToServe = false;
    for (const sim of this.rotten()) {
      if (by === null) counts.kept++;
      else counts.alarmed++;
      world.note(`the operator stops ${sim.name}, whose database has rotted`);
      sim.rot = null;
      sim.isLost = true;
      if (sim.isUp) sim.die('kill', 'the operator');
    }
    if (by === null || by.isPaused || world.members.some(({ isLost, isUnplaced }) => isLost || isUnplaced)) return;
    for (const { memberId, alarm } of by.member!.parts.alarms.get(AlarmType.corrupt)) {
      const bytes = encode(AlarmRequest, { action: AlarmAction.deactivate, memberId, alarm });
      const waiter = { applied: (): void => {}, failed: (): void => {} };
      by.enter(() => void by.member?.propose(RequestField.alarm, bytes, 0, bytes.length, waiter));
    }
  }
}
