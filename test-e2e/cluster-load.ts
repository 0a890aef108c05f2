// Clients that go on without pause while a cluster's members come and go: writers of keys of their own, counters that several
// clients raise by compare-and-swap, leases kept, revoked and left to expire, a compaction now and then, two watchers. They
// remember what they were told; problems() says what of it does not hold. No test of speed: each rests a little after a write.
//
// What is checked: an acknowledged write is in the end's state and among the events at its revision; a write's revision is above, and
// a read's not below, every revision acknowledged before it began; a counter's values go up by one; a revoked or expired
// lease's key is gone, a kept one's is there; both watchers saw the same events, once and in order, and they lead to the state that every
// member holds.
//
// For clusters of both kinds, whose members, endpoints and versions change. No judge of the order of concurrent calls: that is
// support/history-load.ts, which searches for one, and takes no leases, compactions or new members.

import type { EtcdClient } from '../src/client/client.ts';
import { keepAliveOnce } from '../src/client/lease-keeper.ts';
import { rpc } from '../src/client/rpc.ts';
import { EtcdClientError } from '../src/client/status.ts';
import { CompareTarget } from '../src/proto/kv-schema.ts';
import type { Message } from '../src/proto/message.ts';
import type { KeyValue } from '../src/proto/mvccpb.ts';
import { etcdErrors } from '../src/proto/rpctypes.ts';
import { clientOf } from './cluster.ts';
import { HistoryWatcher } from './history-watcher.ts';
import { sleep, until } from './program.ts';

const PREFIX = 'load/';
const WRITERS = 4;
const COUNTERS = 2;
const CLIENTS_A_COUNTER = 2;
const KEPT_LEASES = 3;
const keptTtlSeconds = 15;
/** As long as an election takes: who asks a member that hears nobody waits in vain. */
const deadlineMs = 2000;
const restMs = 10;
const violationsMax = 20;
const entriesToCut = 10_500;
const fillers = 100;

/** What was asked of a key that is put once and perhaps deleted once. A revision is null when no answer came. */
interface Fate {
  putRevision: number | null;
  isDeleteAsked: boolean;
  /** KEY_GONE: by the revocation of its lease, whose answer does not tell the revision. */
  deleteRevision: number | null;
}

const KEY_GONE = 0;

type Header = { readonly header: { readonly revision: number } | undefined };

export class ClusterLoad {
  acknowledged = 0;
  uncertain = 0;
  /** By message, what calls failed with. */
  readonly failures: Map<string, number> = new Map();
  readonly watchers: readonly HistoryWatcher[];
  readonly #violations: string[] = [];
  readonly #fates = new Map<string, Fate>();
  /** The highest value that a counter is known to have had. */
  readonly #counters: number[] = new Array(COUNTERS).fill(0);
  readonly #swaps: { readonly key: string; readonly value: number; readonly revision: number }[] = [];
  readonly #kept = new Set<string>();
  readonly #abandoned = new Set<string>();
  #client: EtcdClient;
  readonly #retired: EtcdClient[] = [];
  /** The highest revision that was acknowledged. */
  #revision = 0;
  #running = true;
  #isPaused = false;
  #busy = 0;
  readonly #loops: Promise<void>[] = [];
  readonly #renewals: NodeJS.Timeout[] = [];

  constructor(endpoints: readonly string[], firstRevision: number) {
    this.#client = clientOf(endpoints);
    const present = (): EtcdClient => this.#client;
    this.watchers = [0, 1].map(() => new HistoryWatcher(PREFIX, firstRevision, present));
    for (let index = 0; index < WRITERS; index++) this.#loops.push(this.#write(index));
    for (let index = 0; index < COUNTERS * CLIENTS_A_COUNTER; index++) this.#loops.push(this.#count(index % COUNTERS));
    for (let index = 0; index < KEPT_LEASES; index++) this.#loops.push(this.#keepLease(index));
    this.#loops.push(this.#turnLeasesOver());
  }

  /** From now on through these endpoints. Calls under way end where they are. */
  use(endpoints: readonly string[]): void {
    this.#retired.push(this.#client);
    this.#client = clientOf(endpoints);
    for (const watcher of this.watchers) watcher.move();
  }

