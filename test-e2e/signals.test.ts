// Goal: the process behaves as supervisors, scripts and test frameworks expect (LESSONS.md, "What programs expect of the
// process"): signals, exit codes, the version, its environment, its log lines. Method: the real launcher, as they start it.

import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, statSync } from 'node:fs';
import type net from 'node:net';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../src/testing/free-port.ts';
import { CrashRun } from './support/crash-run.ts';
import { EtcdClient, everything, expectOk } from './support/etcd-client.ts';
import { frameMessage, openSocket } from './support/raw-http2.ts';
import {
  childrenOf,
  type LogLine,
  removeDirectory,
  ServerProcess,
  temporaryDirectory,
} from './support/server-process.ts';

/** etcd's lines at the end of a member that is alone. */
const AT_THE_END: readonly string[] = [
  'skipped leadership transfer for single voting member cluster',
  'stopping serving peer traffic',
  'stopped serving peer traffic',
];

const DATA_DIR_IN_USE = 14;

let directory: string;
beforeEach(() => {
  directory = temporaryDirectory('signals');
});
afterEach(() => removeDirectory(directory));

/** What holds for the whole output of a server that met nothing unusual. */
function assertOrderlyLog(server: ServerProcess): void {
  const lines: LogLine[] = server.logLines();
  assert.equal(lines.filter((line) => line.msg === 'ready to serve client requests').length, 1);
  assert.equal(server.output.split('ready to serve client requests').length, 2, 'exactly one line says ready');
  for (const stream of [server.stdout, server.stderr]) {
    for (const text of stream.split('\n').slice(0, -1)) assert.ok(text.startsWith('{'), `not a JSON line: ${text}`);
    assert.ok(!stream.includes('\u001b'), 'no colours');
  }
  for (const line of lines) {
    assert.ok(['debug', 'info', 'warn'].includes(line.level), JSON.stringify(line));
    assert.match(line.ts, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d{4})$/);
    assert.ok(typeof line.caller === 'string' && line.caller !== '', JSON.stringify(line));
    assert.ok(typeof line.msg === 'string' && line.msg !== '', JSON.stringify(line));
  }
}

