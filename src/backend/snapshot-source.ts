// A snapshot as the core sees it: chunks of a bbolt file, with etcd's trailing SHA-256 where clients save it, made by a thread of its own
// (snapshot-worker.ts) from one pinned commit, pushed into a sink. The sink's pace decides: the thread is never more than a
// few chunks ahead, so memory stays bounded whatever the size and however slow the client.

import { Thread } from '../io/flusher-thread.ts';
import { backendLimits } from '../storage-limits.ts';

/** What follows the file: clients save it with its hash, members send it to each other without. */
export const snapshotTrailer = { hash: 'hash', none: 'none' } as const;
export type SnapshotTrailer = (typeof snapshotTrailer)[keyof typeof snapshotTrailer];

export interface SnapshotWorkerData {
  readonly path: string;
  readonly trailer: SnapshotTrailer;
}

export type BucketEntry = readonly [key: Buffer, value: Buffer];

/** What a snapshot is of, read from the very commit that it is made of. */
export interface SnapshotState {
  readonly consistentIndex: number;
  readonly term: number;
  /** As it is stored; empty: there is none. */
  readonly confState: Buffer;
  readonly members: readonly BucketEntry[];
  readonly membersRemoved: readonly BucketEntry[];
  readonly cluster: readonly BucketEntry[];
}

export type ToSnapshot =
  /** So many more chunks are wanted. */
  { readonly kind: 'more'; readonly count: number } | { readonly kind: 'cancel' };

export type FromSnapshot =
  | { readonly kind: 'plan'; readonly fileBytes: number; readonly state: SnapshotState }
  | { readonly kind: 'chunk'; readonly memory: ArrayBuffer; readonly length: number }
  | { readonly kind: 'end' }
  | { readonly kind: 'failed'; readonly message: string };

/** Where a snapshot goes. */
export interface SnapshotSink {
  /** Bytes of the file, without the 32 of the hash that follow it. */
  started(fileBytes: number, state: SnapshotState): void;
  /** Bytes of the file, in the last chunk those of its hash; they are the sink's. False: call resume() for more. */
  chunk(bytes: Buffer): boolean;
  /** Once, at the end or when it fails; not after cancel(). */
  done(error: Error | null): void;
}

export class SnapshotReader {
  private readonly sink: SnapshotSink;
  private readonly trailer: SnapshotTrailer;
  private thread: Thread<ToSnapshot, FromSnapshot> | null = null;
  private readonly chunks: Buffer[] = [];
  private paused = false;
  /** The thread has sent its last chunk. */
  private ended = false;
  /** The sink has heard the end, or wants to hear nothing more. */
  private closed = false;

  constructor(sink: SnapshotSink, trailer: SnapshotTrailer) {
    this.sink = sink;
    this.trailer = trailer;
  }

  /** Starts the thread over the newest commit of the database at `path`. */
  start(path: string): void {
    if (this.closed) return;
    const data: SnapshotWorkerData = { path, trailer: this.trailer };
    this.thread = new Thread(new URL('./snapshot-worker.ts', import.meta.url), data, {
      message: (message: FromSnapshot) => this.receive(message),
      failed: (error) => this.fail(error instanceof Error ? error : new Error(String(error))),
      ended: () => {
        if (!this.ended) this.fail(new Error('snapshot thread ended by itself'));
      },
    });
    this.thread.post({ kind: 'more', count: backendLimits.snapshotChunksInFlight });
  }

  /** The sink takes nothing until it says so. */
  pause(): void {
    this.paused = true;
  }

  /** The sink takes more. */
  resume(): void {
    this.paused = false;
    this.deliver();
  }

  /** Ends the thread and lets go of the pinned commit; the sink hears nothing more. */
  cancel(): void {
    if (this.closed) return;
    this.closed = true;
    this.chunks.length = 0;
    if (!this.ended) this.thread?.post({ kind: 'cancel' });
  }

  fail(error: Error): void {
    this.ended = true;
    if (this.closed) return;
    this.closed = true;
    this.chunks.length = 0;
    this.sink.done(error);
  }

  private receive(message: FromSnapshot): void {
    if (this.closed) return;
    switch (message.kind) {
      case 'plan':
        this.sink.started(message.fileBytes, bufferState(message.state));
        return;
      case 'chunk':
        this.chunks.push(Buffer.from(message.memory, 0, message.length));
        break;
      case 'end':
        this.ended = true;
        break;
      case 'failed':
        this.fail(new Error(message.message));
        return;
    }
    this.deliver();
  }

  private deliver(): void {
    while (!this.paused && !this.closed) {
      const chunk = this.chunks.shift();
      if (chunk === undefined) break;
      if (!this.ended) this.thread?.post({ kind: 'more', count: 1 });
      this.paused = !this.sink.chunk(chunk);
    }
    if (!this.ended || this.closed || this.chunks.length > 0) return;
    this.closed = true;
    this.sink.done(null);
  }
}

/** Buffers come as plain byte arrays from another thread. */
function bufferState(state: SnapshotState): SnapshotState {
  const entries = (list: readonly BucketEntry[]): BucketEntry[] =>
    list.map(([key, value]) => [Buffer.from(key), Buffer.from(value)]);
  return {
    consistentIndex: state.consistentIndex,
    term: state.term,
    confState: Buffer.from(state.confState),
    members: entries(state.members),
    membersRemoved: entries(state.membersRemoved),
    cluster: entries(state.cluster),
  };
}
