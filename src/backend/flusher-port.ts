// How the core reaches the flusher: in a thread of its own (the server), or on the caller's thread when it says so (tests,
// simulation). The flusher itself is the same.

import { ExitCode, FatalError } from '../base/fatal.ts';
import { Thread } from '../io/flusher-thread.ts';
import { Flusher, type FlusherOptions, failureOf } from './flusher.ts';
import type { FlusherWorkerData } from './flusher-worker.ts';
import type { FromFlusher, ToFlusher } from './messages.ts';

export interface FlusherPort {
  post(message: ToFlusher): void;
  /** Where messages of the flusher go; set once, in the turn of the first post. */
  listen(receive: (message: FromFlusher) => void, failed: (error: FatalError) => void): void;
}

/** The flusher on a worker thread over LMDB. */
export class FlusherThread implements FlusherPort {
  private readonly thread: Thread<ToFlusher, FromFlusher>;
  private receive: (message: FromFlusher) => void = () => {};
  private failed: (error: FatalError) => void = () => {};
  private closed = false;

  constructor(data: FlusherWorkerData) {
    this.thread = new Thread(new URL('./flusher-worker.ts', import.meta.url), data, {
      message: (message: FromFlusher) => {
        if (message.kind === 'closed') this.closed = true;
        this.receive(message);
      },
      failed: (error) => this.fail(`flusher thread: ${error instanceof Error ? error.stack : String(error)}`),
      ended: () => {
        if (!this.closed) this.fail('flusher thread ended by itself');
      },
    });
  }

  private fail(message: string): void {
    this.closed = true;
    this.failed(new FatalError(ExitCode.bug, message));
  }

  post(message: ToFlusher): void {
    this.thread.post(message);
  }

  listen(receive: (message: FromFlusher) => void, failed: (error: FatalError) => void): void {
    this.receive = receive;
    this.failed = failed;
  }
}

/** The flusher on the caller's thread: works only inside run() or step(). */
export class FlusherInline implements FlusherPort {
  readonly flusher: Flusher;
  private readonly answers: FromFlusher[] = [];
  private receive: (message: FromFlusher) => void = () => {};
  private failed: (error: FatalError) => void = () => {};

  constructor(options: Omit<FlusherOptions, 'send'>) {
    this.flusher = new Flusher({ ...options, send: (message) => void this.answers.push(message) });
  }

  post(message: ToFlusher): void {
    this.flusher.receive(message);
  }

  listen(receive: (message: FromFlusher) => void, failed: (error: FatalError) => void): void {
    this.receive = receive;
    this.failed = failed;
  }

  /** One piece of work, and its answers to the core; false when there was none. */
  step(): boolean {
    let worked = false;
    try {
      worked = this.flusher.step();
    } catch (error) {
      const failure = failureOf(error);
      if (failure.kind === 'failed') this.failed(new FatalError(failure.exitCode, failure.message, { cause: error }));
      return false;
    }
    return this.deliver() || worked;
  }

  /** Delivers answers that wait; false when there was none. */
  deliver(): boolean {
    const waiting = this.answers.splice(0);
    for (const message of waiting) this.receive(message);
    return waiting.length > 0;
  }

  /** Until there is nothing to do. */
  run(): void {
    while (this.step()) {
      // Each step is bounded; the loop ends when the flusher has caught up.
    }
  }
}
