// Goal: who knows no more than the address and the cluster's id of a member takes neither its memory nor the place of real members: not by
// messages that never end, by ids and addresses that are made up, nor by URLs that lead nowhere. Method: a transport on a real socket, raw
// requests by the hundred, and a real member beside them.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import { peerRemotesMax, senderLabelsMax } from '../cluster-limits.ts';
import { EntryType, type Message, MessageType, type NodeId, newMessage } from '../raft/types.ts';
import { TransportMember, type TransportMemberOptions, until } from '../testing/transport-member.ts';

const open: TransportMember[] = [];
const sockets: Socket[] = [];

async function member(id: NodeId, options: Partial<TransportMemberOptions> = {}): Promise<TransportMember> {
  const started = await TransportMember.start({ id, ...options });
  open.push(started);
  return started;
}

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const one of open.splice(0)) await one.stop();
});

function logged({ logLines }: TransportMember, text: string): string[] {
  return logLines.filter((line) => line.includes(text));
}

function headOf(method: string, path: string, headers: Record<string, string>): string {
  const all = {
    Host: 'h',
    'X-Server-From': '2',
    'X-Server-Version': '3.7.1',
    'X-Min-Cluster-Version': '3.0.0',
    'X-Etcd-Cluster-ID': 'c1',
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`;
}

/** The status of each answer that comes. */
function dial({ port }: TransportMember, statuses: number[]): Socket {
  const socket = connect(port, '127.0.0.1').on('error', () => {});
  sockets.push(socket);
  socket.on('data', (bytes) => {
    for (const [, status] of bytes.toString('latin1').matchAll(/HTTP\/1\.1 (\d+)/g)) statuses.push(Number(status));
  });
  return socket;
}

/** One answer. */
async function ask(target: TransportMember, head: string, body: Buffer = Buffer.alloc(0)): Promise<number> {
  const statuses: number[] = [];
  const socket = dial(target, statuses);
  socket.write(head, 'latin1');
  socket.write(body);
  await until(() => statuses.length > 0);
  socket.destroy();
  return statuses[0]!;
}

function append(from: NodeId, to: NodeId, bytes: number): Message {
  const entry = { term: 5, index: 8, type: EntryType.normal, data: Buffer.alloc(bytes, 'x') };
  return Object.assign(newMessage(MessageType.app, to), {
    from,
    term: 5,
    logTerm: 5,
    index: 7,
    entries: [entry],
    commit: 7,
  });
}

/** MsgHeartbeat, in the fewest bytes. */
const heartbeatBytes = (to: number, from: number): Buffer => Buffer.from([8, 8, 16, to, 24, from, 32, 5]);

function writeHead(socket: Socket, path: string, length: number): void {
  socket.write(headOf('POST', path, { 'Content-Length': String(length) }), 'latin1');
}

describe('hostile peers: unfinished messages', () => {
  for (const path of ['/raft', '/raft/snapshot']) {
    it(`the oldest of too many by POST ${path} are refused, and members' own are taken`, async () => {
      const unfinishedBytesMax = 8 << 20;
      const a = await member(1n, { unfinishedBytesMax });
      const b = await member(2n);
      b.transport.addPeer(1n, [a.url]);
      const statuses: number[] = [];
      const bytes = 1 << 20;
      // A length before the message, for a snapshot.
      const start = Buffer.alloc(bytes);
      start.writeUInt32BE(4 * bytes, 4);
      for (let count = 0; count < 40; count++) {
        const socket = dial(a, statuses);
        writeHead(socket, path, 4 * bytes + 8);
        socket.write(start);
      }
      // Forty take at most what eight may: each has at least a MiB.
      await until(() => statuses.length >= 32);
      assert.ok(
        statuses.every((status) => status === 503),
        `${statuses}`,
      );
      assert.ok(logged(a, 'too many bytes of unfinished messages').length >= 32);
      // b has no streams, since a does not know it: it posts.
      for (let count = 0; count < 10; count++) {
        b.transport.send([append(2n, 1n, bytes)]);
        await until(() => a.messages.length === count + 1);
        const socket = dial(a, statuses);
        writeHead(socket, path, 4 * bytes + 8);
        socket.write(start);
      }
      assert.ok(a.messages.every(({ entries }) => entries[0]!.data.length === bytes));
      // What breaks off leaves room: all of it is there again.
      for (const socket of sockets.splice(0)) socket.destroy();
      await until(() => logged(a, 'unexpected EOF').length > 0);
      const before = statuses.length;
      b.transport.send([append(2n, 1n, 6 * bytes)]);
      await until(() => a.messages.length === 11);
      assert.equal(statuses.length, before);
    });
  }
});