  /** While nothing is written: renewals, which are no entries, go on. */
  async atRest<T>(look: () => Promise<T>): Promise<T> {
    this.#isPaused = true;
    try {
      await until('the writers rest', 8 * deadlineMs, () => this.#busy === 0);
      return await look();
    } finally {
      this.#isPaused = false;
    }
  }

  /** Until so many more writes are acknowledged. */
  async writes(count: number, timeoutMs = 30_000): Promise<void> {
    const goal = this.acknowledged + count;
    await until(`${count} writes`, timeoutMs, () => this.acknowledged >= goal);
  }

  /** Compacts to a little behind what both watchers have seen; answers the revision. */
  async compact(): Promise<number> {
    const revision = Math.min(...this.watchers.map((watcher) => watcher.next)) - 50;
    return until('a compaction', 20_000, async () => {
      try {
        await this.#client.call(rpc.compact, { revision, physical: true }, { deadlineMs: Date.now() + 10_000 });
      } catch (error) {
        // One that got no answer was made.
        if (!(error instanceof EtcdClientError) || !error.is(etcdErrors.compacted)) throw error;
      }
      return revision;
    });
  }

  /** Ends the writing and answers all that does not hold, on these members. Then end() it. */
  async problems(endpoints: readonly string[]): Promise<string[]> {
    this.#running = false;
    await Promise.all(this.#loops);
    const members = endpoints.map((endpoint) => clientOf([endpoint]));
    try {
      const last = (): Promise<number | false> =>
        this.#put(`${PREFIX}end`, 8, 0n).then((revision) => revision ?? false);
      const end = await until('the last write', 30_000, last);
      for (const watcher of this.watchers) await watcher.reached(end, 30_000);
      await until('abandoned leases expire', 60_000, async () => {
        const state = await stateOf(members[0]!);
        return [...this.#abandoned].every((key) => !state.has(key));
      });
      await this.#compare(members);
    } finally {
      for (const client of members) client.close();
    }
    return [...this.#violations, ...this.watchers.flatMap(({ violations }) => violations)];
  }

  /** Ends all, whatever the state; may be called again. */
  async end(): Promise<void> {
    this.#running = false;
    for (const renewal of this.#renewals) clearInterval(renewal);
    for (const client of [...this.#retired, this.#client]) client.close();
    await Promise.all([...this.#loops, ...this.watchers.map((watcher) => watcher.stop())]);
  }

  figures(): string {
    const failures = [...this.failures].map(([message, count]) => `${count} x ${message}`).join('; ');
    const resumed = this.watchers.map((watcher) => watcher.resumed).join(' and ');
    const events = this.watchers[0]!.events.length;
    return `${this.acknowledged} writes, ${this.uncertain} unknown (${failures}), ${this.#swaps.length} swaps, ${events} events, watchers resumed ${resumed} times`;
  }

  #violate(text: string): void {
    if (this.#violations.length < violationsMax) this.#violations.push(text);
  }

  /** A call that may fail; null when it did. */
  async #try<T extends Header>(
    isWrite: boolean,
    call: (client: EtcdClient, deadline: number) => Promise<T>,
  ): Promise<T | null> {
    const before = this.#revision;
    this.#busy++;
    try {
      const answer = await call(this.#client, Date.now() + deadlineMs);
      const revision = answer.header?.revision ?? 0;
      if (revision < before || (isWrite && revision === before)) {
        this.#violate(`revision ${revision} after ${before} was acknowledged`);
      }
      this.#revision = Math.max(this.#revision, revision);
      if (isWrite) this.acknowledged++;
      return answer;
    } catch (error) {
      if (!(error instanceof EtcdClientError)) throw error;
      if (isWrite) this.uncertain++;
      const text = error.details.replaceAll(/\d+(\.\d+)*/g, 'N');
      this.failures.set(text, (this.failures.get(text) ?? 0) + 1);
      return null;
    } finally {
      this.#busy--;
    }
  }

  /** Before each round of a loop. */
  async #rest(ms = restMs): Promise<void> {
    do await sleep(ms);
    while (this.#isPaused && this.#running);
  }

  async #put(key: string, bytes: number, lease: bigint): Promise<number | null> {
    const request = { key: Buffer.from(key), value: Buffer.alloc(bytes, key), lease };
    const fate: Fate = { putRevision: null, isDeleteAsked: false, deleteRevision: null };
    this.#fates.set(key, fate);
    const answer = await this.#try(true, (client, at) => client.call(rpc.put, request, { deadlineMs: at }));
    fate.putRevision = answer?.header?.revision ?? null;
    return fate.putRevision;
  }

  async #write(writer: number): Promise<void> {
    const name = (index: number): string => `${PREFIX}w${writer}/${index}`;
    for (let index = 0; this.#running; index++) {
      await this.#rest();
      await this.#put(name(index), index % 50 === 49 ? 40_000 : 100 + (index % 200), 0n);
      if (index % 5 !== 4) continue;
      const fate = this.#fates.get(name(index - 3))!;
      fate.isDeleteAsked = true;
      const key = Buffer.from(name(index - 3));
      const answer = await this.#try(false, (client, at) => client.call(rpc.deleteRange, { key }, { deadlineMs: at }));
      if (answer !== null && answer.deleted === 1) fate.deleteRevision = answer.header?.revision ?? null;
      if (answer !== null && answer.deleted === 0 && fate.putRevision !== null)
        this.#violate(`${name(index - 3)} lost`);
    }
  }

  async #count(counter: number): Promise<void> {
    const name = `${PREFIX}counter${counter}`;
    const key = Buffer.from(name);
    while (this.#running) {
      await this.#rest();
      const known = this.#counters[counter]!;
      const read = await this.#try(false, (client, at) => client.call(rpc.range, { key }, { deadlineMs: at }));
      if (read === null) continue;
      const found = read.kvs[0];
      const value = found === undefined ? 0 : Number(found.value.toString());
      if (value < known) this.#violate(`${name} is ${value} after ${known}`);
      this.#counters[counter] = Math.max(this.#counters[counter]!, value);
      const request = {
        compare: [{ target: CompareTarget.mod, key, modRevision: found?.modRevision ?? 0 }],
        success: [{ requestPut: { key, value: Buffer.from(String(value + 1)) } }],
      };
      const answer = await this.#try(false, (client, at) => client.call(rpc.txn, request, { deadlineMs: at }));
      if (answer === null || !answer.succeeded) continue;
      this.acknowledged++;
      this.#counters[counter] = Math.max(this.#counters[counter]!, value + 1);
      this.#swaps.push({ key: name, value: value + 1, revision: answer.header?.revision ?? 0 });
    }
  }

  async #grant(ttlSeconds: number): Promise<bigint | null> {
    const request = { ttl: BigInt(ttlSeconds) };
    const answer = await this.#try(false, (client, at) => client.call(rpc.leaseGrant, request, { deadlineMs: at }));
    return answer?.id ?? null;
  }

  async #keepLease(index: number): Promise<void> {
    const key = `${PREFIX}kept${index}`;
    let lease: bigint | null = null;
    while (this.#running && lease === null) lease = await this.#grant(keptTtlSeconds);
    if (lease === null) return;
    if ((await this.#put(key, 20, lease)) !== null) this.#kept.add(key);
    // Renewed until the watchers have seen the end.
    const client = (): EtcdClient => this.#client;
    const renewal = setInterval(() => {
      keepAliveOnce(client(), lease, Date.now() + deadlineMs).catch((error: unknown) => {
        if (error instanceof EtcdClientError && error.is(etcdErrors.leaseNotFound))
          this.#violate(`lease of ${key} is gone`);
      });
    }, 1000);
    this.#renewals.push(renewal);
  }

  /** Leases that are revoked with their key, or left alone. */
  async #turnLeasesOver(): Promise<void> {
    for (let index = 0; this.#running; index++) {
      await this.#rest(200);
      const isAbandoned = index % 5 === 0;
      const lease = await this.#grant(isAbandoned ? 2 : 60);
      if (lease === null) continue;
      const key = `${PREFIX}leased${index}`;
      const revision = await this.#put(key, 20, lease);
      const fate = this.#fates.get(key)!;
      fate.isDeleteAsked = true;
      if (isAbandoned) this.#abandoned.add(key);
      else {
        const request = { id: lease };
        const answer = await this.#try(false, (client, at) =>
          client.call(rpc.leaseRevoke, request, { deadlineMs: at }),
        );
        if (answer !== null && revision !== null) fate.deleteRevision = KEY_GONE;
      }
    }
  }

  async #compare(members: readonly EtcdClient[]): Promise<void> {
    const states = await Promise.all(members.map(stateOf));
    const state = states[0]!;
    for (const [index, other] of states.entries()) {
      if (describe(other) !== describe(state)) this.#violate(`endpoint ${index} holds another state than the first`);
    }
    const [first, second] = this.watchers;
    if (JSON.stringify(first!.events, plain) !== JSON.stringify(second!.events, plain)) {
      this.#violate(`the watchers differ: ${first!.events.length} and ${second!.events.length} events`);
    }
    const seen = new Map<string, { revision: number; version: number; createRevision: number }>();
    const puts = new Set<string>();
    const deletions = new Set<string>();
    for (const { revision, key, isDelete, version, createRevision } of first!.events) {
      const last = seen.get(key);
      if (isDelete) {
        if (last === undefined) this.#violate(`${key} deleted at ${revision} before it was there`);
        seen.delete(key);
        deletions.add(`${key} ${revision}`);
        continue;
      }
      if (version !== (last?.version ?? 0) + 1 || createRevision !== (last?.createRevision ?? revision)) {
        this.#violate(`${key} at ${revision}: version ${version} after ${last?.version ?? 0}`);
      }
      seen.set(key, { revision, version, createRevision });
      puts.add(`${key} ${revision}`);
    }
    for (const [key, kv] of state) {
      if (seen.get(key)?.revision !== kv.modRevision)
        this.#violate(`${key} at ${kv.modRevision} was not seen by watchers`);
      seen.delete(key);
    }
    for (const key of seen.keys()) this.#violate(`${key} was seen, and is not there`);
    this.#compareFates(state, puts, deletions);
    this.#compareCounters(puts);
  }

  #compareFates(state: State, puts: ReadonlySet<string>, deletions: ReadonlySet<string>): void {
    for (const [key, { putRevision, isDeleteAsked, deleteRevision }] of this.#fates) {
      const found = state.get(key);
      if (putRevision !== null && !puts.has(`${key} ${putRevision}`))
        this.#violate(`put of ${key} at ${putRevision} lost`);
      if (deleteRevision !== null) {
        if (found !== undefined) this.#violate(`${key} is there after its deletion at ${deleteRevision}`);
        const isSeen = deleteRevision === KEY_GONE || deletions.has(`${key} ${deleteRevision}`);
        if (!isSeen) this.#violate(`no event: ${key} deleted at ${deleteRevision}`);
      } else if (putRevision !== null && !isDeleteAsked && found?.modRevision !== putRevision) {
        this.#violate(`${key} of ${putRevision} is ${found?.modRevision ?? 'gone'}`);
      }
    }
    for (const key of this.#kept) if (!state.has(key)) this.#violate(`${key} is gone, and its lease was kept`);
  }

  #compareCounters(puts: ReadonlySet<string>): void {
    const values = new Map<string, number>();
    for (const { key, value } of this.watchers[0]!.events) {
      if (!key.startsWith(`${PREFIX}counter`)) continue;
      if (Number(value) !== (values.get(key) ?? 0) + 1)
        this.#violate(`${key} went from ${values.get(key)} to ${value}`);
      values.set(key, Number(value));
    }
    const won = new Set<string>();
    for (const { key, value, revision } of this.#swaps) {
      if (!puts.has(`${key} ${revision}`)) this.#violate(`${key} = ${value} at ${revision} lost`);
      if (won.has(`${key} ${value}`)) this.#violate(`${key} = ${value} was won twice`);
      won.add(`${key} ${value}`);
    }
  }
}

type State = Map<string, Message<typeof KeyValue>>;

async function stateOf(client: EtcdClient): Promise<State> {
  const range = { key: Buffer.from(PREFIX), rangeEnd: Buffer.from('load0') };
  const { kvs } = await client.call(rpc.range, range, { deadlineMs: Date.now() + 20_000 });
  return new Map(kvs.map((kv) => [kv.key.toString('latin1'), kv]));
}

function describe(state: State): string {
  return JSON.stringify([...state.values()], plain);
}

function plain(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}

/** More entries than a keelson's log keeps: it cuts it in memory once in 10,000. */
export async function fillLog(endpoints: readonly string[]): Promise<void> {
  const client = clientOf(endpoints);
  const key = Buffer.from('often');
  const writer = async (): Promise<void> => {
    for (let count = 0; count < entriesToCut / fillers; count++)
      await client.call(rpc.put, { key, value: Buffer.from('x') });
  };
  await Promise.all(Array.from({ length: fillers }, writer));
  client.close();
}
