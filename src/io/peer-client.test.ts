// Goal: requests to peers end once, with the answer or with Go's words for what went wrong. Method: servers on real sockets, TCP and
// unix, that behave and that do not.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { peerAnswerBytesMax } from '../cluster-limits.ts';
import { parsePeerUrl } from './peer-address.ts';
import { PeerClient } from './peer-client.ts';
import { PeerDialer } from './peer-dialer.ts';
import type { PeerAnswer, PeerRequest } from './peer-request.ts';

const closers: (() => void)[] = [];
after(() => {
  for (const close of closers) close();
});

const client = new PeerClient({ dialer: new PeerDialer(500) });
closers.push(() => client.stop());

function ask(url: string, request: Partial<PeerRequest> = {}, by: PeerClient = client): Promise<PeerAnswer> {
  return new Promise((resolve, reject) => {
    let isOver = false;
    by.request(url, { method: 'GET', path: '/members', ...request }, (error, answer) => {
      assert.ok(!isOver, 'done twice');
      isOver = true;
      if (error !== null) reject(error);
      else resolve(answer!);
    });
    assert.ok(!isOver, 'done in the same turn');
  });
}

async function listen(server: Server, where: string | number): Promise<string> {
  await new Promise<void>((resolve) => {
    if (typeof where === 'string') server.listen(where, resolve);
    else server.listen(where, '127.0.0.1', resolve);
  });
  closers.push(() => server.close());
  const address = server.address();
  return typeof address === 'string' ? `unix://${address}` : `http://127.0.0.1:${address!.port}`;
}

/** Answers each connection's first bytes with `text`. */
async function rawServer(answer: (socket: Socket) => void): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => answer(socket));
    closers.push(() => socket.destroy());
  });
  return await listen(server, 0);
}

describe('peer client', () => {
  it('asks over TCP and over unix sockets', async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'peer-client-'));
    closers.push(() => rmSync(directory, { recursive: true }));
    for (const where of [0, path.join(directory, 'p.sock')]) {
      const server = createHttpServer((request, response) => {
        const body: Buffer[] = [];
        request.on('data', (chunk) => body.push(chunk));
        request.on('end', () => {
          response.setHeader('X-Host', request.headers.host ?? '');
          response.statusCode = 201;
          response.end(`${request.method} ${request.url} ${request.headers['x-a']} ${Buffer.concat(body)}`);
        });
      });
      const url = await listen(server, where);
      const posted = { method: 'POST', path: '/p?q=1', headers: { 'X-A': 'a' }, body: Buffer.from('body') } as const;
      const answer = await ask(url, posted);
      assert.equal(answer.status, 201);
      assert.equal(answer.body.toString(), 'POST /p?q=1 a body');
      if (where === 0) assert.equal(`http://${answer.headers['x-host']}`, url);
      // Twice, over the same connection.
      assert.equal((await ask(url)).body.toString(), 'GET /members undefined ');
      server.closeAllConnections();
      // The kept connection is gone: asked again on a new one.
      assert.equal((await ask(url)).status, 201);
      closers.push(() => server.closeAllConnections());
    }
  });

  it('sends again what a kept connection took without an answer, but not what may come only once', async () => {
    for (const [onlyOnce, requestCount] of [
      [false, 3],
      [true, 2],
    ] as const) {
      let count = 0;
      const server = createServer((socket) => {
        socket.on('error', () => {});
        closers.push(() => socket.destroy());
        socket.on('data', () => {
          // Taken, and gone before the answer.
          if (++count === 2) socket.destroy();
          else socket.write('HTTP/1.1 204 No Content\r\n\r\n');
        });
      });
      const url = await listen(server, 0);
      assert.equal((await ask(url)).status, 204);
      const second = ask(url, { method: 'POST', body: Buffer.from('proposals'), onlyOnce });
      if (onlyOnce) await assert.rejects(second, { message: 'unexpected EOF' });
      else assert.equal((await second).status, 204);
      assert.equal(count, requestCount);
    }
  });

  it('says what is wrong as Go does', async () => {
    await assert.rejects(ask('http://127.0.0.1:1'), { message: 'dial tcp 127.0.0.1:1: connect: connection refused' });
    await assert.rejects(
      ask('unix:///nowhere/x'),
      /^Error: dial unix \/nowhere\/x: connect: no such file or directory$/,
    );
    await assert.rejects(ask('https://127.0.0.1:1'), /https is not supported for peers yet/);
    await assert.rejects(ask('ftp://127.0.0.1:1'), /no peer URL/);
    const broken = await rawServer((socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc'));
    await assert.rejects(ask(broken), { message: 'unexpected EOF' });
    const mute = await rawServer((socket) => socket.end());
    await assert.rejects(ask(mute), { message: 'unexpected EOF' });
  });

  it('gives up in time, and takes no answer beyond its bound', async () => {
    const silent = await rawServer(() => {});
    await assert.rejects(ask(silent, { timeoutMs: 30 }), { message: 'context deadline exceeded' });
    const trickle = await rawServer((socket) => socket.write('HTTP/1.1 200 OK\r\n\r\nabc'));
    await assert.rejects(ask(trickle, { timeoutMs: 30 }), { message: 'context deadline exceeded' });
    const endless = await rawServer((socket) => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      socket.end(Buffer.alloc(peerAnswerBytesMax + 1));
    });
    await assert.rejects(ask(endless), /longer than/);
  });

  it('ends what is under way when it stops', async () => {
    const silent = await rawServer(() => {});
    const other = new PeerClient({ dialer: new PeerDialer(500) });
    const asked = ask(silent, {}, other);
    await new Promise((resolve) => setTimeout(resolve, 20));
    other.stop();
    await assert.rejects(asked, { message: 'stopped' });
    await assert.rejects(ask(silent, {}, other), { message: 'stopped' });
  });
});

describe('peer address', () => {
  it('is of the forms that etcd takes', () => {
    const plain = { isSecure: false, socketPath: '' };
    assert.deepEqual(parsePeerUrl('http://a.b:2380'), { ...plain, host: 'a.b', port: 2380, authority: 'a.b:2380' });
    assert.deepEqual(parsePeerUrl('http://[::1]:1/'), { ...plain, host: '::1', port: 1, authority: '[::1]:1' });
    assert.equal(parsePeerUrl('https://a:1')!.isSecure, true);
    assert.equal(parsePeerUrl('unix://localhost:m1')!.socketPath, 'localhost:m1');
    assert.equal(parsePeerUrl('unixs:///a/b')!.socketPath, '/a/b');
    for (const url of [
      '',
      'http://a',
      'http://a:99999',
      'http://a:1/x',
      'tcp://a:1',
      'unix://',
      'http://:1',
      'http://u@a:1',
    ]) {
      assert.equal(parsePeerUrl(url), null, url);
    }
  });
});
