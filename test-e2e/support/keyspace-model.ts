// What the keyspace must hold after a known history, in a Map: the oracle of the crash tests. It turns an action into the changes
// that it would make, takes the changes that a server tells (watch events) into its state, and computes HashKV from its own rows.
// Keys are strings of one character a byte.

import { encode, type Message } from '../../src/proto/message.ts';
import { type Event, EventType, KeyValue } from '../../src/proto/mvccpb.ts';
import { KvHasher } from '../../src/snapshot/hashkv.ts';
import { encodeRevisionKey } from '../../src/snapshot/schema.ts';

export interface KeyState {
  readonly value: Buffer;
  readonly create: number;
  readonly mod: number;
  readonly version: number;
  readonly lease: bigint;
}

export type Step =
  | { readonly kind: 'put'; readonly key: string; readonly value: Buffer; readonly lease: bigint }
  | { readonly kind: 'delete'; readonly key: string; readonly end: string };

/** What changes the keyspace. A txn compares the key's mod revision (0: does not exist). */
export type Action =
  | Step
  | {
      readonly kind: 'txn';
      readonly key: string;
      readonly mod: number;
      readonly success: readonly Step[];
      readonly failure: readonly Step[];
    }
  | { readonly kind: 'revoke'; readonly lease: bigint };

/** A change inside of a revision; `state` null is a deletion. */
export interface Change {
  readonly key: string;
  readonly state: KeyState | null;
}

interface Row {
  readonly main: number;
  readonly sub: number;
  readonly change: Change;
  /** The next row of the same key, or 0: that of the next revision decides what a compaction keeps. */
  supersededMain: number;
}

export class KeyspaceModel {
  readonly keys: Map<string, KeyState> = new Map();
  /** The newest revision; 1 for an empty keyspace, as in etcd. */
  revision = 1;
  compactRevision = -1;
  private rows: Row[] = [];
  private readonly newestRow = new Map<string, Row>();

  /** The changes that `action` would make at revision `main` on the present state; none: it makes no revision. */
  changesOf(action: Action, main: number): Change[] {
    switch (action.kind) {
      case 'put':
      case 'delete':
        return this.changesOfStep(action, main);
      case 'revoke': {
        const attached = [...this.keys].filter(([, state]) => state.lease === action.lease).map(([key]) => key);
        return attached.sort().map((key) => ({ key, state: null }));
      }
      case 'txn':
        return this.branchOf(action).flatMap((step) => this.changesOfStep(step, main));
    }
  }

  /** The branch that a txn takes now. Its steps touch different keys. */
  branchOf(action: Action & { kind: 'txn' }): readonly Step[] {
    return (this.keys.get(action.key)?.mod ?? 0) === action.mod ? action.success : action.failure;
  }

  private changesOfStep(step: Step, main: number): Change[] {
    if (step.kind === 'put') {
      const old = this.keys.get(step.key);
      const state: KeyState = {
        value: step.value,
        create: old?.create ?? main,
        mod: main,
        version: (old?.version ?? 0) + 1,
        lease: step.lease,
      };
      return [{ key: step.key, state }];
    }
    return this.keysIn(step.key, step.end).map((key) => ({ key, state: null }));
  }

  /** Live keys of a range in order; `end` empty: the key alone. */
  keysIn(key: string, end: string): string[] {
    if (end === '') return this.keys.has(key) ? [key] : [];
    return [...this.keys.keys()].filter((candidate) => candidate >= key && candidate < end).sort();
  }

  /** Takes the changes of the next revision. */
  apply(main: number, changes: readonly Change[]): void {
    if (main !== this.revision + 1) throw new Error(`revision ${main} after ${this.revision}`);
    this.revision = main;
    for (const [sub, change] of changes.entries()) {
      const row: Row = { main, sub, change, supersededMain: 0 };
      const older = this.newestRow.get(change.key);
      if (older !== undefined) older.supersededMain = main;
      this.newestRow.set(change.key, row);
      this.rows.push(row);
      if (change.state === null) this.keys.delete(change.key);
      else this.keys.set(change.key, change.state);
    }
  }

  /** Lets go of what no answer can depend on any more. */
  compact(revision: number): void {
    this.compactRevision = revision;
    this.rows = this.rows.filter((row) => row.main >= revision || this.isKept(row, revision));
  }

  /** The newest row of its key up to `revision`, and no deletion. */
  private isKept(row: Row, revision: number): boolean {
    if (row.change.state === null || row.main > revision) return false;
    return row.supersededMain === 0 || row.supersededMain > revision;
  }

  /** Changes of the revisions from..to, those from the compaction revision on. */
  changesBetween(from: number, to: number): { readonly main: number; readonly change: Change }[] {
    return this.rows.filter((row) => row.main >= from && row.main <= to);
  }

  /** etcd's HashKV at `revision`, when it answers with this compaction revision. */
  hashKv(revision: number): number {
    const kept = new Set<string>();
    for (const row of this.rows) if (this.isKept(row, revision)) kept.add(`${row.main}.${row.sub}`);
    const keep = kept.size === 0 ? null : (main: number, sub: number): boolean => kept.has(`${main}.${sub}`);
    const hasher = new KvHasher(this.compactRevision, revision, keep);
    for (const { main, sub, change } of this.rows) {
      const { state } = change;
      const key = Buffer.from(change.key, 'latin1');
      if (state === null) hasher.write(encodeRevisionKey(main, sub, true), encode(KeyValue, { key }));
      else hasher.write(encodeRevisionKey(main, sub), encode(KeyValue, keyValueOf(key, state)));
    }
    return hasher.hash();
  }
}

function keyValueOf(key: Buffer, state: KeyState): Partial<Message<typeof KeyValue>> {
  const { value, create, mod, version, lease } = state;
  return { key, createRevision: create, modRevision: mod, version, value, lease };
}

/** What a watch event says. */
export function changeOfEvent(event: Message<typeof Event>): Change {
  const kv = event.kv!;
  const key = kv.key.toString('latin1');
  return { key, state: event.type === EventType.delete ? null : stateOf(kv) };
}

export function stateOf(kv: Message<typeof KeyValue>): KeyState {
  // The value is a view on a whole response: copied, so that the response can go.
  const value = Buffer.from(kv.value);
  return { value, create: kv.createRevision, mod: kv.modRevision, version: kv.version, lease: kv.lease };
}

export function sameState(a: KeyState | null, b: KeyState | null): boolean {
  if (a === null || b === null) return a === b;
  return (
    a.create === b.create &&
    a.mod === b.mod &&
    a.version === b.version &&
    a.lease === b.lease &&
    a.value.equals(b.value)
  );
}

export function sameChanges(a: readonly Change[], b: readonly Change[]): boolean {
  if (a.length !== b.length) return false;
  return a.every((change, i) => change.key === b[i]!.key && sameState(change.state, b[i]!.state));
}

export function describeState(state: KeyState | null | undefined): string {
  if (state === null || state === undefined) return 'nothing';
  const { create, mod, version, lease, value } = state;
  const text = value.toString('latin1', 0, 24);
  return `create ${create} mod ${mod} version ${version} lease ${lease} value ${value.length} bytes ${JSON.stringify(text)}`;
}

export function describeChanges(changes: readonly Change[]): string {
  const lines = changes.map(({ key, state }) => `${JSON.stringify(key.slice(0, 24))} → ${describeState(state)}`);
  return lines.length === 0 ? 'no change' : lines.join('; ');
}
