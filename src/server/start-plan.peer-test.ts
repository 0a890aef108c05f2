// Goal: a start that asks a real etcd cluster is refused in real etcd's words, and gives the ids that the cluster has. Method: an etcd to
// ask; each row of flags is given to another etcd, whose log says why it ends, and to planStart.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { EtcdClient } from '../client/client.ts';
import { joinByDiscovery } from '../client/discovery.ts';
import { rpc } from '../client/rpc.ts';
import { PeerClient } from '../io/peer-client.ts';
import { PeerDialer } from '../io/peer-dialer.ts';
import { Logger } from '../telemetry/logger.ts';
import { configOf } from '../testing/config-fixture.ts';
import { freePort } from '../testing/free-port.ts';
import { loneMemberFlags, peerBinary } from '../testing/peer-programs.ts';
import { planStart, type StartPlan } from './start-plan.ts';

const binary = peerBinary('etcd');
const scratch = mkdtempSync(join(tmpdir(), 'keelson-start-'));
const silent = new Logger({ level: 'fatal', format: 'json', sink: { write: () => {}, flush: () => {} }, now: () => 0 });
const peerRequests = new PeerClient({ dialer: new PeerDialer(2000) });
let etcd: ChildProcess;
let client: EtcdClient;
let peer = '';
let endpoint = '';
let starts = 0;

before(async () => {
  peer = `http://127.0.0.1:${await freePort()}`;
  endpoint = `http://127.0.0.1:${await freePort()}`;
  etcd = spawn(binary, loneMemberFlags('s', join(scratch, 's'), endpoint, peer), {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  await new Promise<void>((resolve) => {
    etcd.stderr!.on('data', (chunk: Buffer) => chunk.includes('ready to serve client requests') && resolve());
  });
  client = new EtcdClient({ endpoints: [endpoint] });
});

after(() => {
  client.close();
  peerRequests.stop();
  etcd.kill('SIGKILL');
  rmSync(scratch, { recursive: true, force: true });
});

/** Flags that are the same for all rows; a new data directory each time. */
function common(): string[] {
  const urls = ['--listen-peer-urls=http://127.0.0.1:0', '--listen-client-urls=http://127.0.0.1:0'];
  const dataDir = join(scratch, `start-${++starts}`);
  return ['--name=n', `--data-dir=${dataDir}`, '--advertise-client-urls=http://127.0.0.1:1', ...urls];
}

function theirs(flags: readonly string[]): string {
  const result = spawnSync(binary, [...common(), ...flags], { cwd: scratch, timeout: 30_000, encoding: 'utf8' });
  assert.equal(result.status, 1, result.stderr);
  const lines = result.stderr.split('\n').filter((line) => line.startsWith('{'));
  const failed = lines
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter(({ msg }) => {
      return msg === 'discovery failed' || msg === 'failed to bootstrap; discovery token was already used';
    });
  return String(failed.at(-1)?.['error']);
}

async function ours(flags: readonly string[]): Promise<StartPlan> {
  const config = await configOf(...common(), ...flags);
  return planStart({
    config,
    logger: silent,
    peerRequests,
    joinByDiscovery: (id, own) => joinByDiscovery({ ...config.discovery!, tls: null, logger: silent }, id, own),
  });
}

/** In which order etcd prints the members, and whose URLs it compared last, follows from the order of a Go map. */
function withoutOrder(message: string): string {
  return message.replace(/ Members:\[.*\](?= RemovedMemberIDs)/, '').replace(/, last resolver error \(.*\)$/, '');
}

async function sameRefusal(...flags: string[]): Promise<void> {
  const expected = theirs(flags);
  assert.notEqual(expected, 'undefined');
  await assert.rejects(ours(flags), (error: Error) => {
    assert.equal(withoutOrder(error.message), withoutOrder(expected), flags.join(' '));
    return true;
  });
}

const own = 'http://127.0.0.1:7';
const advertised = `--initial-advertise-peer-urls=${own}`;
const existing = '--initial-cluster-state=existing';

describe('beside etcd', () => {
  it('a member that nobody added', async () => {
    await sameRefusal(advertised, existing, `--initial-cluster=n=${own},s=${peer}`);
    await sameRefusal(advertised, existing, `--initial-cluster=n=${own}`);
    await sameRefusal(existing, `--initial-advertise-peer-urls=${peer}`, `--initial-cluster=x=${peer}`);
  });

  it('discovery without a size, with a bad one, with no place, with addresses that are none', async () => {
    const put = (key: string, value: string): Promise<unknown> => {
      return client.call(rpc.put, { key: Buffer.from(`/_etcd/registry/${key}`), value: Buffer.from(value) });
    };
    const discovery = (token: string): string[] => [
      `--discovery-endpoints=${endpoint}`,
      `--discovery-token=${token}`,
      advertised,
    ];
    await sameRefusal(...discovery('none'));
    await put('bad/_config/size', 'x');
    await sameRefusal(...discovery('bad'));
    await put('full/_config/size', '1');
    await put('full/members/1', 'other=http://127.0.0.1:8');
    await sameRefusal(...discovery('full'));
    await put('url/_config/size', '2');
    await put('url/members/1', 'other=x');
    await sameRefusal(...discovery('url'));
    await put('twice/_config/size', '2');
    await put('twice/members/1', `other=${own}`);
    await sameRefusal(...discovery('twice'));
  });

  // The last: with a member that never comes the cluster has no leader any more.
  it('a member that was added, and one at another address', async () => {
    const { member } = await client.call(rpc.memberAdd, { peerUrls: [own] });
    await sameRefusal(advertised, existing, `--initial-cluster=n=http://127.0.0.1:8,s=${peer}`);
    const plan = await ours([advertised, existing, `--initial-cluster=n=${own},s=${peer}`]);
    assert.ok(plan.kind === 'join');
    assert.equal(plan.memberId, member!.id);
    const { header } = await client.call(rpc.memberList, { linearizable: false });
    assert.equal(plan.clusterId, header!.clusterId);
    assert.deepEqual(plan.remotes.map(({ name, peerUrls }) => `${name}=${peerUrls}`).sort(), [`=${own}`, `s=${peer}`]);
  });
});
