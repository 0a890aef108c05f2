// The connections that have something to write. Answers of a turn collect in each connection's arena; one flush a
// connection and turn then makes one socket write of them.
//
// Who flushes: io/listener.ts the socket whose input it just handed in; the server's ready loop all (`flushAll`) after it
// has applied a batch; and, so that nothing is ever forgotten, a callback scheduled for the end of the turn when the first
// connection enters.

/** Flushes once. Puts itself back into the queue when others should have their turn first. */
export interface Flushable {
  flush(): void;
}

export class FlushQueue {
  private readonly schedule: (run: () => void) => void;
  private queue: Flushable[] = [];
  private scheduled = false;
  private readonly run: () => void;

  /** `schedule` runs a function once, later in this turn or in the next (setImmediate). */
  constructor(schedule: (run: () => void) => void) {
    this.schedule = schedule;
    this.run = (): void => {
      this.scheduled = false;
      this.flushAll();
    };
  }

  /** The caller sees to it that a connection enters once. */
  add(connection: Flushable): void {
    this.queue.push(connection);
    if (this.scheduled) return;
    this.scheduled = true;
    this.schedule(this.run);
  }

  /** Flushes all that are in the queue now. What enters meanwhile waits for the next call. */
  flushAll(): void {
    if (this.queue.length === 0) return;
    const queue = this.queue;
    this.queue = [];
    for (const connection of queue) connection.flush();
  }
}
