// Goal: whatever member is asked about leases, with a leader and without, answers as etcd's member in its place does: leader, follower,
// and a follower that is alone. Method: the same requests to a cluster of three real etcds and to ours, gRPC by the client and HTTP at
// the peer listeners; the answers without what differs by chance (ids of members, revisions, terms), and each in its own words.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { EtcdClient } from '../src/client/client.ts';
import { Connection } from '../src/client/connection.ts';
import { type Method, rpc } from '../src/client/rpc.ts';
import { EtcdClientError } from '../src/client/status.ts';
import { LeaseKeepAliveRequest } from '../src/proto/etcdserverpb.ts';
import { encode, type MessageInit, type Schema } from '../src/proto/message.ts';
import { LeaseInternalRequest } from '../src/server/lease-messages.ts';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { Cluster, type ClusterMember, type Kind } from './cluster.ts';
import { scratchFolder } from './program.ts';

/** Longer than a request without a leader takes: 5 s and two election timeouts. */
const patienceMs = 12_000;
const granted = { id: 7n, ttl: 1000n };
const unknownId = 99n;

/** Revisions and ids differ by chance; a TTL by the time that has passed. */
function shown(_name: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value > 900n && value < 1000n ? 'nearly 1000' : String(value);
  if (typeof value === 'object' && value !== null && 'clusterId' in value) return 'header';
  return value;
}

class Place {
  readonly member: ClusterMember;
  readonly client: EtcdClient;
  /** Under the client, which would ask again what the member could not answer. */
  readonly #connection: Connection;

  constructor(member: ClusterMember) {
    this.member = member;
    this.client = new EtcdClient({ endpoints: [member.endpoint] });
    const options = { tls: null, keepAliveMs: 0, keepAliveTimeoutMs: 20_000, responseBytesMax: 1 << 20 };
    this.#connection = new Connection(member.endpoint, false, options);
  }

  close(): void {
    this.client.close();
    this.#connection.close();
  }

  async call<Q extends Schema, R extends Schema>(method: Method<Q, R>, request: MessageInit<Q>): Promise<string> {
    const context = { metadata: {}, deadlineMs: Date.now() + patienceMs };
    try {
      const answer = await this.#connection.unary(method.path, this.client.encode(method, request), context);
      return JSON.stringify(this.client.decode(method, answer), shown);
    } catch (error) {
      return error instanceof EtcdClientError ? `${error.code}: ${error.message}` : String(error);
    }
  }

  /** Renewals on one stream, whose answers come in order. */
  async renew(...ids: readonly bigint[]): Promise<string[]> {
    const { stream, failure } = await this.client.duplex(rpc.leaseKeepAlive, { deadlineMs: Date.now() + patienceMs });
    const answers: string[] = [];
    try {
      await new Promise<void>((resolve) => {
        stream.on('data', (bytes: Buffer) => {
          answers.push(JSON.stringify(this.client.decode(rpc.leaseKeepAlive, bytes), shown));
          if (answers.length === ids.length) resolve();
        });
        stream.on('error', (error) => {
          if (answers.length < ids.length) answers.push(`${failure(error).code}: ${failure(error).message}`);
          resolve();
        });
        stream.on('end', () => resolve());
        for (const id of ids) stream.write(this.client.encode(rpc.leaseKeepAlive, { id }));
      });
    } finally {
      stream.cancel();
    }
    return answers;
  }

  async post(path: string, body: Buffer, method = 'POST'): Promise<string> {
    const sent = method === 'GET' ? {} : { body: new Uint8Array(body) };
    const answer = await fetch(`${this.member.peerUrl}${path}`, { method, ...sent });
    const bytes = Buffer.from(await answer.arrayBuffer());
    const type = answer.headers.get('content-type');
    // The seconds that are left, of which there are more than 896: the first byte of the third field behind the id.
    const left = bytes.indexOf(Buffer.from([0x10, Number(granted.id), 0x18]));
    if (answer.status === 200 && path.endsWith('internal')) bytes[left + 3] = 0;
    return `${answer.status} ${type} ${answer.headers.get('allow')} ${JSON.stringify(bytes.toString('latin1'))}`;
  }
}

const renewal = (id: bigint): Buffer => encode(LeaseKeepAliveRequest, { id });
const look = (id: bigint, keys = true): Buffer => encode(LeaseInternalRequest, { timeToLive: { id, keys } });

