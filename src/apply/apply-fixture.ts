// For the tests of apply: an applier over the model engine, requests sent as the log entries that they would be, and etcd's Txn
// written down once more over the oracle of mvcc/store-fixture.ts.

import { Lessor } from '../lease/lessor.ts';
import { type BucketStore, Cluster } from '../membership/cluster.ts';
import { Store } from '../mvcc/store.ts';
import { type History, type Kv, plainKv, type RangeOptions, sortedRange } from '../mvcc/store-fixture.ts';
import { encodeInternalRequest, InternalRequest, type RequestField } from '../proto/internal-request.ts';
import { decode, type Message, type Schema } from '../proto/message.ts';
import { type EtcdError, etcdErrors } from '../proto/rpctypes.ts';
import type { OpAnswer, OpInit, RangeAnswer, TxnAnswer, TxnInit } from '../testing/kv-messages.ts';
import { ModelStorage } from '../testing/model-storage.ts';
import { AlarmStore } from './alarms.ts';
import { Applier } from './applier.ts';

export class MapBuckets implements BucketStore {
  readonly rows: Map<string, Buffer> = new Map();

  put(bucket: string, key: Buffer, value: Buffer): void {
    this.rows.set(`${bucket}/${key.toString('hex')}`, Buffer.from(value));
  }
  remove(bucket: string, key: Buffer): void {
    this.rows.delete(`${bucket}/${key.toString('hex')}`);
  }
  scan(bucket: string, visit: (key: Buffer, value: Buffer) => boolean): void {
    for (const [name, value] of this.rows) {
      const [of, key] = name.split('/');
      if (of === bucket && !visit(Buffer.from(key!, 'hex'), value)) return;
    }
  }
}

export interface Applied {
  readonly error: EtcdError | null;
  readonly revision: number;
  readonly body: Buffer;
}

export class ApplyBench {
  readonly storage: ModelStorage = new ModelStorage();
  readonly buckets: MapBuckets = new MapBuckets();
  readonly lessor: Lessor;
  readonly store: Store;
  readonly alarms: AlarmStore;
  readonly cluster: Cluster;
  readonly applier: Applier;
  readonly compactions: number[] = [];
  backendBytes = 0;
  private readonly request = new InternalRequest();

  constructor(quotaBytes: number = Infinity, answerBytesMax?: number) {
    const { buckets } = this;
    this.lessor = new Lessor({
      nowMs: () => 0,
      minTtlSeconds: 2,
      bucket: {
        put: (key, value) => buckets.put('lease', key, value),
        remove: (key) => buckets.remove('lease', key),
      },
      counters: { granted: 0, renewed: 0, revoked: 0, expired: 0, observeTtl: () => {} },
      checkpoints: false,
      persistsCheckpoints: () => true,
    });
    this.store = new Store(this.storage, this.lessor, 1, -1);
    this.alarms = new AlarmStore(buckets);
    this.cluster = new Cluster(1n, buckets);
    this.applier = new Applier({
      store: this.store,
      lessor: this.lessor,
      alarms: this.alarms,
      cluster: this.cluster,
      backendBytes: () => this.backendBytes,
      quotaBytes,
      onCompact: (revision) => {
        this.compactions.push(revision);
        this.storage.compact(revision);
      },
      ...(answerBytesMax === undefined ? {} : { answerBytesMax }),
    });
  }

  apply(field: RequestField, message: Buffer, isAwaited = true): Applied {
    const entry = encodeInternalRequest(field, message, 0, message.length, 7, 42);
    if (!this.request.parse(entry, 0, entry.length)) throw new Error('an entry that was just encoded does not parse');
    this.applier.apply(this.request, entry, isAwaited);
    // A request's bytes are gone after its apply.
    entry.fill(0xdd);
    const { error, revision, body } = this.applier;
    return { error, revision, body: Buffer.from(body.bytes.subarray(0, body.length)) };
  }

  /** Every row of every revision, and what else an apply changes or counts. */
  dump(): unknown {
    const rows: string[] = [];
    this.storage.scanRows(0, Infinity, (main, sub, tombstone, buffer, start, end) => {
      rows.push(`${main}.${sub}${tombstone ? 't' : ''} ${buffer.toString('latin1', start, end)}`);
      return true;
    });
    const leases = this.lessor.sorted().map(({ id, keys }) => [id, [...keys].sort()]);
    return { rows, leases, counters: { ...this.store.counters }, revision: this.store.currentRevision };
  }
}

/** Decodes or fails. */
export function mustDecode<S extends Schema>(schema: S, bytes: Buffer): Message<S> {
  const message = decode(schema, bytes);
  if (message === undefined) throw new Error('an answer does not parse');
  return message;
}

// --- Txns, once more ---

/** An answer with bytes as text and without what was not sent. */
export interface PlainAnswer {
  readonly revision: number | undefined;
  readonly succeeded: boolean;
  readonly responses: readonly object[];
}

export function plainAnswer(answer: TxnAnswer): PlainAnswer {
  return {
    revision: answer.header?.revision,
    succeeded: answer.succeeded,
    responses: answer.responses.map(plainOp),
  };
}

function plainOp(op: OpAnswer): object {
  if (op.range !== undefined) return { range: plainRange(op.range) };
  if (op.put !== undefined) {
    const { header, prevKv } = op.put;
    return { put: { revision: header?.revision, prevKv: prevKv === undefined ? null : plainKv(prevKv) } };
  }
  if (op.delete !== undefined) {
    const { header, deleted, prevKvs } = op.delete;
    return { delete: { revision: header?.revision, deleted, prevKvs: prevKvs.map(plainKv) } };
  }
  return { txn: plainAnswer(op.txn!) };
}

