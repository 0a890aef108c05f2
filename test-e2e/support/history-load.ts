// Clients of a cluster that is being harmed: puts, deletes, compare-and-swaps and reads at all endpoints at once, and a watcher at each
// endpoint. All that was asked and answered is kept; verdict() then says whether an order of the calls explains the answers
// (linearizability.ts), whether each acknowledged write is in the store's history where its answer said, and whether each watcher
// saw that history whole, in order and once, over all streams that it has used. A call without an answer may have had its effect or not.
//
// For faults of a cluster that keeps its members: it must be new, serve nobody else and never be compacted, since the model knows every
// revision. Not for leases, compactions and members that come and go: ../cluster-load.ts checks those, by rules of their own.

import assert from 'node:assert/strict';
import type { EtcdClient } from '../../src/client/client.ts';
import { rpc } from '../../src/client/rpc.ts';
import { EtcdClientError } from '../../src/client/status.ts';
import { type Watch, WatchStream } from '../../src/client/watch.ts';
import { CompareTarget } from '../../src/proto/kv-schema.ts';
import type { Message } from '../../src/proto/message.ts';
import type { Event, KeyValue } from '../../src/proto/mvccpb.ts';
import { checkKv, type Kv, type KvAnswer, type KvCall, type KvOperation } from '../../src/testing/kv-model.ts';
import { TrueHistory, WatchChecker, type WatchedEvent } from '../../src/testing/watch-checker.ts';
import { clientOf } from '../cluster.ts';
import { sleep, until } from '../program.ts';
import { EtcdClient as PlainClient } from './etcd-client.ts';

const PREFIX = 'h/';
const PREFIX_END = 'h0';
const keyCount = 8;
const clientCount = 9;
/** Short, so that who asked a dead leader asks the next one soon. */
const deadlineMs = 700;
const restMs = 10;
const restAfterFailureMs = 50;
const avoidedMs = 1000;
const DELETE = 1;
const everything = { key: Buffer.from(PREFIX), rangeEnd: Buffer.from(PREFIX_END) };

export class HistoryLoad {
  readonly history: KvOperation[] = [];
  /** By message, what calls failed with. */
  readonly failures: Map<string, number> = new Map();
  readonly #endpoints: readonly string[];
  readonly #clients: ReadonlyMap<string, EtcdClient>;
  readonly #truth = new TrueHistory();
  readonly #watchers: EndpointWatcher[];
  readonly #loops: Promise<void>[] = [];
  readonly #avoidedUntil = new Map<string, number>();
  #running = true;
  #values = 0;

  constructor(endpoints: readonly string[]) {
    this.#endpoints = endpoints;
    this.#clients = new Map(endpoints.map((endpoint) => [endpoint, clientOf([endpoint])]));
    this.#watchers = endpoints.map((endpoint) => new EndpointWatcher(this.#truth, endpoint));
    for (let client = 0; client < clientCount; client++) this.#loops.push(this.#ask(client));
  }

  /** How long from now until a write that began later is acknowledged. */
  async nextWriteMs(timeoutMs = 20_000): Promise<number> {
    const since = performance.now();
    let looked = this.history.length;
    return until('a write', timeoutMs, () => {
      for (; looked < this.history.length; looked++) {
        const { call, answer, startedAt, endedAt } = this.history[looked]!;
        if (answer !== null && call.kind === 'put' && startedAt >= since) return endedAt - since;
      }
      return false;
    });
  }

  /** The longest time that one of the clients went without any answer. */
  longestFailureMs(): number {
    const answeredAt = new Map<number, number>();
    let longest = 0;
    for (const { client, answer, startedAt, endedAt } of this.history) {
      const since = answeredAt.get(client) ?? startedAt;
      if (answer === null) longest = Math.max(longest, endedAt - since);
      else answeredAt.set(client, endedAt);
    }
    return longest;
  }

  /** The longest time since then in which no write of anybody was acknowledged. */
  longestGapMs(since: number): number {
    let [last, longest] = [since, 0];
    for (const { call, answer, endedAt } of this.history) {
      if (answer === null || call.kind === 'range' || endedAt < since) continue;
      longest = Math.max(longest, endedAt - last);
      last = endedAt;
    }
    return longest;
  }

