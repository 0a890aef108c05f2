// Goal: with the flags as they are, a request that took longer than --warning-unary-request-duration is told with etcd's fields, its value
// not among them, and no other is. Method: a real server whose log is held by a failpoint for one request of each kind.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freePort } from '../src/testing/free-port.ts';
import { EtcdClient, expectOk } from './support/etcd-client.ts';
import { type LogLine, removeDirectory, ServerProcess, temporaryDirectory } from './support/server-process.ts';

const fields = [
  ...['level', 'ts', 'caller', 'msg', 'start time', 'time spent', 'remote', 'response type', 'request count'],
  ...['request size', 'response count', 'response size', 'request content'],
];

test('slow requests: one warning each, with what etcd tells of it', async () => {
  const directory = temporaryDirectory('slow');
  const port = await freePort();
  const server = ServerProcess.start({ dataDir: directory, env: { GOFAIL_HTTP: `127.0.0.1:${port}` } });
  const client = new EtcdClient(await server.whenReady());
  const hold = async (term: string): Promise<void> => {
    const method = term === 'off' ? 'DELETE' : 'PUT';
    const answer = await fetch(`http://127.0.0.1:${port}/raftBeforeSave`, {
      method,
      ...(term === 'off' ? {} : { body: term }),
    });
    assert.equal(answer.status, 204);
  };
  const key = Buffer.from('k"1');
  const value = Buffer.from('a secret');
  const told = (): LogLine[] => server.logLines().filter(({ msg }) => msg === 'request stats');
  try {
    for (let i = 0; i < 20; i++) expectOk(await client.put({ key, value }));
    expectOk(await client.range({ key }));
    assert.deepEqual(told(), [], 'quick ones are not told');
    await hold('sleep(400)');
    expectOk(await client.put({ key, value }));
    expectOk(
      await client.txn({ success: [{ put: { key, value } }, { range: { key } }], failure: [{ delete: { key } }] }),
    );
    expectOk(await client.deleteRange({ key }));
    expectOk(await client.grant(7n, 100));
    await hold('off');
    expectOk(await client.put({ key, value }));
    const lines = await server.until('the lines', () => (told().length >= 4 ? told() : undefined));
    const shown = lines.map((line) => [
      line['response type'],
      ...[line['request count'], line['request size'], line['response count'], line['request content']],
    ]);
    const put = 'key:"k\\"1" value_size:8 ';
    assert.deepEqual(shown, [
      ['/etcdserverpb.KV/Put', 1, 15, 0, put],
      [
        '/etcdserverpb.KV/Txn',
        ...[2, 24, 0],
        `compare:<> success:<request_put:<${put}> request_range:{key:"k\\"1"}> failure:<request_delete_range:{key:"k\\"1"}>`,
      ],
      ['/etcdserverpb.KV/DeleteRange', 0, 5, 1, 'key:"k\\"1"'],
      ['/etcdserverpb.Lease/LeaseGrant', -1, -1, -1, ''],
    ]);
    for (const line of lines) {
      assert.deepEqual(Object.keys(line), fields);
      assert.equal(line.level, 'warn');
      assert.match(String(line['remote']), /^127\.0\.0\.1:\d+$/);
      const spentMs = Number(/^([0-9.]+)ms$/.exec(String(line['time spent']))?.[1]);
      assert.ok(spentMs >= 400 && spentMs < 3000, String(line['time spent']));
    }
    assert.ok(!server.output.includes('a secret'));
    client.close();
    assert.equal((await server.stop('SIGTERM')).code, 0);
  } finally {
    removeDirectory(directory);
  }
});
