// Goal: a lease ends when its holder is gone and never before its time, whatever happens to the leader meanwhile. Method: three real
// processes, a key under a lease, and a holder that renews or stops; leaders are killed and frozen. The times are printed. Asserted is
// what no machine's speed excuses: no key goes sooner than the TTL after its last renewal was sent, and every one goes; what is renewed
// stays. The same scenarios run on real etcd, whose times stand beside ours. Jumps of the wall clock are the simulator's: leases know
// the monotonic clock alone, whose jump is a process that stood still.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { EtcdClient } from '../src/client/client.ts';
import { keepAliveOnce } from '../src/client/lease-keeper.ts';
import { rpc } from '../src/client/rpc.ts';
import { etcdErrors } from '../src/proto/rpctypes.ts';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { Cluster, type ClusterMember, type Kind } from './cluster.ts';
import { scratchFolder } from './program.ts';

const ttlSeconds = 4;
const ttlMs = ttlSeconds * 1000;
const askEveryMs = 20;
const askTimeoutMs = 2000;
/** A whole TTL more for a new leader, two elections and a process that starts; beyond it the lease never ends. */
const goneWithinMs = 60_000;

const delay = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Who holds a lease with a key. */
class Holder {
  readonly id: bigint;
  readonly #client: EtcdClient;
  readonly #key: Buffer;
  /** When what last gave the lease its time was sent. */
  #renewedMs = 0;

  constructor(client: EtcdClient, id: bigint) {
    this.id = id;
    this.#client = client;
    this.#key = Buffer.from(`key of ${id}`);
  }

  async begin(): Promise<void> {
    this.#renewedMs = performance.now();
    await this.#client.call(rpc.leaseGrant, { id: this.id, ttl: BigInt(ttlSeconds) });
    await this.#client.call(rpc.put, { key: this.#key, value: this.#key, lease: this.id });
  }

  async renew(): Promise<void> {
    const lastMs = performance.now() + goneWithinMs;
    for (;;) {
      const sentMs = performance.now();
      try {
        await keepAliveOnce(this.#client, this.id, Date.now() + askTimeoutMs);
        this.#renewedMs = sentMs;
        return;
      } catch (error) {
        // Between two leaders there is none to renew it. A lease that is gone is the failure that this looks for.
        if ((error as Error).message === etcdErrors.leaseNotFound.message || performance.now() > lastMs) throw error;
        await delay(askEveryMs);
      }
    }
  }

  /** Renews every now and then until `until` is there. */
  async renewUntil(until: Promise<void>): Promise<void> {
    let isOver = false;
    void until.then(() => {
      isOver = true;
    });
    while (!isOver) {
      await this.renew();
      await delay(ttlMs / 8);
    }
  }

  async isThere(): Promise<boolean> {
    const { kvs } = await this.#client.call(rpc.range, { key: this.#key }, { deadlineMs: Date.now() + askTimeoutMs });
    return kvs.length > 0;
  }

  /** Since the last renewal, ms. */
  async gone(): Promise<number> {
    const lastMs = performance.now() + goneWithinMs;
    for (;;) {
      assert.ok(performance.now() < lastMs, 'the key stays');
      // Without a leader nobody can tell.
      const isThere = await this.isThere().catch(() => true);
      const sinceMs = performance.now() - this.#renewedMs;
      if (!isThere) {
        assert.ok(sinceMs >= ttlMs, `gone ${Math.round(sinceMs)} ms after its renewal`);
        return sinceMs;
      }
      await delay(askEveryMs);
    }
  }
}

for (const kind of ['etcd', 'keelson'] satisfies Kind[]) {
  describe(`leases of ${kind}`, { skip: !existsSync(join(peerBinaries, 'etcd')) }, () => {
    const { folder, remove } = scratchFolder(`lease-scenarios-${kind}`);
    let cluster: Cluster;
    let client: EtcdClient;
    let lastId = 0n;

    before(async () => {
      cluster = await Cluster.start(folder, [kind, kind, kind]);
      client = new EtcdClient({ endpoints: cluster.members.map(({ endpoint }) => endpoint) });
    });
    after(async () => {
      client.close();
      await cluster.end();
      remove();
    });

    const hold = async (asked = client): Promise<Holder> => {
      const holder = new Holder(asked, ++lastId);
      await holder.begin();
      return holder;
    };
    const tell = (what: string, ms: number): void =>
      console.log(`${kind}: ${what}: gone ${(ms / 1000).toFixed(1)} s after the last renewal, TTL ${ttlSeconds} s`);
    /** What the members hold when all is over: none of them has a lease. */
    const noneLeft = async (): Promise<void> => {
      await cluster.agreed();
      for (const { endpoint } of cluster.members) {
        const one = new EtcdClient({ endpoints: [endpoint] });
        assert.deepEqual((await one.call(rpc.leaseLeases, {})).leases, []);
        one.close();
      }
    };
    const frozen = async (members: readonly ClusterMember[], ms: number): Promise<void> => {
      for (const member of members) member.freeze();
      await delay(ms);
      for (const member of members) member.thaw();
    };

    it('end after their time when the holder has gone', async () => {
      const holder = await hold();
      await delay(ttlMs / 2);
      await holder.renew();
      tell('the holder has crashed', await holder.gone());
      await noneLeft();
    });

    it('live on at the next leader when theirs has crashed before their end, and end there', async () => {
      const renewed = await hold();
      const left = await hold();
      const leader = await cluster.leader();
      await delay(ttlMs / 2);
      await leader.kill();
      const [leftMs] = await Promise.all([left.gone(), renewed.renewUntil(delay(3 * ttlMs))]);
      tell('the leader has crashed before the end', leftMs);
      assert.ok(await renewed.isThere(), 'what was renewed is there');
      tell('and the other one', await renewed.gone());
      await cluster.restart(leader);
      await noneLeft();
    });

    it('end at the next leader when theirs has crashed behind their end, which it could not bring about', async () => {
      const holder = await hold();
      const leader = await cluster.leader();
      const followers = await cluster.followers();
      // Nobody to agree to the revocation, which is proposed meanwhile.
      await delay(ttlMs - 500);
      await frozen(followers, 2000);
      await leader.kill();
      tell('the leader has crashed behind the end', await holder.gone());
      await cluster.restart(leader);
      await noneLeft();
    });

    it('stay while they are renewed, whatever a former leader believes that stood still beyond their end', async () => {
      const former = await cluster.leader();
      const followers = new EtcdClient({ endpoints: (await cluster.followers()).map(({ endpoint }) => endpoint) });
      const holder = await hold(followers);
      former.freeze();
      await holder.renewUntil(delay(3 * ttlMs));
      former.thaw();
      try {
        // Its clock says that the lease ended long ago, and it has not heard yet who leads.
        await holder.renewUntil(delay(ttlMs));
      } catch (error) {
        // etcd's revokes it now and then: the proposal of the former leader goes on to the new one.
        if (kind !== 'etcd') throw error;
        console.log(`etcd: a former leader came back and revoked what was renewed: ${(error as Error).message}`);
        followers.close();
        return;
      }
      assert.ok(await holder.isThere());
      assert.notEqual(await cluster.leader(), former);
      tell('a former leader came back', await holder.gone());
      followers.close();
      await noneLeft();
    });

    it('end once all members stood still beyond their end', async () => {
      const holder = await hold();
      await delay(500);
      await frozen(cluster.members, 2 * ttlMs);
      tell('everybody stood still', await holder.gone());
      await noneLeft();
    });
  });
}
