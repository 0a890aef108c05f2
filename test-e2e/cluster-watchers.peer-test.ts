// Goal: when the leader is lost, the watchers that it served go on at the other members, all of them, soon, without a gap, and these members'
// memory stays bounded. Method: three processes, KEELSON_WATCHERS watchers (20,000 by default, 100,000 in the long run) on ten
// connections to the leader, a writer that goes on throughout; the leader is killed. At the end each watcher has seen each revision of its
// key once and in order, by the store's own history. Times and memory are printed.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { Cluster, type ClusterMember } from './cluster.ts';
import { scratchFolder, sleep, until } from './program.ts';
import { EtcdClient } from './support/etcd-client.ts';
import { crowdKey, WatchCrowd } from './watch-crowd.ts';

const scratch = scratchFolder('cluster-watchers');
after(() => scratch.remove());

const watchers = Number(process.env['KEELSON_WATCHERS'] ?? 20_000);
const connections = 10;
const writers = 4;
const writeMs = 2000;
/** Of what a member holds more when it serves them: a bound, not a goal; what is measured is printed. */
const bytesAWatcherMax = 6000;
const spareBytes = 200e6;

function anonymousBytes(member: ClusterMember): number {
  const status = readFileSync(`/proc/${member.pid}/status`, 'utf8');
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)![1]) * 1024;
}

const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;

class CrowdWriter {
  revision = 0;
  #running = true;
  readonly #done: Promise<unknown>;

  constructor(endpoints: readonly string[]) {
    this.#done = Promise.all(Array.from({ length: writers }, (_, index) => this.#write(endpoints, index)));
  }

  async #write(endpoints: readonly string[], index: number): Promise<void> {
    const client = new EtcdClient(endpoints[index % endpoints.length]!);
    while (this.#running) {
      const key = Buffer.from(crowdKey(Math.floor(Math.random() * watchers)));
      const result = await client.put({ key, value: Buffer.alloc(64) }, { deadlineMs: 1000 });
      if (result.ok) this.revision = Math.max(this.revision, result.value.header!.revision);
      await sleep(5);
    }
    client.close();
  }

  async stop(): Promise<void> {
    this.#running = false;
    await this.#done;
  }
}

/** Each watcher's events by the store's history, against what it has seen. */
async function missing(crowd: WatchCrowd, endpoint: string, last: number): Promise<number> {
  const client = new EtcdClient(endpoint);
  const counts = new Map<string, number>();
  const sums = new Map<string, number>();
  for (const { kv } of await client.history(2, last)) {
    const key = String(kv!.key);
    counts.set(key, (counts.get(key) ?? 0) + 1);
    sums.set(key, (sums.get(key) ?? 0) + kv!.modRevision);
  }
  client.close();
  let wrong = 0;
  for (let watcher = 0; watcher < watchers; watcher++) {
    const key = crowdKey(watcher);
    const isSame = crowd.counts[watcher] === (counts.get(key) ?? 0) && crowd.sums[watcher] === (sums.get(key) ?? 0);
    if (!isSame) wrong++;
  }
  return wrong;
}

test(`${watchers} watchers go on when the leader is lost`, { timeout: 300_000 }, async (t) => {
  const cluster = await Cluster.start(scratch.folder, ['keelson', 'keelson', 'keelson']);
  const leader = await cluster.leader();
  const others = cluster.members.filter((member) => member !== leader);
  const stay = others.map(({ endpoint }) => endpoint);
  const crowd = new WatchCrowd(watchers, connections, [leader.endpoint], 2);
  const writer = new CrowdWriter(stay);
  try {
    const began = performance.now();
    await until('all to watch', 120_000, () => crowd.isWhole(1));
    t.diagnostic(`all created in ${Math.round(performance.now() - began)} ms`);
    await sleep(writeMs);
    const before = others.map(anonymousBytes);
    crowd.use(stay);
    const lost = performance.now();
    await leader.kill();
    await until('all to watch elsewhere', 120_000, () => crowd.isWhole(2));
    t.diagnostic(`all resumed in ${Math.round(performance.now() - lost)} ms`);
    const killedAt = writer.revision;
    await until('writes to go on', 20_000, () => writer.revision > killedAt);
    await sleep(writeMs);
    await writer.stop();
    const last = (await others[0]!.status()).revision;
    await until('all events to come', 60_000, async () => (await missing(crowd, stay[0]!, last)) === 0);
    assert.equal(crowd.disorder, 0, 'an event again or out of order');
    assert.ok(crowd.events > 100, `only ${crowd.events} events`);
    const grown = others.map((member, index) => anonymousBytes(member) - before[index]!);
    const shown = before.map((bytes, index) => `${megabytes(bytes)} + ${megabytes(grown[index]!)}`);
    t.diagnostic(
      `${crowd.events} events over ${last - 1} revisions; anonymous memory of the others: ${shown.join(', ')}`,
    );
    for (const bytes of grown) assert.ok(bytes < spareBytes + watchers * bytesAWatcherMax);
    await cluster.restart(leader);
    await cluster.agreed();
  } finally {
    await writer.stop();
    await crowd.end();
    await cluster.end();
  }
});
