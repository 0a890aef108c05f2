// Goal: a cluster answers as etcd's to questions about versions, downgrades, hashes between members and the move of the leadership, on the
// leader and on a follower, and its storage version is what etcd stores. Method: a cluster of three etcds and one of three keelsons
// go through the same steps; what each answered is compared whole.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { peerBinaries } from '../src/testing/peer-programs.ts';
import { Cluster, type ClusterMember, type Kind } from './cluster.ts';
import { until } from './program.ts';

const folder = mkdtempSync(join(tmpdir(), 'keelson-versions-'));
after(() => rmSync(folder, { recursive: true, force: true }));

type Record = readonly (readonly [step: string, answer: unknown])[];

interface HttpRequest {
  readonly method?: string;
  readonly path: string;
  readonly body?: string;
  readonly headers?: { readonly [name: string]: string };
}

const shownHeaders = ['allow', 'content-type', 'x-content-type-options', 'location'];

/** A request to its peer listener. Whether the cluster id is there is shown, not which. */
function askPeer(member: ClusterMember, { method = 'GET', path, body, headers = {} }: HttpRequest): Promise<unknown> {
  const { hostname, port } = new URL(member.peerUrl);
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'Content-Length': Buffer.byteLength(body) };
    const options = { host: hostname, port, method, path, headers: { ...headers, ...length }, agent: false };
    const call = httpRequest(options, async (response) => {
      let text = '';
      for await (const chunk of response) text += chunk;
      const shown = shownHeaders.map((name) => response.headers[name] ?? null);
      resolve([response.statusCode, ...shown, response.headers['x-etcd-cluster-id'] !== undefined, text]);
    });
    call.on('error', reject);
    call.end(body);
  });
}

/** etcdctl on one member: exit code, output, and the last line of what it complains about. */
function ctlOf(member: ClusterMember, ...words: string[]): Promise<unknown> {
  const args = ['--endpoints', member.endpoint, '--command-timeout=20s', ...words];
  return new Promise((resolve) => {
    execFile(join(peerBinaries, 'etcdctl'), args, { env: {} }, (error, stdout, stderr) => {
      const complaint = stderr.trim().split('\n').at(-1) ?? '';
      resolve([error === null ? 0 : Number(error.code), withoutIds(stdout), withoutIds(complaint)]);
    });
  });
}

/** Ids and addresses are each cluster's own. */
function withoutIds(text: string): string {
  return text.replace(/\b[0-9a-f]{13,16}\b/g, 'ID').replace(/127\.0\.0\.1:\d+/g, 'ADDRESS');
}

interface StatusJson {
  readonly version: string;
  readonly storageVersion?: string;
  readonly downgradeInfo?: unknown;
  readonly errors?: unknown;
}

async function statusOf(member: ClusterMember): Promise<StatusJson> {
  const [, text] = (await ctlOf(member, 'endpoint', 'status', '-w', 'json')) as [number, string];
  const [{ Status: status }] = JSON.parse(text.replace(/:(\d{16,})/g, ':"$1"').replace(/:ID\b/g, ':0')) as [
    { Status: StatusJson },
  ];
  const { version, storageVersion, downgradeInfo, errors } = status;
  return { version, ...(storageVersion === undefined ? {} : { storageVersion }), downgradeInfo, errors };
}

async function versionSettles(cluster: Cluster, version: string): Promise<void> {
  for (const member of cluster.members) {
    await until(`${member.name} at ${version}`, 30_000, async () => {
      const answer = (await askPeer(member, { path: '/version' })) as unknown[];
      const { etcdcluster, storage } = JSON.parse(String(answer.at(-1))) as { etcdcluster: string; storage: string };
      return etcdcluster === version && storage === version;
    });
  }
}

const hashRequests: readonly HttpRequest[] = [
  ...[
    '{}',
    '{"revision":0}',
    '{"revision":1}',
    '{"revision":3}',
    '{"revision":6}',
    '{"revision":7}',
    '{"revision":99}',
  ],
  ...['{"revision":-1}', '{"revision":null}', '{"REVISION":6}', '{"other":1,"revision":6}', 'null', ' {"revision":6} '],
  ...['', '[]', '1', '"x"', '{', '{"revision":"6"}', '{"revision":1.5}', '{"revision":6}x', '{"revision":true}'],
].map((body) => ({ path: '/members/hashkv', body }));

