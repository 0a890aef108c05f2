// The flusher thread: drives a Flusher over LMDB, one bounded step between two looks at its messages. Started by
// flusher-port.ts with the path of the database.

import { armFailpoints } from '../base/failpoint.ts';
import { processFailpointControl } from '../io/failpoint-http.ts';
import { ThreadHost } from '../io/flusher-thread.ts';
import { LmdbEnvironment } from '../io/lmdb.ts';
import type { BackendLimits } from '../storage-limits.ts';
import { DefragJob } from './defrag.ts';
import { Flusher, failureOf } from './flusher.ts';
import type { FromFlusher, ToFlusher } from './messages.ts';

export interface FlusherWorkerData {
  readonly path: string;
  readonly noSync: boolean;
  readonly failpoints: SharedArrayBuffer | null;
  readonly limits: BackendLimits;
}

class FlusherWorker {
  private readonly host = new ThreadHost<ToFlusher, FromFlusher>();
  private readonly flusher: Flusher;
  private scheduled = false;

  constructor() {
    const data = this.host.data as FlusherWorkerData;
    if (data.failpoints !== null) armFailpoints(processFailpointControl, data.failpoints);
    const environment = new LmdbEnvironment({ path: data.path, noSync: data.noSync, trusted: true, mapped: true });
    this.flusher = new Flusher({
      environment,
      pin: () => environment.pin(),
      now: () => performance.now(),
      send: (message) => this.send(message),
      limits: data.limits,
      defrag: (flusher) => new DefragJob(flusher, environment),
    });
    this.host.onMessage((message) => {
      this.guard(() => this.flusher.receive(message));
      this.wake();
    });
  }

  private send(message: FromFlusher): void {
    this.host.post(message);
    if (message.kind === 'closed') this.host.end();
  }

  private wake(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    this.host.defer(() => {
      this.scheduled = false;
      if (this.guard(() => this.flusher.step())) this.wake();
    });
  }

  /** After a failure nothing more is done: the core ends the process. */
  private guard(work: () => unknown): boolean {
    try {
      return work() === true;
    } catch (error) {
      this.send(failureOf(error));
      this.host.end();
      return false;
    }
  }
}

new FlusherWorker();