function plainRange({ header, kvs, more, count }: Message<typeof RangeAnswer>): object {
  return { revision: header?.revision, kvs: kvs.map(plainKv), more, count };
}

const text = (bytes: Buffer | undefined): string => bytes?.toString('latin1') ?? '';

/** Runs a Txn on the oracle: its answer, or why it fails. A put that keeps what is gone by then gives null: see txn-overlaps.ts. */
export class TxnModel {
  private readonly history: History;
  private readonly hasLease: (id: bigint) => boolean;

  constructor(history: History, hasLease: (id: bigint) => boolean) {
    this.history = history;
    this.hasLease = hasLease;
  }

  run(txn: TxnInit): PlainAnswer | EtcdError | null {
    this.history.begin();
    const before = this.history.states[this.history.revision]!;
    const error = this.check(txn, before);
    if (error !== null) return error;
    const responses = this.execute(txn, before);
    if (responses === null) {
      this.history.begin();
      return null;
    }
    this.history.commit();
    return { revision: undefined, succeeded: this.holds(txn, before), responses };
  }

  private holds(txn: TxnInit, before: ReadonlyMap<string, Kv>): boolean {
    return (txn.compare ?? []).every((compare) => {
      const kvs = sortedRange(before, text(compare.key), text(compare.rangeEnd));
      if (kvs.length === 0) return compare.target !== 3 && holdsFor(compare, absent);
      return kvs.every((kv) => holdsFor(compare, kv));
    });
  }

  private branch(txn: TxnInit, before: ReadonlyMap<string, Kv>): readonly OpInit[] {
    return (this.holds(txn, before) ? txn.success : txn.failure) ?? [];
  }

  private check(txn: TxnInit, before: ReadonlyMap<string, Kv>): EtcdError | null {
    for (const op of this.branch(txn, before)) {
      const error = this.checkOp(op, before);
      if (error !== null) return error;
    }
    return null;
  }

  private checkOp(op: OpInit, before: ReadonlyMap<string, Kv>): EtcdError | null {
    if (op.txn !== undefined) return this.check(op.txn, before);
    if (op.range !== undefined) {
      const revision = op.range.revision ?? 0;
      if (revision > this.history.revision) return etcdErrors.futureRev;
      return revision !== 0 && revision < this.history.compactRevision ? etcdErrors.compacted : null;
    }
    if (op.put === undefined) return null;
    const { key, lease = 0n, ignoreValue, ignoreLease } = op.put;
    if (lease !== 0n && !this.hasLease(lease)) return etcdErrors.leaseNotFound;
    return (ignoreValue || ignoreLease) && !before.has(text(key)) ? etcdErrors.keyNotFound : null;
  }

  private execute(txn: TxnInit, before: ReadonlyMap<string, Kv>): object[] | null {
    const responses: object[] = [];
    for (const op of this.branch(txn, before)) {
      const response = this.executeOp(op, before);
      if (response === null) return null;
      responses.push(response);
    }
    return responses;
  }

  private executeOp(op: OpInit, before: ReadonlyMap<string, Kv>): object | null {
    const { history } = this;
    if (op.range !== undefined) {
      const { error, ...answer } = history.range(rangeOptions(op.range));
      if (error !== null) throw new Error('a range that was checked fails');
      return { range: answer };
    }
    if (op.put !== undefined) {
      const { key, value, lease = 0n, prevKv, ignoreValue, ignoreLease } = op.put;
      const previous = history.running.get(text(key));
      if ((ignoreValue || ignoreLease) && previous === undefined) return null;
      history.put(text(key), ignoreValue ? previous!.value : text(value), ignoreLease ? previous!.lease : lease);
      return { put: { revision: history.readRevision, prevKv: prevKv ? (previous ?? null) : null } };
    }
    if (op.delete !== undefined) {
      const deleted = history.delete(text(op.delete.key), text(op.delete.rangeEnd));
      const prevKvs = op.delete.prevKv ? deleted : [];
      return { delete: { revision: history.readRevision, deleted: deleted.length, prevKvs } };
    }
    const responses = this.execute(op.txn!, before);
    // The header of an inner Txn is there, but empty.
    return responses === null ? null : { txn: { revision: 0, succeeded: this.holds(op.txn!, before), responses } };
  }
}

const absent: Kv = { key: '', value: '', create: 0, mod: 0, version: 0, lease: 0n };

function holdsFor(compare: NonNullable<TxnInit['compare']>[number], kv: Kv): boolean {
  const fields = [
    [kv.version, compare.version ?? 0],
    [kv.create, compare.createRevision ?? 0],
    [kv.mod, compare.modRevision ?? 0],
    [kv.value, text(compare.value)],
    [kv.lease, compare.lease ?? 0n],
  ];
  const [ours, theirs] = fields[compare.target ?? 0] ?? [0, 0];
  const results = [ours === theirs, ours! > theirs!, ours! < theirs!, ours !== theirs];
  return results[compare.result ?? 0] ?? true;
}

export function rangeOptions(range: NonNullable<OpInit['range']>): RangeOptions {
  return {
    key: text(range.key),
    end: text(range.rangeEnd),
    limit: range.limit ?? 0,
    revision: range.revision ?? 0,
    sortOrder: range.sortOrder ?? 0,
    sortTarget: range.sortTarget ?? 0,
    keysOnly: range.keysOnly ?? false,
    countOnly: range.countOnly ?? false,
    minMod: range.minModRevision ?? 0,
    maxMod: range.maxModRevision ?? 0,
    minCreate: range.minCreateRevision ?? 0,
    maxCreate: range.maxCreateRevision ?? 0,
  };
}
