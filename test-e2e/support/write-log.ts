// Everything that clients asked and heard between two starts of a server, and the judgement on it: given what the server holds
// after the restart, each acknowledged write must be at its revision with exactly its changes, each revision that nobody
// acknowledged must be one of the requests whose outcome was unknown (each used once), and each read must have seen the state at
// its header's revision.

import {
  type Action,
  type Change,
  describeChanges,
  describeState,
  type KeyState,
  type KeyspaceModel,
  sameChanges,
  sameState,
} from './keyspace-model.ts';

export const Outcome = { pending: 0, acknowledged: 1, refused: 2, unknown: 3 } as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

export interface LoggedWrite {
  readonly id: number;
  readonly action: Action;
  outcome: Outcome;
  /** Of the answer's header. */
  revision: number;
  /** True when the answer says that something changed; a revoke's answer doesn't say. */
  changed: boolean;
  /** What a txn answered. */
  succeeded: boolean | null;
}

export interface LoggedRead {
  readonly key: string;
  readonly revision: number;
  readonly state: KeyState | null;
}

export interface LoggedHash {
  readonly revision: number;
  readonly compactRevision: number;
  readonly hash: number;
}

/** Two maps of one bipartite matching: a revision nobody acknowledged, and the writes that could have made it. */
interface Unclaimed {
  readonly revision: number;
  readonly changes: readonly Change[];
  readonly candidates: readonly LoggedWrite[];
}

export class WriteLog {
  readonly writes: LoggedWrite[] = [];
  readonly reads: LoggedRead[] = [];
  readonly hashes: LoggedHash[] = [];
  /** Leases by what is known of them; 'maybe' is a grant or revoke without an answer. */
  readonly granted: Set<bigint>;
  readonly maybeGranted: Set<bigint> = new Set();
  readonly revoked: Set<bigint> = new Set();
  readonly maybeRevoked: Set<bigint> = new Set();
  /** Compactions: the largest acknowledged, and those without an answer. */
  compactRevision: number;
  readonly maybeCompactRevisions: Set<number> = new Set();
  /** Changes that a watch brought before the kill, by revision. */
  readonly watched: Map<number, Change[]> = new Map();
  /** The largest revision that any answer has shown. */
  seenRevision: number;

  constructor(model: KeyspaceModel, leases: Iterable<bigint>) {
    this.granted = new Set(leases);
    this.compactRevision = model.compactRevision;
    this.seenRevision = model.revision;
  }

  see(revision: number): void {
    this.seenRevision = Math.max(this.seenRevision, revision);
  }

  begin(id: number, action: Action): LoggedWrite {
    const write: LoggedWrite = { id, action, outcome: Outcome.pending, revision: 0, changed: false, succeeded: null };
    this.writes.push(write);
    return write;
  }

  get acknowledged(): LoggedWrite[] {
    return this.writes.filter((write) => write.outcome === Outcome.acknowledged);
  }

  /**
   * Replays what the server holds now, `history` by revision, into `model`, and throws at the first contradiction. `onRevision`
   * sees the model after each revision.
   */
  replay(model: KeyspaceModel, history: ReadonlyMap<number, Change[]>, last: number, onRevision: () => void): void {
    const claims = this.claimsByRevision();
    const unknown = this.writes.filter((write) => write.outcome === Outcome.unknown);
    const revokes = this.writes.filter(
      ({ action, outcome }) => action.kind === 'revoke' && outcome === Outcome.acknowledged,
    );
    const reads = groupByRevision(this.reads);
    const unclaimed: Unclaimed[] = [];
    this.checkReads(model, reads.get(model.revision));
    for (let revision = model.revision + 1; revision <= last; revision++) {
      const changes = history.get(revision);
      if (changes === undefined) throw new Error(`revision ${revision} of ${last} is missing`);
      const claim = claims.get(revision);
      if (claim !== undefined) checkClaim(model, claim, revision, changes);
      else {
        const fits = (write: LoggedWrite): boolean => sameChanges(model.changesOf(write.action, revision), changes);
        const candidates = [
          ...unknown.filter(fits),
          ...revokes.filter((write) => write.revision === revision && fits(write)),
        ];
        unclaimed.push({ revision, changes, candidates });
      }
      model.apply(revision, changes);
      this.checkReads(model, reads.get(revision));
      onRevision();
    }
    matchUnclaimed(unclaimed);
    const lost = this.writes.find((write) => write.outcome === Outcome.acknowledged && write.revision > last);
    if (lost !== undefined) throw new Error(`lost: ${describeWrite(lost)}, but the newest revision is ${last}`);
    this.checkRevokes(model, revokes);
  }

