// Goal: a client cannot hurt a server by what it reads: a Txn whose answer is too large does its writes, is answered with the bound, and
// a kill -9 and a restart apply it again; a list of everything lets others through and is exact. Method: a real process; requests
// of real size over the wire.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { applyAnswerBytesMax } from '../src/limits.ts';
import type { OpInit } from '../src/testing/kv-messages.ts';
import { EtcdClient, expectOk } from './support/etcd-client.ts';
import { removeDirectory, ServerProcess, temporaryDirectory } from './support/server-process.ts';

const dataDir = temporaryDirectory('big-reads');
let server: ServerProcess;
let client: EtcdClient;
let other: EtcdClient;
const bytesOf = (text: string): Buffer => Buffer.from(text);

async function start(): Promise<void> {
  server = ServerProcess.start({ dataDir });
  const address = await server.whenReady();
  client = new EtcdClient(address);
  other = new EtcdClient(address);
}

async function kill(): Promise<void> {
  client.close();
  other.close();
  await server.stop('SIGKILL');
}

before(start);
after(async () => {
  await kill();
  removeDirectory(dataDir);
});

const large = { key: bytesOf('large/'), rangeEnd: bytesOf('large0') };

test('a txn of ranges beyond the bound does its writes, and is applied again after a kill -9', async () => {
  const value = Buffer.alloc(100_000, 'x');
  for (let i = 0; i < 20; i++) expectOk(await client.put({ key: bytesOf(`large/${i}`), value }));
  const ranges: OpInit[] = Array.from({ length: 120 }, () => ({ range: large }));
  const tooLarge = {
    ok: false,
    code: 8,
    message: `grpc: trying to send message larger than max (${applyAnswerBytesMax} bytes)`,
  };
  const success = [...ranges, { put: { key: bytesOf('written'), value: bytesOf('yes') } }];
  assert.deepEqual(await client.txn({ success }), tooLarge);
  const written = expectOk(await client.range({ key: bytesOf('written') }));
  assert.equal(written.kvs[0]?.value.toString(), 'yes');
  assert.deepEqual(await client.txn({ success: ranges }), tooLarge, 'one that only reads');
  const deleted = expectOk(await client.txn({ success: [{ delete: { ...large, prevKv: true } }] }));
  assert.equal(deleted.responses[0]?.delete?.prevKvs.length, 20);
  expectOk(await client.txn({ success: [{ put: { key: bytesOf('large/again'), value } }] }));
  const { hash } = expectOk(await client.hashKv(0));
  const { revision } = expectOk(await client.range({ key: bytesOf('written') })).header!;

  await kill();
  await start();
  const again = expectOk(await client.range({ key: bytesOf('written') }));
  assert.deepEqual([again.header!.revision, again.kvs[0]?.modRevision], [revision, written.kvs[0]?.modRevision]);
  assert.equal(expectOk(await client.hashKv(0)).hash, hash);
  assert.deepEqual(await client.txn({ success: ranges.slice(0, 2) }).then(({ ok }) => ok), true);
});

test('a list of everything is exact at its revision, and others are served while it is read', async () => {
  const COUNT = 40_000;
  const value = Buffer.alloc(200, 'v');
  for (let from = 0; from < COUNT; from += 125) {
    const success: OpInit[] = [];
    for (let i = from; i < from + 125; i++) success.push({ put: { key: bytesOf(`list/${100_000 + i}`), value } });
    expectOk(await client.txn({ success }));
  }
  let listed = false;
  let written = 0;
  const list = client.range({ key: bytesOf('list/'), rangeEnd: bytesOf('list0') }).then((result) => {
    listed = true;
    return expectOk(result);
  });
  // Each goes to the server and back while the list is read.
  while (!listed) {
    expectOk(await other.put({ key: bytesOf(`list/${100_000 + written}`), value: bytesOf('later') }));
    expectOk(await other.deleteRange({ key: bytesOf(`list/${100_000 + COUNT - 1 - written}`) }));
    written++;
  }
  const { kvs, count, more, header } = await list;
  assert.deepEqual([kvs.length, count, more], [COUNT, COUNT, false]);
  for (const [i, { key, modRevision }] of kvs.entries()) {
    if (key.toString() !== `list/${100_000 + i}`) assert.fail(`key ${i} is ${key.toString()}`);
    assert.ok(modRevision <= header!.revision);
  }
  assert.ok(written >= 3, `only ${written} puts while the list was read`);
  // The same list again, at its revision: the same answer.
  const again = expectOk(
    await client.range({ key: bytesOf('list/'), rangeEnd: bytesOf('list0'), revision: header!.revision }),
  );
  assert.deepEqual(again.kvs, kvs);
  // Twice in a Txn that only reads: too, and others are served meanwhile.
  const range = { key: bytesOf('list/'), rangeEnd: bytesOf('list0'), revision: header!.revision };
  let answered = false;
  const txn = client
    .txn({ success: [{ range }, { range: { ...range, countOnly: true } }, { range }] })
    .then((result) => {
      answered = true;
      return expectOk(result);
    });
  let gets = 0;
  for (; !answered; gets++) expectOk(await other.range({ key: bytesOf('written') }));
  const [first, counted, second] = (await txn).responses;
  assert.deepEqual([first?.range?.kvs, second?.range?.kvs, counted?.range?.count], [kvs, kvs, COUNT]);
  assert.ok(gets >= 3, `only ${gets} gets while the Txn was read`);
});