describe('hostile peers: series of metrics', () => {
  it('members have their own, of others a bounded number has', async () => {
    const a = await member(1n);
    const post = async (path: string, body: Buffer): Promise<number> =>
      ask(a, headOf('POST', path, { 'Content-Length': String(body.length) }), body);
    const snapshotBytes = (from: number): Buffer => Buffer.from([0, 0, 0, 0, 0, 0, 0, 8, ...heartbeatBytes(1, from)]);
    for (let from = 2; from < 2 + senderLabelsMax / 2; from++)
      assert.equal(await post('/raft', heartbeatBytes(1, from)), 204);
    for (let from = 2; from < 120; from++) {
      assert.equal(await post('/raft/snapshot', snapshotBytes(from)), 400);
      assert.equal(await post('/raft', Buffer.from([255])), 400);
    }
    assert.equal(a.network.peerReceivedBytes.samples().length, senderLabelsMax + 1);
    assert.equal(a.network.snapshotReceiveFailures.samples().length, senderLabelsMax + 1);
    assert.ok(a.network.snapshotReceiveFailures.with('other').value > 30);
    // Not one a port.
    assert.deepEqual(a.network.peerReceivedFailures.samples(), [
      { suffix: '', labels: { From: '127.0.0.1' }, value: 118 },
    ]);
    // A member has its own, however late it comes.
    const b = await member(0xbbbbbbn);
    b.transport.addPeer(1n, [a.url]);
    a.transport.addPeer(b.id, [b.url]);
    await until(() => a.network.peerReceivedBytes.samples().some(({ labels }) => labels['From'] === 'bbbbbb'));
    assert.equal(await post('/raft', heartbeatBytes(1, 119)), 204);
    assert.equal(a.network.peerReceivedBytes.samples().length, senderLabelsMax + 2);
  });
});

describe('hostile peers: made up URLs', () => {
  const introduce = (target: TransportMember, id: number, url: string): Promise<number> => {
    const headers = { 'X-Server-From': id.toString(16), 'X-PeerURLs': url, 'X-Raft-To': '1' };
    return ask(target, headOf('GET', `/raft/stream/message/${id.toString(16)}`, headers));
  };
  const junk = 'http://127.0.0.1:1';

  it('a member that joins finds a place among those that lead nowhere, and keeps it', async () => {
    const a = await member(1n);
    for (let id = 0; id < 3 * peerRemotesMax; id++) assert.equal(await introduce(a, 1000 + id, junk), 404);
    const b = await member(2n);
    b.transport.addPeer(1n, [a.url]);
    await until(() => logged(a, '"remote-peer-id":"2"').some((line) => line.includes('added new remote peer')));
    a.transport.send([append(1n, 2n, 10)]);
    await until(() => b.messages.length === 1);
    const added = (): number =>
      logged(a, 'added new remote peer').filter((line) => line.includes('"remote-peer-id":"2"')).length;
    const before = added();
    for (let id = 0; id < 3 * peerRemotesMax; id++) await introduce(a, 2000 + id, junk);
    a.transport.send([append(1n, 2n, 20)]);
    await until(() => b.messages.length === 2);
    assert.equal(added(), before, 'it answers: it was never forgotten');
    assert.equal(
      logged(a, 'forgot a remote peer').length + peerRemotesMax,
      logged(a, 'added new remote peer').length,
      'no more than there is room for',
    );
  });

  it('its URLs take the place of wrong ones under its id, but nobody’s take those that work', async () => {
    const a = await member(1n);
    await introduce(a, 2, junk);
    const b = await member(2n);
    b.transport.addPeer(1n, [a.url]);
    await until(() => logged(a, `"remote-peer-urls":["${b.url}"]`).length > 0);
    a.transport.send([append(1n, 2n, 10)]);
    await until(() => b.messages.length === 1);
    await introduce(a, 2, junk);
    a.transport.send([append(1n, 2n, 20)]);
    await until(() => b.messages.length === 2);
  });

  it('the oldest makes way when all answer, and what was under way to who is forgotten is cut', async (t) => {
    const a = await member(1n);
    const answer = 'HTTP/1.1 204 No Content\r\nX-Etcd-Cluster-Id: c1\r\n\r\n';
    const open: Socket[] = [];
    const serve = async (onConnected: (socket: Socket) => void): Promise<string> => {
      const server = createServer((socket) => {
        open.push(socket.on('error', () => {}).resume());
        onConnected(socket);
      }).listen(0, '127.0.0.1');
      t.after(() => server.close());
      await once(server, 'listening');
      return `http://127.0.0.1:${(server.address() as { port: number }).port}`;
    };
    t.after(() => {
      for (const socket of open) socket.destroy();
    });
    let closed = 0;
    const silent = await serve((socket) => socket.on('close', () => closed++));
    await introduce(a, 99, silent);
    a.transport.send([append(1n, 99n, 10)]);
    await until(() => open.length === 1);
    const polite = await serve((socket) => socket.once('data', () => socket.end(answer)));
    for (let id = 0; id < peerRemotesMax; id++) {
      await introduce(a, 100 + id, polite);
      a.transport.send([append(1n, BigInt(100 + id), 10)]);
    }
    await until(() => closed === 1);
    await until(() => logged(a, 'peer became active').length === peerRemotesMax);
    const b = await member(2n);
    await introduce(a, 2, b.url);
    a.transport.send([append(1n, 2n, 10)]);
    await until(() => b.messages.length === 1);
    const forgotten = logged(a, 'forgot a remote peer').map((line) => JSON.parse(line)['remote-peer-id']);
    assert.deepEqual(forgotten, ['63', '64'], 'who never answered, then the oldest');
  });
});
