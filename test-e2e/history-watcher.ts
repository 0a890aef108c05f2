// A client that follows a prefix for as long as a cluster lives, whatever becomes of its members: each event must come exactly once
// and in order. It goes on from the first revision that it has not seen, at whichever endpoint answers.

import type { EtcdClient } from '../src/client/client.ts';
import { type Watch, WatchStream } from '../src/client/watch.ts';
import type { Message } from '../src/proto/message.ts';
import type { Event } from '../src/proto/mvccpb.ts';
import { etcdErrors } from '../src/proto/rpctypes.ts';
import { sleep, until } from './program.ts';

export interface SeenEvent {
  readonly revision: number;
  readonly key: string;
  readonly isDelete: boolean;
  readonly createRevision: number;
  readonly version: number;
  readonly lease: bigint;
  /** Of short ones. */
  readonly value: string;
}

const DELETE = 1;
const shortBytesMax = 64;

export class HistoryWatcher {
  readonly events: SeenEvent[] = [];
  readonly violations: string[] = [];
  resumed = 0;
  /** The first revision that was not seen. */
  next: number;
  readonly #prefix: string;
  readonly #client: () => EtcdClient;
  #stream: WatchStream | null = null;
  #running = true;
  readonly #done: Promise<void>;

  constructor(prefix: string, firstRevision: number, client: () => EtcdClient) {
    this.#prefix = prefix;
    this.next = firstRevision;
    this.#client = client;
    this.#done = this.#follow();
  }

  /** Goes on elsewhere: the endpoints have changed. */
  move(): void {
    this.#stream?.close();
  }

  async reached(revision: number, timeoutMs: number): Promise<void> {
    await until(`events up to ${revision}`, timeoutMs, () => this.next > revision);
  }

  async stop(): Promise<void> {
    this.#running = false;
    this.#stream?.close();
    await this.#done;
  }

  async #follow(): Promise<void> {
    while (this.#running) {
      const stream = new WatchStream(this.#client());
      this.#stream = stream;
      const key = Buffer.from(this.#prefix);
      const rangeEnd = Buffer.from(key);
      rangeEnd[rangeEnd.length - 1]! += 1;
      await this.#take(stream.watch({ key, rangeEnd, startRevision: this.next }));
      stream.close();
      this.resumed++;
      if (this.#running) await sleep(50);
    }
  }

  async #take(watch: Watch): Promise<void> {
    for await (const { response, error } of watch) {
      if (error?.is(etcdErrors.compacted)) this.violations.push(`compacted at ${this.next}`);
      if (error !== null) return;
      this.#batch(response.events);
      if (response.events.length === 0) this.next = Math.max(this.next, (response.header?.revision ?? 0) + 1);
      if (this.violations.length > 10) return;
    }
  }

  #batch(events: readonly Message<typeof Event>[]): void {
    const first = events[0]?.kv?.modRevision;
    if (first !== undefined && first < this.next) this.violations.push(`event of ${first} after ${this.next - 1}`);
    const keysOfRevision = new Set<string>();
    let revision = 0;
    for (const { type, kv } of events) {
      if (kv === undefined) throw new Error('an event without a key');
      const key = kv.key.toString('latin1');
      if (kv.modRevision < revision) this.violations.push(`event of ${kv.modRevision} after ${revision}`);
      if (kv.modRevision !== revision) keysOfRevision.clear();
      if (keysOfRevision.has(key)) this.violations.push(`${key} twice in ${revision}`);
      keysOfRevision.add(key);
      revision = kv.modRevision;
      const { createRevision, version, lease, value } = kv;
      const shown = value.length <= shortBytesMax ? value.toString('latin1') : '';
      this.events.push({ revision, key, isDelete: type === DELETE, createRevision, version, lease, value: shown });
    }
    // A revision comes whole: a batch that went on with it would be told above.
    if (revision > 0) this.next = revision + 1;
  }
}
