// Goal: messages, snapshots and refusals go between members as etcd's rafthttp has them, and a bad network costs no more than it
// must. Method: transports over real sockets of this machine, with timeouts a tenth of etcd's; raw requests where etcd's order of
// checks matters.

import assert from 'node:assert/strict';
import { connect, createServer, type Socket } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import { peerUnsentBytesMax } from '../cluster-limits.ts';
import { SeededRandom } from '../io/random.ts';
import { type Entry, EntryType, type Message, MessageType, type NodeId, newMessage } from '../raft/types.ts';
import { quickTimings, TransportMember, type TransportMemberOptions, until } from '../testing/transport-member.ts';
import type { SnapshotBody, SnapshotReceipt } from './peer-transport.ts';

const open: TransportMember[] = [];

async function member(id: NodeId, options: Partial<TransportMemberOptions> = {}): Promise<TransportMember> {
  const started = await TransportMember.start({ id, ...options });
  open.push(started);
  return started;
}

/** Members that know each other and whose streams are open. */
async function cluster(...ids: NodeId[]): Promise<TransportMember[]> {
  const members: TransportMember[] = [];
  for (const id of ids) members.push(await member(id));
  for (const a of members) for (const b of members) if (a !== b) a.transport.addPeer(b.id, [b.url]);
  await until(() => members.every((one) => streamsOf(one) === 2 * (members.length - 1)));
  return members;
}

/** Streams that this member writes to, now or before. */
function streamsOf({ logLines }: TransportMember): number {
  return logLines.filter((line) => line.includes('"stream-writer-type"') && line.includes('"established TCP')).length;
}

function logged({ logLines }: TransportMember, text: string): string[] {
  return logLines.filter((line) => line.includes(text));
}

function heartbeat(from: NodeId, to: NodeId, commit: number): Message {
  const message = newMessage(MessageType.heartbeat, to);
  message.from = from;
  message.term = 5;
  message.commit = commit;
  return message;
}

function append(from: NodeId, to: NodeId, index: number, data: Buffer): Message {
  const entry: Entry = { term: 5, index: index + 1, type: EntryType.normal, data };
  const message = newMessage(MessageType.app, to);
  return Object.assign(message, { from, term: 5, logTerm: 5, index, entries: [entry], commit: index });
}

function send({ transport }: TransportMember, ...messages: Message[]): void {
  transport.send(messages);
  transport.flush();
}

afterEach(async () => {
  for (const one of open.splice(0)) await one.stop();
});

