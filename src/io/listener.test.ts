// Goal: one port serves HTTP/2 and HTTP/1.1, on TCP and unix sockets, and a peer that does not read costs bounded memory.
// Method: the echo server on real sockets, clients of node's own modules and bare sockets.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { http2Limits } from '../connection-limits.ts';
import { type EchoServer, startEchoServer } from '../testing/echo-server.ts';
import { frameOf, grpcMessage, setting, uint32 } from '../testing/http2-client.ts';
import { ConnectionQuota } from './connection-quota.ts';
import { Listener, parseListenAddress, parseListenAddresses } from './listener.ts';

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function withServer(run: (server: EchoServer) => Promise<void>): Promise<void> {
  const server = await startEchoServer([{ host: '127.0.0.1', port: 0 }]);
  try {
    await run(server);
  } finally {
    await server.close();
  }
}

async function http1(options: { port?: number; socketPath?: string }, url: string): Promise<string> {
  return await new Promise((resolve, reject) => {
    const request = get({ ...options, host: '127.0.0.1', path: url, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => resolve(text));
    });
    request.on('error', reject);
  });
}

async function http2(url: string, options: object = {}): Promise<string> {
  const session = connectHttp2(url, options);
  const stream = session.request({ ':path': '/two' });
  let text = '';
  for await (const part of stream) text += String(part);
  session.close();
  return text;
}

/** Everything until the other side closes. */
async function readAll(socket: Socket): Promise<string> {
  const parts: Buffer[] = [];
  socket.on('data', (part: Buffer) => parts.push(part));
  await once(socket, 'close');
  return Buffer.concat(parts).toString('latin1');
}

test('addresses', () => {
  assert.deepEqual(parseListenAddress('127.0.0.1:2379'), { host: '127.0.0.1', port: 2379 });
  assert.deepEqual(parseListenAddress('[::1]:2379'), { host: '::1', port: 2379 });
  assert.deepEqual(parseListenAddress(':0'), { host: '', port: 0 });
  assert.deepEqual(parseListenAddress('unix:///run/a.sock'), { path: '/run/a.sock' });
  assert.deepEqual(parseListenAddress('unix:a.sock'), { path: 'a.sock' });
  for (const bad of ['', 'host', 'host:', 'host:x', 'host:70000', '::1:2379', 'unix:', 'a:b:1']) {
    assert.equal(parseListenAddress(bad), null, bad);
  }
  assert.equal(parseListenAddresses('a:1, [::1]:2,unix:c')?.length, 3);
  assert.equal(parseListenAddresses('a:1,,b:2'), null);
});

test('HTTP/1.1 and HTTP/2 on one port', async () => {
  await withServer(async ({ port }) => {
    assert.equal(await http1({ port }, '/one'), 'http/1.1 /one\n');
    assert.equal(await http2(`http://127.0.0.1:${port}`), 'echo of /two\n');
  });
});

test('the first bytes may come one by one', async () => {
  await withServer(async ({ port }) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    const answer = readAll(socket);
    for (const byte of 'GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n') {
      socket.write(byte);
      await wait(1);
    }
    assert.match(await answer, /^HTTP\/1\.1 200 OK(?:.|\n|\r)*http\/1\.1 \/slow\n/);
    const two = connect({ port, host: '127.0.0.1', noDelay: true });
    for (const byte of 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n') {
      two.write(byte);
      await wait(1);
    }
    two.write(frameOf(4, 0, 0));
    const [first] = await once(two, 'data');
    assert.equal((first as Buffer)[3], 4, 'SETTINGS');
    two.destroy();
  });
});

test('what is neither is closed without a word', async () => {
  await withServer(async ({ port }) => {
    for (const bytes of ['INVALID CONNECTION PREFACE\r\n\r\n', '\x16\x03\x01\x00\x05hello', 'x'.repeat(5000)]) {
      const socket = connect({ port, host: '127.0.0.1' });
      const answer = readAll(socket);
      socket.on('error', () => {});
      socket.write(bytes, 'latin1');
      assert.equal(await answer, '', bytes.slice(0, 20));
    }
    assert.equal(await http1({ port }, '/still'), 'http/1.1 /still\n');
  });
});

