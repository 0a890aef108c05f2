// The database of a simulated member: the engine itself over tables in memory (memory-tables.ts), whose commits are atomic and durable,
// with its flusher a step at a time as simulated time goes by. What the server does on other threads over LMDB files is done here on
// this one: the reading of a snapshot, the making of a database of one, and their taking of the old one's place.

import { Backend } from '../backend/backend.ts';
import {
  type BackendOptions,
  type BackendParts,
  effectiveLimits,
  type Installer,
  type SnapshotFile,
} from '../backend/backend-options.ts';
import { FlusherInline } from '../backend/flusher-port.ts';
import type { FromFlusher, ToFlusher } from '../backend/messages.ts';
import { recoverNumbers } from '../backend/recovery.ts';
import { type ConversionTarget, convertSnapshot, type DatabaseFiles } from '../backend/snapshot-conversion.ts';
import {
  type BucketEntry,
  SnapshotReader,
  type SnapshotSink,
  type SnapshotState,
  type SnapshotTrailer,
  snapshotTrailer,
} from '../backend/snapshot-source.ts';
import { FatalError } from '../base/fatal.ts';
import { type Clock, SimClock } from '../io/clock.ts';
import type { Disk } from '../io/file.ts';
import type { StreamFile } from '../io/stream-file.ts';
import type { ReadEnvironment } from '../io/table.ts';
import { type BucketSource, planBolt, snapshotWithHash, writeBolt } from '../snapshot/bolt-writer.ts';
import { BUCKET_NAMES, MetaKey } from '../snapshot/schema.ts';
import { type BackendLimits, backendLimits, type IndexLimits, indexLimits } from '../storage-limits.ts';
import { MemoryStore } from './memory-tables.ts';

/** Small, so that slabs, merges and slices turn over in a short life. */
export const smallLimits: BackendLimits = {
  ...backendLimits,
  slabBytes: 65536,
  commitRows: 20,
  mergeEntries: 40,
  mergeSliceKeys: 10,
  mergeStepKeys: 5,
  mergeIdleTicks: 3,
  compactSliceRows: 10,
  indexLagEntriesMax: 400,
};
const smallIndexLimits: IndexLimits = {
  ...indexLimits,
  deltaEntries: 512,
  keySlabBytes: 4096,
  countBlockKeys: 16,
  countBlockKeysMin: 4,
};

/** What a member lends: where its tables are, over all its lives, and how work of this life is done later. */
export interface DatabaseHost {
  tables: MemoryStore;
  readonly disk: Disk;
  readonly clock: Clock;
  /** As this life of the member, after a time of the disk's. */
  later(run: () => void): void;
}

export function openSimBackend(host: DatabaseHost, options: BackendOptions): Backend {
  const all = { ...options, indexLimits: smallIndexLimits };
  return new SimBackend(host, all, { ...partsOf(host, all), installer: new SimInstaller(host, all) });
}

function partsOf(host: DatabaseHost, options: BackendOptions): BackendParts {
  const { tables, clock } = host;
  const flusher = {
    environment: tables.openWriter(),
    pin: () => tables.openReader(),
    now: () => clock.nowMs(),
    limits: effectiveLimits(options),
  };
  return { reader: tables.openReader(), port: new SimFlusherPort(flusher, (step) => host.later(step)), reopen: null };
}

/** The flusher, a step at a time. */
class SimFlusherPort extends FlusherInline {
  private readonly later: (step: () => void) => void;
  private isPlanned = false;

  constructor(options: ConstructorParameters<typeof FlusherInline>[0], later: (step: () => void) => void) {
    super(options);
    this.later = later;
  }

  override post(message: ToFlusher): void {
    super.post(message);
    this.plan();
  }

  override listen(receive: (message: FromFlusher) => void, failed: (error: FatalError) => void): void {
    super.listen(receive, failed);
    this.plan();
  }

  private plan(): void {
    if (this.isPlanned) return;
    this.isPlanned = true;
    this.later(() => {
      this.isPlanned = false;
      if (this.step()) this.plan();
    });
  }
}

class SimBackend extends Backend {
  private readonly host: DatabaseHost;

  constructor(host: DatabaseHost, options: BackendOptions, parts: BackendParts) {
    super(options, parts);
    this.host = host;
  }

  override snapshot(sink: SnapshotSink, trailer: SnapshotTrailer = snapshotTrailer.hash): SnapshotReader {
    const reader = new SimSnapshotReader(this.host, sink, trailer);
    this.flush((error) => {
      if (error !== null) reader.fail(error);
      else reader.start();
    });
    return reader;
  }
}

/** A snapshot of the newest commit, chunk by chunk. */
class SimSnapshotReader extends SnapshotReader {
  readonly #host: DatabaseHost;
  readonly #sink: SnapshotSink;
  readonly #trailer: SnapshotTrailer;
  #chunks: Iterator<Buffer, void, undefined> | null = null;
  #isPaused = false;
  #isClosed = false;
  #isPlanned = false;

  constructor(host: DatabaseHost, sink: SnapshotSink, trailer: SnapshotTrailer) {
    super(sink, trailer);
    this.#host = host;
    this.#sink = sink;
    this.#trailer = trailer;
  }

