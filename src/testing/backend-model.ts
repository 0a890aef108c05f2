// For tests of the engine: a driver that applies changes to a Backend as the multi-version store does, from a log of
// operations that stands for the write-ahead log, and a model in plain maps that says what must be found. Not a part of the
// server.

import assert from 'node:assert/strict';
import type { Backend } from '../backend/backend.ts';
import { newKeyState } from '../backend/index-delta.ts';
import type { Random } from '../io/random.ts';
import { keyValueLength, writeKeyValueHead, writeKeyValueTail } from '../proto/mvccpb.ts';
import { KvHasher } from '../snapshot/hashkv.ts';
import { type BucketName, encodeRevisionKey } from '../snapshot/schema.ts';

export interface Change {
  readonly key: string;
  /** null: delete. */
  readonly value: string | null;
  /** Of a put; without it, none. */
  readonly lease?: number;
}

export type Operation =
  | { readonly kind: 'txn'; readonly changes: readonly Change[] }
  | { readonly kind: 'bucket'; readonly bucket: BucketName; readonly key: string; readonly value: string | null }
  | { readonly kind: 'compact'; readonly revision: number };

interface ModelRow {
  readonly main: number;
  readonly sub: number;
  readonly key: string;
  readonly tombstone: boolean;
  readonly bytes: Buffer;
  /** Main of the change after it, or Infinity. */
  superseded: number;
}

interface LiveKey {
  readonly row: ModelRow;
  readonly createMain: number;
  readonly version: number;
}

function encodeRow({ key, value, lease = 0 }: Change, createMain: number, main: number, version: number): Buffer {
  const keyBytes = Buffer.from(key, 'latin1');
  const valueBytes = Buffer.from(value ?? '', 'latin1');
  const length = keyValueLength(keyBytes.length, createMain, main, version, valueBytes.length, 0, lease);
  const out = Buffer.alloc(length);
  const at = writeKeyValueHead(out, 0, keyBytes, 0, keyBytes.length, createMain, main, version);
  writeKeyValueTail(out, at, valueBytes, 0, valueBytes.length, 0, lease);
  return out;
}

/** What an engine that applied the operations must hold. */
export class Model {
  readonly rows: ModelRow[] = [];
  readonly live: Map<string, LiveKey> = new Map();
  readonly buckets: Map<string, Map<string, string>> = new Map();
  revision = 1;
  compactRevision = 0;
  index = 0;

  apply(operation: Operation): void {
    this.index++;
    if (operation.kind === 'txn') this.applyTxn(operation.changes);
    else if (operation.kind === 'compact') this.compactRevision = operation.revision;
    else this.applyBucket(operation.bucket, operation.key, operation.value);
  }

  private applyBucket(name: string, key: string, value: string | null): void {
    let bucket = this.buckets.get(name);
    if (bucket === undefined) {
      bucket = new Map();
      this.buckets.set(name, bucket);
    }
    if (value === null) bucket.delete(key);
    else bucket.set(key, value);
  }

  private applyTxn(changes: readonly Change[]): void {
    const main = this.revision + 1;
    let sub = 0;
    for (const change of changes) {
      const { key, value } = change;
      const before = this.live.get(key);
      if (value === null && before === undefined) continue;
      if (before !== undefined) before.row.superseded = main;
      const createMain = value === null ? 0 : (before?.createMain ?? main);
      const version = value === null ? 0 : (before?.version ?? 0) + 1;
      const bytes = encodeRow(change, createMain, value === null ? 0 : main, version);
      const row = { main, sub: sub++, key, tombstone: value === null, bytes, superseded: Infinity };
      this.rows.push(row);
      if (value === null) this.live.delete(key);
      else this.live.set(key, { row, createMain, version });
    }
    if (sub > 0) this.revision = main;
  }

  /** Whether compaction keeps the row. */
  kept(row: ModelRow): boolean {
    if (row.main > this.compactRevision) return true;
    return row.tombstone ? row.main === this.compactRevision : row.superseded > this.compactRevision;
  }

  liveAt(revision: number): Map<string, ModelRow> {
    const found = new Map<string, ModelRow>();
    for (const row of this.rows) {
      if (row.main > revision) break;
      if (row.tombstone) found.delete(row.key);
      else found.set(row.key, row);
    }
    return found;
  }

