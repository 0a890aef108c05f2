// The snapshot thread: pins the newest commit, lays etcd's buckets out as a bbolt file (src/snapshot/bolt-writer.ts) and
// hands its chunks to the core as they are asked for. Between two chunks it returns to its event loop; the view stays pinned.

import { ThreadHost } from '../io/flusher-thread.ts';
import { LmdbEnvironment, type PinnedView } from '../io/lmdb.ts';
import type { ReadTable } from '../io/table.ts';
import { type BucketSource, planBoltSteps, snapshotWithHash, writeBolt } from '../snapshot/bolt-writer.ts';
import { BUCKET_NAMES, type BucketName, MetaKey } from '../snapshot/schema.ts';
import { recoverNumbers } from './recovery.ts';
import {
  type BucketEntry,
  type FromSnapshot,
  type SnapshotState,
  type SnapshotTrailer,
  type SnapshotWorkerData,
  snapshotTrailer,
  type ToSnapshot,
} from './snapshot-source.ts';

/** Entries are read ahead in such pages: the writer pulls them one by one, a scan of a table cannot wait. */
const PAGE_ENTRIES = 256;
const PAGE_BYTES = 1024 * 1024;

class TableSource implements BucketSource {
  readonly name: Buffer;
  private readonly table: ReadTable;

  constructor(name: string, table: ReadTable) {
    this.name = Buffer.from(name);
    this.table = table;
  }

  *entries(): Generator<readonly [Buffer, Buffer], void, undefined> {
    let from: Buffer | undefined;
    for (;;) {
      const page: [Buffer, Buffer][] = [];
      let bytes = 0;
      this.table.scan(from, undefined, (key, value) => {
        page.push([Buffer.from(key), Buffer.from(value)]);
        bytes += value.length;
        return page.length < PAGE_ENTRIES && bytes < PAGE_BYTES;
      });
      const last = page.at(-1);
      if (last === undefined) return;
      yield* page;
      from = after(last[0]);
    }
  }

  *sizes(): Generator<readonly [number, number], void, undefined> {
    let from: Buffer | undefined;
    for (;;) {
      const page: [number, number][] = [];
      let last: Buffer | undefined;
      this.table.scan(from, undefined, (key, value) => {
        page.push([key.length, value.length]);
        if (page.length < PAGE_ENTRIES) return true;
        last = Buffer.from(key);
        return false;
      });
      yield* page;
      if (last === undefined) return;
      from = after(last);
    }
  }
}

/** The smallest key above. */
function after(key: Buffer): Buffer {
  return Buffer.concat([key, Buffer.alloc(1)]);
}

class SnapshotWorker {
  private readonly host = new ThreadHost<ToSnapshot, FromSnapshot>();
  private readonly environment: LmdbEnvironment;
  private readonly view: PinnedView;
  private readonly trailer: SnapshotTrailer;
  private readonly chunks: Generator<Buffer, void, undefined>;
  private wanted = 0;
  private scheduled = false;
  private ended = false;

  constructor() {
    const { path, trailer } = this.host.data as SnapshotWorkerData;
    this.trailer = trailer;
    this.environment = new LmdbEnvironment({ path, trusted: true, mapped: true });
    for (const name of [...BUCKET_NAMES, 'keelson']) this.environment.table(name);
    this.view = this.environment.pin();
    const sources = BUCKET_NAMES.map((name) => new TableSource(name, this.view.table(name)));
    this.chunks = this.run(sources);
    this.host.onMessage((message) => {
      if (message.kind === 'cancel') this.end();
      else this.wanted += message.count;
      this.wake();
    });
  }

  /** Plans, then gives chunks; an empty one between two slices of planning. */
  private *run(sources: readonly BucketSource[]): Generator<Buffer, void, undefined> {
    const steps = planBoltSteps(sources);
    for (;;) {
      const step = steps.next();
      if (step.done) {
        const plan = step.value;
        this.host.post({ kind: 'plan', fileBytes: plan.fileBytes, state: this.state() });
        yield* this.trailer === snapshotTrailer.hash ? snapshotWithHash(sources, plan) : writeBolt(sources, plan);
        return;
      }
      yield EMPTY;
    }
  }

  private state(): SnapshotState {
    const { view } = this;
    const { consistentIndex, consistentTerm } = recoverNumbers(view);
    const confState = view.table('meta').get(MetaKey.confState);
    const entries = (bucket: BucketName): BucketEntry[] => {
      const found: BucketEntry[] = [];
      view
        .table(bucket)
        .scan(undefined, undefined, (key, value) => found.push([Buffer.from(key), Buffer.from(value)]) > 0);
      return found;
    };
    return {
      consistentIndex,
      term: consistentTerm,
      confState: confState === undefined ? EMPTY : Buffer.from(confState),
      members: entries('members'),
      membersRemoved: entries('members_removed'),
      cluster: entries('cluster'),
    };
  }

  private wake(): void {
    if (this.scheduled || this.ended || this.wanted === 0) return;
    this.scheduled = true;
    this.host.defer(() => {
      this.scheduled = false;
      if (this.ended) return;
      try {
        this.step();
      } catch (error) {
        const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
        this.host.post({ kind: 'failed', message });
        this.end();
      }
      this.wake();
    });
  }

  private step(): void {
    const next = this.chunks.next();
    if (next.done === true) {
      this.host.post({ kind: 'end' });
      this.end();
      return;
    }
    const chunk = next.value;
    if (chunk.length === 0) return;
    this.wanted--;
    const memory = ownMemory(chunk);
    this.host.post({ kind: 'chunk', memory, length: chunk.length }, [memory]);
  }

  private end(): void {
    if (this.ended) return;
    this.ended = true;
    this.view.close();
    this.environment.close();
    this.host.end();
  }
}

const EMPTY: Buffer = Buffer.alloc(0);

/** The memory to move: the chunk's own, or a copy when it shares a pool. */
function ownMemory(chunk: Buffer): ArrayBuffer {
  const memory = chunk.buffer;
  if (memory instanceof ArrayBuffer && chunk.byteOffset === 0 && memory.byteLength <= 2 * chunk.length) return memory;
  const copy = new ArrayBuffer(chunk.length);
  Buffer.from(copy).set(chunk);
  return copy;
}

new SnapshotWorker();
