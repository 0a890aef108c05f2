// Goal: member and cluster ids equal those that real etcd computes. Method: a real etcd for each setting, on free ports, asked
// by etcdctl; three members' ids are read from one of them that waits for the others (its log names both ids at start).

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { freePort } from '../testing/free-port.ts';
import { clusterId, formatId, memberId } from './cluster-id.ts';
import { parseInitialCluster } from './initial-cluster.ts';
import { urlTexts } from './member-url.ts';

const binary = join(homedir(), '.cache/keelson/bin/etcd');

/** Starts etcd until it logs its ids. */
async function idsOfEtcd(name: string, cluster: string, peerUrls: string, token: string): Promise<[string, string]> {
  const dir = mkdtempSync(join(tmpdir(), 'keelson-id-'));
  const client = `http://127.0.0.1:${await freePort()}`;
  const child = spawn(
    binary,
    [
      ...[
        '--name',
        name,
        '--data-dir',
        join(dir, 'data'),
        '--initial-cluster',
        cluster,
        '--initial-cluster-token',
        token,
      ],
      ...['--initial-advertise-peer-urls', peerUrls, '--listen-peer-urls', peerUrls],
      ...['--listen-client-urls', client, '--advertise-client-urls', client],
    ],
    { env: {}, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  try {
    let log = '';
    for await (const chunk of child.stderr) {
      log += chunk;
      const match = /"local-member-id":"([0-9a-f]+)","cluster-id":"([0-9a-f]+)"/.exec(log);
      if (match !== null) return [match[1]!, match[2]!];
    }
    throw new Error(`etcd ended: ${log}`);
  } finally {
    child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
}

describe('ids beside etcd', { skip: !existsSync(binary) }, () => {
  it('one member, two URLs, three members, tokens', async () => {
    const [a, b] = [await freePort(), await freePort()];
    const rows: [string, string, string, string][] = [
      ['one', `one=http://127.0.0.1:${a}`, `http://127.0.0.1:${a}`, 'etcd-cluster'],
      ['one', `one=http://127.0.0.1:${a}`, `http://127.0.0.1:${a}`, 'other töken'],
      ['two', `two=http://127.0.0.1:${b},two=http://127.0.0.1:${a}`, `http://127.0.0.1:${b},http://127.0.0.1:${a}`, ''],
      ['x', `y=http://127.0.0.1:2,x=http://127.0.0.1:${a},z=http://127.0.0.1:3`, `http://127.0.0.1:${a}`, 't'],
    ];
    for (const [name, clusterText, peerUrls, token] of rows) {
      const [theirMember, theirCluster] = await idsOfEtcd(name, clusterText, peerUrls, token);
      const parsed = parseInitialCluster(clusterText);
      assert.ok(parsed.ok);
      const ids = new Map([...parsed.value].map(([member, urls]) => [member, memberId(urlTexts(urls), token)]));
      assert.equal(formatId(ids.get(name)!), theirMember, clusterText);
      assert.equal(formatId(clusterId([...ids.values()])), theirCluster, clusterText);
    }
  });
});
