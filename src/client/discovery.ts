// v3 discovery: members of a cluster that is to be find each other in a store that runs already. Each puts its name and addresses under
// the cluster's token and waits until there are as many as the token's size key says; those that came first are the cluster. Keys,
// messages and back-off are those of etcd's api/v3discovery.
//
//   /_etcd/registry/<token>/_config/size           put by the operator: how many members
//   /_etcd/registry/<token>/members/<member id>    put by each member: name=url,name=url
//
// Registering again changes nothing: a member that ended while it waited comes back to its place.

import { posix } from 'node:path';
import { discoveryBackoffMs, discoveryBackoffsMax } from '../cluster-limits.ts';
import type { Message } from '../proto/message.ts';
import type { KeyValue } from '../proto/mvccpb.ts';
import type { Logger } from '../telemetry/logger.ts';
import { EtcdClient } from './client.ts';
import type { TlsOptions } from './connection.ts';
import { rpc } from './rpc.ts';
import { EtcdClientError } from './status.ts';
import { WatchStream } from './watch.ts';

export interface DiscoveryOptions {
  readonly endpoints: readonly string[];
  readonly token: string;
  readonly dialTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly keepAliveMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly user: { readonly name: string; readonly password: string } | null;
  readonly tls: TlsOptions | null;
  readonly logger: Logger;
  /** Tests shorten it. */
  readonly sleep?: (ms: number) => Promise<void>;
}

interface FoundMember {
  readonly key: string;
  readonly urls: string;
  readonly createRevision: number;
}

const CALLER = 'client/discovery.ts';

/**
 * Registers the member as `own` (name=url,...) and resolves with the cluster in the form of --initial-cluster. Rejects with etcd's
 * message when the cluster has no size or is full; waits for a store that does not answer, as etcd does.
 */
export async function joinByDiscovery(options: DiscoveryOptions, memberId: string, own: string): Promise<string> {
  const discovery = new Discovery(options, memberId);
  try {
    const cluster = await discovery.join(own);
    discovery.log('info', 'discovery joined cluster successfully', { cluster });
    return cluster;
  } catch (error) {
    discovery.log('error', 'discovery failed to join cluster', { cluster: '', error: textOf(error) });
    throw error;
  } finally {
    discovery.close();
  }
}

class Discovery {
  readonly #options: DiscoveryOptions;
  readonly #client: EtcdClient;
  readonly #sizeKey: string;
  readonly #membersPrefix: string;
  readonly #ownKey: string;
  readonly #sleep: (ms: number) => Promise<void>;
  #retries = 0;

  constructor(options: DiscoveryOptions, memberId: string) {
    const { endpoints, token, user, tls, dialTimeoutMs, keepAliveMs, keepAliveTimeoutMs } = options;
    this.#options = options;
    this.#client = new EtcdClient({ endpoints, user, tls, dialTimeoutMs, keepAliveMs, keepAliveTimeoutMs });
    const prefix = posix.join('/_etcd/registry', token);
    this.#sizeKey = posix.join(prefix, '_config/size');
    this.#membersPrefix = posix.join(prefix, 'members');
    this.#ownKey = posix.join(this.#membersPrefix, memberId);
    this.#sleep = options.sleep ?? ((ms) => new Promise((resolve) => setTimeout(resolve, ms)));
  }

  log(level: 'info' | 'warn' | 'error', message: string, fields: Readonly<Record<string, string | number>>): void {
    const { token, endpoints, logger } = this.#options;
    const common = { 'discovery-token': token, 'discovery-endpoints': endpoints.join(',') };
    logger[level](CALLER, message, { ...common, ...fields });
  }

  close(): void {
    this.#client.close();
  }

  async join(own: string): Promise<string> {
    await this.#check();
    await this.#retried('register member itself', () => this.#register(own));
    const { found, size, revision } = await this.#check();
    await this.#waitFor(found, size, revision);
    return found
      .members()
      .slice(0, size)
      .map(({ urls }) => urls)
      .join(',');
  }

  /** The members so far; throws when this one is not among those that the cluster has place for. */
  async #check(): Promise<{ readonly found: FoundMembers; readonly size: number; readonly revision: number }> {
    const checked = await this.#retried('cluster status check', async () => {
      const size = await this.#size();
      return { size, ...(await this.#members()) };
    });
    const place = checked.found.members().findIndex(({ key }) => key === this.#ownKey);
    const isFull = place < 0 ? checked.found.members().length >= checked.size : place >= checked.size;
    if (isFull) throw new DiscoveryFailure('discovery: cluster is full');
    return checked;
  }