  /** The hash that etcd keeps of a compaction to `revision`, when it has not been applied yet. */
  compactionHash(revision: number): number {
    const tombstone = this.rows.find((row) => row.main === revision && row.tombstone);
    return this.hashKv(revision, this.compactRevision > 0 ? this.compactRevision : -1, tombstone);
  }

  hashKv(revision: number, compactRevision: number, keptToo?: ModelRow): number {
    const live = [...this.liveAt(revision).values()];
    const keep = new Set(live.map((row) => `${row.main}.${row.sub}`));
    if (keptToo !== undefined) keep.add(`${keptToo.main}.${keptToo.sub}`);
    // Of a key that is deleted at the revision etcd keeps nothing, though it may be put again there: a set that is empty without it
    // counts as empty.
    const isRemade = ({ key }: ModelRow): boolean =>
      this.rows.some((row) => row.main === revision && row.tombstone && row.key === key);
    if (keptToo === undefined && live.every(isRemade)) keep.clear();
    const keeps = keep.size === 0 ? null : (main: number, sub: number): boolean => keep.has(`${main}.${sub}`);
    const hasher = new KvHasher(compactRevision, revision, keeps);
    for (const row of this.rows) {
      if (this.kept(row)) hasher.write(encodeRevisionKey(row.main, row.sub, row.tombstone), row.bytes);
    }
    return hasher.hash();
  }
}

/** Applies one operation to the engine, at the next index. */
export function applyTo(backend: Backend, operation: Operation): void {
  const index = backend.consistentIndex + 1;
  if (operation.kind === 'txn') applyTxn(backend, operation.changes);
  else if (operation.kind === 'compact') backend.compact(operation.revision, () => {});
  else {
    const key = Buffer.from(operation.key, 'latin1');
    if (operation.value === null) backend.bucketDelete(operation.bucket, key);
    else backend.bucketPut(operation.bucket, key, Buffer.from(operation.value, 'latin1'));
  }
  backend.endApply(index, 3);
}

function applyTxn(backend: Backend, changes: readonly Change[]): void {
  const main = Math.max(1, backend.currentRevision) + 1;
  let sub = 0;
  const state = newKeyState();
  for (const change of changes) {
    const { key, value, lease = 0 } = change;
    const keyBytes = Buffer.from(key, 'latin1');
    const live = backend.index.get(keyBytes, 0, keyBytes.length, state);
    if (value === null && !live) continue;
    const createMain = value === null ? 0 : live ? state.createMain : main;
    const version = value === null ? 0 : live ? state.version + 1 : 1;
    const bytes = encodeRow(change, createMain, value === null ? 0 : main, version);
    const oldMain = live ? state.main : 0;
    const oldSub = live ? state.sub : 0;
    state.ordinal = backend.appendRow(main, sub, value === null, bytes.length, oldMain, oldSub);
    bytes.copy(backend.rowBuffer, backend.rowOffset);
    state.main = main;
    state.sub = sub++;
    state.createMain = createMain;
    state.version = version;
    state.leaseHi = 0;
    state.leaseLo = value === null ? 0 : lease;
    state.tombstone = value === null;
    backend.index.record(keyBytes, 0, keyBytes.length, state);
  }
}

/** Compares everything that the engine answers with the model. `exact`: no compaction is under way. */
export function checkAgainst(backend: Backend, model: Model, exact: boolean): void {
  backend.checkInvariants();
  assert.equal(backend.consistentIndex, model.index, 'consistent index');
  assert.equal(Math.max(1, backend.currentRevision), model.revision, 'current revision');
  assert.equal(backend.compactRevision, model.compactRevision, 'compact revision');
  checkRows(backend, model, exact);
  for (const [name, bucket] of model.buckets) checkBucket(backend, name as BucketName, bucket);
  checkReads(backend, model);
}