  /** Ends the calls and checks everything. All members must be up. */
  async verdict(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#loops);
    let last = 0;
    for (const endpoint of this.#endpoints) {
      const answer = await until(`a read at ${endpoint}`, 20_000, () => this.#call(0, endpoint, everyKey));
      last = Math.max(last, answer.revision!);
    }
    await this.#learn(last);
    for (const watcher of this.#watchers) await watcher.verdict(last);
    this.#checkAcknowledged(last);
    const history = this.#resolved(last);
    const { verdict, longest, stuckAt } = checkKv(history);
    const stuck = JSON.stringify(history[stuckAt]);
    assert.equal(verdict, 'linearizable', `after ${longest} of ${history.length} calls: ${stuck}`);
  }

  async end(): Promise<void> {
    this.#running = false;
    for (const client of this.#clients.values()) client.close();
    await Promise.all([...this.#loops, ...this.#watchers.map((watcher) => watcher.end())]);
  }

  figures(): string {
    const unknown = this.history.filter(({ answer }) => answer === null).length;
    const failures = [...this.failures].map(([message, count]) => `${count} x ${message}`).join('; ');
    const events = this.#watchers.reduce((sum, { checker }) => sum + checker.eventCount, 0);
    const opened = this.#watchers.map((watcher) => watcher.opened).join('+');
    return `${this.history.length} calls, ${unknown} without an answer (${failures}), ${events} events over ${opened} streams`;
  }

  async #ask(client: number): Promise<void> {
    const seen = new Map<string, string | null>();
    while (this.#running) {
      const endpoint = this.#choose(client);
      const call = this.#nextCall(client, seen);
      const answer = await this.#call(client, endpoint, call);
      if (answer === false) {
        this.#avoidedUntil.set(endpoint, performance.now() + avoidedMs);
        await sleep(restAfterFailureMs);
      } else if (call.kind === 'range') for (const { key, value } of answer.kvs!) seen.set(key, value);
      else if (call.kind === 'put') seen.set(call.key, call.value);
      else if (call.kind === 'delete') seen.set(call.key, null);
      else if (call.kind === 'cas') seen.set(call.key, answer.succeeded ? call.value : (answer.kvs![0]?.value ?? null));
      await sleep(restMs);
    }
  }

  /** Each its own endpoint, but for a while after a failure: else all would soon wait at who is dead or frozen. */
  #choose(client: number): string {
    const now = performance.now();
    const good = this.#endpoints.filter((endpoint) => (this.#avoidedUntil.get(endpoint) ?? 0) < now);
    const own = this.#endpoints[client % this.#endpoints.length]!;
    if (good.length === 0 || good.includes(own)) return own;
    return good[Math.floor(Math.random() * good.length)]!;
  }

  #nextCall(client: number, seen: ReadonlyMap<string, string | null>): KvCall {
    const key = `${PREFIX}${Math.floor(Math.random() * keyCount)}`;
    const value = `${client}-${++this.#values}`;
    const chance = Math.random();
    if (chance < 0.4) return { kind: 'put', key, value };
    if (chance < 0.65) return { kind: 'cas', key, expected: seen.get(key) ?? null, value };
    if (chance < 0.75) return { kind: 'delete', key };
    return chance < 0.9 ? { kind: 'range', key } : everyKey;
  }

  /** False: no answer. */
  async #call(client: number, endpoint: string, call: KvCall): Promise<KvAnswer | false> {
    const startedAt = performance.now();
    let answer: KvAnswer | null = null;
    try {
      answer = await ask(this.#clients.get(endpoint)!, call);
    } catch (error) {
      if (!(error instanceof EtcdClientError)) throw error;
      const text = error.details.replace(/ after .*/s, '');
      this.failures.set(text, (this.failures.get(text) ?? 0) + 1);
    }
    this.history.push({ client, call, answer, startedAt, endedAt: performance.now() });
    return answer ?? false;
  }

  /** The store's own history, as a watch from the first revision tells it. */
  async #learn(last: number): Promise<void> {
    const client = new PlainClient(this.#endpoints[0]!);
    try {
      const events = (await client.history(2, last)).map(watched);
      for (let at = 0; this.#truth.revision < last; ) {
        const revision = this.#truth.revision + 1;
        const from = at;
        while (events[at]?.revision === revision) at++;
        assert.ok(at > from, `no event of revision ${revision}`);
        this.#truth.add(revision, events.slice(from, at));
      }
    } finally {
      client.close();
    }
  }

  /**
   * What the store's history tells of the calls without an answer: values are unique, so a put that is not in it had no effect, and one
   * that is had its effect at that revision, at whatever time. Otherwise the search is exponential in them.
   */
  #resolved(last: number): KvOperation[] {
    const revisions = new Map<string, number>();
    const deletions = new Set<string>();
    for (let revision = 2; revision <= last; revision++) {
      for (const { isDelete, key, value } of this.#truth.at(revision)) {
        if (isDelete) deletions.add(`${key} ${revision}`);
        else revisions.set(`${key} ${value}`, revision);
      }
    }
    for (const { call, answer } of this.history) {
      // The header of one that found nothing may be of another's deletion.
      if (call.kind === 'delete' && answer?.deleted === 1) deletions.delete(`${call.key} ${answer.revision}`);
    }
    const unclaimed = new Set([...deletions].map((deletion) => deletion.split(' ')[0]!));
    return this.history.flatMap((operation): KvOperation[] => {
      const { call, answer } = operation;
      if (answer !== null) return [operation];
      if (call.kind === 'delete') return unclaimed.has(call.key) ? [operation] : [];
      if (call.kind !== 'put' && call.kind !== 'cas') return [];
      const revision = revisions.get(`${call.key} ${call.value}`);
      if (revision === undefined) return [];
      const found = call.kind === 'cas' ? { revision, succeeded: true } : { revision };
      return [{ ...operation, answer: found, endedAt: Number.MAX_SAFE_INTEGER }];
    });
  }

  #checkAcknowledged(last: number): void {
    for (const { call, answer } of this.history) {
      if (answer === null || call.kind === 'range' || call.kind === 'revoke') continue;
      const revision = answer.revision!;
      if (call.kind === 'delete' ? answer.deleted === 0 : answer.succeeded === false) continue;
      assert.ok(revision <= last, `revision ${revision} was acknowledged, ${last} is the last`);
      const found = this.#truth.at(revision)[0];
      const isKept = found?.key === call.key && (call.kind === 'delete' ? found.isDelete : found.value === call.value);
      assert.ok(isKept, `acknowledged and lost: ${JSON.stringify(call)} at ${revision}`);
    }
  }
}

