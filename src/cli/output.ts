// Standard output: collected, then written whole and in order. Writes are synchronous, so that a watch's events are out before
// the program waits again and nothing is lost at exit. A reader that went away ends the program as SIGPIPE ends etcdctl.

import { writeSync } from 'node:fs';
import { ExitCode, ExitError } from './exit.ts';

const flushBytes = 64 * 1024;
const sleeper = new Int32Array(new SharedArrayBuffer(4));

export class Output {
  readonly #fd: number;
  #chunks: Buffer[] = [];
  #length = 0;

  constructor(fd = 1) {
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

  flush(): void {
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks, this.#length);
    this.#chunks = [];
    this.#length = 0;
    let position = 0;
    while (position < all.length) {
      try {
        position += writeSync(this.#fd, all, position);
      } catch (error) {
        const code = error instanceof Error && 'code' in error ? error.code : null;
        if (code === 'EPIPE') throw new ExitError(ExitCode.brokenPipe, null);
        if (code !== 'EAGAIN') throw error;
        // Whoever reads the pipe has made it non-blocking and is slower than we are.
        Atomics.wait(sleeper, 0, 0, 5);
      }
    }
  }
}
