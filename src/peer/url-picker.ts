// Which of a peer's URLs is used: one until it fails, then the next.

import { assert } from '../base/assert.ts';

export class UrlPicker {
  #urls: readonly string[] = [];
  #picked = 0;

  constructor(urls: readonly string[]) {
    this.update(urls);
  }

  /** In order, as etcd sorts them. */
  update(urls: readonly string[]): void {
    assert(urls.length > 0, 'a peer has a URL');
    this.#urls = [...urls].sort();
    this.#picked = 0;
  }

  pick(): string {
    return this.#urls[this.#picked]!;
  }

  /** Several users may have failed on the same one: the first moves on. */
  unreachable(url: string): void {
    if (url === this.#urls[this.#picked]) this.#picked = (this.#picked + 1) % this.#urls.length;
  }
}