  async #size(): Promise<number> {
    const fields = { clusterSizeKey: this.#sizeKey };
    const { kvs } = await this.#told('failed to get cluster size from discovery service', fields, () =>
      this.#client.call(rpc.range, { key: Buffer.from(this.#sizeKey) }, this.#deadline()),
    );
    const [size] = kvs;
    if (size === undefined) throw new DiscoveryFailure('discovery: size key not found');
    const text = size.value.toString();
    if (!/^\+?\d{1,15}$/.test(text) || Number(text) === 0) throw new DiscoveryFailure('discovery: size key is bad');
    return Number(text);
  }

  async #members(): Promise<{ readonly found: FoundMembers; readonly revision: number }> {
    const fields = { membersKeyPrefix: this.#membersPrefix };
    const { kvs, header } = await this.#told('failed to get cluster members from discovery service', fields, () =>
      this.#client.call(rpc.range, this.#range(), this.#deadline()),
    );
    const found = new FoundMembers();
    for (const kv of kvs) this.#add(found, kv);
    return { found, revision: header?.revision ?? 0 };
  }

  #add(found: FoundMembers, kv: Message<typeof KeyValue>): void {
    const member = {
      key: kv.key.toString().trim(),
      urls: kv.value.toString().trim(),
      createRevision: kv.createRevision,
    };
    const problem = found.add(member);
    const fields = { memberKey: member.key, memberInfo: member.urls };
    if (problem === null) this.log('info', 'found peer from discovery service', fields);
    else this.log('warn', problem, fields);
  }

  async #register(own: string): Promise<void> {
    const request = { key: Buffer.from(this.#ownKey), value: Buffer.from(own) };
    const fields = { memberKey: this.#ownKey };
    await this.#told('failed to register members itself to the discovery service', fields, () =>
      this.#client.call(rpc.put, request, this.#deadline()),
    );
    this.log('info', 'register member itself successfully', { ...fields, memberInfo: own });
  }

  async #waitFor(found: FoundMembers, size: number, revision: number): Promise<void> {
    const count = (): number => found.members().length;
    while (count() < size) {
      this.log('info', 'waiting for peers from discovery service', { clusterSize: size, 'found-peers': count() });
      const stream = new WatchStream(this.#client);
      try {
        for await (const { response } of stream.watch({ ...this.#range(), startRevision: revision + 1 })) {
          for (const { kv } of response.events) if (kv !== undefined) this.#add(found, kv);
          if (count() >= size) break;
        }
      } finally {
        stream.close();
      }
      // The watch ended by itself: the store is asked again, after a while.
      if (count() < size) await this.#backOff('watch of the members');
    }
    this.log('info', 'found all needed peers from discovery service', { clusterSize: size, 'found-peers': count() });
  }

  /** Every key that begins with the prefix. */
  #range(): { readonly key: Buffer; readonly rangeEnd: Buffer } {
    const rangeEnd = Buffer.from(this.#membersPrefix);
    rangeEnd[rangeEnd.length - 1]! += 1;
    return { key: Buffer.from(this.#membersPrefix), rangeEnd };
  }

  #deadline(): { readonly deadlineMs: number } {
    return { deadlineMs: Date.now() + this.#options.requestTimeoutMs };
  }

  async #told<T>(message: string, fields: Readonly<Record<string, string>>, call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } catch (error) {
      this.log('warn', message, { ...fields, error: textOf(error) });
      throw error;
    }
  }

  /** Without end: who waits for other members may wait for the store, too. */
  async #retried<T>(step: string, attempt: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        const result = await attempt();
        this.#retries = 0;
        return result;
      } catch (error) {
        if (!(error instanceof EtcdClientError)) throw error;
        await this.#backOff(step);
      }
    }
  }

  async #backOff(step: string): Promise<void> {
    this.#retries = Math.min(this.#retries + 1, discoveryBackoffsMax);
    const backoffMs = discoveryBackoffMs * 2 ** this.#retries;
    const fields = { reason: step, backoff: `${backoffMs / 1000}s` };
    this.log('warn', 'retry connecting to discovery service', fields);
    await this.#sleep(backoffMs);
  }
}

/** Why no cluster is to be had under the token. */
class DiscoveryFailure extends Error {}

/** In the order of their registration. */
class FoundMembers {
  readonly #members: FoundMember[] = [];

  members(): readonly FoundMember[] {
    return this.#members;
  }

  /** Null, or why it is not taken. */
  add(member: FoundMember): string | null {
    if (!member.urls.includes('=')) return 'invalid peer info returned from discovery service';
    if (this.#members.some(({ key }) => key === member.key)) return 'found duplicate peer from discovery service';
    this.#members.push(member);
    this.#members.sort((a, b) => a.createRevision - b.createRevision);
    return null;
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