test('a peer that closes right away is no trouble', async () => {
  await withServer(async ({ port, grpc }) => {
    for (const bytes of ['', 'P', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n']) {
      const socket = connect({ port, host: '127.0.0.1' });
      await once(socket, 'connect');
      if (bytes !== '') socket.write(bytes);
      socket.end();
      socket.resume();
      await once(socket, 'close');
    }
    for (let i = 0; i < 100 && grpc.connectionCount > 0; i += 1) await wait(5);
    assert.equal(grpc.connectionCount, 0);
  });
});

test('unix sockets: a leftover file is replaced, a living server is not', async () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'keelson-listener-'));
  const socketPath = path.join(directory, 'a.sock');
  try {
    // What a process that was killed leaves: a bound path that nobody accepts on.
    const left = createServer().listen(socketPath);
    await once(left, 'listening');
    const options = { http2: () => assert.fail(), http1: null, tls: null };
    await assert.rejects(Listener.listen({ addresses: [{ path: socketPath }], ...options }), /EADDRINUSE/);
    await new Promise((resolve) => left.close(resolve));
    assert.equal(existsSync(socketPath), false);
    const child = await import('node:child_process');
    const script = `require('net').createServer().listen(${JSON.stringify(socketPath)}, () => process.kill(process.pid, 'SIGKILL'))`;
    child.spawnSync(process.execPath, ['-e', script]);
    assert.equal(existsSync(socketPath), true);
    const server = await startEchoServer([{ path: socketPath }]);
    assert.deepEqual(server.addresses, [socketPath]);
    assert.equal(await http1({ socketPath }, '/unix'), 'http/1.1 /unix\n');
    assert.equal(await http2('http://localhost', { createConnection: () => connect(socketPath) }), 'echo of /two\n');
    await server.close();
    // A file that is no socket is never removed.
    const file = path.join(directory, 'file');
    writeFileSync(file, 'precious');
    await assert.rejects(Listener.listen({ addresses: [{ path: file }], ...options }), /EADDRINUSE/);
    assert.equal(existsSync(file), true);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('all addresses or none', async () => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as { port: number };
  const addresses = [
    { host: '127.0.0.1', port: 0 },
    { host: '127.0.0.1', port },
  ];
  await assert.rejects(
    Listener.listen({ addresses, http2: () => assert.fail(), http1: null, tls: null }),
    /EADDRINUSE/,
  );
  taken.close();
});

test('connections that come before it serves wait unread, and are served then', async () => {
  const listener = await Listener.bind([{ host: '127.0.0.1', port: 0 }]);
  const port = Number(listener.addresses()[0]!.split(':')[1]);
  const requests = ['GET /early HTTP/1.1\r\n\r\n', 'GET /large HTTP/1.1\r\n\r\n'.padEnd(300_000, 'x')];
  const sockets: Socket[] = [];
  for (const request of requests) {
    const socket = connect({ port, host: '127.0.0.1' });
    await once(socket, 'connect');
    socket.write(request);
    sockets.push(socket);
  }
  // One that gives up before: it is forgotten.
  const gone = connect({ port, host: '127.0.0.1' });
  await once(gone, 'connect');
  gone.resetAndDestroy();
  await wait(50);
  const seen: string[] = [];
  const taken: Socket[] = [];
  listener.serve({
    http2: null,
    http1: (socket, firstBytes) => {
      seen.push(firstBytes.toString('latin1', 0, 10));
      taken.push(socket);
      socket.end(`served ${firstBytes.toString('latin1', 5, 10)}`);
    },
    tls: null,
  });
  const answers = await Promise.all(sockets.map(readAll));
  assert.deepEqual(answers, ['served early', 'served large']);
  assert.deepEqual(seen, ['GET /early', 'GET /large']);
  const late = connect({ port, host: '127.0.0.1' });
  late.write('GET /after HTTP/1.1\r\n\r\n');
  assert.equal(await readAll(late), 'served after');
  // Without a taker the connection is closed, as when it speaks nonsense.
  const two = connect({ port, host: '127.0.0.1' });
  two.on('error', () => {});
  two.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  assert.equal(await readAll(two), '');
  for (const socket of taken) socket.destroy();
  await listener.close();
});

