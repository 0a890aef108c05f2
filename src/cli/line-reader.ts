// Lines of standard input as byte strings, each as soon as it is there.

import { inputChunks } from './input.ts';

export class LineReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest = '';
  #isEnded = false;

  constructor(input: AsyncIterable<Buffer> = inputChunks()) {
    this.#chunks = input[Symbol.asyncIterator]();
  }

  /** Without its newline; null at the end, also when a last line has no newline, as etcdctl reads. */
  async next(): Promise<string | null> {
    for (;;) {
      const newline = this.#rest.indexOf('\n');
      if (newline >= 0) {
        const line = this.#rest.slice(0, newline);
        this.#rest = this.#rest.slice(newline + 1);
        return line;
      }
      if (this.#isEnded) return null;
      const { value, done } = await this.#chunks.next();
      if (done === true) this.#isEnded = true;
      else this.#rest += value.toString('latin1');
    }
  }
}