describe('http transport: messages', () => {
  it('opens both streams in both directions and sends every kind of message over them', async () => {
    const [a, b] = (await cluster(0xan, 0xbn)) as [TransportMember, TransportMember];
    assert.notEqual(a.transport.activeSinceMs(b.id), null);
    assert.equal(a.transport.activeSinceMs(0x99n), null);
    const data = Buffer.alloc(300_000, 'x');
    const sent = [
      append(a.id, b.id, 7, Buffer.from('first')),
      append(a.id, b.id, 8, data),
      append(a.id, b.id, 9, Buffer.from('third')),
    ];
    send(a, ...sent, heartbeat(a.id, b.id, 9));
    send(b, heartbeat(b.id, a.id, 3));
    await until(() => b.messages.length === 4 && a.messages.length === 1);
    assert.deepEqual(
      b.messages.filter(({ type }) => type === MessageType.app),
      sent,
    );
    assert.deepEqual(a.messages, [heartbeat(b.id, a.id, 3)]);
    assert.ok(a.network.peerSentBytes.with('b').value > data.length);
    assert.ok(b.network.peerReceivedBytes.with('a').value > data.length);
    assert.equal(a.network.activePeers.with('a', 'b').value, 1);
  });

  it('sends to each of three members what is for it', async () => {
    const [a, b, c] = (await cluster(1n, 2n, 3n)) as [TransportMember, TransportMember, TransportMember];
    send(a, heartbeat(1n, 2n, 12), heartbeat(1n, 3n, 13), heartbeat(1n, 4n, 14), heartbeat(1n, 2n, 15));
    await until(() => b.messages.length === 2 && c.messages.length === 1);
    assert.deepEqual(b.messages, [heartbeat(1n, 2n, 12), heartbeat(1n, 2n, 15)]);
    assert.deepEqual(c.messages, [heartbeat(1n, 3n, 13)]);
  });

  it('posts messages to a peer without streams, and answers a member that it knows by its address alone', async () => {
    const a = await member(1n);
    const b = await member(2n);
    // b does not know a: it refuses the streams, but learns the address from the request.
    a.transport.addPeer(2n, [b.url]);
    send(a, heartbeat(1n, 2n, 1), append(1n, 2n, 4, Buffer.from('posted')));
    await until(() => b.messages.length === 2);
    assert.deepEqual(b.messages.map(({ type }) => type).sort(), [MessageType.app, MessageType.heartbeat]);
    await until(() => logged(b, 'added new remote peer').length === 1);
    send(b, heartbeat(2n, 1n, 2));
    await until(() => a.messages.length === 1);
    assert.equal(logged(b, 'failed to find remote peer in cluster').length > 0, true);
    assert.equal(logged(a, 'peer 2 failed to find local node 1').length > 0, true);
  });

  it('keeps quiet links up by heartbeats', async () => {
    const [a, b] = (await cluster(1n, 2n)) as [TransportMember, TransportMember];
    const before = b.network.peerReceivedBytes.with('1').value;
    // More heartbeats than a read timeout holds, and no loss.
    await until(() => b.network.peerReceivedBytes.with('1').value > before + 6 * 10);
    assert.deepEqual(logged(a, 'lost TCP streaming'), []);
    assert.deepEqual(logged(b, 'lost TCP streaming'), []);
    assert.deepEqual(b.messages, []);
  });
});

