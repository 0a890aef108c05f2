// Goal: the client keeps its promises on a real etcd: it takes another endpoint when one is gone, a watch sees every event once
// across a restart of the server, a lease lives while it is kept, deadlines hold, nothing is written twice. Method: etcd on free
// loopback ports, killed and started again.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../testing/free-port.ts';
import { loneMemberFlags, peerBinary } from '../testing/peer-programs.ts';
import { EtcdClient } from './client.ts';
import { keepAlive, keepAliveOnce } from './lease-keeper.ts';
import { rpc } from './rpc.ts';
import { EtcdClientError } from './status.ts';
import { type WatchBatch, WatchStream } from './watch.ts';

const binary = peerBinary('etcd');
const directory = mkdtempSync(join(tmpdir(), 'keelson-client-'));
let etcd: ChildProcess;
let port = 0;
let peerPort = 0;
let client: EtcdClient;

async function start(): Promise<void> {
  const url = `http://127.0.0.1:${port}`;
  const peerUrl = `http://127.0.0.1:${peerPort}`;
  etcd = spawn(binary, loneMemberFlags('default', directory, url, peerUrl), { stdio: ['ignore', 'ignore', 'pipe'] });
  await new Promise<void>((resolve) => {
    etcd.stderr!.on('data', (chunk: Buffer) => {
      if (chunk.includes('ready to serve client requests')) resolve();
    });
  });
}

async function kill(): Promise<void> {
  const ended = new Promise((resolve) => etcd.once('exit', resolve));
  etcd.kill('SIGKILL');
  await ended;
}

before(async () => {
  port = await freePort();
  peerPort = await freePort();
  await start();
  client = new EtcdClient({ endpoints: [`127.0.0.1:${port}`] });
});

