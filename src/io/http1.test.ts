// Goal: connections handed over with bytes already read are served as HTTP/1.1, within bounds. Method: raw sockets.

import assert from 'node:assert/strict';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { Http1Server } from './http1.ts';

describe('http1', () => {
  let listener: Server;
  let http: Http1Server;
  let port: number;
  const errors: unknown[] = [];

  before(async () => {
    http = new Http1Server({
      bodyBytesMax: 100,
      onError: (error) => errors.push(error),
      handler: async (request) => {
        if (request.target === '/throw') throw new Error('bug');
        return {
          status: 200,
          headers: { 'X-Secure': String(request.secure) },
          body: `${request.method} ${request.target} ${request.host} ${request.body}`,
        };
      },
    });
    listener = createServer((socket) => {
      socket.once('readable', () => http.accept(socket, socket.read() ?? undefined));
    });
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    port = (listener.address() as { port: number }).port;
  });
  after(async () => {
    await http.close(100);
    listener.close();
  });

  async function raw(text: string): Promise<string> {
    const socket: Socket = connect(port, '127.0.0.1');
    socket.write(text);
    let answer = '';
    for await (const chunk of socket) answer += chunk;
    return answer;
  }

  it('serves requests one after another on a connection', async () => {
    const answer = await raw(
      'GET /a?b HTTP/1.1\r\nHost: h:1\r\n\r\nPOST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxyHEAD /d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n',
    );
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\nX-Secure: false\r\nContent-Length: 13\r\n/);
    assert.match(answer, /\r\n\r\nGET \/a\?b h:1 HTTP/);
    assert.match(answer, /\r\n\r\nPOST \/c h xyHTTP/);
    assert.match(answer, /Content-Length: 10\r\n[\s\S]*\r\n\r\n$/);
  });

  it('bounds bodies and headers and refuses garbage', async () => {
    assert.match(
      await raw(`POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n${'x'.repeat(101)}`),
      /^HTTP\/1\.1 413 /,
    );
    const chunked = `POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n80\r\n${'x'.repeat(128)}\r\n0\r\n\r\n`;
    assert.match(await raw(chunked), /^HTTP\/1\.1 413 /);
    assert.match(await raw(`GET / HTTP/1.1\r\nHost: h\r\nX: ${'y'.repeat(70_000)}\r\n\r\n`), /^HTTP\/1\.1 4\d\d /);
    assert.match(await raw('garbage\r\n\r\n'), /^HTTP\/1\.1 400 Bad Request\r\n/);
  });

  it('answers what came whole before it refuses the rest, and ends where a request says so', async () => {
    const get = (path: string, more = ''): string => `GET ${path} HTTP/1.1\r\nHost: h\r\n${more}\r\n`;
    const ends = await raw(get('/a', 'Connection: close\r\n') + get('/b'));
    assert.match(ends, /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\nGET \/a h $/, 'what came behind is not looked at');
    const broken = await raw(`${get('/a')}${get('/b')}nonsense\r\n\r\n`);
    assert.deepEqual(broken.match(/GET \/[ab] h |HTTP\/1\.1 \d+/g), [
      ...['HTTP/1.1 200', 'GET /a h ', 'HTTP/1.1 200', 'GET /b h '],
      'HTTP/1.1 400',
    ]);
    // A request whose body breaks off has no answer of its own.
    const inBody = await raw('POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n');
    assert.match(inBody, /^HTTP\/1\.1 400 Bad Request\r\n/);
  });

  it('has Go’s words about hosts, codings and expectations, and says nothing of a connection that stays', async () => {
    const first = async (text: string): Promise<string> => (await raw(text)).split('\r\n')[0]!;
    assert.equal(await first('GET / HTTP/1.1\r\n\r\n'), 'HTTP/1.1 400 Bad Request: missing required Host header');
    assert.equal(await first('GET / HTTP/1.1\r\nHost: a b\r\n\r\n'), 'HTTP/1.1 400 Bad Request: malformed Host header');
    assert.equal(await first('GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n'), 'HTTP/1.1 400 Bad Request');
    assert.match(await first('GET / HTTP/1.0\r\n\r\n'), / 200 OK$/, 'HTTP/1.0 has no hosts');
    const post = 'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n';
    const unread = await raw(`${post}Expect: 100-continue\r\n\r\n`);
    assert.match(unread, /^HTTP\/1\.1 200 OK\r\nConnection: close\r\n[\s\S]*\r\n\r\nPOST \/ h $/, 'without its body');
    assert.match(await first(`${post}Expect: tea\r\n\r\n`), / 417 Expectation Failed$/);
    const coded = await first('POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: tea\r\n\r\n');
    assert.equal(coded, 'HTTP/1.1 501 Not Implemented');
    const kept = 'GET / HTTP/1.1\r\nHost: h\r\n\r\n';
    const two = (await raw(`${kept}GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`)).split('HTTP/1.1 200 OK');
    assert.doesNotMatch(two[1]!, /Connection|Keep-Alive/);
    assert.match(two[2]!, /Connection: close/);
  });

  it('says to CONNECT that there is nothing, behind what it answers before', async () => {
    const connect = 'CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n';
    assert.match(await raw(connect), /^HTTP\/1\.1 404 Not Found\r\n[\s\S]*\r\n\r\n404 page not found\n$/);
    const both = await raw(`GET /a HTTP/1.1\r\nHost: h\r\n\r\n${connect}`);
    assert.deepEqual(both.match(/GET \/a h |HTTP\/1\.1 \d+/g), ['HTTP/1.1 200', 'GET /a h ', 'HTTP/1.1 404']);
  });

  it('answers a bug with 500', async () => {
    assert.match(await raw('GET /throw HTTP/1.1\r\nHost: h\r\n\r\n'), /^HTTP\/1\.1 500 /);
    assert.equal((errors[0] as Error).message, 'bug');
  });
});

describe('http1 with a bound on silence', () => {
  let listener: Server;
  let http: Http1Server;
  let port: number;

  before(async () => {
    http = new Http1Server({
      bodyBytesMax: 100,
      silenceMs: 200,
      onError: (error) => assert.fail(String(error)),
      handler: async ({ target }) => {
        if (target === '/slow') await new Promise((resolve) => setTimeout(resolve, 700));
        return { status: 200, headers: {}, body: target };
      },
    });
    listener = createServer((socket) => http.accept(socket));
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    port = (listener.address() as { port: number }).port;
  });
  after(async () => {
    await http.close(100);
    listener.close();
  });

  /** Sends the text and nothing more; what came until the other end closed. */
  async function answerTo(text: string): Promise<string> {
    const socket = connect(port, '127.0.0.1');
    if (text !== '') socket.write(text);
    let answer = '';
    for await (const chunk of socket) answer += chunk;
    return answer;
  }

  it('closes who says nothing, half a request, or nothing more', { timeout: 20_000 }, async () => {
    await answerTo('');
    await answerTo('GET / HTTP/1.1\r\nHost:');
    await answerTo('POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\nabc');
    assert.match(await answerTo('GET /once HTTP/1.1\r\nHost: h\r\n\r\n'), /\/once$/);
  });

  it('but not while the answer is ours to give', async () => {
    assert.match(await answerTo('GET /slow HTTP/1.1\r\nHost: h\r\n\r\n'), /\/slow$/);
  });
});
