// Random load on a server over several connections with many calls in flight: puts, deletes, transactions, leases, compactions,
// defragmentations, reads, hashes and a watch. It records in a WriteLog what it asked and what it heard, and ends when the server
// goes away. The seed decides the draws; the order in which answers come does not repeat.

import type { Random } from '../../src/io/random.ts';
import { EtcdClient, everything, isUnavailable, type Result } from './etcd-client.ts';
import { type Action, changeOfEvent, type Step, stateOf } from './keyspace-model.ts';
import { type LoggedWrite, Outcome, type WriteLog } from './write-log.ts';

export interface LoadOptions {
  readonly address: string;
  readonly log: WriteLog;
  readonly random: Random;
  readonly keys: readonly string[];
  readonly nextId: () => number;
  readonly connections: number;
  readonly inFlight: number;
  /** Sizes of values are drawn below this, but mostly below a few hundred bytes: one of `largeEach` may be large. */
  readonly valueBytesMax: number;
  readonly largeEach: number;
  readonly defragments: boolean;
  readonly compacts: boolean;
}

const DEADLINE_EXCEEDED = 4;
const NOT_FOUND = 5;
const RESOURCE_EXHAUSTED = 8;
const OUT_OF_RANGE = 11;
/** Long enough that nothing expires by itself: expiry is tested elsewhere, here every change must have its request. */
const ttlSeconds = 1_000_000;
const leasesMax = 100;
/** How many revisions a compaction leaves at most; it never goes beyond what the watch has brought. */
const compactionSlack = 400;

/**
 * Keys of every kind: short ones, bytes that need escaping, and ones beyond the longest that LMDB takes, which share a prefix.
 * The first is put once by the tests and never deleted.
 */
export function drawKeys(random: Random, count: number): string[] {
  const keys = ['k/sentinel'];
  const long = `k/long/${'x'.repeat(4500)}`;
  while (keys.length < count) {
    const kind = random.below(20);
    if (kind === 0) keys.push(`${long}${random.below(50)}`);
    else if (kind <= 2) keys.push(`k/\x00\xff${String.fromCharCode(random.below(256))}\x00${random.below(50)}`);
    else keys.push(`k/${random.below(100_000)}`);
  }
  return [...new Set(keys)];
}

export class LoadGenerator {
  /** Set when an answer was wrong by itself; the test looks after the load. */
  failure: Error | null = null;
  answered = 0;
  private readonly options: LoadOptions;
  private readonly clients: EtcdClient[] = [];
  private readonly leases: bigint[];
  private running = true;
  private watchedRevision: number;
  private readonly work: Promise<void>[] = [];
  private readonly modOf = new Map<string, number>();

  constructor(options: LoadOptions) {
    this.options = options;
    this.leases = [...options.log.granted];
    this.watchedRevision = options.log.seenRevision;
    for (let i = 0; i < options.connections; i++) this.clients.push(new EtcdClient(options.address));
    const side = new EtcdClient(options.address);
    this.clients.push(side);
    this.watch(side);
    for (let i = 0; i < options.connections; i++) {
      for (let j = 0; j < options.inFlight; j++) this.work.push(this.loop(this.clients[i]!));
    }
    this.work.push(this.sideLoop(side));
  }

  /** Takes no more answers as wrong from here on: the server is about to die. Resolves when every call has ended. */
  async end(): Promise<void> {
    this.running = false;
    await Promise.all(this.work);
    for (const client of this.clients) client.close();
    for (const write of this.options.log.writes) {
      if (write.outcome === Outcome.pending) throw new Error('a call has not ended');
    }
  }

  private fail(what: string): void {
    this.failure ??= new Error(what);
    this.running = false;
  }

  private watch(client: EtcdClient): void {
    const { log } = this.options;
    const stream = client.watch((answer) => {
      if (answer.canceled) this.fail(`the watch was canceled: ${answer.cancelReason}`);
      for (const event of answer.events) {
        const revision = event.kv!.modRevision;
        const changes = log.watched.get(revision);
        if (changes === undefined) log.watched.set(revision, [changeOfEvent(event)]);
        else changes.push(changeOfEvent(event));
        if (revision < this.watchedRevision)
          this.fail(`the watch went back from ${this.watchedRevision} to ${revision}`);
        this.watchedRevision = revision;
        log.see(revision);
      }
    });
    stream.send({ createRequest: { ...everything, startRevision: this.watchedRevision + 1 } });
    this.work.push(stream.ended.then(() => {}));
  }

  private async loop(client: EtcdClient): Promise<void> {
    while (this.running) await this.step(client);
  }

