// Goal: what a turn appends goes out as one chunk, whole and in order, whatever the other end takes, and what waits is bounded.
// Method: a socket pair of this machine whose reader stops and goes on.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import { peerOutputBytesInitial, peerUnsentBytesMax, peerUnsentWritesMax } from '../cluster-limits.ts';
import { ChunkedBody } from './chunked-body.ts';
import { OutgoingStream } from './outgoing-stream.ts';

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

/** The sender's socket and the reader's, which is paused. */
async function pair(): Promise<[Socket, Socket]> {
  const server = createServer({ allowHalfOpen: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const reader = connect((server.address() as { port: number }).port, '127.0.0.1').pause();
  const [socket] = (await once(server, 'connection')) as [Socket];
  closers.push(() => {
    server.close();
    reader.destroy();
    socket.destroy();
  });
  return [socket, reader];
}

/** Reads up to the end of the stream: the bodies of its chunks, joined. */
async function bodyOf(reader: Socket, head: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of reader) chunks.push(chunk as Buffer);
  const all = Buffer.concat(chunks);
  assert.equal(all.toString('latin1', 0, head.length), head);
  const parts: Buffer[] = [];
  const body = new ChunkedBody((bytes) => parts.push(bytes));
  assert.ok(body.push(all.subarray(head.length)) && body.isDone);
  return Buffer.concat(parts);
}

describe('outgoing stream', () => {
  it('frames a turn as one chunk, and an empty one as none', async () => {
    const [socket, reader] = await pair();
    const stream = new OutgoingStream(socket, 'HEAD\r\n\r\n');
    stream.flush();
    stream.output.copy(Buffer.from('hello, '), 0, 7);
    stream.output.copy(Buffer.from('world'), 0, 5);
    assert.equal(stream.unflushedBytes, 12);
    stream.flush();
    assert.equal(stream.unflushedBytes, 0);
    stream.output.copy(Buffer.alloc(300, 'x'), 0, 300);
    stream.flush();
    stream.close();
    let text = '';
    for await (const chunk of reader) text += chunk;
    assert.equal(text, `HEAD\r\n\r\nc\r\nhello, world\r\n12c\r\n${'x'.repeat(300)}\r\n0\r\n\r\n`);
  });

  it('keeps what waits as it was, and grows for large turns', async () => {
    const [socket, reader] = await pair();
    const stream = new OutgoingStream(socket, 'H\r\n\r\n');
    const sent: Buffer[] = [];
    for (let turn = 0; stream.pendingBytes < 3_000_000; turn++) {
      const bytes = Buffer.alloc(turn % 7 === 0 ? 3 * peerOutputBytesInitial : 100 + turn, turn % 256);
      sent.push(bytes);
      stream.output.copy(bytes, 0, bytes.length);
      stream.flush();
    }
    const received = bodyOf(reader, 'H\r\n\r\n');
    await new Promise<void>((resolve) => {
      const poll = (): void => void (stream.pendingBytes === 0 ? resolve() : setTimeout(poll, 1));
      poll();
    });
    assert.equal(stream.tick(), 0);
    stream.close();
    assert.ok(Buffer.concat(sent).equals(await received));
  });

  it('writes large parts from where they are, whether the socket takes them or they wait', async () => {
    const [socket, reader] = await pair();
    const stream = new OutgoingStream(socket, 'H\r\n\r\n');
    const sent: Buffer[] = [];
    const text = (bytes: string): void => {
      stream.output.copy(Buffer.from(bytes), 0, bytes.length);
      sent.push(Buffer.from(bytes));
    };
    let waited = 0;
    for (let turn = 0; waited < 10; turn++) {
      if (stream.pendingBytes > 0) waited++;
      const before = stream.pendingBytes;
      text(`before ${turn}`);
      for (const part of [Buffer.alloc(300_000, turn), Buffer.alloc(5, turn)]) {
        stream.output.splice(part);
        sent.push(part);
        text(`behind ${turn}`);
      }
      assert.ok(stream.unflushedBytes > 300_000 && stream.pendingBytes === before + stream.unflushedBytes);
      stream.flush();
      assert.equal(stream.unflushedBytes, 0);
    }
    const received = bodyOf(reader, 'H\r\n\r\n');
    await new Promise<void>((resolve) => {
      const poll = (): void => void (stream.pendingBytes === 0 ? resolve() : setTimeout(poll, 1));
      poll();
    });
    assert.equal(stream.tick(), 0);
    stream.close();
    assert.ok(Buffer.concat(sent).equals(await received));
  });

  it('is full by bytes or by writes, and says how long nothing was taken', async () => {
    for (const size of [1 << 20, 10]) {
      const [socket] = await pair();
      const stream = new OutgoingStream(socket, 'H\r\n\r\n');
      const bytes = Buffer.alloc(size);
      // What the kernel takes does not wait.
      while (stream.pendingBytes === 0) {
        stream.output.copy(Buffer.alloc(1 << 20), 0, 1 << 20);
        stream.flush();
      }
      // The socket tells in a later turn what it has taken.
      await new Promise((resolve) => setImmediate(resolve));
      let writes = 0;
      while (!stream.isFull) {
        stream.output.copy(bytes, 0, size);
        stream.flush();
        writes++;
      }
      assert.ok(size === 10 ? writes >= peerUnsentWritesMax - 1 : stream.pendingBytes > peerUnsentBytesMax);
      assert.ok(stream.pendingBytes < peerUnsentBytesMax + 2 * (1 << 20));
      assert.equal(stream.tick(), 1);
      assert.equal(stream.tick(), 2);
      stream.close();
    }
  });

  it('takes it for progress that a part of one large write is taken', async () => {
    const [socket, reader] = await pair();
    const stream = new OutgoingStream(socket, 'H\r\n\r\n');
    const part = Buffer.alloc(1 << 20);
    while (!stream.isFull) stream.output.splice(part);
    stream.flush();
    reader.on('data', () => {});
    const left = (): number => (socket as unknown as { _handle: { writeQueueSize: number } })._handle.writeQueueSize;
    stream.tick();
    // At each tick the system has taken some more of it, and the socket has told of none.
    for (let tick = 0; tick < 3; tick++) {
      const before = left();
      reader.resume();
      while (left() === before) await new Promise((resolve) => setImmediate(resolve));
      reader.pause();
      assert.ok(socket.writableLength > 1 << 20, 'the write is not done');
      assert.equal(stream.tick(), 0);
    }
    // Nobody reads any more: what the kernel still has room for is taken, then none is none.
    while (stream.tick() === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    stream.close();
  });

  it('tells once that the other end is gone', async () => {
    const [socket, reader] = await pair();
    const stream = new OutgoingStream(socket, 'H\r\n\r\n');
    let calls = 0;
    const closed = new Promise<void>((resolve) => {
      stream.onClosed = (): void => {
        calls++;
        resolve();
      };
    });
    reader.resume().end();
    await closed;
    stream.output.copy(Buffer.from('x'), 0, 1);
    stream.flush();
    stream.close();
    assert.equal(calls, 1);
  });
});
