// Goal: whoever opens connections without end takes no file from a member: it goes on, its log's segments change, its peers and the
// clients that are there are served; and it does not start where the limit leaves nothing for clients. Method: three real members, each
// with 300 descriptors, and on all of their ports more connections than that, opened anew whenever one is closed.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { Cluster, type ClusterMember } from './cluster.ts';
import { scratchFolder, until } from './program.ts';
import { EtcdClient, expectOk } from './support/etcd-client.ts';
import { removeDirectory, ServerProcess, temporaryDirectory } from './support/server-process.ts';

const limit = 300;
const floodSize = 400;
/** What a stranger says and then says no more: nothing, the start of a request, a greeting of HTTP/2. */
const greetings = ['', 'GET /version HTTP/1.1\r\nHost: x\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0'];
/** Of values, in a log whose segments are 64 MB. */
const writtenBytes = 70_000_000;
const valueBytes = 1_000_000;

const limited = (descriptors: number): string => `ulimit -n ${descriptors}; exec "$0" "$@"`;

/** So many connections to a port, kept up. */
class Flood {
  refused = 0;
  readonly #port: number;
  readonly #sockets: Set<Socket> = new Set();
  #isOver = false;

  constructor(port: number) {
    this.#port = port;
    for (let index = 0; index < floodSize; index++) this.#open(index);
  }

  #open(index: number): void {
    const socket = connect(this.#port, '127.0.0.1');
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('connect', () => socket.write(greetings[index % greetings.length]!, 'latin1'));
    socket.resume();
    socket.on('close', () => {
      this.#sockets.delete(socket);
      this.refused++;
      // As fast as the machine that does it beside three members can be.
      setTimeout(() => {
        if (!this.#isOver) this.#open(index);
      }, 250);
    });
  }

  end(): void {
    this.#isOver = true;
    for (const socket of this.#sockets) socket.destroy();
  }
}

const portOf = (address: string): number => Number(address.slice(address.lastIndexOf(':') + 1));

function descriptorsOf({ pid }: ClusterMember): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

function segmentsOf({ dataDir }: ClusterMember): number {
  return readdirSync(join(dataDir, 'member/wal')).filter((name) => /^[0-9a-f]+-[0-9a-f]+\.wal$/.test(name)).length;
}

test('floods of connections on all ports: the logs rotate, peers and clients are served', async () => {
  const { folder, remove } = scratchFolder('descriptors');
  const place = { launcher: ['sh', '-c', limited(limit)] };
  const cluster = await Cluster.start(folder, ['keelson', 'keelson', 'keelson'], [], [place, place, place]);
  const { members } = cluster;
  const clients = members.map(({ endpoint }) => new EtcdClient(endpoint));
  const floods: Flood[] = [];
  try {
    for (const client of clients) expectOk(await client.put({ key: Buffer.from('before'), value: Buffer.from('x') }));
    for (const { endpoint, peerUrl } of members) floods.push(new Flood(portOf(endpoint)), new Flood(portOf(peerUrl)));
    await until('refused connections on every port', 30_000, () => floods.every(({ refused }) => refused > 0));
    const value = Buffer.alloc(valueBytes, 'x');
    for (let count = 0; count * valueBytes < writtenBytes; count++) {
      expectOk(await clients[count % clients.length]!.put({ key: Buffer.from(`key-${count}`), value }));
      for (const member of members) assert.ok(descriptorsOf(member) < limit, `${member.name} has descriptors left`);
    }
    await until('rotated logs', 30_000, () => members.every((member) => segmentsOf(member) > 1));
    for (const client of clients) expectOk(await client.put({ key: Buffer.from('after'), value }));
    for (const flood of floods) flood.end();
    for (const member of members) {
      assert.ok(member.isRunning, member.log().slice(-2000));
      assert.match(member.log(), /"too many open connections; closing some","traffic":"peers"/);
      assert.match(member.log(), /"too many open connections; closing some","traffic":"clients"/);
      assert.doesNotMatch(member.log(), /EMFILE|too many open files/);
    }
    await until('places for new clients', 30_000, async () => {
      for (const member of members) await member.metrics();
      return true;
    });
  } finally {
    for (const flood of floods) flood.end();
    for (const client of clients) client.close();
    await cluster.end();
    remove();
  }
});

test('a limit that leaves nothing for clients ends the start, as etcd’s does', async () => {
  const directory = temporaryDirectory('descriptors');
  const args = [
    `--data-dir=${directory}`,
    '--listen-client-urls=http://127.0.0.1:0',
    '--listen-peer-urls=http://127.0.0.1:0',
  ];
  const server = ServerProcess.run(
    [
      '-c',
      limited(150),
      join(import.meta.dirname, '../bin/keelson'),
      ...args,
      '--advertise-client-urls=http://127.0.0.1:1',
    ],
    {},
    { file: 'sh' },
  );
  const guard = setTimeout(() => server.stop('SIGKILL'), 30_000);
  const exit = await server.exited;
  clearTimeout(guard);
  assert.deepEqual(exit, { code: 1, signal: null }, server.output.slice(-2000));
  assert.match(
    server.fatalLine()?.msg ?? '',
    /^file descriptor limit of etcd process is too low; please set higher: .*150/,
  );
  removeDirectory(directory);
});