  private async step(client: EtcdClient): Promise<void> {
    const { random } = this.options;
    const kind = random.below(100);
    if (kind < 45) await this.put(client, 0n);
    else if (kind < 53) await this.put(client, this.drawLease());
    else if (kind < 64) await this.deletion(client, kind >= 61);
    else if (kind < 82) await this.transaction(client);
    else if (kind < 93) await this.read(client);
    else if (kind < 97) await this.grant(client);
    else await this.revoke(client);
  }

  private drawKey(): string {
    // Never the first key: a keyspace without keys has rules of its own.
    return this.options.keys[1 + this.options.random.below(this.options.keys.length - 1)]!;
  }

  private drawLease(): bigint {
    const { random } = this.options;
    return this.leases.length === 0 ? 0n : this.leases[random.below(this.leases.length)]!;
  }

  private drawValue(id: number, part: number): Buffer {
    const { random, valueBytesMax, largeEach } = this.options;
    const isLarge = random.below(largeEach) === 0;
    const length = random.below(isLarge ? valueBytesMax : Math.min(valueBytesMax, 300));
    const head = `${id}.${part}|`;
    const value = Buffer.alloc(head.length + length, head.charCodeAt(0) + part);
    value.write(head, 'latin1');
    return value;
  }

  /** Sends a write and notes what came of it. */
  private async write<T extends { header?: { revision: number } | undefined }>(
    write: LoggedWrite,
    send: () => Promise<Result<T>>,
    acknowledged: (value: T) => void,
    mayFail: (code: number, message: string) => boolean = () => false,
  ): Promise<void> {
    const { log } = this.options;
    const floor = log.seenRevision;
    const result = await send();
    this.answered++;
    if (!result.ok) {
      const isRefused = mayFail(result.code, result.message) || result.code === RESOURCE_EXHAUSTED;
      write.outcome = isRefused ? Outcome.refused : Outcome.unknown;
      this.judgeFailure(result, isRefused);
      return;
    }
    write.outcome = Outcome.acknowledged;
    write.revision = result.value.header?.revision ?? 0;
    acknowledged(result.value);
    const isOld = write.changed ? write.revision <= floor : write.revision < floor;
    if (isOld) this.fail(`write ${write.id} was answered at ${write.revision}, ${floor} had been seen before it began`);
    log.see(write.revision);
  }

  /** A call that failed without the server's end is a failure of the test; the server's end stops the load. */
  private judgeFailure(result: Result<unknown>, isExpected: boolean): void {
    if (result.ok || isExpected) return;
    if (isUnavailable(result)) this.running = false;
    else if (this.running || result.code === DEADLINE_EXCEEDED) this.fail(`code ${result.code}: ${result.message}`);
  }

  private async put(client: EtcdClient, lease: bigint): Promise<void> {
    const { log, nextId } = this.options;
    const id = nextId();
    const key = this.drawKey();
    const value = this.drawValue(id, 0);
    const write = log.begin(id, { kind: 'put', key, value, lease });
    await this.write(
      write,
      () => client.put({ key: Buffer.from(key, 'latin1'), value, lease }),
      () => {
        write.changed = true;
        this.modOf.set(key, write.revision);
      },
      (code, message) => code === NOT_FOUND && lease !== 0n && message.includes('lease not found'),
    );
  }

  private drawRange(): { key: string; end: string } {
    const key = this.drawKey();
    // Up to the next key of the draw's order: a handful of keys.
    const end = key.length > 4 && key.startsWith('k/') ? `${key.slice(0, 4)}\xff` : `${key}\xff`;
    return { key, end: key < end ? end : '' };
  }

  private async deletion(client: EtcdClient, isRange: boolean): Promise<void> {
    const { log, nextId } = this.options;
    const { key, end } = isRange ? this.drawRange() : { key: this.drawKey(), end: '' };
    const write = log.begin(nextId(), { kind: 'delete', key, end });
    const request = { key: Buffer.from(key, 'latin1'), rangeEnd: Buffer.from(end, 'latin1') };
    await this.write(
      write,
      () => client.deleteRange(request),
      (answer) => {
        write.changed = answer.deleted > 0;
      },
    );
  }

  private drawSteps(id: number, part: number): Step[] {
    const { random } = this.options;
    const keys = new Set<string>();
    const count = 1 + random.below(4);
    while (keys.size < count) keys.add(this.drawKey());
    return [...keys].map((key, i) => {
      if (random.below(4) === 0) return { kind: 'delete', key, end: '' };
      return { kind: 'put', key, value: this.drawValue(id, part + i), lease: 0n };
    });
  }