/** What it says after it began to close. */
function linesOfEnd(server: ServerProcess): string[] {
  const lines = server.logLines().map(({ msg }) => msg);
  return lines.slice(lines.indexOf('closing etcd server') + 1);
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} under load: exits 0, all acknowledged data is on disk`, async () => {
    const run = new CrashRun(signal === 'SIGTERM' ? 11 : 12);
    try {
      let code: number | null = -1;
      const strike = async (server: ServerProcess): Promise<void> => {
        await sleep(400);
        ({ code } = await server.stop(signal));
        assertOrderlyLog(server);
        assert.equal(
          server.logLine('received signal; shutting down')?.['signal'],
          signal === 'SIGTERM' ? 'terminated' : 'interrupt',
        );
      };
      await run.round({ strike, deadStarts: 0, load: { inFlight: 20, valueBytesMax: 3000 } });
      assert.equal(code, 0);
    } finally {
      run.end();
    }
  });

  test(`${signal} with open watch streams and idle connections: cuts them, and exits 0`, async () => {
    const server = ServerProcess.start({ dataDir: directory });
    const address = await server.whenReady();
    const clients = Array.from({ length: 4 }, () => new EtcdClient(address));
    const ends = clients.map((client) => {
      const stream = client.watch(() => {});
      stream.send({ createRequest: everything });
      return stream.ended;
    });
    const key = Buffer.from('k');
    for (const client of clients) expectOk(await client.put({ key, value: Buffer.from('v') }));
    assert.equal((await server.stop(signal)).code, 0);
    assert.deepEqual(linesOfEnd(server), [
      ...AT_THE_END,
      'closing connections that are still open',
      'closed etcd server',
    ]);
    for (const end of await Promise.all(ends))
      assert.equal(end.code, 14, `a watch ended with ${end.code} ${end.message}`);
    for (const client of clients) client.close();
    assertOrderlyLog(server);
    const again = ServerProcess.start({ dataDir: directory });
    const client = new EtcdClient(await again.whenReady());
    const { kvs, header } = expectOk(await client.range({ key }));
    assert.deepEqual([kvs[0]?.version, header?.revision], [4, 5]);
    client.close();
    await again.stop('SIGKILL');
  });
}

const FrameType = { data: 0, headers: 1, settings: 4 } as const;
const END_STREAM = 1;
const END_HEADERS = 4;

function http2Frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** A connection whose client asks for a snapshot larger than the window that it gives, and then neither reads nor writes again. */
async function stuckSnapshot(address: string): Promise<net.Socket> {
  const socket = await openSocket(address);
  const fields = Object.entries({
    ':method': 'POST',
    ':scheme': 'http',
    ':path': '/etcdserverpb.Maintenance/Snapshot',
    ':authority': address,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  // Literals without an index, of fewer than 127 bytes.
  const text = (value: string): Buffer => Buffer.concat([Buffer.from([value.length]), Buffer.from(value)]);
  const block = Buffer.concat(fields.flatMap(([name, value]) => [Buffer.alloc(1), text(name), text(value)]));
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  socket.write(http2Frame(FrameType.settings, 0, 0, Buffer.alloc(0)));
  socket.write(http2Frame(FrameType.headers, END_HEADERS, 1, block));
  socket.write(http2Frame(FrameType.data, END_STREAM, 1, frameMessage(Buffer.alloc(0))));
  let bytes = 0;
  await new Promise<void>((resolve, reject) => {
    socket.on('close', () => reject(new Error(`cut after ${bytes} bytes`)));
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      // All that the first window of HTTP/2 lets through.
      if (bytes >= 65_535) resolve();
    });
  });
  socket.pause();
  return socket;
}

// What bounds the time to the end (limits.ts) is that from the grace on nothing is waited for that another process would have to do.
test('SIGTERM with clients that never do anything again: the grace ends, they are cut, it exits', async () => {
  const server = ServerProcess.start({ dataDir: directory });
  const address = await server.whenReady();
  const client = new EtcdClient(address);
  for (let i = 0; i < 5; i++)
    expectOk(await client.put({ key: Buffer.from(`k${i}`), value: Buffer.alloc(100_000, i) }));
  client.close();
  const stuck = await stuckSnapshot(address);
  const silent = await openSocket(address);
  const half = await openSocket(address);
  half.write('POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{');
  const open = [stuck, silent, half];
  // None of them answers the end of the server's side with its own.
  for (const socket of open) socket.allowHalfOpen = true;
  const exit = await server.stop('SIGTERM');
  assert.deepEqual(exit, { code: 0, signal: null }, server.output);
  assert.deepEqual(linesOfEnd(server), [
    ...AT_THE_END,
    'closing connections that are still open',
    'closed etcd server',
  ]);
  const count = server.logLine('closing connections that are still open')?.['count'];
  assert.ok(Number(count) >= 1, `the snapshot's connection is one of them: ${count}`);
  for (const socket of open) socket.destroy();
  assertOrderlyLog(server);
});

test('a second signal and a signal during the start end it too', async () => {
  const server = ServerProcess.start({ dataDir: directory });
  await server.whenReady();
  server.child.kill('SIGTERM');
  assert.equal((await server.stop('SIGTERM')).code, 0);
  const lines = linesOfEnd(server).filter((line) => line !== 'aborting cluster version update; server is stopped');
  assert.deepEqual(lines, [...AT_THE_END, 'closed etcd server']);
  for (const delayMs of [0, 60, 120, 200]) {
    const starting = ServerProcess.start({ dataDir: directory });
    await sleep(delayMs);
    // Before its handlers are there, the system's default ends it: also an end.
    const exit = await starting.stop('SIGTERM');
    assert.ok(exit.code === 0 || exit.signal === 'SIGTERM', JSON.stringify(exit) + starting.output);
  }
  const last = ServerProcess.start({ dataDir: directory });
  await last.whenReady();
  assert.equal((await last.stop('SIGTERM')).code, 0);
});

test('a second instance on the same data directory fails, the first goes on', async () => {
  const first = ServerProcess.start({ dataDir: directory });
  const client = new EtcdClient(await first.whenReady());
  const second = ServerProcess.start({ dataDir: directory });
  assert.deepEqual(await second.exited, { code: DATA_DIR_IN_USE, signal: null }, second.output);
  const fatal = second.fatalLine();
  assert.match(fatal?.msg ?? '', /in use by another process/);
  assert.ok(fatal?.msg.includes(directory), 'names the directory');
  assert.equal(fatal?.['exit-code'], DATA_DIR_IN_USE);
  expectOk(await client.put({ key: Buffer.from('k'), value: Buffer.from('v') }));
  client.close();
  // A killed one holds nothing: the next start gets the directory at once.
  await first.stop('SIGKILL');
  const third = ServerProcess.start({ dataDir: directory });
  await third.whenReady();
  assert.equal((await third.stop('SIGTERM')).code, 0);
});

