// What must hold in a cluster whatever happens to it, looked at after everything that a member does:
//   - one leader a term (election safety);
//   - what was committed at an index stays what it is, on every member (log matching, state machine safety), also over restarts;
//   - who is elected has everything that was committed (leader completeness);
//   - after the same entry every store holds the same revisions with the same rows, whichever member applied it first;
//   - a member's applied index, and its revision, do not fall while it lives.
// The first to commit or to apply says what is true; everybody else is held against that. Throws Violation.

import { crc32c } from '../base/crc32c.ts';
import { KeyValueView } from '../proto/mvccpb.ts';
import type { Entry } from '../raft/types.ts';
import type { Member } from '../server/member.ts';
import type { SimMember } from './sim-member.ts';
import { mayRot } from './sim-rot.ts';
import { type TrueEvent, TrueHistory } from './watch-checker.ts';

export class Violation extends Error {
  override readonly name: string = 'Violation';
}

interface Committed {
  readonly term: number;
  /** Of who was seen first to have it committed: whoever leads a later term must have it. */
  readonly inTerm: number;
  readonly type: number;
  readonly crc: number;
}

/** What one life of a member was seen to have. */
interface Seen {
  readonly generation: number;
  term: number;
  committed: number;
  applied: number;
  revision: number;
  isLeader: boolean;
}

interface Change {
  readonly revision: number;
  readonly value: string | null;
  readonly lease: bigint;
}

export class Oracle {
  readonly history: TrueHistory = new TrueHistory();
  /** By index; holes where everybody got a snapshot. */
  private readonly committed: Committed[] = [];
  private readonly leaders = new Map<number, bigint>();
  /** The store's revision after an index. */
  private readonly revisionAt = new Map<number, number>();
  private readonly seen = new Map<SimMember, Seen>();
  private readonly changes = new Map<string, Change[]>();
  private readonly revisionOf = new Map<string, number>();
  private readonly view = new KeyValueView();
  /** Told of each revision, when it is applied for the first time. */
  onRevision: (revision: number, events: readonly TrueEvent[]) => void = () => {};
  committedMax = 0;
  leaderChanges = 0;
  turns = 0;

  afterTurn(sim: SimMember): void {
    const { member } = sim;
    if (member === null) return;
    this.turns++;
    let seen = this.seen.get(sim);
    if (seen === undefined || seen.generation !== sim.generation) {
      seen = { generation: sim.generation, term: 0, committed: 0, applied: 0, revision: 1, isLeader: false };
      this.seen.set(sim, seen);
    }
    this.lookAtTerm(sim, member, seen);
    this.lookAtCommits(sim, member, seen);
    this.lookAtLeader(sim, member, seen);
    this.lookAtStore(sim, member, seen);
    if (this.turns % 64 === 0) {
      member.parts.raft.checkInvariants();
      member.parts.backend.checkInvariants();
      member.parts.hub.checkInvariants();
    }
  }

  private lookAtTerm(sim: SimMember, { term }: Member, seen: Seen): void {
    if (term < seen.term) fail(`${sim.name} goes back from term ${seen.term} to ${term}`);
    seen.term = term;
  }

  private lookAtLeader(sim: SimMember, member: Member, seen: Seen): void {
    const { raft, id } = member.parts;
    const wasLeader = seen.isLeader;
    seen.isLeader = raft.isLeader;
    if (!raft.isLeader) return;
    const known = this.leaders.get(raft.term);
    if (known !== undefined && known !== id) fail(`two leaders in term ${raft.term}: ${sim.name} is the second`);
    if (known === id && wasLeader) return;
    this.leaders.set(raft.term, id);
    this.leaderChanges++;
    const from = Math.max(1, this.committedMax - 200);
    for (let index = from; index <= this.committedMax; index++) {
      const expected = this.committed[index];
      if (expected === undefined || expected.inTerm >= raft.term || index < member.parts.storage.firstIndex()) continue;
      if (raft.lastIndex < index || raft.termAt(index) !== expected.term) {
        fail(`${sim.name} leads term ${raft.term} without the committed entry ${index} of term ${expected.term}`);
      }
    }
  }

  private lookAtCommits(sim: SimMember, member: Member, seen: Seen): void {
    const { raft, storage } = member.parts;
    const { committedIndex } = raft;
    if (committedIndex < seen.committed) fail(`${sim.name} takes back its commit of ${seen.committed}`);
    if (committedIndex === seen.committed) return;
    const from = Math.max(seen.committed + 1, storage.firstIndex());
    let to = Math.min(committedIndex, storage.lastIndex());
    // What raft has not handed out to be written yet is not in the storage, or in the place of it what it replaces: the next time.
    while (to >= from && storage.term(to) !== raft.termAt(to)) to--;
    if (from <= to)
      for (const entry of storage.entries(from, to + 1, Infinity) ?? []) this.noteCommitted(sim, entry, raft.term);
    seen.committed = Math.max(seen.committed, to);
  }

  private noteCommitted(sim: SimMember, { index, term, type, data }: Entry, inTerm: number): void {
    const known = this.committed[index];
    const crc = crc32c(0, data);
    if (known === undefined) {
      this.committed[index] = { term, inTerm, type, crc };
      this.committedMax = Math.max(this.committedMax, index);
    } else if (known.term !== term || known.crc !== crc || known.type !== type) {
      fail(`entry ${index} is committed twice: of term ${known.term}, and by ${sim.name} of term ${term}`);
    }
  }