async function answersOf(place: Place): Promise<Record<string, unknown>> {
  const { id } = granted;
  return {
    grantTaken: await place.call(rpc.leaseGrant, { id, ttl: 5n }),
    grantLong: await place.call(rpc.leaseGrant, { id: 8n, ttl: 9_000_000_001n }),
    revokeUnknown: await place.call(rpc.leaseRevoke, { id: unknownId }),
    timeToLive: await place.call(rpc.leaseTimeToLive, { id, keys: true }),
    timeToLiveWithoutKeys: await place.call(rpc.leaseTimeToLive, { id, keys: false }),
    timeToLiveUnknown: await place.call(rpc.leaseTimeToLive, { id: unknownId, keys: true }),
    timeToLiveNone: await place.call(rpc.leaseTimeToLive, { id: 0n }),
    leases: await place.call(rpc.leaseLeases, {}),
    renew: await place.renew(id, unknownId, 0n, id),
    peerRenew: await place.post('/leases', renewal(id)),
    peerRenewUnknown: await place.post('/leases', renewal(unknownId)),
    peerRenewEmpty: await place.post('/leases', Buffer.alloc(0)),
    peerRenewMalformed: await place.post('/leases', Buffer.from([0xff])),
    peerGet: await place.post('/leases', renewal(id), 'GET'),
    peerPut: await place.post('/leases/internal', look(id), 'PUT'),
    peerSlash: await place.post('/leases/', renewal(id)),
    peerLook: await place.post('/leases/internal', look(id)),
    peerLookWithoutKeys: await place.post('/leases/internal', look(id, false)),
    peerLookUnknown: await place.post('/leases/internal', look(unknownId)),
    peerLookMalformed: await place.post('/leases/internal', Buffer.from([0x0a, 9])),
    peerTooLong: await place.post('/leases', Buffer.alloc(64 * 1024 + 1)),
  };
}

/** Of a member that has heard of no leader for a while. */
async function answersAlone(place: Place): Promise<Record<string, unknown>> {
  const { id } = granted;
  const [grant, revoke, timeToLive, leases, renew] = await Promise.all([
    place.call(rpc.leaseGrant, { id: 9n, ttl: 5n }),
    place.call(rpc.leaseRevoke, { id }),
    place.call(rpc.leaseTimeToLive, { id }),
    place.call(rpc.leaseLeases, {}),
    place.renew(id),
  ]);
  const peerRenew = await place.post('/leases', renewal(id));
  const peerLook = await place.post('/leases/internal', look(id));
  return { grant, revoke, timeToLive, leases, renew, peerRenew, peerLook };
}

async function observe(kind: Kind): Promise<Record<string, unknown>> {
  const { folder, remove } = scratchFolder('lease-answers');
  const cluster = await Cluster.start(folder, [kind, kind, kind]);
  try {
    const leader = await cluster.leader();
    const [follower, other] = (await cluster.followers()) as [ClusterMember, ClusterMember];
    const places = { leader: new Place(leader), follower: new Place(follower) };
    await places.follower.call(rpc.leaseGrant, granted);
    const key = Buffer.from('k');
    await places.follower.call(rpc.put, { key, value: key, lease: granted.id });
    // Who has answered a linearizable read has it.
    for (const place of [places.leader, places.follower]) await place.call(rpc.range, { key });
    const atLeader = await answersOf(places.leader);
    const atFollower = await answersOf(places.follower);
    await Promise.all([leader.kill(), other.kill()]);
    // A follower tells no leader once its election timeout is over.
    await new Promise((resolve) => setTimeout(resolve, 4000));
    const alone = await answersAlone(places.follower);
    for (const place of Object.values(places)) place.close();
    return { atLeader, atFollower, alone };
  } finally {
    await cluster.end();
    remove();
  }
}

describe('leases at every member', { skip: !existsSync(join(peerBinaries, 'etcd')) }, () => {
  it('are answered as by etcd', { timeout: 240_000 }, async () => {
    const theirs = await observe('etcd');
    if (process.env['KEELSON_SHOW_ANSWERS'] !== undefined) console.log(JSON.stringify(theirs, null, 1));
    assert.deepEqual(await observe('keelson'), theirs);
  });
});
