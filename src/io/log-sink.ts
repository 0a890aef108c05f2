// Where log lines go: stderr, stdout and files, one write(2) for each line so that a crash loses none. A pipe whose reader has
// stopped must not stop the server: pipes and sockets are made non-blocking, and what they do not take waits in a bounded
// backlog; beyond it lines are dropped and the number of dropped ones is told later. Not rotation, not journald.

import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { logBacklogBytesMax, logExitFlushMsMax } from '../limits.ts';
import { formatLogTime, type LogSink } from '../telemetry/logger.ts';

const retryMs = 20;

/** A sink for the outputs of --log-outputs: 'stderr', 'stdout' or paths of files, which are appended to. */
export function openLogSink(outputs: readonly string[]): LogSink {
  const outlets = outputs.map((output) => {
    if (output === 'stderr') return new Outlet(unblocked(2));
    if (output === 'stdout') return new Outlet(unblocked(1));
    return new Outlet(openSync(output, 'a', 0o666));
  });
  return {
    write(line: string): void {
      const bytes = Buffer.from(line, 'utf8');
      for (const outlet of outlets) outlet.write(bytes);
    },
    flush(): void {
      const until = performance.now() + logExitFlushMsMax;
      for (const outlet of outlets) outlet.drainUntil(until);
    },
  };
}

/** Handles that only exist to keep a descriptor non-blocking; they are never read, written or closed. */
const keepers: Socket[] = [];

/**
 * A descriptor that answers EAGAIN instead of blocking. A pipe is opened anew, so that O_NONBLOCK is on an open file
 * description of our own and not on our parent's; a socket (journald, a Node parent) cannot be, there libuv sets the flag on
 * it as it does for every stream that it takes over. Files and terminals stay as they are.
 */
function unblocked(descriptor: number): number {
  try {
    const stat = fstatSync(descriptor);
    if (stat.isFIFO()) return openSync(`/proc/self/fd/${descriptor}`, constants.O_WRONLY | constants.O_NONBLOCK);
    if (stat.isSocket()) keepers.push(new Socket({ fd: descriptor, readable: false, writable: true }).unref());
  } catch {
    // Closed, or /proc not there: the descriptor as it is.
  }
  return descriptor;
}

/** One descriptor with its backlog. Exported for tests. */
export class Outlet {
  readonly #descriptor: number;
  #backlog: Buffer[] = [];
  #backlogBytes = 0;
  #dropped = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  write(bytes: Buffer): void {
    if (this.#backlog.length > 0) this.#drain();
    const rest = this.#backlog.length > 0 ? bytes : this.#put(bytes);
    if (rest !== null) this.#keep(rest);
  }

  /** Waits for the reader until a time of performance.now(). */
  drainUntil(until: number): void {
    this.#drain();
    const sleeper = new Int32Array(new SharedArrayBuffer(4));
    while (this.#backlog.length > 0 && performance.now() < until) {
      Atomics.wait(sleeper, 0, 0, 5);
      this.#drain();
    }
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    closeSync(this.#descriptor);
  }

  /** Writes what the descriptor takes; the rest, or null when all went or the descriptor is gone. */
  #put(bytes: Buffer): Buffer | null {
    let from = 0;
    while (from < bytes.length) {
      try {
        from += writeSync(this.#descriptor, bytes, from);
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code;
        if (code === 'EAGAIN') return bytes.subarray(from);
        if (code === 'EINTR') continue;
        // A closed pipe or a full disk: there is nowhere left to say so.
        return null;
      }
    }
    return null;
  }

  #keep(bytes: Buffer): void {
    if (this.#backlogBytes + bytes.length > logBacklogBytesMax) {
      this.#dropped++;
      return;
    }
    this.#backlog.push(bytes);
    this.#backlogBytes += bytes.length;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#drain();
    }, retryMs).unref();
  }

  #drain(): void {
    while (this.#backlog.length > 0) {
      const rest = this.#put(this.#backlog[0]!);
      this.#backlogBytes -= this.#backlog[0]!.length - (rest?.length ?? 0);
      if (rest !== null) {
        this.#backlog[0] = rest;
        this.#timer ??= setTimeout(() => {
          this.#timer = null;
          this.#drain();
        }, retryMs).unref();
        return;
      }
      this.#backlog.shift();
    }
    if (this.#dropped > 0) this.#tellDropped();
  }

  #tellDropped(): void {
    const ts = formatLogTime(Date.now());
    const msg = 'log lines were dropped, the reader was too slow';
    const line = JSON.stringify({ level: 'warn', ts, caller: 'io/log-sink.ts:133', msg, count: this.#dropped });
    this.#dropped = 0;
    this.write(Buffer.from(`${line}\n`));
  }
}
