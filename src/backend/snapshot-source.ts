// A snapshot as the core sees it: chunks of a bbolt file with etcd's trailing SHA-256, made by a thread of its own
// (snapshot-worker.ts) from one pinned commit. The reader's pace decides: the thread is never more than a few chunks ahead,
// so memory stays bounded whatever the size and however slow the client.

import { assert } from '../base/assert.ts';
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

type ReadDone = (error: Error | null, chunk: Buffer | null) => void;
type StartDone = (error: Error | null, source: SnapshotSource | null) => void;

export class SnapshotSource {
  /** Bytes of the file with the trailing hash: the sum of all chunks. */
  totalBytes = 0;
  private readonly thread: Thread<ToSnapshot, FromSnapshot>;
  private started: StartDone | null;
  private readonly chunks: Buffer[] = [];
  private waiting: ReadDone | null = null;
  private state: 'running' | 'ended' | 'cancelled' = 'running';
  private error: Error | null = null;

  constructor(path: string, started: StartDone) {
    this.started = started;
    const data: SnapshotWorkerData = { path };
    this.thread = new Thread(new URL('./snapshot-worker.ts', import.meta.url), data, {
      message: (message: FromSnapshot) => this.receive(message),
      failed: (error) => this.fail(error instanceof Error ? error : new Error(String(error))),
      ended: () => {
        if (this.state === 'running') this.fail(new Error('snapshot thread ended by itself'));
      },
    });
    this.thread.post({ kind: 'more', count: backendLimits.snapshotChunksInFlight });
  }

  /** The next chunk, null after the last; the chunk is the caller's. One read at a time; may answer within the call. */
  read(done: ReadDone): void {
    assert(this.waiting === null, 'snapshot: two reads at once');
    assert(this.state !== 'cancelled', 'snapshot: read after cancel');
    const chunk = this.chunks.shift();
    if (chunk !== undefined) {
      if (this.state === 'running') this.thread.post({ kind: 'more', count: 1 });
      done(null, chunk);
    } else if (this.error !== null || this.state === 'ended') {
      done(this.error, null);
    } else {
      this.waiting = done;
    }
  }

  /** Ends the thread and lets go of the pinned commit; no read is answered afterwards. */
  cancel(): void {
    this.waiting = null;
    this.chunks.length = 0;
    if (this.state === 'running') this.thread.post({ kind: 'cancel' });
    this.state = 'cancelled';
  }

  private receive(message: FromSnapshot): void {
    if (this.state === 'cancelled') return;
    switch (message.kind) {
      case 'plan': {
        this.totalBytes = message.fileBytes + HASH_BYTES;
        const started = this.started;
        this.started = null;
        started?.(null, this);
        return;
      }
      case 'chunk':
        this.chunks.push(Buffer.from(message.memory, 0, message.length));
        break;
      case 'end':
        this.state = 'ended';
        break;
      case 'failed':
        this.fail(new Error(message.message));
        return;
    }
    this.answer();
  }

  private answer(): void {
    const done = this.waiting;
    if (done === null) return;
    this.waiting = null;
    this.read(done);
  }

  private fail(error: Error): void {
    if (this.state !== 'running') return;
    this.state = 'ended';
    this.error = error;
    const started = this.started;
    this.started = null;
    started?.(error, null);
    this.answer();
  }
}

const HASH_BYTES = 32;

/** Starts the thread over the newest commit of the database at `path`; answers when the size is known. */
export function startSnapshot(path: string, done: StartDone): void {
  new SnapshotSource(path, done);
}
