// Standard output: collected, then written whole and in order. Writes are synchronous, so that a watch's events are out before
// the program waits again and nothing is lost at exit. A reader that went away ends the program as SIGPIPE ends etcdctl. Output
// that cannot be written ends it with an error, where etcdctl goes on in silence: a script must not take half an answer for one.
//
// process.stdout and process.stderr are not used: making them makes pipes non-blocking, also for the other programs that write
// to them, and takes a millisecond.

import { writeSync } from 'node:fs';
import { ExitCode, ExitError } from './exit.ts';
import { isSystemError, reasonOf } from './system-error.ts';

const flushBytes = 64 * 1024;
const standardOutput = 1;
const standardError = 2;
const sleeper = new Int32Array(new SharedArrayBuffer(4));

export class Output {
  readonly #fd: number;
  #chunks: Buffer[] = [];
  #length = 0;

  constructor(fd: number = standardOutput) {
    this.#fd = fd;
  }

  bytes(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    if (this.#length >= flushBytes) this.flush();
  }

  text(text: string): void {
    this.bytes(Buffer.from(text, 'utf8'));
  }

  line(text: string): void {
    this.text(`${text}\n`);
  }

  /** What could not be written is gone: a second flush does not fail again. */
  flush(): void {
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks, this.#length);
    this.#chunks = [];
    this.#length = 0;
    try {
      writeAll(this.#fd, all);
    } catch (error) {
      if (isSystemError(error) && error.code === 'EPIPE') throw new ExitError(ExitCode.brokenPipe, null);
      throw new ExitError(ExitCode.error, `write /dev/stdout: ${reasonOf(error)}`);
    }
  }
}

/** On standard error. */
export function complain(text: string): void {
  try {
    writeAll(standardError, Buffer.from(text, 'utf8'));
  } catch {
    // There is nobody left to tell, and what was asked for goes on.
  }
}

function writeAll(fd: number, bytes: Buffer): void {
  let position = 0;
  while (position < bytes.length) {
    try {
      position += writeSync(fd, bytes, position);
    } catch (error) {
      if (!isSystemError(error) || error.code !== 'EAGAIN') throw error;
      // Somebody has made the pipe non-blocking, and its reader is slower than we are.
      Atomics.wait(sleeper, 0, 0, 5);
    }
  }
}