test('beyond its quota the oldest silent connection makes way; when all have spoken, new ones are closed', async (t) => {
  const quota = new ConnectionQuota(3);
  const addresses = [{ host: '127.0.0.1', port: 0 }];
  const listeners = [await Listener.bind(addresses, quota), await Listener.bind(addresses, quota)];
  const ports = listeners.map((listener) => Number(listener.addresses()[0]!.split(':')[1]));
  const taken: Socket[] = [];
  const takers = {
    http2: null,
    tls: null,
    http1: (socket: Socket): void => void taken.push(socket.resume().on('end', () => socket.destroy())),
  };
  for (const listener of listeners) listener.serve(takers);
  const opened: Socket[] = [];
  t.after(async () => {
    for (const socket of [...opened, ...taken]) socket.destroy();
    for (const listener of listeners) await listener.close();
  });
  const dial = async (port: number, text: string): Promise<Socket> => {
    const socket = connect({ port, host: '127.0.0.1' }).on('error', () => {});
    opened.push(socket);
    await once(socket, 'connect');
    const known = taken.length;
    if (text !== '') socket.write(text);
    // Taken, or closed.
    for (let i = 0; i < 200 && taken.length === known && socket.readyState === 'open'; i++)
      await wait(text === '' ? 0 : 5);
    return socket.resume();
  };
  const request = 'GET / HTTP/1.1\r\n\r\n';
  const first = await dial(ports[0]!, request);
  const silent = await dial(ports[0]!, '');
  const second = await dial(ports[1]!, request);
  assert.deepEqual([quota.open, taken.length], [3, 2]);
  const third = await dial(ports[0]!, request);
  if (!silent.closed) await once(silent, 'close');
  assert.deepEqual([quota.open, taken.length], [3, 3]);
  // Nobody is silent now.
  for (const port of ports) {
    const refused = await dial(port, '');
    if (!refused.closed) await once(refused, 'close');
  }
  assert.deepEqual([quota.open, taken.length], [3, 3]);
  assert.deepEqual(
    [first, second, third].map(({ readyState }) => readyState),
    ['open', 'open', 'open'],
  );
  // A place that is given back is taken again, at whichever listener.
  first.destroy();
  for (let i = 0; i < 200 && quota.open === 3; i++) await wait(5);
  await dial(ports[1]!, request);
  assert.deepEqual([quota.open, taken.length], [3, 4]);
});

test('a listener that is closed before it serves leaves no connection', async () => {
  const listener = await Listener.bind([{ host: '127.0.0.1', port: 0 }]);
  const socket = connect({ port: Number(listener.addresses()[0]!.split(':')[1]), host: '127.0.0.1' });
  socket.on('error', () => {});
  await once(socket, 'connect');
  await wait(20);
  await listener.close();
  assert.equal(await readAll(socket), '');
});

/** A connection that has said hello and gives the server all the window there is. */
async function rawHttp2(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  await once(socket, 'connect');
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  socket.write(Buffer.concat([frameOf(4, 0, 0, setting(4, 0x7fffffff)), frameOf(8, 0, 0, uint32(0x7fff0000))]));
  return socket;
}

/** :method POST and :scheme http of the static table, then literals that enter no table: the same bytes in each request. */
function callBlock(method: string): Buffer {
  const field = (name: string, value: string): string =>
    `\x00${String.fromCharCode(name.length)}${name}${String.fromCharCode(value.length)}${value}`;
  const text = `\x83\x86${field(':path', `/echo.Echo/${method}`)}${field('content-type', 'application/grpc')}`;
  return Buffer.from(text, 'latin1');
}