const otherRequests: readonly HttpRequest[] = [
  { path: '/version' },
  { path: '/downgrade/enabled' },
  { path: '/downgrade/enabled?x=1' },
  { path: '/downgrade/enabled/' },
  { path: '/downgrade/enabled/x' },
  { path: '/downgrade' },
  { method: 'POST', path: '/downgrade/enabled', body: '{}' },
  { method: 'HEAD', path: '/downgrade/enabled' },
  { method: 'POST', path: '/members/hashkv', body: '{}' },
  { method: 'POST', path: '/version', body: '{}' },
  { path: '/members/hashkv/', body: '{}' },
  { path: '/members/hashkv', body: '{}', headers: { 'X-Etcd-Cluster-ID': 'abc' } },
  { path: '/members/hashkv', body: '{}', headers: { 'X-Etcd-Cluster-ID': '' } },
];

const downgradeWords: readonly (readonly string[])[] = [
  ...['3.5', '3.5.0', '3.7.0', '3.8.0', '4.0.0', '3', 'x', '3.6.0.0', '3.6-rc', '-- -3.6.0'].flatMap((version) => [
    ['downgrade', 'validate', ...version.split(' ')],
    ['downgrade', 'enable', ...version.split(' ')],
  ]),
  ['downgrade', 'cancel'],
  ['downgrade', 'validate', '3.6'],
  ['downgrade', 'validate', '3.6.5'],
  ['downgrade', 'validate', '03.06.00'],
];

/** What stays as it is. */
async function refusals(cluster: Cluster, record: [string, unknown][]): Promise<void> {
  const leader = await cluster.leader();
  const follower = (await cluster.followers())[0]!;
  for (const [role, member] of [
    ['leader', leader],
    ['follower', follower],
  ] as const) {
    for (const request of [...hashRequests, ...otherRequests]) {
      record.push([`${role} ${JSON.stringify(request)}`, await askPeer(member, request)]);
    }
    for (const words of downgradeWords) record.push([`${role} ${words.join(' ')}`, await ctlOf(member, ...words)]);
    record.push([`${role} status`, await statusOf(member)]);
  }
}

async function goesDownAndUp(cluster: Cluster, record: [string, unknown][]): Promise<void> {
  const leader = await cluster.leader();
  const follower = (await cluster.followers())[0]!;
  record.push(['enable', await ctlOf(follower, 'downgrade', 'enable', '3.6')]);
  record.push(['enable again', await ctlOf(leader, 'downgrade', 'enable', '3.6')]);
  record.push(['enabled', await askPeer(leader, { path: '/downgrade/enabled' })]);
  await versionSettles(cluster, '3.6.0');
  for (const member of [leader, follower]) record.push(['status', await statusOf(member)]);
  record.push(['validate', await ctlOf(follower, 'downgrade', 'validate', '3.5')]);
  record.push(['cancel', await ctlOf(follower, 'downgrade', 'cancel')]);
  record.push(['disabled', await askPeer(follower, { path: '/downgrade/enabled' })]);
  await versionSettles(cluster, '3.7.0');
  for (const member of [leader, follower]) record.push(['status', await statusOf(member)]);
}

async function movesLeader(cluster: Cluster, record: [string, unknown][]): Promise<void> {
  const leader = await cluster.leader();
  const follower = (await cluster.followers())[0]!;
  const id = await cluster.idOf(follower);
  record.push(['move to nobody', await ctlOf(leader, 'move-leader', '1234')]);
  record.push(['move to itself', await ctlOf(leader, 'move-leader', await cluster.idOf(leader))]);
  record.push(['move by a follower', await ctlOf(follower, 'move-leader', id)]);
  record.push(['move', await ctlOf(leader, 'move-leader', id)]);
  record.push(['moved', (await cluster.leader()) === follower]);
}

async function history(kind: Kind): Promise<Record> {
  const place = join(folder, kind);
  mkdirSync(place);
  const cluster = await Cluster.start(place, [kind, kind, kind], ['--log-level=info']);
  try {
    const record: [string, unknown][] = [];
    await versionSettles(cluster, '3.7.0');
    for (let i = 0; i < 5; i++) await cluster.ctl('put', `key${i % 3}`, `value${i}`);
    await cluster.ctl('compaction', '5', '--physical');
    await cluster.agreed();
    await refusals(cluster, record);
    await goesDownAndUp(cluster, record);
    await movesLeader(cluster, record);
    return record;
  } finally {
    await cluster.end();
  }
}

test('versions, downgrades, hashes and the leadership', { timeout: 240_000 }, async () => {
  const [etcd, keelson] = [await history('etcd'), await history('keelson')];
  assert.equal(keelson.length, etcd.length);
  for (const [at, [step, answer]] of etcd.entries()) assert.deepEqual(keelson[at], [step, answer], step);
});
