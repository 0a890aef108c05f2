// The store and Txns over the real engine, for tests: its tables in memory, its flusher on the caller's thread, its limits shrunk so
// that few rows fill a slab, a commit, a merge.

import assert from 'node:assert/strict';
import { TxnRunner } from '../apply/txn.ts';
import { Backend } from '../backend/backend.ts';
import { FlusherInline } from '../backend/flusher-port.ts';
import { ByteWriter } from '../base/byte-writer.ts';
import { SimClock } from '../io/clock.ts';
import { Store } from '../mvcc/store.ts';
import { TxnRequest } from '../proto/kv-request.ts';
import { type BackendLimits, backendLimits, type IndexLimits, indexLimits } from '../storage-limits.ts';
import { encodeTxn, type TxnInit } from './kv-messages.ts';
import { MemoryStore } from './memory-tables.ts';

export const tinyLimits: BackendLimits = {
  ...backendLimits,
  slabBytes: 512,
  commitRows: 5,
  mergeEntries: 12,
  mergeSliceKeys: 3,
  mergeStepKeys: 2,
  compactSliceRows: 3,
  compactCollectRows: 4,
  compactRoundRows: 6,
  garbageBlockEntries: 3,
};
export const tinyIndexLimits: IndexLimits = { ...indexLimits, inlineRevisions: 4, chunkRevisions: 4 };

const noLeases = { attach: (): void => {}, detach: (): void => {} };

export class EngineBench {
  readonly tables: MemoryStore;
  readonly port: FlusherInline;
  readonly backend: Backend;
  readonly store: Store;
  private readonly limits: BackendLimits;
  private readonly indexLimits: IndexLimits;
  private readonly txns: TxnRunner;

  constructor(limits: BackendLimits, indexLimitsUsed: IndexLimits, tables: MemoryStore = new MemoryStore()) {
    const clock = new SimClock();
    this.limits = limits;
    this.indexLimits = indexLimitsUsed;
    this.tables = tables;
    this.port = new FlusherInline({
      environment: tables.openWriter(),
      pin: () => tables.openReader(),
      now: () => clock.nowMs(),
      limits,
    });
    const onFatal = (error: Error): void => {
      throw error;
    };
    this.backend = new Backend(
      { path: '', clock, limits, indexLimits: indexLimitsUsed, onFatal },
      { reader: tables.openReader(), port: this.port, reopen: null },
    );
    const compacted = this.backend.compactRevision;
    const revision = Math.max(1, this.backend.currentRevision);
    this.store = new Store(this.backend, noLeases, revision, compacted === 0 ? -1 : compacted);
    this.txns = new TxnRunner(this.store, { has: () => true });
  }

  /** Every lease exists. */
  txn(init: TxnInit): void {
    const bytes = encodeTxn(init);
    const txn = new TxnRequest();
    assert.ok(txn.parse(bytes, 0, bytes.length));
    this.store.begin();
    assert.equal(this.txns.run(txn, new ByteWriter()), null);
    this.store.end();
    this.endApply();
  }

  put(key: string, value: string): void {
    this.txn({ success: [{ put: { key: Buffer.from(key, 'latin1'), value: Buffer.from(value, 'latin1') } }] });
  }

  delete(key: string, rangeEnd = ''): void {
    this.txn({ success: [{ delete: { key: Buffer.from(key, 'latin1'), rangeEnd: Buffer.from(rangeEnd, 'latin1') } }] });
  }

  compact(revision: number): void {
    assert.equal(this.store.compact(revision), null);
    this.backend.compact(revision, () => {});
    this.endApply();
  }

  private endApply(): void {
    this.backend.endApply(this.backend.consistentIndex + 1, 1);
  }

  /** Asked now, answered when the flusher has come to it: null before. */
  askHashKv(revision: number): () => number | null {
    let hash: number | null = null;
    this.backend.hashKv(revision, this.store.compactRevision, (value) => {
      hash = value;
    });
    return () => hash;
  }

  hashKv(revision: number): number {
    const hash = this.askHashKv(revision);
    this.work();
    const value = hash();
    assert.ok(value !== null, 'a hash is not answered');
    return value;
  }

  /** Everything that the flusher has to do. */
  work(): void {
    while (this.port.step());
  }

  /** Starts anew on the same tables, which hold everything: this is not about the log's replay. */
  restart(): EngineBench {
    this.backend.flush(() => {});
    this.work();
    return new EngineBench(this.limits, this.indexLimits, this.tables);
  }
}