test('a second instance leaves the work of the first alone, with another WAL directory too', async () => {
  const port = await freePort();
  const first = ServerProcess.start({ dataDir: directory, env: { GOFAIL_HTTP: `127.0.0.1:${port}` } });
  const client = new EtcdClient(await first.whenReady());
  const key = Buffer.from('k');
  for (let i = 0; i < 20; i++) expectOk(await client.put({ key, value: Buffer.alloc(1000, i) }));
  // A defragmentation that stands between its copy and the rename when the second one looks around.
  await fetch(`http://127.0.0.1:${port}/defragBeforeRename`, { method: 'PUT', body: 'sleep(1500)' });
  const defragmented = client.defragment();
  await sleep(300);
  for (const walDir of [undefined, path.join(directory, 'other-wal')]) {
    const second = ServerProcess.start({ dataDir: directory, ...(walDir === undefined ? {} : { walDir }) });
    assert.deepEqual(await second.exited, { code: DATA_DIR_IN_USE, signal: null }, second.output);
    assert.match(second.fatalLine()?.msg ?? '', /in use by another process/);
  }
  expectOk(await defragmented);
  expectOk(await client.put({ key, value: Buffer.alloc(1000) }));
  client.close();
  assert.equal(first.exit, null);
  assert.equal((await first.stop('SIGTERM')).code, 0);
  const again = ServerProcess.start({ dataDir: directory });
  const reader = new EtcdClient(await again.whenReady());
  assert.equal(expectOk(await reader.range({ key })).kvs[0]?.version, 21);
  reader.close();
  await again.stop('SIGKILL');
});

test('a port that is taken: clear message, exit 1, nothing damaged', async () => {
  const first = ServerProcess.start({ dataDir: directory });
  const address = await first.whenReady();
  const other = path.join(directory, 'other');
  const flags = [`--listen-client-urls=http://${address}`];
  const second = ServerProcess.start({ dataDir: other, flags });
  const exit = await second.exited;
  assert.equal(exit.code, 1);
  assert.match(second.output, /EADDRINUSE|address already in use/);
  assert.ok(second.output.includes(address), 'names the address');
  assert.equal(second.logLine('ready to serve client requests'), undefined);
  assert.equal((await first.stop('SIGTERM')).code, 0);
});

test('--version says etcd Version: 3.7.x', async () => {
  const version = ServerProcess.run(['--version']);
  assert.deepEqual(await version.exited, { code: 0, signal: null });
  assert.match(version.stdout, /^etcd Version: 3\.7\.\d+$/m);
  assert.equal(version.stderr, '');
});

test('an almost empty environment, an existing empty data directory of mode 0700, no child that outlives it', async () => {
  const dataDir = path.join(directory, 'data');
  mkdirSync(dataDir);
  chmodSync(dataDir, 0o700);
  // ServerProcess gives the server PATH alone: nothing of the environment of this test.
  const server = ServerProcess.start({ dataDir, env: { ETCD_SNAPSHOT_COUNT: '5000' } });
  const address = await server.whenReady();
  const client = new EtcdClient(address);
  assert.equal(expectOk(await client.status()).version.startsWith('3.7.'), true);
  client.close();
  const children = childrenOf(server.pid);
  assert.deepEqual(children, [], 'the launcher has become the server, which has threads alone');
  assert.equal(statSync(dataDir).mode & 0o777, 0o700);
  assert.equal((await server.stop('SIGTERM')).code, 0);
  assertOrderlyLog(server);
  assert.deepEqual(childrenOf(server.pid), []);
});

test('output closed by its reader does not stop the server', async () => {
  const server = ServerProcess.start({ dataDir: directory });
  const client = new EtcdClient(await server.whenReady());
  server.child.stdout?.destroy();
  server.child.stderr?.destroy();
  // Lines that cannot be written any more: a defragmentation logs two.
  expectOk(await client.defragment());
  expectOk(await client.put({ key: Buffer.from('k'), value: Buffer.from('v') }));
  client.close();
  assert.equal((await server.stop('SIGTERM')).code, 0);
});

// As the first process of a container, one without a handler does not end by a signal at all.
test('SIGTERM before it is ready ends it with 0, too', async () => {
  const server = ServerProcess.start({ dataDir: path.join(directory, 'data') });
  await server.until('its listeners', () =>
    server.output.includes('configuring client listeners') ? true : undefined,
  );
  const exit = await server.stop('SIGTERM');
  assert.equal(exit.code, 0, server.output);
});
