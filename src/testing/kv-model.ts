// etcd's KV as a sequential model for linearizability.ts: keys with value, create and mod revision, version and lease; every change
// makes a revision. What an answer does not say is not checked, so the same model serves histories with revisions, where the answers'
// revisions order the writes and the search is nearly straight, and plain ones, of which each key is checked on its own.

import {
  type CheckResult,
  checkLinearizable,
  type Operation,
  partition,
  type SequentialModel,
} from './linearizability.ts';

export interface Kv {
  readonly key: string;
  readonly value: string;
  readonly create?: number;
  readonly mod?: number;
  readonly version?: number;
}

export type KvCall =
  | { readonly kind: 'put'; readonly key: string; readonly value: string; readonly lease?: bigint }
  | { readonly kind: 'delete'; readonly key: string; readonly end?: string }
  /** A Txn: if the value is `expected` (null: there is none) put, else get. */
  | { readonly kind: 'cas'; readonly key: string; readonly expected: string | null; readonly value: string }
  /** `end` empty: the key alone. `revision` 0: the newest. */
  | { readonly kind: 'range'; readonly key: string; readonly end?: string; readonly revision?: number }
  /** Of a lease, by a client or because it has expired. */
  | { readonly kind: 'revoke'; readonly lease: bigint };

export interface KvAnswer {
  /** Of the header. */
  readonly revision?: number;
  readonly succeeded?: boolean;
  readonly deleted?: number;
  readonly kvs?: readonly Kv[];
}

export type KvOperation = Operation<KvCall, KvAnswer>;

interface Entry {
  readonly value: string;
  readonly create: number;
  readonly mod: number;
  readonly version: number;
  readonly lease: bigint;
}

interface KvState {
  readonly revision: number;
  readonly keys: ReadonlyMap<string, Entry>;
  /** Sum over the keys: the order of insertion does not matter. */
  readonly hash: number;
  /** The state one revision ago, for reads of the past. */
  readonly previous: KvState | null;
}

const NO_LEASE = 0n;

function hashText(text: string, seed: number): number {
  let hash = seed;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash | 0;
}

function hashEntry(key: string, { value, mod, version }: Entry): number {
  return hashText(value, hashText(key, Math.imul(mod, 31) + version));
}

function inRange(key: string, from: string, end: string | undefined): boolean {
  if (end === undefined || end === '') return key === from;
  return key >= from && (end === '\0' || key < end);
}

export class KvModel implements SequentialModel<KvState, KvCall, KvAnswer> {
  readonly initial: KvState;
  /** Revisions that an answered write has made: no unknown write made them. */
  private readonly claimed = new Set<number>();
  /** What reads saw at a revision: whoever made it must have written that. */
  private readonly seen = new Map<number, { readonly key: string; readonly value: string }[]>();
  private readonly revisions: boolean;

  constructor(history: readonly KvOperation[], initialRevision: number = 1) {
    this.initial = { revision: initialRevision, keys: new Map(), hash: 0, previous: null };
    this.revisions = history.some(({ answer }) => answer?.revision !== undefined);
    for (const { call, answer } of history) if (answer !== null) this.learn(call, answer);
  }

  private learn(call: KvCall, answer: KvAnswer): void {
    const writes =
      call.kind === 'put' ||
      (call.kind === 'cas' && answer.succeeded === true) ||
      (call.kind === 'delete' && (answer.deleted ?? 0) > 0);
    if (writes && answer.revision !== undefined) this.claimed.add(answer.revision);
    for (const { key, value, mod } of answer.kvs ?? []) {
      if (mod === undefined) continue;
      const seen = this.seen.get(mod);
      if (seen === undefined) this.seen.set(mod, [{ key, value }]);
      else seen.push({ key, value });
    }
  }

  hash(state: KvState): number {
    return state.hash;
  }

  equal(a: KvState, b: KvState): boolean {
    if (a === b) return true;
    if (a.revision !== b.revision || a.hash !== b.hash || a.keys.size !== b.keys.size) return false;
    for (const [key, entry] of a.keys) {
      const other = b.keys.get(key);
      if (other === undefined || other.value !== entry.value || other.mod !== entry.mod) return false;
      if (other.version !== entry.version || other.create !== entry.create || other.lease !== entry.lease) return false;
    }
    return true;
  }

  step(state: KvState, call: KvCall, answer: KvAnswer | null): KvState | null {
    const next = this.apply(state, call);
    if (answer === null) return this.mayBe(state, next) ? next : null;
    if (answer.revision !== undefined && answer.revision !== next.revision) return null;
    return this.accepts(state, next, call, answer) ? next : null;
  }

  /** Whether an unknown call may have had this effect. */
  private mayBe(state: KvState, next: KvState): boolean {
    if (!this.revisions || next === state) return true;
    if (this.claimed.has(next.revision)) return false;
    for (const { key, value } of this.seen.get(next.revision) ?? []) {
      const entry = next.keys.get(key);
      if (entry === undefined || entry.value !== value || entry.mod !== next.revision) return false;
    }
    return true;
  }

