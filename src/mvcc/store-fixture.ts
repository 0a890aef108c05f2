// For the tests of mvcc: a store over the model engine, and a second opinion on it: whole copies of the state at every revision,
// with etcd's executeRange written down once more over them.

import { ByteWriter } from '../base/byte-writer.ts';
import type { Random } from '../io/random.ts';
import type { PageRemainderLimits } from '../limits.ts';
import { RangeRequest } from '../proto/kv-request.ts';
import { RangeRequest as RangeSchema } from '../proto/kv-schema.ts';
import { decode, encode, type MessageInit } from '../proto/message.ts';
import { KeyValue } from '../proto/mvccpb.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import { ModelStorage } from '../testing/model-storage.ts';
import { type LeaseBinder, Store } from './store.ts';

export interface Kv {
  readonly key: string;
  readonly value: string;
  readonly create: number;
  readonly mod: number;
  readonly version: number;
  readonly lease: bigint;
}

export interface RangeOptions {
  readonly key: string;
  readonly end?: string;
  readonly limit?: number;
  readonly revision?: number;
  readonly sortOrder?: number;
  readonly sortTarget?: number;
  readonly keysOnly?: boolean;
  readonly countOnly?: boolean;
  readonly minMod?: number;
  readonly maxMod?: number;
  readonly minCreate?: number;
  readonly maxCreate?: number;
}

export interface RangeResult {
  readonly error: EtcdError | null;
  readonly revision: number;
  readonly kvs: readonly Kv[];
  readonly more: boolean;
  readonly count: number;
}

/** RangeResponse without its header. */
const RangeBody = {
  kvs: { no: 2, kind: KeyValue as typeof KeyValue, repeated: true },
  more: { no: 3, kind: 'bool' },
  count: { no: 4, kind: 'int' },
} as const;

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

/** Keys of each lease, as the store tells them. Fails on a key attached twice or detached from where it is not. */
export class RecordedLeases implements LeaseBinder {
  readonly keys: Map<string, bigint> = new Map();

  attach(leaseHi: number, leaseLo: number, key: Buffer, start: number, end: number): void {
    const name = key.toString('latin1', start, end);
    if (this.keys.has(name)) throw new Error('a key is attached twice');
    this.keys.set(name, leaseOf(leaseHi, leaseLo));
  }

  detach(leaseHi: number, leaseLo: number, key: Buffer, start: number, end: number): void {
    const name = key.toString('latin1', start, end);
    if (this.keys.get(name) !== leaseOf(leaseHi, leaseLo)) throw new Error('a key is detached from a lease it has not');
    this.keys.delete(name);
  }
}

function leaseOf(high: number, low: number): bigint {
  return BigInt.asIntN(64, (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0));
}

/** The oracle: whole copies of the state, a transaction at a time. */
export class History {
  /** The state at each revision; 1 is the empty one. */
  readonly states: ReadonlyMap<string, Kv>[] = [new Map(), new Map()];
  /** The state inside the running transaction. */
  running: Map<string, Kv> = new Map();
  changeCount = 0;
  compactRevision = -1;

  get revision(): number {
    return this.states.length - 1;
  }

  /** What a read sees as the current revision. */
  get readRevision(): number {
    return this.revision + (this.changeCount > 0 ? 1 : 0);
  }

  begin(): void {
    this.changeCount = 0;
    this.running = new Map(this.states[this.revision]);
  }

  put(key: string, value: string, lease: bigint): void {
    const main = this.revision + 1;
    const old = this.running.get(key);
    const create = old?.create ?? main;
    this.running.set(key, { key, value, create, mod: main, version: (old?.version ?? 0) + 1, lease });
    this.changeCount++;
  }

  /** Deletes the live keys of the range; returns what they were. */
  delete(key: string, end: string): Kv[] {
    const deleted = sortedRange(this.running, key, end);
    for (const kv of deleted) this.running.delete(kv.key);
    this.changeCount += deleted.length;
    return deleted;
  }

  commit(): void {
    if (this.changeCount > 0) this.states.push(this.running);
    this.changeCount = 0;
  }

