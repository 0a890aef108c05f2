// Goal: constant puts of 1.5 MB, the largest there are, cost small ones at most twice their time, and no election. Method: three processes;
// 256-byte puts at all members with and without the large ones, in turns; both p99 are printed, etcd's beside it. Asserted is that nobody
// else leads, by each member's own metric, and that everything is acknowledged: times are a busy machine's.

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { Cluster } from './cluster.ts';
import { scratchFolder, sleep } from './program.ts';
import { sumOf } from './store.ts';
import { EtcdClient } from './support/etcd-client.ts';

const scratch = scratchFolder('large-beside-small');
after(() => scratch.remove());

const smallBytes = 256;
/** With its key and all that is around it within --max-request-bytes. */
const largeBytes = 1_500_000;
/** etcd's figure is only to compare with. */
const turnsOf: Readonly<Record<'etcd' | 'keelson', number>> = { etcd: 1, keelson: 2 };
/** Half of it with the large ones. */
const turnMs = Number(process.env['KEELSON_ROUNDS'] ?? 1) * 10_000;
const clientsAMember = 2;
const restMs = 5;
const quota = '--quota-backend-bytes=8589934592';

/** Milliseconds that puts took, of clients that rest in between; what failed goes to `failures`. */
async function smallPuts(endpoints: readonly string[], forMs: number, failures: string[]): Promise<number[]> {
  const times: number[] = [];
  const until = performance.now() + forMs;
  const put = async (endpoint: string): Promise<void> => {
    const client = new EtcdClient(endpoint);
    const value = Buffer.alloc(smallBytes, 's');
    for (let count = 0; performance.now() < until; count++) {
      const began = performance.now();
      const result = await client.put({ key: Buffer.from(`small/${count % 100}`), value });
      if (!result.ok) failures.push(result.message);
      times.push(performance.now() - began);
      await sleep(restMs);
    }
    client.close();
  };
  await Promise.all(endpoints.flatMap((endpoint) => Array.from({ length: clientsAMember }, () => put(endpoint))));
  return times;
}

async function besideLarge(endpoint: string, work: () => Promise<number[]>): Promise<[times: number[], large: number]> {
  const writer = new Worker(new URL('./large-writer.ts', import.meta.url), {
    workerData: { endpoint, bytes: largeBytes },
  });
  let large = 0;
  let failure: unknown = null;
  writer.on('message', (count: number) => {
    large = count;
  });
  writer.on('error', (error) => {
    failure = error;
  });
  const times = await work();
  await writer.terminate();
  assert.equal(failure, null);
  return [times, large];
}

function p99(times: readonly number[]): number {
  return [...times].sort((a, b) => a - b)[Math.floor(times.length * 0.99)]!;
}

const leaderChanges = async (cluster: Cluster): Promise<number[]> =>
  Promise.all(
    cluster.members.map(async (member) => sumOf(await member.metrics(), 'etcd_server_leader_changes_seen_total', {})),
  );

for (const kind of ['etcd', 'keelson'] as const) {
  const turns = turnsOf[kind];
  test(`puts of 1.5 MB beside puts of 256 B, ${kind}`, { timeout: 60_000 + 2 * turns * turnMs }, async (t) => {
    const cluster = await Cluster.start(mkdtempSync(join(scratch.folder, `${kind}-`)), [kind, kind, kind], [quota]);
    try {
      const leader = await cluster.leader();
      const failures: string[] = [];
      await smallPuts(cluster.endpoints, 1000, failures);
      const before = await leaderChanges(cluster);
      const [alone, beside]: [number[], number[]] = [[], []];
      let large = 0;
      for (let turn = 0; turn < turns; turn++) {
        alone.push(...(await smallPuts(cluster.endpoints, turnMs / 2, failures)));
        const [times, count] = await besideLarge(leader.endpoint, () => smallPuts(cluster.endpoints, turnMs, failures));
        beside.push(...times);
        large += count;
      }
      const ratio = (p99(beside) / p99(alone)).toFixed(1);
      const seconds = (turns * turnMs) / 1000;
      t.diagnostic(
        `${kind}: p99 of ${alone.length} small puts ${p99(alone).toFixed(1)} ms, of ${beside.length} beside large ones ` +
          `${p99(beside).toFixed(1)} ms, ${ratio} times; ${large} large ones in ${seconds} s`,
      );
      assert.ok(large > seconds, `only ${large} large ones`);
      const changes = await leaderChanges(cluster);
      if (failures.length > 0) t.diagnostic(`${kind}: ${failures.join('; ')}; leader changes ${before} to ${changes}`);
      // On a busy machine etcd's leader changes: what it does is to compare with.
      if (kind === 'etcd') return;
      assert.deepEqual(changes, before, 'elections');
      assert.deepEqual(failures, []);
      await cluster.agreed();
    } finally {
      await cluster.end();
    }
  });
}