const everyKey: KvCall = { kind: 'range', key: PREFIX, end: PREFIX_END };

async function ask(client: EtcdClient, call: KvCall): Promise<KvAnswer> {
  const options = { deadlineMs: Date.now() + deadlineMs };
  assert.ok(call.kind !== 'revoke');
  const key = Buffer.from(call.key);
  switch (call.kind) {
    case 'put': {
      const { header } = await client.call(rpc.put, { key, value: Buffer.from(call.value) }, options);
      return { revision: header!.revision };
    }
    case 'delete': {
      const { header, deleted } = await client.call(rpc.deleteRange, { key }, options);
      return { revision: header!.revision, deleted };
    }
    case 'range': {
      const rangeEnd = Buffer.from(call.end ?? '');
      const { header, kvs } = await client.call(rpc.range, { key, rangeEnd }, options);
      return { revision: header!.revision, kvs: kvs.map(kvOf) };
    }
    case 'cas': {
      const compare =
        call.expected === null
          ? { target: CompareTarget.version, key, version: 0 }
          : { target: CompareTarget.value, key, value: Buffer.from(call.expected) };
      const success = [{ requestPut: { key, value: Buffer.from(call.value) } }];
      const request = { compare: [compare], success, failure: [{ requestRange: { key } }] };
      const { header, succeeded, responses } = await client.call(rpc.txn, request, options);
      if (succeeded) return { revision: header!.revision, succeeded };
      return { revision: header!.revision, succeeded, kvs: responses[0]!.responseRange!.kvs.map(kvOf) };
    }
  }
}

function kvOf({ key, value, createRevision, modRevision, version }: Message<typeof KeyValue>): Kv {
  return { key: String(key), value: String(value), create: createRevision, mod: modRevision, version };
}

function watched({ type, kv }: Message<typeof Event>): WatchedEvent {
  const { key, value, createRevision, modRevision, version } = kv!;
  return {
    ...{ isDelete: type === DELETE, key: String(key), value: String(value) },
    ...{ createRevision, version, revision: modRevision },
  };
}

/** Watches everything at one endpoint, however often that goes away. */
class EndpointWatcher {
  readonly checker: WatchChecker;
  opened = 0;
  readonly #endpoint: string;
  readonly #client: EtcdClient;
  readonly #done: Promise<void>;
  #stream: WatchStream | null = null;
  #running = true;

  constructor(truth: TrueHistory, endpoint: string) {
    const range = { key: PREFIX, end: PREFIX_END };
    this.checker = new WatchChecker(truth, `at ${endpoint}`, range, truth.revision + 1);
    this.#endpoint = endpoint;
    this.#client = clientOf([endpoint]);
    this.#done = this.#follow();
  }

  async #follow(): Promise<void> {
    for (; this.#running; await sleep(restAfterFailureMs)) {
      this.#stream = new WatchStream(this.#client);
      this.opened++;
      await this.#take(this.#stream.watch({ ...everything, startRevision: this.checker.resumeRevision }));
      this.#stream.close();
    }
  }

  async #take(watch: Watch): Promise<void> {
    for await (const { response, error } of watch) {
      if (error !== null) return;
      const revision = response.header!.revision;
      if (response.events.length > 0) this.checker.events(revision, response.events.map(watched));
      else this.checker.progress(revision);
    }
  }

  async verdict(last: number): Promise<void> {
    const isThere = (): boolean => this.checker.resumeRevision > last;
    await until(`the watcher at ${this.#endpoint} to see ${last}`, 30_000, isThere);
    this.checker.checkComplete(last);
  }

  async end(): Promise<void> {
    this.#running = false;
    this.#stream?.close();
    this.#client.close();
    await this.#done;
  }
}
