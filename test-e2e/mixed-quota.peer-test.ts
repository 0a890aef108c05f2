// Goal: in a cluster of both kinds that runs into its quota, whichever kind notices it, every member refuses writes, and the
// documented way out (delete, compact, defragment, disarm) leads out. Their databases have different sizes for the same content: each
// member only proposes the alarm, which the log then brings to all. Method: the two members of one kind fill up while the one of the
// other kind is down, so that they raise the alarm; it must hold for that one when it is back.

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { EtcdClient } from '../src/client/client.ts';
import { rpc } from '../src/client/rpc.ts';
import { EtcdClientError } from '../src/client/status.ts';
import { etcdErrors } from '../src/proto/rpctypes.ts';
import { Cluster, type ClusterMember, ctl, type Kind } from './cluster.ts';
import { agreeOnAll, sameStates, stepsOf } from './cluster-checks.ts';
import { scratchFolder, until } from './program.ts';

const scratch = scratchFolder('mixed-quota');
after(() => scratch.remove());

const quotaBytes = 16 * 1024 * 1024;
const valueBytes = 100_000;
/** Far more than the quota holds. */
const putsMax = 1000;

async function put(client: EtcdClient, index: number, bytes = valueBytes): Promise<'done' | 'no space'> {
  const request = { key: Buffer.from(`big/${index % 20}`), value: Buffer.alloc(bytes, index) };
  try {
    await client.call(rpc.put, request, { deadlineMs: Date.now() + 5000 });
    return 'done';
  } catch (error) {
    if (error instanceof EtcdClientError && error.is(etcdErrors.noSpace)) return 'no space';
    throw error;
  }
}

async function through<T>(member: ClusterMember, work: (client: EtcdClient) => Promise<T>): Promise<T> {
  const client = new EtcdClient({ endpoints: [member.endpoint] });
  try {
    return await work(client);
  } finally {
    client.close();
  }
}

async function runFull(t: TestContext, kind: Kind, other: Kind): Promise<void> {
  const step = stepsOf(t);
  const folder = mkdtempSync(join(scratch.folder, 'cluster-'));
  const cluster = await Cluster.start(folder, [kind, other, kind], [`--quota-backend-bytes=${quotaBytes}`]);
  try {
    const [first, absent] = cluster.members as [ClusterMember, ClusterMember];
    await cluster.leader();
    await absent.kill();
    await cluster.leader();
    const puts = await step(`two ${kind} run full`, () =>
      through(first, async (client) => {
        for (let index = 0; index < putsMax; index++) if ((await put(client, index)) === 'no space') return index;
        return putsMax;
      }),
    );
    t.diagnostic(`${puts} puts of ${valueBytes} B into ${quotaBytes} B`);
    assert.ok(puts < putsMax, 'never full');
    await step(`the ${other} comes back`, () => cluster.restart(absent));
    await step('all hold the same alarm and refuse to write', () => refused(cluster));
    await step('delete, compact, defragment, disarm', async () => {
      await cluster.ctl('del', '--prefix', 'big/');
      const { revision } = await first.status();
      await cluster.ctl('compact', String(revision), '--physical');
      for (const { endpoint } of cluster.members) await ctl([endpoint], 'defrag');
      await cluster.ctl('alarm', 'disarm');
    });
    await step('all write, and agree', async () => {
      for (const member of cluster.members) {
        assert.equal(await ctl([member.endpoint], 'alarm', 'list'), '');
        await through(member, async (client) => assert.equal(await put(client, 1), 'done'));
      }
      await agreeOnAll(cluster);
      await sameStates(cluster, folder);
    });
  } finally {
    await cluster.end();
  }
}

async function refused(cluster: Cluster): Promise<void> {
  const lists = new Set<string>();
  await until('the alarm on all', 20_000, async () => {
    lists.clear();
    for (const { endpoint } of cluster.members) lists.add(await ctl([endpoint], 'alarm', 'list'));
    return lists.size === 1;
  });
  assert.match([...lists][0]!, /^memberID:\d+ +alarm:NOSPACE/);
  for (const member of cluster.members) {
    await through(member, async (client) => {
      assert.equal(await put(client, 1, 1), 'no space', `${member.kind} ${member.name} writes`);
      // Reads and deletes go on.
      const key = Buffer.from('big/0');
      await client.call(rpc.range, { key }, { deadlineMs: Date.now() + 5000 });
      await client.call(rpc.deleteRange, { key: Buffer.from('no such key') }, { deadlineMs: Date.now() + 5000 });
    });
  }
  await agreeOnAll(cluster);
}

test('keelsons notice it, an etcd is told', { timeout: 90_000 }, (t) => runFull(t, 'keelson', 'etcd'));
test('etcds notice it, a keelson is told', { timeout: 90_000 }, (t) => runFull(t, 'etcd', 'keelson'));
