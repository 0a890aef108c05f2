// Goal: with the flags as they are, a request that took longer than --warning-unary-request-duration is told with etcd's fields, its value
// not among them, and no other is. Method: a real server whose log is held by a failpoint for one request of each kind. What the server
// says that a request took is held against what it took its client: as long as the disk was held at least, and no longer than that.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDuration } from '../src/config/go-value.ts';
import { freePort } from '../src/testing/free-port.ts';
import { EtcdClient, expectOk, type Result } from './support/etcd-client.ts';
import { type LogLine, removeDirectory, ServerProcess, temporaryDirectory } from './support/server-process.ts';

/** The default of --warning-unary-request-duration. */
const thresholdMs = 300;
const heldMs = 400;

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
  /** As the client saw it, call by call. */
  const tookMs: number[] = [];
  const timed = async <T>(call: () => Promise<Result<T>>): Promise<void> => {
    const startMs = performance.now();
    expectOk(await call());
    tookMs.push(performance.now() - startMs);
  };
  const told = (): LogLine[] => server.logLines().filter(({ msg }) => msg === 'request stats');
  try {
    for (let i = 0; i < 20; i++) await timed(() => client.put({ key, value }));
    await timed(() => client.range({ key }));
    const slow = tookMs.splice(0).filter((ms) => ms >= thresholdMs).length;
    assert.ok(told().length <= slow, 'quick ones are not told');
    const before = told().length;
    await hold(`sleep(${heldMs})`);
    await timed(() => client.put({ key, value }));
    const txn = { success: [{ put: { key, value } }, { range: { key } }], failure: [{ delete: { key } }] };
    await timed(() => client.txn(txn));
    await timed(() => client.deleteRange({ key }));
    await timed(() => client.grant(7n, 100));
    await hold('off');
    await timed(() => client.put({ key, value }));
    const lines = await server.until('the lines', () => {
      const all = told().slice(before);
      return all.length >= 4 ? all.slice(0, 4) : undefined;
    });
    if (tookMs[4]! < thresholdMs) assert.equal(told().length, before + 4, 'the last one was quick again');
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
    for (const [index, line] of lines.entries()) {
      assert.deepEqual(Object.keys(line), fields);
      assert.equal(line.level, 'warn');
      assert.match(String(line['remote']), /^127\.0\.0\.1:\d+$/);
      const spent = parseDuration(String(line['time spent']));
      assert.ok(spent.ok);
      const spentMs = Number(spent.value) / 1e6;
      assert.ok(spentMs >= heldMs && spentMs <= tookMs[index]!, `${spentMs} of ${tookMs[index]} ms`);
    }
    assert.ok(!server.output.includes('a secret'));
    assert.equal((await server.stop('SIGTERM')).code, 0);
  } finally {
    client.close();
    if (server.exit === null) await server.stop('SIGKILL');
    removeDirectory(directory);
  }
});