  private lookAtStore(sim: SimMember, member: Member, seen: Seen): void {
    const { store, raft, backend } = member.parts;
    const revision = store.currentRevision;
    const applied = backend.consistentIndex;
    if (applied < seen.applied) fail(`${sim.name} has applied ${seen.applied} and now ${applied}`);
    if (applied > raft.committedIndex) fail(`${sim.name} applies ${applied}, committed is ${raft.committedIndex}`);
    if (revision < seen.revision) fail(`${sim.name}'s revision falls from ${seen.revision} to ${revision}`);
    if (applied === seen.applied && revision === seen.revision) return;
    const known = this.revisionAt.get(applied);
    if (known === undefined) this.revisionAt.set(applied, revision);
    else if (known !== revision)
      fail(`after entry ${applied} ${sim.name} is at revision ${revision}, others at ${known}`);
    this.compareRows(sim, member, seen.revision + 1, revision);
    seen.applied = applied;
    seen.revision = revision;
  }

  private compareRows(sim: SimMember, member: Member, from: number, to: number): void {
    if (from > to) return;
    const { backend, store } = member.parts;
    let revision = 0;
    let events: TrueEvent[] = [];
    const leases: bigint[] = [];
    const end = (): void => {
      if (events.length > 0) this.noteRevision(sim, revision, events, leases, store.compactRevision);
      events = [];
      leases.length = 0;
    };
    backend.scanRows(from, to, (main, _sub, tombstone, buffer, start, stop) => {
      if (main !== revision) end();
      revision = main;
      const { view } = this;
      if (!view.parse(buffer, start, stop)) fail(`${sim.name}: a row of revision ${main} does not parse`);
      events.push({
        isDelete: tombstone,
        key: buffer.toString('latin1', view.keyStart, view.keyEnd),
        value: tombstone ? '' : buffer.toString('latin1', view.valueStart, view.valueEnd),
        createRevision: view.createRevision,
        version: view.version,
      });
      leases.push((BigInt(view.leaseHigh >>> 0) << 32n) | BigInt(view.leaseLow >>> 0));
      return true;
    });
    end();
    if (this.history.revision < to)
      fail(`${sim.name} has revision ${to} without the rows of ${this.history.revision + 1}`);
  }

  private noteRevision(
    sim: SimMember,
    revision: number,
    events: readonly TrueEvent[],
    leases: readonly bigint[],
    compactRevision: number,
  ): void {
    if (revision <= this.history.revision) {
      const known = this.history.at(revision);
      // Compaction may have taken some of the rows.
      const isWhole = revision > compactRevision;
      const same = isWhole
        ? known.length === events.length && known.every((one, i) => isSame(one, events[i]!))
        : events.every((event) => known.some((one) => isSame(one, event)));
      if (!same) fail(`revision ${revision} of ${sim.name} is ${text(events)}, of others ${text(known)}`);
      return;
    }
    if (revision !== this.history.revision + 1) {
      fail(`${sim.name} makes revision ${revision}, the newest is ${this.history.revision}`);
    }
    this.history.add(revision, events);
    for (const [i, { key, isDelete, value }] of events.entries()) {
      let changes = this.changes.get(key);
      if (changes === undefined) {
        changes = [];
        this.changes.set(key, changes);
      }
      changes.push({ revision, value: isDelete ? null : value, lease: leases[i]! });
      if (!isDelete) this.revisionOf.set(`${key}=${value}`, revision);
    }
    this.onRevision(revision, events);
  }

  /** When a value (which is written once) was written; undefined: never. */
  revisionOfValue(key: string, value: string): number | undefined {
    return this.revisionOf.get(`${key}=${value}`);
  }

  /** What a key was at a revision; undefined: it was not there. */
  valueAt(key: string, revision: number): { readonly value: string; readonly mod: number } | undefined {
    const changes = this.changes.get(key);
    if (changes === undefined) return undefined;
    for (let i = changes.length - 1; i >= 0; i--) {
      const change = changes[i]!;
      if (change.revision > revision) continue;
      return change.value === null ? undefined : { value: change.value, mod: change.revision };
    }
    return undefined;
  }

  /** The keys that ever were, in order. */
  keys(): string[] {
    return [...this.changes.keys()].sort();
  }

  /** All live keys of a member against the truth: after a snapshot, and at the end. */
  checkState(sim: SimMember): void {
    const { member } = sim;
    if (member === null) return;
    const { backend, store } = member.parts;
    const revision = store.currentRevision;
    const found: string[] = [];
    backend.index.scan(Buffer.alloc(0), null, Infinity, (key, start, end, state) => {
      found.push(`${key.toString('latin1', start, end)}@${state.main}`);
      return true;
    });
    const expected = this.keys().flatMap((key) => {
      const at = this.valueAt(key, revision);
      return at === undefined ? [] : [`${key}@${at.mod}`];
    });
    if (found.join() !== expected.join()) {
      fail(`${sim.name} holds ${found.join(' ')} at revision ${revision} instead of ${expected.join(' ')}`);
    }
  }
}

function isSame(a: TrueEvent, b: TrueEvent): boolean {
  if (a.isDelete !== b.isDelete || a.key !== b.key) return false;
  const isSameValue = a.value === b.value || mayRot(a.key);
  return a.isDelete || (isSameValue && a.createRevision === b.createRevision && a.version === b.version);
}

function text(events: readonly TrueEvent[]): string {
  return events.map(({ isDelete, key, value }) => (isDelete ? `delete ${key}` : `${key}=${value}`)).join(' ');
}

function fail(what: string): never {
  throw new Violation(what);
}