  private accepts(state: KvState, next: KvState, call: KvCall, answer: KvAnswer): boolean {
    switch (call.kind) {
      case 'put':
        return true;
      case 'revoke':
        return true;
      case 'delete':
        return answer.deleted === undefined || answer.deleted === state.keys.size - next.keys.size;
      case 'cas':
        if (answer.succeeded !== undefined && answer.succeeded !== holds(state, call.key, call.expected)) return false;
        return answer.succeeded !== false || sameKvs(state, call.key, '', answer.kvs);
      case 'range': {
        const { key, end = '', revision = 0 } = call;
        const seen = revision <= 0 ? state : at(state, revision);
        return seen !== null && sameKvs(seen, key, end, answer.kvs);
      }
    }
  }

  private apply(state: KvState, call: KvCall): KvState {
    switch (call.kind) {
      case 'put':
        return this.put(state, call.key, call.value, call.lease ?? NO_LEASE);
      case 'delete':
        return this.remove(state, (key) => inRange(key, call.key, call.end));
      case 'cas':
        return holds(state, call.key, call.expected) ? this.put(state, call.key, call.value, NO_LEASE) : state;
      case 'range':
        return state;
      case 'revoke':
        return this.remove(state, (_, entry) => entry.lease === call.lease);
    }
  }

  private put(state: KvState, key: string, value: string, lease: bigint): KvState {
    const before = state.keys.get(key);
    const revision = this.revisions ? state.revision + 1 : 0;
    const version = this.revisions ? (before?.version ?? 0) + 1 : 0;
    const entry: Entry = { value, create: before?.create ?? revision, mod: revision, version, lease };
    const keys = new Map(state.keys);
    keys.set(key, entry);
    const hash = (state.hash - (before === undefined ? 0 : hashEntry(key, before)) + hashEntry(key, entry)) | 0;
    return this.after(state, keys, hash);
  }

  private remove(state: KvState, isMeant: (key: string, entry: Entry) => boolean): KvState {
    const keys = new Map<string, Entry>();
    let { hash } = state;
    for (const [key, entry] of state.keys) {
      if (isMeant(key, entry)) hash = (hash - hashEntry(key, entry)) | 0;
      else keys.set(key, entry);
    }
    return keys.size === state.keys.size ? state : this.after(state, keys, hash);
  }

  /** Without revisions in the answers they must not tell states apart that no answer tells apart. */
  private after(state: KvState, keys: ReadonlyMap<string, Entry>, hash: number): KvState {
    if (!this.revisions) return { revision: state.revision, keys, hash, previous: null };
    return { revision: state.revision + 1, keys, hash, previous: state };
  }
}

function holds(state: KvState, key: string, expected: string | null): boolean {
  return (state.keys.get(key)?.value ?? null) === expected;
}

function at(state: KvState, revision: number): KvState | null {
  if (revision > state.revision) return null;
  let seen: KvState = state;
  while (seen.revision > revision && seen.previous !== null) seen = seen.previous;
  return seen;
}

function sameKvs(state: KvState, from: string, end: string, kvs: readonly Kv[] | undefined): boolean {
  if (kvs === undefined) return true;
  let found = 0;
  for (const key of state.keys.keys()) if (inRange(key, from, end)) found++;
  if (found !== kvs.length) return false;
  for (const { key, value, mod, create, version } of kvs) {
    const entry = state.keys.get(key);
    if (entry === undefined || !inRange(key, from, end) || entry.value !== value) return false;
    if (mod !== undefined && mod !== entry.mod) return false;
    if (create !== undefined && create !== entry.create) return false;
    if (version !== undefined && version !== entry.version) return false;
  }
  return true;
}

/** Checks a history of answers with revisions (or of calls over several keys) as one. */
export function checkKv(history: readonly KvOperation[], stepsMax?: number): CheckResult {
  return checkLinearizable(new KvModel(history), relevant(history), stepsMax);
}

/** Checks a history of single keys without looking at revisions, each key on its own. Returns the first that is not good. */
export function checkKvByKey(
  history: readonly KvOperation[],
  stepsMax?: number,
): CheckResult & { readonly key: string } {
  let steps = 0;
  let longest = 0;
  for (const [key, part] of partition(relevant(history).map(plain), keyOf)) {
    const result = checkLinearizable(new KvModel(part), part, stepsMax);
    steps += result.steps;
    longest += result.longest;
    if (result.verdict !== 'linearizable') return { ...result, key };
  }
  return { verdict: 'linearizable', steps, longest, stuckAt: -1, key: '' };
}

function relevant(history: readonly KvOperation[]): KvOperation[] {
  return history.filter(({ call, answer }) => answer !== null || call.kind !== 'range');
}

function keyOf(call: KvCall): string {
  if (call.kind === 'revoke' || ('end' in call && call.end !== undefined && call.end !== '')) {
    throw new Error('a call of one key alone');
  }
  return call.key;
}

function plain(operation: KvOperation): KvOperation {
  const { answer } = operation;
  if (answer === null) return operation;
  const { succeeded, deleted, kvs } = answer;
  return {
    ...operation,
    answer: {
      ...(succeeded === undefined ? {} : { succeeded }),
      ...(deleted === undefined ? {} : { deleted }),
      ...(kvs === undefined ? {} : { kvs: kvs.map(({ key, value }) => ({ key, value })) }),
    },
  };
}