function checkRows(backend: Backend, model: Model, exact: boolean): void {
  const found: string[] = [];
  backend.scanRows(0, backend.currentRevision, (main, sub, tombstone, buffer, start, end) => {
    found.push(`${main}.${sub}${tombstone ? 't' : ''}=${buffer.toString('latin1', start, end)}`);
    return true;
  });
  const wanted: string[] = [];
  const allowed = new Set<string>();
  for (const row of model.rows) {
    const text = `${row.main}.${row.sub}${row.tombstone ? 't' : ''}=${row.bytes.toString('latin1')}`;
    allowed.add(text);
    if (model.kept(row)) wanted.push(text);
  }
  if (exact) {
    assert.deepEqual(found, wanted);
    return;
  }
  const foundSet = new Set(found);
  assert.equal(foundSet.size, found.length, 'a row twice');
  for (const text of wanted) assert.ok(foundSet.has(text), `row ${text} is missing`);
  for (const text of found) assert.ok(allowed.has(text), `row ${text} was never written`);
}

function checkBucket(backend: Backend, name: BucketName, bucket: Map<string, string>): void {
  const found: string[] = [];
  backend.bucketScan(name, undefined, undefined, (key, value) => {
    found.push(`${key.toString('latin1')}=${value.toString('latin1')}`);
    return true;
  });
  const wanted = [...bucket].map(([key, value]) => `${key}=${value}`).sort();
  assert.deepEqual(found, wanted, `bucket ${name}`);
  for (const [key, value] of bucket) {
    assert.equal(backend.bucketGet(name, Buffer.from(key, 'latin1'))?.toString('latin1'), value);
  }
}

function checkReads(backend: Backend, model: Model): void {
  const out = { buffer: Buffer.alloc(0), start: 0, end: 0 };
  const first = Buffer.alloc(1);
  for (const revision of [model.revision, Math.max(model.compactRevision, model.revision - 3)]) {
    const wanted = model.liveAt(revision);
    assert.equal(backend.index.count(first, null, revision), wanted.size, `count at ${revision}`);
    const found: { key: string; main: number; sub: number; ordinal: number }[] = [];
    backend.index.scan(first, null, revision, (key, start, end, state) => {
      found.push({ key: key.toString('latin1', start, end), main: state.main, sub: state.sub, ordinal: state.ordinal });
      return true;
    });
    assert.deepEqual(
      found.map((f) => f.key),
      [...wanted.keys()].sort(),
      `keys at ${revision}`,
    );
    for (const { key, main, sub, ordinal } of found) {
      const row = wanted.get(key)!;
      assert.deepEqual([main, sub], [row.main, row.sub], `revision of ${key}`);
      assert.ok(backend.readRow(main, sub, ordinal, out), `row ${main}.${sub} of ${key}`);
      assert.equal(out.buffer.toString('latin1', out.start, out.end), row.bytes.toString('latin1'));
    }
  }
}

/** Draws operations from a small key space, so that keys are written, deleted and made again often. */
export class OperationSource {
  private readonly random: Random;
  private readonly keyCount: number;

  constructor(random: Random, keyCount = 40) {
    this.random = random;
    this.keyCount = keyCount;
  }

  next(model: Model): Operation {
    const roll = this.random.float();
    if (roll < 0.03 && model.revision > model.compactRevision + 1) {
      const span = model.revision - model.compactRevision;
      return { kind: 'compact', revision: model.compactRevision + 1 + Math.floor(this.random.float() * span) };
    }
    if (roll < 0.2) {
      const bucket = (['lease', 'auth', 'members'] as const)[Math.floor(this.random.float() * 3)]!;
      const value = this.random.float() < 0.4 ? null : `v${Math.floor(this.random.float() * 1000)}`;
      return { kind: 'bucket', bucket, key: `b${Math.floor(this.random.float() * 9)}`, value };
    }
    const changes: Change[] = [];
    const count = this.random.float() < 0.8 ? 1 : 1 + Math.floor(this.random.float() * 5);
    // Inner Txns may change a key several times in one revision: few keys, so that it happens.
    const keyCount = this.random.float() < 0.3 ? 2 : this.keyCount;
    for (let i = 0; i < count; i++) {
      const key = `k${Math.floor(this.random.float() * keyCount)}`;
      const length = this.random.float() < 0.02 ? 3000 : Math.floor(this.random.float() * 60);
      changes.push({ key, value: this.random.float() < 0.3 ? null : 'x'.repeat(length) });
    }
    return { kind: 'txn', changes };
  }
}
