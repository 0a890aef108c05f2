// A crowd of watchers on a few connections, each of a key that some share: when a connection ends they all go on over another one from the
// first revision that they have not seen. What each has seen is kept as a count and a sum, and is checked against the store's history.

import assert from 'node:assert/strict';
import { sleep } from './program.ts';
import { EtcdClient, type WatchAnswer, type WatchStream } from './support/etcd-client.ts';

const watchersAKey = 10;

export const crowdKey = (watcher: number): string => `crowd/${Math.floor(watcher / watchersAKey)}`;

class Connection {
  readonly #crowd: WatchCrowd;
  readonly #first: number;
  readonly #count: number;
  #opened = 0;
  #created = 0;
  #client: EtcdClient | null = null;
  #stream: WatchStream | null = null;

  constructor(crowd: WatchCrowd, first: number, count: number) {
    this.#crowd = crowd;
    this.#first = first;
    this.#count = count;
  }

  isWhole(opened: number): boolean {
    return this.#opened >= opened && this.#created === this.#count;
  }

  async follow(): Promise<void> {
    const { crowd, first, count } = { crowd: this.#crowd, first: this.#first, count: this.#count };
    while (crowd.running) {
      this.#created = 0;
      this.#opened++;
      this.#client = new EtcdClient(crowd.endpoint());
      this.#stream = this.#client.watch((answer) => this.#receive(answer));
      for (let watcher = first; watcher < first + count; watcher++) {
        const startRevision = crowd.next[watcher]!;
        this.#stream.send({
          createRequest: { key: Buffer.from(crowdKey(watcher)), startRevision, watchId: BigInt(watcher + 1) },
        });
      }
      await this.#stream.ended;
      this.#client.close();
      await sleep(50);
    }
  }

  #receive(answer: WatchAnswer): void {
    const watcher = Number(answer.watchId) - 1;
    assert.ok(!answer.canceled, `canceled: ${answer.cancelReason} ${answer.compactRevision}`);
    if (answer.created) {
      this.#created++;
      return;
    }
    for (const { kv } of answer.events) this.#crowd.see(watcher, kv!.modRevision);
  }

  cancel(): void {
    this.#stream?.cancel();
  }
}

export class WatchCrowd {
  /** By watcher, the first revision that it has not seen. */
  readonly next: Float64Array;
  readonly counts: Uint32Array;
  readonly sums: Float64Array;
  events = 0;
  disorder = 0;
  running = true;
  #endpoints: readonly string[];
  #asked = 0;
  readonly #connections: Connection[];
  readonly #done: Promise<unknown>;

  constructor(watchers: number, connections: number, endpoints: readonly string[], firstRevision: number) {
    this.next = new Float64Array(watchers).fill(firstRevision);
    this.counts = new Uint32Array(watchers);
    this.sums = new Float64Array(watchers);
    this.#endpoints = endpoints;
    const each = Math.ceil(watchers / connections);
    this.#connections = Array.from({ length: connections }, (_, index) => {
      const first = Math.min(index * each, watchers);
      return new Connection(this, first, Math.min(each, watchers - first));
    });
    this.#done = Promise.all(this.#connections.map((connection) => connection.follow()));
  }

  /** Where connections go from now on. */
  use(endpoints: readonly string[]): void {
    this.#endpoints = endpoints;
  }

  endpoint(): string {
    return this.#endpoints[this.#asked++ % this.#endpoints.length]!;
  }

  see(watcher: number, revision: number): void {
    if (revision < this.next[watcher]!) this.disorder++;
    this.next[watcher] = revision + 1;
    this.counts[watcher]!++;
    this.sums[watcher]! += revision;
    this.events++;
  }

  /** Every watcher has been created on its connection, which is at least the so-manieth of these. */
  isWhole(opened: number): boolean {
    return this.#connections.every((connection) => connection.isWhole(opened));
  }

  async end(): Promise<void> {
    this.running = false;
    for (const connection of this.#connections) connection.cancel();
    await this.#done;
  }
}