  /** What etcd's executeRange would answer. */
  range(options: RangeOptions): RangeResult {
    const current = this.readRevision;
    const refused = (error: EtcdError): RangeResult => ({ error, revision: current, kvs: [], more: false, count: 0 });
    const asked = options.revision ?? 0;
    if (asked > current) return refused(etcdErrors.futureRev);
    const revision = asked <= 0 ? current : asked;
    if (revision < this.compactRevision) return refused(etcdErrors.compacted);
    const state = revision > this.revision ? this.running : this.states[revision]!;
    const all = sortedRange(state, options.key, options.end ?? '');
    const count = all.length;
    if (options.countOnly) return { error: null, revision: current, kvs: [], more: false, count };
    const limit = options.limit ?? 0;
    const isReadWhole = (options.sortOrder ?? 0) !== 0 && !((options.sortTarget ?? 0) === 0 && options.sortOrder === 1);
    const isCut = limit > 0 && !isReadWhole && !hasFilters(options);
    const read = isCut ? all.slice(0, limit + 1) : all;
    const sorted = sortedBy(
      read.filter((kv) => passes(options, kv)),
      options.sortTarget ?? 0,
      options.sortOrder ?? 0,
    );
    const more = limit > 0 && sorted.length > limit;
    const answered = more ? sorted.slice(0, limit) : sorted;
    const lease = (kv: Kv): bigint => (options.sortTarget === 4 ? kv.lease : 0n);
    const kvs = options.keysOnly ? answered.map((kv) => ({ ...kv, value: '', lease: lease(kv) })) : answered;
    return { error: null, revision: current, kvs, more, count };
  }
}

/** A store, the model engine below it, and the oracle, kept in step by put(), delete(), commit() and compact(). */
export class CheckedStore {
  readonly storage: ModelStorage = new ModelStorage();
  readonly leases: RecordedLeases = new RecordedLeases();
  store: Store;
  readonly history: History = new History();
  private readonly pageLimits: PageRemainderLimits | undefined;
  private readonly out = new ByteWriter(64);

  constructor(pageLimits?: PageRemainderLimits) {
    this.pageLimits = pageLimits;
    this.store = new Store(this.storage, this.leases, 1, -1, pageLimits);
  }

  /** What the store knew is gone, and the engine counts older revisions by what it has stored. */
  restart(): void {
    this.store = new Store(this.storage, this.leases, this.revision, this.store.compactRevision, this.pageLimits);
    this.storage.index.countFloor = this.revision;
  }

  get revision(): number {
    return this.history.revision;
  }

  begin(): void {
    this.store.begin();
    this.history.begin();
  }

  put(key: string, value: string, lease = 0n): void {
    // Both lie in one buffer among other bytes, as in a request.
    const source = latin1(`..${key}-${value}.`);
    const valueStart = 3 + key.length;
    this.store.put(
      source,
      2,
      2 + key.length,
      source,
      valueStart,
      valueStart + value.length,
      Number(BigInt.asUintN(64, lease) >> 32n),
      Number(BigInt.asUintN(32, lease)),
    );
    source.fill(0);
    this.history.put(key, value, lease);
  }

  /** Deletes the live keys of the range; returns them. */
  delete(key: string, end = ''): string[] {
    const source = latin1(key + end);
    const { liveKeys } = this.store;
    const count = this.store.openLiveKeys(source, 0, key.length, key.length, source.length);
    const found: string[] = [];
    while (liveKeys.next()) {
      found.push(liveKeys.buffer.toString('latin1', liveKeys.start, liveKeys.end));
      this.store.deleteKey(liveKeys.buffer, liveKeys.start, liveKeys.end);
    }
    if (found.length !== count) throw new Error('there are not as many keys to delete as were told');
    this.history.delete(key, end);
    return found;
  }

  commit(): void {
    this.store.end();
    this.history.commit();
  }

  /** As etcd: the index forgets at once, the rows a little later. */
  compact(revision: number): EtcdError | null {
    const error = this.store.compact(revision);
    if (error !== null) return error;
    this.storage.compact(revision);
    this.history.compactRevision = revision;
    return null;
  }