  override start(): void {
    const view = this.#host.tables.openReader();
    this.#host.later(() => {
      if (this.#isClosed) return;
      const sources = BUCKET_NAMES.map((name) => sourceOf(view, name));
      const plan = planBolt(sources);
      const hasHash = this.#trailer === snapshotTrailer.hash;
      this.#chunks = hasHash ? snapshotWithHash(sources, plan) : writeBolt(sources, plan);
      this.#sink.started(plan.fileBytes, stateOf(view));
      this.#plan();
    });
  }

  #plan(): void {
    if (this.#isPlanned || this.#isPaused || this.#isClosed || this.#chunks === null) return;
    this.#isPlanned = true;
    this.#host.later(() => {
      this.#isPlanned = false;
      this.#step();
    });
  }

  #step(): void {
    if (this.#isPaused || this.#isClosed) return;
    const next = this.#chunks!.next();
    if (next.done === true) {
      this.#isClosed = true;
      this.#sink.done(null);
      return;
    }
    if (next.value.length > 0 && !this.#sink.chunk(Buffer.from(next.value))) this.#isPaused = true;
    this.#plan();
  }

  override pause(): void {
    this.#isPaused = true;
  }

  override resume(): void {
    this.#isPaused = false;
    this.#plan();
  }

  override cancel(): void {
    this.#isClosed = true;
  }

  override fail(error: Error): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#sink.done(error);
  }
}

function entriesOf(view: ReadEnvironment, name: string): BucketEntry[] {
  const entries: BucketEntry[] = [];
  view.table(name).scan(undefined, undefined, (key, value) => entries.push([Buffer.from(key), Buffer.from(value)]) > 0);
  return entries;
}

function sourceOf(view: ReadEnvironment, name: string): BucketSource {
  const entries = entriesOf(view, name);
  return {
    name: Buffer.from(name),
    *entries() {
      yield* entries;
    },
    *sizes() {
      for (const [key, value] of entries) yield [key.length, value.length];
    },
  };
}

function stateOf(view: ReadEnvironment): SnapshotState {
  const { consistentIndex, consistentTerm } = recoverNumbers(view);
  const confState = view.table('meta').get(MetaKey.confState);
  return {
    consistentIndex,
    term: consistentTerm,
    confState: Buffer.from(confState ?? Buffer.alloc(0)),
    members: entriesOf(view, 'members'),
    membersRemoved: entriesOf(view, 'members_removed'),
    cluster: entriesOf(view, 'cluster'),
  };
}

/** An empty database that a snapshot is to be made into. */
function targetOver(tables: MemoryStore, options: Partial<BackendOptions>): ConversionTarget {
  const limits = options.limits ?? smallLimits;
  const reader = tables.openReader();
  const flusher = new FlusherInline({
    environment: tables.openWriter(),
    pin: () => tables.openReader(),
    now: () => 0,
    limits,
  });
  const onFatal = (error: FatalError): never => {
    throw error;
  };
  // Its clock stands still: it works when it is told to.
  const all = { path: 'next', clock: new SimClock(), onFatal, limits, indexLimits: smallIndexLimits };
  const backend = new Backend(all, { reader, port: flusher, reopen: null });
  return { backend, flusher, discard: () => reader.close() };
}

class SimInstaller implements Installer {
  private readonly host: DatabaseHost;
  private readonly options: BackendOptions;
  private next: MemoryStore | null = null;
  private isCancelled = false;

  constructor(host: DatabaseHost, options: BackendOptions) {
    this.host = host;
    this.options = options;
  }

  convert(snapshot: SnapshotFile, done: (error: FatalError | null) => void): void {
    this.host.later(() => {
      if (this.isCancelled) return;
      const next = new MemoryStore();
      let failure: FatalError | null = null;
      try {
        convertSnapshot(this.host.disk, snapshot, targetOver(next, this.options));
      } catch (error) {
        if (!(error instanceof FatalError)) throw error;
        failure = error;
      }
      this.next = next;
      done(failure);
    });
  }

  replace(): BackendParts {
    this.host.tables = this.next!;
    this.next = null;
    return partsOf(this.host, this.options);
  }

  cancel(): void {
    this.isCancelled = true;
  }
}

/** What a start does with databases that nobody has open. */
export function simDatabases(host: DatabaseHost): DatabaseFiles {
  let next: MemoryStore | null = null;
  return {
    consistentIndex: () => recoverNumbers(host.tables.openReader()).consistentIndex,
    openNext: () => {
      next = new MemoryStore();
      return targetOver(next, {});
    },
    putInPlace: () => {
      host.tables = next!;
    },
  };
}

/** A file that a snapshot arrives in. */
export class SimStreamFile implements StreamFile {
  drained: (() => void) | null = null;
  readonly #host: DatabaseHost;
  readonly #fd: number;
  #isOpen = true;
  #position = 0;
  #error: Error | null = null;

  constructor(host: DatabaseHost, path: string) {
    this.#host = host;
    this.#fd = host.disk.open(path, 'create');
  }

  write(bytes: Buffer): boolean {
    if (this.#error !== null || !this.#isOpen) return true;
    this.#attempt(() => {
      let done = 0;
      while (done < bytes.length) {
        done += this.#host.disk.write(this.#fd, bytes, done, bytes.length - done, this.#position + done);
      }
      this.#position += bytes.length;
    });
    this.#host.later(() => this.drained?.());
    return false;
  }

  #attempt(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof Error) || !('code' in error)) throw error;
      this.#error = error;
    }
  }

  end(done: (error: Error | null) => void): void {
    this.#host.later(() => {
      if (!this.#isOpen) return;
      if (this.#error === null) this.#attempt(() => this.#host.disk.fdatasync(this.#fd));
      this.#close();
      done(this.#error);
    });
  }

  /** What ends nevertheless tells nobody. */
  abort(closed: () => void): void {
    if (this.#isOpen) this.#close();
    this.#host.later(closed);
  }

  #close(): void {
    this.#isOpen = false;
    this.#host.disk.close(this.#fd);
  }
}
