// A client that starts a write every few milliseconds, at each of some endpoints in turn, whatever became of the ones before: what it
// tells is when the cluster takes writes, not how long one of them waits. Not a load: its writes are of one key.

import { EtcdClient } from '../src/client/client.ts';
import { rpc } from '../src/client/rpc.ts';
import { EtcdClientError } from '../src/client/status.ts';
import { sleep } from './program.ts';

const everyMs = 5;
/** So few at once that a cluster without a leader keeps no more than it would anyway. */
const timeoutMs = 300;

interface Write {
  readonly startedAt: number;
  readonly endedAt: number;
}

export class SteadyWriter {
  /** In the order of their ends. */
  readonly writes: Write[] = [];
  readonly #clients: readonly EtcdClient[];
  readonly #key = Buffer.from('steady');
  readonly #underWay = new Set<Promise<void>>();
  readonly #done: Promise<void>;
  #running = true;

  constructor(endpoints: readonly string[]) {
    this.#clients = endpoints.map((endpoint) => new EtcdClient({ endpoints: [endpoint] }));
    this.#done = this.#start();
  }

  /** The end of the first write that began then or later; undefined: none yet. */
  firstEnd(startedAt: number): number | undefined {
    return this.writes.find((write) => write.startedAt >= startedAt)?.endedAt;
  }

  /** The longest time between the ends of two writes since then. */
  longestGapMs(since: number): number {
    const ends = this.writes.map(({ endedAt }) => endedAt).filter((endedAt) => endedAt >= since);
    return Math.max(...ends.slice(1).map((end, index) => end - ends[index]!));
  }

  async stop(): Promise<void> {
    this.#running = false;
    await this.#done;
    await Promise.all(this.#underWay);
    for (const client of this.#clients) client.close();
  }

  async #start(): Promise<void> {
    for (let at = 0; this.#running; at++) {
      const write = this.#write(this.#clients[at % this.#clients.length]!);
      this.#underWay.add(write);
      void write.finally(() => this.#underWay.delete(write));
      await sleep(everyMs);
    }
  }

  async #write(client: EtcdClient): Promise<void> {
    const startedAt = performance.now();
    try {
      await client.call(rpc.put, { key: this.#key, value: this.#key }, { deadlineMs: Date.now() + timeoutMs });
      this.writes.push({ startedAt, endedAt: performance.now() });
    } catch (error) {
      if (!(error instanceof EtcdClientError)) throw error;
    }
  }
}
