// A snapshot as the core sees it: chunks of a bbolt file with etcd's trailing SHA-256, made by a thread of its own
// (snapshot-worker.ts) from one pinned commit, pushed into a sink. The sink's pace decides: the thread is never more than a
// few chunks ahead, so memory stays bounded whatever the size and however slow the client.

import { Thread } from '../io/flusher-thread.ts';
import { backendLimits } from '../limits.ts';

export interface SnapshotWorkerData {
  readonly path: string;
}

export type ToSnapshot =
  /** So many more chunks are wanted. */
  { readonly kind: 'more'; readonly count: number } | { readonly kind: 'cancel' };

export type FromSnapshot =
  | { readonly kind: 'plan'; readonly fileBytes: number }
  | { readonly kind: 'chunk'; readonly memory: ArrayBuffer; readonly length: number }
  | { readonly kind: 'end' }
  | { readonly kind: 'failed'; readonly message: string };

/** Where a snapshot goes. */
export interface SnapshotSink {
  /** Bytes of the file, without the 32 of the hash that follow it. */
  started(fileBytes: number): void;
  /** Bytes of the file, in the last chunk those of its hash; they are the sink's. False: call resume() for more. */
  chunk(bytes: Buffer): boolean;
  /** Once, at the end or when it fails; not after cancel(). */
  done(error: Error | null): void;
}

export class SnapshotReader {
  private readonly sink: SnapshotSink;
  private thread: Thread<ToSnapshot, FromSnapshot> | null = null;
  private readonly chunks: Buffer[] = [];
  private paused = false;
  /** The thread has sent its last chunk. */
  private ended = false;
  /** The sink has heard the end, or wants to hear nothing more. */
  private closed = false;

  constructor(sink: SnapshotSink) {
    this.sink = sink;
  }

  /** Starts the thread over the newest commit of the database at `path`. */
  start(path: string): void {
    if (this.closed) return;
    const data: SnapshotWorkerData = { path };
    this.thread = new Thread(new URL('./snapshot-worker.ts', import.meta.url), data, {
      message: (message: FromSnapshot) => this.receive(message),
      failed: (error) => this.fail(error instanceof Error ? error : new Error(String(error))),
      ended: () => {
        if (!this.ended) this.fail(new Error('snapshot thread ended by itself'));
      },
    });
    this.thread.post({ kind: 'more', count: backendLimits.snapshotChunksInFlight });
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
        this.sink.started(message.fileBytes);
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
