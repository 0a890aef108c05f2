// Goal: one snapshot, restored for each member of a new cluster by keelsonutl and etcdutl, starts as that cluster: of keelson alone, and of
// keelson beside etcd. Method: real processes on loopback; a write at one member is read at all, and all have etcd's hash of the keys.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { EtcdClient } from '../client/client.ts';
import { rpc } from '../client/rpc.ts';
import { freePort } from '../testing/free-port.ts';
import { peerBinary } from '../testing/peer-programs.ts';
import { keelsonctl, keelsonutl, runProgram, startEtcd } from './peer-fixture.ts';

const scratch = mkdtempSync(join(tmpdir(), 'keelson-restore-cluster-'));
const snapshot = join(scratch, 'snapshot.db');
const keelson = fileURLToPath(new URL('../../bin/keelson', import.meta.url));
const children: ChildProcess[] = [];
const keys = 200;

before(async () => {
  const source = await startEtcd(join(scratch, 'source'));
  children.push(source.process);
  const client = new EtcdClient({ endpoints: [source.endpoint] });
  for (let i = 0; i < keys; i++) {
    await client.call(rpc.put, { key: Buffer.from(`key-${i % 50}`), value: Buffer.from(`value-${i}`) });
  }
  client.close();
  const saved = await runProgram(keelsonctl, ['--endpoints', source.endpoint, 'snapshot', 'save', snapshot]);
  assert.equal(saved.code, 0, saved.stderr);
});

after(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(scratch, { recursive: true, force: true });
});

interface Member {
  readonly name: string;
  readonly isEtcd: boolean;
  readonly peerUrl: string;
  readonly endpoint: string;
}

/** Members by the letters of `programs`: e for etcd, k for keelson. */
async function restored(programs: string): Promise<readonly Member[]> {
  const members: Member[] = [];
  for (const program of programs) {
    const [peerPort, clientPort] = [await freePort(), await freePort()];
    members.push({
      name: `m${members.length}`,
      isEtcd: program === 'e',
      peerUrl: `http://127.0.0.1:${peerPort}`,
      endpoint: `127.0.0.1:${clientPort}`,
    });
  }
  const cluster = members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(',');
  const started = members.map(async ({ name, isEtcd, peerUrl, endpoint }) => {
    const dataDir = `--data-dir=${join(scratch, programs, name)}`;
    const own = [`--name=${name}`, `--initial-cluster=${cluster}`, `--initial-advertise-peer-urls=${peerUrl}`];
    const common = [...own, `--initial-cluster-token=${programs}`, dataDir];
    const utl = isEtcd ? peerBinary('etcdutl') : keelsonutl;
    const result = await runProgram(utl, ['snapshot', 'restore', snapshot, ...common]);
    assert.equal(result.code, 0, result.stderr);
    const url = `http://${endpoint}`;
    const listens = [`--listen-peer-urls=${peerUrl}`, `--listen-client-urls=${url}`, `--advertise-client-urls=${url}`];
    await serving(
      spawn(isEtcd ? peerBinary('etcd') : keelson, [...common, ...listens], { stdio: ['ignore', 'ignore', 'pipe'] }),
    );
  });
  await Promise.all(started);
  return members;
}

/** Resolves when the program serves clients. */
async function serving(child: ChildProcess): Promise<void> {
  children.push(child);
  let log = '';
  await new Promise<void>((resolve, reject) => {
    child.stderr!.on('data', (chunk: Buffer) => {
      log += chunk;
      if (log.includes('ready to serve client requests')) resolve();
    });
    child.once('exit', (code) => reject(new Error(`it ended with ${code}: ${log}`)));
  });
}

for (const programs of ['kkk', 'kek', 'eek']) {
  test(`a cluster of ${programs}`, async () => {
    const members = await restored(programs);
    const writer = new EtcdClient({ endpoints: [members[0]!.endpoint] });
    const { header } = await writer.call(rpc.put, { key: Buffer.from('after'), value: Buffer.from('restore') });
    writer.close();
    assert.equal(header!.revision, keys + 2, 'the history goes on');
    const seen = new Set<string>();
    for (const { endpoint } of members) {
      const client = new EtcdClient({ endpoints: [endpoint] });
      const { kvs } = await client.call(rpc.range, { key: Buffer.from('after') });
      assert.equal(kvs[0]?.value.toString(), 'restore');
      const { members: listed, header: from } = await client.call(rpc.memberList, {});
      const ids = listed.map(({ id, name, peerUrls }) => `${id} ${name} ${peerUrls}`).sort();
      const { hash } = await client.call(rpc.hashKv, { revision: keys + 2 });
      seen.add(JSON.stringify([ids, hash, from!.clusterId.toString()]));
      client.close();
    }
    assert.equal(seen.size, 1, [...seen].join('\n'));
    assert.deepEqual(
      (JSON.parse([...seen][0]!) as [string[]])[0].map((text) => text.split(' ')[1]).sort(),
      members.map(({ name }) => name),
    );
  });
}
