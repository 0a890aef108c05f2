// Worker threads of the storage engine, both sides, without knowing what they do: the messages are src/backend's. Not the WAL
// thread, which waits in shared memory instead (wal-thread.ts).

import { parentPort, Worker, workerData } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import { ensureWorkingDirectory } from './working-directory.ts';

export interface ThreadEvents<Out> {
  message(message: Out): void;
  /** The thread threw and is gone. */
  failed(error: unknown): void;
  /** The thread ended, by itself, by terminate() or after failed(). */
  ended(): void;
}

/** The starter's side. */
export class Thread<In, Out> {
  private readonly worker: Worker;

  constructor(script: URL, data: unknown, events: ThreadEvents<Out>) {
    ensureWorkingDirectory();
    this.worker = new Worker(script, { workerData: data, stdout: false, stderr: false });
    this.worker.on('message', (message: Out) => events.message(message));
    this.worker.on('error', (error) => events.failed(error));
    this.worker.on('exit', () => events.ended());
  }

  post(message: In): void {
    this.worker.postMessage(message);
  }

  terminate(): void {
    void this.worker.terminate();
  }
}

/** The thread's own side. */
export class ThreadHost<In, Out> {
  readonly data: unknown = workerData;

  onMessage(receive: (message: In) => void): void {
    assert(parentPort !== null, 'a thread host outside of a thread');
    parentPort.on('message', receive);
  }

  /** `moved`: memory that the message takes with it, so that it is not copied. */
  post(message: Out, moved: ArrayBuffer[] = []): void {
    assert(parentPort !== null, 'a thread host outside of a thread');
    parentPort.postMessage(message, moved);
  }

  /** Runs `work` after the messages that have already arrived. */
  defer(work: () => void): void {
    setImmediate(work);
  }

  /** Lets the thread end when nothing else keeps it. */
  end(): void {
    parentPort?.close();
  }
}