describe('http transport: failures', () => {
  it('connects again after a cut, and tells raft that messages may be lost', async () => {
    const [a, b] = (await cluster(1n, 2n)) as [TransportMember, TransportMember];
    await b.disconnect();
    await until(() => a.transport.activeSinceMs(2n) === null);
    await until(() => a.unreachableIds.includes(2n) || b.unreachableIds.includes(1n));
    assert.ok(logged(a, 'peer became inactive (message send to peer failed)').length > 0);
    assert.ok(a.network.disconnectedPeers.with('1', '2').value > 0);
    await until(() => logged(a, 'connect: connection refused').length > 3);
    await b.reconnect();
    await until(() => a.transport.activeSinceMs(2n) !== null && streamsOf(b) >= 4);
    send(a, heartbeat(1n, 2n, 6));
    await until(() => b.messages.length === 1);
  });

  it('reports a peer that cannot be reached, and drops what is beyond the pipeline', async () => {
    const a = await member(1n);
    // Accepts and never answers.
    const sockets: Socket[] = [];
    const silent = createServer((socket) => sockets.push(socket.on('error', () => {}).resume()));
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as { port: number };
    a.transport.addPeer(2n, [`http://127.0.0.1:${port}`]);
    send(a, ...Array.from({ length: 70 }, (_, index) => heartbeat(1n, 2n, index)));
    assert.deepEqual(a.unreachableIds, [], 'not inside of the call');
    await until(() => a.unreachableIds.length > 0);
    const lines = logged(a, 'dropped internal Raft message since sending buffer is full');
    assert.equal(lines.length, 1);
    assert.match(lines[0]!, /"message-type":"MsgHeartbeat".*"remote-peer-name":"pipeline","remote-peer-active":false/);
    assert.match(lines[0]!, /"dropped-since-last-line":2/, '4 under way, 64 wait');
    assert.deepEqual(a.unreachableIds, [2n], 'raft hears of it once a turn');
    assert.equal(a.network.peerSentFailures.with('2').value, 2);
    // A stream's request without an answer ends, too.
    await until(() => logged(a, 'failed to dial 2 on stream Message (i/o timeout)').length > 0);
    for (const socket of sockets) socket.destroy();
    silent.close();
  });

  it('bounds what a peer that reads nothing costs, and gives its stream up', async () => {
    const a = await member(1n);
    a.transport.addPeer(2n, ['http://127.0.0.1:1']);
    const reader = connect(a.port, '127.0.0.1').on('error', () => {});
    reader.write(streamRequest('/raft/stream/msgapp/2', { 'X-Server-From': '2', 'X-Raft-To': '1' }));
    await until(() => streamsOf(a) === 1);
    reader.pause();
    const data = Buffer.alloc(1 << 20);
    let index = 0;
    while (a.network.peerSentFailures.with('2').value === 0) {
      send(a, append(1n, 2n, index++, data));
      assert.ok(index * data.length < 2 * peerUnsentBytesMax + (64 << 20), 'nothing is dropped');
    }
    await until(() => logged(a, 'dropped internal Raft message').length > 0);
    assert.match(logged(a, 'dropped internal Raft message')[0]!, /"MsgApp".*"streamMsgAppV2"/);
    await until(() => logged(a, 'lost TCP streaming connection').length === 1);
    assert.ok(a.unreachableIds.includes(2n));
    // From now on it has no stream: the pipeline takes what there is.
    send(a, heartbeat(1n, 2n, 1));
    reader.destroy();
  });

  it('gives up a stream on which nothing comes, and dials another', async () => {
    let dials = 0;
    const head = 'HTTP/1.1 200 OK\r\nX-Server-Version: 3.7.1\r\nTransfer-Encoding: chunked\r\n\r\n';
    const sockets: Socket[] = [];
    const silent = createServer((socket) => {
      sockets.push(socket.on('error', () => {}));
      socket.once('data', () => {
        dials++;
        socket.write(head);
      });
    });
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const a = await member(1n, { timings: { ...quickTimings, readTimeoutMs: 90, probeMs: 60_000 } });
    a.transport.addPeer(2n, [`http://127.0.0.1:${(silent.address() as { port: number }).port}`]);
    await until(() => dials >= 4);
    assert.ok(logged(a, 'failed to read 2 on stream').some((line) => line.includes('i/o timeout')));
    for (const socket of sockets) socket.destroy();
    silent.close();
  });

  it('goes from a URL that fails to the next, and back to the first of new ones', async () => {
    const a = await member(1n);
    const b = await member(2n);
    b.transport.addPeer(1n, [a.url]);
    // Ports are compared as text: this one comes first.
    a.transport.addPeer(2n, ['http://127.0.0.1:1', b.url]);
    await until(() => a.transport.activeSinceMs(2n) !== null && streamsOf(b) === 2);
    send(b, heartbeat(2n, 1n, 8));
    await until(() => a.messages.length === 1);
    const c = await member(3n);
    a.transport.updatePeer(2n, [c.url]);
    a.transport.removePeer(2n);
    assert.equal(a.transport.activeSinceMs(2n), null);
    await until(() => logged(b, 'the peer closed the stream').length > 0);
    a.transport.removePeer(2n);
    assert.equal(logged(a, 'skipped removing already removed peer').length, 1);
  });

  it('loses messages whole, never a part, while connections are cut at random, and gets through again', async () => {
    const seed = Number(process.env['PEER_CUT_SEED'] ?? Date.now() % 1_000_000);
    const random = new SeededRandom(seed);
    const [a, b] = (await cluster(1n, 2n)) as [TransportMember, TransportMember];
    let index = 0;
    let seen = 0;
    b.onMessage = (message): void => {
      const [entry] = message.entries;
      assert.ok(entry !== undefined && entry.index === message.index + 1, `seed ${seed}`);
      assert.ok(entry.data.length > 0 && entry.data.every((byte) => byte === entry.index % 256), `seed ${seed}`);
      seen = Math.max(seen, entry.index);
    };
    const turn = (): void => {
      const count = 1 + random.below(4);
      const messages = Array.from({ length: count }, () => {
        const size = 1 + random.below(random.below(10) === 0 ? 400_000 : 400);
        return append(1n, 2n, index, Buffer.alloc(size, ++index % 256));
      });
      send(a, ...messages);
    };
    for (let round = 0; round < 150; round++) {
      for (let i = random.below(6); i > 0; i--) turn();
      const sockets = [...a.sockets, ...b.sockets];
      if (random.below(3) === 0 && sockets.length > 0) sockets[random.below(sockets.length)]!.destroy();
      await new Promise((resolve) => setTimeout(resolve, random.below(4)));
    }
    await until(() => a.transport.activeSinceMs(2n) !== null && b.transport.activeSinceMs(1n) !== null);
    // A stream may still be one that was cut: what is sent again arrives.
    const last = index;
    while (seen <= last) {
      turn();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.ok(logged(a, 'lost TCP streaming').length > 0, `seed ${seed}: nothing was cut`);
    b.onMessage = null;
  });

  it('takes a second stream for the first', async () => {
    const [a, b] = (await cluster(1n, 2n)) as [TransportMember, TransportMember];
    const reader = connect(a.port, '127.0.0.1');
    let bytes = '';
    reader.on('data', (chunk) => {
      bytes += chunk.toString('latin1');
    });
    reader.write(streamRequest('/raft/stream/message/2', { 'X-Server-From': '2', 'X-Raft-To': '1' }));
    await until(() => bytes.includes('\r\n\r\n'));
    assert.match(
      bytes,
      /^HTTP\/1\.1 200 OK\r\nX-Etcd-Cluster-Id: c1\r\nX-Server-Version: 3\.7\.1\r\nTransfer-Encoding: chunked\r\nDate: /,
    );
    // The first one was ended in order: its reader dials again, and now that is the newer one.
    await until(() => logged(b, '"error":"EOF"').length === 1 && bytes.endsWith('\r\n0\r\n\r\n'));
    assert.equal(logged(a, 'closed TCP streaming connection with remote peer').length, 2);
    assert.deepEqual(logged(a, 'lost TCP streaming'), []);
    send(a, heartbeat(1n, 2n, 4));
    await until(() => b.messages.length === 1);
    reader.destroy();
  });
});

function snapshotMessage(from: NodeId, to: NodeId): Message {
  const confState = { voters: [1n, 2n], learners: [], votersOutgoing: [], learnersNext: [], autoLeave: false };
  const snapshot = { meta: { confState, index: 77, term: 5 }, data: Buffer.from('members') };
  return Object.assign(newMessage(MessageType.snap, to), { from, term: 5, snapshot });
}

/** A database of `fileBytes`, read in blocks, that counts what it is asked for. */
class TestBody implements SnapshotBody {
  readonly fileBytes: number;
  sink: SnapshotBody['sink'] = null;
  resumes = 0;
  readBytes = 0;
  isCancelled = false;
  /** Fails behind so many bytes. */
  readonly failsAt: number;

  constructor(fileBytes: number, failsAt: number = Infinity) {
    this.fileBytes = fileBytes;
    this.failsAt = failsAt;
  }

  resume(): void {
    this.resumes++;
    setImmediate(() => this.#read());
  }

  cancel(): void {
    this.isCancelled = true;
  }

  #read(): void {
    while (!this.isCancelled && this.readBytes < this.fileBytes) {
      if (this.readBytes >= this.failsAt) {
        this.sink!.done(new Error('disk gone'));
        return;
      }
      const block = Buffer.alloc(Math.min(64 * 1024, this.fileBytes - this.readBytes), this.readBytes % 251);
      this.readBytes += block.length;
      if (!this.sink!.chunk(block)) return;
    }
    if (!this.isCancelled) this.sink!.done(null);
  }
}

describe('http transport: snapshots', () => {
  it('sends the message and behind it the database, at the receiver’s pace', async () => {
    const received: Buffer[] = [];
    let drained = false;
    let pause: SnapshotReceipt | null = null;
    const b = await member(2n, {
      receipt: () => {
        const receipt: SnapshotReceipt = {
          write: (bytes) => {
            received.push(bytes);
            // The first block fills it.
            if (pause !== null) return true;
            pause = receipt;
            return false;
          },
          drained: null,
          end: (done) => setImmediate(() => done(null)),
          abort: () => assert.fail('aborted'),
        };
        return receipt;
      },
    });
    const a = await member(1n);
    a.transport.addPeer(2n, [b.url]);
    const body = new TestBody(64 << 20);
    const message = snapshotMessage(1n, 2n);
    a.transport.sendSnapshot(message, body);
    await until(() => pause !== null);
    const stopsAt = async (): Promise<number> => {
      let last = -1;
      while (last !== body.readBytes) {
        last = body.readBytes;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      return last;
    };
    assert.ok((await stopsAt()) < body.fileBytes / 2, 'the sender waits for the receiver');
    assert.deepEqual(b.messages, []);
    drained = true;
    pause!.drained!();
    await until(() => a.snapshotResults.length === 1);
    assert.ok(drained && body.resumes > 1 && !body.isCancelled);
    assert.deepEqual(a.snapshotResults, [true]);
    assert.deepEqual(b.messages, [message]);
    const database = Buffer.concat(received);
    assert.equal(database.length, body.fileBytes);
    for (let at = 0; at < database.length; at += 64 * 1024) assert.equal(database[at], at % 251);
    assert.equal(a.network.snapshotSendSuccess.with('2').value, 1);
    assert.equal(a.network.snapshotSendInflights.with('2').value, 0);
    assert.equal(b.network.snapshotReceiveSuccess.with('1').value, 1);
    assert.equal(b.network.snapshotReceiveInflights.with('1').value, 0);
    assert.match(logged(b, 'received and saved database snapshot')[0]!, /"incoming-snapshot-index":77,.*"67 MB"/);
  });

  it('reports transfers that break off on either side, or that nobody takes', async () => {
    const b = await member(2n);
    const a = await member(1n);
    a.transport.addPeer(2n, [b.url]);
    // The sender's disk fails.
    a.transport.sendSnapshot(snapshotMessage(1n, 2n), new TestBody(8 << 20, 4 << 20));
    await until(() => a.snapshotResults.length === 1 && b.abortedSnapshots === 1);
    assert.match(logged(a, 'failed to send database snapshot')[0]!, /"error":"disk gone"/);
    // The receiver goes away.
    const body = new TestBody(1 << 30);
    a.transport.sendSnapshot(snapshotMessage(1n, 2n), body);
    await until(() => logged(b, 'receiving database snapshot').length === 2);
    await b.disconnect();
    await until(() => a.snapshotResults.length === 2 && b.abortedSnapshots === 2);
    assert.ok(body.isCancelled);
    // It is not there.
    a.transport.sendSnapshot(snapshotMessage(1n, 2n), new TestBody(1000));
    await until(() => a.snapshotResults.length === 3);
    // Nobody knows the member.
    const lost = new TestBody(1000);
    a.transport.sendSnapshot(snapshotMessage(1n, 5n), lost);
    await until(() => a.snapshotResults.length === 4 && lost.isCancelled);
    assert.deepEqual(a.snapshotResults, [false, false, false, false]);
    assert.deepEqual(b.messages, []);
    assert.deepEqual(b.databases, []);
    assert.equal(a.network.snapshotSendFailures.with('2').value, 3);
    assert.equal(a.network.snapshotSendInflights.with('2').value, 0);
    assert.equal(b.network.snapshotReceiveFailures.with('1').value, 2);
    assert.equal(b.network.snapshotReceiveInflights.with('1').value, 0);
    assert.ok(a.unreachableIds.includes(2n));
  });

  it('does not send the database to a member that refuses it', async () => {
    const b = await member(2n, { receipt: () => null });
    const a = await member(1n);
    a.transport.addPeer(2n, [b.url]);
    const body = new TestBody(1 << 30);
    a.transport.sendSnapshot(snapshotMessage(1n, 2n), body);
    await until(() => a.snapshotResults.length === 1);
    assert.ok(body.isCancelled && body.readBytes < body.fileBytes);
    assert.match(logged(a, 'failed to send database snapshot')[0]!, /unexpected http status Internal Server Error/);
    // Removed meanwhile: the answer says so.
    b.removed.add(1n);
    a.transport.sendSnapshot(snapshotMessage(1n, 2n), new TestBody(1 << 30));
    await until(() => a.snapshotResults.length === 2);
    assert.match(logged(a, 'failed to send database snapshot')[1]!, /"error":"the member has been permanently removed/);
    assert.ok(a.refusals.length > 0);
    assert.deepEqual(new Set(a.refusedBy), new Set([2n]));
  });

  it('refuses what is no snapshot', async () => {
    const a = await member(1n);
    const post = async (body: string): Promise<string> => {
      const headers = { 'Content-Length': String(body.length), Connection: 'close' };
      const socket = connect(a.port, '127.0.0.1');
      socket.write(requestText('POST', '/raft/snapshot', headers) + body, 'latin1');
      let text = '';
      for await (const chunk of socket) text += chunk;
      return text.slice(text.indexOf('\r\n\r\n') + 4);
    };
    const frame = (length: number): string => `\0\0\0\0\0\0\0${String.fromCharCode(length)}`;
    assert.equal(await post('\0\0'), 'failed to decode raft message (unexpected EOF)\n');
    assert.equal(await post(`${frame(9)}123`), 'failed to decode raft message (unexpected EOF)\n');
    assert.equal(await post(`\x01${frame(9)}`), 'failed to decode raft message (rafthttp: error limit exceeded)\n');
    assert.equal(await post(`${frame(2)}\x08\xff`), 'failed to decode raft message (proto: cannot parse)\n');
    assert.equal(await post(`${frame(6)}\x08\x08\x10\x01\x18\x02`), 'wrong raft message type\n');
    assert.equal(a.network.snapshotReceiveFailures.with('0').value, 4);
    assert.equal(a.network.snapshotReceiveFailures.with('2').value, 1);
  });
});

describe('http transport: probes', () => {
  it('measures the way to peers, and warns while it fails or the clocks differ', async () => {
    const [a, b] = (await cluster(1n, 2n)) as [TransportMember, TransportMember];
    await until(() => a.network.peerRoundTrip.with('2').sum > 0);
    await b.stop();
    for (const way of ['ROUND_TRIPPER_SNAPSHOT', 'ROUND_TRIPPER_RAFT_MESSAGE']) {
      await until(() => logged(a, `prober detected unhealthy status","round-tripper-name":"${way}"`).length > 0);
    }
    assert.match(
      logged(a, 'prober detected unhealthy').at(-1)!,
      /"remote-peer-id":"2","rtt":"[\d.]+(?:µs|ms)","error":"(?:dial tcp|read tcp|unexpected EOF|got unexpected)/,
    );
    // A clock an hour slow.
    const late = createServer((socket) => {
      socket.on('error', () => {});
      const body = `{"OK":true,"Now":"${new Date(Date.now() - 3_600_000).toISOString()}"}\n`;
      socket.once('data', () => socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`));
    });
    await new Promise<void>((resolve) => late.listen(0, '127.0.0.1', resolve));
    a.transport.addPeer(3n, [`http://127.0.0.1:${(late.address() as { port: number }).port}`]);
    await until(() => logged(a, 'prober found high clock drift').length > 0);
    assert.match(logged(a, 'prober found high clock drift')[0]!, /"remote-peer-id":"3","clock-drift":"(?:59m5|1h0m)/);
    late.close();
  });

  it('warns of a round trip above the heartbeat interval, naming the flags', async () => {
    const a = await member(1n, { timings: { ...quickTimings, heartbeatMs: 400, electionMs: 4000 } });
    const b = await member(2n);
    a.transport.addPeer(2n, [b.url]);
    const slow = createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', () => {
        const body = `{"OK":true,"Now":"${new Date().toISOString()}"}\n`;
        const answer = `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
        setTimeout(() => socket.write(answer), 500);
      });
    });
    await new Promise<void>((resolve) => slow.listen(0, '127.0.0.1', resolve));
    a.transport.addPeer(3n, [`http://127.0.0.1:${(slow.address() as { port: number }).port}`]);
    await until(() => logged(a, '--heartbeat-interval').length > 0);
    await until(() => a.network.peerRoundTrip.with('2').sum > 0);
    const line = logged(a, '--heartbeat-interval')[0]!;
    assert.match(line, /--heartbeat-interval to [5-9]\d\d or more and --election-timeout to [5-9]\d\d0 or more/);
    assert.match(line, /"remote-peer-id":"3","rtt":"[5-9]\d\d.*","heartbeat-interval":"400ms","election-timeout":"4s"/);
    assert.deepEqual(
      logged(a, '--heartbeat-interval').filter((line) => line.includes('"remote-peer-id":"2"')),
      [],
    );
    slow.close();
  });
});

interface RawAnswer {
  readonly status: number;
  readonly text: string;
}

const etcdHeaders = {
  'X-Server-From': '2',
  'X-Server-Version': '3.7.1',
  'X-Min-Cluster-Version': '3.0.0',
  'X-Etcd-Cluster-ID': 'c1',
};

function requestText(method: string, path: string, headers: Record<string, string>): string {
  const all = { Host: 'h', ...etcdHeaders, ...headers };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n`;
}

const streamRequest = (path: string, headers: Record<string, string>): string => requestText('GET', path, headers);

async function raw(port: number, request: string): Promise<RawAnswer> {
  const socket = connect(port, '127.0.0.1');
  socket.write(request);
  let text = '';
  for await (const chunk of socket) text += chunk;
  return { status: Number(/^HTTP\/1\.1 (\d+)/.exec(text)![1]), text };
}

describe('http transport: refusals', () => {
  it('checks a stream’s request as etcd does', async () => {
    const a = await member(1n);
    a.transport.addPeer(2n, ['http://127.0.0.1:1']);
    a.removed.add(9n);
    const ask = async (path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<string> => {
      const all = { 'X-Raft-To': '1', Connection: 'close', ...headers };
      const { status, text } = await raw(a.port, requestText(method, path, all));
      return `${status} ${text.slice(text.indexOf('\r\n\r\n') + 4)}`;
    };
    assert.equal(await ask('/raft/stream/message/2', {}, 'POST'), '405 Method Not Allowed\n');
    assert.equal(await ask('/raft/stream/message/2', { 'X-Server-Version': '2.3.0' }), '412 incompatible version\n');
    assert.equal(await ask('/raft/stream/message/2', { 'X-Server-Version': '' }), '412 incompatible version\n');
    assert.equal(await ask('/raft/stream/message/2', { 'X-Server-Version': 'new' }), '412 incompatible version\n');
    assert.equal(
      await ask('/raft/stream/message/2', { 'X-Min-Cluster-Version': '3.8.0' }),
      '412 incompatible version\n',
    );
    assert.equal(await ask('/raft/stream/message/9', { 'X-Etcd-Cluster-ID': 'c2' }), '412 cluster ID mismatch\n');
    assert.equal(await ask('/raft/stream/other/2'), '404 invalid path\n');
    assert.equal(await ask('/raft/stream/message/xyz'), '404 invalid from\n');
    assert.equal(await ask('/raft/stream/message/9'), '410 removed member\n');
    assert.equal(await ask('/raft/stream/message/7'), '404 error sender not found\n');
    assert.equal(await ask('/raft/stream/message/2', { 'X-Raft-To': '3' }), '412 to field mismatch\n');
    assert.equal(await ask('/raft/other'), '404 404 page not found\n');
    assert.match(await ask('/raft/probing'), /^200 \{"OK":true,"Now":"20\d\d-.*Z"\}\n$/);
    assert.equal(await ask('/raftlike'), '200 ', 'not ours');
    assert.equal(await ask('/raft'), '405 Method Not Allowed\n');
    assert.equal(await ask('/raft/snapshot'), '405 Method Not Allowed\n');
    assert.equal(a.network.snapshotReceiveFailures.with('UNKNOWN_SNAPSHOT_SENDER').value, 1);
  });

  it('checks a posted message as etcd does', async () => {
    const a = await member(1n);
    a.removed.add(9n);
    const post = async (body: string, headers: Record<string, string> = {}): Promise<string> => {
      const all = { 'Content-Length': String(body.length), Connection: 'close', ...headers };
      const { status, text } = await raw(a.port, requestText('POST', '/raft', all) + body);
      return `${status} ${text.slice(text.indexOf('\r\n\r\n') + 4)}`;
    };
    const message = (to: number, from: number): string => String.fromCharCode(8, 8, 16, to, 24, from, 32, 5);
    assert.equal(await post('\xff\xff'), '400 error unmarshalling raft message\n');
    assert.equal(await post(message(1, 9)), '403 {"message":"cannot process message from removed member"}');
    assert.equal(await post(message(4, 2)), '403 {"message":"cannot process message to mismatch member"}');
    // Raft would answer it to itself, which it asserts never to do.
    assert.equal(await post(message(1, 1)), '403 {"message":"cannot process message from this member"}');
    assert.equal(await post(message(1, 2), { 'X-Etcd-Cluster-ID': 'c2' }), '412 cluster ID mismatch\n');
    assert.deepEqual(a.messages, []);
    assert.equal(await post(message(1, 2)), '204 ');
    assert.equal(a.messages.length, 1);
    // A snapshot without a database, and a body that the sender asks about first.
    assert.equal(await post(message(1, 2).replace('\b\b', '\b\x07')), '400 error unmarshalling raft message\n');
    assert.match(await post(message(1, 2), { Expect: '100-continue' }), /^100 HTTP\/1\.1 204 No Content/);
    assert.equal(a.messages.length, 2);
  });

  it('tells a member that it was removed, by stream and by post', async () => {
    const [a, b] = (await cluster(1n, 2n)) as [TransportMember, TransportMember];
    a.removed.add(2n);
    a.transport.removePeer(2n);
    await until(() => b.refusals.length > 0);
    assert.equal(b.refusals[0], 'the member has been permanently removed from the cluster');
    b.refusals.length = 0;
    await until(() => b.transport.activeSinceMs(1n) === null);
    send(b, heartbeat(2n, 1n, 1));
    await until(() => logged(b, 'on pipeline (the member has been permanently removed').length > 0);
    assert.deepEqual(new Set(b.refusedBy), new Set([1n]));
  });

  it('goes on when another member than it knows is at an address', async () => {
    const a = await member(1n);
    const b = await member(2n);
    // Since b took the place of 3, which a has not heard of yet.
    a.transport.addPeer(3n, [b.url]);
    send(a, heartbeat(1n, 3n, 1));
    await until(() => logged(a, 'unexpected http status Forbidden while posting to').length > 0);
    assert.deepEqual([a.refusals, b.messages], [[], []]);
    assert.ok(a.unreachableIds.includes(3n));
  });

  it('goes on asking a member of another cluster, and says why it is refused', async () => {
    const a = await member(1n);
    const b = await member(2n, { clusterId: 0xc2n });
    a.transport.addPeer(2n, [b.url]);
    send(a, heartbeat(1n, 2n, 1));
    await until(() => logged(a, 'request sent was ignored due to cluster ID mismatch').length === 1);
    await until(() => logged(a, 'request sent was ignored by remote peer due to cluster ID mismatch').length > 2);
    assert.match(
      logged(a, 'ignored by remote peer due to cluster')[0]!,
      /"remote-peer-cluster-id":"c2".*"local-member-cluster-id":"c1"/,
    );
    assert.ok(logged(b, 'request cluster ID mismatch').length > 0);
    assert.deepEqual(a.refusals, []);
  });
});