  private claimsByRevision(): Map<number, LoggedWrite> {
    const claims = new Map<number, LoggedWrite>();
    for (const write of this.writes) {
      if (write.outcome !== Outcome.acknowledged || !write.changed) continue;
      const other = claims.get(write.revision);
      if (other !== undefined) {
        throw new Error(
          `two writes were acknowledged at one revision: ${describeWrite(other)} and ${describeWrite(write)}`,
        );
      }
      claims.set(write.revision, write);
    }
    return claims;
  }

  private checkReads(model: KeyspaceModel, reads: readonly LoggedRead[] | undefined): void {
    for (const { key, state, revision } of reads ?? []) {
      const expected = model.keys.get(key) ?? null;
      if (sameState(expected, state)) continue;
      throw new Error(
        `a read at revision ${revision} of ${JSON.stringify(key.slice(0, 24))} saw ${describeState(state)}, ` +
          `the history has ${describeState(expected)}`,
      );
    }
  }

  private checkRevokes(model: KeyspaceModel, revokes: readonly LoggedWrite[]): void {
    const leases = new Set(revokes.map(({ action }) => (action.kind === 'revoke' ? action.lease : 0n)));
    for (const [key, state] of model.keys) {
      if (leases.has(state.lease)) throw new Error(`${JSON.stringify(key)} outlived its revoked lease ${state.lease}`);
    }
  }
}

function checkClaim(model: KeyspaceModel, write: LoggedWrite, revision: number, changes: readonly Change[]): void {
  const { action } = write;
  if (action.kind === 'txn' && write.succeeded !== (model.branchOf(action) === action.success)) {
    throw new Error(`the history does not give the txn's outcome: ${describeWrite(write)}`);
  }
  const expected = model.changesOf(action, revision);
  if (sameChanges(expected, changes)) return;
  throw new Error(
    `revision ${revision} was acknowledged for ${describeWrite(write)}\n  expected ${describeChanges(expected)}\n` +
      `  but it holds ${describeChanges(changes)}`,
  );
}

/** Each unclaimed revision needs a write of its own: augmenting paths, as Kuhn's algorithm has them. */
function matchUnclaimed(unclaimed: readonly Unclaimed[]): void {
  const takenBy = new Map<LoggedWrite, Unclaimed>();
  const place = (item: Unclaimed, visited: Set<LoggedWrite>): boolean => {
    for (const write of item.candidates) {
      if (visited.has(write)) continue;
      visited.add(write);
      const holder = takenBy.get(write);
      if (holder !== undefined && !place(holder, visited)) continue;
      takenBy.set(write, item);
      return true;
    }
    return false;
  };
  for (const item of unclaimed) {
    if (place(item, new Set())) continue;
    throw new Error(`invented: no request explains revision ${item.revision}: ${describeChanges(item.changes)}`);
  }
}

function groupByRevision(reads: readonly LoggedRead[]): Map<number, LoggedRead[]> {
  const groups = new Map<number, LoggedRead[]>();
  for (const read of reads) {
    const group = groups.get(read.revision);
    if (group === undefined) groups.set(read.revision, [read]);
    else group.push(read);
  }
  return groups;
}

function describeWrite(write: LoggedWrite): string {
  const { id, action, revision } = write;
  const detail = action.kind === 'revoke' ? `lease ${action.lease}` : JSON.stringify(action.key.slice(0, 24));
  return `write ${id} (${action.kind} ${detail}, revision ${revision}, succeeded ${write.succeeded})`;
}