test('a slow reader of streams: what it asked for waits in the handlers, not in memory', async () => {
  await withServer(async ({ port, grpc }) => {
    const socket = await rawHttp2(port);
    const block = callBlock('Many');
    // 200 streams of 1,000 messages of 10,000 bytes: 2 GB are asked for, nobody reads.
    for (let id = 1; id < 401; id += 2) {
      socket.write(Buffer.concat([frameOf(1, 4, id, block), frameOf(0, 1, id, grpcMessage('1000 10000'))]));
    }
    await wait(300);
    const [connection] = [...grpc.list()];
    const { writer } = connection!.http2;
    assert.ok(writer.pendingBytes > 1_000_000 && writer.pendingBytes < 200 * 100_000, `${writer.pendingBytes}`);
    assert.ok(writer.output.length + writer.transportPendingBytes < 3_000_000);
    assert.equal(await http2(`http://127.0.0.1:${port}`), 'echo of /two\n');
    socket.destroy();
    for (let i = 0; i < 100 && grpc.connectionCount > 0; i += 1) await wait(10);
    assert.equal(grpc.connectionCount, 0);
  });
});

test('a client that asks and does not read is not read from, until it reads: then every answer comes', async () => {
  await withServer(async ({ port, grpc }) => {
    const socket = await rawHttp2(port);
    socket.pause();
    const block = callBlock('None');
    const count = 300_000;
    for (let first = 0; first < count; first += 1000) {
      const batch = Array.from({ length: 1000 }, (_, i) => frameOf(1, 5, (first + i) * 2 + 1, block));
      socket.write(Buffer.concat(batch));
    }
    for (let i = 0; i < 500 && [...grpc.list()][0]?.inputPaused !== true; i += 1) await wait(10);
    const [connection] = [...grpc.list()];
    assert.ok(connection!.inputPaused);
    await wait(100);
    const { writer } = connection!.http2;
    const held = writer.output.length + writer.transportPendingBytes;
    assert.ok(held < http2Limits.outputPauseBytes + 500_000, `${held}`);
    assert.ok(socket.writableLength > 1_000_000, 'the rest waits at the client');
    assert.equal(await http2(`http://127.0.0.1:${port}`), 'echo of /two\n');
    // Now it reads: trailers-only answers, END_STREAM and END_HEADERS on each.
    let answers = 0;
    let rest: Buffer = Buffer.alloc(0);
    socket.on('data', (part: Buffer) => {
      const bytes = Buffer.concat([rest, part]);
      let at = 0;
      while (bytes.length - at >= 9 && bytes.length - at >= 9 + bytes.readUIntBE(at, 3)) {
        if (bytes[at + 3] === 1 && bytes[at + 4] === 5) answers += 1;
        at += 9 + bytes.readUIntBE(at, 3);
      }
      rest = bytes.subarray(at);
    });
    socket.resume();
    for (let i = 0; i < 1000 && answers < count; i += 1) await wait(10);
    assert.equal(answers, count);
    socket.destroy();
  });
});

test('a fast reader gets everything that a slow one left waiting', async () => {
  await withServer(async ({ port }) => {
    const session = connectHttp2(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 0x7fffffff } });
    await once(session, 'connect');
    session.setLocalWindowSize(0x7fffffff);
    const stream = session.request({
      ':method': 'POST',
      ':path': '/echo.Echo/Many',
      'content-type': 'application/grpc',
    });
    stream.end(grpcMessage('20000 1000'));
    stream.pause();
    await wait(300);
    let bytes = 0;
    stream.on('data', (part: Buffer) => {
      bytes += part.length;
    });
    stream.resume();
    await once(stream, 'end');
    assert.equal(bytes, 20_000 * 1005);
    session.close();
  });
});