  private async transaction(client: EtcdClient): Promise<void> {
    const { log, nextId, random } = this.options;
    const id = nextId();
    const key = this.drawKey();
    const mod = random.below(4) === 0 ? 0 : (this.modOf.get(key) ?? 0);
    const failure = random.below(3) === 0 ? this.drawSteps(id, 4) : [];
    const action: Action = { kind: 'txn', key, mod, success: this.drawSteps(id, 0), failure };
    const write = log.begin(id, action);
    const compare = [{ key: Buffer.from(key, 'latin1'), target: 2, result: 0, modRevision: mod }];
    await this.write(
      write,
      () => client.txn({ compare, success: action.success.map(opOf), failure: action.failure.map(opOf) }),
      (answer) => {
        write.succeeded = answer.succeeded;
        write.changed = answer.responses.some((op) => op.put !== undefined || (op.delete?.deleted ?? 0) > 0);
        const branch = answer.succeeded ? action.success : action.failure;
        for (const step of branch) if (step.kind === 'put') this.modOf.set(step.key, write.revision);
      },
    );
  }

  private async read(client: EtcdClient): Promise<void> {
    const { log } = this.options;
    const floor = log.seenRevision;
    const key = this.drawKey();
    const result = await client.range({ key: Buffer.from(key, 'latin1') });
    this.judgeFailure(result, false);
    if (!result.ok) return;
    const revision = result.value.header!.revision;
    if (revision < floor) this.fail(`a linearizable read answered at ${revision}, ${floor} had been seen before`);
    log.see(revision);
    const kv = result.value.kvs[0];
    if (kv !== undefined) this.modOf.set(key, kv.modRevision);
    log.reads.push({ key, revision, state: kv === undefined ? null : stateOf(kv) });
  }

  private async grant(client: EtcdClient): Promise<void> {
    const { log, random } = this.options;
    if (this.leases.length >= leasesMax) return await this.revoke(client);
    const id = BigInt.asUintN(63, random.uint64()) | 1n;
    log.maybeGranted.add(id);
    const result = await client.grant(id, ttlSeconds);
    this.judgeFailure(result, false);
    if (!result.ok) return;
    log.maybeGranted.delete(id);
    log.granted.add(id);
    this.leases.push(id);
  }

  private async revoke(client: EtcdClient): Promise<void> {
    const { log, nextId, random } = this.options;
    if (this.leases.length === 0) return await this.grant(client);
    const [lease] = this.leases.splice(random.below(this.leases.length), 1) as [bigint];
    const write = log.begin(nextId(), { kind: 'revoke', lease });
    log.maybeRevoked.add(lease);
    await this.write(
      write,
      () => client.revoke(lease),
      () => {
        log.maybeRevoked.delete(lease);
        log.revoked.add(lease);
      },
    );
  }

  /** What happens now and then: compactions, hashes, a defragmentation. */
  private async sideLoop(client: EtcdClient): Promise<void> {
    const { random, defragments, compacts } = this.options;
    while (this.running) {
      const kind = random.below(10);
      if (kind < 5 && compacts) await this.compact(client);
      else if (kind < 8) await this.hash(client);
      else if (kind < 9 && defragments) this.judgeFailure(await client.defragment(), false);
      await new Promise((resolve) => setTimeout(resolve, random.below(40)));
    }
  }

  private async compact(client: EtcdClient): Promise<void> {
    const { log, random } = this.options;
    const revision = this.watchedRevision - random.below(compactionSlack);
    if (revision <= log.compactRevision || revision < 1) return;
    log.maybeCompactRevisions.add(revision);
    const result = await client.compact(revision, random.below(2) === 0);
    if (result.ok) {
      log.maybeCompactRevisions.delete(revision);
      log.compactRevision = revision;
    } else if (result.code === RESOURCE_EXHAUSTED) log.maybeCompactRevisions.delete(revision);
    this.judgeFailure(result, !result.ok && result.code === RESOURCE_EXHAUSTED);
  }

  private async hash(client: EtcdClient): Promise<void> {
    const { log, random } = this.options;
    const revision = random.below(2) === 0 ? 0 : Math.max(1, this.watchedRevision - random.below(100));
    const result = await client.hashKv(revision);
    const isCompacted = !result.ok && result.code === OUT_OF_RANGE;
    this.judgeFailure(result, isCompacted);
    if (!result.ok) return;
    const { hash, hashRevision, compactRevision } = result.value;
    log.hashes.push({ hash, revision: hashRevision, compactRevision });
  }
}

function opOf(step: Step): { put: object } | { delete: object } {
  const key = Buffer.from(step.key, 'latin1');
  if (step.kind === 'put') return { put: { key, value: step.value, lease: step.lease } };
  return { delete: { key, rangeEnd: Buffer.from(step.end, 'latin1') } };
}