  range(options: RangeOptions): RangeResult {
    const request = requestOf(options);
    this.out.reset();
    const error = this.store.range(request, this.out);
    const revision = this.store.rangeRevision;
    if (error !== null) return { error, revision, kvs: [], more: false, count: 0 };
    return decodeRange(this.out.bytes.subarray(0, this.out.length), revision);
  }

  expected(options: RangeOptions): RangeResult {
    return this.history.range(options);
  }
}

/** A RangeResponse's body. */
export function decodeRange(bytes: Buffer, revision: number): RangeResult {
  const body = decode(RangeBody, bytes);
  if (body === undefined) throw new Error('an answer does not parse');
  return { error: null, revision, kvs: body.kvs.map(plainKv), more: body.more, count: body.count };
}

/** A KeyValue message with its bytes as text. */
export function plainKv(kv: NonNullable<ReturnType<typeof decode<typeof KeyValue>>>): Kv {
  return {
    key: kv.key.toString('latin1'),
    value: kv.value.toString('latin1'),
    create: kv.createRevision,
    mod: kv.modRevision,
    version: kv.version,
    lease: kv.lease,
  };
}

export function requestOf(options: RangeOptions): RangeRequest {
  const init: MessageInit<typeof RangeSchema> = {
    key: latin1(options.key),
    rangeEnd: latin1(options.end ?? ''),
    limit: options.limit,
    revision: options.revision,
    sortOrder: options.sortOrder,
    sortTarget: options.sortTarget,
    keysOnly: options.keysOnly,
    countOnly: options.countOnly,
    minModRevision: options.minMod,
    maxModRevision: options.maxMod,
    minCreateRevision: options.minCreate,
    maxCreateRevision: options.maxCreate,
  };
  const bytes = encode(RangeSchema, init);
  const request = new RangeRequest();
  if (!request.parse(bytes, 0, bytes.length)) throw new Error('a request that was just encoded does not parse');
  return request;
}

export function sortedRange(state: ReadonlyMap<string, Kv>, key: string, end: string): Kv[] {
  if (end === '') return state.has(key) ? [state.get(key)!] : [];
  const inRange = [...state.values()].filter((kv) => kv.key >= key && (end === '\0' || kv.key < end));
  return inRange.sort((a, b) => (a.key < b.key ? -1 : 1));
}

function hasFilters(options: RangeOptions): boolean {
  return [options.minMod, options.maxMod, options.minCreate, options.maxCreate].some((bound) => (bound ?? 0) !== 0);
}

function passes({ minMod, maxMod, minCreate, maxCreate }: RangeOptions, kv: Kv): boolean {
  if (minMod && kv.mod < minMod) return false;
  if (maxMod && kv.mod > maxMod) return false;
  if (minCreate && kv.create < minCreate) return false;
  return !maxCreate || kv.create <= maxCreate;
}

function sortedBy(kvs: readonly Kv[], target: number, order: number): readonly Kv[] {
  if (target === 0 && order !== 2) return kvs;
  const fields = ['key', 'version', 'create', 'mod', 'value'] as const;
  const field = fields[target]!;
  const sign = order === 2 ? -1 : 1;
  return kvs.toSorted((a, b) => (a[field] === b[field] ? 0 : a[field] < b[field] ? -sign : sign));
}

const LETTERS = ['a', 'b', '\0', '\xff'];

/** Few and short, so that prefixes, neighbours and repetitions are common; with the bytes at both ends. */
export function randomKey(random: Random): string {
  let key = '';
  for (let length = 1 + random.below(3); length > 0; length--) key += LETTERS[random.below(LETTERS.length)]!;
  return key;
}

/** A range's end: one key, from the key on, its prefix, or any other key, which may lie before it. */
export function randomEnd(random: Random, key: string): string {
  const kind = random.below(5);
  if (kind === 0) return '';
  if (kind === 1) return '\0';
  if (kind === 2) return prefixEnd(key);
  return kind === 3 ? `${key}\0` : randomKey(random);
}

/** The first key after all with the prefix; to the last key when there is none. */
export function prefixEnd(key: string): string {
  for (let i = key.length - 1; i >= 0; i--) {
    const code = key.charCodeAt(i);
    if (code < 0xff) return key.slice(0, i) + String.fromCharCode(code + 1);
  }
  return '\0';
}
