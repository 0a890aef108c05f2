// Goal: how long writes are not possible when the leader of three goes away, by default time-outs, beside etcd's in the same run. Method:
// the leader is killed KEELSON_KILLS times while a writer asks the other two every 5 ms; then leaders end by SIGTERM
// and hand over first. The times are printed; the goals are 1.8 s in the median and 2.5 s at most, and 200 ms by SIGTERM. Asserted is what
// no machine's load excuses.

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { Cluster, type ClusterMember, type Kind } from './cluster.ts';
import { scratchFolder, sleep, until } from './program.ts';
import { SteadyWriter } from './steady-writer.ts';

const kills = Number(process.env['KEELSON_KILLS'] ?? 5);
const failoverMsMax = 10_000;
const warmMs = 500;
const scratch = scratchFolder('failover');
after(() => scratch.remove());

/** A writer at the members that stay while the leader goes. */
async function withWriter(
  cluster: Cluster,
  work: (leader: ClusterMember, writer: SteadyWriter) => Promise<void>,
): Promise<void> {
  const leader = await cluster.leader();
  const stay = cluster.members.filter((member) => member !== leader).map(({ endpoint }) => endpoint);
  const writer = new SteadyWriter(stay);
  try {
    await until('it writes', 10_000, () => writer.writes.length > 10);
    await sleep(warmMs);
    await work(leader, writer);
  } finally {
    await writer.stop();
  }
  await cluster.restart(leader);
}

/** When the first write has succeeded that began at `from` or later. */
async function firstWrite(writer: SteadyWriter, from: number): Promise<number> {
  const deadline = from + failoverMsMax;
  while (performance.now() < deadline) {
    const end = writer.firstEnd(from);
    if (end !== undefined) return end;
    await sleep(1);
  }
  throw new Error(`no write within ${failoverMsMax} ms`);
}

async function isRefused(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(false);
    });
    socket.once('error', () => resolve(true));
  });
}

function tell(t: TestContext, what: string, times: readonly number[]): void {
  const sorted = [...times].sort((a, b) => a - b);
  const [median, max] = [sorted[sorted.length >> 1]!, sorted.at(-1)!];
  t.diagnostic(`${what}: median ${Math.round(median)} ms, max ${Math.round(max)} ms of ${times.length}`);
  assert.ok(max < failoverMsMax);
}

const kinds: readonly Kind[] = ['etcd', 'keelson'];
for (const kind of kinds) {
  test(`the leader of three ${kind} goes away`, { timeout: 60_000 + kills * 40_000 }, async (t) => {
    const cluster = await Cluster.start(mkdtempSync(join(scratch.folder, `${kind}-`)), [kind, kind, kind]);
    const [killed, stopped, gaps]: number[][] = [[], [], []];
    try {
      for (let kill = 0; kill < kills; kill++) {
        await withWriter(cluster, async (leader, writer) => {
          const since = performance.now();
          const gone = leader.kill();
          killed!.push((await firstWrite(writer, since)) - since);
          await gone;
        });
      }
      for (let stop = 0; stop < kills; stop++) {
        await withWriter(cluster, async (leader, writer) => {
          const port = Number(leader.endpoint.split(':')[1]);
          const since = performance.now();
          const gone = leader.stop();
          while (!(await isRefused(port))) await sleep(1);
          stopped!.push((await firstWrite(writer, performance.now())) - since);
          await gone;
          await sleep(warmMs);
          gaps!.push(writer.longestGapMs(since - warmMs));
        });
      }
      await cluster.agreed();
    } finally {
      await cluster.end();
    }
    tell(t, `${kind}, kill -9: until a write through another member succeeds`, killed!);
    tell(t, `${kind}, SIGTERM: until the first write that begins after its port is gone`, stopped!);
    tell(t, `${kind}, SIGTERM: the longest gap between two writes at the other members`, gaps!);
  });
}
