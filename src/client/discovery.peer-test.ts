// Goal: members find each other in a real etcd as etcd's own members do, with whom they must agree: keys, places, messages. Method: an
// etcd on loopback as the store; members that register are this client, and in one test a real etcd beside it.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Logger } from '../telemetry/logger.ts';
import { freePort } from '../testing/free-port.ts';
import { loneMemberFlags, memberFlags, peerBinary } from '../testing/peer-programs.ts';
import { EtcdClient } from './client.ts';
import { joinByDiscovery } from './discovery.ts';
import { rpc } from './rpc.ts';

const binary = peerBinary('etcd');
const directory = mkdtempSync(join(tmpdir(), 'keelson-discovery-'));
const children: ChildProcess[] = [];
let endpoint = '';
let client: EtcdClient;
let lines: Record<string, unknown>[] = [];

/** Starts an etcd; resolves with it when its log has `text`. */
async function etcd(text: string, flags: readonly string[]): Promise<ChildProcess> {
  const child = spawn(binary, flags, { stdio: ['ignore', 'ignore', 'pipe'] });
  children.push(child);
  let log = '';
  await new Promise<void>((resolve, reject) => {
    child.stderr!.on('data', (chunk: Buffer) => {
      log += chunk;
      if (log.includes(text)) resolve();
    });
    child.once('exit', () => reject(new Error(log)));
  });
  return child;
}

before(async () => {
  endpoint = `http://127.0.0.1:${await freePort()}`;
  const peer = `http://127.0.0.1:${await freePort()}`;
  const flags = loneMemberFlags('store', join(directory, 'store'), endpoint, peer);
  await etcd('ready to serve client requests', flags);
  client = new EtcdClient({ endpoints: [endpoint] });
});

after(() => {
  client.close();
  for (const child of children) child.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

function register(
  token: string,
  id: string,
  own: string,
  endpoints = [endpoint],
  sleep?: (ms: number) => Promise<void>,
) {
  const sink = { write: (line: string): void => void lines.push(JSON.parse(line)), flush: (): void => {} };
  const logger = new Logger({ level: 'info', format: 'json', sink, now: () => 0 });
  const times = { dialTimeoutMs: 2000, requestTimeoutMs: 2000, keepAliveMs: 2000, keepAliveTimeoutMs: 6000 };
  const options = { endpoints, token, ...times, user: null, tls: null, logger };
  return joinByDiscovery(sleep === undefined ? options : { ...options, sleep }, id, own);
}

async function put(key: string, value: string): Promise<void> {
  await client.call(rpc.put, { key: Buffer.from(key), value: Buffer.from(value) });
}

test('members wait for each other, and all get the same cluster in the order in which they came', async () => {
  lines = [];
  await put('/_etcd/registry/three/_config/size', '3');
  const first = register('three', 'aa', 'a=http://10.0.0.1:2380');
  while (!lines.some(({ msg }) => msg === 'waiting for peers from discovery service'))
    await client.call(rpc.range, { key: Buffer.from('x') });
  await put('/_etcd/registry/three/members/xx', 'no member');
  const second = await Promise.all([
    first,
    register('three', 'bb', 'b=http://10.0.0.2:2380,b=http://10.0.0.2:2390'),
    register('three', 'cc', 'c=http://10.0.0.3:2380'),
  ]);
  const cluster = second[0]!.split(',');
  assert.equal(cluster[0], 'a=http://10.0.0.1:2380');
  assert.deepEqual(cluster.sort(), [
    'a=http://10.0.0.1:2380',
    'b=http://10.0.0.2:2380',
    'b=http://10.0.0.2:2390',
    'c=http://10.0.0.3:2380',
  ]);
  assert.deepEqual(new Set(second).size, 1);
  assert.ok(lines.some(({ msg }) => msg === 'invalid peer info returned from discovery service'));
  // A member that ended before it had a log comes back to its place.
  assert.equal(await register('three', 'aa', 'a=http://10.0.0.1:2380'), second[0]);
  await assert.rejects(register('three', 'dd', 'd=http://10.0.0.4:2380'), { message: 'discovery: cluster is full' });
});

test('without a size, or with none that can be, there is no cluster', async () => {
  await assert.rejects(register('none', 'aa', 'a=http://10.0.0.1:2380'), { message: 'discovery: size key not found' });
  for (const size of ['0', '-1', 'three', '']) {
    await put('/_etcd/registry/bad/_config/size', size);
    await assert.rejects(register('bad', 'aa', 'a=http://10.0.0.1:2380'), { message: 'discovery: size key is bad' });
  }
});

test('a store that does not answer is waited for, ever longer', async () => {
  const slept: number[] = [];
  const enough = new Error('enough');
  const nobody = [`127.0.0.1:${await freePort()}`];
  await assert.rejects(
    register('t', 'aa', 'a=http://10.0.0.1:2380', nobody, async (ms) => {
      slept.push(ms);
      if (slept.length === 3) throw enough;
    }),
    enough,
  );
  assert.deepEqual(slept, [2000, 4000, 8000]);
});

test('a real etcd and this client are one cluster', async () => {
  await put('/_etcd/registry/mixed/_config/size', '2');
  const peer = `http://127.0.0.1:${await freePort()}`;
  const found = 'waiting for peers from discovery service';
  const url = `http://127.0.0.1:${await freePort()}`;
  const flags = memberFlags('real', join(directory, 'real'), url, peer);
  await etcd(found, [...flags, '--discovery-token=mixed', `--discovery-endpoints=${endpoint}`]);
  assert.equal(await register('mixed', 'aa', 'a=http://10.0.0.1:2380'), `real=${peer},a=http://10.0.0.1:2380`);
});