after(() => {
  client.close();
  etcd.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

const key = Buffer.from('key');

test('calls answer typed messages, errors the code and text of etcd', async () => {
  const { header } = await client.call(rpc.put, { key, value: Buffer.from('1') });
  const { kvs, count } = await client.call(rpc.range, { key });
  assert.deepEqual([kvs[0]?.value.toString(), kvs[0]?.modRevision, count], ['1', header?.revision, 1]);
  await assert.rejects(client.call(rpc.range, { key, revision: 99_999 }), (error: unknown) => {
    assert.ok(error instanceof EtcdClientError);
    assert.deepEqual([error.code, error.message], [11, 'etcdserver: mvcc: required revision is a future revision']);
    return true;
  });
  const inner = { success: [{ requestPut: { key, value: Buffer.from('2') } }] };
  const txn = await client.call(rpc.txn, {
    compare: [{ result: 0, target: 3, key, value: Buffer.from('1') }],
    success: [{ requestTxn: inner }, { requestRange: { key } }],
  });
  assert.equal(txn.succeeded, true);
  assert.equal(txn.responses[0]?.responseTxn?.responses.length, 1);
  assert.equal(txn.responses[1]?.responseRange?.kvs[0]?.value.toString(), '2');
});

test('bounds: a request too large is not sent, a deadline without a server holds', { timeout: 60_000 }, async () => {
  await assert.rejects(
    client.call(rpc.put, { key, value: Buffer.alloc(3 << 20) }),
    /trying to send message larger than max/,
  );
  const dead = new EtcdClient({ endpoints: [`127.0.0.1:${await freePort()}`] });
  await assert.rejects(
    dead.call(rpc.range, { key }, { deadlineMs: Date.now() + 300 }),
    /^EtcdClientError: context deadline exceeded$/,
  );
  const waiting = assert.rejects(dead.call(rpc.range, { key }), /context canceled|Channel closed|shut ?down/i);
  await sleep(100);
  dead.close();
  await waiting;
});

test('another endpoint takes over', async () => {
  const several = new EtcdClient({ endpoints: [`127.0.0.1:${await freePort()}`, `127.0.0.1:${port}`] });
  for (let count = 0; count < 4; count++) {
    await several.call(rpc.put, { key, value: Buffer.from('x') }, { deadlineMs: Date.now() + 3000 });
  }
  several.close();
});

test('a stream brings its chunks in order, and can be left early', async () => {
  for (let start = 0; start < 1000; start += 100) {
    const success = Array.from({ length: 100 }, (_, index) => ({
      requestPut: { key: Buffer.from(`s/${String(start + index).padStart(4, '0')}`), value: Buffer.alloc(500) },
    }));
    await client.call(rpc.txn, { success });
  }
  const range = { key: Buffer.from('s/'), rangeEnd: Buffer.from('s0') };
  const keys: string[] = [];
  let chunks = 0;
  for await (const { rangeResponse } of client.stream(rpc.rangeStream, range)) {
    chunks++;
    keys.push(...(rangeResponse?.kvs ?? []).map((kv) => kv.key.toString()));
  }
  assert.equal(keys.length, 1000);
  assert.deepEqual(keys, [...keys].sort());
  assert.ok(chunks > 1);
  for await (const chunk of client.stream(rpc.rangeStream, range)) {
    assert.ok(chunk);
    break;
  }
  await assert.rejects(async () => {
    for await (const chunk of client.stream(rpc.rangeStream, { ...range, revision: 99_999 })) assert.ok(chunk);
  }, /future revision/);
});

test('a watch sees every event once and in order across a restart of the server', async () => {
  const stream = new WatchStream(client);
  const prefix = { key: Buffer.from('w/'), rangeEnd: Buffer.from('w0') };
  const seen: string[] = [];
  const collect = async (): Promise<void> => {
    for await (const { response, error } of stream.watch(prefix)) {
      if (error !== null) return;
      for (const event of response.events) seen.push(event.kv!.value.toString());
    }
  };
  const watching = collect();
  await sleep(300);
  const put = (value: number): Promise<unknown> =>
    client.call(rpc.put, { key: Buffer.from(`w/${value % 3}`), value: Buffer.from(String(value)) });
  const expected: string[] = [];
  for (let value = 0; value < 60; value++) {
    await put(value);
    expected.push(String(value));
    if (value === 20 || value === 40) {
      await kill();
      await start();
    }
  }
  for (let waited = 0; waited < 50 && seen.length < expected.length; waited++) await sleep(100);
  assert.deepEqual(seen, expected);
  stream.close();
  await watching;
});

test('watches of a stream have each their end: compacted, progress for all', async () => {
  const { header } = await client.call(rpc.put, { key, value: Buffer.from('y') });
  await client.call(rpc.compact, { revision: header!.revision });
  const stream = new WatchStream(client);
  const compacted = stream.watch({ key, startRevision: 2 });
  const first = stream.watch({ key, startRevision: header!.revision });
  const second = stream.watch({ key: Buffer.from('other') });
  const ends: WatchBatch[] = [];
  for await (const batch of compacted) ends.push(batch);
  assert.equal(ends.length, 1);
  assert.equal(ends[0]?.error?.message, 'etcdserver: mvcc: required revision has been compacted');
  assert.equal(ends[0]?.response.compactRevision, header!.revision);
  const firstBatches = first[Symbol.asyncIterator]();
  assert.equal((await firstBatches.next()).value?.response.events.length, 1);
  // The server answers only once all watches of the stream have caught up, and says nothing else.
  await sleep(500);
  stream.requestProgress();
  const progress = [await firstBatches.next(), await second[Symbol.asyncIterator]().next()];
  for (const { value } of progress) {
    assert.equal(value?.response.events.length, 0);
    assert.equal(value?.response.header?.revision, header!.revision);
  }
  stream.close();
  assert.equal((await firstBatches.next()).value?.error?.message, 'context canceled');
  assert.equal((await firstBatches.next()).done, true);
});

test('a watch that its consumer leaves is canceled on the server', async () => {
  const stream = new WatchStream(client);
  const left = stream.watch({ key });
  const stays = stream.watch({ key });
  const reading = (async () => {
    for await (const { response } of left) {
      assert.equal(response.events.length, 1);
      break;
    }
  })();
  await sleep(300);
  await client.call(rpc.put, { key, value: Buffer.from('1') });
  await reading;
  assert.ok(left.isEnded);
  const created = stream.watch({ key });
  created.cancel();
  await client.call(rpc.put, { key, value: Buffer.from('2') });
  const values: string[] = [];
  for await (const { response } of stays) {
    values.push(...response.events.map((event) => event.kv!.value.toString()));
    if (values.length === 2) break;
  }
  assert.deepEqual(values, ['1', '2']);
  for await (const batch of created) assert.fail(`a canceled watch brought ${batch.response.watchId}`);
  stream.close();
});

test('a lease lives while it is kept, across a restart, and its end is told', async () => {
  const { id } = await client.call(rpc.leaseGrant, { ttl: 2n });
  const renewals: bigint[] = [];
  const kept = (async () => {
    for await (const { ttl } of keepAlive(client, id)) renewals.push(ttl);
  })();
  await sleep(1000);
  await kill();
  await start();
  await sleep(3500);
  assert.ok((await client.call(rpc.leaseTimeToLive, { id })).ttl >= 0n, 'the lease is gone');
  assert.ok(renewals.length >= 4, `renewed ${renewals.length} times`);
  await client.call(rpc.leaseRevoke, { id });
  await kept;
  await assert.rejects(keepAliveOnce(client, id), /requested lease not found/);
});

test('a put that may have been made is not made again', async () => {
  const { kvs } = await client.call(rpc.range, { key });
  const version = kvs[0]!.version;
  // The server stops while puts are under way: each ends well or badly, and no version is skipped.
  const outcomes = Array.from({ length: 200 }, () =>
    client.call(rpc.put, { key, value: Buffer.from('z') }, { deadlineMs: Date.now() + 10_000 }).then(
      () => 1,
      () => 0,
    ),
  );
  await kill();
  await start();
  const made = (await Promise.all(outcomes)).reduce((sum: number, one) => sum + one, 0);
  const after = await client.call(rpc.range, { key });
  const grown = after.kvs[0]!.version - version;
  assert.ok(grown >= made && grown <= 200, `${made} were acknowledged, ${grown} were made`);
});
