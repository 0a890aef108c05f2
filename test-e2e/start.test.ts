// Goal: a start that cannot listen changes nothing, whoever connects during a start is served after it, and the init daemon is told once
// the member serves. Method: the real launcher with addresses that are taken, with a failpoint that holds the first write to the log, and
// with a Python socket in systemd's place.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../src/testing/free-port.ts';
import { EtcdClient, expectOk } from './support/etcd-client.ts';
import { removeDirectory, ServerProcess, temporaryDirectory } from './support/server-process.ts';

let directory: string;
beforeEach(() => {
  directory = temporaryDirectory('start');
});
afterEach(() => removeDirectory(directory));

const key = Buffer.from('k');

async function takePort(): Promise<{ server: Server; port: number }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, port: (server.address() as { port: number }).port };
}

for (const flag of ['peer', 'client', 'client-http', 'metrics']) {
  test(`--listen-${flag}-urls on a taken port: etcd's message, exit 1, no data directory`, async () => {
    const { server, port } = await takePort();
    try {
      const dataDir = path.join(directory, 'data');
      const member = ServerProcess.start({ dataDir, flags: [`--listen-${flag}-urls=http://127.0.0.1:${port}`] });
      assert.deepEqual(await member.exited, { code: 1, signal: null }, member.output);
      assert.equal(member.fatalLine()?.msg, `listen tcp 127.0.0.1:${port}: bind: address already in use`);
      assert.equal(existsSync(dataDir), false, 'nothing was made');
      // One that is there already stays as it is.
      mkdirSync(dataDir);
      const again = ServerProcess.start({ dataDir, flags: [`--listen-${flag}-urls=http://127.0.0.1:${port}`] });
      assert.equal((await again.exited).code, 1);
      assert.deepEqual(readdirSync(dataDir), []);
    } finally {
      server.close();
    }
  });
}

test('addresses that the system refuses: its reason in etcd’s words', async () => {
  const cases: [flag: string, message: string][] = [
    ['--listen-client-urls=http://192.0.2.1:2379', 'listen tcp 192.0.2.1:2379: bind: cannot assign requested address'],
    ['--listen-peer-urls=http://192.0.2.1:2380', 'listen tcp 192.0.2.1:2380: bind: cannot assign requested address'],
  ];
  for (const [flag, message] of cases) {
    const dataDir = path.join(directory, 'data');
    const member = ServerProcess.start({ dataDir, flags: [flag] });
    assert.equal((await member.exited).code, 1, member.output);
    assert.equal(member.fatalLine()?.msg, message);
    assert.equal(existsSync(dataDir), false);
  }
});

test('an address that is named twice is listened on once', async () => {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const member = ServerProcess.start({ dataDir: directory, flags: [`--listen-client-urls=${url},${url}`] });
  assert.equal(await member.whenReady(), `127.0.0.1:${port}`);
  assert.equal((await member.stop('SIGTERM')).code, 0);
});

test('who connects during the start waits and is served; peers and monitors have their own ports', async () => {
  const [client, peer, metrics] = [await freePort(), await freePort(), await freePort()];
  const member = ServerProcess.start({
    dataDir: directory,
    flags: [
      `--listen-client-urls=http://127.0.0.1:${client}`,
      `--listen-peer-urls=http://127.0.0.1:${peer}`,
      `--listen-metrics-urls=http://127.0.0.1:${metrics}`,
    ],
    env: { GOFAIL_FAILPOINTS: 'raftBeforeSave=sleep(700)' },
  });
  await member.until('the listeners', () => member.logLine('starting an etcd server'));
  const etcd = new EtcdClient(`127.0.0.1:${client}`);
  const put = etcd.put({ key, value: key });
  const health = fetch(`http://127.0.0.1:${client}/health`);
  await sleep(100);
  assert.equal(member.logLine('ready to serve client requests'), undefined, 'the start is held');
  expectOk(await put);
  assert.equal(await (await health).text(), '{"health":"true","reason":""}');
  etcd.close();
  assert.ok(member.logLine('ready to serve client requests') !== undefined);

  const members = await fetch(`http://127.0.0.1:${peer}/members`);
  assert.match(members.headers.get('x-etcd-cluster-id') ?? '', /^[0-9a-f]+$/);
  assert.match(
    await members.text(),
    /^\[\{"id":\d+,"peerURLs":\["http:\/\/localhost:2380"\],"name":"e2e","clientURLs":\["http:\/\/127\.0\.0\.1:2379"\]\}\]\n$/,
  );
  const status = async (port: number, target: string): Promise<number> =>
    (await fetch(`http://127.0.0.1:${port}${target}`)).status;
  assert.deepEqual([await status(peer, '/version'), await status(peer, '/health')], [200, 404]);
  assert.deepEqual([await status(metrics, '/metrics'), await status(metrics, '/version')], [200, 404]);
  assert.equal((await member.stop('SIGTERM')).code, 0);
});

/** Binds, then prints each datagram with the pid of its sender. */
const initDaemon = `
import socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
s.bind(sys.argv[1])
print('bound', flush=True)
while True:
    data, ancillary, flags, address = s.recvmsg(4096, socket.CMSG_SPACE(12))
    print(data.decode().strip(), struct.unpack('iii', ancillary[0][2])[0], flush=True)
`;
const hasPython = spawnSync('python3', ['--version']).status === 0;

test('READY=1 to systemd from the server itself, once it serves', { skip: !hasPython && 'needs python3' }, async () => {
  const name = path.join(directory, 'notify');
  const daemon = spawn('python3', ['-c', initDaemon, name], { stdio: ['ignore', 'pipe', 'inherit'] });
  let heard = '';
  daemon.stdout.setEncoding('utf8').on('data', (text: string) => {
    heard += text;
  });
  try {
    for (let i = 0; i < 500 && !heard.endsWith('\n'); i++) await sleep(20);
    const member = ServerProcess.start({
      dataDir: path.join(directory, 'data'),
      env: { NOTIFY_SOCKET: name, GOFAIL_FAILPOINTS: 'raftBeforeSave=sleep(300)' },
    });
    await member.until('the listeners', () => member.logLine('starting an etcd server'));
    await sleep(100);
    assert.equal(heard, 'bound\n', 'nothing is said before it serves');
    await member.until('the notification', () => member.logLine('successfully notified init daemon'));
    assert.ok(member.logLine('ready to serve client requests') !== undefined);
    for (let i = 0; i < 250 && !/READY.*\n/.test(heard); i++) await sleep(20);
    assert.equal(heard, `bound\nREADY=1 ${member.pid}\n`);
    assert.equal(member.stderr.includes('Warning'), false, 'node says nothing of its own');
    assert.equal((await member.stop('SIGTERM')).code, 0);
  } finally {
    daemon.kill();
  }
});

test('an init daemon that is not there: told as an error, and the member serves', async () => {
  const env = { NOTIFY_SOCKET: path.join(directory, 'nobody') };
  const member = ServerProcess.start({ dataDir: path.join(directory, 'data'), env });
  const client = new EtcdClient(await member.whenReady());
  const line = await member.until('the line', () => member.logLine('failed to notify systemd for readiness'));
  assert.equal(line.level, 'error');
  expectOk(await client.put({ key, value: key }));
  client.close();
  assert.equal((await member.stop('SIGTERM')).code, 0);
});

for (const signal of ['SIGHUP', 'SIGQUIT'] as const) {
  test(`${signal} ends it at once, as it does etcd: what was acknowledged is there afterwards`, async () => {
    const dataDir = path.join(directory, 'data');
    const member = ServerProcess.start({ dataDir });
    const client = new EtcdClient(await member.whenReady());
    for (let i = 0; i < 50; i++) expectOk(await client.put({ key, value: Buffer.from(String(i)) }));
    client.close();
    assert.deepEqual(await member.stop(signal), { code: null, signal });
    const again = ServerProcess.start({ dataDir });
    const reader = new EtcdClient(await again.whenReady());
    assert.equal(expectOk(await reader.range({ key })).kvs[0]?.version, 50);
    reader.close();
    assert.equal((await again.stop('SIGTERM')).code, 0);
  });
}
